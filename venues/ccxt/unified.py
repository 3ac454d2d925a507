"""The machine of any ccxt.pro venue: what ccxt made of each frame goes in, events come out. Pure.

An item's frame is JSON of ours: the venue's own frame as ``raw``, and beside it as ``said`` what ccxt
made of that frame, every number as a text (see `venues.ccxt.feed`). So a recording holds the venue's
words, and what ccxt understood is judged here: grids, crossed books, counts, times, silence.

ccxt stitches books by itself and tells nothing of how. What it tells is numbered on the way, so that
nothing gets lost between; that ccxt itself is right is looked after by comparing with the venue's REST:
a book that is silent, and any book now and then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from kernel.errors import BadInput
from marketdata.book import L2Book, StitchRule
from marketdata.errors import OffGrid
from marketdata.events import (
    BestSeen,
    BookUpdate,
    CandleSeen,
    Channel,
    GapReason,
    MarketEvent,
    Request,
    Rows,
    TickerSeen,
    TradeSeen,
    WantCheck,
    WantReconnect,
)
from marketdata.grid import Grid
from marketdata.model import Instrument
from marketdata.raw import RawItem, RawKind
from venues.ccxt.texts import plain
from venues.feeds.cross_check import differences
from venues.feeds.due import LACKS, DueStreams
from venues.feeds.retries import RETRY_MAX_NS, RetriedStream

Outcome = MarketEvent | Request

STILL_NS: Final = 5_000_000_000
"""A level that changed within so long before an answer may be in it either way."""
AHEAD_NS: Final = 1_000_000_000
"""An answer may be ahead of the stream: what differs is looked at again after so long."""
RECENT_MAX: Final = 5_000
"""Updates kept for comparisons; of a busier book fewer seconds are known."""
RECENT_TRADES: Final = 2_000
MS_NS: Final = 1_000_000
_SECOND_NS: Final = 1_000_000_000
_UNREADABLE: Final = (BadInput, OffGrid, ValueError)
_EVIDENCE: Final = {Channel.TRADES: (Channel.TICKER, Channel.CANDLES)}
"""What else a trade changes. The other way round nothing is proved: a ticker may change without one."""

Levels = list[tuple[str, str]]


class BookSaid(msgspec.Struct, tag_field="of", tag="book", frozen=True, gc=False):
    """A book, whole or what changed; `n` counts what was said of it, from the whole one on."""

    symbol: str
    n: int
    is_whole: bool
    bids: Levels
    asks: Levels
    ms: int | None = None


class TradeSaid(msgspec.Struct, tag_field="of", tag="trades", frozen=True, gc=False):
    """A trade; `side` is the taker's."""

    symbol: str
    id: str | None
    price: str
    amount: str
    side: Literal["buy", "sell"]
    ms: int | None = None


class BestSaid(msgspec.Struct, tag_field="of", tag="best", frozen=True, gc=False):
    """The best prices; None: that side is empty."""

    symbol: str
    bid: str | None
    bid_amount: str | None
    ask: str | None
    ask_amount: str | None
    ms: int | None = None


class TickerSaid(msgspec.Struct, tag_field="of", tag="ticker", frozen=True, gc=False):
    """What was traded in 24 hours."""

    symbol: str
    last: str
    open: str
    high: str
    low: str
    volume: str
    ms: int | None = None


class CandleSaid(msgspec.Struct, tag_field="of", tag="candles", frozen=True, gc=False):
    """A candle as it stands, of `seconds`, that opened at `open_ms`."""

    symbol: str
    seconds: int
    open_ms: int
    open: str
    high: str
    low: str
    close: str
    volume: str


class Lost(msgspec.Struct, tag_field="of", tag="lost", frozen=True, gc=False):
    """The stream of a channel of one symbol is of no more use."""

    symbol: str
    channel: Channel
    reason: GapReason
    detail: str


class Listening(msgspec.Struct, tag_field="of", tag="listening", frozen=True, gc=False):
    """The stream of a channel of one symbol is connected and was asked for."""

    symbol: str
    channel: Channel


Said = BookSaid | TradeSaid | BestSaid | TickerSaid | CandleSaid | Lost | Listening


class Heard(msgspec.Struct, frozen=True, gc=False):
    """One frame of the venue and what ccxt made of it; without a frame, what ccxt did by itself."""

    raw: str
    said: list[Said]


