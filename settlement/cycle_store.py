"""Rows of windows, cycles and statements; private to the package."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.rows import insert_rows
from registry.calendars import Calendar
from settlement.errors import CycleNotFound
from settlement.model import Cycle, ReleaseMethod, Statement, Threshold, Window
from settlement.tables import cycle, statement, window_policy

CYCLES_PAGE_MAX: Final = 500


async def insert_window(
    conn: AsyncConnection,
    item: Window,
    *,
    entered_by: str,
    approved_by: str,
    signature: bytes,
    at: datetime,
) -> bool:
    """Insert a version of a window's policy; False: somebody else has written that version."""
    row = {
        "book": item.book,
        "name": item.name,
        "version": item.version,
        "effective_from": item.effective_from,
        "active": item.active,
        "cut_off": item.cut_off,
        "timezone": item.timezone,
        "calendars": [str(calendar) for calendar in item.calendars],
        "affirm_minutes": item.affirm_minutes,
        "top_up_minutes": item.top_up_minutes,
        "release_minutes": item.release_minutes,
        "reaffirm_minutes": item.reaffirm_minutes,
        "seals_by_clock": item.seals_by_clock,
        "releases_by_clock": item.releases_by_clock,
        "method": item.method,
        "thresholds": {one.asset: str(one.units) for one in item.thresholds},
        "entered_by": entered_by,
        "approved_by": approved_by,
        "signature": signature,
        "at": at,
    }
    known = "ON CONFLICT DO NOTHING"
    return await insert_rows(conn, window_policy, [row], known=known) == 1


async def list_windows(conn: AsyncConnection, book: int, name: str | None = None) -> list[Window]:
    """Return every version of every window's policy, or of one window's, by name and version."""
    t = window_policy
    query = select(t).where(t.c.book == book).order_by(t.c.name, t.c.version)
    if name is not None:
        query = query.where(t.c.name == name)
    return [_window(row) for row in await conn.execute(query)]


async def find_window(conn: AsyncConnection, book: int, name: str, *, on: date) -> Window | None:
    """Return the newest version that has begun by a business date."""
    t = window_policy
    row = (
        await conn.execute(
            select(t)
            .where(t.c.book == book, t.c.name == name, t.c.effective_from <= on)
            .order_by(t.c.version.desc())
            .limit(1)
        )
    ).first()
    return None if row is None else _window(row)


async def get_window(conn: AsyncConnection, book: int, name: str, version: int) -> Window:
    """Return one version of a policy, which must exist."""
    t = window_policy
    row = (
        await conn.execute(
            select(t).where(t.c.book == book, t.c.name == name, t.c.version == version)
        )
    ).one()
    return _window(row)


async def insert_cycle(conn: AsyncConnection, item: Cycle) -> bool:
    """Insert a cycle unless its slot has one; tell whether it was new."""
    row = {
        "id": item.id,
        "book": item.book,
        "value_date": item.value_date,
        "window": item.window,
        "window_version": item.window_version,
        "cutoff_at": item.cutoff_at,
        "affirm_until": item.affirm_until,
        "top_up_until": item.top_up_until,
        "release_at": item.release_at,
        "created_at": item.created_at,
    }
    return await insert_rows(conn, cycle, [row], known="ON CONFLICT DO NOTHING") == 1


async def get_cycle(conn: AsyncConnection, cycle_id: UUID, *, lock: bool = False) -> Cycle:
    """Return a cycle, locked if asked."""
    query = select(cycle).where(cycle.c.id == cycle_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).first()
    if row is None:
        raise CycleNotFound(f"there is no settlement cycle {cycle_id}")
    return _cycle(row)


async def find_cycle(
    conn: AsyncConnection, book: int, value_date: date, window: str
) -> Cycle | None:
    """Return the cycle of a slot, if it was opened."""
    row = (
        await conn.execute(
            select(cycle).where(
                cycle.c.book == book, cycle.c.value_date == value_date, cycle.c.window == window
            )
        )
    ).first()
    return None if row is None else _cycle(row)


async def list_cycles(
    conn: AsyncConnection, book: int, *, since: date | None = None, limit: int = CYCLES_PAGE_MAX
) -> list[Cycle]:
    """Return the newest cycles, the newest cut-off first."""
    query = select(cycle).where(cycle.c.book == book)
    if since is not None:
        query = query.where(cycle.c.value_date >= since)
    rows = await conn.execute(
        query.order_by(cycle.c.cutoff_at.desc(), cycle.c.id).limit(min(limit, CYCLES_PAGE_MAX))
    )
    return [_cycle(row) for row in rows]


async def insert_statement(conn: AsyncConnection, item: Statement) -> None:
    """Keep a statement for good; its run is locked, so nobody else writes the same."""
    await conn.execute(
        insert(statement).values(
            run_id=item.run_id,
            version=item.version,
            party=item.party,
            content=item.content,
            sha256=item.sha256,
            issued_by=item.issued_by,
            at=item.at,
        )
    )


async def find_statement(
    conn: AsyncConnection, run_id: UUID, version: int, party: str
) -> Statement | None:
    """Return the statement of a version for a party, if it was issued."""
    t = statement
    row = (
        await conn.execute(
            select(t).where(t.c.run_id == run_id, t.c.version == version, t.c.party == party)
        )
    ).first()
    return None if row is None else _statement(row)


async def find_statement_by_hash(conn: AsyncConnection, sha256: str) -> Statement | None:
    """Return the statement with these bytes, if it was issued."""
    row = (await conn.execute(select(statement).where(statement.c.sha256 == sha256))).first()
    return None if row is None else _statement(row)


def _window(row: Row[Any]) -> Window:
    return Window(
        book=row.book,
        name=row.name,
        version=row.version,
        effective_from=row.effective_from,
        active=row.active,
        cut_off=row.cut_off,
        timezone=row.timezone,
        calendars=tuple(Calendar(name) for name in row.calendars),
        affirm_minutes=row.affirm_minutes,
        top_up_minutes=row.top_up_minutes,
        release_minutes=row.release_minutes,
        reaffirm_minutes=row.reaffirm_minutes,
        seals_by_clock=row.seals_by_clock,
        releases_by_clock=row.releases_by_clock,
        method=ReleaseMethod(row.method),
        thresholds=tuple(
            Threshold(asset=asset, units=int(units))
            for asset, units in sorted(row.thresholds.items())
        ),
    )


def _cycle(row: Row[Any]) -> Cycle:
    return Cycle(
        id=row.id,
        book=row.book,
        value_date=row.value_date,
        window=row.window,
        window_version=row.window_version,
        cutoff_at=row.cutoff_at,
        affirm_until=row.affirm_until,
        top_up_until=row.top_up_until,
        release_at=row.release_at,
        created_at=row.created_at,
    )


def _statement(row: Row[Any]) -> Statement:
    return Statement(
        run_id=row.run_id,
        version=row.version,
        party=row.party,
        content=row.content,
        sha256=row.sha256,
        issued_by=row.issued_by,
        at=row.at,
    )
