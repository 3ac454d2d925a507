"""Money that went back after it was final: the desk, or the party, owes again.

History is never edited. What was settled stays settled, and a new obligation says what is owed since;
the next cycle settles it. Only where the party's payment is taken back before its run is final, the
match is undone: then the run waits for that party, and the desk's payment with it.

* Ours came back through the bank: `custody` posts Dr bank / Cr payable:open, and `record_returned` makes
  the obligation.
* Ours came back to a settlement address, or without our reference: two people say so (`take_returned`),
  Dr suspense / Cr payable:open.
* Theirs is recalled: `custody` posts Dr suspense:bank / Cr bank, `settle_recall` Dr receivable:open / Cr
  suspense:bank, or undoes the match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks.entry_model import BankReceipt
from custody.banks.payment_views import list_returned
from custody.banks.receipts import SUSPENSE, lock_bank_receipts, mark_bank_receipt_matched
from kernel.errors import BadInput, Refused
from kernel.ids import derive_id, stable_id
from ledger.accounts import ensure_accounts
from ledger.model import Transfer, transfer
from ledger.posting import post, require_applied
from registry.authority import signing_bytes
from registry.model import Operator
from registry.people import require_operator, require_second
from settlement import fail_store, instruction_store
from settlement import store as run_store
from settlement.evidence import open_recalls
from settlement.fail_model import PaymentReturn, ReturnKind
from settlement.matching import sources, store
from settlement.matching.by_hand import MAY_ENTER, MAY_SIGN
from settlement.matching.model import Incoming, ReceiptMatch
from settlement.matching.posting import lock_matchable
from settlement.matching.postings import accounts_of
from settlement.matching.rules import require_reason
from settlement.matching.undoing import lock_runs, undo
from settlement.model import (
    RETURN_LEG,
    Direction,
    Instruction,
    InstructionState,
    Obligation,
    RunState,
)
from settlement.steps import SYSTEM, Why, record_obligations

_DIRECTION: Final = {
    ReturnKind.RETURNED: Direction.PAY,
    ReturnKind.RECALLED: Direction.RECEIVE,
}


@dataclass(frozen=True, slots=True)
class Recall:
    """What became of a credit that a bank took back.

    Attributes:
        reopened: instructions that wait for the party again.
        returns: what is owed anew instead.
    """

    receipt_id: UUID
    reopened: tuple[Instruction, ...] = ()
    returns: tuple[PaymentReturn, ...] = ()


def returned_bytes(receipt: Incoming, instruction_id: UUID, reason: str) -> bytes:
    """Return what the second person signs: this receipt is that payment of ours, come back."""
    return signing_bytes(
        "settlement.returned",
        {
            "receipt": receipt.id,
            "epoch": receipt.epoch,
            "round": receipt.round,
            "asset": receipt.asset,
            "value": str(receipt.value),
            "instruction": instruction_id,
            "reason": reason,
        },
    )


async def record_returned(
    conn: AsyncConnection,
    *,
    book: int,
    payout_id: UUID,
    item_id: UUID,
    amount: int,
    reason: str,
    now: datetime,
) -> PaymentReturn | None:
    """Owe again what came back of a payment that `custody` has posted back already.

    Args:
        item_id: of the entry that brought it: once for ever.
        amount: what is owed again, in smallest units.

    Returns:
        None: it is known already, or the payment was none of settlement's.
    """
    items = await instruction_store.list_instructions(conn, book=book, payouts={payout_id})
    if not items or await fail_store.list_returns(conn, items={item_id}):
        return None
    why = Why(SYSTEM, reason, now)
    (made,) = await _owe_again(
        conn, book, ReturnKind.RETURNED, item_id, [(items[0], amount)], why, None
    )
    return made


async def take_up_returns(
    conn: AsyncConnection, *, book: int, now: datetime
) -> list[PaymentReturn]:
    """Owe again every payment of ours that a bank has brought back; what is known already is left."""
    made: list[PaymentReturn] = []
    after: UUID | None = None
    while page := await list_returned(conn, book, after=after):
        lines = {line.returned_entry: line for line in page if line.returned_entry is not None}
        known = {r.item_id for r in await fail_store.list_returns(conn, items=set(lines))}
        for entry, line in lines.items():
            if entry in known:
                continue
            new = await record_returned(
                conn,
                book=book,
                payout_id=line.payout_id,
                item_id=entry,
                amount=line.amount,
                reason=f"payment {line.end_to_end} came back {line.bank_reason}".strip(),
                now=now,
            )
            made += [] if new is None else [new]
        after = page[-1].returned_entry
    return made


async def take_returned(
    conn: AsyncConnection,
    receipt_id: UUID,
    instruction_id: UUID,
    *,
    book: int,
    by: Operator,
    second: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> PaymentReturn:
    """Let two people say that a receipt in suspense is a payment of ours that came back.

    Args:
        signature: of *second*, of `returned_bytes`.

    Raises:
        BadInput: another asset, or more came back than was paid.
        Refused: the receipt does not wait, or the instruction is no payment of ours that is final.
        SamePerson, NotAuthorised: see `registry.people`.
    """
    require_reason(reason)
    first = await require_operator(conn, by, *MAY_ENTER)
    item = await _lock_paid(conn, book, instruction_id)
    receipts = await lock_matchable(conn, {receipt_id}, by_people=True)
    if receipt_id not in receipts:
        raise Refused(f"receipt {receipt_id} does not wait to be matched")
    receipt = receipts[receipt_id]
    other = await require_second(
        conn,
        first,
        second,
        *MAY_SIGN,
        payload=returned_bytes(receipt, instruction_id, reason),
        signature=signature,
    )
    earlier = await fail_store.list_returns(conn, instructions={instruction_id})
    if receipt.asset != item.asset:
        raise BadInput(f"instruction {item.id} is of {item.asset}, not of {receipt.asset}")
    if receipt.value + sum(one.amount for one in earlier) > item.amount:
        raise BadInput(f"more than the {item.amount} of instruction {item.id} would have come back")
    why = Why(first.code, reason, now)
    (made,) = await _owe_again(
        conn, book, ReturnKind.RETURNED, receipt_id, [(item, receipt.value)], why, other.code
    )
    paid = {receipt: (str(made.id), item.party)}
    await sources.mark(conn, paid, by=first.code, reason=reason, now=now)
    await _post(conn, book, [_posting(made, receipt.suspense)], now)
    return made


async def settle_recall(conn: AsyncConnection, *, book: int, now: datetime) -> Recall | None:
    """Deal with the oldest credit that a bank took back after it was matched; None: there is none.

    A recall of which nobody knows what it takes back stays in suspense, itemised, for people.
    """
    for recall in await open_recalls(conn, book):
        if recall.recalls is None:
            continue
        known = await store.list_matches(conn, receipts={recall.recalls})
        ids = {match.instruction_id for match in known}
        runs = await lock_runs(conn, await instruction_store.list_instructions(conn, only=ids))
        locked = await instruction_store.list_instructions(conn, only=ids, lock=True)
        items = {item.id: item for item in locked}
        pair = {r.id: r for r in await lock_bank_receipts(conn, {recall.id, recall.recalls})}
        matches = await store.list_matches(conn, receipts={recall.recalls}, lock=True)
        if not matches and pair[recall.recalls].matched_to:
            # Something else than a match has taken it: people look.
            continue
        if pair[recall.id].matched_to or {m.instruction_id for m in matches} != ids:
            continue
        final = any(run.state is RunState.FINAL for run in runs)
        if final or (matches and pair[recall.recalls].value != recall.value):
            return await _owed_anew(conn, book, recall, matches, items, now)
        return await _reopen(conn, book, recall, matches, items, now)
    return None


async def _reopen(
    conn: AsyncConnection,
    book: int,
    recall: BankReceipt,
    matches: Sequence[ReceiptMatch],
    items: dict[UUID, Instruction],
    now: datetime,
) -> Recall:
    """Undo the match; receipt and recall explain each other, and nothing of them is in suspense."""
    assert recall.recalls is not None, "whoever calls has looked"
    why = Why(SYSTEM, f"the bank took back receipt {recall.recalls}", now)
    transfers: list[Transfer] = []
    if matches:
        transfers = await undo(conn, matches, items, why, name="ReceiptRecalled")
        await sources.put_back(
            conn, matches[0].rail, recall.recalls, by=SYSTEM, reason=why.reason, now=now
        )
    for one, other in ((recall.recalls, recall.id), (recall.id, recall.recalls)):
        await mark_bank_receipt_matched(
            conn, one, matched_to=str(other), by=SYSTEM, reason=why.reason, now=now
        )
    await _post(conn, book, transfers, now)
    return Recall(recall.recalls, reopened=tuple(items.values()))


async def _owed_anew(
    conn: AsyncConnection,
    book: int,
    recall: BankReceipt,
    matches: Sequence[ReceiptMatch],
    items: dict[UUID, Instruction],
    now: datetime,
) -> Recall:
    assert recall.recalls is not None, "whoever calls has looked"
    item = items[matches[0].instruction_id]
    why = Why(SYSTEM, f"the bank took back receipt {recall.recalls}", now)
    made = await _owe_again(
        conn, book, ReturnKind.RECALLED, recall.id, [(item, recall.value)], why, None
    )
    await mark_bank_receipt_matched(
        conn,
        recall.id,
        matched_to=str(made[0].id),
        party=item.party,
        by=SYSTEM,
        reason=why.reason,
        now=now,
    )
    await _post(conn, book, [_posting(one, SUSPENSE) for one in made], now)
    return Recall(recall.recalls, returns=tuple(made))


async def _owe_again(
    conn: AsyncConnection,
    book: int,
    kind: ReturnKind,
    item_id: UUID,
    owed: Sequence[tuple[Instruction, int]],
    why: Why,
    second: str | None,
) -> list[PaymentReturn]:
    """Make the obligations, due at once, and the rows that say where they come from."""
    made: list[PaymentReturn] = []
    for item, amount in owed:
        return_id = derive_id(why.now, "payment-return", item_id, item.id)
        obligation = Obligation(
            id=stable_id("returned-obligation", book, item_id, item.id),
            # Nothing else ever has this id: it stands where a deal's would.
            deal_id=return_id,
            leg=RETURN_LEG,
            party=item.party,
            asset=item.asset,
            amount=amount,
            direction=_DIRECTION[kind],
            value_date=why.now.date(),
            created_at=why.now,
        )
        await run_store.insert_obligations(conn, book, [obligation])
        await record_obligations(conn, [obligation], why)
        new = PaymentReturn(
            id=return_id,
            book=book,
            kind=kind,
            item_id=item_id,
            instruction_id=item.id,
            obligation_id=obligation.id,
            party=item.party,
            asset=item.asset,
            amount=amount,
            by=why.by,
            second=second,
            reason=why.reason,
            at=why.now,
        )
        await fail_store.insert_return(conn, new)
        made.append(new)
    return made


async def _lock_paid(conn: AsyncConnection, book: int, instruction_id: UUID) -> Instruction:
    found = await instruction_store.list_instructions(
        conn, book=book, only={instruction_id}, lock=True
    )
    if (
        not found
        or found[0].direction is not Direction.PAY
        or found[0].state is not InstructionState.FINAL
    ):
        raise Refused(
            f"instruction {instruction_id} is no payment of ours that is final",
            remedy="Only what was paid for good can come back",
        )
    return found[0]


def _posting(made: PaymentReturn, suspense: str) -> Transfer:
    if made.kind is ReturnKind.RETURNED:
        debit, credit = suspense, f"payable:{made.party}:open"
    else:
        debit, credit = f"receivable:{made.party}:open", suspense
    return transfer(
        derive_id(made.at, "payment-return.posted", made.id),
        debit,
        credit,
        made.amount,
        made.asset,
        code=f"settlement.{made.kind}",
        correlation=made.instruction_id,
        reference=str(made.obligation_id),
    )


async def _post(
    conn: AsyncConnection, book: int, transfers: Sequence[Transfer], now: datetime
) -> None:
    if transfers:
        named = [item for item in transfers if item.debit]
        await ensure_accounts(conn, book, accounts_of(named), now=now)
        require_applied(await post(conn, book, transfers, now=now))
