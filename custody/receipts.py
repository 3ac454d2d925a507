"""What arrives at settlement addresses: final by policy, then settlement's to match.

A receipt lies in ``suspense:<chain>`` until it is matched to what its sender owed. Settlement moves
it on in the same transaction in which it marks it matched. Posted is what the balances say arrived
(`custody.received.prove`): of a token that takes a fee that is less than its contract logged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.follow import is_canonical, require_running
from chain.model import Block
from custody import arrivals, store
from custody.books import apply_plan
from custody.deposit_model import Receipt, ReceiptState
from custody.errors import NotPossible, UnknownRow
from custody.plan import Plan
from custody.policy import ConfirmationPolicy, requirement_of
from custody.policy_versions import keep_policy
from kernel.errors import BadInput
from kernel.events import DomainEvent, list_history, record

ACTOR: Final = "system:receipts"
MATCH_LENGTH_MAX: Final = 200


async def advance_receipts(
    conn: AsyncConnection,
    chain: str,
    *,
    book: int,
    tip: Block,
    finalized: int,
    policy: ConfirmationPolicy,
    now: datetime,
    proven: bool = False,
) -> list[Receipt]:
    """Post every receipt that is deep enough to suspense; return those that moved.

    Args and errors are those of `custody.deposits.advance_deposits`, and:

    Args:
        proven: whether the balances have to have said that a token arrived (`custody.received.prove`).
    """
    await require_running(conn, chain)
    if not await is_canonical(conn, chain, tip.hash):
        raise NotPossible(
            f"block {tip.hash} is not on {chain} any more", remedy="Ask again with the new tip"
        )
    waiting = await store.claim_arrivals(
        conn,
        Receipt,
        chain,
        {ReceiptState.INCLUDED},
        tip=tip.height,
        finalized=finalized,
        proven=proven,
    )
    if not waiting:
        return []
    await keep_policy(conn, policy, now=now)
    plan, done, rows = Plan(), [], []
    for receipt in waiting:
        asked = policy.raised(receipt)
        if not requirement_of(asked).is_met(
            height=receipt.height, tip=tip.height, finalized_height=finalized
        ):
            rows += [asked] if asked != receipt else []
            continue
        number, wanted = policy.require(asked)
        why = f"policy {policy.version}, rule {number}: {wanted}"
        after, name = _posted(asked, plan)
        if asked.value < asked.amount:
            why = f"{asked.amount} was logged and {asked.value} arrived; {why}"
        plan.tell(arrivals.event(receipt, after, name, at=now, actor=ACTOR, reason=why))
        done.append(after)
    await store.save_arrivals(conn, [*rows, *done])
    await apply_plan(conn, plan, book=book, now=now)
    return done


def _posted(receipt: Receipt, plan: Plan) -> tuple[Receipt, str]:
    """Plan what a receipt posts that is deep enough; return it as it stands then, and the event."""
    if receipt.value >= receipt.amount:
        posting = arrivals.posted(receipt, "final")
        plan.post(posting)
        postings, name = (posting.id,), "ReceiptFinal"
    else:
        transfers = arrivals.received_less(receipt)
        plan.post(*transfers)
        if not receipt.value:
            return arrivals.moved(receipt, ReceiptState.NOT_RECEIVED), "ReceiptNotReceived"
        postings, name = (transfers[-1].id,), "ReceiptReceivedLess"
    return arrivals.moved(receipt, ReceiptState.FINAL, postings=postings), name


async def mark_matched(
    conn: AsyncConnection,
    receipt_id: UUID,
    *,
    matched_to: str,
    by: str,
    reason: str = "",
    now: datetime,
) -> Receipt:
    """Take a final receipt out of what is waiting to be matched; its row stays locked.

    Call it before the posting that moves the receipt out of suspense, in the same transaction.

    Args:
        matched_to: what it pays, opaque: the id of an obligation or instruction.
        by: operator id, or ``system:<process>``.

    Raises:
        NotPossible: it is not final, or was matched before.
        ChainHalted: the block that holds it may be gone; people have to look first.
    """
    (after,) = await mark_many_matched(
        conn, {receipt_id: matched_to}, by=by, reason=reason, now=now
    )
    return after


async def mark_many_matched(
    conn: AsyncConnection,
    matched: Mapping[UUID, str],
    *,
    by: str,
    reason: str = "",
    now: datetime,
) -> list[Receipt]:
    """Do what `mark_matched` does for many receipts, all or none, in a fixed number of statements.

    Args:
        matched: by receipt, what it pays.

    Raises:
        UnknownRow: there is none with one of these ids; otherwise as `mark_matched`.
    """
    if not all(0 < len(to) <= MATCH_LENGTH_MAX for to in matched.values()):
        raise BadInput(f"a receipt is matched to 1 to {MATCH_LENGTH_MAX} characters")
    locked = await lock_receipts(conn, matched)
    if len(locked) != len(matched):
        missing = min(matched.keys() - {receipt.id for receipt in locked})
        raise UnknownRow(f"there is no receipt {missing}", where="custody")
    for chain in sorted({receipt.chain for receipt in locked}):
        await require_running(conn, chain)
    steps = [(receipt, _matched(receipt, matched[receipt.id])) for receipt in locked]
    await store.save_arrivals(conn, [after for _, after in steps])
    await record(
        conn,
        [
            arrivals.event(before, after, "ReceiptMatched", at=now, actor=by, reason=reason)
            for before, after in steps
        ],
    )
    return [after for _, after in steps]


def _matched(receipt: Receipt, to: str) -> Receipt:
    if receipt.state is not ReceiptState.FINAL:
        raise NotPossible(
            f"receipt {receipt.id} is {receipt.state}, not final",
            where=receipt.matched_to,
            remedy="Wait until it is final; what is matched cannot be matched again",
        )
    return arrivals.moved(receipt, ReceiptState.MATCHED, matched_to=to)


async def mark_unmatched(
    conn: AsyncConnection, receipt_id: UUID, *, by: str, reason: str, now: datetime
) -> Receipt:
    """Let a matched receipt wait again; its row stays locked, its value is back in suspense by then.

    Raises:
        NotPossible: it is not matched, or its block has vanished.
        ChainHalted: the block that holds it may be gone; people have to look first.
    """
    receipt = await store.get_arrival(conn, Receipt, receipt_id, lock=True)
    await require_running(conn, receipt.chain)
    if receipt.state is not ReceiptState.MATCHED:
        raise NotPossible(f"receipt {receipt.id} is {receipt.state}, not matched")
    after = arrivals.moved(receipt, ReceiptState.FINAL, matched_to="")
    await store.save_arrival(conn, after)
    await record(
        conn, [arrivals.event(receipt, after, "ReceiptUnmatched", at=now, actor=by, reason=reason)]
    )
    return after


async def lock_receipts(conn: AsyncConnection, ids: Collection[UUID]) -> list[Receipt]:
    """Lock receipts, by id, until the transaction ends: whoever matches many locks them first."""
    return await store.lock_arrivals(conn, Receipt, ids, set(ReceiptState))


async def list_nobodys(conn: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Return which of these receipts lie at an address that was withheld since (`custody.skipped`).

    A database that was set back had given it out a second time: whose they are people have to say.
    """
    return await store.list_withheld(conn, ids)


async def get_receipt(conn: AsyncConnection, receipt_id: UUID) -> Receipt:
    """Return a receipt.

    Raises:
        UnknownRow: there is none with that id.
    """
    return await store.get_arrival(conn, Receipt, receipt_id)


async def list_receipts(
    conn: AsyncConnection,
    *,
    chain: str | None = None,
    state: ReceiptState | None = None,
    party: str | None = None,
    after: UUID | None = None,
    limit: int = store.PAGE_MAX,
) -> list[Receipt]:
    """Return a page of receipts in the order in which they were first seen."""
    return await store.list_arrivals(
        conn, Receipt, chain=chain, state=state, party=party, after=after, limit=limit
    )


async def explain(conn: AsyncConnection, receipt_id: UUID) -> list[DomainEvent]:
    """Return the life of a receipt, oldest event first."""
    return await list_history(conn, "receipt", receipt_id)
