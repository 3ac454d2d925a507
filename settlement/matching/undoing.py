"""A match that does not stand any more: the row, the instruction, and what reverses its postings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.model import Transfer
from settlement import instruction_store
from settlement import store as run_store
from settlement.matching import store
from settlement.matching.model import ReceiptMatch
from settlement.matching.postings import undoing_transfers
from settlement.model import Instruction, InstructionState, Run, RunState
from settlement.steps import Applied, Why, record_run, step_applied


async def lock_instructions(
    conn: AsyncConnection, ids: set[UUID], why: Why, *, book: int | None = None
) -> dict[UUID, Instruction]:
    """Lock instructions, their runs before them; a final run among them is released again."""
    known = await instruction_store.list_instructions(conn, book=book, only=ids)
    for run in await lock_runs(conn, known):
        if run.state is RunState.FINAL:
            await run_store.move_run(conn, run, RunState.RELEASED, version=run.version)
            await record_run(conn, run, "RunReopened", RunState.RELEASED, why)
    locked = await instruction_store.list_instructions(conn, book=book, only=ids, lock=True)
    return {item.id: item for item in locked}


async def lock_runs(conn: AsyncConnection, items: Sequence[Instruction]) -> list[Run]:
    """Lock the runs of instructions, by id."""
    return [await run_store.lock_run(conn, run_id) for run_id in sorted({i.run_id for i in items})]


async def undo(
    conn: AsyncConnection,
    matches: Sequence[ReceiptMatch],
    items: dict[UUID, Instruction],
    why: Why,
    *,
    name: str,
    second: str | None = None,
) -> list[Transfer]:
    """Undo matches that stand, and return what is to be posted.

    Args:
        items: their instructions, locked; each is replaced by what becomes of it.
        name: of the event of each instruction.
        second: the other of two people.
    """
    transfers: list[Transfer] = []
    steps: list[Applied] = []
    for match in matches:
        item = items[match.instruction_id]
        applied = item.applied - match.applied - match.charge
        after = replace(item, state=InstructionState.RELEASED, applied=applied)
        steps.append(Applied(item, after, why))
        items[item.id] = after
        transfers += undoing_transfers(match, item)
    await step_applied(conn, steps, name=name)
    await store.undo_matches(
        conn,
        [match.id for match in matches],
        by=why.by,
        second=second,
        reason=why.reason,
        now=why.now,
    )
    return transfers
