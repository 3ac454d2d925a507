"""Rows of instructions and of what receipts paid; private to the package."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.model import (
    INSTRUCTION_STATES,
    Direction,
    Instruction,
    InstructionState,
    Rail,
    ReceiptMatch,
)
from settlement.store import require_rows
from settlement.tables import instruction, receipt_match


async def insert_instructions(
    conn: AsyncConnection, book: int, items: Sequence[Instruction]
) -> None:
    """Insert the instructions of a sealed run."""
    if items:
        await conn.execute(
            insert(instruction),
            [
                {
                    "id": i.id,
                    "book": book,
                    "run_id": i.run_id,
                    "party": i.party,
                    "asset": i.asset,
                    "direction": i.direction,
                    "amount": i.amount,
                    "applied": i.applied,
                    "rail": i.rail,
                    "state": i.state,
                    "attempt": i.attempt,
                    "evidence": i.evidence,
                    "created_at": i.created_at,
                }
                for i in items
            ],
        )


async def list_instructions(
    conn: AsyncConnection,
    *,
    run_id: UUID | None = None,
    book: int | None = None,
    states: Collection[InstructionState] | None = None,
    direction: Direction | None = None,
    rail: Rail | None = None,
    only: Collection[UUID] | None = None,
    payouts: Collection[UUID] | None = None,
    lock: bool = False,
) -> list[Instruction]:
    """Return instructions, oldest first; locked, in that order, if asked for."""
    query = select(instruction).order_by(instruction.c.created_at, instruction.c.id)
    if run_id is not None:
        query = query.where(instruction.c.run_id == run_id)
    if book is not None:
        query = query.where(instruction.c.book == book)
    if states is not None:
        query = query.where(instruction.c.state.in_(states))
    if direction is not None:
        query = query.where(instruction.c.direction == direction)
    if rail is not None:
        query = query.where(instruction.c.rail == rail)
    if only is not None:
        query = query.where(instruction.c.id.in_(only))
    if payouts is not None:
        query = query.where(instruction.c.payout_id.in_(payouts))
    if lock:
        query = query.with_for_update()
    return [_instruction(row) for row in await conn.execute(query)]


async def move_instruction(
    conn: AsyncConnection, item: Instruction, state: InstructionState, **values: object
) -> None:
    """Move a locked instruction along an edge."""
    INSTRUCTION_STATES.require(item.state, state)
    result = await conn.execute(
        update(instruction)
        .where(instruction.c.id == item.id, instruction.c.state == item.state)
        .values(state=state, **values)
    )
    require_rows(result, 1, f"instruction {item.id}")


async def insert_match(conn: AsyncConnection, item: ReceiptMatch, now: datetime) -> None:
    """Record what a receipt paid; the receipt's row is locked, so it is recorded once."""
    await conn.execute(
        insert(receipt_match).values(
            receipt_id=item.receipt_id,
            epoch=item.epoch,
            instruction_id=item.instruction_id,
            applied=item.applied,
            excess=item.excess,
            first_seen_at=item.first_seen_at,
            at=now,
        )
    )


async def list_matches(
    conn: AsyncConnection,
    *,
    receipts: Collection[UUID] | None = None,
    instructions: Collection[UUID] | None = None,
    lock: bool = False,
) -> list[ReceiptMatch]:
    """Return the matches that stand, of these receipts or instructions."""
    t = receipt_match
    query = select(t).where(t.c.undone_at.is_(None)).order_by(t.c.receipt_id, t.c.epoch)
    if receipts is not None:
        query = query.where(t.c.receipt_id.in_(receipts))
    if instructions is not None:
        query = query.where(t.c.instruction_id.in_(instructions))
    if lock:
        query = query.with_for_update()
    return [_match(row) for row in await conn.execute(query)]


async def undo_match(conn: AsyncConnection, item: ReceiptMatch, now: datetime) -> None:
    """Mark that a locked match does not stand any more."""
    t = receipt_match
    result = await conn.execute(
        update(t)
        .where(t.c.receipt_id == item.receipt_id, t.c.epoch == item.epoch, t.c.undone_at.is_(None))
        .values(undone_at=now)
    )
    require_rows(result, 1, f"the match of receipt {item.receipt_id}")


def _instruction(row: Row[Any]) -> Instruction:
    return Instruction(
        id=row.id,
        run_id=row.run_id,
        party=row.party,
        asset=row.asset,
        direction=Direction(row.direction),
        amount=row.amount,
        applied=row.applied,
        rail=Rail(row.rail),
        state=InstructionState(row.state),
        attempt=row.attempt,
        payout_id=row.payout_id,
        standing_version=row.standing_version,
        evidence=row.evidence,
        created_at=row.created_at,
    )


def _match(row: Row[Any]) -> ReceiptMatch:
    return ReceiptMatch(
        receipt_id=row.receipt_id,
        epoch=row.epoch,
        instruction_id=row.instruction_id,
        applied=row.applied,
        excess=row.excess,
        first_seen_at=row.first_seen_at,
    )
