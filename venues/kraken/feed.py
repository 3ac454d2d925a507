"""The machine of Kraken's public WebSocket v2: what happened goes in, events and requests come out.

A fault of one symbol is cured by leaving its stream and subscribing to it again; only a frame that
tells nothing of itself, or silence, costs the connection. A stream that does not recover is asked for
again after pauses that grow. The venue says something every second, a heartbeat if nothing else, so
silence of the whole connection is death; a book that alone is silent is compared by REST.

What a look at the clock changes is always said, so that a recording holds every look that mattered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from kernel.errors import BadInput
from marketdata.book import L2Book
from marketdata.errors import OffGrid
from marketdata.events import (
    BookUpdate,
    Channel,
    GapReason,
    MarketEvent,
    Request,
    WantCheck,
    WantReconnect,
)
from marketdata.model import Instrument
from marketdata.raw import RawItem, RawKind
from venues.feeds.due import DUE_NS, LACKS, DueStreams
from venues.feeds.retries import RETRY_MIN_NS, RetriedStream
from venues.kraken.books import BookFault, BookFollower
from venues.kraken.candles import MINUTE_S, CandleFollower
from venues.kraken.frames import (
    UNREADABLE,
    Answer,
    BookFrame,
    CandleFrame,
    Frame,
    InstrumentFrame,
    StatusFrame,
    TickerFrame,
    TradeFrame,
    answer_of,
    channel_of,
    decode_frame,
    symbols_of,
)
from venues.kraken.tickers import TickerFollower
from venues.kraken.trades import TradeFollower, TradeGap

Outcome = MarketEvent | Request

DEPTHS: Final = (10, 25, 100, 500, 1_000)
INTERVALS_MIN: Final = (1, 5, 15, 30, 60, 240, 1_440, 10_080, 21_600)
SYMBOLS_MAX: Final = 100
"""Symbols of one request."""

_SECOND_NS: Final = 1_000_000_000
_BOOK, _TRADE, _TICKER, _CANDLES, _INSTRUMENT = "book", "trade", "ticker", "ohlc", "instrument"
_CHANNELS: Final = {
    _BOOK: (Channel.BOOK,),
    _TRADE: (Channel.TRADES,),
    _TICKER: (Channel.BEST, Channel.TICKER),
    _CANDLES: (Channel.CANDLES,),
}
_WIRE: Final = {channel: wire for wire, channels in _CHANNELS.items() for channel in channels}
_REQUEST_IDS: Final = {_BOOK: 1, _TRADE: 2, _TICKER: 3, _CANDLES: 4, _INSTRUMENT: 5}
_BY_REQUEST_ID: Final = {number: wire for wire, number in _REQUEST_IDS.items()}
"""A refusal does not say of what channel it is: the request's number does."""
_LEAVING: Final = 10
_ALREADY: Final = "Already subscribed"
_MAINTENANCE: Final = "maintenance"
CLOSED_TO_TRADE: Final = "the venue is in maintenance"
UNPROVED: Final = "neither stream nor REST say anything"
_UNREADABLE: Final = (BadInput, OffGrid)


@dataclass(frozen=True, slots=True, kw_only=True)
class KrakenPolicy:
    """What is subscribed to, and when silence is suspicious.

    Attributes:
        depth: levels of each side of a book: 10, 25, 100, 500 or 1000. The checksum proves the best
            ten; what is deeper is compared by REST.
        interval_s: of candles.
        silence_ns: a connection that says nothing for so long is dead.
        quiet_ns: a book that alone says nothing for so long is compared by REST, and again after
            as long; 0: never.
        check_ns: a book is compared so often in any case; 0: never.
        unproved_ns: a silent book that could not be compared for so long, and for two seconds for
            each book, is not shown any longer.
    """

    depth: int = 100
    interval_s: int = 60
    silence_ns: int = 5 * _SECOND_NS
    quiet_ns: int = 3 * _SECOND_NS
    check_ns: int = 60 * _SECOND_NS
    unproved_ns: int = 30 * _SECOND_NS

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise BadInput(f"Kraken has no books of {self.depth} levels", remedy=f"Use {DEPTHS}")
        minutes, rest = divmod(self.interval_s, MINUTE_S)
        if rest or minutes not in INTERVALS_MIN:
            raise BadInput(
                f"Kraken has no candles of {self.interval_s} s",
                remedy=f"Use minutes of {INTERVALS_MIN}",
            )


