"""A venue's past by REST, for what a stream has missed: see `marketdata.ports.History`.

Every request waits for its turn at the limits of the venue's record, and what the venue says of them is
heard. Numbers are the texts of the answer. A failure says no more than that there is no answer: whoever
asks keeps its cursor and asks again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from kernel.clock import Clock, to_unix_ns
from kernel.errors import BadInput
from marketdata.errors import NoInstrument
from marketdata.events import CandleSeen, TradeSeen
from marketdata.model import Instrument, Page
from marketdata.ports import History
from venues.capabilities import CallClass, Capabilities, Dialect
from venues.ccxt.clock import ClockPolicy
from venues.ccxt.connection import Connection, ConnectionSettings
from venues.ccxt.endpoint import Endpoint
from venues.ccxt.markets import MARKETS_POLICY, Markets
from venues.history_pages import (
    MS_NS,
    SECOND_NS,
    Span,
    binance_candles,
    binance_first_id,
    binance_trades,
    kraken_candles,
    kraken_trades,
    unified_candles,
    unified_trades,
)

PAGE_MAX: Final = 1_000
READ_TIMEOUT: Final = timedelta(seconds=10)
TURN_TIMEOUT: Final = timedelta(minutes=2)
"""A backfill has time: it waits for its turn behind everybody else."""
MINUTE_S: Final = 60
EMPTY: Final[Page[Any]] = Page(())


class _Past:
    """What all venues share: instruments, the connection, the span of a question."""

    def __init__(
        self,
        wire: Connection,
        venue: str,
        instruments: Iterable[Instrument],
        clock: Clock,
        *,
        page_max: int = PAGE_MAX,
    ) -> None:
        self._wire = wire
        self._venue = venue
        self._items = {item.symbol: item for item in instruments}
        self._clock = clock
        self._page_max = page_max

    @property
    def venue(self) -> str:
        """Return the venue's name."""
        return self._venue

    def _span(self, symbol: str, since: datetime, until: datetime, *, opened: str = "") -> Span:
        if symbol not in self._items:
            raise NoInstrument(f"no instrument {symbol} of {self._venue} was named for its past")
        if opened and not opened.isdecimal():
            raise BadInput(f"{opened!r} is no cursor of a page")
        return Span(
            item=self._items[symbol],
            since_ns=to_unix_ns(since),
            until_ns=to_unix_ns(until),
            received_ns=self._clock.now_ns(),
        )

    async def _get(self, call: CallClass, path: str, **params: object) -> Any:
        """Ask for *path* of the public API; nothing is signed, so no key is needed."""
        reader = self._wire.reader
        url = f"{reader.urls['api']['public']}/{path}?{urlencode(params)}"
        return await self._wire.ask(call, lambda: reader.fetch(url))


class BinanceHistory(_Past):
    """By trade id: the ids of a symbol have no gaps."""

    async def trades(
        self, symbol: str, *, since: datetime, until: datetime, cursor: str = ""
    ) -> Page[TradeSeen]:
        """Return a page of public trades; the cursor is a trade id."""
        span = self._span(symbol, since, until, opened=cursor)
        first = int(cursor) if cursor else await self._first_id(span)
        if first is None:
            return EMPTY
        answer = await self._get(
            CallClass.PAST_TRADES,
            "historicalTrades",
            symbol=symbol,
            fromId=first,
            limit=self._page_max,
        )
        return self._wire.readable(lambda: binance_trades(answer, span, page_max=self._page_max))

    async def candles(
        self,
        symbol: str,
        interval_s: int,
        *,
        since: datetime,
        until: datetime,
        cursor: str = "",
    ) -> Page[CandleSeen]:
        """Return a page of closed candles; the cursor is a millisecond."""
        span = self._span(symbol, since, until, opened=cursor)
        answer = await self._get(
            CallClass.PAST_CANDLES,
            "klines",
            symbol=symbol,
            interval=_timeframe(self._wire.reader, interval_s),
            startTime=cursor or _ceil_ms(span.since_ns),
            endTime=_ceil_ms(span.until_ns) - 1,
            limit=self._page_max,
        )
        return self._wire.readable(
            lambda: binance_candles(answer, span, interval_s, page_max=self._page_max)
        )

    async def _first_id(self, span: Span) -> int | None:
        answer = await self._get(
            CallClass.PAST_TRADES,
            "aggTrades",
            symbol=span.item.symbol,
            startTime=_ceil_ms(span.since_ns),
            limit=1,
        )
        return self._wire.readable(lambda: binance_first_id(answer))


