"""Our leg is held first, and leaves only on a named ground: receipts, prefunding, a limit."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from ledger.queries import list_open_holds
from registry.testing import ETH, USDT, operator_keypair
from risk.settlement_limit_model import SettlementLimit
from risk.settlement_limits import set_settlement_limit, settlement_limit_bytes
from settlement import release_store
from settlement.errors import NotCovered, NotReleasable
from settlement.funding import funding_need
from settlement.holding import hold_chosen, let_go
from settlement.liquidity_run import (
    choose_release,
    draft_plan,
    gather,
    inputs_of,
    list_plans,
    read_payable,
    record_plan,
    replay_plan,
)
from settlement.model import Run, RunState
from settlement.netting.model import Method
from settlement.queries import list_held_instructions, list_run_instructions
from settlement.release_model import Earmark, ReleasePlan
from tests.settlement.desk import ACME_WALLET, BOOK, DAY, Desk, refusal, release_all


async def sealed(desk: Desk, *, funds: str = "20") -> Run:
    """Acme owes 30,300 USDT and is owed 10 ETH; the desk has so many ETH."""
    await desk.agree("acme")
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.capital(("custody:house-hot", "equity:capital", funds, "ETH"))
    await desk.deal("sold")
    run, _ = await desk.calculate()
    await desk.affirm_all(run.id)
    return await desk.seal(run.id)


async def plan_for(desk: Desk, run: Run, method: Method = Method.FIFO) -> ReleasePlan:
    async def work(conn: AsyncConnection) -> ReleasePlan:
        inputs = gather(await read_payable(conn, BOOK, [run.id]), BOOK, run.id, on=DAY)
        choice = choose_release(inputs, method=method)
        return await record_plan(conn, draft_plan(inputs, choice, by="ada", now=desk.now))

    return await desk.do(work)


async def earmarks(desk: Desk, run: Run) -> list[Earmark]:
    async def work(conn: AsyncConnection) -> list[Earmark]:
        items = await list_run_instructions(conn, run.id)
        return await release_store.list_earmarks(conn, [item.id for item in items])

    return await desk.do(work)


async def test_our_coins_are_held_before_their_money_is_here_and_leave_when_it_is(
    desk: Desk,
) -> None:
    run = await sealed(desk)

    first = await release_all(desk, run)

    assert await desk.states(run.id) == {"acme ETH": "funded", "acme USDT": "released"}
    assert await desk.holds() == {"transit:out:evm ETH": "10"}
    assert first.payouts == {}
    assert "acme still owes 30300000000 of USDT" in "".join(first.waits.values())
    held = await desk.do(lambda conn: list_held_instructions(conn, BOOK))
    holds = await desk.do(lambda conn: list_open_holds(conn, BOOK))
    assert {(h.correlation, h.amount) for h in holds} == {(i.id, i.amount) for i in held}

    await desk.receive(USDT.parse("30300"))
    await desk.match()
    second = await release_all(desk, run)

    assert len(second.payouts) == 1
    assert await desk.holds() == {"payable:acme:netted ETH": "10"}
    (mark,) = await earmarks(desk, run)
    assert (mark.cover, mark.location, mark.ended_by) == ("received", "house-hot", "ada")
    (payout_id,) = second.payouts.values()
    await desk.send(payout_id)
    await desk.mine(3)
    assert (await desk.finality(run.id)).state is RunState.FINAL
    assert await desk.books("payable", "in-flight", "transit") == {}


async def test_again_and_again_has_no_second_effect(desk: Desk) -> None:
    run = await sealed(desk)
    for _ in range(3):
        await release_all(desk, run)
    assert await desk.holds() == {"transit:out:evm ETH": "10"}
    await desk.receive(USDT.parse("30300"))
    await desk.match()

    payouts = [(await release_all(desk, run)).payouts for _ in range(3)]

    assert [len(found) for found in payouts] == [1, 0, 0]
    assert len(await desk.do(lambda conn: list_plans(conn, run.id))) == 1
    assert len(await earmarks(desk, run)) == 1


async def limit(desk: Desk, units: int) -> None:
    value = SettlementLimit(party="acme", asset="USDT", gross_units=units)
    signature = operator_keypair("ben").sign(settlement_limit_bytes(value, "known for years"))

    async def work(conn: AsyncConnection) -> None:
        await set_settlement_limit(
            conn,
            value,
            by=desk.operators["ada"],
            approver=desk.operators["ben"],
            signature=signature,
            reason="known for years",
            now=desk.now,
        )

    await desk.do(work)


@pytest.mark.parametrize(("units", "leaves"), [("30300", True), ("30299", False)])
async def test_a_settlement_limit_bears_what_is_owed_or_it_does_not(
    desk: Desk,
    units: str,
    *,
    leaves: bool,
) -> None:
    run = await sealed(desk)
    await limit(desk, USDT.parse(units))

    done = await release_all(desk, run)

    assert bool(done.payouts) is leaves
    (mark,) = await earmarks(desk, run)
    assert (mark.cover == "limit") is leaves
    assert ("30300000000 of USDT" in mark.cover_detail) is leaves


async def test_what_is_short_is_not_chosen_and_the_rest_is(desk: Desk) -> None:
    run = await sealed(desk, funds="9")

    done = await release_all(desk, run)

    assert done.plan is not None
    assert done.plan.choice.chosen == frozenset()
    assert await desk.states(run.id) == {"acme ETH": "planned", "acme USDT": "released"}
    needs = await desk.do(
        lambda conn: _needs(conn, run.id),
    )
    assert needs == {("house-hot", "ETH"): ETH.parse("1.042")}


@pytest.mark.parametrize(("funds", "chosen"), [("10.042", 1), ("10.041999", 0)])
async def test_a_wallet_keeps_the_coins_that_it_pays_fees_with(
    desk: Desk, funds: str, chosen: int
) -> None:
    run = await sealed(desk, funds=funds)

    assert len((await plan_for(desk, run)).choice.chosen) == chosen


async def _needs(conn: AsyncConnection, run_id: UUID) -> dict[tuple[str, str], int]:
    items = await list_run_instructions(conn, run_id)
    found = await funding_need(conn, BOOK, items)
    return {(need.location, need.asset): need.short for need in found}


async def test_a_part_is_paid_where_the_policy_says_so_and_the_rest_later(desk: Desk) -> None:
    """Acme has sold 10 ETH for 30,000 USDT; the desk has 9,000 of them, then the rest."""
    await desk.agree("acme")
    await desk.instruct("acme", "USDT", ACME_WALLET)
    await desk.capital(
        ("custody:house-hot", "equity:capital", "9000", "USDT"),
        ("custody:house-hot", "equity:capital", "1", "ETH"),
    )
    await desk.buys("bought")
    run = await desk.released()
    await desk.receive(ETH.parse("10"), asset="ETH")
    await desk.match()

    paid, state = [], run.state
    for funds in ("21000", "0.000001"):
        done = await release_all(desk, run, method=Method.PARTIAL)
        (payout_id,) = done.payouts.values()
        paid.append(USDT.format((await desk.payout(payout_id)).amount, code=False))
        await desk.send(payout_id)
        await desk.mine(3)
        state = (await desk.finality(run.id)).state
        ours = (await desk.instructions(run.id))["acme USDT"]
        paid.append(f"{ours.state} {USDT.format(ours.applied, code=False)}, attempt {ours.attempt}")
        await desk.capital(("custody:house-hot", "equity:capital", funds, "USDT"))

    assert paid == ["9,000", "rescheduled 9,000, attempt 2", "21,000", "final 30,000, attempt 2"]
    assert state is RunState.FINAL
    assert await desk.books("payable", "in-flight", "transit") == {}


async def test_held_coins_are_not_there_for_another_payment(desk: Desk) -> None:
    run = await sealed(desk, funds="11")
    await release_all(desk, run)

    needs = await desk.do(_needs_of_two_more)

    assert needs == {("house-hot", "ETH"): ETH.parse("1.042")}


async def _needs_of_two_more(conn: AsyncConnection) -> dict[tuple[str, str], int]:
    (item,) = await list_held_instructions(conn, BOOK)
    found = await funding_need(conn, BOOK, [replace(item, amount=ETH.parse("2"))])
    return {(need.location, need.asset): need.short for need in found}


async def test_what_is_let_go_is_free_and_can_be_planned_anew(desk: Desk) -> None:
    run = await sealed(desk)
    await release_all(desk, run)
    ours = (await desk.instructions(run.id))["acme ETH"]

    for _ in range(2):
        await desk.do(
            lambda conn: let_go(
                conn, [run.id], [ours.id], by=desk.operators["ada"], reason="no", now=desk.now
            )
        )

    assert await desk.holds() == {}
    again = (await desk.instructions(run.id))["acme ETH"]
    assert (str(again.state), again.attempt) == ("rescheduled", 2)
    await release_all(desk, run)
    assert await desk.holds() == {"transit:out:evm ETH": "10"}
    assert [mark.attempt for mark in await earmarks(desk, run)] == [1, 2]


async def test_a_plan_that_what_is_there_does_not_cover_any_more_holds_nothing(desk: Desk) -> None:
    run = await sealed(desk, funds="10.042")
    plan = await plan_for(desk, run)
    assert len(plan.choice.chosen) == 1
    await desk.release(run.id)
    await desk.capital(("equity:capital", "custody:house-hot", "1", "ETH"))

    with pytest.raises(NotCovered, match="house-hot is short of 1 ETH"):
        await desk.do(
            lambda conn: hold_chosen(conn, plan, [run.id], by=desk.operators["ada"], now=desk.now)
        )

    assert await desk.holds() == {}


async def test_a_held_payment_leaves_from_where_it_is_held(desk: Desk) -> None:
    run = await sealed(desk)
    await release_all(desk, run)
    await desk.receive(USDT.parse("30300"))
    await desk.match()
    ours = (await desk.instructions(run.id))["acme ETH"]

    with pytest.raises(NotReleasable, match="held at house-hot, not at client-pool"):
        await desk.pay(ours, wallet="client-pool")
    await desk.pay(ours)
    assert await desk.holds() == {"payable:acme:netted ETH": "10"}


async def test_a_replay_reads_the_choice_and_finds_what_was_tampered_with(desk: Desk) -> None:
    run = await sealed(desk)
    plan = await plan_for(desk, run)
    (kept,) = await desk.do(lambda conn: list_plans(conn, run.id))

    assert replay_plan(kept) == plan.choice
    assert inputs_of(kept).hash == plan.input_hash
    with pytest.raises(BadInput, match="not those it was made from"):
        replay_plan(replace(kept, input_hash="0" * 64))
    with pytest.raises(BadInput, match="not the set that the order gives"):
        replay_plan(replace(kept, choice=replace(kept.choice, chosen=frozenset())))


async def test_the_clock_releases_only_where_a_policy_says_so(desk: Desk) -> None:
    run = await sealed(desk)

    async def clock(conn: AsyncConnection) -> object:
        plan = await plan_for(desk, run)
        return await hold_chosen(conn, plan, [run.id], by=None, now=desk.now)

    assert "of no cycle" in await refusal(desk.do(clock))


@pytest.mark.parametrize(
    ("story", "statement"),
    [
        ("a choice is kept for ever", "UPDATE settlement.release_plan SET value = value + 1"),
        ("a choice is not deleted", "DELETE FROM settlement.release_plan"),
        ("what is held is not changed", "UPDATE settlement.earmark SET amount = 1"),
        ("a ground has a name", "UPDATE settlement.earmark SET cover = 'because'"),
        ("a ground is said at the end", "UPDATE settlement.earmark SET cover = 'received'"),
    ],
    ids=lambda value: value if " " in value and "settlement." not in value else "",
)
async def test_the_database_refuses(desk: Desk, story: str, statement: str) -> None:
    run = await sealed(desk)
    await release_all(desk, run)

    with pytest.raises(DBAPIError):
        await desk.do(lambda conn: conn.execute(text(statement)))


async def test_why_a_payment_left_is_said_once(desk: Desk) -> None:
    run = await sealed(desk)
    await limit(desk, USDT.parse("30300"))
    await release_all(desk, run)

    with pytest.raises(DBAPIError, match="is said once"):
        await desk.do(
            lambda conn: conn.execute(text("UPDATE settlement.earmark SET cover_detail = 'x'"))
        )


async def test_only_a_treasurer_holds(desk: Desk) -> None:
    run = await sealed(desk)
    with pytest.raises(Refused, match="dan is not treasurer"):
        await release_all(desk, run, by="dan")


async def test_one_refused_payment_of_a_group_holds_nobody_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("settlement.releasing.RECEIPTS_MAX", 1)
    await desk.capital(("custody:house-hot", "equity:capital", "40", "ETH"))
    for party in ("acme", "birch"):
        await desk.agree(party)
        await desk.instruct(party, "ETH", ACME_WALLET)
        await desk.deal(f"sold-{party}", party=party)
    run, _ = await desk.calculate()
    await desk.affirm_all(run.id)
    await desk.seal(run.id)

    await release_all(desk, run)

    assert await desk.states(run.id) == {
        **dict.fromkeys(("acme ETH", "birch ETH"), "funded"),
        **dict.fromkeys(("acme USDT", "birch USDT"), "released"),
    }
    for party in ("acme", "birch"):
        await desk.receive(USDT.parse("30300"), party=party)
        await desk.match()
    # They are asked for together. Birch's payee is nobody's allowed destination but acme's: it waits, and acme is paid.
    done = await release_all(desk, run)
    assert len(done.payouts) == 1
    assert "not an allowed destination of birch" in "".join(done.waits.values())
