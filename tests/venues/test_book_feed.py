"""Books through ccxt.pro: what the feed shows, and how it survives a stream that dies in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kernel.clock import SystemClock
from marketdata.freshness import Freshness, judge
from marketdata.model import BookView, Instrument
from tests.venues.conftest import ASSETS
from venues.ccxt import normalise
from venues.ccxt.endpoint import Endpoint
from venues.ccxt.feed import BookFeed, FeedPolicy, book_view
from venues.simulator.testing import SimulatorProcess

CLOCK = SystemClock()
PATIENCE = timedelta(seconds=8)
POLICY = FeedPolicy(
    silence_max=timedelta(milliseconds=400), connect_max=timedelta(milliseconds=2_000)
)
GRID = normalise.instrument(
    {
        "symbol": "ETHUSDT",
        "baseAsset": "ETH",
        "quoteAsset": "USDT",
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", "minQty": "0.0001", "maxQty": "9000", "stepSize": "0.0001"},
        ],
    },
    ASSETS,
    "sim",
)


@asynccontextmanager
async def streaming(
    sim: SimulatorProcess, grid: Instrument = GRID, policy: FeedPolicy = POLICY
) -> AsyncIterator[BookFeed]:
    endpoint = Endpoint(http_url=sim.url, ws_url=sim.ws_url)
    feed = BookFeed({"ETH/USDT": grid}, endpoint, CLOCK, policy)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run())
        try:
            yield feed
        finally:
            running.cancel()


async def until(feed: BookFeed, wanted: str) -> BookView:
    """Wait for a book whose best ask is *wanted*."""
    async with asyncio.timeout(PATIENCE / timedelta(seconds=1)):
        while True:
            view = await feed.wait_for_book("ETHUSDT", PATIENCE)
            top = None if view is None else view.top
            if view is not None and top and GRID.price_text(top.ask.ticks) == wanted:
                return view
            await asyncio.sleep(0.02)


def asks(sim: SimulatorProcess) -> list[list[str]]:
    found: list[list[str]] = sim.state()["symbols"]["ETHUSDT"]["asks"]
    return found


def best_ask(sim: SimulatorProcess) -> str:
    return GRID.price_text(GRID.ticks(asks(sim)[0][0]))


async def test_the_feed_shows_the_venues_book_exactly(sim: SimulatorProcess) -> None:
    async with streaming(sim) as feed:
        await until(feed, best_ask(sim))
        await asyncio.to_thread(sim.control, "POST", "mid", {"symbol": "ETHUSDT", "price": "3333"})
        view = await until(feed, best_ask(sim))

    real = [(GRID.ticks(price), GRID.base.parse(quantity)) for price, quantity in asks(sim)]
    assert [(level.ticks, level.units) for level in view.asks[: len(real)]] == real
    assert judge(view, now=CLOCK.now(), age_max=timedelta(seconds=5)) is Freshness.FRESH


async def test_a_quiet_market_is_asked_and_stays_fresh_without_a_new_connection(
    sim: SimulatorProcess,
) -> None:
    async with streaming(sim) as feed:
        first = await until(feed, best_ask(sim))
        await asyncio.sleep(1.5)
        later = feed.book("ETHUSDT")

    assert later is not None
    assert later.sequence == first.sequence
    assert later.received_at - first.received_at > timedelta(seconds=1)
    assert feed.rebuilt == 0


@pytest.mark.parametrize(
    "fault", ["ws_silent", "ws_bad_json", "ws_drop", "ws_close", "ws_wrong_types"]
)
async def test_a_stream_that_fails_is_built_again_and_shows_the_truth(
    sim: SimulatorProcess, fault: str
) -> None:
    """After the fault the market moves twice; the second move must be seen, whatever was lost."""
    async with streaming(sim) as feed:
        await until(feed, best_ask(sim))
        await asyncio.to_thread(sim.fault, fault, "depth", count=2)
        await _move(sim, "3100")
        await asyncio.sleep(0.3)
        await _move(sim, "3200")
        await asyncio.sleep(0.6)
        await asyncio.to_thread(sim.control, "DELETE", "faults")
        await _move(sim, "3300")

        view = await until(feed, best_ask(sim))

    real = [(GRID.ticks(price), GRID.base.parse(quantity)) for price, quantity in asks(sim)]
    assert [(level.ticks, level.units) for level in view.asks[: len(real)]] == real


async def test_an_update_that_ccxt_drops_without_a_word_is_noticed(
    sim: SimulatorProcess,
) -> None:
    """The market does not move again, and silence is not suspected: only the frame can tell."""
    patient = replace(POLICY, silence_max=10 * PATIENCE)
    async with streaming(sim, policy=patient) as feed:
        await until(feed, best_ask(sim))
        await asyncio.to_thread(sim.fault, "ws_wrong_types", "depth", count=1)
        await _move(sim, "3500")
        view = await until(feed, best_ask(sim))

    real = [(GRID.ticks(price), GRID.base.parse(quantity)) for price, quantity in asks(sim)]
    assert [(level.ticks, level.units) for level in view.asks[: len(real)]] == real
    assert feed.rebuilt == 1


async def test_a_silent_stream_never_shows_an_old_book_as_fresh(sim: SimulatorProcess) -> None:
    async with streaming(sim) as feed:
        await until(feed, best_ask(sim))
        await asyncio.to_thread(sim.fault, "ws_silent", "depth")
        await _move(sim, "3400")
        moved_at = CLOCK.now()
        await asyncio.sleep(1.0)
        shown = feed.book("ETHUSDT")
        await asyncio.sleep(1.0)

    assert feed.rebuilt
    if shown is not None and shown.top is not None:
        is_true = GRID.price_text(shown.top.ask.ticks) == best_ask(sim)
        assert is_true or shown.received_at <= moved_at


async def test_the_feed_survives_the_venues_death(sim: SimulatorProcess) -> None:
    async with streaming(sim) as feed:
        await until(feed, best_ask(sim))
        await asyncio.to_thread(sim.kill)
        await asyncio.sleep(0.8)
        while_down = feed.book("ETHUSDT")
        await asyncio.to_thread(sim.start)
        await _move(sim, "2900")
        view = await until(feed, best_ask(sim))

    assert while_down is None
    assert view.top is not None
    assert feed.rebuilt >= 1


async def test_waiting_for_a_book_ends_in_time(sim: SimulatorProcess) -> None:
    feed = BookFeed({}, Endpoint(http_url=sim.url, ws_url=sim.ws_url), CLOCK, POLICY)

    assert await feed.wait_for_book("ETHUSDT", timedelta(milliseconds=50)) is None


GOOD: dict[str, Any] = {"bids": [[2999.99, 1.5]], "asks": [[3000.01, 0.0001]], "nonce": 7}


def test_the_floats_of_ccxt_become_the_venues_own_texts() -> None:
    view = book_view(GRID, GOOD, CLOCK)

    assert view is not None
    assert (view.bids[0].ticks, view.bids[0].units) == (299_999, 15 * 10**17)
    assert (view.asks[0].ticks, view.asks[0].units) == (300_001, 10**14)


@pytest.mark.parametrize(
    "broken",
    [
        {"nonce": None},
        {"bids": 5},
        {"bids": [[2999.995, 1.0]]},
        {"bids": [[3000.01, 1.0]]},
        {"asks": [[float("nan"), 1.0]]},
        {"asks": [["x", 1.0]]},
    ],
    ids=str,
)
def test_a_book_that_cannot_be_is_not_shown(broken: dict[str, Any]) -> None:
    assert book_view(GRID, {**GOOD, **broken}, CLOCK) is None


async def _move(sim: SimulatorProcess, price: str) -> None:
    await asyncio.to_thread(sim.control, "POST", "mid", {"symbol": "ETHUSDT", "price": price})
