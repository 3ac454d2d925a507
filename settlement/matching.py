"""Receipts against instructions: what arrived at a settlement address pays what is awaited.

The address decides the party (`custody` hands out one settlement address per party); party and
asset decide the instruction, oldest first. Nothing is guessed: a receipt without an awaited
instruction stays in suspense, itemised, until somebody explains it.

* exact: the instruction is final;
* short: the instruction stays released with the rest open;
* over: the excess is the party's, in ``client:<party>:unapplied``; it is never sent back by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.deposit_model import Receipt, ReceiptState
from custody.receipts import list_receipts, mark_matched
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from ledger.model import Transfer, chain, transfer
from ledger.posting import ensure_accounts, post, require_applied
from settlement import store
from settlement.model import Direction, Instruction, InstructionState, Rail

SYSTEM: Final = "system:settlement"


@dataclass(frozen=True, slots=True)
class Match:
    """What a receipt pays: *applied* of the instruction, *excess* beyond it."""

    receipt_id: UUID
    instruction: Instruction
    applied: int
    excess: int

    @property
    def completes(self) -> bool:
        """Tell whether nothing of the instruction is left."""
        return self.applied == self.instruction.remaining


def find_match(receipt: Receipt, awaited: Sequence[Instruction]) -> Match | None:
    """Return what *receipt* pays among *awaited* (oldest first); None when nothing fits."""
    for item in awaited:
        fits = (
            item.party == receipt.party
            and item.asset == receipt.asset
            and item.direction is Direction.RECEIVE
            and item.rail is Rail.EVM
            and item.remaining > 0
        )
        if fits:
            applied = min(receipt.amount, item.remaining)
            return Match(receipt.id, item, applied, receipt.amount - applied)
    return None


async def match_receipts(conn: AsyncConnection, *, book: int, now: datetime) -> Match | None:
    """Match the oldest matchable receipt, and post it; None when there is nothing to match.

    One receipt a transaction: the posting is the last thing in it that could wait.
    """
    awaited = await store.list_instructions(
        conn, book=book, states={InstructionState.RELEASED}, lock=True
    )
    for receipt in await list_receipts(conn, state=ReceiptState.FINAL):
        match = find_match(receipt, awaited)
        if match is not None:
            await _apply(conn, book, receipt, match, now)
            return match
    return None


def matching_transfers(receipt: Receipt, match: Match) -> list[Transfer]:
    """Return the postings of a match: suspense empties into the receivable, excess apart."""
    suspense = f"suspense:{match.instruction.rail}"
    parts = [
        (f"receivable:{match.instruction.party}:netted", match.applied, "matched"),
        (f"client:{match.instruction.party}:unapplied", match.excess, "excess"),
    ]
    return [
        transfer(
            derive_id(receipt.first_seen_at, "match", receipt.id, code),
            suspense,
            credit,
            amount,
            receipt.asset,
            code=f"settlement.receipt.{code}",
            correlation=match.instruction.id,
            reference=str(receipt.id),
        )
        for credit, amount, code in parts
        if amount > 0
    ]


async def _apply(
    conn: AsyncConnection, book: int, receipt: Receipt, match: Match, now: datetime
) -> None:
    item = match.instruction
    await mark_matched(conn, receipt.id, matched_to=str(item.id), by=SYSTEM, now=now)
    await store.insert_match(
        conn, receipt.id, item.id, applied=match.applied, excess=match.excess, now=now
    )
    state = InstructionState.FINAL if match.completes else InstructionState.RELEASED
    evidence = f"receipt {receipt.id}"
    await store.move_instruction(
        conn, item, state, applied=item.applied + match.applied, evidence=evidence
    )
    event = DomainEvent(
        entity_type="settlement-instruction",
        entity_id=item.id,
        version=await next_version(conn, "settlement-instruction", item.id),
        name="ReceiptMatched",
        at=now,
        actor=SYSTEM,
        reason=evidence,
        from_state=item.state,
        to_state=state,
        payload={"applied": str(match.applied), "excess": str(match.excess)},
    )
    await record(conn, [event])
    transfers = matching_transfers(receipt, match)
    await ensure_accounts(
        conn, book, {(p, t.asset) for t in transfers for p in (t.debit, t.credit)}
    )
    require_applied(await post(conn, book, chain(*transfers)))
