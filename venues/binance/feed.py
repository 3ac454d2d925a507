"""The machine of Binance's market streams: raw items in, events and requests out. Pure.

One machine is one socket of a combined stream (``/stream``): each of its streams has a follower of
its own, and a fault of one stream stays with it. Frames are told apart by the stream's name at their
beginning, before they are decoded, once, as what that stream sends. Request ids are given out as
things happen, so a recording put through another machine gives the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec

from kernel.errors import BadInput
from marketdata.book import L2Book
from marketdata.events import (
    Channel,
    GapReason,
    MarketEvent,
    Request,
    WantReconnect,
    WantResubscribe,
)
from marketdata.model import Instrument
from marketdata.raw import RawItem, RawKind
from venues.binance.books import BookFollower
from venues.binance.frames import (
    ANSWERS,
    UNREADABLE,
    Answer,
    Best,
    Depth,
    Kline,
    Ticker,
    Trade,
    Wrapped,
    read_depth,
)
from venues.binance.policy import StreamWatch
from venues.binance.quotes import BestFollower, CandleFollower, TickerFollower
from venues.binance.trades import TradeFollower
from venues.feeds.gap_log import STRIKES_MAX, StreamGaps

STREAMS_MAX: Final = 200
"""Streams of one socket. The venue allows 1,024 (web-socket-streams.md, "General information");
fewer make a lost socket a smaller loss."""
CHECK_SPACING_NS: Final = 250_000_000
"""Four quiet books are asked for in a second: half of the weight that `wire` allows itself."""
STRIKES_AT_ONCE: Final = 3
"""Silences in a row after which a stream is subscribed to at once; then after growing pauses."""
CHANNELS: Final = tuple(Channel)
CANDLES_S: Final = 60

Follower: TypeAlias = BookFollower | TradeFollower | BestFollower | TickerFollower | CandleFollower
Out: TypeAlias = Sequence[MarketEvent | Request]
_Take: TypeAlias = Callable[[Any, int], Out]
_Reader: TypeAlias = tuple[Callable[[bytes], Any], _Take, Follower]

_FRAME: Final = RawKind.FRAME
"""Looked up once: in its enum it takes longer than changing a level of a book."""
_PREFIX: Final = b'{"stream":"'
_PREFIX_LENGTH: Final = len(_PREFIX)
_LOOKED_AT: Final = 256
_NAMED: Final = re.compile(rb'"stream"\s*:\s*"([^"]+)"')
_TYPED: Final = re.compile(rb'"e"\s*:\s*"([^"]+)"')
_SYMBOL: Final = re.compile(rb'"s"\s*:\s*"([^"]+)"')
_SUFFIXES: Final = {
    Channel.BOOK: "depth@100ms",
    Channel.TRADES: "trade",
    Channel.BEST: "bookTicker",
    Channel.TICKER: "ticker",
}
_EVENTS: Final = {
    b"depthUpdate": Channel.BOOK,
    b"trade": Channel.TRADES,
    b"24hrTicker": Channel.TICKER,
    b"24hrMiniTicker": Channel.TICKER,
    b"kline": Channel.CANDLES,
}
_INTERVALS: Final = {
    1: "1s",
    60: "1m",
    180: "3m",
    300: "5m",
    900: "15m",
    1_800: "30m",
    3_600: "1h",
    14_400: "4h",
    86_400: "1d",
}
_DECODERS: Final[dict[Channel, tuple[Any, Any]]] = {
    channel: (msgspec.json.Decoder(wrapped).decode, msgspec.json.Decoder(bare).decode)
    for channel, wrapped, bare in (
        (Channel.TRADES, Wrapped[Trade], Trade),
        (Channel.BEST, Wrapped[Best], Best),
        (Channel.TICKER, Wrapped[Ticker], Ticker),
        (Channel.CANDLES, Wrapped[Kline], Kline),
    )
} | {Channel.BOOK: (read_depth, msgspec.json.Decoder(Depth).decode)}


@dataclass(slots=True)
class _Asked:
    """A subscription that is not acknowledged yet."""

    followers: tuple[Follower, ...]
    at_ns: int


class BinanceFeed:
    """See `marketdata.ports.FeedMachine`."""

    def __init__(
        self,
        instruments: Sequence[Instrument],
        *,
        channels: Collection[Channel] = CHANNELS,
        candles_s: int = CANDLES_S,
        watch: StreamWatch | None = None,
    ) -> None:
        """Follow *channels* of *instruments*, all of one venue; candles are of *candles_s* seconds.

        Raises:
            BadInput: too many for one socket (see `lanes`), or an interval that there is not.
        """
        if not instruments or len(instruments) * len(channels) > STREAMS_MAX:
            raise BadInput(f"a socket has 1 to {STREAMS_MAX} streams", remedy="Use lanes()")
        if candles_s not in _INTERVALS:
            raise BadInput(f"there are no candles of {candles_s} s", remedy=f"Of {[*_INTERVALS]}")
        self._venue = instruments[0].venue
        self._watch = watch or StreamWatch()
        self._interval = candles_s
        self._symbols = {
            one.symbol: _SymbolStreams(self, one, channels, candles_s) for one in instruments
        }
        self._readers: dict[bytes, _Reader] = {}
        for found in self._symbols.values():
            for follower in found.followers:
                channel = follower.gaps.channel
                name = self._stream(follower.gaps.symbol, channel).encode()
                self._readers[name] = (_DECODERS[channel][0], found.takes[channel], follower)
        self._connection = self._ids = 0
        self._heard_ns = 0
        self._is_given_up = False
        self._asked: dict[int, _Asked] = {}
        self._first_id = 0
        self._again_ids: dict[tuple[str, Channel], int] = {}
        self._sent_ns = 0
        """When all that was asked for will have been sent."""
        self._later: dict[tuple[str, Channel], int] = {}
        """When to subscribe again to streams that were refused, or are silent again and again."""

    @property
    def venue(self) -> str:
        """Return the venue's name."""
        return self._venue

    @property
    def watch(self) -> StreamWatch:
        """Return when a stream is suspected."""
        return self._watch

    def book(self, symbol: str) -> L2Book | None:
        """Return the machine's own book of *symbol*; None if it keeps none."""
        found = self._symbols.get(symbol)
        return None if found is None or found.book is None else found.book.book

    def subscriptions(self) -> Sequence[bytes]:
        """Return the frames to send after connecting."""
        names = [name.decode() for name in self._readers]
        return (_request("SUBSCRIBE", names, self._first_id),)

    def resubscribe(self, symbol: str, channel: Channel) -> Sequence[bytes]:
        """Return the frames that leave one stream and subscribe to it again."""
        names = [self._stream(symbol, channel)]
        number = self._again_ids.get((symbol, channel), 0)
        return (
            _request("UNSUBSCRIBE", names, -number),
            _request("SUBSCRIBE", names, number),
        )

    def take(self, item: RawItem) -> Out:
        """Return what follows from *item*, in order."""
        if item.kind is _FRAME:
            return self._frame(item.data, item.received_ns)
        match item.kind:
            case RawKind.CONNECTED:
                return self._connected(item)
            case RawKind.LOST:
                return self._lost(item)
            case RawKind.TICK:
                return self._look(item.received_ns)
            case _:
                return self._answered_by_rest(item)

    def _frame(self, data: bytes, now_ns: int) -> Out:
        if data.startswith(_PREFIX):
            name = data[_PREFIX_LENGTH : data.find(b'"', _PREFIX_LENGTH)]
            reader = self._readers.get(name)
            if reader is not None:
                self._heard_ns = now_ns
                decode, take, follower = reader
                try:
                    frame = decode(data).data
                except UNREADABLE as error:
                    return self._fault(follower, error, now_ns)
                if frame.symbol == follower.gaps.symbol:
                    return take(frame, now_ns)
                return self._fault(follower, ValueError(f"it is of {frame.symbol}"), now_ns)
        return self._other(data, now_ns)

    def _other(self, data: bytes, now_ns: int) -> Out:
        """Read what is no frame of a combined stream as it is usually written."""
        try:
            head = _HEADS.decode(data)
            if head.id is not None:
                return self._acknowledged(ANSWERS.decode(data), now_ns)
            self._heard_ns = now_ns  # an answer is no sign that the streams are alive
            if head.stream:
                return self._named(head.stream, data, now_ns)
        except UNREADABLE as error:
            return self._unreadable(data, error, now_ns)
        return self._bare(head, data, now_ns)

    def _named(self, name: str, data: bytes, now_ns: int) -> Out:
        reader = self._readers.get(name.encode())
        if reader is None:
            return ()  # a stream that nobody asked for
        decode, take, follower = reader
        try:
            frame = decode(data).data
        except UNREADABLE as error:
            return self._fault(follower, error, now_ns)
        if frame.symbol != follower.gaps.symbol:
            return self._fault(follower, ValueError(f"it is of {frame.symbol}"), now_ns)
        return take(frame, now_ns)

    def _bare(self, head: _Head, data: bytes, now_ns: int) -> Out:
        """Read a frame of a single stream (``/ws``), which does not say its stream's name."""
        found = self._symbols.get(head.s)
        channel = Channel.BEST if not head.e else _EVENTS.get(head.e.encode())
        if found is None or channel is None or (follower := found.of(channel)) is None:
            return ()
        try:
            frame = _DECODERS[channel][1](data)
        except UNREADABLE as error:
            return self._fault(follower, error, now_ns)
        return found.takes[channel](frame, now_ns)

    def _fault(self, follower: Follower, error: Exception, now_ns: int) -> Out:
        is_json = isinstance(error, msgspec.ValidationError | ValueError)
        is_json = is_json and not isinstance(error, UnicodeDecodeError)
        is_json = is_json and type(error) is not msgspec.DecodeError
        reason = GapReason.MALFORMED if is_json else GapReason.UNREADABLE
        return follower.fault(reason, str(error), now_ns)

    def _unreadable(self, data: bytes, error: Exception, now_ns: int) -> Out:
        """Blame the streams that a frame may have been of, as far as its beginning tells."""
        head = data[:_LOOKED_AT]
        named, typed, symbol = (p.search(head) for p in (_NAMED, _TYPED, _SYMBOL))
        if named is not None:
            reader = self._readers.get(named[1])
            return () if reader is None else self._fault(reader[2], error, now_ns)
        channel = None if typed is None else _EVENTS.get(typed[1])
        out: list[MarketEvent | Request] = []
        for follower in self._followers():
            gaps = follower.gaps
            if symbol is not None and symbol[1] != gaps.symbol.encode():
                continue
            if channel is None or channel is gaps.channel:
                out += self._fault(follower, error, now_ns)
        return out

    # Subscriptions.

    def _connected(self, item: RawItem) -> Out:
        self._connection = item.connection
        self._heard_ns = item.received_ns
        self._is_given_up = False
        self._later.clear()
        self._again_ids.clear()
        self._sent_ns = 0
        self._ids += 1
        self._first_id = self._ids
        followers = tuple(self._followers())
        self._asked = {self._ids: _Asked(followers, item.received_ns)}
        out: list[MarketEvent | Request] = []
        for follower in followers:
            out += follower.gaps.open(GapReason.STARTED, "", item.received_ns)
        return out

    def _lost(self, item: RawItem) -> Out:
        reason, detail = _reason_of(item.data)
        self._asked.clear()
        out: list[MarketEvent | Request] = []
        for follower in self._followers():
            gaps = follower.gaps
            if gaps.good_ns:
                # A socket loses nothing in the middle: until its last frame all was there.
                gaps.good_ns = max(gaps.good_ns, self._heard_ns)
            out += gaps.open(reason, detail, item.received_ns)
            follower.unsubscribed()
        return out

    def _acknowledged(self, answer: Answer, now_ns: int) -> Out:
        asked = self._asked.pop(answer.id, None)
        if asked is None:
            return ()
        out: list[MarketEvent | Request] = []
        for follower in asked.followers:
            if answer.error is None:
                out += follower.subscribed(now_ns)
            elif len(asked.followers) > 1:
                out += self._again(follower, now_ns)  # one by one: which of them is it?
            else:
                out += self._not_subscribed(follower, answer.error.msg, now_ns)
        return out

    def _not_subscribed(self, follower: Follower, why: str, now_ns: int) -> Out:
        gaps = follower.gaps
        self._later[gaps.symbol, gaps.channel] = now_ns + self._watch.refused_ns
        return gaps.reopen(GapReason.REFUSED, why, now_ns)

    def _again(self, follower: Follower, now_ns: int) -> Out:
        """Subscribe to one stream again."""
        gaps = follower.gaps
        follower.unsubscribed()
        self._ids += 1
        self._again_ids[gaps.symbol, gaps.channel] = self._ids
        self._sent_ns = max(self._sent_ns, now_ns) + self._watch.ask_ns
        self._asked[self._ids] = _Asked((follower,), self._sent_ns)
        return (WantResubscribe(gaps.symbol, gaps.channel),)

    def ask_again(self, gaps: StreamGaps, now_ns: int) -> Out:
        """Return what to do about a silent stream: subscribe again, or, if that is no help, connect.

        What does not help is done ever more seldom: another connection costs all other streams.
        """
        gaps.strikes += 1
        follower = self._symbols[gaps.symbol].of(gaps.channel)
        assert follower is not None
        is_dead = now_ns - self._heard_ns > self._watch.silence_ns
        rounds, rest = divmod(gaps.strikes, STRIKES_MAX + 1)
        if is_dead or not (rest or rounds & (rounds - 1)):
            what = "the socket" if is_dead else f"{gaps.channel} of {gaps.symbol}"
            return self._give_up(GapReason.SILENT, f"{what} says nothing")
        if gaps.strikes > STRIKES_AT_ONCE:
            follower.unsubscribed()
            self._later[gaps.symbol, gaps.channel] = now_ns + gaps.retry_ns()
            return ()
        return self._again(follower, now_ns)

    def _give_up(self, reason: GapReason, detail: str) -> Out:
        if self._is_given_up:
            return ()
        self._is_given_up = True
        return (WantReconnect(reason, detail),)

    # Time and answers by REST.

    def _look(self, now_ns: int) -> Out:
        if self._is_given_up or not self._connection:
            return ()
        for asked in self._asked.values():
            if now_ns - asked.at_ns > self._watch.subscribe_ns:
                return self._give_up(GapReason.REFUSED, "a subscription is not acknowledged")
        out: list[MarketEvent | Request] = []
        for found in self._symbols.values():
            out += found.look(now_ns)
        for (symbol, channel), at_ns in [*self._later.items()]:
            follower = self._symbols[symbol].of(channel)
            if now_ns >= at_ns and follower is not None:
                del self._later[symbol, channel]
                out += self._again(follower, now_ns)
        return out

    def _answered_by_rest(self, item: RawItem) -> Out:
        found = self._symbols.get(item.symbol)
        if found is None or found.book is None or item.connection != self._connection:
            return ()
        if item.kind is RawKind.SNAPSHOT:
            return found.book.snapshot(item.data, item.received_ns)
        return found.book.check(item.data, item.received_ns)

    def _followers(self) -> Iterator[Follower]:
        for found in self._symbols.values():
            yield from found.followers

    def _stream(self, symbol: str, channel: Channel) -> str:
        suffix = _SUFFIXES.get(channel) or f"kline_{_INTERVALS[self._interval]}"
        return f"{symbol.lower()}@{suffix}"


