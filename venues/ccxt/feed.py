"""Order books through ccxt.pro, with a watchdog, because its receive loop can die in silence.

One frame of bad JSON ends the loop without an exception: `watch_order_book` then waits for ever. So
every stream has a deadline. When it passes, the venue is asked for its best levels: if they are ours,
the silence was a quiet market; if not, the whole instance is torn down and built again. A frame with
malformed levels is worse: ccxt drops the levels, counts the update and says nothing. So frames are
looked at before ccxt gets them, through the instance's own `handle_message`.

ccxt conflates and hands out floats. That is right for a latest-value reader only; the float's
shortest decimal text is the venue's own text as long as that has at most 15 digits, and what is not
on the instrument's grid makes the book unusable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import ccxt.async_support as ccxt_rest
import ccxt.pro as ccxt
import structlog

from kernel.clock import Clock
from kernel.errors import BadInput
from marketdata.book import L2Book
from marketdata.model import BookView, Instrument, Level
from venues.ccxt.classify import failure_of
from venues.ccxt.endpoint import Endpoint, point_at, settings

log = structlog.get_logger()

DEPTH: Final = 100
LEVELS_ASKED: Final = 5
BACKOFF_MIN_S: Final = 0.2
BACKOFF_MAX_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPolicy:
    """When a silent stream is suspected.

    Attributes:
        silence_max: time without an update after which the venue is asked.
        connect_max: time that the first book may take.
    """

    silence_max: timedelta = timedelta(seconds=2)
    connect_max: timedelta = timedelta(seconds=10)


class BookFeed:
    """See `marketdata.ports.Feed`; `run` keeps it going until it is cancelled."""

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        endpoint: Endpoint,
        clock: Clock,
        policy: FeedPolicy | None = None,
    ) -> None:
        """Watch *instruments*, which are keyed by ccxt's symbol (``ETH/USDT``)."""
        self._instruments = dict(instruments)
        self._endpoint = endpoint
        self._clock = clock
        self._policy = policy or FeedPolicy()
        self._views: dict[str, BookView] = {}
        self._changed = asyncio.Condition()
        self.rebuilt = 0

    def book(self, symbol: str) -> BookView | None:
        """Return the newest usable book of the venue's *symbol*."""
        return self._views.get(symbol)

    async def wait_for_book(self, symbol: str, timeout: timedelta) -> BookView | None:  # noqa: ASYNC109  the shape of the port
        """Return the newest usable book, waiting for one at most *timeout*."""
        try:
            async with asyncio.timeout(timeout / timedelta(seconds=1)), self._changed:
                await self._changed.wait_for(lambda: symbol in self._views)
        except TimeoutError:
            return None
        return self._views.get(symbol)

    async def run(self) -> None:
        """Stream every instrument's book until cancelled; each stream heals by itself."""
        async with asyncio.TaskGroup() as group:
            for symbol in self._instruments:
                group.create_task(self._keep_streaming(symbol))

    async def _keep_streaming(self, unified: str) -> None:
        backoff_s = BACKOFF_MIN_S
        while True:
            began = self._clock.now()
            fault = await self._stream(unified)
            self._views.pop(self._instruments[unified].symbol, None)
            self.rebuilt += 1
            log.warning("book stream rebuilt", symbol=unified, fault=fault)
            if self._clock.now() - began > self._policy.connect_max:
                backoff_s = BACKOFF_MIN_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    async def _stream(self, unified: str) -> str:
        """Stream one book until something is wrong with it; return what."""
        exchange = self._instance()
        guard = _FrameGuard(exchange)
        grid = self._instruments[unified]
        patience = self._policy.connect_max
        try:
            while True:
                raw = await _next_book(exchange, unified, patience)
                if guard.malformed:
                    return "malformed frame"
                if raw is None:
                    if not await self._is_only_quiet(exchange, grid):
                        return "silent"
                elif not await self._show(grid, raw):
                    return "unusable book"
                patience = self._policy.silence_max
        except (ccxt_rest.BaseError, OSError) as error:
            return failure_of(error).reason
        finally:
            await exchange.close()

    async def _is_only_quiet(self, exchange: Any, grid: Instrument) -> bool:
        """Ask for the best levels; the same as ours: nothing happened, our book is fresh."""
        view = self._views.get(grid.symbol)
        if view is None:
            return False
        asked_at = self._clock.now()
        answer = await exchange.publicGetDepth({"symbol": grid.symbol, "limit": LEVELS_ASKED})
        if not _same_book(view, answer, grid):
            return False
        await self._publish(
            BookView(
                venue=view.venue,
                symbol=view.symbol,
                sequence=view.sequence,
                received_at=asked_at,
                bids=view.bids,
                asks=view.asks,
            )
        )
        return True

    async def _show(self, grid: Instrument, raw: Mapping[str, Any]) -> bool:
        """Publish a book; False: it cannot be used."""
        view = book_view(grid, raw, self._clock)
        if view is None:
            return False
        await self._publish(view)
        return True

    async def _publish(self, view: BookView) -> None:
        async with self._changed:
            self._views[view.symbol] = view
            self._changed.notify_all()

    def _instance(self) -> Any:
        wait_ms = self._policy.connect_max // timedelta(milliseconds=1)
        exchange = ccxt.binance(settings(None, timeout_ms=wait_ms, rate_limit=True))
        point_at(exchange, self._endpoint)
        return exchange