class Wish(msgspec.Struct, frozen=True, gc=False):
    """A frame of ours: listen to one stream, beginning anew if it is listened to."""

    symbol: str
    channel: Channel
    seconds: int


class Depth(msgspec.Struct, frozen=True, gc=False):
    """A book by REST, numbers as texts."""

    bids: Levels
    asks: Levels


_decode: Final = msgspec.json.Decoder(Heard).decode
_decode_depth: Final = msgspec.json.Decoder(Depth).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class UnifiedPolicy:
    """What is subscribed to, and when silence is suspicious.

    Attributes:
        interval_s: of candles.
        quiet_ns: a book that says nothing for so long is compared by REST, and again after as long.
        unproved_ns: a silent book that could not be compared for so long is not shown any longer.
        check_ns: a book is compared so often in any case; 0: never.
        retry_max_ns: the longest pause before a stream is begun anew.
    """

    interval_s: int = 60
    quiet_ns: int = 2 * _SECOND_NS
    unproved_ns: int = 10 * _SECOND_NS
    check_ns: int = 60 * _SECOND_NS
    retry_max_ns: int = RETRY_MAX_NS


class _Symbol:
    """All that is followed of one symbol."""

    def __init__(self, item: Instrument, channels: Collection[Channel]) -> None:
        self.item = item
        self.grid = Grid(item)
        self.streams = {
            c: RetriedStream(item.venue, item.symbol, c) for c in Channel if c in channels
        }
        self.book = L2Book(item.venue, item.symbol, StitchRule.SNAPSHOT_DELTA)
        self.recent: deque[BookUpdate] = deque(maxlen=RECENT_MAX)
        self.trades: dict[str, None] = {}
        self.candle: CandleSeen | None = None
        self.bests = 0
        self.asked_ns = self.proved_ns = 0
        self.is_asked = False
        """Whether a comparison was asked for since the book began: an older answer proves nothing."""
        self.due = DueStreams()
        self.listed: tuple[int, Rows, Rows] = (0, (), ())

    def reset(self) -> None:
        """Show no book until the next whole one."""
        self.book.reset()
        self.recent.clear()
        self.listed = (0, (), ())
        self.is_asked = False


