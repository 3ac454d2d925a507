"""Market data of any venue that ccxt.pro speaks to, by its record only.

`CcxtTransport` is the `venues.feeds.ports.Transport` of such a venue: what looks like one socket to the
runner is an instance of ccxt for each stream, so that a stream that has to be torn down takes no other
with it. The machine's wishes say which streams; each frame of the venue comes back with what ccxt made
of it. An instance is given up and made anew when a frame is bad, when ccxt says so, or when the machine
wishes for the stream again because it says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import msgspec
import structlog

from kernel.clock import Clock
from marketdata.events import Channel, GapReason
from marketdata.model import Instrument
from venues.capabilities import Capabilities, RateLimits
from venues.ccxt.classify import failure_of
from venues.ccxt.connection import FAILURES
from venues.ccxt.endpoint import Endpoint
from venues.ccxt.instance import asking, streaming
from venues.ccxt.tap import DEPTH, Reader, Tap
from venues.ccxt.unified import Heard, Listening, Lost, Said, Wish
from venues.feeds.errors import NoAnswer, SocketLost
from venues.feeds.model import polite

log = structlog.get_logger()

WAITING_MAX: Final = 20_000
"""Frames that may wait to be read; more of them mean that nobody reads."""
CHECKED: Final = 20
"""Levels of a side that are compared."""
TIMEOUT: Final = timedelta(seconds=10)
STREAMS_MAX: Final = 50
"""Streams of one feed: each is a connection."""
ASKED_PER_MINUTE: Final = 30
CLOSE_MAX_S: Final = 5

_SECOND: Final = timedelta(seconds=1)
_WATCHES: Final = {
    Channel.BOOK: "watchOrderBook",
    Channel.TRADES: "watchTrades",
    Channel.BEST: "watchBidsAsks",
    Channel.TICKER: "watchTicker",
    Channel.CANDLES: "watchOHLCV",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CcxtVenue:
    """A venue that is a record only.

    Attributes:
        capabilities: its record.
        endpoint: where it is.
        instruments: what may be watched; their assets are called as ccxt calls them.
        timeout: until a request, or a connection, is given up.
    """

    capabilities: Capabilities
    endpoint: Endpoint
    instruments: tuple[Instrument, ...]
    timeout: timedelta = TIMEOUT

    def unified(self, symbol: str) -> str:
        """Return ccxt's name of a symbol: ``ETH/USDT``."""
        item = next(item for item in self.instruments if item.symbol == symbol)
        return f"{item.base.code}/{item.quote.code}"


class CcxtTransport:
    """See `venues.feeds.ports.Transport`; `close` it after use."""

    def __init__(self, venue: CcxtVenue, clock: Clock) -> None:
        self._venue = venue
        self._clock = clock
        self._reader = asking(
            venue.capabilities, None, venue.endpoint, venue.timeout, clock, in_turn=False
        )

    @property
    def address(self) -> str:
        """Return which class of ccxt speaks to which host."""
        where = self._venue.endpoint.ws_url or "its venue"
        return f"ccxt {self._venue.capabilities.ccxt_id} {where}"

    @property
    def limits(self) -> RateLimits:
        """Return what may be asked."""
        return polite(ASKED_PER_MINUTE)

    async def close(self) -> None:
        """Close what books are asked with."""
        await self._reader.close()

    @asynccontextmanager
    async def connect(self, lane: int) -> AsyncIterator[CcxtSocket]:  # noqa: ARG002  there is one
        """Learn the venue's markets, and be ready for wishes."""
        try:
            await self._reader.load_markets()
        except FAILURES as error:
            raise SocketLost(GapReason.REFUSED, failure_of(error).reason) from error
        socket = CcxtSocket(self._venue, self._reader, self._clock)
        try:
            async with asyncio.TaskGroup() as group:
                socket.begin(group)
                yield socket
                socket.end()
        finally:
            await socket.close()

    async def book(self, symbol: str) -> bytes:
        """Return nothing: ccxt stitches by itself."""
        raise NoAnswer(f"the book of {symbol} comes over the socket")

    async def check(self, symbol: str) -> bytes:
        """Return the best levels of a book, numbers as the venue wrote them."""
        try:
            found = await self._reader.fetch_order_book(self._venue.unified(symbol), CHECKED)
            sides = {side: [[str(x) for x in row[:2]] for row in found[side]] for side in _SIDES}
        except FAILURES as error:
            raise NoAnswer(failure_of(error).reason) from error
        return msgspec.json.encode(sides)


_SIDES: Final = ("bids", "asks")


