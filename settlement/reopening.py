"""What rested on a block that vanished, found by name and undone.

It happens when a reorganisation goes deeper than the confirmation policy asked for. `custody` has
reversed its own postings by then; here a match or a finality still stands that has lost its ground.
`list_breaks` names every such mismatch; `take_back` releases the instruction again, and the run of a
final one with it. Deals that are settled stay so: what is owed again is the net, not the deal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.deposit_model import Receipt, ReceiptState
from custody.payout_model import Payout, PayoutState
from custody.payouts import every_payout
from custody.receipts import list_receipts
from ledger.posting import post, require_applied
from settlement import instruction_store, store
from settlement.evidence import open_recalls
from settlement.matching import store as match_store
from settlement.matching.model import ReceiptMatch
from settlement.matching.undoing import lock_instructions, undo
from settlement.model import (
    Break,
    BreakKind,
    Direction,
    Instruction,
    InstructionState,
    RunState,
)
from settlement.steps import SYSTEM, Why, step_instruction
from trading.terms.model import Rail

RECEIPTS_PAGE: Final = 500

UNMATCHED: Final = (
    ReceiptState.REVERSED,
    ReceiptState.ORPHANED,
    ReceiptState.INCLUDED,
    ReceiptState.NOT_RECEIVED,
    ReceiptState.FINAL,
)
"""States of a receipt in which nothing may rest on it."""

UNCONFIRMED: Final = frozenset(
    {
        PayoutState.SIGNED,
        PayoutState.CANCELLING,
        PayoutState.MINED,
        PayoutState.SECURITY_HOLD,
        PayoutState.CANCELLED,
        PayoutState.FAILED_ON_CHAIN,
    }
)
"""States in which a payout that was confirmed may be again, or end."""


async def take_back(conn: AsyncConnection, *, book: int, now: datetime) -> list[Instruction]:
    """Release again every instruction that rests on a block which vanished; return them.

    Of a receipt the match is reversed in the ledger: the party owes again, and what is mined again
    is matched again. Of a payment nothing is posted here: `custody` does that, and sends the same
    bytes again.
    """
    matches = [match for match, _ in await _find_stale(conn)]
    stale = {match.id for match in matches}
    unpaid = {item.id for item, _ in await _find_unpaid(conn, book)}
    why = Why(SYSTEM, "what an instruction rested on has vanished", now)
    ids = unpaid | {match.instruction_id for match in matches}
    items = await lock_instructions(conn, ids, why, book=book)
    # Read again: before the locks were ours, somebody may have taken some back, and matched anew.
    standing = [
        match
        for match in await match_store.list_matches(conn, receipts={m.receipt_id for m in matches})
        if match.id in stale and match.instruction_id in items
    ]
    why = Why(SYSTEM, "a receipt has vanished", now)
    transfers = await undo(conn, standing, items, why, name="ReceiptTakenBack") if standing else []
    for item in [items[key] for key in sorted(unpaid & items.keys())]:
        if item.state is InstructionState.FINAL:
            why = Why(SYSTEM, f"payout {item.payout_id} is not confirmed any more", now)
            await step_instruction(conn, item, InstructionState.RELEASED, why, applied=0)
            items[item.id] = replace(item, state=InstructionState.RELEASED, applied=0)
    if transfers:
        require_applied(await post(conn, book, transfers, now=now))
    return list(items.values())


async def list_breaks(conn: AsyncConnection, book: int) -> list[Break]:
    """Return every mismatch between settlement and what it rests on; empty is right."""
    breaks = [
        _break(BreakKind.RECEIPT_GONE, item, f"receipt {receipt.id} is {receipt.state}")
        for item, receipt in await _stale_instructions(conn, book)
    ]
    breaks += await _recalled(conn, book)
    breaks += [
        _break(BreakKind.PAYOUT_GONE, item, f"payout {payout.id} is {payout.state}")
        for item, payout in await _find_unpaid(conn, book)
    ]
    return breaks + await _held(conn, book) + await _exposed(conn, book)


async def _find_stale(conn: AsyncConnection) -> list[tuple[ReceiptMatch, Receipt]]:
    found: list[tuple[ReceiptMatch, Receipt]] = []
    for state in UNMATCHED:
        after: UUID | None = None
        while page := await list_receipts(conn, state=state, after=after, limit=RECEIPTS_PAGE):
            by_id = {receipt.id: receipt for receipt in page}
            matches = await match_store.list_matches(conn, receipts=set(by_id))
            found += [(match, by_id[match.receipt_id]) for match in matches]
            after = page[-1].id
    return found


async def _find_unpaid(conn: AsyncConnection, book: int) -> list[tuple[Instruction, Payout]]:
    """Return final payments whose payout is not confirmed any more."""
    payouts = {p.id: p async for p in every_payout(conn, book=book, states=UNCONFIRMED)}
    items = await instruction_store.list_instructions(
        conn, book=book, states={InstructionState.FINAL}, payouts=set(payouts)
    )
    return [(item, payouts[item.payout_id]) for item in items if item.payout_id is not None]


async def _stale_instructions(
    conn: AsyncConnection, book: int
) -> list[tuple[Instruction, Receipt]]:
    stale = await _find_stale(conn)
    items = await instruction_store.list_instructions(
        conn, book=book, only={match.instruction_id for match, _ in stale}
    )
    by_id = {item.id: item for item in items}
    return [
        (by_id[match.instruction_id], receipt)
        for match, receipt in stale
        if match.instruction_id in by_id
    ]


async def _recalled(conn: AsyncConnection, book: int) -> list[Break]:
    recalls = {item.recalls for item in await open_recalls(conn, book)} - {None}
    matches = await match_store.list_matches(conn, receipts={key for key in recalls if key})
    items = await instruction_store.list_instructions(
        conn, book=book, only={match.instruction_id for match in matches}
    )
    return [
        _break(BreakKind.RECEIPT_GONE, item, "the bank has taken back what it was paid with")
        for item in items
    ]


async def _held(conn: AsyncConnection, book: int) -> list[Break]:
    states = {PayoutState.SECURITY_HOLD}
    payouts = {p.id async for p in every_payout(conn, book=book, states=states)}
    items = await instruction_store.list_instructions(conn, book=book, payouts=payouts)
    return [
        _break(BreakKind.PAYOUT_HELD, item, f"payout {item.payout_id} is in security hold")
        for item in items
        if item.state is not InstructionState.FINAL
    ]


async def _exposed(conn: AsyncConnection, book: int) -> list[Break]:
    breaks = []
    async for run in store.every_run(conn, book, {RunState.RELEASED}):
        items = await instruction_store.list_instructions(conn, run_id=run.id, rail=Rail.EVM)
        breaks += [
            _break(
                BreakKind.EXPOSED, item, f"{item.party} has not paid what it owes in run {run.id}"
            )
            for item in find_exposed(items)
        ]
    return breaks


def find_exposed(items: Sequence[Instruction]) -> list[Instruction]:
    """Return the payments of a run that are out although their party still owes in it."""
    owing = {
        i.party
        for i in items
        if i.direction is Direction.RECEIVE and i.state is not InstructionState.FINAL
    }
    out = {InstructionState.RELEASED, InstructionState.FINAL}
    return [
        i for i in items if i.direction is Direction.PAY and i.state in out and i.party in owing
    ]


def _break(kind: BreakKind, item: Instruction, detail: str) -> Break:
    return Break(
        kind=kind,
        instruction_id=item.id,
        party=item.party,
        asset=item.asset,
        amount=item.amount,
        detail=detail,
    )