class UnifiedMachine:
    """See `marketdata.ports.FeedMachine`."""

    def __init__(
        self,
        instruments: Iterable[Instrument],
        channels: Collection[Channel],
        policy: UnifiedPolicy | None = None,
    ) -> None:
        """Follow *channels* of every one of *instruments*, which are all of one venue.

        Raises:
            BadInput: there are none, or of several venues.
        """
        items = tuple(instruments)
        found = {item.venue for item in items}
        if len(found) != 1:
            raise BadInput(f"a machine follows the instruments of one venue, not of {len(found)}")
        (self.venue,) = found
        self._policy = policy or UnifiedPolicy()
        self._symbols = {item.symbol: _Symbol(item, channels) for item in items}
        self._streams = [s for one in self._symbols.values() for s in one.streams.values()]
        self._connection = 0
        self._heard_ns = 0

    def book(self, symbol: str) -> L2Book | None:
        """Return the book of *symbol*; None if it is not followed."""
        found = self._symbols.get(symbol)
        return None if found is None or Channel.BOOK not in found.streams else found.book

    def subscriptions(self) -> Sequence[bytes]:
        """Return a wish for every stream."""
        return [self._wish(stream.symbol, stream.channel) for stream in self._streams]

    def resubscribe(self, symbol: str, channel: Channel) -> Sequence[bytes]:
        """Return the wish to begin a stream anew."""
        return [self._wish(symbol, channel)]

    def take(self, item: RawItem) -> Sequence[Outcome]:
        """Return what follows from *item*."""
        match item.kind:
            case RawKind.FRAME:
                return list(self._frame(item)) if item.connection == self._connection else ()
            case RawKind.TICK:
                return list(self._look(item.received_ns)) if self._connection else ()
            case RawKind.CHECK:
                return list(self._compare(item))
            case RawKind.CONNECTED:
                return list(self._begin(item))
            case RawKind.LOST:
                return list(self._end(item))
            case RawKind.SNAPSHOT:
                return ()  # ccxt stitches by itself

    def _wish(self, symbol: str, channel: Channel) -> bytes:
        return msgspec.json.encode(Wish(symbol, channel, self._policy.interval_s))

    def _begin(self, item: RawItem) -> Iterator[Outcome]:
        yield from self._lose_all(GapReason.CLOSED, "connected again", item.received_ns)
        self._connection = item.connection
        for stream in self._streams:
            stream.begin(item.received_ns)

    def _end(self, item: RawItem) -> Iterator[Outcome]:
        if self._connection and item.connection != self._connection:
            return
        text = item.data.decode(errors="replace")
        word, _, detail = text.partition(": ")
        reason = GapReason(word) if word in set(GapReason) else GapReason.CLOSED
        yield from self._lose_all(reason, detail or text, item.received_ns)
        if reason is not GapReason.OVERFLOW:
            self._connection = 0

    def _lose_all(self, reason: GapReason, detail: str, now_ns: int) -> Iterator[Outcome]:
        for symbol in self._symbols.values():
            symbol.reset()
            symbol.due.clear()
        for stream in self._streams:
            known = bool(stream.good_ns)
            yield from stream.open(
                reason if known else GapReason.STARTED, detail if known else "", now_ns
            )

    def _frame(self, item: RawItem) -> Iterator[Outcome]:
        now_ns = item.received_ns
        try:
            heard = _decode(item.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield from self._lose_all(GapReason.MALFORMED, f"{error}", now_ns)
            self._connection = 0
            yield WantReconnect(GapReason.MALFORMED, f"{error}")
            return
        for said in heard.said:
            symbol = self._symbols.get(said.symbol)
            channel = said.channel if isinstance(said, Lost | Listening) else _CHANNELS[type(said)]
            stream = None if symbol is None else symbol.streams.get(channel)
            if symbol is None or stream is None:
                continue
            try:
                yield from self._told(symbol, stream, said, now_ns)
            except _UNREADABLE as error:
                yield from self._fail(symbol, stream, GapReason.MALFORMED, str(error), now_ns)

    def _told(
        self, symbol: _Symbol, stream: RetriedStream, said: Said, now_ns: int
    ) -> Iterator[Outcome]:
        match said:
            case BookSaid():
                yield from self._book(symbol, stream, said, now_ns)
            case Lost(reason=reason, detail=detail):
                if reason is GapReason.REFUSED:
                    stream.is_asked = False
                    yield from stream.reopen(reason, detail, now_ns)
                else:
                    yield from self._fail(symbol, stream, reason, detail, now_ns)
            case Listening():
                if stream.channel is not Channel.BOOK:
                    symbol.due.excuse(stream.channel)
                    yield from stream.recover(now_ns)
            case _:
                told = _events(symbol, said, now_ns)
                yield from stream.recover(now_ns)
                if told:
                    symbol.due.note(stream.channel, _EVIDENCE.get(stream.channel, ()), now_ns)
                yield from told

    def _fail(
        self, symbol: _Symbol, stream: RetriedStream, reason: GapReason, detail: str, now_ns: int
    ) -> Iterator[Outcome]:
        if stream.channel is Channel.BOOK:
            symbol.reset()
        yield from stream.fail(reason, detail, now_ns)

    def _book(
        self, symbol: _Symbol, stream: RetriedStream, said: BookSaid, now_ns: int
    ) -> Iterator[Outcome]:
        if stream.is_open and not said.is_whole:
            return  # what comes before the whole book says nothing
        bids, asks = symbol.grid.rows(_plain(said.bids)), symbol.grid.rows(_plain(said.asks))
        book = symbol.book
        if said.is_whole:
            symbol.reset()
            outcome = book.snapshot(said.n, bids, asks)
        else:
            outcome = book.apply(said.n, said.n, bids, asks)
        reason = outcome.gap_reason
        if reason is not None:
            yield from self._fail(symbol, stream, reason, outcome.value, now_ns)
            return
        if said.is_whole:
            symbol.asked_ns = symbol.proved_ns = now_ns
        yield from stream.recover(now_ns)
        update = BookUpdate(
            venue=self.venue,
            symbol=symbol.item.symbol,
            first=said.n,
            last=said.n,
            is_snapshot=said.is_whole,
            bids=bids,
            asks=asks,
            exchange_ns=(said.ms or 0) * MS_NS,
            received_ns=now_ns,
        )
        symbol.recent.append(update)
        yield update

    def _look(self, now_ns: int) -> Iterator[Outcome]:
        policy = self._policy
        for stream in self._streams:
            if stream.is_due(now_ns, retry_max_ns=policy.retry_max_ns):
                yield stream.ask(now_ns)
        for symbol in self._symbols.values():
            yield from self._overdue(symbol, now_ns)
            book = symbol.streams.get(Channel.BOOK)
            if book is None or book.is_open:
                continue
            yield from self._convict(symbol, book, now_ns)
            if book.is_open:
                continue
            since = now_ns - symbol.asked_ns
            is_quiet = now_ns - book.good_ns >= policy.quiet_ns
            if is_quiet and now_ns - book.good_ns >= policy.unproved_ns:
                yield from self._fail(
                    symbol, book, GapReason.SILENT, "neither stream nor REST say anything", now_ns
                )
            elif (is_quiet and since >= policy.quiet_ns) or 0 < policy.check_ns <= since:
                symbol.asked_ns, symbol.is_asked = now_ns, True
                yield WantCheck(symbol.item.symbol)

    def _overdue(self, symbol: _Symbol, now_ns: int) -> Iterator[Outcome]:
        """Give streams up that say nothing of what the others of their symbol show."""
        for channel in symbol.due.overdue(now_ns):
            stream = symbol.streams.get(channel)
            if stream is not None and not stream.is_open:
                symbol.due.excuse(channel)
                yield from stream.fail(GapReason.SILENT, LACKS, now_ns)

    def _compare(self, item: RawItem) -> Iterator[Outcome]:
        symbol, now_ns = self._symbols.get(item.symbol), item.received_ns
        stream = None if symbol is None else symbol.streams.get(Channel.BOOK)
        if symbol is None or stream is None or stream.is_open or not symbol.is_asked:
            return
        try:
            depth = _decode_depth(item.data)
            bids = symbol.grid.rows(_plain(depth.bids))
            asks = symbol.grid.rows(_plain(depth.asks))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, *_UNREADABLE):
            return  # an answer that cannot be read proves nothing
        is_doubted = 0 < symbol.listed[0] > now_ns - 2 * AHEAD_NS and self._differs(symbol)
        if not is_doubted:
            symbol.listed = (now_ns, bids, asks)
        if not self._differs(symbol):
            symbol.proved_ns = now_ns
            yield from self._still(symbol, stream, now_ns)

    def _differs(self, symbol: _Symbol) -> str:
        """Return where the venue's list differs from ours, left out what changed about its time."""
        listed_ns, bids, asks = symbol.listed
        later = [
            one
            for one in symbol.recent
            if listed_ns - one.received_ns < STILL_NS and not one.is_snapshot
        ]
        return differences(symbol.book, bids, asks, later=later, is_whole=False)

    def _convict(self, symbol: _Symbol, book: RetriedStream, now_ns: int) -> Iterator[Outcome]:
        """Give a book up that still differs: the list may have been ahead of the stream before."""
        if symbol.listed[0] and AHEAD_NS <= now_ns - symbol.listed[0] < 2 * AHEAD_NS:
            wrong = self._differs(symbol)
            if wrong:
                book.good_ns = symbol.proved_ns
                yield from self._fail(symbol, book, GapReason.DISAGREES, wrong, now_ns)

    def _still(self, symbol: _Symbol, stream: RetriedStream, now_ns: int) -> Iterator[Outcome]:
        """Say that a book is now what it was: an update of nothing."""
        assert symbol.book.sequence is not None
        yield from stream.recover(now_ns)
        yield BookUpdate(
            venue=self.venue,
            symbol=symbol.item.symbol,
            first=symbol.book.sequence,
            last=symbol.book.sequence,
            is_snapshot=False,
            bids=(),
            asks=(),
            exchange_ns=0,
            received_ns=now_ns,
        )


