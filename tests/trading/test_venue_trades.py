"""Comparing thousands of trades in bounded turns: what is cut off the next run takes up.

The venue's side is a list behind the port, in pages that cut through orders and moments.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from matching.model import Side
from trading.venue_reconciliation_model import ReconcilePolicy
from trading.venue_reconciliation_store import Window
from trading.venue_tally import Tally
from trading.venue_trades import TradesLook, look_at_trades
from venues.fills import record_fills
from venues.model import FillPage, VenueFill

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
PAGE = 3
NONE = Window("", None, "", None)
FILL = VenueFill(
    venue="sim",
    account="desk",
    symbol="ETHUSDT",
    trade_id="1",
    venue_order_id="7",
    side=Side.BUY,
    price="3000",
    base="ETH",
    base_units=10**18,
    quote="USDT",
    quote_units=3_000_000_000,
    quote_dust=0,
    fee_asset="ETH",
    fee_units=10**15,
    fee_dust=0,
    is_maker=False,
    executed_at=NOW,
)


class Lists:
    """A venue that lists trades by number, three to a page."""

    venue = "sim"
    account = "desk"

    def __init__(self, fills: Sequence[VenueFill]) -> None:
        self.listed = list(fills)
        self.pages = 0

    async def fills(self, symbol: str, cursor: str) -> FillPage:
        assert symbol == "ETHUSDT"
        self.pages += 1
        behind = [item for item in self.listed if int(item.trade_id) >= int(cursor or 0)]
        page = behind[:PAGE]
        after = str(int(page[-1].trade_id) + 1) if page else cursor
        return FillPage(fills=tuple(page), cursor=after, is_last=len(behind) <= PAGE)


def trade(number: int, at_s: float) -> VenueFill:
    return replace(FILL, trade_id=str(number), executed_at=NOW + timedelta(seconds=at_s))


async def looked(
    engine: AsyncEngine, venue: Any, start: Window, *, turns: int = 50, pages: int = 2
) -> TradesLook:
    return await look_at_trades(
        engine,
        venue,
        "ETHUSDT",
        start,
        young=NOW + timedelta(days=1),
        policy=ReconcilePolicy(fill_turns=turns, fill_pages=pages),
        tally=Tally(),
    )


async def record(engine: AsyncEngine, fills: Sequence[VenueFill]) -> None:
    await transact(engine, lambda c: record_fills(c, fills, source="rest", now=NOW))


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_differs_is_found_over_runs_and_nothing_else(
    engine: AsyncEngine, seed: int
) -> None:
    """Pages that split the trades of an order or of a moment lose none: ccxt #6696."""
    chance = random.Random(seed)
    at, fills = 0.0, []
    for number in range(1, 41):
        at += chance.choice([0, 0, 1])
        fills.append(trade(number, at))
    missing = {f.trade_id for f in fills if chance.random() < 0.1}
    surplus = {f.trade_id for f in fills if chance.random() < 0.1} - missing
    venue = Lists([f for f in fills if f.trade_id not in surplus])
    await record(engine, [f for f in fills if f.trade_id not in missing])

    whole = await looked(engine, venue, NONE)

    assert whole.is_complete
    assert {(d.kind.value, d.subject) for d in whole.differences} == {
        *(("fill_missing", f"trade:ETHUSDT:{n}") for n in missing),
        *(("fill_surplus", f"trade:ETHUSDT:{n}") for n in surplus),
    }


async def test_a_run_that_is_cut_off_is_taken_up_where_it_ended(engine: AsyncEngine) -> None:
    fills = [trade(number, number) for number in range(1, 31)]
    venue = Lists(fills)
    await record(engine, fills)

    window = NONE
    runs: list[TradesLook] = []
    while not runs or not runs[-1].is_complete:
        runs.append(await looked(engine, venue, window, turns=2))
        window = runs[-1].window

    assert len(runs) > 2
    assert all(run.differences == [] for run in runs)
    assert int(window.cursor) == 31


async def test_every_trade_is_compared_in_two_runs(engine: AsyncEngine) -> None:
    fills = [trade(number, number) for number in range(1, 10)]
    venue = Lists(fills)
    await record(engine, fills)
    first = await looked(engine, venue, NONE)
    await record(engine, [trade(99, 4.5)])  # appears on record behind the first run's back

    second = await looked(engine, venue, first.window)

    assert [d.subject for d in second.differences] == ["trade:ETHUSDT:99"]


async def test_what_differs_is_looked_at_again_until_it_does_not(engine: AsyncEngine) -> None:
    fills = [trade(number, number) for number in range(1, 20)]
    venue = Lists(fills)
    await record(engine, [f for f in fills if f.trade_id != "5"])

    window = NONE
    for _ in range(4):
        look = await looked(engine, venue, window)
        assert [d.subject for d in look.differences] == ["trade:ETHUSDT:5"]
        window = look.window
    await record(engine, fills)
    cured = await looked(engine, venue, window)

    assert cured.differences == []
    assert int(cured.window.cursor) == 20
