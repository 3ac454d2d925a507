"""Reads of settlement for other rooms: runs, instructions, obligations, holds it keeps open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import list_history
from settlement import calculation_store, cycle_store, instruction_store, release_store, store
from settlement.calculation import calculate_set
from settlement.model import (
    Calculation,
    Cycle,
    Instruction,
    InstructionState,
    Obligation,
    ObligationState,
    Run,
    RunState,
)
from settlement.netting.bilateral import calculate
from settlement.steps import CYCLE
from settlement.store import PAGE_MAX
from trading.terms.model import Rail


async def get_run(conn: AsyncConnection, run_id: UUID) -> Run:
    """Return a run."""
    return await store.get_run(conn, run_id)


async def list_runs(
    conn: AsyncConnection,
    book: int,
    states: Collection[RunState] = tuple(RunState),
    *,
    after: tuple[date, UUID] | None = None,
    limit: int = PAGE_MAX,
) -> list[Run]:
    """Return a page of runs in the given states, by value date and id."""
    return await store.list_runs(conn, book, states, after=after, limit=limit)


def every_run(conn: AsyncConnection, book: int, states: Collection[RunState]) -> AsyncIterator[Run]:
    """Give every run in the given states, by value date and id, a page at a time."""
    return store.every_run(conn, book, states)


async def get_calculation(conn: AsyncConnection, run_id: UUID, version: int) -> Calculation:
    """Return a stored version of a run."""
    return await calculation_store.get_calculation(conn, run_id, version)


async def list_run_instructions(conn: AsyncConnection, run_id: UUID) -> list[Instruction]:
    """Return the instructions of a sealed run."""
    return await instruction_store.list_instructions(conn, run_id=run_id)


async def list_obligations(
    conn: AsyncConnection,
    book: int,
    states: Collection[ObligationState] = tuple(ObligationState),
    *,
    party: str | None = None,
    due_by: date | None = None,
    after: tuple[date, UUID] | None = None,
    limit: int = PAGE_MAX,
) -> list[Obligation]:
    """Return a page of obligations in the given states, by value date and id."""
    return await store.list_obligations(
        conn, book, states, party=party, due_by=due_by, after=after, limit=limit
    )


def every_obligation(
    conn: AsyncConnection, book: int, states: Collection[ObligationState]
) -> AsyncIterator[Obligation]:
    """Give every obligation in the given states, by value date and id, a page at a time."""
    return store.every_obligation(conn, book, states)


async def list_obligations_of(conn: AsyncConnection, deal_id: UUID) -> list[Obligation]:
    """Return the obligations of a deal, by leg."""
    return await store.list_obligations_of(conn, deal_id)


async def list_held_instructions(conn: AsyncConnection, book: int) -> list[Instruction]:
    """Return the instructions whose holds are open, each with the amount that is held.

    Book settlements that are accepted and not yet settled, and payments whose coins are held.
    """
    accepted = await instruction_store.list_instructions(
        conn, book=book, states={InstructionState.RELEASED}, rail=Rail.BOOK
    )
    funded = await instruction_store.list_instructions(
        conn, book=book, states={InstructionState.FUNDED}
    )
    marks = await release_store.list_earmarks(conn, [i.id for i in funded], open_only=True)
    held = {mark.instruction_id: mark.amount for mark in marks}
    return [*accepted, *(replace(item, amount=held[item.id]) for item in funded)]


async def replay(conn: AsyncConnection, run_id: UUID, version: int) -> Calculation:
    """Calculate a stored version again from its stored inputs: it must come out the same."""
    run = await store.get_run(conn, run_id)
    inputs = await calculation_store.get_inputs(conn, run_id, version)
    if inputs.rules is None:
        return calculate(
            inputs.obligations, inputs.agreements, value_date=run.value_date, version=version
        )
    return calculate_set(
        inputs.obligations, inputs.rules, value_date=run.value_date, version=version
    )


async def get_cycle(conn: AsyncConnection, cycle_id: UUID) -> Cycle:
    """Return a cycle."""
    return await cycle_store.get_cycle(conn, cycle_id)


async def find_cycle(
    conn: AsyncConnection, book: int, value_date: date, window: str
) -> Cycle | None:
    """Return the cycle of a slot, if it was opened."""
    return await cycle_store.find_cycle(conn, book, value_date, window)


async def list_cycles(
    conn: AsyncConnection, book: int, *, since: date | None = None, limit: int = 100
) -> list[Cycle]:
    """Return the newest cycles, the newest cut-off first."""
    return await cycle_store.list_cycles(conn, book, since=since, limit=limit)


async def count_left(conn: AsyncConnection, cycle_id: UUID) -> int:
    """Return how many obligations were due when a cycle was opened beyond those that it took."""
    opened = await list_history(conn, CYCLE, cycle_id)
    return int(opened[0].payload.get("left", 0)) if opened else 0


async def list_cycle_runs(conn: AsyncConnection, cycle_id: UUID) -> list[Run]:
    """Return the runs of a cycle, by party and netting set."""
    return await store.list_cycle_runs(conn, cycle_id)


async def list_calculations(
    conn: AsyncConnection, runs: Collection[Run]
) -> dict[UUID, Calculation]:
    """Return the newest version of each run, by its id."""
    return await calculation_store.list_calculations(conn, runs)


async def list_live_cycles(conn: AsyncConnection, book: int, *, limit: int) -> list[UUID]:
    """Return the cycles that have something left to do, the oldest cut-off first."""
    return await release_store.list_live_cycles(conn, book, limit=limit)


async def list_instructions_of_runs(
    conn: AsyncConnection, run_ids: Collection[UUID]
) -> list[Instruction]:
    """Return the instructions of sealed runs, oldest first."""
    return await release_store.list_instructions_of(conn, run_ids)


async def list_affirmations(conn: AsyncConnection, run_id: UUID) -> list[dict[str, Any]]:
    """Return what parties affirmed of a run and on what proof, oldest first, as plain values."""
    return await calculation_store.list_affirmations(conn, run_id)


async def list_inputs(conn: AsyncConnection, run_id: UUID, version: int) -> list[Obligation]:
    """Return what a version was calculated from, in the states of now."""
    kept = await calculation_store.get_inputs(conn, run_id, version)
    return await store.find_obligations(conn, {o.id for o in kept.obligations})


async def find_obligation(
    conn: AsyncConnection, obligation_id: UUID
) -> tuple[Obligation, UUID | None] | None:
    """Return an obligation and the run it is in, if there is one of that id."""
    return await store.find_obligation(conn, obligation_id)