class _Symbol:
    """All that is followed of one symbol; `name` is the venue's on WebSocket v2."""

    def __init__(
        self, instrument: Instrument, channels: Collection[Channel], policy: KrakenPolicy
    ) -> None:
        self.name = wire_name(instrument)
        self.symbol = instrument.symbol
        self.streams = {
            channel: RetriedStream(instrument.venue, instrument.symbol, channel)
            for channel in Channel
            if channel in channels
        }
        self.book = BookFollower(instrument, policy.depth)
        self.trades = TradeFollower(instrument)
        self.tickers = TickerFollower(instrument)
        self.candles = CandleFollower(instrument, policy.interval_s)
        self.checked_ns = 0
        self.due = DueStreams()
        self.differs_ns = 0
        """Since when the book's best prices are not those that were told; 0: they are."""

    def compare_best(self, now_ns: int) -> None:
        """Note whether the best prices that were told are the book's."""
        shown = self.tickers.shown
        best = None if shown is None else self.book.best
        is_same = best is None or best == shown
        self.differs_ns = 0 if is_same else self.differs_ns or now_ns

    def overdue(self, now_ns: int) -> list[RetriedStream]:
        """Return the streams that are silent although others show what they have to say."""
        silent = {*self.due.overdue(now_ns)}
        best = self.streams.get(Channel.BEST)
        is_judged = best is not None and not best.is_open and self.book.best is not None
        if is_judged and self.differs_ns and now_ns - self.differs_ns >= DUE_NS:
            silent |= {Channel.BEST, Channel.TICKER}
        return [one for channel, one in self.streams.items() if channel in silent]

    def excuse(self, channel: Channel) -> None:
        """Expect nothing of a stream until there is new evidence."""
        self.due.excuse(channel)
        if channel is Channel.BEST:
            self.tickers.shown, self.differs_ns = None, 0

    def of(self, wire: str) -> list[RetriedStream]:
        """Return the streams that one of the venue's channels feeds."""
        return [self.streams[c] for c in _CHANNELS.get(wire, ()) if c in self.streams]


