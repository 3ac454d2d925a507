"""What waits in ``suspense:bank``: listed, and marked by whoever explains it.

Settlement moves an item out of suspense in the same transaction in which it marks it matched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks import booking
from custody.banks import statement_store as store
from custody.banks.entry_model import (
    BANK_RECEIPT_STATES,
    BankReceipt,
    BankReceiptKind,
    BankReceiptState,
)
from custody.errors import NotPossible, UnknownRow
from kernel.errors import BadInput
from kernel.events import DomainEvent, list_history, record

ENTITY: Final = "bank-receipt"
SUSPENSE: Final = booking.SUSPENSE
MATCH_LENGTH_MAX: Final = 200


async def list_bank_receipts(
    conn: AsyncConnection,
    book: int,
    *,
    state: BankReceiptState | None = None,
    kinds: Collection[BankReceiptKind] = (BankReceiptKind.RECEIPT,),
    account: str | None = None,
    after: UUID | None = None,
    limit: int = store.PAGE_MAX,
) -> list[BankReceipt]:
    """Return a page of what came through banks, by id, which is by booking date.

    Args:
        kinds: credits, unless recalls and debits that nobody explains are asked for too.
        after: the last id of the page before.
    """
    return await store.list_receipts(
        conn, book, state=state, kinds=kinds, account=account, after=after, limit=limit
    )


async def get_bank_receipt(conn: AsyncConnection, receipt_id: UUID) -> BankReceipt:
    """Return a receipt.

    Raises:
        UnknownRow: there is none with that id.
    """
    return await store.get_receipt(conn, receipt_id)


async def lock_bank_receipts(
    conn: AsyncConnection, receipt_ids: Collection[UUID]
) -> list[BankReceipt]:
    """Lock receipts, by id, until the transaction ends: whoever matches many locks them first."""
    return await store.get_receipts(conn, receipt_ids, lock=True)


async def mark_bank_receipt_matched(
    conn: AsyncConnection,
    receipt_id: UUID,
    *,
    matched_to: str,
    party: str | None = None,
    by: str,
    reason: str = "",
    now: datetime,
) -> BankReceipt:
    """Take an item out of what is waiting to be matched; its row stays locked.

    Call it before the posting that moves it out of suspense, in the same transaction.

    Args:
        matched_to: what it pays, opaque: the id of an obligation or instruction.
        party: whose it turned out to be.
        by: operator id, or ``system:<process>``.

    Raises:
        NotPossible: it was matched before, or the bank has taken it back.
    """
    (after,) = await mark_bank_receipts_matched(
        conn, {receipt_id: (matched_to, party)}, by=by, reason=reason, now=now
    )
    return after


async def mark_bank_receipts_matched(
    conn: AsyncConnection,
    matched: Mapping[UUID, tuple[str, str | None]],
    *,
    by: str,
    reason: str = "",
    now: datetime,
) -> list[BankReceipt]:
    """Do what `mark_bank_receipt_matched` does for many, all or none, in a fixed number of statements.

    Args:
        matched: by receipt, what it pays and whose it turned out to be.

    Raises:
        UnknownRow: there is none with one of these ids; otherwise as `mark_bank_receipt_matched`.
    """
    if not all(0 < len(to) <= MATCH_LENGTH_MAX for to, _ in matched.values()):
        raise BadInput(f"a receipt is matched to 1 to {MATCH_LENGTH_MAX} characters")
    locked = await lock_bank_receipts(conn, matched)
    if len(locked) != len(matched):
        missing = min(matched.keys() - {receipt.id for receipt in locked})
        raise UnknownRow(f"there is no bank receipt {missing}")
    steps = [(receipt, _matched(receipt, *matched[receipt.id])) for receipt in locked]
    await _save(conn, steps, "BankReceiptMatched", by=by, reason=reason, now=now)
    return [after for _, after in steps]


async def mark_bank_receipt_unmatched(
    conn: AsyncConnection, receipt_id: UUID, *, by: str, reason: str, now: datetime
) -> BankReceipt:
    """Put a matched item back among what waits; its row stays locked.

    Raises:
        NotPossible: it is not matched.
    """
    receipt = await store.get_receipt(conn, receipt_id, lock=True)
    if receipt.state is not BankReceiptState.MATCHED:
        raise NotPossible(f"bank receipt {receipt.id} is {receipt.state}, not matched")
    after = replace(
        receipt, state=BankReceiptState.UNMATCHED, matched_to="", version=receipt.version + 1
    )
    await _save(conn, [(receipt, after)], "BankReceiptUnmatched", by=by, reason=reason, now=now)
    return after


async def explain_bank_receipt(conn: AsyncConnection, receipt_id: UUID) -> list[DomainEvent]:
    """Return the life of a receipt, oldest event first."""
    return await list_history(conn, ENTITY, receipt_id)


def receipt_event(
    before: BankReceipt | None,
    after: BankReceipt,
    name: str,
    *,
    by: str,
    reason: str = "",
    now: datetime,
) -> DomainEvent:
    """Return what happened to a receipt; no name and no number of an account is in it."""
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=after.id,
        version=after.version,
        name=name,
        at=now,
        actor=by,
        reason=reason,
        from_state=None if before is None else str(before.state),
        to_state=str(after.state),
        payload={
            "account": after.account,
            "asset": after.asset,
            "value": str(after.value),
            "kind": str(after.kind),
            "matched_to": after.matched_to,
        },
    )


def _matched(receipt: BankReceipt, to: str, party: str | None) -> BankReceipt:
    if receipt.state is not BankReceiptState.UNMATCHED:
        raise NotPossible(
            f"bank receipt {receipt.id} is {receipt.state}, not unmatched",
            where=receipt.matched_to,
            remedy="What is matched cannot be matched again; what went back is not there any more",
        )
    return replace(
        receipt,
        state=BankReceiptState.MATCHED,
        matched_to=to,
        party=party or receipt.party,
        version=receipt.version + 1,
    )


async def _save(
    conn: AsyncConnection,
    steps: Sequence[tuple[BankReceipt, BankReceipt]],
    name: str,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> None:
    for before, after in steps:
        BANK_RECEIPT_STATES.require(before.state, after.state)
    await store.update_receipts(conn, [after for _, after in steps])
    events = [receipt_event(old, new, name, by=by, reason=reason, now=now) for old, new in steps]
    await record(conn, events)
