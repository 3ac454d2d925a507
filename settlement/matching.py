"""Receipts against instructions: what arrived at a settlement address pays what is awaited.

The address decides the party (`custody` hands out one settlement address per party). Among what the
party owes in the asset, the one instruction of which exactly this amount is open is paid; else the
oldest. Nothing else is guessed: a receipt without an awaited instruction stays in suspense,
itemised, until somebody explains it.

* exact: the instruction is final;
* short: the instruction stays released with the rest open;
* over: the excess is owed to the party, in ``payable:<party>:unapplied``, because the coins lie in a
  wallet of the house; it is never sent back by itself.

What rested on a block that vanished is undone by `settlement.reopening`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.deposit_model import Receipt, ReceiptState
from custody.model import rail_account
from custody.receipts import list_receipts, mark_matched
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import Transfer, chain, transfer
from ledger.posting import post, require_applied
from settlement import instruction_store
from settlement.model import Direction, Instruction, InstructionState, Rail, ReceiptMatch
from settlement.steps import SYSTEM, Why, step_instruction

RECEIPTS_PAGE: Final = 500
MATCHED: Final = "matched"
EXCESS: Final = "excess"


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
    fitting = [
        item
        for item in awaited
        if item.party == receipt.party
        and item.asset == receipt.asset
        and item.direction is Direction.RECEIVE
        and item.rail is Rail.EVM
        and item.state is InstructionState.RELEASED
        and item.remaining > 0
    ]
    if not fitting:
        return None
    exact = [item for item in fitting if item.remaining == receipt.value]
    item = exact[0] if len(exact) == 1 else fitting[0]
    applied = min(receipt.value, item.remaining)
    return Match(receipt.id, item, applied, receipt.value - applied)


async def match_receipts(conn: AsyncConnection, *, book: int, now: datetime) -> Match | None:
    """Match the oldest matchable receipt, and post it; None when there is nothing to match.

    One receipt a transaction: the posting is the last thing in it that could wait. A receipt whose
    earlier match still stands waits for `take_back`.
    """
    awaited = await instruction_store.list_instructions(
        conn,
        book=book,
        states={InstructionState.RELEASED},
        direction=Direction.RECEIVE,
        rail=Rail.EVM,
        lock=True,
    )
    if not awaited:
        return None
    # Read after the lock: whoever had it before has marked what it matched.
    after: UUID | None = None
    while page := await list_receipts(
        conn, state=ReceiptState.FINAL, after=after, limit=RECEIPTS_PAGE
    ):
        stale = await instruction_store.list_matches(conn, receipts={r.id for r in page})
        waiting = {match.receipt_id for match in stale}
        for receipt in page:
            match = None if receipt.id in waiting else find_match(receipt, awaited)
            if match is not None:
                await _apply(conn, book, receipt, match, now)
                return match
        after = page[-1].id
    return None


def matching_transfers(match: ReceiptMatch, instruction: Instruction) -> list[Transfer]:
    """Return the postings of a match: suspense empties into the receivable, excess apart."""
    credits_of = {
        MATCHED: f"receivable:{instruction.party}:netted",
        EXCESS: f"payable:{instruction.party}:unapplied",
    }
    return [
        transfer(
            match_id(match, code),
            rail_account(str(instruction.rail)),
            credits_of[code],
            amount,
            instruction.asset,
            code=f"settlement.receipt.{code}",
            correlation=instruction.id,
            reference=str(match.receipt_id),
        )
        for code, amount in parts(match)
    ]


def parts(match: ReceiptMatch) -> list[tuple[str, int]]:
    """Return what a match posts, as (code, amount)."""
    return [(c, a) for c, a in ((MATCHED, match.applied), (EXCESS, match.excess)) if a > 0]


def match_id(match: ReceiptMatch, code: str) -> UUID:
    """Return the id of a match's posting; a receipt that is mined again has other ones."""
    return derive_id(match.first_seen_at, "match", match.receipt_id, match.epoch, code)


async def _apply(
    conn: AsyncConnection, book: int, receipt: Receipt, match: Match, now: datetime
) -> None:
    item = match.instruction
    why = Why(SYSTEM, f"receipt {receipt.id}", now)
    await mark_matched(conn, receipt.id, matched_to=str(item.id), by=SYSTEM, now=now)
    kept = ReceiptMatch(
        receipt_id=receipt.id,
        epoch=receipt.epoch,
        instruction_id=item.id,
        applied=match.applied,
        excess=match.excess,
        first_seen_at=receipt.first_seen_at,
    )
    await instruction_store.insert_match(conn, kept, now)
    state = InstructionState.FINAL if match.completes else InstructionState.RELEASED
    applied = item.applied + match.applied
    await step_instruction(conn, item, state, why, name="ReceiptMatched", applied=applied)
    transfers = matching_transfers(kept, item)
    keys = {(path, t.asset) for t in transfers for path in (t.debit, t.credit)}
    await ensure_accounts(conn, book, keys, now=now)
    require_applied(await post(conn, book, chain(*transfers), now=now))
