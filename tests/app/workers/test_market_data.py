"""The house's market data: feeds of both dialects, recorded, kept, filled; an index of their books."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.house_file import parse_house
from app.workers.loops import run_loops
from app.workers.market_data import MarketData, open_market_data
from kernel.clock import SystemClock
from kernel.db import transact
from marketdata.alarms import THRESHOLDS, Alarm, stream_alarm
from marketdata.events import Channel
from marketdata.gaps import GapRow, list_gaps
from marketdata.instruments import list_instruments, record_instrument
from marketdata.model import Quality, StreamState, StreamStatus
from marketdata.prices import latest_price
from marketdata.recording.layout import list_open, list_parquet, list_segments, open_path
from marketdata.recording.manifest import list_files
from marketdata.recording.model import FileKind
from marketdata.recording.raw_reader import read_header
from marketdata.status import list_status, write_status
from registry.changes import found
from registry.testing import demo_founding
from venues.simulator.testing import SimulatorProcess

CLOCK = SystemClock()
PAUSE = timedelta(milliseconds=50)
PATIENCE_S = 30
HOUSE: dict[str, Any] = {
    "chain": "evm",
    "book": 1,
    "signer_socket": "signer.sock",
    "confirmations": "confirmations.json",
    "payout_depth": 6,
    "start_height": 0,
}
INDEX = {
    "base": "ETH",
    "quote": "USDT",
    "venues": ["binance", "kraken"],
    "venues_min": 2,
    "every_seconds": 1,
}


STEP = ("--step-ms", "50")
STATUS = StreamStatus(
    venue="binance",
    symbol="ETHUSDT",
    channel=Channel.BOOK,
    state=StreamState.LIVE,
    since=CLOCK.now(),
    last_event_at=None,
    sequence=0,
    gaps=0,
    reconnects=0,
    messages=0,
)


@pytest.fixture(scope="module")
def binance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """One for all tests: a test that kills it starts it again."""
    with SimulatorProcess(tmp_path_factory.mktemp("binance") / "venue", *STEP) as process:
        yield process


@pytest.fixture(scope="module")
def kraken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    folder = tmp_path_factory.mktemp("kraken") / "venue"
    with SimulatorProcess(folder, *STEP, "--dialect", "kraken") as process:
        yield process


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    await transact(engine, lambda conn: found(conn, demo_founding(), now=CLOCK.now()))
    return engine


def feed(venue: str, process: SimulatorProcess, **changes: Any) -> dict[str, Any]:
    return {
        "venue": venue,
        "connector": venue,
        "symbols": ["ETH/USDT"],
        "http_url": process.url,
        "ws_url": process.ws_url,
        **changes,
    }


@contextlib.asynccontextmanager
async def running(engine: AsyncEngine, folder: Path, **document: Any) -> AsyncIterator[MarketData]:
    """Run the loops of a house's market data, quicker than a house does."""
    file = parse_house({**HOUSE, **document}, folder / "house.toml")
    stop = asyncio.Event()
    async with open_market_data(
        engine, file.market_data, file.feeds, file.indexes, clock=CLOCK, chance=lambda: 0.0
    ) as market:
        loops = market.loops(stop, PAUSE)
        async with asyncio.TaskGroup() as group:
            group.create_task(run_loops(loops, stop))
            try:
                yield market
            finally:
                stop.set()


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """Return what *look* gives as soon as it gives something."""
    async with asyncio.timeout(PATIENCE_S):
        while not (seen := await look()):  # noqa: ASYNC110  what is waited for is in a database
            await asyncio.sleep(0.05)
    return seen


async def gaps_of(engine: AsyncEngine, venue: str, channel: Channel) -> list[GapRow]:
    now = CLOCK.now()
    hour = timedelta(hours=1)
    return await transact(
        engine, lambda conn: list_gaps(conn, venue, None, channel, now - hour, now + hour)
    )


