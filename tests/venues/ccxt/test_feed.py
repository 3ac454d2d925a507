"""A venue that is a record only: its public data through ccxt.pro, true or not shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kernel.clock import SystemClock
from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.consumers import LosslessQueue
from marketdata.events import (
    BestSeen,
    BookUpdate,
    CandleSeen,
    Channel,
    GapReason,
    GapSeen,
    MarketEvent,
    TickerSeen,
    TradeSeen,
)
from marketdata.freshness import Freshness, judge
from marketdata.model import BookView, Instrument
from marketdata.raw import RawItem, RawKind
from tests.venues.in_thread import SimulatorThread
from venues.ccxt.decimal_text import decimal_text
from venues.ccxt.endpoint import Endpoint
from venues.ccxt.feed import CcxtVenue, open_ccxt
from venues.ccxt.tap import check_levels
from venues.ccxt.unified import UnifiedMachine, UnifiedPolicy
from venues.feeds.factory import FeedPlan, feed_of, opened_feed, running
from venues.feeds.model import FeedPolicy
from venues.feeds.runner import FeedRunner
from venues.records import RECORDS
from venues.simulator.testing import SimulatorProcess

CLOCK = SystemClock()
PATIENCE_S = 15.0
SECOND_NS = 10**9
QUICK = UnifiedPolicy(
    quiet_ns=SECOND_NS // 2, unproved_ns=3 * SECOND_NS, retry_max_ns=SECOND_NS // 2
)
RUNNER = FeedPolicy(
    look_every=timedelta(milliseconds=100),
    backoff_min=timedelta(milliseconds=50),
    backoff_max=timedelta(milliseconds=200),
)
ETH = Instrument(
    venue="sim",
    symbol="ETHUSDT",
    base=Asset("ETH", 18),
    quote=Asset("USDT", 6),
    price_scale=2,
    tick=1,
    lot=10**14,
    lots_min=1,
    lots_max=10**9,
    min_notional=1,
)
BOOK = frozenset({Channel.BOOK})


@dataclass(frozen=True, slots=True)
class Watched:
    """A running feed with all that it has told."""

    runner: FeedRunner
    told: LosslessQueue[MarketEvent]
    raw: LosslessQueue[RawItem]

    def view(self) -> BookView | None:
        return self.runner.book("ETHUSDT")


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    folder: Path = tmp_path_factory.mktemp("venue") / "data"
    with SimulatorThread(folder, "--step-ms", "0") as process:
        yield process


@pytest.fixture
def sim(venue: SimulatorProcess) -> Iterator[SimulatorProcess]:
    yield venue
    venue.control("DELETE", "faults")


@asynccontextmanager
async def watching(
    sim: SimulatorProcess,
    channels: frozenset[Channel] = BOOK,
    *,
    policy: UnifiedPolicy = QUICK,
) -> AsyncIterator[Watched]:
    endpoint = Endpoint(http_url=sim.url, ws_url=sim.ws_url)
    wanted = CcxtVenue(
        capabilities=RECORDS["binanceus"],
        endpoint=endpoint,
        instruments=(ETH,),
        timeout=timedelta(seconds=5),
    )
    told: LosslessQueue[MarketEvent] = LosslessQueue(100_000)
    raw: LosslessQueue[RawItem] = LosslessQueue(100_000)
    async with open_ccxt(wanted, CLOCK) as transport:
        machine = UnifiedMachine([ETH], channels, policy)
        runner = FeedRunner([machine], transport, CLOCK, chance=lambda: 0.5, policy=RUNNER)
        with runner.events(told), runner.raw(raw):
            async with asyncio.TaskGroup() as group:
                running = group.create_task(runner.run())
                try:
                    yield Watched(runner, told, raw)
                finally:
                    running.cancel()


def truth(sim: SimulatorProcess) -> tuple[Any, Any]:
    state = sim.state()["symbols"]["ETHUSDT"]
    return tuple(  # type: ignore[return-value]  # two sides
        [(ETH.ticks(price), ETH.base.parse(quantity)) for price, quantity in state[side]]
        for side in ("bids", "asks")
    )


def shown(view: BookView, levels: int) -> tuple[Any, Any]:
    return (
        [(level.ticks, level.units) for level in view.bids[:levels]],
        [(level.ticks, level.units) for level in view.asks[:levels]],
    )


async def until_true(feed: Watched, sim: SimulatorProcess) -> BookView:
    """Wait until the book shown is the venue's, whose market stands still."""
    wanted = await asyncio.to_thread(truth, sim)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            view = feed.view()
            if view is not None and shown(view, len(wanted[0])) == wanted:
                return view
            await asyncio.sleep(0.02)


