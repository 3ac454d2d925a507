"""Filling gaps: one that cannot be filled is in nobody's way, what came is laid down on its own grid."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.market_backfill import GapFiller
from app.workers.market_data_file import parse_feeds
from kernel.clock import ManualClock, to_unix_ns
from kernel.db import transact
from kernel.errors import OutsideUnavailable
from marketdata.backfill import ask_backfill, list_backfills, run_backfill
from marketdata.backfill_model import Wanted
from marketdata.events import CandleSeen, Channel, TradeSeen
from marketdata.instruments import get_instrument, record_instrument
from marketdata.model import Instrument, Page
from marketdata.ports import History
from marketdata.recording.layout import list_parquet
from marketdata.recording.views import query
from marketdata.testing import eth_usdt

CLOCK = ManualClock()
START = CLOCK.now()
SECOND = timedelta(seconds=1)
GRID = eth_usdt("binance")
ONE = 10**18
SECTION = parse_feeds(
    [{"venue": "binance", "connector": "binance", "symbols": ["ETHUSDT"]}], Path("house.toml")
)[0]


class Shelf:
    """A venue with a trade a second, at the price of 3,000.10; what is of minute 0 it cannot tell."""

    venue = "binance"

    def __init__(self, grid: Instrument) -> None:
        self.grid = grid

    async def trades(
        self, symbol: str, *, since: Any, until: Any, cursor: str = ""
    ) -> Page[TradeSeen]:
        if since < START + 60 * SECOND:
            raise OutsideUnavailable("the answer cannot be read")
        first, last = ((at - START) // SECOND for at in (since, until))
        return Page(tuple(self._trade(symbol, number) for number in range(first, last)))

    async def candles(
        self, symbol: str, interval_s: int, *, since: Any, until: Any, cursor: str = ""
    ) -> Page[CandleSeen]:
        return Page(())

    def _trade(self, symbol: str, number: int) -> TradeSeen:
        return TradeSeen(
            venue=self.venue,
            symbol=symbol,
            trade_id=str(number),
            ticks=300_010 // self.grid.tick,
            units=ONE,
            buyer_is_maker=False,
            exchange_ns=to_unix_ns(START) + number * 10**9,
            received_ns=to_unix_ns(START) + 10**12,
        )


def wanted(minute: int, minutes: int = 1) -> Wanted:
    since = START + minute * 60 * SECOND
    return Wanted(
        venue="binance",
        symbol="ETHUSDT",
        channel=Channel.TRADES,
        since=since,
        until=since + minutes * 60 * SECOND,
    )


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    await transact(engine, lambda conn: record_instrument(conn, GRID, now=START))
    return engine


@pytest.fixture
def filler(house: AsyncEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GapFiller:
    @contextlib.asynccontextmanager
    async def history_of(*arguments: Any, **named: Any) -> AsyncIterator[History]:
        (grid,) = arguments[1]
        yield Shelf(grid)

    monkeypatch.setattr("app.workers.market_backfill.history_of", history_of)
    return GapFiller(
        engine=house, section=SECTION, clock=CLOCK, interval_s=60, recordings=tmp_path / "tape"
    )


async def test_a_backfill_that_cannot_be_answered_is_in_nobodys_way(
    house: AsyncEngine, filler: GapFiller
) -> None:
    for minute in range(3):
        await transact(house, lambda conn, m=minute: ask_backfill(conn, wanted(m), now=START))  # type: ignore[misc]

    with pytest.raises(OutsideUnavailable):
        await filler.fill()

    left = await transact(house, lambda conn: list_backfills(conn, is_open=True))
    assert [item.wanted for item in left] == [wanted(0)]


async def test_trades_of_an_older_grid_are_laid_down_on_theirs(
    house: AsyncEngine, filler: GapFiller, tmp_path: Path
) -> None:
    await transact(house, lambda conn: ask_backfill(conn, wanted(1), now=START))
    await filler.fill()
    coarse = replace(GRID, tick=GRID.tick * 10)
    await transact(house, lambda conn: record_instrument(conn, coarse, now=START))
    await transact(house, lambda conn: ask_backfill(conn, wanted(1, minutes=2), now=START))
    await filler.fill()

    said = "SELECT ticks * tick_size, count(DISTINCT trade_id) FROM trades_raw GROUP BY 1"
    assert query(tmp_path / "tape", said).rows == ((Decimal("3000.10"), 120),)


async def test_what_a_crash_kept_from_being_laid_down_is_laid_down_later(
    house: AsyncEngine, filler: GapFiller, tmp_path: Path
) -> None:
    item = await transact(house, lambda conn: ask_backfill(conn, wanted(1), now=START))
    grid = await transact(house, lambda conn: get_instrument(conn, "binance", "ETHUSDT"))
    done = await run_backfill(house, Shelf(grid), grid, item.id, clock=CLOCK)
    assert done.done_at is not None
    assert list_parquet(tmp_path / "tape") == []

    await filler.fill()

    (path,) = list_parquet(tmp_path / "tape")
    before = path.stat().st_mtime_ns
    await filler.fill()
    assert path.stat().st_mtime_ns == before