class _Head(msgspec.Struct, gc=False):
    """What tells a frame's kind."""

    id: int | None = None
    stream: str = ""
    e: str = ""
    s: str = ""


_HEADS: Final = msgspec.json.Decoder(_Head)


class _SymbolStreams:
    """The followers of one symbol, and what they tell each other."""

    def __init__(
        self,
        feed: BinanceFeed,
        instrument: Instrument,
        channels: Collection[Channel],
        candles_s: int,
    ) -> None:
        watch, again = feed.watch, feed.ask_again
        self.book = BookFollower(instrument, watch, again) if Channel.BOOK in channels else None
        self.trades = (
            TradeFollower(instrument, watch, again) if Channel.TRADES in channels else None
        )
        self.best = (
            BestFollower(instrument, Channel.BEST, watch, again)
            if Channel.BEST in channels
            else None
        )
        self.ticker = (
            TickerFollower(instrument, Channel.TICKER, watch, again)
            if Channel.TICKER in channels
            else None
        )
        self.candles = (
            CandleFollower(instrument, watch, again, interval_s=candles_s)
            if Channel.CANDLES in channels
            else None
        )
        every = (self.book, self.trades, self.best, self.ticker, self.candles)
        self.followers: tuple[Follower, ...] = tuple(one for one in every if one is not None)
        self.takes: dict[Channel, _Take] = {one.gaps.channel: one.take for one in self.followers}
        if self.trades is not None:
            # What each stream shows is evidence of what the others should.
            self.takes[Channel.TRADES] = self._take_trade
            self.takes |= {
                one.gaps.channel: partial(self._take_summary, one.take)
                for one in (self.ticker, self.candles)
                if one is not None
            }

    def _take_trade(self, frame: Trade, now_ns: int) -> Out:
        assert self.trades is not None
        for summary in (self.ticker, self.candles):
            if summary is not None:
                summary.want(now_ns)
        return self.trades.take(frame, now_ns)

    def _take_summary(self, take: _Take, frame: Ticker | Kline, now_ns: int) -> Out:
        assert self.trades is not None
        last_id = frame.last_id if isinstance(frame, Ticker) else frame.k.last_id
        self.trades.told(last_id, now_ns)
        return take(frame, now_ns)

    def of(self, channel: Channel) -> Follower | None:
        """Return the follower of a channel; None: there is none."""
        return next((one for one in self.followers if one.gaps.channel is channel), None)

    def look(self, now_ns: int) -> list[MarketEvent | Request]:
        """Let each judge by the time."""
        out: list[MarketEvent | Request] = []
        for follower in self.followers:
            out += follower.look(now_ns)
        if self.best is not None and self.book is not None:
            out += self.best.compare(self.book.book, now_ns)
        return out


