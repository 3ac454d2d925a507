"""The house's market data: a feed for each venue, recorded, its gaps filled; indexes of their books.

A feed that cannot begin (a venue that does not answer, before its grids are on record) begins again
after a pause, as every turn does; the others go on. Everything that runs is told at ``/metrics``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.metrics import Figures, QueueFigures, served
from app.workers.index_prices import load_index_policy
from app.workers.loops import Loop
from app.workers.market_backfill import GapFiller
from app.workers.market_data_file import FeedSection, IndexSection, MarketDataSection
from app.workers.market_feeds import chosen, opened, plan_for, refresh
from app.workers.market_recording import Recording, recorded
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import BadInput, Refused, ungrouped
from marketdata.events import Channel
from marketdata.index_price import IndexPolicy
from marketdata.index_publisher import publish_index
from marketdata.instruments import list_instruments
from marketdata.model import BookView, Instrument, StreamState, StreamStatus
from marketdata.recording.manifest import catch_up, differences, record_file
from marketdata.recording.model import RetentionPolicy
from marketdata.recording.retention import remove_expired, sweep
from marketdata.status import replace_status
from venues.errors import VenueUnavailable
from venues.feeds.factory import running
from venues.feeds.keeper import Keeper
from venues.feeds.runner import FeedRunner

REFRESH_PAUSE: Final = timedelta(hours=1)
BACKFILL_PAUSE: Final = timedelta(seconds=30)
MANIFEST_PAUSE: Final = timedelta(seconds=10)
RETENTION_PAUSE: Final = timedelta(hours=1)
SESSION_LENGTH: Final = timedelta(hours=20)
SESSION_SPREAD: Final = timedelta(hours=3)
"""A recorded feed begins anew about once a day, each at a time of its own, before its venue ends
the connection: a recording is read from the beginning of its session, and kept and removed by it."""

TOLD_MAX: Final = 20

Turn = Callable[[], Awaitable[Mapping[str, object]]]

log = structlog.get_logger("marketdata")


@dataclass(slots=True, kw_only=True)
class MarketDesk:
    """The public data of one venue; see `marketdata.ports.Feed` for its books.

    Attributes:
        chance: gives numbers in [0, 1) that spread reconnections.
        feed: None while it does not run.
        has_grids: whether its instruments are on record.
        instruments: what is followed; empty before it began the first time.
    """

    engine: AsyncEngine
    section: FeedSection
    settings: MarketDataSection
    clock: Clock
    chance: Callable[[], float]
    feed: FeedRunner | None = None
    recording: Recording | None = None
    has_grids: bool = False
    instruments: tuple[Instrument, ...] = ()
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _followed: frozenset[str] = frozenset()
    _idle_since: datetime | None = None
    _why: str = ""

    @property
    def venue(self) -> str:
        """Return our code of the venue."""
        return self.section.venue

    def book(self, symbol: str) -> BookView | None:
        """Return the newest usable book; None while there is none."""
        return None if self.feed is None else self.feed.book(symbol)

    async def wait_for_book(self, symbol: str, timeout: timedelta) -> BookView | None:  # noqa: ASYNC109  the shape of the port
        """Return the newest usable book, waiting for one at most *timeout*."""
        return None if self.feed is None else await self.feed.wait_for_book(symbol, timeout)

    async def listen(self, stop: asyncio.Event) -> Mapping[str, object]:
        """Run the feed, keep its gaps and its state, and record it, until *stop* is set.

        It ends before, to begin again, when the venue has changed a grid that is followed, and when
        what is recorded has become long.

        Raises:
            VenueUnavailable: no grid is on record, and the venue does not answer.
            Refused: it has no such symbol; or another process records it.
        """
        try:
            grids = await self._grids()
        except (VenueUnavailable, Refused) as error:
            await self._tell(str(error))
            raise
        plan = plan_for(self.section, grids)
        self._changed.clear()
        self._followed = frozenset(item.symbol for item in grids)
        self.instruments = grids
        await self._tell("")
        with ungrouped():
            async with contextlib.AsyncExitStack() as stack:
                feed = await stack.enter_async_context(
                    opened(self.section, grids, clock=self.clock, chance=self.chance)
                )
                if self.settings.recordings is not None:
                    self.recording = await stack.enter_async_context(
                        recorded(feed, plan, self.settings.recordings, clock=self.clock)
                    )
                keeper = Keeper(feed, self.engine, self.clock)
                async with asyncio.TaskGroup() as group:
                    keeping = group.create_task(keeper.run())
                    async with running(feed):
                        self.feed = feed
                        try:
                            await self._until_over(stop)
                        finally:
                            self.feed, self._idle_since = None, self.clock.now()
                    keeping.cancel()
        return {}

    async def read_grids(self) -> Mapping[str, object]:
        """Ask the venue for its markets again: it changes grids and lists symbols while we run."""
        done = await refresh(self.engine, self.section, clock=self.clock)
        if not self._followed.isdisjoint(item.symbol for item in done.changed):
            # The machine reads on the old grid, and the recording says that it does.
            self._changed.set()
        return {"new": len(done.new), "changed": len(done.changed)}

    async def _until_over(self, stop: asyncio.Event) -> None:
        """Wait until the feed is to end, or to begin anew."""
        length = SESSION_LENGTH + SESSION_SPREAD * self.chance()
        seconds = None if self.recording is None else length.total_seconds()
        async with asyncio.TaskGroup() as group:
            waiting = {group.create_task(one.wait()) for one in (stop, self._changed)}
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
        if not stop.is_set():
            log.info("a feed begins anew", venue=self.venue, changed=self._changed.is_set())

    async def fill_gaps(self) -> Mapping[str, object]:
        """Fetch what every ended gap has missed."""
        filler = GapFiller(
            engine=self.engine,
            section=self.section,
            clock=self.clock,
            interval_s=self.section.candle // timedelta(seconds=1),
            recordings=self.settings.recordings,
        )
        done = await filler.fill()
        filled = [item for item in done if item.done_at is not None]
        return {"filled": len(filled), "rows": sum(item.new for item in filled)}

    async def enter_files(self) -> Mapping[str, object]:
        """Enter finished files of the recording in the manifest."""
        recording, entered = self.recording, 0
        while recording is not None and recording.finished:
            enter = partial(record_file, file=recording.finished[0], at=self.clock.now())
            await transact(self.engine, enter)
            recording.finished.popleft()
            entered += 1
        return {"files": entered}

    def statuses(self) -> Sequence[StreamStatus]:
        """Return how each stream is doing; of a feed that does not run, that none is connected."""
        if self.feed is not None:
            return self.feed.status()
        self._idle_since = self._idle_since or self.clock.now()
        return [
            StreamStatus(
                venue=self.venue,
                symbol=symbol,
                channel=Channel(channel),
                state=StreamState.CONNECTING,
                since=self._idle_since,
                last_event_at=None,
                sequence=0,
                gaps=0,
                reconnects=0,
                messages=0,
                detail=self._why,
            )
            for symbol in sorted(self._followed or self.section.symbols)
            for channel in self.section.channels
        ]

    async def _tell(self, why: str) -> None:
        """Record that no stream of the venue is connected, and which there are."""
        self._why = why
        statuses, now = self.statuses(), self.clock.now()
        await transact(self.engine, lambda conn: replace_status(conn, self.venue, statuses, at=now))

    async def _grids(self) -> tuple[Instrument, ...]:
        """Return the instruments of the section: those on record, if the venue does not answer."""
        try:
            await self.read_grids()
        except VenueUnavailable as error:
            log.warning("a venue does not tell its markets", venue=self.venue, error=str(error))
        known = await transact(self.engine, lambda conn: list_instruments(conn, self.venue))
        if not known:
            raise VenueUnavailable(
                "no market of it is on record, and it does not tell any", where=self.venue
            )
        grids = chosen(known, self.section.symbols, self.venue)
        self.has_grids = True
        return grids


@dataclass(slots=True, kw_only=True)
class IndexDesk:
    """Publishes the index of one pair."""

    engine: AsyncEngine
    section: IndexSection
    desks: Mapping[str, MarketDesk]
    clock: Clock
    _policy: IndexPolicy | None = None
    _refusal: str = ""
    _published: int = field(default=0)

    async def publish(self) -> Mapping[str, object]:
        """Record the index of now. Why there is none is told once, not at every turn."""
        if not all(self.desks[venue].has_grids for venue in self.section.venues):
            return {}
        if self._policy is None:
            self._policy = await transact(
                self.engine, lambda conn: load_index_policy(conn, self.section)
            )
        policy, now = self._policy, self.clock.now()
        done = await transact(
            self.engine, lambda conn: publish_index(conn, policy, self.desks, now=now)
        )
        if isinstance(done, Refused):
            if str(done) != self._refusal:
                self._refusal = str(done)
                log.warning("no index", pair=self.section.name, why=self._refusal)
            return {}
        self._refusal = ""
        self._published += 1
        return {"published": 1}

    def counters(self) -> Mapping[tuple[str, str], int]:
        """Return how many were published."""
        return {("index_published", self.section.name): self._published}


@dataclass(slots=True, kw_only=True)
class MarketData:
    """Everything of the house that has to do with market data."""

    engine: AsyncEngine
    settings: MarketDataSection
    clock: Clock
    desks: Sequence[MarketDesk]
    indexes: Sequence[IndexDesk]
    metrics_url: str = ""
    counters_beside: Callable[[], Mapping[tuple[str, str], int]] = dict
    """What others of this process count, told with the rest."""

    def loops(self, stop: asyncio.Event, pause: timedelta) -> list[Loop]:
        """Return what is done again and again."""
        found = []
        for desk in self.desks:
            name = f"feed {desk.venue}"
            found += [
                Loop(name=name, turn=partial(desk.listen, stop), pause=pause),
                _loop(f"{name} markets", desk.read_grids, REFRESH_PAUSE),
            ]
            if self.settings.backfill:
                found.append(_loop(f"{name} backfill", desk.fill_gaps, BACKFILL_PAUSE))
            if self.settings.recordings is not None:
                found.append(_loop(f"{name} files", desk.enter_files, MANIFEST_PAUSE))
        for index in self.indexes:
            found.append(
                Loop(
                    name=f"index {index.section.name}",
                    turn=index.publish,
                    pause=index.section.every,
                    usual=frozenset({"published"}),
                )
            )
        if self.settings.recordings is not None:
            tidy = partial(self._tidy, self.settings.recordings)
            found.append(_loop("recordings", tidy, RETENTION_PAUSE))
        return found

    def figures(self) -> Figures:
        """Return where the metrics come from."""
        return Figures(
            streams=lambda: [item for desk in self.desks for item in desk.statuses()],
            queues=self._queues,
            counters=self._counters,
        )

    def _queues(self) -> Mapping[str, QueueFigures]:
        found: dict[str, QueueFigures] = {}
        for desk in self.desks:
            if desk.recording is not None:
                found |= desk.recording.queues()
        return found

    def _counters(self) -> Mapping[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = dict(self.counters_beside())
        for desk in self.desks:
            if desk.recording is not None:
                found |= desk.recording.counters()
        for index in self.indexes:
            found |= index.counters()
        return found

    async def _tidy(self, folder: Path) -> Mapping[str, object]:
        """Enter files that a kill kept from the manifest; remove what is old enough."""
        now = self.clock.now()
        entered, damaged = await catch_up(self.engine, folder, at=now)
        for path in damaged:
            log.error("a recording is not what was written", path=str(path))
        policy = RetentionPolicy(raw=self.settings.retention)
        removed = await remove_expired(self.engine, folder, policy, now=now)
        await sweep(self.engine, folder)
        wrong = await differences(self.engine, folder)
        for what in wrong[:TOLD_MAX]:
            log.error("the manifest and the files differ", file=what)
        return {
            "entered": len(entered),
            "removed": len(removed),
            "damaged": len(damaged),
            "differing": len(wrong),
        }


@contextlib.asynccontextmanager
async def open_market_data(
    engine: AsyncEngine,
    settings: MarketDataSection,
    feeds: Sequence[FeedSection],
    indexes: Sequence[IndexSection],
    *,
    clock: Clock,
    chance: Callable[[], float],
) -> AsyncIterator[MarketData]:
    """Have the market data of a house, and serve its figures, while the context is open.

    Raises:
        OutsideUnavailable: the port of the figures is taken.
    """
    desks = [
        MarketDesk(engine=engine, section=section, settings=settings, clock=clock, chance=chance)
        for section in feeds
    ]
    by_venue = {desk.venue: desk for desk in desks}
    found = MarketData(
        engine=engine,
        settings=settings,
        clock=clock,
        desks=desks,
        indexes=[
            IndexDesk(engine=engine, section=one, desks=by_venue, clock=clock) for one in indexes
        ],
    )
    async with contextlib.AsyncExitStack() as stack:
        if settings.metrics_port is not None:
            found.metrics_url = await stack.enter_async_context(
                served(found.figures(), clock, port=settings.metrics_port)
            )
        if settings.recordings is not None:
            await asyncio.to_thread(_made, settings.recordings)
        yield found


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"the folder of recordings cannot be made: {error.strerror}", where=str(folder)
        ) from error


def _loop(name: str, turn: Turn, pause: timedelta) -> Loop:
    async def take() -> Mapping[str, object]:
        return {key: value for key, value in (await turn()).items() if value}

    return Loop(name=name, turn=take, pause=pause)
