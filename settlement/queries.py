"""Reads of settlement for other rooms: runs, instructions, obligations, holds it keeps open."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from settlement import instruction_store, store
from settlement.model import (
    Calculation,
    Instruction,
    InstructionState,
    Obligation,
    ObligationState,
    Rail,
    Run,
    RunState,
)
from settlement.netting import calculate


async def get_run(conn: AsyncConnection, run_id: UUID) -> Run:
    """Return a run."""
    return await store.get_run(conn, run_id)


async def list_runs(
    conn: AsyncConnection, book: int, states: Collection[RunState] = tuple(RunState)
) -> list[Run]:
    """Return runs in the given states, oldest first."""
    return await store.list_runs(conn, book, states)


async def get_calculation(conn: AsyncConnection, run_id: UUID, version: int) -> Calculation:
    """Return a stored version of a run."""
    return await store.get_calculation(conn, run_id, version)


async def list_run_instructions(conn: AsyncConnection, run_id: UUID) -> list[Instruction]:
    """Return the instructions of a sealed run."""
    return await instruction_store.list_instructions(conn, run_id=run_id)


async def list_obligations(
    conn: AsyncConnection, book: int, states: Collection[ObligationState] = tuple(ObligationState)
) -> list[Obligation]:
    """Return obligations in the given states, by value date."""
    return await store.list_obligations(conn, book, states)


async def list_held_instructions(conn: AsyncConnection, book: int) -> list[Instruction]:
    """Return the book instructions whose holds are open: accepted and not yet settled."""
    return await instruction_store.list_instructions(
        conn, book=book, states={InstructionState.RELEASED}, rail=Rail.BOOK
    )


async def replay(conn: AsyncConnection, run_id: UUID, version: int) -> Calculation:
    """Calculate a stored version again from its stored inputs: it must come out the same."""
    run = await store.get_run(conn, run_id)
    obligations, agreements = await store.get_inputs(conn, run_id, version)
    return calculate(obligations, agreements, value_date=run.value_date, version=version)
