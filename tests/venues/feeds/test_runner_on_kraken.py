"""The same runner with Kraken's machine: what a venue gets wrong there, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from marketdata.consumers import LosslessQueue
from marketdata.events import Channel, GapSeen
from marketdata.model import StreamState
from tests.venues.feeds.conftest import CLOCK, QUICK, Streaming
from tests.venues.kraken.bench import MARKETS, instrument_of
from venues.feeds.runner import FeedRunner
from venues.feeds.web import open_transport
from venues.kraken.feed import KrakenMachine
from venues.kraken.wire import wire
from venues.simulator.faults import FaultKind
from venues.simulator.server import VenueSimulator
from venues.simulator.settings import DialectName, VenueSimulatorSettings

SYMBOLS = [spec.name for spec in MARKETS]
FIRST, OTHER = SYMBOLS[:2]
WIRE_NAME = f"{MARKETS[0].base}/{MARKETS[0].quote}"


@pytest.fixture
async def kraken(tmp_path: Path) -> AsyncIterator[VenueSimulator]:
    settings = VenueSimulatorSettings(
        data_dir=tmp_path / "venue",
        dialect=DialectName.KRAKEN,
        symbols=MARKETS,
        step_interval_ms=0,
        depth_interval_ms=20,
        fsync=False,
    )
    simulator = VenueSimulator(settings)
    await simulator.start()
    yield simulator
    await simulator.stop()


@asynccontextmanager
async def streaming(venue: VenueSimulator) -> AsyncIterator[Streaming]:
    machine = KrakenMachine([instrument_of(spec) for spec in MARKETS], [*Channel])
    async with open_transport(wire(venue.url, venue.ws_url)) as transport:
        runner = FeedRunner([machine], transport, CLOCK, chance=Random(1).random, policy=QUICK)
        found = Streaming(venue, runner, LosslessQueue(10**6), LosslessQueue(10**6))
        with runner.events(found.queue), runner.raw(found.raw):
            async with asyncio.TaskGroup() as group:
                running = group.create_task(runner.run())
                try:
                    yield found
                finally:
                    running.cancel()


async def until_true(feed: Streaming) -> None:
    await feed.until(lambda: all(feed.is_true(symbol) for symbol in SYMBOLS))


async def test_books_are_true_and_every_stream_is_live(kraken: VenueSimulator) -> None:
    async with streaming(kraken) as feed:
        await until_true(feed)
        for _ in range(20):
            feed.move()
        await until_true(feed)
        await feed.until(lambda: {one.state for one in feed.runner.status()} == {StreamState.LIVE})

        assert {(one.symbol, one.channel) for one in feed.runner.status()} == {
            (symbol, channel) for symbol in SYMBOLS for channel in Channel
        }


@pytest.mark.parametrize(
    "kind", [FaultKind.WRONG_CHECKSUM, FaultKind.WS_DROP], ids=lambda kind: kind.value
)
async def test_a_fault_of_one_book_is_a_gap_of_it_and_of_no_other(
    kraken: VenueSimulator, kind: FaultKind
) -> None:
    async with streaming(kraken) as feed:
        await until_true(feed)
        feed.fault(kind, f"book/{WIRE_NAME}")

        def is_noticed() -> bool:
            feed.move()
            return bool(feed.reasons(FIRST))

        await feed.until(is_noticed)
        await until_true(feed)

        assert feed.reasons(FIRST) == ["checksum"]
        assert feed.reasons(OTHER) == []


@pytest.mark.parametrize(
    "kind", [FaultKind.WS_WRONG_TYPES, FaultKind.WS_BAD_JSON], ids=lambda kind: kind.value
)
async def test_a_frame_that_says_of_no_symbol_empties_what_it_may_be_of(
    kraken: VenueSimulator, kind: FaultKind
) -> None:
    async with streaming(kraken) as feed:
        await until_true(feed)
        feed.fault(kind, f"book/{WIRE_NAME}")

        def is_noticed() -> bool:
            feed.move()
            return all(feed.reasons(symbol) for symbol in SYMBOLS)

        await feed.until(is_noticed)
        await until_true(feed)


async def test_a_lost_socket_is_a_gap_of_all_and_is_made_again(kraken: VenueSimulator) -> None:
    async with streaming(kraken) as feed:
        await until_true(feed)
        feed.fault(FaultKind.WS_CLOSE, "book")
        feed.move()
        await feed.until(lambda: all(feed.reasons(symbol) == ["closed"] for symbol in SYMBOLS))
        await until_true(feed)

        machine = KrakenMachine([instrument_of(spec) for spec in MARKETS], [*Channel])
        gaps = [
            event
            for item in feed.happened()
            for event in machine.take(item)
            if isinstance(event, GapSeen)
        ]
        assert gaps == [one for one in feed.told() if isinstance(one, GapSeen)]