_CHANNELS: Final[dict[type, Channel]] = {
    BookSaid: Channel.BOOK,
    TradeSaid: Channel.TRADES,
    BestSaid: Channel.BEST,
    TickerSaid: Channel.TICKER,
    CandleSaid: Channel.CANDLES,
}


def _events(
    symbol: _Symbol, said: TradeSaid | BestSaid | TickerSaid | CandleSaid, now_ns: int
) -> Sequence[MarketEvent]:
    match said:
        case TradeSaid():
            return list(_trade(symbol, said, now_ns))
        case BestSaid():
            return (_best(symbol, said, now_ns),)
        case TickerSaid():
            return (_ticker(symbol, said, now_ns),)
        case CandleSaid():
            return list(_candle(symbol, said, now_ns))


def _trade(symbol: _Symbol, said: TradeSaid, now_ns: int) -> Iterator[TradeSeen]:
    """Yield a trade unless it was told; one without an id cannot be told apart from another."""
    price, amount = plain(said.price), plain(said.amount)
    name = said.id or f"{said.ms}:{price}:{amount}"
    if said.id is not None and name in symbol.trades:
        return
    symbol.trades[name] = None
    if len(symbol.trades) > RECENT_TRADES:
        del symbol.trades[next(iter(symbol.trades))]
    yield TradeSeen(
        venue=symbol.item.venue,
        symbol=symbol.item.symbol,
        trade_id=name,
        ticks=symbol.grid.ticks(price),
        units=symbol.grid.units(amount),
        buyer_is_maker=said.side == "sell",
        exchange_ns=(said.ms or 0) * MS_NS,
        received_ns=now_ns,
    )


