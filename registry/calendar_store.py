"""Rows of kept calendars and cut-offs to values and back; private to the package."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.rows import insert_rows
from registry.calendar_tables import calendar_day, calendar_version, cutoff
from registry.calendars import KeptCalendar
from registry.holiday_model import Taken
from registry.rail_cutoffs_model import RailCutoff

_NEWEST = (
    select(calendar_version)
    .ext(distinct_on(calendar_version.c.calendar))
    .order_by(calendar_version.c.calendar, calendar_version.c.version.desc())
)
_CUTOFF_KEY = (cutoff.c.asset, cutoff.c.rail)
_CUTOFFS = (
    select(cutoff).ext(distinct_on(*_CUTOFF_KEY)).order_by(*_CUTOFF_KEY, cutoff.c.version.desc())
)


async def insert_calendar(conn: AsyncConnection, item: Taken) -> bool:
    """Write a version of a calendar; False: there is one of that number."""
    kept = item.calendar
    statement = upsert(calendar_version).values(
        calendar=kept.code,
        version=kept.version,
        first_day=kept.first_day,
        last_day=kept.last_day,
        weekend=sorted(kept.weekend),
        source=item.source,
        sha256=item.sha256,
        entered_by=item.entered_by,
        approved_by=item.approved_by,
        at=item.at,
    )
    if (await conn.execute(statement.on_conflict_do_nothing())).rowcount == 0:
        return False
    rows = [
        {"calendar": kept.code, "version": kept.version, "day": day, "name": name}
        for day, name in sorted(item.names.items())
    ]
    await insert_rows(conn, calendar_day, rows)
    return True


async def list_newest(conn: AsyncConnection, codes: Collection[str] | None = None) -> list[Taken]:
    """Return the newest version of calendars, of all unless some are named, by code."""
    query = _NEWEST
    if codes is not None:
        query = query.where(calendar_version.c.calendar.in_(codes))
    return await _with_days(conn, (await conn.execute(query)).all())


async def list_versions(conn: AsyncConnection, code: str) -> list[Taken]:
    """Return every version of a calendar, the oldest first."""
    query = select(calendar_version).where(calendar_version.c.calendar == code)
    rows = (await conn.execute(query.order_by(calendar_version.c.version))).all()
    return await _with_days(conn, rows)


async def insert_cutoff(
    conn: AsyncConnection, item: RailCutoff, *, entered_by: str, approved_by: str, at: datetime
) -> bool:
    """Write a version of a cut-off; False: there is one of that number."""
    statement = upsert(cutoff).values(
        asset=item.asset,
        rail=item.rail,
        version=item.version,
        local=item.local,
        zone=item.zone,
        entered_by=entered_by,
        approved_by=approved_by,
        at=at,
    )
    return (await conn.execute(statement.on_conflict_do_nothing())).rowcount == 1


async def list_cutoffs(
    conn: AsyncConnection, assets: Collection[str] | None = None
) -> list[RailCutoff]:
    """Return the newest version of every cut-off, by asset and rail."""
    query = _CUTOFFS
    if assets is not None:
        query = query.where(cutoff.c.asset.in_(assets))
    return [
        RailCutoff(
            asset=row.asset, rail=row.rail, version=row.version, local=row.local, zone=row.zone
        )
        for row in await conn.execute(query)
    ]


async def _with_days(conn: AsyncConnection, rows: Sequence[Row[Any]]) -> list[Taken]:
    wanted = [(row.calendar, row.version) for row in rows]
    if not wanted:
        return []
    days: dict[tuple[str, int], dict[date, str]] = {key: {} for key in wanted}
    query = select(calendar_day).where(
        calendar_day.c.calendar.in_({code for code, _ in wanted}),
        calendar_day.c.version.in_({version for _, version in wanted}),
    )
    for row in await conn.execute(query):
        if (row.calendar, row.version) in days:
            days[row.calendar, row.version][row.day] = row.name
    return [_taken(row, days[row.calendar, row.version]) for row in rows]


def _taken(row: Row[Any], names: Mapping[date, str]) -> Taken:
    return Taken(
        KeptCalendar(
            code=row.calendar,
            version=row.version,
            first_day=row.first_day,
            last_day=row.last_day,
            closed=frozenset(names),
            weekend=frozenset(row.weekend),
        ),
        names,
        row.source,
        row.sha256,
        row.entered_by,
        row.approved_by,
        row.at,
    )
