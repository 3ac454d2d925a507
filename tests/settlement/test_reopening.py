"""Reorganisations deeper than the policy: what rested on a vanished block is named and undone."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from chain.testing import FINALITY_LAG, ScriptedTransaction
from custody.payout_model import PayoutState
from custody.payout_replace import cancel_by_conflict, cancel_bytes
from custody.payout_worker import advance_payouts
from kernel.events import list_history
from registry.testing import USDT, operator_keypair
from settlement.errors import NotReleasable
from settlement.model import Instruction, Run, RunState
from settlement.reopening import list_breaks, take_back
from tests.settlement.desk import ACME_WALLET, BOOK, CONFIRMATIONS, Desk


async def matched(desk: Desk, *amounts: str) -> tuple[Run, ScriptedTransaction]:
    """A run whose receipt(s) are matched; the last receipt's transaction."""
    await desk.agree("acme")
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.capital(("custody:house-hot", "equity:capital", "20", "ETH"))
    await desk.deal("sold")
    run = await desk.released()
    paid = None
    for amount in amounts or ("30300",):
        paid = await desk.receive(USDT.parse(amount))
        assert await desk.match() is not None
    assert paid is not None
    return run, paid


async def vanish(desk: Desk, depth: int = CONFIRMATIONS) -> None:
    """The newest blocks are gone, and what was in them with them."""
    desk.gateway.rollback(depth)
    for _ in range(depth + 1):
        desk.gateway.mine()
    await desk.follow()


async def breaks(desk: Desk) -> list[str]:
    return [str(b.kind) for b in await desk.do(lambda conn: list_breaks(conn, BOOK))]


async def taken_back(desk: Desk) -> list[Instruction]:
    return await desk.do(lambda conn: take_back(conn, book=BOOK, now=desk.now))


async def pays(desk: Desk, run: Run) -> None:
    """The desk's payment of the run, up to its finality."""
    ours = (await desk.instructions(run.id))["acme ETH"]
    await desk.send(await desk.pay(ours))
    await desk.mine(CONFIRMATIONS)


async def test_a_receipt_that_vanishes_is_owed_again(desk: Desk) -> None:
    run, _ = await matched(desk)
    assert await breaks(desk) == []

    await vanish(desk)
    assert await breaks(desk) == ["receipt_gone"]
    assert (await desk.books("suspense")) == {"suspense:evm USDT": "-30,300"}
    (item,) = await taken_back(desk)

    assert (str(item.state), item.applied) == ("released", 0)
    assert (await desk.states(run.id))["acme USDT"] == "released"
    assert await desk.books("suspense", "receivable", "custody:house-settlement") == {
        "receivable:acme:netted USDT": "30,300"
    }
    assert await breaks(desk) == []
    assert await taken_back(desk) == []


async def test_the_same_receipt_mined_again_is_matched_again(desk: Desk) -> None:
    run, paid = await matched(desk)
    await vanish(desk)
    desk.gateway.mine(paid)
    await desk.mine(CONFIRMATIONS)
    assert await desk.receipt_states() == ["final"]
    # Not over a match that still stands.
    assert await desk.match() is None
    assert await breaks(desk) == ["receipt_gone"]

    await taken_back(desk)
    match = await desk.match()

    assert match is not None
    assert match.completes
    assert (await desk.states(run.id))["acme USDT"] == "final"
    assert await desk.books("suspense", "receivable") == {}
    assert await breaks(desk) == []


async def test_a_receipt_that_paid_a_part_is_not_matched_over_its_old_match(desk: Desk) -> None:
    run, paid = await matched(desk, "30000")
    await vanish(desk)
    desk.gateway.mine(paid)
    await desk.mine(CONFIRMATIONS)

    # 300 are open: without the old match out of the way the receipt would be 29,700 too much.
    assert await desk.match() is None
    await taken_back(desk)
    match = await desk.match()

    assert match is not None
    assert (match.applied, match.excess) == (USDT.parse("30000"), 0)
    assert (await desk.instructions(run.id))["acme USDT"].remaining == USDT.parse("300")


async def test_of_two_receipts_only_the_vanished_one_is_taken_back(desk: Desk) -> None:
    run, _ = await matched(desk, "30000", "350")
    assert await desk.books("payable:acme:unapplied") == {"payable:acme:unapplied USDT": "50"}

    await vanish(desk)
    await taken_back(desk)

    item = (await desk.instructions(run.id))["acme USDT"]
    assert (str(item.state), item.applied) == ("released", USDT.parse("30000"))
    assert await desk.books("suspense", "receivable", "payable:acme:unapplied") == {
        "receivable:acme:netted USDT": "300"
    }


async def test_nothing_is_paid_against_a_receipt_that_has_vanished(desk: Desk) -> None:
    """The instruction is final still: nobody has taken the match back yet."""
    run, _ = await matched(desk)
    ours = (await desk.instructions(run.id))["acme ETH"]
    await vanish(desk)
    assert (await desk.states(run.id))["acme USDT"] == "final"

    with pytest.raises(NotReleasable, match="which acme had paid with, has vanished"):
        await desk.pay(ours)

    await taken_back(desk)
    with pytest.raises(NotReleasable, match="acme still owes"):
        await desk.pay(ours)


async def test_a_run_does_not_close_over_a_receipt_that_has_vanished(desk: Desk) -> None:
    run, _ = await matched(desk)
    ours = (await desk.instructions(run.id))["acme ETH"]
    await desk.send(await desk.pay(ours))
    await desk.mine(CONFIRMATIONS)
    # Both blocks: custody takes the receipt back, the payment is mined again at once.
    await reorganise_all(desk)
    await desk.mine(CONFIRMATIONS)

    assert (await desk.finality(run.id)).state is RunState.RELEASED