class KrakenMachine:
    """See `marketdata.ports.FeedMachine`."""

    def __init__(
        self,
        instruments: Iterable[Instrument],
        channels: Collection[Channel],
        policy: KrakenPolicy | None = None,
    ) -> None:
        """Follow *channels* of every one of *instruments*, which are all of one venue.

        Raises:
            BadInput: there are none, of several venues, or two of one name.
        """
        self._policy = policy or KrakenPolicy()
        items = tuple(instruments)
        found = {item.venue for item in items}
        if len(found) != 1:
            raise BadInput(f"a machine follows the instruments of one venue, not of {len(found)}")
        (self.venue,) = found
        self._channels = frozenset(channels)
        self._symbols = {item.symbol: _Symbol(item, channels, self._policy) for item in items}
        self._by_name = {symbol.name: symbol for symbol in self._symbols.values()}
        if len(self._by_name) != len(items):
            raise BadInput("two instruments go by one name at Kraken")
        self._streams = [s for one in self._symbols.values() for s in one.streams.values()]
        self._handlers: dict[type[Frame], Callable[[Any, int], Iterator[Outcome]]] = {
            BookFrame: self._books,
            TradeFrame: self._trades,
            TickerFrame: self._tickers,
            CandleFrame: self._candles,
            InstrumentFrame: self._pairs,
            StatusFrame: self._status,
        }
        # With the best prices the venue tells the ticker when those change, and not with each trade.
        with_trades = () if Channel.BEST in self._channels else (Channel.TICKER,)
        self._trade_changes = (Channel.CANDLES, *with_trades)
        self._unproved_ns = max(self._policy.unproved_ns, len(items) * 2 * _SECOND_NS)
        self._connection = 0
        self._heard_ns = 0
        self._is_closed_to_trade = False

    def book(self, symbol: str) -> L2Book | None:
        """Return the book of *symbol*; None if it is not followed."""
        found = self._symbols.get(symbol)
        return None if found is None or Channel.BOOK not in found.streams else found.book.book

    def subscriptions(self) -> Sequence[bytes]:
        """Return the frames to send after connecting: decimals first, for they make the checksum."""
        names = list(self._by_name)
        frames = [_request("subscribe", _INSTRUMENT, {"snapshot": True})]
        for wire in dict.fromkeys(_WIRE[c] for c in Channel if c in self._channels):
            frames.extend(
                self._subscribe(wire, names[start : start + SYMBOLS_MAX])
                for start in range(0, len(names), SYMBOLS_MAX)
            )
        return frames

    def resubscribe(self, symbol: str, channel: Channel) -> Sequence[bytes]:
        """Return the frames that leave a stream and subscribe to it again."""
        wire, name = _WIRE[channel], self._symbols[symbol].name
        leave = {"symbol": [name], **self._said(wire)}
        return [_request("unsubscribe", wire, leave), self._subscribe(wire, [name])]

    def take(self, item: RawItem) -> Sequence[Outcome]:
        """Return what follows from *item*."""
        match item.kind:
            case RawKind.FRAME:
                return self._frame(item) if item.connection == self._connection else ()
            case RawKind.TICK:
                return list(self._look(item.received_ns)) if self._connection else ()
            case RawKind.CHECK:
                return list(self._compare(item))
            case RawKind.CONNECTED:
                return list(self._begin(item))
            case RawKind.LOST:
                return list(self._end(item))
            case RawKind.SNAPSHOT:
                return ()  # the snapshot comes over the socket

    def _begin(self, item: RawItem) -> Iterator[Outcome]:
        now_ns = item.received_ns
        yield from self._lose_all(GapReason.CLOSED, "connected again", now_ns)
        self._connection, self._heard_ns = item.connection, now_ns
        self._is_closed_to_trade = False
        for stream in self._streams:
            stream.begin(now_ns)

    def _end(self, item: RawItem) -> Iterator[Outcome]:
        if self._connection and item.connection != self._connection:
            return
        text = item.data.decode(errors="replace")
        word, _, detail = text.partition(": ")
        reason = GapReason(word) if word in set(GapReason) else GapReason.CLOSED
        yield from self._lose_all(reason, detail or text, item.received_ns)
        if reason is not GapReason.OVERFLOW:
            self._connection = 0  # after an overflow more of the same connection may be on record

    def _lose_all(self, reason: GapReason, detail: str, now_ns: int) -> Iterator[Outcome]:
        """Lose every stream: as far as something was heard, all of them had been told."""
        for symbol in self._symbols.values():
            symbol.book.reset()
            symbol.due.clear()
            symbol.excuse(Channel.BEST)
        for stream in self._streams:
            if not stream.good_ns:
                yield from stream.open(GapReason.STARTED, "", now_ns)
            elif not stream.is_open:
                stream.good_ns = self._heard_ns
                yield from stream.open(reason, detail, now_ns)

    def _give_up(self, reason: GapReason, detail: str, now_ns: int) -> Iterator[Outcome]:
        """Ask for another connection, and hear no more of this one."""
        yield from self._lose_all(reason, detail, now_ns)
        self._connection = 0
        yield WantReconnect(reason, detail)

    def _frame(self, item: RawItem) -> Sequence[Outcome]:
        now_ns = item.received_ns
        try:
            frame = decode_frame(item.data)
        except msgspec.ValidationError as error:
            return list(self._misshapen(item, str(error)))
        except UNREADABLE as error:
            return list(self._give_up(GapReason.UNREADABLE, f"{error}", now_ns))
        self._heard_ns = now_ns
        handle = self._handlers.get(type(frame))
        return () if handle is None else list(handle(frame, now_ns))

    def _books(self, frame: BookFrame, now_ns: int) -> Iterator[Outcome]:
        if self._is_closed_to_trade:
            return
        is_snapshot = frame.type == "snapshot"
        for row in frame.data:
            symbol = self._by_name.get(row.symbol)
            stream = None if symbol is None else symbol.streams.get(Channel.BOOK)
            if symbol is None or stream is None or (stream.is_open and not is_snapshot):
                continue  # what comes before the snapshot that was asked for says nothing
            told = symbol.book.take(row, now_ns, is_snapshot=is_snapshot)
            if isinstance(told, BookFault):
                yield from stream.fail(told.reason, told.detail, now_ns)
                continue
            if is_snapshot:
                symbol.checked_ns = now_ns
            if stream.is_open:
                yield from stream.recover(now_ns)
            stream.good_ns = now_ns
            symbol.compare_best(now_ns)
            yield told

    def _trades(self, frame: TradeFrame, now_ns: int) -> Iterator[Outcome]:
        is_snapshot = frame.type == "snapshot"
        for symbol, stream in self._touched(_TRADE, {row.symbol for row in frame.data}):
            rows = [row for row in frame.data if row.symbol == symbol.name]
            symbol.due.note(Channel.TRADES, () if is_snapshot else self._trade_changes, now_ns)
            try:
                for told in symbol.trades.take(rows, now_ns, is_snapshot=is_snapshot):
                    if isinstance(told, TradeGap):
                        yield from self._missed(stream, told, now_ns, is_snapshot=is_snapshot)
                    else:
                        yield told
            except _UNREADABLE as error:
                yield from stream.fail(GapReason.MALFORMED, str(error), now_ns)
            else:
                yield from stream.recover(now_ns)

    def _missed(
        self, stream: RetriedStream, gap: TradeGap, now_ns: int, *, is_snapshot: bool
    ) -> Iterator[Outcome]:
        """Say that trades are missing, and ask for the latest fifty, which may have them."""
        if not stream.is_open:
            yield from stream.note(gap.reason, gap.detail, stream.good_ns, now_ns)
        if not is_snapshot and now_ns - stream.asked_ns >= RETRY_MIN_NS:
            yield stream.ask(now_ns)

    def _tickers(self, frame: TickerFrame, now_ns: int) -> Iterator[Outcome]:
        for row in frame.data:
            named = self._by_name.get(row.symbol)
            if named is None or named.tickers.is_old(row):
                continue
            for symbol, stream in self._touched(_TICKER, {row.symbol}):
                read = (
                    symbol.tickers.best
                    if stream.channel is Channel.BEST
                    else (symbol.tickers.ticker)
                )
                try:
                    told = read(row, now_ns)
                except _UNREADABLE as error:
                    yield from stream.fail(GapReason.MALFORMED, str(error), now_ns)
                    continue
                symbol.due.note(stream.channel, (), now_ns)
                symbol.compare_best(now_ns)
                yield from stream.recover(now_ns)
                yield told

    def _candles(self, frame: CandleFrame, now_ns: int) -> Iterator[Outcome]:
        for symbol, stream in self._touched(_CANDLES, {row.symbol for row in frame.data}):
            rows = [row for row in frame.data if row.symbol == symbol.name]
            before = symbol.candles.traded
            try:
                yield from symbol.candles.take(rows, frame, now_ns)
            except _UNREADABLE as error:
                yield from stream.fail(GapReason.MALFORMED, str(error), now_ns)
            else:
                is_traded = frame.type == "update" and symbol.candles.traded != before
                symbol.due.note(Channel.CANDLES, (Channel.TRADES,) if is_traded else (), now_ns)
                yield from stream.recover(now_ns)

    def _touched(self, wire: str, names: Iterable[str]) -> Iterator[tuple[_Symbol, RetriedStream]]:
        for name in sorted(names):
            symbol = self._by_name.get(name)
            if symbol is not None:
                for stream in symbol.of(wire):
                    yield symbol, stream

    def _pairs(self, frame: InstrumentFrame, now_ns: int) -> Iterator[Outcome]:
        """Learn with how many decimals the venue writes."""
        del now_ns
        for pair in frame.data.pairs:
            symbol = self._by_name.get(pair.symbol)
            if symbol is not None:
                symbol.book.tell_decimals(pair.price_precision, pair.qty_precision)
        yield from ()

    def _status(self, frame: StatusFrame, now_ns: int) -> Iterator[Outcome]:
        """In maintenance nobody trades at the prices that the books still have."""
        for row in frame.data:
            if row.system == _MAINTENANCE:
                self._is_closed_to_trade = True
                for symbol in self._symbols.values():
                    symbol.book.reset()
                for stream in self._streams:
                    yield from stream.reopen(GapReason.REFUSED, CLOSED_TO_TRADE, now_ns)
            elif self._is_closed_to_trade:
                self._is_closed_to_trade = False
                for stream in self._streams:
                    yield stream.ask(now_ns)

    def _misshapen(self, item: RawItem, detail: str) -> Iterator[Outcome]:
        """Find out what a frame of another shape is of: the less it tells, the more is lost."""
        now_ns = item.received_ns
        wire = channel_of(item.data)
        if not wire:
            answer = answer_of(item.data)
            if answer is None:
                yield from self._give_up(GapReason.MALFORMED, detail, now_ns)
            else:
                self._heard_ns = now_ns
                yield from self._answer(answer, now_ns)
            return
        self._heard_ns = now_ns
        names = symbols_of(item.data) or tuple(self._by_name)
        for symbol, stream in self._touched(wire, names):
            if wire == _BOOK:
                symbol.book.reset()
            yield from stream.fail(GapReason.MALFORMED, detail, now_ns)

    def _answer(self, answer: Answer, now_ns: int) -> Iterator[Outcome]:
        if answer.method != "subscribe":
            return
        name = answer.symbol or (answer.result.symbol if answer.result else "")
        wire = _BY_REQUEST_ID.get(answer.req_id, "")
        for symbol, stream in self._touched(wire, (name,)):
            if answer.success or answer.error == _ALREADY:
                # A book is not there before its snapshot; of other streams nothing more may come.
                if wire != _BOOK:
                    symbol.excuse(stream.channel)
                    yield from stream.recover(now_ns)
            else:
                stream.is_asked = False
                yield from stream.reopen(GapReason.REFUSED, answer.error, now_ns)

    def _look(self, now_ns: int) -> Iterator[Outcome]:
        policy = self._policy
        if now_ns - self._heard_ns >= policy.silence_ns:
            yield from self._give_up(GapReason.SILENT, "the venue says nothing", now_ns)
            return
        if self._is_closed_to_trade:
            return  # every stream is asked for as soon as the venue says that it is open
        for stream in self._streams:
            if stream.is_due(now_ns):
                yield stream.ask(now_ns)
        for symbol in self._symbols.values():
            yield from self._overdue(symbol, now_ns)
            book = symbol.streams.get(Channel.BOOK)
            if book is None or book.is_open:
                continue
            proved_ns = symbol.book.proved_ns
            fault = symbol.book.convicted(now_ns)
            if fault is not None:
                book.good_ns = proved_ns
                yield from book.fail(fault.reason, fault.detail, now_ns)
                continue
            if policy.quiet_ns > 0 and now_ns - book.good_ns >= self._unproved_ns:
                symbol.book.reset()
                yield from book.fail(GapReason.SILENT, UNPROVED, now_ns)
                continue
            since = now_ns - symbol.checked_ns
            is_quiet = 0 < policy.quiet_ns <= min(since, now_ns - book.good_ns)
            if is_quiet or 0 < policy.check_ns <= since:
                symbol.checked_ns = now_ns
                yield WantCheck(symbol.symbol)

    def _overdue(self, symbol: _Symbol, now_ns: int) -> Iterator[Outcome]:
        """Ask again for streams that say nothing of what the others of their symbol show."""
        for stream in symbol.overdue(now_ns):
            if not stream.is_open:
                symbol.excuse(stream.channel)
                yield from stream.fail(GapReason.SILENT, LACKS, now_ns)

    def _compare(self, item: RawItem) -> Iterator[Outcome]:
        symbol = self._symbols.get(item.symbol)
        stream = None if symbol is None else symbol.streams.get(Channel.BOOK)
        if symbol is None or stream is None or stream.is_open:
            return
        if symbol.book.compare(item.data, item.received_ns):
            yield from self._still(symbol, stream, item.received_ns)

    def _still(self, symbol: _Symbol, stream: RetriedStream, now_ns: int) -> Iterator[Outcome]:
        """Say that a book is now what it was: an update of nothing."""
        book = symbol.book.book
        assert book.sequence is not None
        yield from stream.recover(now_ns)
        yield BookUpdate(
            venue=self.venue,
            symbol=symbol.symbol,
            first=book.sequence,
            last=book.sequence,
            is_snapshot=False,
            bids=(),
            asks=(),
            exchange_ns=0,
            received_ns=now_ns,
        )

    def _subscribe(self, wire: str, names: list[str]) -> bytes:
        said = {"symbol": names, **self._said(wire), "snapshot": True}
        return _request("subscribe", wire, said)

    def _said(self, wire: str) -> dict[str, object]:
        match wire:
            case "book":
                return {"depth": self._policy.depth}
            case "ohlc":
                return {"interval": self._policy.interval_s // MINUTE_S}
            case "ticker":
                trigger = "bbo" if Channel.BEST in self._channels else "trades"
                return {"event_trigger": trigger}
            case _:
                return {}


def wire_name(instrument: Instrument) -> str:
    """Return a pair's name on WebSocket v2, which is of the usual codes: ``BTC/USD``."""
    return f"{instrument.base.code}/{instrument.quote.code}"


def _request(method: str, wire: str, params: dict[str, object]) -> bytes:
    number = _REQUEST_IDS[wire] + (_LEAVING if method == "unsubscribe" else 0)
    return msgspec.json.encode(
        {"method": method, "params": {"channel": wire, **params}, "req_id": number}
    )
