"""Public WebSocket v2 channels: snapshots to who subscribes, updates to all who have.

A book is made once for everybody who subscribed to it with the same depth: what all of them have
seen is kept as a view, and the next update says what has changed since. Trades go out at once, the rest when the
server flushes.
"""

from collections.abc import Iterable, Sequence

from matching.model import Side
from venues.simulator.commands import LevelChanged, VenueEvent
from venues.simulator.connections import Json
from venues.simulator.kraken import market_data, market_frames
from venues.simulator.kraken.context import Kraken
from venues.simulator.kraken.market_frames import View, frame
from venues.simulator.kraken.names import Pair
from venues.simulator.kraken.numbers import rfc3339
from venues.simulator.kraken.sessions import Session
from venues.simulator.model import PublicTrade


class PublicChannels:
    """What is due to public subscribers."""

    def __init__(self, kraken: Kraken) -> None:
        self._kraken = kraken
        self._views: dict[tuple[str, int], View] = {}
        self._changed: set[str] = set()
        self._traded: set[str] = set()
        self._best: dict[str, tuple[int, ...]] = {}

    def send_instruments(self, session: Session, now_ms: int) -> None:
        """All assets and pairs."""
        assets = self._kraken.core.state.assets.values()
        frame_of_all = market_frames.instrument(assets, self._kraken.directory.pairs)
        session.offer("instrument", frame_of_all, now_ms)

    def send_ticker(self, session: Session, pair: Pair, now_ms: int) -> None:
        """A ticker's snapshot."""
        row = market_frames.ticker(pair, self._kraken.market(pair), now_ms)
        session.offer(f"ticker/{pair.symbol}", frame("ticker", "snapshot", [row]), now_ms)

    def send_trades(self, session: Session, pair: Pair, now_ms: int) -> None:
        """The latest trades, if there are any."""
        latest = list(self._kraken.market(pair).trades)[-market_frames.TRADES_SNAPSHOT :]
        rows = [market_frames.trade(pair, event) for event in latest]
        if rows:
            session.offer(f"trade/{pair.symbol}", frame("trade", "snapshot", rows), now_ms)

    def send_candles(self, session: Session, pair: Pair, minutes: int, now_ms: int) -> None:
        """The candles there are, if there are any."""
        rows = self._candles(pair, minutes)
        if rows:
            shown = self._candle_frame("snapshot", rows, now_ms)
            session.offer(f"ohlc/{pair.symbol}", shown, now_ms)

    def send_book(
        self,
        session: Session,
        pair: Pair,
        depth: int,
        sessions: Iterable[Session],
        now_ms: int,
        *,
        with_snapshot: bool,
    ) -> None:
        """A book's snapshot. Others are brought up to it first: from now on all see the same view."""
        self._update_book(pair, depth, sessions, now_ms)
        view = market_frames.view_of(self._kraken.market(pair), depth)
        self._views[pair.symbol, depth] = view
        if with_snapshot:
            snapshot = market_frames.book_snapshot(pair, view, now_ms)
            session.offer(f"book/{pair.symbol}", snapshot, now_ms)

    def publish(
        self, events: Sequence[VenueEvent], sessions: Sequence[Session], now_ms: int
    ) -> None:
        """Send trades, and remember what else has changed."""
        directory = self._kraken.directory
        trades: dict[str, list[Json]] = {}
        for event in events:
            if isinstance(event, LevelChanged):
                self._changed.add(event.symbol)
            elif isinstance(event, PublicTrade):
                self._traded.add(event.symbol)
                pair = directory.of_market(event.symbol)
                trades.setdefault(pair.symbol, []).append(market_frames.trade(pair, event))
        for symbol, rows in trades.items():
            update = frame("trade", "update", rows)
            for session in sessions:
                if symbol in session.trades:
                    session.offer(f"trade/{symbol}", update, now_ms)

    def flush(self, sessions: Sequence[Session], now_ms: int) -> None:
        """Send books, tickers and candles that have changed since the last time."""
        changed, self._changed = self._changed, set()
        traded, self._traded = self._traded, set()
        for pair in self._kraken.directory.pairs:
            market = pair.spec.name
            if market in changed:
                for depth in sorted({s.books.get(pair.symbol, 0) for s in sessions} - {0}):
                    self._update_book(pair, depth, sessions, now_ms)
            if market in changed or market in traded:
                is_new = self._note_best(pair, now_ms)
                due = ({"bbo"} if is_new else set()) | ({"trades"} if market in traded else set())
                self._update_tickers(pair, due, sessions, now_ms)
            if market in traded:
                self._update_candles(pair, sessions, now_ms)

    def forget_books(self, sessions: Sequence[Session]) -> None:
        """Drop views that nobody sees any more."""
        seen = {(symbol, depth) for s in sessions for symbol, depth in s.books.items()}
        self._views = {key: view for key, view in self._views.items() if key in seen}

    def _update_book(
        self, pair: Pair, depth: int, sessions: Iterable[Session], now_ms: int
    ) -> None:
        market, before = self._kraken.market(pair), self._views.get((pair.symbol, depth))
        if before is None:
            return
        after = market_frames.view_of(market, depth)
        self._views[pair.symbol, depth] = after
        update = market_frames.book_update(pair, before, after, market, now_ms)
        if update is None:
            return
        for session in sessions:
            if session.books.get(pair.symbol) == depth:
                session.offer(f"book/{pair.symbol}", update, now_ms)

    def _note_best(self, pair: Pair, now_ms: int) -> bool:
        market = self._kraken.market(pair)
        bid = market.book.best_ticks(Side.BUY) or 0
        ask = market.book.best_ticks(Side.SELL) or 0
        best = (bid, ask, market.visible_at(Side.BUY, bid), market.visible_at(Side.SELL, ask))
        before = self._best.get(pair.symbol)
        self._best[pair.symbol] = best
        if before is None or before[:2] != best[:2]:
            self._kraken.note_spread(pair.spec.name, (now_ms, bid, ask))
        return before != best

    def _update_tickers(
        self, pair: Pair, due: set[str], sessions: Sequence[Session], now_ms: int
    ) -> None:
        listening = [s for s in sessions if s.tickers.get(pair.symbol) in due]
        if listening:
            row = market_frames.ticker(pair, self._kraken.market(pair), now_ms)
            update = frame("ticker", "update", [row])
            for session in listening:
                session.offer(f"ticker/{pair.symbol}", update, now_ms)

    def _update_candles(self, pair: Pair, sessions: Sequence[Session], now_ms: int) -> None:
        intervals = {m for s in sessions for symbol, m in s.candles if symbol == pair.symbol}
        for minutes in sorted(intervals):
            update = self._candle_frame("update", self._candles(pair, minutes)[-1:], now_ms)
            for session in sessions:
                if (pair.symbol, minutes) in session.candles:
                    session.offer(f"ohlc/{pair.symbol}", update, now_ms)

    def _candles(self, pair: Pair, minutes: int) -> list[Json]:
        found = market_data.candles(self._kraken.market(pair), minutes)
        return [
            market_frames.candle(pair, minutes, open_ms, bars)
            for open_ms, bars in found[-market_data.CANDLES_MAX :]
        ]

    def _candle_frame(self, kind: str, rows: list[Json], now_ms: int) -> Json:
        return frame("ohlc", kind, rows) | {"timestamp": rfc3339(now_ms)}
