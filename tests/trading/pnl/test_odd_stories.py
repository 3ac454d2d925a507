"""Stories that a desk would rather not have: what they come to, and that they tie on each of their days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.money import Price
from ledger.queries import trial_balance
from marketdata.errors import NoPrice
from marketdata.overrides import approve_override, override_bytes, propose_override
from marketdata.price_model import OverrideRequest, OverrideUse
from matching.model import Side
from registry.model import Party, PartyKind
from registry.testing import ENTITY, ETH, USDT, change, operator_keypair
from tests.trading.conftest import BOOK, DESK
from tests.trading.pnl.stories import BNB, Story
from trading.model import DealPurpose, DealSide
from trading.pnl.model import Component, Run
from trading.pnl.result import worth
from trading.pnl.runs import day_of, day_pnl_units

ONE = ETH.parse("1")
SELLS, BUYS = DealSide.DESK_SELLS, DealSide.DESK_BUYS
C = Component


def usdt(amount: str) -> int:
    return USDT.parse(amount)


@pytest.fixture
def story(house: AsyncEngine) -> Story:
    return Story(house)


async def next_morning(story: Story, *, eth: str) -> datetime:
    """The day ends with a price of ETH, and it is nine o'clock; return the first moment of the day."""
    since = day_of(story.now.date())[1]
    story.now = since - timedelta(minutes=5)
    await story.market(ETH, eth)
    story.now = since + timedelta(hours=9)
    return since


async def ties(story: Story, run: Run) -> None:
    """The lines are what the account moved by; the day's total knows the same."""
    values = []
    for at, marks in ((run.interval.since, run.start), (run.interval.until, run.end)):
        async with story.engine.connect() as conn:
            rows = await trial_balance(conn, BOOK, at_time=at - timedelta(microseconds=1))
        held = {row.asset: row.balance for row in rows if row.path == f"conversion:{DESK}"}
        values.append(worth(held, marks))
    assert run.result.account_value == values[1] - values[0]
    async with story.engine.connect() as conn:
        today = await day_pnl_units(conn, BOOK, DESK, currency=USDT, now=run.interval.until)
    assert today == run.result.net


async def test_a_fee_that_nobody_can_price_stops_its_own_day_and_no_later_one(
    story: Story,
) -> None:
    await story.deal("a", SELLS, ONE, "3010", mid="3000")
    await story.fill("x", Side.BUY, ONE, "3001", fee=BNB.parse("0.1"), fee_asset=BNB)
    with pytest.raises(NoPrice, match="BNB"):
        await story.result()
    since = await next_morning(story, eth="3000")
    await story.deal("b", SELLS, ONE, "3020", mid="3000")

    found = await story.result(since=since)

    assert found.result.by_component == {C.CLIENT_SPREAD: usdt("20"), C.INVENTORY: 0}
    await ties(story, found)


async def test_a_deal_half_hedged_and_half_internalised_is_amended_the_day_after(
    story: Story,
) -> None:
    deal = await story.deal("a", SELLS, 2 * ONE, "3010", mid="3000", fee=usdt("4"))
    await story.fill("x", Side.BUY, ONE, "3001", fee=usdt("1"))
    other = await story.deal("b", BUYS, ONE, "2995", mid="3002")
    since = await next_morning(story, eth="3005")
    amended = await story.amend(deal, "a2", 3 * ONE, "3008")
    await story.market(ETH, "3007")

    found = await story.result(since=since)

    # The fill and the other deal were there first; the third ETH of the new deal is open.
    assert found.result.by_deal == {
        deal.id: {
            C.CLIENT_SPREAD: usdt("-20"),
            C.INTERNALISED: usdt("2"),
            C.HEDGE_SLIPPAGE: usdt("1"),
            C.DEAL_FEE: usdt("-4"),
            C.VENUE_FEE: usdt("1"),
        },
        other.id: {C.INTERNALISED: usdt("-2")},
        amended.id: {
            C.CLIENT_SPREAD: usdt("24"),
            C.HEDGE_SLIPPAGE: usdt("-1"),
            C.INVENTORY: usdt("-7"),
            C.DEAL_FEE: usdt("4"),
            C.VENUE_FEE: usdt("-1"),
        },
    }
    await ties(story, found)


