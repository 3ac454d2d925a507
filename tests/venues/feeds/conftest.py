"""A venue in this process, and the runner of a feed of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kernel.clock import SystemClock
from marketdata.consumers import LosslessQueue, Overflow
from marketdata.events import Channel, GapSeen, MarketEvent
from marketdata.model import BookView, Instrument
from marketdata.ports import FeedMachine
from marketdata.raw import RawItem
from matching.model import Side
from tests.venues.binance.world import BOTH
from venues.binance.feed import lanes
from venues.binance.policy import StreamWatch
from venues.binance.wire import wire
from venues.feeds.model import FeedPolicy, VenueWire
from venues.feeds.runner import FeedRunner
from venues.feeds.web import open_transport
from venues.simulator.commands import MoveMid, StepMaker
from venues.simulator.faults import Fault, FaultKind
from venues.simulator.server import VenueSimulator
from venues.simulator.settings import VenueSimulatorSettings

PATIENCE_S = 20.0
CLOCK = SystemClock()
MS = 1_000_000
QUICK = FeedPolicy(
    connect_timeout=timedelta(seconds=2),
    look_every=timedelta(milliseconds=50),
    answer_timeout=timedelta(milliseconds=400),
    backoff_min=timedelta(milliseconds=20),
    backoff_max=timedelta(milliseconds=200),
)
IMPATIENT = StreamWatch(
    silence_ns=500 * MS,
    check_every_ns=2_000 * MS,
    answer_ns=1_000 * MS,
    catch_up_ns=400 * MS,
    subscribe_ns=1_000 * MS,
    refused_ns=1_000 * MS,
)


@dataclass(slots=True)
class Streaming:
    """A runner that runs, and everything that it has told."""

    venue: VenueSimulator
    runner: FeedRunner
    queue: LosslessQueue[MarketEvent]
    raw: LosslessQueue[RawItem]
    events: list[MarketEvent] = field(default_factory=list)
    items: list[RawItem] = field(default_factory=list)

    def fault(self, kind: FaultKind, path: str = "", **options: Any) -> None:
        """Have something go wrong at the venue."""
        self.venue._faults.add(Fault(kind, path, **options))

    def clear_faults(self) -> None:
        """Let nothing go wrong any longer."""
        self.venue._faults.clear()

    def move(self, symbol: str = "ETHUSDT", mid: int | None = None) -> None:
        """Move the market: to a price in ticks, or as the maker likes."""
        core = self.venue.core
        if mid is None:
            core.execute(StepMaker(core.accepted_at()))
        else:
            core.execute(MoveMid(core.accepted_at(), symbol, mid))

    def is_true(self, symbol: str) -> bool:
        """Whether the book that is shown is the venue's of now."""
        view = self.runner.book(symbol)
        return view is not None and top_of(view) == self.true_top(symbol)

    def true_top(self, symbol: str) -> tuple[int | None, int | None]:
        """The venue's best prices, in ticks."""
        book = self.venue.core.state.markets[symbol].book
        return book.best_ticks(Side.BUY), book.best_ticks(Side.SELL)

    def told(self) -> list[MarketEvent]:
        """Every event so far."""
        self.events += [
            one for one in self.queue.take_nowait(10**6) if not isinstance(one, Overflow)
        ]
        return self.events

    def happened(self) -> list[RawItem]:
        """Every raw item so far."""
        self.items += [one for one in self.raw.take_nowait(10**6) if not isinstance(one, Overflow)]
        return self.items

    def reasons(self, symbol: str, channel: Channel = Channel.BOOK) -> list[str]:
        """Why a stream could not be relied on, but for the beginning."""
        gaps = [one for one in self.told() if isinstance(one, GapSeen) and not one.until_ns]
        return [str(g.reason) for g in gaps if (g.symbol, g.channel) == (symbol, channel)][1:]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something to be so."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():  # noqa: ASYNC110  what is waited for has no event of its own
                await asyncio.sleep(0.01)

    async def until_true(self) -> None:
        """Wait until every book is the venue's of now."""
        await self.until(lambda: all(self.is_true(one.symbol) for one in BOTH))


def top_of(view: BookView) -> tuple[int | None, int | None]:
    """Best prices of a view."""
    return (
        view.bids[0].ticks if view.bids else None,
        view.asks[0].ticks if view.asks else None,
    )


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[VenueSimulator]:
    settings = VenueSimulatorSettings(
        data_dir=tmp_path / "venue", step_interval_ms=0, depth_interval_ms=20, fsync=False
    )
    simulator = VenueSimulator(settings)
    await simulator.start()
    yield simulator
    await simulator.stop()


@asynccontextmanager
async def streaming(
    venue: VenueSimulator,
    *,
    machines: Sequence[FeedMachine] | None = None,
    channels: Collection[Channel] = tuple(Channel),
    instruments: Sequence[Instrument] = BOTH,
    policy: FeedPolicy = QUICK,
    watch: StreamWatch | None = None,
    at: VenueWire | None = None,
) -> AsyncIterator[Streaming]:
    """Run a feed of *venue* while the context is open."""
    used = machines or lanes(instruments, channels=channels, watch=watch)
    async with open_transport(at or wire(venue.url, venue.ws_url)) as transport:
        runner = FeedRunner(used, transport, CLOCK, chance=Random(1).random, policy=policy)
        transport.heard = runner.gate.heard
        found = Streaming(venue, runner, LosslessQueue(10**6), LosslessQueue(10**6))
        with runner.events(found.queue), runner.raw(found.raw):
            async with asyncio.TaskGroup() as group:
                running = group.create_task(runner.run())
                try:
                    yield found
                finally:
                    running.cancel()