class KrakenHistory(_Past):
    """By the venue's own cursor: the nanoseconds of the last trade that was listed."""

    async def trades(
        self, symbol: str, *, since: datetime, until: datetime, cursor: str = ""
    ) -> Page[TradeSeen]:
        """Return a page of public trades."""
        span = self._span(symbol, since, until, opened=cursor)
        cursor = cursor or str(max(span.since_ns - 1, 1))
        answer = await self._get(
            CallClass.PAST_TRADES, "Trades", pair=symbol, since=cursor, count=self._page_max
        )
        return self._wire.readable(
            lambda: kraken_trades(answer, span, page_max=self._page_max, cursor=cursor)
        )

    async def candles(
        self,
        symbol: str,
        interval_s: int,
        *,
        since: datetime,
        until: datetime,
        cursor: str = "",
    ) -> Page[CandleSeen]:
        """Return closed candles, all in one page: the venue keeps the latest 720 only."""
        span = self._span(symbol, since, until, opened=cursor)
        minutes, rest = divmod(interval_s, MINUTE_S)
        if rest:
            raise BadInput(f"{self._venue} has no candles of {interval_s} s")
        answer = await self._get(
            CallClass.PAST_CANDLES,
            "OHLC",
            pair=symbol,
            interval=minutes,
            since=max(span.since_ns // SECOND_NS - 1, 1),
        )
        return self._wire.readable(lambda: kraken_candles(answer, span, interval_s))

    async def _get(self, call: CallClass, path: str, **params: object) -> Any:
        url = f"{self._wire.reader.urls['api']['public']}/0/public/{path}?{urlencode(params)}"
        return await self._wire.ask(call, lambda: self._wire.reader.fetch(url))


class UnifiedHistory(_Past):
    """As ccxt unifies it, for a venue that is a record only."""

    async def trades(
        self, symbol: str, *, since: datetime, until: datetime, cursor: str = ""
    ) -> Page[TradeSeen]:
        """Return a page of public trades; the cursor is a millisecond, whose trades come twice."""
        span = self._span(symbol, since, until, opened=cursor)
        unified = await self._unified(symbol)
        since_ms = int(cursor) if cursor else _ceil_ms(span.since_ns)
        answer = await self._wire.ask(
            CallClass.PAST_TRADES,
            lambda: self._wire.reader.fetch_trades(unified, since_ms, self._page_max),
        )
        return self._wire.readable(lambda: unified_trades(answer, span, from_ms=since_ms))

    async def candles(
        self,
        symbol: str,
        interval_s: int,
        *,
        since: datetime,
        until: datetime,
        cursor: str = "",
    ) -> Page[CandleSeen]:
        """Return a page of closed candles; the cursor is a millisecond."""
        span = self._span(symbol, since, until, opened=cursor)
        unified, frame = await self._unified(symbol), _timeframe(self._wire.reader, interval_s)
        since_ms = int(cursor) if cursor else _ceil_ms(span.since_ns)
        answer = await self._wire.ask(
            CallClass.PAST_CANDLES,
            lambda: self._wire.reader.fetch_ohlcv(unified, frame, since_ms, self._page_max),
        )
        return self._wire.readable(
            lambda: unified_candles(answer, span, interval_s, page_max=self._page_max)
        )

    async def _unified(self, symbol: str) -> str:
        markets = Markets(self._wire, self._venue, MARKETS_POLICY)
        if not self._wire.reader.markets:
            await markets.load(symbol)
        return str(markets.find(symbol)["symbol"])


_KINDS: Final[dict[Dialect, type[BinanceHistory | KrakenHistory | UnifiedHistory]]] = {
    Dialect.BINANCE: BinanceHistory,
    Dialect.KRAKEN: KrakenHistory,
    Dialect.GENERIC: UnifiedHistory,
}


@asynccontextmanager
async def open_history(
    capabilities: Capabilities,
    endpoint: Endpoint,
    instruments: Iterable[Instrument],
    clock: Clock,
    *,
    venue: str,
    rate_limit: bool = True,
    page_max: int = PAGE_MAX,
) -> AsyncIterator[History]:
    """Open the past of *instruments* of a venue, which is told apart by its record only.

    Args:
        capabilities: the venue's record.
        endpoint: where the venue is.
        instruments: what may be asked for, on the grids that answers are read by.
        clock: stamps what was received, and tells which candles are over.
        venue: our code of it.
        rate_limit: whether the record's limits are kept; only a test's venue has none.
        page_max: rows of a page.
    """
    wire = open_public(capabilities, endpoint, clock, venue=venue, rate_limit=rate_limit)
    try:
        yield _KINDS[capabilities.dialect](wire, venue, instruments, clock, page_max=page_max)
    finally:
        await wire.close()


def open_public(
    capabilities: Capabilities,
    endpoint: Endpoint,
    clock: Clock,
    *,
    venue: str,
    rate_limit: bool = True,
) -> Connection:
    """Return a connection without a key; whoever opens it closes it."""
    return Connection(
        ConnectionSettings(
            venue=venue,
            capabilities=capabilities,
            endpoint=endpoint,
            credentials=None,
            order_timeout=READ_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            turn_timeout=TURN_TIMEOUT,
            rate_limit=rate_limit,
            has_nonce_window=True,
            clock_policy=ClockPolicy(),
        ),
        clock,
    )


def _timeframe(reader: Any, interval_s: int) -> str:
    """Return ccxt's name of an interval, which is the venue's where it has no other."""
    for name in reader.timeframes or ():
        if reader.parse_timeframe(name) == interval_s and not name.endswith("M"):
            return str(name)
    raise BadInput(f"{reader.id} has no candles of {interval_s} s")


def _ceil_ms(at_ns: int) -> int:
    return -(-at_ns // MS_NS)