async def test_books_of_both_dialects_make_an_index_and_everything_is_on_record(
    house: AsyncEngine, binance: SimulatorProcess, kraken: SimulatorProcess, tmp_path: Path
) -> None:

    async def index() -> Any:
        now, age = CLOCK.now(), timedelta(minutes=1)
        price = await transact(
            house, lambda conn: latest_price(conn, "ETH", "USDT", now=now, age_max=age)
        )
        return price if price is not None and price.record.quality is Quality.GOOD else None

    async def live() -> bool:
        told = await transact(house, list_status)
        states = {(item.venue, item.channel): item.state for item, _ in told}
        return len(states) == 6 and set(states.values()) == {StreamState.LIVE}

    async with running(
        house,
        tmp_path,
        marketdata={"recordings": "tape"},
        feed=[feed("binance", binance), feed("kraken", kraken)],
        index=[INDEX],
    ) as market:
        price = await until(index)
        await until(live)
        streams = market.figures().streams()
        recorded = market.figures().counters()

    known = await transact(house, lambda conn: list_instruments(conn, "kraken"))
    assert {item["venue"] for item in price.record.constituents} == {"binance", "kraken"}
    assert {item.symbol for item in known} >= {"ETHUSDT"}
    assert {item.venue for item in streams} == {"binance", "kraken"}
    assert recorded["recorded_items", "kraken"] >= 0
    assert len(list_segments(tmp_path / "tape")) == 2
    assert list_open(tmp_path / "tape") == []


