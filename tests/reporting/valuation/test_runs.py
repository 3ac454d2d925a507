"""Valuations on a real ledger: tied to it, recorded once, computed again."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from marketdata.errors import NoPrice
from matching.model import Side
from registry.testing import ETH, USDT
from reporting.errors import NoRate, NoValuation, ValuationUntied
from reporting.valuation.model import LineKind, Method, Valuation
from reporting.valuation.runs import (
    get_valuation,
    list_valuation_lines,
    list_valuations,
    record_valuation,
    value_book,
    verify_valuation,
)
from tests.trading.conftest import BOOK, DESK, house
from tests.trading.pnl.stories import BNB, Story
from trading.model import TREASURY, DealPurpose, DealSide
from trading.pnl.runs import THE_BEGINNING

__all__ = ["house"]
ONE = ETH.parse("1")
SELLS, BUYS = DealSide.DESK_SELLS, DealSide.DESK_BUYS


def usdt(amount: str) -> int:
    return USDT.parse(amount)


@pytest.fixture
def story(house: AsyncEngine) -> Story:
    return Story(house)


async def valued(
    story: Story,
    method: Method = Method.FIFO,
    *,
    since: datetime = THE_BEGINNING,
    until: datetime | None = None,
) -> Valuation:
    now = story.tick()

    async def work(conn: AsyncConnection) -> Valuation:
        return await value_book(
            conn, BOOK, since=since, until=until or now, currency=USDT, method=method, now=now
        )

    return await transact(story.engine, work)


async def put_in(story: Story, debit: str, credit: str, amount: str, asset: str) -> None:
    """A posting that is no deal and no fill."""
    at = story.tick()
    units = {"ETH": ETH, "USDT": USDT}[asset].parse(amount)

    async def work(conn: AsyncConnection) -> None:
        await ensure_accounts(conn, BOOK, {(debit, asset), (credit, asset)}, now=at)
        moved = transfer(derive_id(at, debit, credit), debit, credit, units, asset, code="test")
        require_applied(await post(conn, BOOK, [moved], now=at))

    await transact(story.engine, work)


async def two_lots_and_a_sale(story: Story) -> None:
    await story.fill("x", Side.BUY, ONE, "3000")
    await story.fill("y", Side.BUY, ONE, "3200")
    await story.deal("a", SELLS, ONE, "3300", mid="3290", fee=usdt("5"))
    await story.market(ETH, "3280")


@pytest.mark.parametrize(
    ("method", "realised", "unrealised"),
    [(Method.FIFO, "300", "80"), (Method.AVERAGE, "200", "180")],
)
async def test_the_method_says_which_cost_leaves_and_the_net_is_the_same(
    story: Story, method: Method, realised: str, unrealised: str
) -> None:
    await two_lots_and_a_sale(story)

    found = await valued(story, method)

    assert found.total(LineKind.REALISED) == usdt(realised)
    assert found.total(LineKind.UNREALISED) == usdt(unrealised)
    assert found.total(LineKind.INCOME) == usdt("5")
    assert found.net == usdt("385")
    (cash, eth) = found.holdings
    assert (cash.asset, cash.units) == ("USDT", usdt("-2895"))
    assert (eth.units, eth.value) == (ONE, usdt("3280"))


async def test_two_intervals_come_to_the_whole(story: Story) -> None:
    await story.fill("x", Side.BUY, 2 * ONE, "3000")
    await story.market(ETH, "3100")
    middle = story.tick()
    await story.deal("a", SELLS, ONE, "3300", mid="3290")
    await story.market(ETH, "3280")
    end = story.tick()

    first = await valued(story, until=middle)
    second = await valued(story, since=middle, until=end)
    whole = await valued(story, until=end)

    assert (first.net, second.net) == (usdt("200"), usdt("380"))
    assert first.net + second.net == whole.net
    assert second.total(LineKind.REALISED) == usdt("300")


async def test_deals_between_desks_of_one_house_gain_nothing(story: Story) -> None:
    await put_in(story, "custody:house-hot", "equity:capital", "10", "ETH")
    await story.market(ETH, "3000")
    await story.deal("t", BUYS, ONE, "3100", mid=None, purpose=DealPurpose.TRANSFER)

    found = await valued(story)

    assert found.total(LineKind.CAPITAL) == usdt("30000")
    assert (found.net, found.total(LineKind.REALISED)) == (0, 0)
    assert [line.units for line in found.holdings] == [10 * ONE]


async def test_what_is_spent_in_kind_is_an_expense_at_the_day_s_close(story: Story) -> None:
    await put_in(story, "custody:house-hot", "equity:capital", "10", "ETH")
    await put_in(story, "expense:network-fee", "custody:house-hot", "0.5", "ETH")
    await story.market(ETH, "3000")

    found = await valued(story, Method.AVERAGE)

    assert found.total(LineKind.EXPENSE) == usdt("-1500")
    assert found.net == usdt("-1500")


async def test_a_cancelled_deal_is_taken_back_in_the_interval_of_its_cancellation(
    story: Story,
) -> None:
    await story.fill("x", Side.BUY, ONE, "3000")
    deal = await story.deal("a", SELLS, ONE, "3300", mid="3300")
    middle = story.tick()
    await story.cancel(deal)
    await story.market(ETH, "3000")

    first = await valued(story, until=middle)
    second = await valued(story, since=middle)

    assert first.total(LineKind.REALISED) == usdt("300")
    assert second.total(LineKind.REALISED) == usdt("-300")
    assert second.net == usdt("-300")


async def test_it_is_recorded_once_and_computed_again_whatever_came_after(story: Story) -> None:
    await put_in(story, "custody:house-hot", "equity:capital", "1", "ETH")
    await two_lots_and_a_sale(story)
    found = await valued(story)

    async def keep(conn: AsyncConnection) -> bool:
        return await record_valuation(conn, found, by="cleo", now=story.now)

    assert await transact(story.engine, keep)
    assert not await transact(story.engine, keep)
    await story.deal("b", SELLS, ONE, "3010", mid="3000")
    await story.market(ETH, "1")

    async with story.engine.connect() as conn:
        again = await verify_valuation(conn, found.id)
        assert again.differences == ()
        assert await list_valuation_lines(conn, found.id) == found.lines
        assert await list_valuations(conn, BOOK) == [await get_valuation(conn, found.id)]
    assert again.record.net == found.net


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE reporting.valuation_line SET value = value + 1 WHERE number = 1", "2 lines"),
        ("UPDATE reporting.valuation_run SET net = net + 1", "totals"),
        ("UPDATE reporting.valuation_run SET inputs_hash = repeat('0', 64)", "inputs"),
        ("UPDATE reporting.valuation_run SET lines_hash = repeat('0', 64)", "lines: 0000"),
    ],
)
async def test_a_valuation_that_somebody_changed_is_found(
    story: Story, owner_engine: AsyncEngine, change: str, said: str
) -> None:
    await two_lots_and_a_sale(story)
    found = await valued(story)
    await transact(
        story.engine, lambda conn: record_valuation(conn, found, by="cleo", now=story.now)
    )

    await transact(owner_engine, lambda conn: conn.execute(text(change)))

    async with story.engine.connect() as conn:
        (difference,) = (await verify_valuation(conn, found.id)).differences
    assert said in difference


async def test_a_balance_that_no_posting_explains_is_refused(
    story: Story, owner_engine: AsyncEngine
) -> None:
    await two_lots_and_a_sale(story)

    async def forge(conn: AsyncConnection) -> None:
        await conn.execute(text("ALTER TABLE ledger.entry DISABLE TRIGGER USER"))
        await conn.execute(
            text(
                "UPDATE ledger.entry SET credits_posted = credits_posted + 1 WHERE account IN "
                "(SELECT number FROM ledger.account WHERE path = 'income:fee')"
            )
        )

    await transact(owner_engine, forge)

    with pytest.raises(ValuationUntied, match="the ledger has"):
        await valued(story)


async def test_fees_in_kind_amendments_and_transfers_come_to_the_desk_s_own_result(
    story: Story,
) -> None:
    """Another layer over the same postings, which knows nothing of lots, has the same net."""
    await story.market(BNB, "600")
    await story.fill("x", Side.BUY, 3 * ONE, "3000", fee=BNB.parse("0.013"), fee_asset=BNB)
    await story.fill("y", Side.BUY, ONE, "3011.37", fee=ONE // 7_000, fee_asset=ETH)
    deal = await story.deal("a", SELLS, 2 * ONE, "3300.11", mid="3290", fee=usdt("5"))
    await story.amend(deal, "b", ONE + 1, "3301.7")
    await story.deal("t", BUYS, ONE // 3, "3100", mid=None, purpose=DealPurpose.TRANSFER)
    gone = await story.deal("c", BUYS, ONE // 9, "3100.3", mid="3100")
    await story.cancel(gone)
    await story.market(ETH, "3280.77")
    await story.market(BNB, "611")
    end = story.tick()

    desks = [await story.result(until=end, desk=desk) for desk in (DESK, TREASURY)]
    found = [await valued(story, method, until=end) for method in Method]

    theirs = sum(run.result.net for run in desks)
    assert all(abs(mine.net - theirs) <= 10 for mine in found), "but for what each rounds"
    assert len({mine.net for mine in found}) == 1
    assert {mine.total(LineKind.EXPENSE) < 0 for mine in found} == {True}


async def test_what_has_no_price_is_named(story: Story) -> None:
    await put_in(story, "custody:house-hot", "equity:capital", "10", "ETH")

    with pytest.raises(NoRate, match=r"no price in USDT of ETH at 2026-01-05.*prices override"):
        await valued(story)


async def test_what_is_held_without_a_mark_is_refused(story: Story) -> None:
    await story.fill("x", Side.BUY, ONE, "3000")

    with pytest.raises(NoPrice):
        await valued(story)


async def test_an_interval_that_has_not_begun_and_an_unknown_run_are_refused(story: Story) -> None:
    with pytest.raises(BadInput, match="nothing lies between"):
        await valued(story, since=story.now + timedelta(days=1))
    with pytest.raises(NoValuation, match="is on record"):
        async with story.engine.connect() as conn:
            await verify_valuation(conn, derive_id(story.now, "none"))
