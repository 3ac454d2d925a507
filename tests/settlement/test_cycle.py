"""The whole cycle, step by step: every step is a transaction, and a repeated step changes nothing."""

from __future__ import annotations

from datetime import date
from functools import partial
from uuid import UUID

from kernel.events import list_history
from ledger.queries import list_transfers
from registry.testing import ETH, USDT
from settlement.model import ObligationState, RunState
from settlement.queries import list_obligations, list_runs, replay
from settlement.runs import pull_obligations
from tests.settlement.desk import ACME_WALLET, BOOK, CONFIRMATIONS, Desk, refusal
from trading.deals import get_deal
from trading.model import DealState


async def test_value_is_netted_received_paid_and_final(desk: Desk) -> None:
    await desk.agree("acme")
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.capital(("custody:house-hot", "equity:capital", "20", "ETH"))
    sold = await desk.deal("sold")
    bought = await desk.buys("bought", amount="2")

    run = await desk.released()
    items = await desk.instructions(run.id)
    assert {k: (str(i.direction), i.amount, str(i.state)) for k, i in items.items()} == {
        "acme ETH": ("pay", ETH.parse("8"), "planned"),
        "acme USDT": ("receive", USDT.parse("24300"), "released"),
    }

    await desk.receive(USDT.parse("24300"))
    match = await desk.match()
    assert match is not None
    assert match.completes
    payout_id = await desk.pay(items["acme ETH"])
    await desk.send(payout_id)
    assert (await desk.finality(run.id)).state is RunState.RELEASED
    await desk.mine(CONFIRMATIONS)

    assert (await desk.finality(run.id)).state is RunState.FINAL
    assert await desk.states(run.id) == {"acme ETH": "final", "acme USDT": "final"}
    obligations = await desk.do(lambda conn: list_obligations(conn, BOOK))
    assert {o.state for o in obligations} == {ObligationState.DISCHARGED}
    for deal in (sold, bought):
        assert (await desk.do(partial(get_deal, deal_id=deal.id))).state is DealState.SETTLED
    assert await desk.books("payable", "receivable", "suspense", "in-flight", "transit") == {}
    assert (await desk.books("custody:house-settlement"))[
        "custody:house-settlement USDT"
    ] == "24,300"


async def test_every_step_may_be_repeated(desk: Desk) -> None:
    """Each verb runs twice; the journal and the rows are those of once."""
    await desk.agree("acme")
    await desk.agree("birch", prefunded=True)
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.capital(("custody:house-hot", "equity:capital", "20", "ETH"))
    await desk.deal("sold")

    first, result = await desk.calculate()
    assert await desk.do(lambda conn: pull_obligations(conn, book=BOOK, now=desk.now)) == []
    assert await desk.open() == (first, result)
    affirmed = await desk.affirm(first.id, "acme")
    assert await desk.affirm(first.id, "acme") == affirmed
    sealed = await desk.seal(first.id)
    assert await desk.seal(first.id) == sealed
    released = await desk.release(first.id)
    assert await desk.release(first.id) == released
    await desk.receive(USDT.parse("30300"))
    assert await desk.match() is not None
    assert await desk.match() is None
    items = await desk.instructions(first.id)
    payout_id = await desk.pay(items["acme ETH"])
    assert await desk.pay(items["acme ETH"]) == payout_id
    await desk.send(payout_id)
    await desk.mine(CONFIRMATIONS)
    final = await desk.finality(first.id)
    assert await desk.finality(first.id) == final
    assert await desk.seal(first.id) == final
    assert await desk.release(first.id) == final
    assert await desk.pay(items["acme ETH"]) == payout_id

    names = [e.name for e in await desk.do(lambda c: list_history(c, "settlement-run", first.id))]
    assert names == ["RunCalculated", "PartyAffirmed", "RunSealed", "RunReleased", "RunFinal"]
    codes = [t.code for t in await desk.do(lambda c: list_transfers(c, BOOK, correlation=first.id))]
    assert codes == ["settlement.netted"] * 3
    assert await desk.books("payable", "receivable", "suspense") == {}