async def reorganise_all(desk: Desk) -> None:
    """Everything since the first block vanishes; what the desk signed waits in the pool again."""
    depth = len(desk.gateway.blocks) - 1
    signed = set(desk.gateway.rollback(depth))
    for _ in range(depth + 1):
        desk.gateway.mine()
    ours = [tx for tx in signed if tx.sender == desk.hot["house-hot"]]
    desk.gateway._pool.update({tx.hash: tx for tx in ours})
    await desk.follow()


async def test_a_final_run_is_opened_again_and_closes_again(desk: Desk) -> None:
    run, paid = await matched(desk)
    await pays(desk, run)
    assert (await desk.finality(run.id)).state is RunState.FINAL

    await reorganise_all(desk)
    assert sorted(await breaks(desk)) == ["payout_gone", "receipt_gone"]
    await taken_back(desk)
    assert await desk.states(run.id) == {"acme ETH": "released", "acme USDT": "released"}
    # The desk's coins are out, the party's are not in: that has a name.
    assert await breaks(desk) == ["exposed"]
    assert (await desk.finality(run.id)).state is RunState.RELEASED

    desk.gateway.mine(paid)
    await desk.mine(CONFIRMATIONS)
    assert await desk.match() is not None
    assert (await desk.finality(run.id)).state is RunState.FINAL
    assert await breaks(desk) == []
    assert await desk.books("suspense", "receivable", "payable", "in-flight", "transit") == {}
    names = [e.name for e in await desk.do(lambda c: list_history(c, "settlement-run", run.id))]
    assert names[-3:] == ["RunFinal", "RunReopened", "RunFinal"]


async def test_a_payment_alone_that_vanishes_is_final_once_more_when_custody_says_so(
    desk: Desk,
) -> None:
    run, _ = await matched(desk)
    await pays(desk, run)
    await desk.finality(run.id)
    signed = desk.gateway.rollback(CONFIRMATIONS)
    desk.gateway.mine()
    desk.gateway._pool.update({tx.hash: tx for tx in signed})
    for _ in range(CONFIRMATIONS):
        desk.gateway.mine()
    await desk.follow()
    assert await breaks(desk) == ["payout_gone"]

    await taken_back(desk)
    assert (await desk.states(run.id))["acme ETH"] == "released"
    await desk.mine(CONFIRMATIONS)

    assert (await desk.finality(run.id)).state is RunState.FINAL
    assert await breaks(desk) == []


async def test_a_payment_that_vanishes_and_is_cancelled_then_is_owed_again(desk: Desk) -> None:
    run, _ = await matched(desk)
    await pays(desk, run)
    await desk.finality(run.id)
    payout_id = (await desk.instructions(run.id))["acme ETH"].payout_id
    assert payout_id is not None
    await vanish(desk)

    await cancel(desk, payout_id)
    assert await breaks(desk) == ["payout_gone"]
    await desk.mine(FINALITY_LAG + 1)
    assert (await desk.payout(payout_id)).state is PayoutState.CANCELLED
    assert await breaks(desk) == ["payout_gone"]

    await taken_back(desk)
    await desk.finality(run.id)
    assert (await desk.states(run.id))["acme ETH"] == "failed"


async def cancel(desk: Desk, payout_id: UUID) -> None:
    """Let a signed payment be cancelled by conflict, and the conflict be sent."""
    reason = "sent to the wrong person"
    signed = cancel_bytes(payout_id, reason)
    await cancel_by_conflict(
        desk.engine,
        desk.gateway,
        payout_id,
        signatures={code: operator_keypair(code).sign(signed) for code in ("ada", "ben")},
        reason=reason,
        clock=desk.clock,
    )
    desk.clock.advance(timedelta(seconds=2))
    await advance_payouts(
        desk.engine,
        desk.gateway,
        desk.signer,
        chain="evm",
        book=BOOK,
        holder="worker-1",
        clock=desk.clock,
    )


async def test_a_run_does_not_close_over_a_payment_that_has_vanished(desk: Desk) -> None:
    for party in ("acme", "birch"):
        await desk.agree(party)
    await desk.instruct("acme", "USDT", ACME_WALLET)
    await desk.capital(
        ("custody:house-hot", "equity:capital", "5000", "USDT"),
        ("custody:house-hot", "equity:capital", "1", "ETH"),
    )
    # Acme is owed 2,000 USDT and owes nothing, birch the other way round.
    await desk.buys("from-acme", amount="2", price="3000")
    await desk.deal("to-acme", amount="2", price="2000", fee="0")
    await desk.deal("to-birch", amount="2", price="3000", fee="0", party="birch")
    await desk.buys("from-birch", amount="2", price="2000", party="birch")
    run = await desk.released()
    items = await desk.instructions(run.id)
    await desk.send(await desk.pay(items["acme USDT"]))
    await desk.mine(CONFIRMATIONS)
    await desk.finality(run.id)
    assert await desk.states(run.id) == {"acme USDT": "final", "birch USDT": "released"}

    await vanish(desk, CONFIRMATIONS)
    await desk.receive(USDT.parse("2000"), party="birch")
    await desk.match()

    assert set((await desk.states(run.id)).values()) == {"final"}
    assert (await desk.finality(run.id)).state is RunState.RELEASED
    assert await breaks(desk) == ["payout_gone"]
