"""The board of a desk: what it holds, what is under way at worst, what is needed, what it is worth."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from matching.model import Side, TimeInForce
from registry.testing import ETH, USDT
from risk.controls import set_control
from risk.errors import DeskNotStill
from risk.model import ControlState
from tests.trading.conftest import BOOK, DESK
from tests.trading.pnl.stories import BNB, PLACE, Story
from trading.board import Board, BoardRow, board
from trading.hedges import store
from trading.hedges.model import HedgeLook, HedgeVerdict
from trading.model import DealSide
from venues.model import OrderTicket
from venues.orders import intend
from venues.records import BINANCE

ONE = ETH.parse("1")
SELLS = DealSide.DESK_SELLS


@pytest.fixture
def story(house: AsyncEngine) -> Story:
    return Story(house)


async def seen(story: Story) -> Board:
    async with story.engine.connect() as conn:
        return await board(conn, BOOK, DESK, now=story.tick())


def row(found: Board, asset: str) -> BoardRow:
    (one,) = [item for item in found.rows if item.asset == asset]
    return one


async def ordered(story: Story, side: Side, units: int) -> None:
    at = story.tick()
    ticket = OrderTicket(
        venue=PLACE.venue,
        account=PLACE.account,
        symbol=PLACE.symbol,
        instrument_version=1,
        side=side,
        base_units=units,
        quantity=ETH.format(units, code=False),
        price="3000",
        time_in_force=TimeInForce.IOC,
        reference="test",
        intent=f"intent-{story.now.timestamp():.0f}",
    )

    async def work(conn: AsyncConnection) -> None:
        await intend(
            conn,
            ticket,
            capabilities=BINANCE,
            recv_window=timedelta(seconds=3),
            actor="dora",
            reason="test",
            now=at,
        )

    await transact(story.engine, work)


async def test_what_is_under_way_widens_the_worst_case_and_lessens_the_need(story: Story) -> None:
    await story.deal("a", SELLS, 5 * ONE, "3010", mid="3000")
    await story.fill("x", Side.BUY, ONE, "3001")

    before = row(await seen(story), "ETH")
    await ordered(story, Side.BUY, 3 * ONE)
    after = row(await seen(story), "ETH")

    assert (before.position, before.low, before.high, before.need) == (
        *(-4 * ONE, -4 * ONE, -4 * ONE),
        4 * ONE,
    )
    assert (after.position, after.low, after.high, after.need) == (
        *(-4 * ONE, -4 * ONE, -1 * ONE),
        ONE,
    )


async def test_position_and_orders_are_of_one_state_of_the_books(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    await story.deal("a", SELLS, ONE, "3010", mid="3000")
    # As if fills were posted during every look.
    monkeypatch.setattr("risk.desk_book.LOOKS_MAX", 0)

    with pytest.raises(DeskNotStill):
        await seen(story)


async def test_every_asset_is_valued_and_the_day_is_their_sum(story: Story) -> None:
    await story.deal("a", SELLS, ONE, "3010", mid="3000")
    await story.market(ETH, "3003.5")

    found = await seen(story)

    assert found.currency == USDT
    assert row(found, "ETH").value_units == -USDT.parse("3003.5")
    assert row(found, "USDT").value_units == USDT.parse("3010")
    assert found.day_units == USDT.parse("6.5")


async def test_an_asset_without_a_price_has_no_value_and_the_day_says_why(story: Story) -> None:
    await story.deal("a", SELLS, ONE, "3010", mid="3000")
    await story.market(BNB, "600")
    await story.fill("x", Side.BUY, ONE, "3001", fee=BNB.parse("0.1"), fee_asset=BNB)
    story.now += timedelta(hours=2)
    await story.market(ETH, "3000")

    found = await seen(story)

    bnb = row(found, "BNB")
    assert (bnb.mark, bnb.value_units, bnb.line) == (None, None, None)
    assert found.day_units is None
    assert "BNB" in found.day_why


async def test_a_desk_without_deals_or_limits_counts_in_nothing(story: Story) -> None:
    found = await seen(story)

    assert (found.rows, found.currency, found.day_units) == ([], None, None)
    assert "in which asset" in found.day_why


async def test_the_last_look_and_the_switch_are_on_the_board(story: Story) -> None:
    await story.deal("a", SELLS, ONE, "3010", mid="3000")
    await story.fill("x", Side.BUY, ONE // 2, "3001")
    look = HedgeLook(
        at=story.tick(),
        verdict=HedgeVerdict.INTERNALISING,
        detail="young",
        position=-ONE // 2,
        low=0,
        high=0,
        need=ONE // 2,
        waiting=ONE // 2,
        residual=0,
    )

    async def work(conn: AsyncConnection) -> None:
        line = await store.lock_line(conn, DESK, "ETH")
        await store.write_look(conn, line, look, None)
        await set_control(
            conn, DESK, ControlState.REDUCING, by="system:test", reason="a bad day", now=story.now
        )

    await transact(story.engine, work)

    found = await seen(story)

    line = row(found, "ETH").line
    assert line is not None
    assert line.look == look
    assert (found.control.state, found.control.reason) == (ControlState.REDUCING, "a bad day")
