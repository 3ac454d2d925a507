"""Rows of releases: plans, earmarks, and many instructions moved at once; private to the package."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Row, Text, Uuid, any_, exists, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.rows import insert_rows, update_rows
from settlement.errors import ChangedMeanwhile
from settlement.instruction_store import to_instruction
from settlement.model import LIVE, Direction, Instruction, InstructionState, RunState
from settlement.netting.model import Choice
from settlement.release_model import BookSettlement, Earmark, ReleasePlan
from settlement.release_tables import earmark, release_plan
from settlement.tables import cycle, instruction, run
from settlement.value_against_value import Cover
from trading.terms.model import Rail

UNFINISHED: Final = tuple(state for state in LIVE if state is not RunState.FINAL)
"""States of a run that has something left to do."""


async def insert_plan(conn: AsyncConnection, plan: ReleasePlan) -> None:
    """Keep a choice."""
    await conn.execute(
        insert(release_plan).values(
            id=plan.id,
            book=plan.book,
            scope=plan.scope,
            number=plan.number,
            method=plan.choice.method,
            input_hash=plan.input_hash,
            inputs=dict(plan.inputs),
            chosen={
                "whole": sorted(plan.choice.chosen),
                "partial": {k: str(v) for k, v in sorted(plan.choice.partial.items())},
            },
            value=plan.choice.value,
            bound=plan.choice.bound,
            gap_ppm=plan.choice.gap_ppm,
            by=plan.by,
            at=plan.at,
        )
    )


async def find_newest_plan(conn: AsyncConnection, scope: UUID) -> ReleasePlan | None:
    """Return the last choice of a scope; None before the first."""
    query = select(release_plan).where(release_plan.c.scope == scope)
    row = (await conn.execute(query.order_by(release_plan.c.number.desc()).limit(1))).first()
    return None if row is None else _plan(row)


async def list_plans(
    conn: AsyncConnection, *, scope: UUID | None = None, only: UUID | None = None
) -> list[ReleasePlan]:
    """Return plans, in the order of their numbers."""
    query = select(release_plan).order_by(release_plan.c.scope, release_plan.c.number)
    if scope is not None:
        query = query.where(release_plan.c.scope == scope)
    if only is not None:
        query = query.where(release_plan.c.id == only)
    return [_plan(row) for row in await conn.execute(query)]


async def insert_earmarks(conn: AsyncConnection, items: Sequence[Earmark]) -> None:
    """Keep what is set aside; one row for each attempt of an instruction."""
    await insert_rows(
        conn,
        earmark,
        [
            {
                "instruction_id": item.instruction_id,
                "attempt": item.attempt,
                "book": item.book,
                "plan_id": item.plan_id,
                "location": item.location,
                "asset": item.asset,
                "amount": item.amount,
                "hold_id": item.hold_id,
                "held_at": item.held_at,
                "cover": item.cover,
                "cover_detail": item.cover_detail,
                "ended_by": item.ended_by,
                "ended_at": item.ended_at,
            }
            for item in items
        ],
    )


async def list_earmarks(
    conn: AsyncConnection, instructions: Collection[UUID], *, open_only: bool = False
) -> list[Earmark]:
    """Return the earmarks of instructions, the newest attempt of each last."""
    wanted = literal(list(instructions), ARRAY(Uuid))
    query = select(earmark).where(earmark.c.instruction_id == any_(wanted))
    if open_only:
        query = query.where(earmark.c.ended_at.is_(None))
    query = query.order_by(earmark.c.instruction_id, earmark.c.attempt)
    return [_earmark(row) for row in await conn.execute(query)]


async def end_earmarks(
    conn: AsyncConnection,
    items: Mapping[tuple[UUID, int], tuple[Cover | None, str]],
    *,
    by: str,
    now: datetime,
) -> None:
    """Say of open earmarks on what ground each was released; None: it was let go.

    The caller has locked their instructions.
    """
    rows = [
        {
            "instruction_id": instruction_id,
            "attempt": attempt,
            "cover": cover,
            "cover_detail": detail,
            "ended_by": by,
            "ended_at": now,
        }
        for (instruction_id, attempt), (cover, detail) in items.items()
    ]
    key = ("instruction_id", "attempt")
    found = await update_rows(conn, earmark, rows, key=key) if rows else 0
    _require(found, len(rows), "earmarks")


async def lock_payments(
    conn: AsyncConnection,
    run_ids: Collection[UUID],
    states: Collection[InstructionState],
    *,
    only: Collection[UUID],
    limit: int,
    without: Collection[str] = (),
) -> list[Instruction]:
    """Lock payments of runs that have a payout of their own, oldest first, and return them.

    Args:
        states: they are in one of these.
        only: which ones, as far as they are of the runs.
        limit: the rest is left for another transaction.
        without: parties whose payments are left out.
    """
    query = select(instruction).where(
        instruction.c.run_id == any_(literal(list(run_ids), ARRAY(Uuid))),
        instruction.c.id == any_(literal(list(only), ARRAY(Uuid))),
        instruction.c.state.in_([str(state) for state in states]),
        instruction.c.direction == Direction.PAY,
        instruction.c.rail != Rail.BOOK,
        instruction.c.party.not_in(list(without)),
    )
    query = query.order_by(instruction.c.created_at, instruction.c.id).limit(limit)
    return [to_instruction(row) for row in await conn.execute(query.with_for_update())]


async def lock_receipts(
    conn: AsyncConnection,
    run_ids: Collection[UUID],
    *,
    parties: Collection[str] | None = None,
    states: Collection[InstructionState] | None = None,
    by_book: bool = True,
    limit: int | None = None,
) -> list[Instruction]:
    """Lock what parties pay in runs, oldest first, and return it; None: of all, in any state."""
    query = select(instruction).where(
        instruction.c.run_id == any_(literal(list(run_ids), ARRAY(Uuid))),
        instruction.c.direction == Direction.RECEIVE,
    )
    if parties is not None:
        query = query.where(instruction.c.party.in_(list(parties)))
    if states is not None:
        query = query.where(instruction.c.state.in_([str(state) for state in states]))
    if not by_book:
        query = query.where(instruction.c.rail != Rail.BOOK)
    query = query.order_by(instruction.c.created_at, instruction.c.id).limit(limit)
    return [to_instruction(row) for row in await conn.execute(query.with_for_update())]


async def lock_book_sides(
    conn: AsyncConnection, asked: Collection[BookSettlement]
) -> dict[BookSettlement, list[Instruction]]:
    """Lock every side of book settlements, oldest first, and return them by settlement."""
    sides: dict[BookSettlement, list[Instruction]] = {one: [] for one in asked}
    query = select(instruction).where(
        instruction.c.run_id == any_(literal(sorted({one.run_id for one in asked}), ARRAY(Uuid))),
        instruction.c.party == any_(literal(sorted({one.party for one in asked}), ARRAY(Text))),
        instruction.c.rail == Rail.BOOK,
    )
    query = query.order_by(instruction.c.created_at, instruction.c.id)
    for row in await conn.execute(query.with_for_update()):
        found = BookSettlement(row.run_id, row.party)
        if found in sides:  # Another party of the group may have one in the same run.
            sides[found].append(to_instruction(row))
    return sides


async def lock_scope(conn: AsyncConnection, scope: UUID) -> None:
    """Lock the cycle, or the run of before that has none: what plans for it waits here."""
    await conn.execute(select(cycle.c.id).where(cycle.c.id == scope).with_for_update())
    await conn.execute(
        select(run.c.id).where(run.c.id == scope, run.c.cycle_id.is_(None)).with_for_update()
    )


async def list_live_cycles(conn: AsyncConnection, book: int, *, limit: int) -> list[UUID]:
    """Return the cycles that have something left to do, the oldest cut-off first."""
    query = (
        select(cycle.c.id, cycle.c.cutoff_at)
        .join(run, run.c.cycle_id == cycle.c.id)
        .where(run.c.book == book, run.c.state.in_([str(state) for state in UNFINISHED]))
        .distinct()
        .order_by(cycle.c.cutoff_at, cycle.c.id)
        .limit(limit)
    )
    return [row.id for row in await conn.execute(query)]


async def list_sent(conn: AsyncConnection, book: int) -> list[tuple[UUID, UUID]]:
    """Return (run, payout) of every payment that is out and not final."""
    query = select(instruction.c.run_id, instruction.c.payout_id).where(
        instruction.c.book == book,
        instruction.c.state == InstructionState.RELEASED,
        instruction.c.payout_id.is_not(None),
    )
    return [(row.run_id, row.payout_id) for row in await conn.execute(query)]


async def list_done_runs(conn: AsyncConnection, book: int) -> list[UUID]:
    """Return the released runs of which no instruction is open."""
    still = exists().where(
        instruction.c.run_id == run.c.id, instruction.c.state != InstructionState.FINAL
    )
    query = select(run.c.id).where(run.c.book == book, run.c.state == RunState.RELEASED, ~still)
    return list((await conn.execute(query.order_by(run.c.id))).scalars())


async def list_instructions_of(
    conn: AsyncConnection, run_ids: Collection[UUID], *, lock: bool = False
) -> list[Instruction]:
    """Return every instruction of runs, oldest first; locked, in that order, if asked for."""
    wanted = literal(list(run_ids), ARRAY(Uuid))
    query = select(instruction).where(instruction.c.run_id == any_(wanted))
    query = query.order_by(instruction.c.created_at, instruction.c.id)
    if lock:
        query = query.with_for_update()
    return [to_instruction(row) for row in await conn.execute(query)]


async def update_instructions(conn: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write columns of many locked instructions, by ``id``; each row has the same columns."""
    found = await update_rows(conn, instruction, rows) if rows else 0
    _require(found, len(rows), "instructions")


def _require(found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise ChangedMeanwhile(f"{what} changed meanwhile: {found} of {wanted} rows were as read")


def _plan(row: Row[Any]) -> ReleasePlan:
    return ReleasePlan(
        id=row.id,
        book=row.book,
        scope=row.scope,
        number=row.number,
        choice=Choice(
            chosen=frozenset(row.chosen["whole"]),
            partial={key: int(value) for key, value in row.chosen["partial"].items()},
            method=row.method,
            value=row.value,
            bound=row.bound,
        ),
        input_hash=row.input_hash,
        inputs=row.inputs,
        by=row.by,
        at=row.at,
    )


def _earmark(row: Row[Any]) -> Earmark:
    return Earmark(
        instruction_id=row.instruction_id,
        attempt=row.attempt,
        book=row.book,
        plan_id=row.plan_id,
        location=row.location,
        asset=row.asset,
        amount=row.amount,
        hold_id=row.hold_id,
        held_at=row.held_at,
        cover=None if row.cover is None else Cover(row.cover),
        cover_detail=row.cover_detail,
        ended_by=row.ended_by,
        ended_at=row.ended_at,
    )
