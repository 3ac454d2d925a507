"""Runs on a real ledger: recorded once, computed again, refused where they do not tie."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from ledger.queries import head
from ledger.views import PAGE_MAX
from marketdata.errors import NoPrice
from matching.model import Side
from registry.testing import ETH, USDT
from tests.trading.conftest import BOOK, DESK
from tests.trading.pnl.stories import BNB, Story
from trading.model import TREASURY, DealPurpose, DealSide
from trading.pnl.errors import NoPnlRun, PnlUntied, TooManyFlows
from trading.pnl.journal import read_account, read_journal
from trading.pnl.model import Component, FlowKind, Run
from trading.pnl.runs import (
    day_of,
    day_pnl_units,
    get_run,
    list_run_lines,
    list_runs,
    pnl,
    record_run,
    tied_allocations,
    verify_run,
)

ONE = ETH.parse("1")
SELLS, BUYS = DealSide.DESK_SELLS, DealSide.DESK_BUYS


def usdt(text_: str) -> int:
    return USDT.parse(text_)


@pytest.fixture
def story(house: AsyncEngine) -> Story:
    return Story(house)


async def recorded(story: Story, run: Run) -> bool:
    return await transact(
        story.engine, lambda conn: record_run(conn, run, by="dora", now=story.now)
    )


async def a_hedged_sale(story: Story) -> None:
    await story.deal("a", SELLS, 2 * ONE, "3010", mid="3000", fee=usdt("5"))
    await story.fill("x", Side.BUY, ONE, "3001", fee=usdt("1"))
    await story.market(ETH, "3004")


async def test_a_run_is_recorded_once_and_read_as_it_was(story: Story) -> None:
    await a_hedged_sale(story)
    run = await story.result()

    assert await recorded(story, run)
    assert not await recorded(story, run)

    async with story.engine.connect() as conn:
        kept = await get_run(conn, run.id)
        assert await list_run_lines(conn, run.id) == run.result.lines
        assert await list_runs(conn, BOOK, DESK) == [kept]
        assert await list_runs(conn, BOOK, "another") == []
    assert (kept.interval, kept.inputs_hash, kept.lines_hash) == (
        run.interval,
        run.inputs_hash,
        run.lines_hash,
    )
    assert (kept.trading, kept.net) == (usdt("20") - usdt("1") - usdt("4"), usdt("19"))


async def test_the_same_day_asked_again_later_is_the_same_run(story: Story) -> None:
    await a_hedged_sale(story)
    end = story.tick()
    first = await story.result(until=end)
    await story.deal("b", SELLS, ONE, "3010", mid="3000")

    again = await story.result(until=end)

    assert (again.id, again.inputs_hash, again.lines_hash) == (
        first.id,
        first.inputs_hash,
        first.lines_hash,
    )


async def test_a_recorded_run_is_computed_again_whatever_came_after(story: Story) -> None:
    await a_hedged_sale(story)
    run = await story.result()
    await recorded(story, run)
    deal = await story.deal("b", SELLS, ONE, "3010", mid="3000")
    await story.cancel(deal)
    await story.market(ETH, "1")

    async with story.engine.connect() as conn:
        verified = await verify_run(conn, run.id)

    assert verified.differences == ()
    assert verified.record.id == run.id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE trading.pnl_line SET value = value + 1 WHERE number = 1", "2 lines"),
        ("UPDATE trading.pnl_run SET trading = trading + 1", "totals"),
        ("UPDATE trading.pnl_run SET inputs_hash = repeat('0', 64)", "inputs"),
        ("UPDATE trading.pnl_run SET lines_hash = repeat('0', 64)", "lines: 0000"),
        ("DELETE FROM trading.pnl_line WHERE number = 1", "1 lines"),
    ],
)
async def test_a_run_that_somebody_changed_is_found(
    story: Story, owner_engine: AsyncEngine, change: str, said: str
) -> None:
    await a_hedged_sale(story)
    run = await story.result()
    await recorded(story, run)

    await transact(owner_engine, lambda conn: conn.execute(text(change)))

    async with story.engine.connect() as conn:
        (difference,) = (await verify_run(conn, run.id)).differences
    assert said in difference


async def test_the_desk_itself_cannot_change_a_run(story: Story) -> None:
    await a_hedged_sale(story)
    await recorded(story, await story.result())

    for table in ("pnl_run", "pnl_mark", "pnl_line"):
        async with story.engine.connect() as conn:
            can = await conn.scalar(
                text("SELECT has_table_privilege(:name, 'UPDATE, DELETE')"),
                {"name": f"trading.{table}"},
            )
        assert can is False


async def test_a_run_that_is_not_on_record_is_refused(story: Story) -> None:
    async with story.engine.connect() as conn:
        with pytest.raises(NoPnlRun):
            await verify_run(conn, UUID(int=1))


async def test_flows_that_are_not_the_balance_of_the_account_are_refused(story: Story) -> None:
    await a_hedged_sale(story)
    run = await story.result()

    async with story.engine.connect() as conn:
        journal = await read_journal(conn, BOOK, DESK, through=run.interval.through)
        before, after = await tied_allocations(conn, journal, run.interval)
        assert (len(before.flows), len(after.flows)) == (0, 2)
        shortened = replace(journal, transfers=journal.transfers[1:])
        with pytest.raises(PnlUntied, match="its balance is"):
            await tied_allocations(conn, shortened, run.interval)


async def test_an_account_is_read_between_two_numbers_and_no_longer_than_is_allowed(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_hedged_sale(story)
    path = f"conversion:{DESK}"

    async with story.engine.connect() as conn:
        last = (await head(conn, BOOK)).sequence
        every = await read_account(conn, BOOK, path, after=0, through=last)
        middle = every[1].sequence
        assert await read_account(conn, BOOK, path, after=middle, through=last) == every[2:]
        assert await read_account(conn, BOOK, path, after=0, through=middle) == every[:2]
        monkeypatch.setattr("trading.pnl.journal.TRANSFERS_MAX", len(every) - 1)
        with pytest.raises(TooManyFlows):
            await read_account(conn, BOOK, path, after=0, through=last)


async def test_days_are_apart_and_add_up(story: Story) -> None:
    monday, tuesday = date(2026, 1, 5), date(2026, 1, 6)
    await story.deal("a", SELLS, ONE, "3010", mid="3000")
    story.now = datetime.combine(tuesday, datetime.min.time(), tzinfo=story.now.tzinfo)
    story.now -= timedelta(minutes=5)
    await story.market(ETH, "3020")
    story.now += timedelta(hours=9)
    await story.fill("x", Side.BUY, ONE, "3030")

    first = await story.result(since=day_of(monday)[0], until=day_of(monday)[1])
    second = await story.result(since=day_of(tuesday)[0], until=day_of(tuesday)[1])

    parts = Component
    assert first.result.by_component == {
        parts.CLIENT_SPREAD: usdt("10"),
        parts.INVENTORY: usdt("-20"),
    }
    assert second.result.by_component == {
        parts.HEDGE_SLIPPAGE: usdt("-30"),
        parts.INVENTORY: usdt("20"),
    }
    assert second.interval.after == first.interval.through
    both = await story.result()
    assert both.result.net == first.result.net + second.result.net == usdt("-20")


async def test_a_day_of_losses_is_known_by_totals(story: Story) -> None:
    await story.deal("a", SELLS, ONE, "3010", mid="3000", fee=usdt("2"))
    story.now += timedelta(days=1)
    since, _ = day_of(story.now.date())
    # What yesterday's position was worth at midnight: the day's loss begins there.
    clock, story.now = story.now, since - timedelta(minutes=1)
    await story.market(ETH, "3020")
    story.now = clock
    cancelled = await story.deal("b", SELLS, ONE, "3100", mid="3000", fee=usdt("7"))
    await story.cancel(cancelled)
    await story.fill("x", Side.BUY, ONE, "3050", fee=usdt("1"))

    today = await story.result(since=since)
    async with story.engine.connect() as conn:
        units = await day_pnl_units(conn, BOOK, DESK, currency=USDT, now=story.now)

    assert units == today.result.net == usdt("-31")


async def test_a_cancelled_deal_leaves_its_hedge_to_the_next(story: Story) -> None:
    await story.cancel(await story.deal("0", SELLS, ONE, "3010", mid=None))
    deal = await story.deal("a", SELLS, ONE, "3010", mid="3000", fee=usdt("3"))
    await story.fill("x", Side.BUY, ONE, "3002")
    await story.cancel(deal)
    await story.market(ETH, "3002")
    alone = await story.result()
    await story.deal("b", SELLS, ONE, "3020", mid="3004")

    found = await story.result()

    assert alone.result.by_component == {Component.INVENTORY: 0}
    assert alone.result.without_mid == ()
    assert found.result.by_component == {
        Component.CLIENT_SPREAD: usdt("16"),
        Component.HEDGE_SLIPPAGE: usdt("2"),
    }


async def test_an_amended_deal_counts_as_it_stands_now(story: Story) -> None:
    deal = await story.deal("a", SELLS, 2 * ONE, "3010", mid="3000", fee=usdt("3"))
    new = await story.amend(deal, "a2", ONE, "3008")
    await story.fill("x", Side.BUY, ONE, "3001")

    found = await story.result()

    assert found.result.by_deal == {
        new.id: {
            Component.CLIENT_SPREAD: usdt("8"),
            Component.HEDGE_SLIPPAGE: usdt("-1"),
            Component.DEAL_FEE: usdt("3"),
        }
    }


async def test_a_transfer_hedges_the_desk_and_opens_the_same_at_treasury(story: Story) -> None:
    await story.deal("a", SELLS, ONE, "3010", mid="3000")
    await story.deal("t", BUYS, ONE, "3001", mid=None, purpose=DealPurpose.TRANSFER)
    await story.market(ETH, "3005")

    desk = await story.result()
    treasury = await story.result(desk=TREASURY)

    assert desk.result.by_component == {
        Component.CLIENT_SPREAD: usdt("10"),
        Component.HEDGE_SLIPPAGE: usdt("-1"),
    }
    assert treasury.result.by_component == {Component.INVENTORY: usdt("-4")}
    assert treasury.result.without_mid == ()


async def test_a_rebate_is_a_gain_and_a_fee_in_kind_is_bought_back(story: Story) -> None:
    await story.deal("a", SELLS, ONE, "3010", mid="3000")
    await story.fill("x", Side.BUY, ONE, "3000", fee=-usdt("2"))
    await story.market(BNB, "600")
    await story.fill("y", Side.BUY, ONE, "3000", fee=BNB.parse("0.1"), fee_asset=BNB)
    await story.market(ETH, "3000")
    await story.market(BNB, "610")

    found = await story.result()

    assert found.result.by_component == {
        Component.CLIENT_SPREAD: usdt("10"),
        Component.INVENTORY: usdt("-1"),
        Component.VENUE_FEE: usdt("2") - usdt("60"),
    }


async def test_a_posting_by_hand_is_told_apart(story: Story) -> None:
    at = story.tick()

    async def work(conn: AsyncConnection) -> None:
        line = transfer(
            derive_id(at, "by hand"),
            "equity:capital",
            f"conversion:{DESK}",
            ONE,
            "ETH",
            code="capital.paid-in",
        )
        await ensure_accounts(
            conn, BOOK, {("equity:capital", "ETH"), (f"conversion:{DESK}", "ETH")}, now=at
        )
        require_applied(await post(conn, BOOK, [line], now=at))

    await transact(story.engine, work)
    await story.market(ETH, "3000")

    found = await story.result()

    assert found.result.by_component == {Component.OTHER: usdt("3000")}
    async with story.engine.connect() as conn:
        journal = await read_journal(conn, BOOK, DESK, through=found.interval.through)
    assert [flow.kind for flow in journal.flows(found.interval.through)] == [FlowKind.OTHER]


async def test_a_journal_of_several_pages_is_read_to_its_end(story: Story) -> None:
    at, path, count = story.tick(), f"conversion:{DESK}", PAGE_MAX + 100

    async def work(conn: AsyncConnection) -> None:
        lines = [
            transfer(
                derive_id(at, number),
                "equity:capital",
                path,
                number,
                "USDT",
                code="capital.paid-in",
            )
            for number in range(1, count + 1)
        ]
        await ensure_accounts(conn, BOOK, {("equity:capital", "USDT"), (path, "USDT")}, now=at)
        require_applied(await post(conn, BOOK, lines, now=at))

    await transact(story.engine, work)

    found = await story.result()

    assert len(found.result.lines) == count
    assert found.result.trading == count * (count + 1) // 2


async def test_fees_of_another_desk_are_not_this_desks(story: Story) -> None:
    await story.deal("a", SELLS, ONE, "3010", mid="3000", fee=usdt("5"))
    await story.deal("b", SELLS, ONE, "3010", mid="3000", fee=usdt("7"), desk="other")
    await story.market(ETH, "3000")

    here, there = await story.result(), await story.result(desk="other")
    async with story.engine.connect() as conn:
        today = await day_pnl_units(conn, BOOK, DESK, currency=USDT, now=story.tick())

    assert (here.result.net, there.result.net) == (usdt("15"), usdt("17"))
    assert today == usdt("15")


async def test_an_open_position_without_a_mark_has_no_result(story: Story) -> None:
    await story.deal("a", SELLS, ONE, "3010", mid="3000")
    story.now += timedelta(hours=2)

    with pytest.raises(NoPrice, match="ETH/USDT"):
        await story.result()


async def test_a_day_that_has_not_begun_has_no_result(story: Story) -> None:
    since, until = day_of(date(2030, 1, 1))

    async with story.engine.connect() as conn:
        with pytest.raises(BadInput, match="has begun"):
            await pnl(conn, BOOK, DESK, since=since, until=until, currency=USDT, now=story.now)


async def test_a_desk_that_did_nothing_has_earned_nothing(story: Story) -> None:
    found = await story.result(desk="quiet")

    assert (found.result.lines, found.result.net) == ((), 0)
