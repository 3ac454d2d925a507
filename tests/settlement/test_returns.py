"""Money that goes back: recalled before and after its run is final, and payments of ours that return."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from kernel.errors import Refused
from registry.testing import USDT, operator_keypair
from settlement import fail_store
from settlement.fail_model import PaymentReturn
from settlement.matching.by_hand import Share, match_by_hand, match_bytes, unmatch, unmatch_bytes
from settlement.matching.posting import list_matchable
from settlement.matching.store import list_matches
from settlement.model import Direction, ObligationState, RunState
from settlement.queries import get_run
from settlement.reopening import list_breaks
from settlement.returns import Recall, record_returned, returned_bytes, settle_recall, take_returned
from settlement.store import list_obligations
from tests.settlement.desk import ACME_WALLET, BOOK, CONFIRMATIONS, Desk
from tests.settlement.matching.bank_day import BankDay


@pytest.fixture
async def day(desk: Desk) -> BankDay:
    return await BankDay(desk).open()


async def recalled(day: BankDay) -> Recall | None:
    return await day.desk.do(lambda conn: settle_recall(conn, book=BOOK, now=day.desk.now))


async def owed(desk: Desk) -> list[tuple[str, str, int]]:
    """Open obligations that came of money that went back."""
    found = await desk.do(lambda conn: list_obligations(conn, BOOK, {ObligationState.OPEN}))
    return [(o.party, str(o.direction), o.amount) for o in found if o.leg == "return"]


async def test_what_a_bank_takes_back_before_its_run_is_final_is_awaited_again(
    day: BankDay,
) -> None:
    run, item = await day.awaiting(60_000)
    day.bank.execute({"verb": "fault", "kind": "reversed_credit"})
    day.pays(item, 60_000)
    await day.end_of_day()
    assert len(await day.match()) == 1
    await day.end_of_day()
    assert [str(b.kind) for b in await day.desk.do(lambda c: list_breaks(c, BOOK))] == [
        "receipt_gone"
    ]
    # Not final over it, whoever is quicker.
    assert (await day.desk.finality(run.id)).state is RunState.RELEASED

    done = await recalled(day)

    assert done is not None
    assert [(i.id, i.applied) for i in done.reopened] == [(item.id, 0)]
    assert await day.cents("suspense", "receivable") == {"receivable:acme:netted": 60_000}
    assert await day.desk.do(lambda conn: list_breaks(conn, BOOK)) == []
    assert {str(r.state) for r in await day.receipts()} == {"matched"}
    assert await day.match() == []
    assert await recalled(day) is None


async def test_what_a_bank_takes_back_after_its_run_is_final_is_owed_anew(day: BankDay) -> None:
    run, item = await day.awaiting(60_000)
    day.bank.execute({"verb": "fault", "kind": "reversed_credit"})
    day.pays(item, 60_000)
    await day.end_of_day()
    await day.match()
    assert (await day.desk.finality(run.id)).state is RunState.FINAL
    await day.end_of_day()

    done = await recalled(day)

    assert done is not None
    (made,) = done.returns
    assert (str(made.kind), made.amount, made.instruction_id) == ("recalled", 60_000, item.id)
    assert await day.cents("suspense", "receivable") == {"receivable:acme:open": 60_000}
    assert (await day.desk.do(lambda conn: get_run(conn, run.id))).state is RunState.FINAL
    assert await owed(day.desk) == [("acme", "receive", 60_000)]
    assert await recalled(day) is None

    # The next cycle settles it like anything else.
    _, again = await day.released(window="again")
    assert (again.direction, again.amount) == (Direction.RECEIVE, 60_000)


async def paid(desk: Desk) -> Any:
    """A run in which the desk has paid 10 ETH to acme, for good."""
    await desk.agree("acme")
    await desk.instruct("acme", "ETH", ACME_WALLET)
    await desk.capital(("custody:house-hot", "equity:capital", "20", "ETH"))
    await desk.deal("sold")
    run = await desk.released()
    await desk.receive(USDT.parse("30300"))
    await desk.match()
    item = (await desk.instructions(run.id))["acme ETH"]
    await desk.send(await desk.pay(item))
    await desk.mine(CONFIRMATIONS)
    await desk.finality(run.id)
    return (await desk.instructions(run.id))["acme ETH"]


async def test_a_payment_of_ours_that_comes_back_is_owed_again(desk: Desk) -> None:
    item = await paid(desk)
    await desk.receive(item.amount, asset="ETH")
    (receipt,) = await desk.do(lambda conn: list_matchable(conn, BOOK))
    payload = returned_bytes(receipt, item.id, "sent back by them")

    async def take(signer: str = "ada") -> PaymentReturn:
        return await desk.do(
            lambda conn: take_returned(
                conn,
                receipt.id,
                item.id,
                book=BOOK,
                by=desk.operators["dan"],
                second=desk.operators[signer],
                signature=operator_keypair(signer).sign(payload),
                reason="sent back by them",
                now=desk.now,
            )
        )

    made = await take()

    assert (str(made.kind), made.amount, made.second) == ("returned", item.amount, "ada")
    assert await desk.books("suspense", "payable") == {"payable:acme:open ETH": "10"}
    assert await owed(desk) == [("acme", "pay", item.amount)]
    with pytest.raises(Refused, match="does not wait"):
        await take()


async def test_a_return_that_custody_has_posted_is_owed_once(desk: Desk) -> None:
    item = await paid(desk)
    key = UUID(int=77)

    async def note() -> PaymentReturn | None:
        return await desk.do(
            lambda conn: record_returned(
                conn,
                book=BOOK,
                payout_id=item.payout_id,
                item_id=key,
                amount=item.amount,
                reason="AC04",
                now=desk.now,
            )
        )

    assert (await note()) is not None
    assert (await note()) is None
    assert await owed(desk) == [("acme", "pay", item.amount)]
    (kept,) = await desk.do(lambda conn: fail_store.list_returns(conn, book=BOOK))
    assert kept.reason == "AC04"


async def test_of_what_is_settled_for_good_no_match_is_taken_apart(desk: Desk) -> None:
    await paid(desk)
    (receipt,) = await desk.do(list_matches)

    with pytest.raises(Refused, match="is final"):
        await apart(desk, receipt.receipt_id)


async def test_a_receipt_on_a_chain_is_taken_apart_and_matched_by_hand(desk: Desk) -> None:
    await desk.agree("acme")
    await desk.deal("sold")
    run = await desk.released()
    await desk.receive(USDT.parse("30000"))
    assert await desk.match() is not None
    (match,) = await desk.do(list_matches)

    await apart(desk, match.receipt_id)

    assert await desk.receipt_states() == ["final"]
    assert (await desk.books("suspense")) == {"suspense:evm USDT": "30,000"}
    assert await desk.match() is None
    assert await desk.do(lambda conn: list_breaks(conn, BOOK)) == []
    (receipt,) = await desk.do(lambda conn: list_matchable(conn, BOOK, by_people=True))
    item = (await desk.instructions(run.id))["acme USDT"]
    given = [
        Share(instruction_id=item.id, amount=receipt.value, charge=item.remaining - 30_000 * 10**6)
    ]
    signature = operator_keypair("ada").sign(match_bytes(receipt, given, "seen"))
    await desk.do(
        lambda conn: match_by_hand(
            conn,
            receipt.id,
            given,
            book=BOOK,
            by=desk.operators["dan"],
            second=desk.operators["ada"],
            signature=signature,
            reason="seen",
            now=desk.now,
        )
    )

    assert (await desk.states(run.id))["acme USDT"] == "final"
    assert await desk.books("suspense", "expense", "receivable") == {
        "expense:bank-charge USDT": "300"
    }


async def apart(desk: Desk, receipt_id: UUID) -> None:
    """Two people take the matches of a receipt apart."""
    known = await desk.do(lambda conn: list_matches(conn, receipts={receipt_id}))
    payload = unmatch_bytes(receipt_id, [match.id for match in known], "wrong one")
    await desk.do(
        lambda conn: unmatch(
            conn,
            receipt_id,
            book=BOOK,
            by=desk.operators["dan"],
            second=desk.operators["ada"],
            signature=operator_keypair("ada").sign(payload),
            reason="wrong one",
            now=desk.now,
        )
    )