async def test_every_state_change_of_an_obligation_is_told(desk: Desk) -> None:
    await desk.agree("acme")
    await desk.deal("sold", fee="0")
    run = await desk.released()
    (one, _) = await desk.do(lambda conn: list_obligations(conn, BOOK))

    events = await desk.do(lambda conn: list_history(conn, "obligation", one.id))

    assert [(e.version, e.from_state, e.to_state, e.actor) for e in events] == [
        (1, None, "open", "system:settlement"),
        (2, "open", "calculated", "ada"),
        (3, "calculated", "affirmed", "dan"),
        (4, "affirmed", "sealed", "ada"),
    ]
    assert run.state is RunState.RELEASED


async def test_nothing_owed_makes_no_run(desk: Desk) -> None:
    refused = await refusal(desk.open())
    assert "nothing is owed for 2026-01-05 in window noon" in refused
    assert await desk.do(lambda conn: list_runs(conn, BOOK)) == []


async def test_what_cancels_out_is_discharged_without_a_movement(desk: Desk) -> None:
    await desk.agree("acme")
    await desk.deal("sold", fee="0")
    await desk.buys("bought")

    run = await desk.released()

    assert await desk.instructions(run.id) == {}
    assert await desk.books("payable", "receivable") == {}
    assert (await desk.finality(run.id)).state is RunState.FINAL
    obligations = await desk.do(lambda conn: list_obligations(conn, BOOK))
    assert [o.state for o in obligations] == [ObligationState.DISCHARGED] * 4


async def test_an_obligation_of_tomorrow_is_not_in_the_run_of_today(desk: Desk) -> None:
    await desk.agree("acme")
    await desk.deal("today", fee="0")
    await desk.deal("tomorrow", fee="0", value_date=date(2026, 1, 6))

    run, result = await desk.calculate()

    assert {item.amount for item in result.items} == {ETH.parse("10"), USDT.parse("30000")}
    left = await desk.do(lambda conn: list_obligations(conn, BOOK, [ObligationState.OPEN]))
    assert len(left) == 2
    assert run.version == 1


async def test_a_stored_version_is_calculated_again_from_its_inputs(desk: Desk) -> None:
    await desk.agree("acme")
    await desk.deal("sold")
    await desk.buys("bought", amount="2")
    run, result = await desk.calculate()
    # What is agreed later is no part of it.
    await desk.agree("birch", prefunded=True)

    assert await desk.do(lambda conn: replay(conn, run.id, 1)) == result


async def test_amounts_beyond_64_bits_are_exact(desk: Desk) -> None:
    await desk.agree("acme")
    await desk.deal("sold", amount="123456789012345678.901234567890123457", fee="0")

    run = await desk.released()

    items = await desk.instructions(run.id)
    assert items["acme ETH"].amount == 123456789012345678901234567890123457
    assert (await desk.books("payable:acme:netted"))["payable:acme:netted ETH"] == (
        "123,456,789,012,345,678.901234567890123457"
    )


async def test_each_step_is_resumed_from_what_is_committed(desk: Desk) -> None:
    """Whoever resumes knows only the database: everything is read again before each step."""
    await desk.agree("acme")
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.capital(("custody:house-hot", "equity:capital", "20", "ETH"))
    await desk.deal("sold")
    await desk.do(lambda conn: pull_obligations(conn, book=BOOK, now=desk.now))
    await desk.open()
    told: list[str] = []
    for _ in range(20):
        (run,) = await desk.do(lambda conn: list_runs(conn, BOOK))
        told.append(str(run.state))
        if run.state is RunState.FINAL:
            break
        await resume(desk, run.id, run.state)
    assert sorted(set(told), key=told.index) == [
        "calculated",
        "affirmed",
        "sealed",
        "released",
        "final",
    ]
    assert await desk.books("payable", "receivable", "suspense", "in-flight") == {}


async def resume(desk: Desk, run_id: UUID, state: RunState) -> None:
    items = await desk.instructions(run_id)
    match state:
        case RunState.CALCULATED:
            await desk.affirm_all(run_id)
        case RunState.AFFIRMED:
            await desk.seal(run_id)
        case RunState.SEALED:
            await desk.release(run_id)
        case _ if items["acme USDT"].state != "final":
            if await desk.match() is None:
                await desk.receive(items["acme USDT"].remaining)
        case _ if items["acme ETH"].payout_id is None:
            await desk.pay(items["acme ETH"])
        case _:
            assert items["acme ETH"].payout_id is not None
            payout = await desk.payout(items["acme ETH"].payout_id)
            if payout.state == "pending_approval":
                await desk.send(payout.id)
            await desk.mine(CONFIRMATIONS)
            await desk.finality(run_id)