async def move(sim: SimulatorProcess, price: str) -> None:
    await asyncio.to_thread(sim.control, "POST", "mid", {"symbol": "ETHUSDT", "price": price})


async def until_gap(feed: Watched) -> GapSeen:
    """Wait for a gap of the book that was not there from the start."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for event in feed.told.take_nowait(1_000):
                if isinstance(event, GapSeen) and event.reason is not GapReason.STARTED:
                    return event
            await asyncio.sleep(0.02)


async def test_the_feed_shows_the_venues_book_exactly(sim: SimulatorProcess) -> None:
    async with watching(sim) as feed:
        await until_true(feed, sim)
        await move(sim, "3333")
        view = await until_true(feed, sim)

    assert judge(view, now=CLOCK.now(), age_max=timedelta(seconds=5)) is Freshness.FRESH


async def test_every_channel_is_told_frame_by_frame(sim: SimulatorProcess) -> None:
    async with watching(sim, frozenset(Channel)) as feed:
        await until_true(feed, sim)
        wanted = {BookUpdate, TradeSeen, BestSeen, TickerSeen, CandleSeen}
        told: list[MarketEvent] = []
        async with asyncio.timeout(PATIENCE_S):
            while not wanted <= set(map(type, told)):
                await asyncio.to_thread(sim.control, "POST", "step", {"count": 2})
                await asyncio.sleep(0.1)
                told += [e for e in feed.told.take_nowait(10_000) if isinstance(e, MarketEvent)]
        view = await until_true(feed, sim)

    ids = [int(event.trade_id) for event in told if isinstance(event, TradeSeen)]
    assert ids == sorted(set(ids))
    best = [event for event in told if isinstance(event, BestSeen)][-1]
    assert 0 < best.bid_ticks < best.ask_ticks
    assert view.top is not None


async def test_a_quiet_market_is_asked_and_stays_fresh_without_a_new_connection(
    sim: SimulatorProcess,
) -> None:
    async with watching(sim) as feed:
        first = await until_true(feed, sim)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                view = feed.view()
                assert view is not None
                if view.received_at - first.received_at > timedelta(seconds=1):
                    break
                await asyncio.sleep(0.05)
        gaps = [e for e in feed.told.take_nowait(10_000) if isinstance(e, GapSeen)]

    assert view.sequence == first.sequence
    assert {gap.reason for gap in gaps} == {GapReason.STARTED}


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        ("ws_wrong_types", {GapReason.MALFORMED}),
        ("ws_bad_json", {GapReason.UNREADABLE}),
        ("ws_close", {GapReason.CLOSED}),
        ("ws_drop", {GapReason.SEQUENCE, GapReason.CLOSED, GapReason.DISAGREES}),
        ("ws_silent", {GapReason.DISAGREES}),
    ],
)
async def test_a_stream_that_fails_is_built_again_and_shows_the_truth(
    sim: SimulatorProcess, fault: str, reasons: set[GapReason]
) -> None:
    async with watching(sim) as feed:
        await until_true(feed, sim)
        await asyncio.to_thread(sim.fault, fault, "depth", count=1)
        await move(sim, "3100")
        await move(sim, "3200")
        gap = await until_gap(feed)
        await asyncio.to_thread(sim.control, "DELETE", "faults")
        await move(sim, "3300")
        await until_true(feed, sim)

    assert gap.reason in reasons


async def test_a_bad_frame_of_one_stream_leaves_the_others_alone(sim: SimulatorProcess) -> None:
    async with watching(sim, frozenset({Channel.BOOK, Channel.TRADES})) as feed:
        await until_true(feed, sim)
        await asyncio.to_thread(sim.fault, "ws_bad_json", "depth", count=1)
        await move(sim, "3150")
        gap = await until_gap(feed)
        await until_true(feed, sim)
        rest = [e for e in feed.told.take_nowait(10_000) if isinstance(e, GapSeen)]

    assert gap.channel is Channel.BOOK
    assert {one.channel for one in rest} <= {Channel.BOOK}


async def test_the_feed_survives_the_venues_death(tmp_path: Path) -> None:
    with SimulatorProcess(tmp_path / "venue", "--step-ms", "0") as own:
        async with watching(own) as feed:
            await until_true(feed, own)
            await asyncio.to_thread(own.kill)
            gap = await until_gap(feed)
            while_down = feed.view()
            await asyncio.to_thread(own.start)
            await move(own, "2900")
            await until_true(feed, own)

    assert while_down is None
    assert gap.reason in {GapReason.CLOSED, GapReason.SILENT}


async def test_what_was_heard_tells_another_machine_the_same(sim: SimulatorProcess) -> None:
    async with watching(sim, frozenset(Channel)) as feed:
        await until_true(feed, sim)
        await asyncio.to_thread(sim.fault, "ws_bad_json", "depth", count=1)
        await move(sim, "3075")  # of three steps one run in eighty leaves the book as it is
        await until_gap(feed)  # it takes what was told till then, perhaps all of it
        await asyncio.to_thread(sim.control, "POST", "step", {"count": 3})
        await until_true(feed, sim)
        live = feed.told.take_nowait(100_000)
        items = feed.raw.take_nowait(100_000)
    again = UnifiedMachine([ETH], frozenset(Channel), QUICK)
    found = [
        event
        for item in items
        if isinstance(item, RawItem)
        for event in again.take(item)
        if isinstance(event, MarketEvent)
    ]

    assert live
    assert found[-len(live) :] == live
    frames = [item for item in items if isinstance(item, RawItem) and item.kind is RawKind.FRAME]
    assert any(b'"raw":"{' in item.data for item in frames)  # the venue's own words


async def test_a_record_is_all_that_a_feed_needs(sim: SimulatorProcess) -> None:
    """The same door as every other venue's."""
    record = RECORDS["binanceus"]
    plan = FeedPlan(feed=feed_of(record), instruments=(ETH,), channels=BOOK)
    async with (
        opened_feed(
            plan, http_url=sim.url, ws_url=sim.ws_url, clock=CLOCK, chance=lambda: 0.5
        ) as feed,
        running(feed),
    ):
        view = await feed.wait_for_book("ETHUSDT", timedelta(seconds=PATIENCE_S))

    assert view is not None
    assert shown(view, 5) == await asyncio.to_thread(truth, sim)


