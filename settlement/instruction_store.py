"""Rows of instructions; private to the package."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Uuid, any_, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.rows import update_rows
from settlement.errors import ChangedMeanwhile
from settlement.model import (
    INSTRUCTION_STATES,
    Direction,
    Instruction,
    InstructionState,
)
from settlement.store import require_rows
from settlement.tables import instruction
from trading.terms.model import Rail


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
        query = query.where(instruction.c.id == any_(literal(sorted(only), ARRAY(Uuid))))
    if payouts is not None:
        query = query.where(instruction.c.payout_id == any_(literal(sorted(payouts), ARRAY(Uuid))))
    if lock:
        query = query.with_for_update()
    return [to_instruction(row) for row in await conn.execute(query)]


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


async def apply_to_instructions(
    conn: AsyncConnection, changed: Sequence[tuple[Instruction, Instruction]]
) -> None:
    """Write state, evidence and what is applied of locked instructions, each named once, before and after."""
    for before, after in changed:
        INSTRUCTION_STATES.require(before.state, after.state)
    rows = [
        {
            "id": after.id,
            "state": str(after.state),
            "applied": after.applied,
            "evidence": after.evidence,
        }
        for _, after in changed
    ]
    written = await update_rows(conn, instruction, rows)
    if written != len(rows):
        raise ChangedMeanwhile(f"{len(rows) - written} instructions are gone")


def to_instruction(row: Row[Any]) -> Instruction:
    """Return the instruction of a row."""
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
