"""``causeway marketdata watch``: book and trades of a symbol, of one venue or several, in the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.common import AsJson, clock, run
from app.cli.marketdata_places import HouseFile, HttpUrl, WsUrl, feed_section, streaming
from kernel.clock import iso
from kernel.errors import BadInput, OutsideUnavailable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.cli.marketdata_joint import Joint
    from app.cli.marketdata_ladder import Picture
    from app.workers.market_data_file import FeedSection
    from kernel.clock import Clock
    from marketdata.consumers import LosslessQueue
    from marketdata.events import MarketEvent, TradeSeen
    from marketdata.model import BookView, Instrument, StreamStatus
    from marketdata.ports import MarketFeed

FRAME_S: Final = 0.2
"""Between two pictures."""
QUEUE: Final = 20_000
TRADES_KEPT: Final = 100
FIRST_BOOK: Final = timedelta(seconds=20)
LEVELS_MAX: Final = 50
DEFAULT_VENUE: Final = "binance"


def register(app: typer.Typer) -> None:
    """Add this command to its group."""
    app.command()(watch)


@dataclass(slots=True, kw_only=True)
class Watched:
    """One symbol of a feed, as it goes by."""

    feed: MarketFeed
    instrument: Instrument
    queue: LosslessQueue[MarketEvent]
    clock: Clock
    levels: int
    trades: deque[TradeSeen] = field(default_factory=lambda: deque(maxlen=TRADES_KEPT))

    def drain(self) -> list[MarketEvent]:
        """Return what happened to the symbol since the last time; its trades are remembered."""
        from marketdata.consumers import Overflow
        from marketdata.events import TradeSeen

        symbol = self.instrument.symbol
        found: list[MarketEvent] = [
            item
            for item in self.queue.take_nowait(QUEUE)
            if not isinstance(item, Overflow) and item.symbol == symbol
        ]
        self.trades.extendleft(item for item in found if isinstance(item, TradeSeen))
        return found

    def view(self) -> BookView | None:
        """Return the newest usable book."""
        return self.feed.latest(self.instrument.symbol).get()

    def statuses(self) -> Sequence[StreamStatus]:
        """Return how the streams of the symbol are doing."""
        return [item for item in self.feed.status() if item.symbol == self.instrument.symbol]

    def picture(self) -> Picture:
        """Return what is shown now."""
        from app.cli.marketdata_ladder import Picture

        statuses = self.statuses()
        why = next((item.detail for item in statuses if item.channel == "book"), "")
        return Picture(
            instrument=self.instrument,
            view=self.view(),
            trades=list(self.trades),
            statuses=statuses,
            now=self.clock.now(),
            levels=self.levels,
            why=f"({why})" if why else "",
        )


def watch(
    symbol: Annotated[str, typer.Argument(help="As the venue spells it, or BASE/QUOTE.")],
    *,
    venue: Annotated[
        list[str] | None,
        typer.Option("--venue", help="Our code of the venue; several make one ladder. [binance]"),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every venue of the house file that streams it.")
    ] = False,
    house: HouseFile = None,
    levels: Annotated[
        int, typer.Option("--levels", min=1, max=LEVELS_MAX, help="Of each side.")
    ] = 10,
    once: Annotated[bool, typer.Option("--once", help="Show the first book and end.")] = False,
    seconds: Annotated[
        int, typer.Option("--seconds", min=0, help="End after so many; 0: when interrupted.")
    ] = 0,
    http_url: HttpUrl = "",
    ws_url: WsUrl = "",
    as_json: AsJson = False,
) -> None:
    """Show the book as a ladder and the trades beside it, straight from the venue.

    No database is needed: the venue is asked for its grid. A book with a gap is not shown until it is
    whole again. With --json every trade and every change of the best levels is one line.

    Of several venues the levels are joined, with who shows how much; one whose book is missing or
    older than ten seconds is left out, and named. For them the symbol is BASE/QUOTE.

    Example: `causeway marketdata watch ETH/USDT --venue binance --house house.toml --once`
    """
    from kernel.telemetry import configure_logging

    configure_logging("error")
    shown = _Shown(levels=levels, once=once, seconds=seconds, as_json=as_json)
    names = list(dict.fromkeys(venue or [DEFAULT_VENUE]))
    if every:
        if venue:
            raise BadInput("--all is every venue", remedy="Leave --venue out")
        names = list(streaming(house, symbol))
    if len(names) > 1:
        if http_url or ws_url:
            raise BadInput("one address is not that of several venues", remedy="Give --house FILE")
        sections = [feed_section(house, name) for name in names]
        run(lambda: shown.follow_joint(sections, symbol))
        return
    section = feed_section(house, names[0], http_url=http_url, ws_url=ws_url)

    async def work() -> None:
        from app.workers.market_feeds import found_instrument, watched_feed

        async with watched_feed(section, symbol, clock=clock()) as (feed, instruments):
            await shown.follow(feed, found_instrument(instruments, symbol, section.venue))

    run(work)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """How a symbol is shown: until when, and as what."""

    levels: int
    once: bool
    seconds: int
    as_json: bool

    async def follow(self, feed: MarketFeed, instrument: Instrument) -> None:
        from marketdata.consumers import LosslessQueue

        queue: LosslessQueue[MarketEvent] = LosslessQueue(QUEUE)
        watched = Watched(
            feed=feed, instrument=instrument, queue=queue, clock=clock(), levels=self.levels
        )
        with feed.events(queue):
            await _first_book(watched)
            if self.once:
                watched.drain()
                self._show_once(watched)
            elif self.as_json:
                await self._repeat(_lines(watched))
            else:
                await self._live(watched)

    async def follow_joint(self, sections: Sequence[FeedSection], symbol: str) -> None:
        """Show several venues as one.

        Raises:
            OutsideUnavailable: none of them shows a book in time.
        """
        from app.cli.marketdata_joint import Joint

        async with contextlib.AsyncExitStack() as stack:
            watched, absent = [], {}
            for section in sections:
                try:
                    watched.append(await stack.enter_async_context(self._followed(section, symbol)))
                except OutsideUnavailable as error:
                    absent[section.venue] = str(error)
            if not watched:
                raise OutsideUnavailable(
                    "none of the venues answers",
                    where=", ".join(absent),
                    remedy=absent.popitem()[1],
                )
            joint = Joint(watched=watched, absent=absent, clock=clock(), levels=self.levels)
            await _first_books(watched)
            await self._show_joint(joint)

    @contextlib.asynccontextmanager
    async def _followed(self, section: FeedSection, symbol: str) -> AsyncIterator[Watched]:
        """Follow a symbol of one venue while the context is open."""
        from app.workers.market_feeds import found_instrument, watched_feed
        from marketdata.consumers import LosslessQueue

        async with watched_feed(section, symbol, clock=clock()) as (feed, instruments):
            queue: LosslessQueue[MarketEvent] = LosslessQueue(QUEUE)
            grid = found_instrument(instruments, symbol, section.venue)
            with feed.events(queue):
                yield Watched(
                    feed=feed, instrument=grid, queue=queue, clock=clock(), levels=self.levels
                )

    async def _show_joint(self, joint: Joint) -> None:
        from app.cli import marketdata_joint as ladders

        if not self.once and self.as_json:
            await self._repeat(ladders.joint_lines(joint, _told))
            return
        joint.drain()
        if not self.once:
            await self._drawn(joint.drain, lambda: ladders.joint_ladder(joint))
        elif self.as_json:
            from app.cli.common import emit

            emit(ladders.joint_document(joint))
        else:
            console().print(ladders.joint_ladder(joint))

    def _show_once(self, watched: Watched) -> None:
        if self.as_json:
            from app.cli.common import emit

            emit(_document(watched))
            return
        from app.cli.marketdata_ladder import ladder

        console().print(ladder(watched.picture()))

    async def _live(self, watched: Watched) -> None:
        from app.cli.marketdata_ladder import ladder

        await self._drawn(watched.drain, lambda: ladder(watched.picture()))

    async def _drawn(
        self, drain: Callable[[], object], picture: Callable[[], RenderableType]
    ) -> None:
        from rich.live import Live

        with Live(picture(), console=console(), auto_refresh=False) as live:

            def draw() -> None:
                drain()
                live.update(picture(), refresh=True)

            await self._repeat(draw)

    async def _repeat(self, draw: Callable[[], None]) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        end = loop.time() + self.seconds
        while not self.seconds or loop.time() < end:
            draw()
            await asyncio.sleep(FRAME_S)


async def _first_book(watched: Watched) -> None:
    view = await watched.feed.wait_for_book(watched.instrument.symbol, FIRST_BOOK)
    if view is None:
        told = "; ".join(
            f"{item.channel} is {item.state}{f' ({item.detail})' if item.detail else ''}"
            for item in watched.statuses()
        )
        raise OutsideUnavailable(
            f"no book of {watched.instrument.symbol} came within {FIRST_BOOK.seconds} s",
            where=watched.instrument.venue,
            remedy=told or "See that the venue runs, and what the house file says of its address",
        )


async def _first_books(watched: Sequence[Watched]) -> None:
    """Wait for the first book of each; those that do not show one in time are left out."""
    import asyncio

    async def wait(one: Watched) -> bool:
        found = await one.feed.wait_for_book(one.instrument.symbol, FIRST_BOOK)
        return found is not None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait(one)) for one in watched]
    if not any(task.result() for task in tasks):
        await _first_book(watched[0])


def _lines(watched: Watched) -> Callable[[], None]:
    """Return what prints every trade, and the best levels when they have changed, a line each."""
    last: dict[str, Any] = {}

    def draw() -> None:
        nonlocal last
        from marketdata.events import TradeSeen

        for event in watched.drain():
            if isinstance(event, TradeSeen):
                _told(trade_document(watched.instrument, event))
        best = _best(watched)
        if {**best, "received": ""} != {**last, "received": ""}:
            last = best
            _told(best)

    return draw


def _told(line: dict[str, Any]) -> None:
    import orjson

    sys.stdout.write(orjson.dumps(line).decode() + "\n")
    sys.stdout.flush()


def _best(watched: Watched) -> dict[str, Any]:
    grid, view = watched.instrument, watched.view()
    top = None if view is None else view.top
    if view is None or top is None:
        return {"event": "book", "venue": grid.venue, "symbol": grid.symbol, "usable": False}
    return {
        "event": "book",
        "venue": grid.venue,
        "symbol": grid.symbol,
        "usable": True,
        "sequence": view.sequence,
        "received": iso(view.received_at),
        "bid": grid.price_text(top.bid.ticks),
        "bid_size": grid.base.format(top.bid.units, code=False),
        "ask": grid.price_text(top.ask.ticks),
        "ask_size": grid.base.format(top.ask.units, code=False),
    }


def trade_document(grid: Instrument, item: TradeSeen) -> dict[str, Any]:
    """Return a trade as an object of texts."""
    from kernel.clock import from_unix_ns

    return {
        "event": "trade",
        "venue": grid.venue,
        "symbol": grid.symbol,
        "trade": item.trade_id,
        "price": grid.price_text(item.ticks),
        "size": grid.base.format(item.units, code=False),
        "taker": "sell" if item.buyer_is_maker else "buy",
        "at": iso(from_unix_ns(item.exchange_ns or item.received_ns)),
    }


def _document(watched: Watched) -> dict[str, Any]:
    """Return the picture as one object: levels, trades, and the streams' states."""
    grid, view = watched.instrument, watched.view()

    def side(levels: Sequence[Any]) -> list[dict[str, str]]:
        return [
            {
                "price": grid.price_text(level.ticks),
                "size": grid.base.format(level.units, code=False),
            }
            for level in levels[: watched.levels]
        ]

    return {
        **_best(watched),
        "bids": [] if view is None else side(view.bids),
        "asks": [] if view is None else side(view.asks),
        "trades": [trade_document(grid, item) for item in watched.trades],
        "streams": [
            {
                "channel": str(item.channel),
                "state": str(item.state),
                "messages": item.messages,
                "gaps": item.gaps,
                "reconnects": item.reconnects,
                "detail": item.detail,
            }
            for item in watched.statuses()
        ],
    }


def console() -> Any:
    """Return where pictures are drawn."""
    from rich.console import Console

    from app.cli.common import WIDTH_OF_A_PIPE

    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_PIPE)