def _best(symbol: _Symbol, said: BestSaid, now_ns: int) -> BestSeen:
    grid = symbol.grid
    bid, bid_units = _level(grid, said.bid, said.bid_amount)
    ask, ask_units = _level(grid, said.ask, said.ask_amount)
    if bid and ask and bid >= ask:
        raise BadInput(f"the best bid is {said.bid} and the best ask {said.ask}")
    symbol.bests += 1
    return BestSeen(
        venue=symbol.item.venue,
        symbol=symbol.item.symbol,
        sequence=symbol.bests,
        bid_ticks=bid,
        bid_units=bid_units,
        ask_ticks=ask,
        ask_units=ask_units,
        exchange_ns=(said.ms or 0) * MS_NS,
        received_ns=now_ns,
    )


def _level(grid: Grid, price: str | None, amount: str | None) -> tuple[int, int]:
    if price is None or not plain(price).strip("0."):
        return 0, 0
    return grid.ticks(plain(price)), grid.units(plain(amount or "0"))


def _ticker(symbol: _Symbol, said: TickerSaid, now_ns: int) -> TickerSeen:
    def steps(text: str) -> int:
        return _steps(symbol.item, text)

    return TickerSeen(
        venue=symbol.item.venue,
        symbol=symbol.item.symbol,
        last_ticks=steps(said.last),
        open_ticks=steps(said.open),
        high_ticks=steps(said.high),
        low_ticks=steps(said.low),
        base_units=symbol.grid.units(plain(said.volume)),
        exchange_ns=(said.ms or 0) * MS_NS,
        received_ns=now_ns,
    )


def _candle(symbol: _Symbol, said: CandleSaid, now_ns: int) -> Iterator[CandleSeen]:
    """Yield a candle as open; the one before it as closed, for no venue's word on that is unified."""
    item = symbol.item
    candle = CandleSeen(
        venue=item.venue,
        symbol=item.symbol,
        interval_s=said.seconds,
        open_ns=said.open_ms * MS_NS,
        open_ticks=_steps(item, said.open),
        high_ticks=_steps(item, said.high),
        low_ticks=_steps(item, said.low),
        close_ticks=_steps(item, said.close),
        base_units=symbol.grid.units(plain(said.volume)),
        trades=0,
        is_closed=False,
        exchange_ns=0,
        received_ns=now_ns,
    )
    before = symbol.candle
    if before is not None and candle.open_ns < before.open_ns:
        return
    if before is not None and candle.open_ns > before.open_ns:
        yield msgspec.structs.replace(before, is_closed=True, received_ns=now_ns)
    symbol.candle = candle
    yield candle


def _steps(item: Instrument, text: str) -> int:
    """Return a price of the past in ticks, cut down: it may have been on another grid, or none."""
    whole, _, fraction = plain(text).partition(".")
    return int(whole + fraction[: item.price_scale].ljust(item.price_scale, "0")) // item.tick


def _plain(levels: Levels) -> Levels:
    """Return levels with the quantities that a float had written with an exponent."""
    return [(plain(price), plain(quantity)) for price, quantity in levels]