async def test_a_venue_that_dies_leaves_a_gap_that_is_filled_when_it_is_back(
    house: AsyncEngine,
    binance: SimulatorProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.workers.market_data.BACKFILL_PAUSE", timedelta(milliseconds=200))
    monkeypatch.setattr("marketdata.backfill_model.GAP_MARGIN", timedelta(milliseconds=500))

    async def ended() -> list[GapRow]:
        rows = await gaps_of(house, "binance", Channel.TRADES)
        return [row for row in rows if row.reason == "closed" and row.filled_at is not None]

    async def is_lost() -> bool:
        rows = await gaps_of(house, "binance", Channel.BOOK)
        return any(row.until is None for row in rows)

    async with running(house, tmp_path, feed=[feed("binance", binance)]) as market:
        desk = market.desks[0]
        await until(lambda: _seen(desk.book("ETHUSDT")))
        binance.kill()
        await until(is_lost)
        assert desk.book("ETHUSDT") is None
        binance.start()
        await until(lambda: _seen(desk.book("ETHUSDT")))
        (gap,) = await until(ended)

    assert gap.until is not None
    assert gap.filled_by.startswith("backfill ")


async def test_a_feed_that_has_not_begun_is_told_of_and_needs_attention(
    house: AsyncEngine, tmp_path: Path
) -> None:
    nowhere = {"http_url": "http://127.0.0.1:9", "ws_url": "ws://127.0.0.1:9"}
    place = {"venue": "binance", "connector": "binance", "symbols": ["ETH/USDT"], **nowhere}
    left = replace(STATUS, symbol="GONE", channel=Channel.BOOK)
    other = replace(left, venue="kraken")
    await transact(house, lambda conn: write_status(conn, [left, other], at=CLOCK.now()))

    async def told() -> Any:
        rows = await transact(house, list_status)
        return [item for item, _ in rows if item.detail and item.symbol != "GONE"]

    async with running(house, tmp_path, feed=[place]) as market:
        on_record = await until(told)
        figures = market.figures().streams()
    rows = await transact(house, list_status)

    assert {item.channel for item in on_record} == {Channel.BOOK, Channel.TRADES, Channel.BEST}
    later = CLOCK.now() + THRESHOLDS.down_max
    for item in (*on_record, *figures):
        assert item.state is StreamState.CONNECTING
        assert stream_alarm(item, now=later, told_at=later) is Alarm.DOWN
    assert [item.venue for item, _ in rows if item.symbol == "GONE"] == ["kraken"]


async def test_a_house_starts_while_its_venue_is_down_and_streams_once_it_is_there(
    house: AsyncEngine, binance: SimulatorProcess, tmp_path: Path
) -> None:
    place = feed("binance", binance)
    binance.kill()
    async with running(house, tmp_path, feed=[place]) as market:
        desk = market.desks[0]
        assert desk.book("ETHUSDT") is None
        binance.start()
        await until(lambda: _seen(desk.book("ETHUSDT")))


async def test_finished_files_are_entered_in_the_manifest_by_the_next_start(
    house: AsyncEngine, binance: SimulatorProcess, tmp_path: Path
) -> None:
    document = {"marketdata": {"recordings": "tape"}, "feed": [feed("binance", binance)]}
    async with running(house, tmp_path, **document) as market:
        desk = market.desks[0]
        await until(lambda: _seen(desk.book("ETHUSDT")))

    async def entered() -> Any:
        rows = await transact(house, lambda conn: list_files(conn, kind=FileKind.RAW))
        return [row for row in rows if row.file.rows > 0]

    async with running(house, tmp_path, **document):
        (row,) = await until(entered)

    assert (row.file.venue, row.file.gaps) == ("binance", 0)


async def test_a_grid_that_changes_begins_a_new_session_with_the_new_version(
    house: AsyncEngine, binance: SimulatorProcess, tmp_path: Path
) -> None:
    document = {"marketdata": {"recordings": "tape"}, "feed": [feed("binance", binance)]}
    async with running(house, tmp_path, **document) as market:
        desk = market.desks[0]
        await until(lambda: _seen(desk.book("ETHUSDT")))
        assert desk.recording is not None
        first = desk.recording.writer.session
        (known,) = [
            item
            for item in await transact(house, lambda conn: list_instruments(conn, "binance"))
            if item.symbol == "ETHUSDT"
        ]
        other = replace(known, tick=known.tick * 10, version=known.version + 1)
        await transact(house, lambda conn: record_instrument(conn, other, now=CLOCK.now()))

        # The venue says what it said before: that is a change of what is on record now.
        await desk.read_grids()

        async def anew() -> bool:
            recording = desk.recording
            return recording is not None and recording.writer.session > first

        await until(anew)
        await until(lambda: _seen(desk.book("ETHUSDT")))

    headers = [read_header(path) for path in list_segments(tmp_path / "tape")]
    versions = [(one.session, one.instruments[0].version) for one in headers]
    assert versions[0] == (first, known.version)
    assert {version for session, version in versions if session > first} == {known.version + 2}


async def test_what_a_killed_house_had_not_derived_is_derived_by_the_next(
    house: AsyncEngine, binance: SimulatorProcess, tmp_path: Path
) -> None:
    document = {"marketdata": {"recordings": "tape"}, "feed": [feed("binance", binance)]}
    async with running(house, tmp_path, **document) as market:
        await until(lambda: _seen(market.desks[0].book("ETHUSDT")))
    tables = list_parquet(tmp_path / "tape")
    for path in tables:
        path.unlink()
    (segment,) = list_segments(tmp_path / "tape")
    segment.rename(open_path(segment))

    async def derived() -> bool:
        return set(tables) <= set(list_parquet(tmp_path / "tape"))

    assert tables
    async with running(house, tmp_path, **document):
        await until(derived)


async def test_the_figures_of_a_house_are_served(
    house: AsyncEngine, binance: SimulatorProcess, tmp_path: Path
) -> None:
    port = _free_port()
    document = {"marketdata": {"metrics_port": port}, "feed": [feed("binance", binance)]}
    async with running(house, tmp_path, **document) as market, aiohttp.ClientSession() as http:
        await until(lambda: _seen(market.desks[0].book("ETHUSDT")))
        async with http.get(market.metrics_url) as answer:
            text = await answer.text()

    labels = '{channel="book",symbol="ETHUSDT",venue="binance"}'
    assert f"causeway_stream_live{labels} 1.0" in text
    assert f"causeway_stream_messages_total{labels}" in text


async def _seen(value: object) -> bool:
    return value is not None


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port
