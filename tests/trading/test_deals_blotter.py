"""The blotter: filters, pages that lose and repeat nothing, totals of what stands."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.money import Price
from registry.testing import ETH, USDT
from tests.trading.conftest import BOOK, NOW, booked, request
from trading.blotter import BlotterFilter, BlotterPage, BlotterTotal, Cursor, blotter
from trading.deals import amend_deal, cancel_deal
from trading.model import TREASURY, DealOrigin, DealPurpose, DealSide, DealState

ANYTHING = BlotterFilter()


async def shown(
    engine: AsyncEngine, filters: BlotterFilter = ANYTHING, **where: Any
) -> BlotterPage:
    async with engine.connect() as conn:
        return await blotter(conn, BOOK, filters, **where)


def references(page: BlotterPage) -> list[str]:
    return [item.request.client_ref for item in page.deals]


@pytest.fixture
async def day(house: AsyncEngine) -> AsyncEngine:
    """A morning's deals: two with acme, one with birch, one with treasury."""
    for minute, asked in enumerate(
        (
            request("a-1"),
            request("a-2", side=DealSide.DESK_BUYS, base_units=ETH.parse("4"), fee_units=0),
            request("b-1", party="birch", desk="prop", fee_units=0),
            request("t-1", party=TREASURY, purpose=DealPurpose.TRANSFER, fee_units=0),
        )
    ):
        await booked(house, asked, NOW + timedelta(minutes=minute))
    return house


FILTERS: tuple[tuple[dict[str, Any], list[str]], ...] = (
    ({}, ["t-1", "b-1", "a-2", "a-1"]),
    ({"party": "acme"}, ["a-2", "a-1"]),
    ({"desk": "prop"}, ["b-1"]),
    ({"asset": "USDT"}, ["t-1", "b-1", "a-2", "a-1"]),
    ({"asset": "BTC"}, []),
    ({"side": DealSide.DESK_BUYS}, ["a-2"]),
    ({"state": DealState.SETTLED}, []),
    ({"origin": DealOrigin.VOICE, "ref": "b"}, ["b-1"]),
    ({"origin": DealOrigin.FILE}, []),
    ({"purpose": DealPurpose.TRANSFER}, ["t-1"]),
    ({"ref": "a-"}, ["a-2", "a-1"]),
    ({"ref": "%"}, []),
    ({"since": NOW + timedelta(minutes=1)}, ["t-1", "b-1", "a-2"]),
    ({"until": NOW + timedelta(minutes=1)}, ["a-1"]),
)


async def test_each_filter_lets_through_what_it_names(day: AsyncEngine) -> None:
    for filters, expected in FILTERS:
        page = await shown(day, BlotterFilter(**filters))
        assert references(page) == expected, filters


async def test_totals_say_what_the_desk_received_paid_and_charged(day: AsyncEngine) -> None:
    page = await shown(day, BlotterFilter(party="acme"))

    assert page.totals == (
        BlotterTotal(asset="ETH", deals=2, received=ETH.parse("4"), paid=ETH.parse("10"), fees=0),
        BlotterTotal(
            asset="USDT",
            deals=2,
            received=USDT.parse("30000"),
            paid=USDT.parse("12000"),
            fees=USDT.parse("300"),
        ),
    )
    assert page.totals[0].net == -ETH.parse("6")


async def test_totals_count_what_stands_and_other_deals_only_when_asked_for(
    house: AsyncEngine,
) -> None:
    old, wrong = await booked(house, request("old")), await booked(house, request("wrong"))
    better = request("new", price=Price.parse("3001", ETH, USDT))
    await transact(house, lambda conn: amend_deal(conn, old.id, better, now=NOW))
    await transact(
        house, lambda conn: cancel_deal(conn, wrong.id, by="dora", reason="wrong", now=NOW)
    )

    everything = await shown(house)
    cancelled = await shown(house, BlotterFilter(state=DealState.CANCELLED))

    assert sorted(references(everything)) == ["new", "old", "wrong"]
    assert [(total.asset, total.deals) for total in everything.totals] == [("ETH", 1), ("USDT", 1)]
    assert [total.deals for total in cancelled.totals] == [1, 1]


async def test_pages_repeat_and_lose_nothing_while_deals_arrive(house: AsyncEngine) -> None:
    for number in range(5):
        await booked(house, request(f"d-{number}"))  # all of one moment: the id decides

    first = await shown(house, limit=2)
    await booked(house, request("later"), NOW + timedelta(minutes=1))
    second = await shown(house, limit=2, after=first.after)
    assert second.after is not None
    third = await shown(house, limit=2, after=Cursor.parse(str(second.after)))

    pages = [*references(first), *references(second), *references(third)]
    assert sorted(pages) == [f"d-{number}" for number in range(5)]
    assert third.after is None
    assert first.totals[0].deals == 5


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-05T09:00:00/7", f"/{'0' * 36}"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="no place in the blotter"):
        Cursor.parse(text)