class CcxtSocket:
    """What looks like one socket: a task and an instance of ccxt for each stream."""

    def __init__(self, venue: CcxtVenue, reader: Any, clock: Clock) -> None:
        self._venue = venue
        self._reader = reader
        self._clock = clock
        self._group: asyncio.TaskGroup | None = None
        self._frames: asyncio.Queue[bytes | SocketLost] = asyncio.Queue()
        self._tasks: dict[tuple[str, Channel], asyncio.Task[None]] = {}
        self._open: set[Any] = set()

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Let streams run in *group*."""
        self._group = group

    async def close(self) -> None:
        """Close what the streams have left open because they were cancelled while they closed it."""
        for exchange in tuple(self._open):
            await self._close(exchange)

    async def receive(self) -> bytes:
        """Return the next frame with what ccxt made of it."""
        found = await self._frames.get()
        if isinstance(found, SocketLost):
            raise found
        return found

    async def send(self, frame: bytes) -> None:
        """Do what a wish says: begin a stream, or begin it anew."""
        wish = msgspec.json.decode(frame, type=Wish)
        key = (wish.symbol, wish.channel)
        if len(self._tasks) >= STREAMS_MAX and key not in self._tasks:
            raise SocketLost(GapReason.OVERFLOW, f"more than {STREAMS_MAX} streams")
        before = self._tasks.get(key)
        if before is not None:
            before.cancel()
        assert self._group is not None
        self._tasks[key] = self._group.create_task(self._stream(wish))

    def end(self) -> None:
        """End every stream."""
        for task in self._tasks.values():
            task.cancel()

    async def _stream(self, wish: Wish) -> None:
        """Watch one stream until something is wrong with it, and say what."""
        venue, method = self._venue, _WATCHES[wish.channel]
        exchange = streaming(venue.capabilities, None, venue.endpoint, venue.timeout, self._clock)
        if not exchange.has.get(method):
            self._say(Lost(wish.symbol, wish.channel, GapReason.REFUSED, f"ccxt has no {method}"))
            await exchange.close()
            return
        self._open.add(exchange)
        try:
            exchange.set_markets(self._reader.markets, self._reader.currencies)
            self._say(await self._fault_of(exchange, wish))
        finally:
            await self._close(exchange)

    async def _fault_of(self, exchange: Any, wish: Wish) -> Lost:
        """Watch until there is a fault."""
        assert self._group is not None
        broken: asyncio.Future[Lost] = asyncio.get_running_loop().create_future()

        def give_up(reason: GapReason, detail: str) -> None:
            if not broken.done():
                broken.set_result(Lost(wish.symbol, wish.channel, reason, detail))

        unified = self._venue.unified(wish.symbol)
        tap = Tap(
            exchange,
            Reader(wish.symbol, unified, wish.channel, wish.seconds),
            told=self._hear,
            broken=give_up,
            connected=lambda: self._say(Listening(wish.symbol, wish.channel)),
            checks_levels=wish.channel is Channel.BOOK,
        )
        watching = self._group.create_task(self._watch(exchange, wish, unified, give_up))
        try:
            return await broken
        finally:
            tap.end()
            watching.cancel()

    async def _close(self, exchange: Any) -> None:
        """Close an instance; one that does not let itself be closed takes nothing with it."""
        try:
            async with asyncio.timeout(CLOSE_MAX_S):
                await exchange.close()
        except FAILURES as error:
            log.warning("ccxt does not close", venue=exchange.id, fault=type(error).__name__)
        self._open.discard(exchange)

    async def _watch(self, exchange: Any, wish: Wish, unified: str, give_up: Any) -> None:
        """Keep ccxt subscribed. What it returns is conflated and not used: see `venues.ccxt.tap`."""
        try:
            while True:
                await _watched(exchange, wish, unified)
        except FAILURES as error:
            failure = failure_of(error)
            give_up(_reason_of(failure.kinds), failure.reason)
        finally:
            give_up(GapReason.CLOSED, "ccxt has stopped listening")

    def _hear(self, raw: str, said: Sequence[Said]) -> None:
        if self._frames.qsize() < WAITING_MAX:
            self._frames.put_nowait(msgspec.json.encode(Heard(raw, list(said))))
        elif self._frames.qsize() == WAITING_MAX:
            self._frames.put_nowait(SocketLost(GapReason.OVERFLOW, "nobody reads the frames"))

    def _say(self, said: Said) -> None:
        self._hear("", [said])


async def _watched(exchange: Any, wish: Wish, unified: str) -> None:
    match wish.channel:
        case Channel.BOOK:
            await exchange.watch_order_book(unified, DEPTH)
        case Channel.TRADES:
            await exchange.watch_trades(unified)
        case Channel.BEST:
            await exchange.watch_bids_asks([unified])
        case Channel.TICKER:
            await exchange.watch_ticker(unified)
        case Channel.CANDLES:
            await exchange.watch_ohlcv(unified, _timeframe(exchange, wish.seconds))


def _timeframe(exchange: Any, seconds: int) -> str:
    for name in exchange.timeframes or ():
        if exchange.parse_timeframe(name) == seconds and not name.endswith("M"):
            return str(name)
    raise ValueError(f"{exchange.id} has no candles of {seconds} s")


def _reason_of(kinds: Iterable[str]) -> GapReason:
    """Return what ccxt's error is called in a gap's row."""
    return next((_REASONS[kind] for kind in kinds if kind in _REASONS), GapReason.MALFORMED)


_REASONS: Final[Mapping[str, GapReason]] = {
    "ChecksumError": GapReason.SEQUENCE,
    "InvalidNonce": GapReason.SEQUENCE,
    "RequestTimeout": GapReason.SILENT,
    "NetworkError": GapReason.CLOSED,
    "OSError": GapReason.CLOSED,
    "NotSupported": GapReason.REFUSED,
    "BadSymbol": GapReason.REFUSED,
    "ExchangeError": GapReason.REFUSED,
}


@asynccontextmanager
async def open_ccxt(venue: CcxtVenue, clock: Clock) -> AsyncIterator[CcxtTransport]:
    """Open the transport of a venue that is a record only."""
    transport = CcxtTransport(venue, clock)
    try:
        yield transport
    finally:
        async with asyncio.timeout(CLOSE_MAX_S):
            await transport.close()