def lanes(
    instruments: Sequence[Instrument],
    *,
    channels: Collection[Channel] = CHANNELS,
    candles_s: int = CANDLES_S,
    watch: StreamWatch | None = None,
) -> tuple[BinanceFeed, ...]:
    """Return as many machines as it takes, each for one socket.

    The more books there are, the longer a quiet one waits until the venue is asked for it: what may
    be asked of a venue is limited, and snapshots need their share.
    """
    watch = watch or StreamWatch()
    silence_ns = max(watch.silence_ns, len(instruments) * CHECK_SPACING_NS)
    watch = replace(watch, silence_ns=silence_ns)
    size = max(1, STREAMS_MAX // max(1, len(channels)))
    return tuple(
        BinanceFeed(
            instruments[first : first + size],
            channels=channels,
            candles_s=candles_s,
            watch=watch,
        )
        for first in range(0, len(instruments), size)
    )


def _request(method: str, names: Sequence[str], number: int) -> bytes:
    return msgspec.json.encode({"method": method, "params": names, "id": number})


def _reason_of(data: bytes) -> tuple[GapReason, str]:
    """Read what a lost socket was lost by: ``reason: detail``."""
    reason, _, detail = data.decode(errors="replace").partition(": ")
    try:
        return GapReason(reason), detail
    except ValueError:
        return GapReason.CLOSED, data.decode(errors="replace")
