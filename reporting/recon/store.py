"""Rows of reconciliation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, bindparam, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from kernel.rows import insert_new_rows
from reporting.recon.comparing import found_json, found_of, line_json, line_of
from reporting.recon.model import (
    Break,
    BreakKind,
    BreakState,
    Found,
    PlaceKind,
    Run,
)
from reporting.recon.tables import recon_break, recon_run

PAGE_MAX: Final = 500
_CHANGING: Final = (
    "amount",
    "text",
    "state",
    "seen_at",
    "assigned_to",
    "resolution",
    "resolved_by",
    "resolved_second",
    "resolved_amount",
    "resolved_at",
    "cleared_at",
)


async def insert_run(conn: AsyncConnection, run: Run, *, by: str) -> bool:
    """Write a run; False: the day's run is there already."""
    row = {
        "id": run.id,
        "book": run.book,
        "at": run.at,
        "slot": run.slot,
        "sequence": run.sequence,
        "result": str(run.result),
        "lines": [line_json(item) for item in run.lines],
        "found": [found_json(item) for item in run.found],
        "sha256": run.sha256,
        "by": by,
    }
    statement = insert(recon_run).values(**row).on_conflict_do_nothing().returning(recon_run.c.id)
    return (await conn.execute(statement)).one_or_none() is not None


async def find_slot(conn: AsyncConnection, book: int, slot: date) -> UUID | None:
    """Return the id of a day's run; None: there is none yet."""
    query = select(recon_run.c.id).where(recon_run.c.book == book, recon_run.c.slot == slot)
    found: UUID | None = await conn.scalar(query)
    return found


async def find_run(conn: AsyncConnection, run_id: UUID) -> Run | None:
    """Return a run; None: there is none of that id."""
    row = (await conn.execute(select(recon_run).where(recon_run.c.id == run_id))).one_or_none()
    return None if row is None else _run(row)


async def get_run(conn: AsyncConnection, run_id: UUID) -> Run:
    """Return a run.

    Raises:
        Refused: there is none.
    """
    found = await find_run(conn, run_id)
    if found is None:
        raise Refused(f"there is no reconciliation {run_id}")
    return found


async def list_runs(
    conn: AsyncConnection, book: int, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[Run]:
    """Return runs, the newest first; *after* is (at, id) of the last one seen."""
    query = select(recon_run).where(recon_run.c.book == book)
    if after is not None:
        query = query.where(tuple_(recon_run.c.at, recon_run.c.id) < after)
    ordered = query.order_by(recon_run.c.at.desc(), recon_run.c.id.desc())
    return [_run(row) for row in await conn.execute(ordered.limit(min(limit, PAGE_MAX)))]


async def lock_standing(conn: AsyncConnection, book: int) -> list[Break]:
    """Lock and return the breaks that are not over, by id."""
    query = (
        select(recon_break)
        .where(recon_break.c.book == book, recon_break.c.state != str(BreakState.CLEARED))
        .order_by(recon_break.c.id)
        .with_for_update()
    )
    return [_break(row) for row in await conn.execute(query)]


async def get_break(conn: AsyncConnection, break_id: UUID, *, lock: bool = False) -> Break:
    """Return a break, its row locked if it is to be changed.

    Raises:
        Refused: there is none.
    """
    query = select(recon_break).where(recon_break.c.id == break_id)
    if lock:
        query = query.with_for_update()
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        raise Refused(f"there is no break {break_id}", remedy="`causeway recon breaks` shows them")
    return _break(row)


async def list_breaks(
    conn: AsyncConnection,
    book: int,
    *,
    states: Collection[BreakState],
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Break]:
    """Return breaks, the oldest first; *after* is (opened_at, id) of the last one seen."""
    query = select(recon_break).where(
        recon_break.c.book == book, recon_break.c.state.in_(sorted(states))
    )
    if after is not None:
        query = query.where(tuple_(recon_break.c.opened_at, recon_break.c.id) > after)
    ordered = query.order_by(recon_break.c.opened_at, recon_break.c.id)
    return [_break(row) for row in await conn.execute(ordered.limit(min(limit, PAGE_MAX)))]


async def insert_breaks(conn: AsyncConnection, items: Sequence[Break], run_id: UUID) -> set[UUID]:
    """Write breaks that are new; return the ids of those that no other run has written meanwhile."""
    if not items:
        return set()
    rows = [
        {
            "id": item.id,
            "book": item.book,
            "key": item.found.key,
            "kind": str(item.found.kind),
            "place_kind": str(item.found.place_kind),
            "place": item.found.place,
            "asset": item.found.asset,
            "opened_at": item.opened_at,
            "opened_run": run_id,
            **_values(item),
        }
        for item in items
    ]
    return {UUID(str(key)) for key in await insert_new_rows(conn, recon_break, rows)}


async def write_breaks(conn: AsyncConnection, items: Sequence[Break]) -> None:
    """Write what may change of locked breaks."""
    if items:
        await conn.execute(
            update(recon_break)
            .where(recon_break.c.id == bindparam("of"))
            .values({name: bindparam(name) for name in _CHANGING}),
            [{"of": item.id, **_values(item)} for item in items],
        )


def _values(item: Break) -> Mapping[str, object]:
    first, second = item.resolved_by or (None, None)
    return {
        "amount": item.found.amount,
        "text": item.found.text,
        "state": str(item.state),
        "seen_at": item.seen_at,
        "assigned_to": item.assigned_to,
        "resolution": item.resolution,
        "resolved_by": first,
        "resolved_second": second,
        "resolved_amount": item.resolved_amount,
        "resolved_at": item.resolved_at,
        "cleared_at": item.cleared_at,
    }


def _run(row: Row[Any]) -> Run:
    return Run(
        id=row.id,
        book=row.book,
        at=row.at,
        slot=row.slot,
        sequence=row.sequence,
        lines=tuple(line_of(item) for item in row.lines),
        found=tuple(found_of(item) for item in row.found),
        sha256=row.sha256,
    )


def _break(row: Row[Any]) -> Break:
    return Break(
        id=row.id,
        book=row.book,
        found=Found(
            key=row.key,
            kind=BreakKind(row.kind),
            place_kind=PlaceKind(row.place_kind),
            place=row.place,
            asset=row.asset,
            amount=row.amount,
            text=row.text,
        ),
        state=BreakState(row.state),
        opened_at=row.opened_at,
        seen_at=row.seen_at,
        assigned_to=row.assigned_to,
        resolution=row.resolution,
        resolved_by=None if row.resolved_by is None else (row.resolved_by, row.resolved_second),
        resolved_amount=row.resolved_amount,
        resolved_at=row.resolved_at,
        cleared_at=row.cleared_at,
    )
