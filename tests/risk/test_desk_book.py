"""The book of a desk while its fills are posted: each counts once, wherever it is just now."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from ledger.queries import list_accounts
from matching.model import Side, TimeInForce
from risk import desk_book
from risk.desk_book import LOOKS_MAX, read_desk_book
from risk.errors import DeskNotStill
from risk.model import DeskBook, WorstCase
from risk.order_limits import worst_cases
from tests.risk.conftest import BOOK, DESK, NOW
from trading.hedges.fills import post_fills
from trading.hedges.lines import open_line
from trading.hedges.model import HedgeLine, HedgePlace
from venues.fills import collect
from venues.model import OrderTicket
from venues.orders import intend, submit
from venues.testing import GRID, ScriptedVenue

PLACES = {"ETH": [("scripted", "desk", "ETHUSDT")]}
UNITS = 100 * GRID.lot


async def bought(engine: AsyncEngine, venue: ScriptedVenue, number: int) -> None:
    """Buy a hundred lots, and know of it: nothing of it is booked."""
    ticket = OrderTicket(
        venue=venue.venue,
        account=venue.account,
        symbol="ETHUSDT",
        instrument_version=1,
        side=Side.BUY,
        base_units=UNITS,
        quantity=GRID.quantity_text(100),
        price="3000.00",
        time_in_force=TimeInForce.IOC,
        reference="test",
        intent=f"want-{number}",
    )
    order = await transact(
        engine,
        lambda conn: intend(
            conn,
            ticket,
            capabilities=venue.capabilities,
            recv_window=venue.late_by * 3,
            actor="system:test",
            reason="test",
            now=venue.now(),
        ),
    )
    await submit(engine, venue, order.id, holder="test", clock=venue)
    await collect(engine, venue, "ETHUSDT", clock=venue)


@pytest.fixture
async def desk(house: AsyncEngine) -> ScriptedVenue:
    line = HedgeLine(desk=DESK, asset="ETH", places=(HedgePlace("scripted", "desk", "ETHUSDT"),))
    await transact(house, lambda conn: open_line(conn, line, by="dan", reason="t", now=NOW))
    venue = ScriptedVenue()
    await bought(house, venue, 1)
    return venue


async def posted(engine: AsyncEngine) -> None:
    fills = await transact(engine, lambda conn: post_fills(conn, DESK, "ETH", book=BOOK, now=NOW))
    assert len(fills) == 1


async def read(engine: AsyncEngine) -> DeskBook:
    return await transact(engine, lambda conn: read_desk_book(conn, BOOK, DESK, PLACES))


async def test_a_fill_counts_before_it_is_posted_and_after(
    house: AsyncEngine, desk: ScriptedVenue
) -> None:
    before = await read(house)
    await posted(house)
    after = await read(house)

    assert before.positions == {}
    assert desk.trades[0].base_units == UNITS
    assert worst_cases(before)["ETH"] == worst_cases(after)["ETH"] == WorstCase(UNITS, UNITS)


@pytest.mark.parametrize("moment", ["before the ledger is read", "after it"])
async def test_a_fill_that_is_posted_between_two_looks_counts_once(
    house: AsyncEngine, desk: ScriptedVenue, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    waiting = [desk]

    async def meanwhile(conn: AsyncConnection, *arguments: Any) -> Any:
        is_first = bool(waiting)
        waiting.clear()
        if is_first and moment.startswith("before"):
            await posted(house)
        found = await list_accounts(conn, *arguments)
        if is_first and moment.startswith("after"):
            await posted(house)
        return found

    monkeypatch.setattr(desk_book, "list_accounts", meanwhile)

    found = await read(house)

    assert worst_cases(found)["ETH"] == WorstCase(UNITS, UNITS)


async def test_a_desk_that_never_stands_still_is_not_judged(
    house: AsyncEngine, desk: ScriptedVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    async def meanwhile(conn: AsyncConnection, *arguments: Any) -> Any:
        looks.append(1)
        await posted(house)
        await bought(house, desk, 1 + len(looks))
        return await list_accounts(conn, *arguments)

    monkeypatch.setattr(desk_book, "list_accounts", meanwhile)

    with pytest.raises(DeskNotStill):
        await read(house)
    assert len(looks) == LOOKS_MAX