class _FrameGuard:
    """Looks at every frame before ccxt does and remembers whether one was malformed."""

    def __init__(self, exchange: Any) -> None:
        self.malformed = False
        self._pass_on = exchange.handle_message
        exchange.handle_message = self._look

    def _look(self, client: Any, message: Any) -> None:
        if isinstance(message, Mapping) and message.get("e") == "depthUpdate":
            sides = (message.get("b"), message.get("a"))
            self.malformed = self.malformed or not all(map(_are_levels, sides))
        self._pass_on(client, message)


def _are_levels(rows: Any) -> bool:
    return isinstance(rows, list) and all(
        isinstance(row, list) and len(row) >= 2 and all(isinstance(x, str) for x in row[:2])
        for row in rows
    )


def _same_book(view: BookView, answer: Mapping[str, Any], grid: Instrument) -> bool:
    try:
        bids, asks = (
            tuple(Level(grid.ticks(row[0]), grid.base.parse(row[1])) for row in answer[side])
            for side in ("bids", "asks")
        )
        sequence = int(answer["lastUpdateId"])
    except (BadInput, KeyError, TypeError, ValueError, IndexError):
        return False
    ours = (view.sequence, view.bids[: len(bids)], view.asks[: len(asks)])
    return ours == (sequence, bids, asks)


async def _next_book(exchange: Any, unified: str, patience: timedelta) -> Mapping[str, Any] | None:
    try:
        async with asyncio.timeout(patience / timedelta(seconds=1)):
            book: Mapping[str, Any] = await exchange.watch_order_book(unified, DEPTH)
            return book
    except TimeoutError:
        return None


def book_view(grid: Instrument, raw: Mapping[str, Any], clock: Clock) -> BookView | None:
    """Read ccxt's book; None: off the grid, crossed, or without an update id."""
    try:
        bids, asks = (_levels(raw[side], grid) for side in ("bids", "asks"))
        sequence = int(raw["nonce"])
    except (BadInput, KeyError, TypeError, ValueError, ArithmeticError):
        return None
    book = L2Book(grid.venue, grid.symbol)
    book.snapshot(sequence, bids, asks)
    return book.view(clock.now(), DEPTH)


def _levels(rows: Any, grid: Instrument) -> tuple[Level, ...]:
    return tuple(
        Level(grid.ticks(_decimal_text(price)), grid.base.parse(_decimal_text(quantity)))
        for price, quantity in rows
    )


def _decimal_text(number: float) -> str:
    """Return the shortest decimal text that reads back as *number*, without an exponent."""
    return format(Decimal(repr(number)), "f")