def test_a_feed_without_a_record_is_refused() -> None:
    with pytest.raises(BadInput):
        FeedPlan(feed="other", instruments=(ETH,), channels=BOOK)


@pytest.mark.parametrize(
    "frame",
    [
        {"b": 5, "a": []},
        {"data": {"bids": [["1", "2"], 7], "asks": []}},
        {"data": [{"asks": [["1"]]}]},
        [{"x": {"bids": [[True, "1"]]}}],
        {"bids": "1"},
    ],
    ids=str,
)
def test_levels_that_ccxt_would_drop_without_a_word_are_found(frame: Any) -> None:
    with pytest.raises(BadInput):
        check_levels(frame)


@pytest.mark.parametrize(
    "frame",
    [
        {"b": [], "a": [["1", "2"]]},
        {"bids": [["1", "2", 0, "9"]], "asks": None},
        {"data": [{"bids": [{"price": "1", "size": "2"}]}]},
        {"result": None, "id": 1},
        None,
    ],
    ids=str,
)
def test_books_as_venues_write_them_pass(frame: Any) -> None:
    check_levels(frame)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.1, "0.1"), (1e-05, "0.00001"), (2999.99, "2999.99"), (1e16, "10000000000000000"), (3, "3")],
)
def test_a_float_is_the_text_that_it_was(number: float, text: str) -> None:
    assert decimal_text(number) == text


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_of_a_market_is_refused(number: float) -> None:
    with pytest.raises(BadInput):
        decimal_text(number)