async def test_a_deal_is_cancelled_the_day_after_its_hedge(story: Story) -> None:
    deal = await story.deal("a", SELLS, ONE, "3010", mid="3000", fee=usdt("3"))
    await story.fill("x", Side.BUY, ONE, "3002", fee=ONE // 1000, fee_asset=ETH)
    since = await next_morning(story, eth="3005")
    await story.cancel(deal)
    await story.market(ETH, "3009")

    found = await story.result(since=since)
    both = await story.result()

    assert found.result.by_deal[deal.id][C.DEAL_FEE] == usdt("-3")
    assert both.result.by_component == {
        C.INVENTORY: usdt("6.993"),
        C.VENUE_FEE: usdt("-3.002"),
    }
    await ties(story, found)


async def test_a_hedge_with_a_liquidity_provider_is_slippage_like_a_fill(story: Story) -> None:
    maker = Party("maker", PartyKind.COUNTERPARTY, ENTITY.code)

    async def work(conn: AsyncConnection) -> None:
        await change(conn, maker, now=story.now)

    await transact(story.engine, work)
    sale = await story.deal("a", SELLS, ONE, "3010", mid="3000")
    await story.deal("h", BUYS, ONE, "3001", mid=None, purpose=DealPurpose.HEDGE)
    bought = await story.deal("b", BUYS, ONE, "2990", mid="3002", fee=usdt("1"))
    await story.deal("g", SELLS, ONE, "2999", mid=None, purpose=DealPurpose.HEDGE)

    found = await story.result()

    assert found.result.by_deal == {
        sale.id: {C.CLIENT_SPREAD: usdt("10"), C.HEDGE_SLIPPAGE: usdt("-1")},
        bought.id: {
            C.CLIENT_SPREAD: usdt("12"),
            C.HEDGE_SLIPPAGE: usdt("-3"),
            C.DEAL_FEE: usdt("1"),
        },
    }
    await ties(story, found)


async def test_a_fill_posted_days_late_belongs_to_the_day_of_its_posting(story: Story) -> None:
    deal = await story.deal("a", SELLS, ONE, "3010", mid="3000")
    monday = day_of(date(2026, 1, 5))
    since = await next_morning(story, eth="3005")
    before = await story.result(since=monday[0], until=monday[1])
    await story.fill("x", Side.BUY, ONE, "3001", executed_at=datetime(2026, 1, 5, 9, 1, tzinfo=UTC))

    after = await story.result(since=monday[0], until=monday[1])
    today = await story.result(since=since)

    assert after.id == before.id, "a day that is over stays as it was"
    assert today.result.by_deal == {
        deal.id: {C.HEDGE_SLIPPAGE: usdt("-1"), C.INVENTORY: usdt("5")},
    }
    await ties(story, today)


async def test_a_day_that_ended_without_a_price_is_closed_with_one_of_two_people(
    story: Story,
) -> None:
    await story.deal("a", SELLS, ONE, "3010", mid="3000")
    since, until = day_of(story.now.date())
    story.now = until + timedelta(hours=9)
    with pytest.raises(NoPrice, match="ETH"):
        await story.result(since=since, until=until)

    await approved_price(story, "3004", at=until)
    await story.market(ETH, "3005")
    closed = await story.result(since=since, until=until)
    today = await story.result(since=until)

    assert closed.result.by_component == {C.CLIENT_SPREAD: usdt("10"), C.INVENTORY: usdt("-4")}
    assert today.result.by_component == {C.INVENTORY: usdt("-1")}
    await ties(story, today)


async def approved_price(story: Story, price: str, *, at: datetime) -> None:
    """Two people agree what an ETH was worth at a moment that is over."""
    now = story.tick()
    asked = OverrideRequest(
        price=Price.parse(price, ETH, USDT),
        use=OverrideUse.LAST,
        reason="the feed was down at midnight",
        valid_from=at,
        expires_at=now + timedelta(hours=1),
    )

    async def work(conn: AsyncConnection) -> None:
        item = await propose_override(conn, asked, by="dan", now=now)
        signature = operator_keypair("cleo").sign(override_bytes(item, "approve"))
        await approve_override(conn, item.id, by="cleo", signature=signature, now=now)

    await transact(story.engine, work)
