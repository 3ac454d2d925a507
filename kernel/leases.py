"""Leases and fences: who may work on a row, and how a late worker is kept out.

A worker claims rows for a while. Each claim raises the row's fence; every later write of that
worker repeats ``WHERE fence = :mine``. A worker that was paused beyond its lease wakes up to find
the fence raised, and its write changes nothing (`StaleFence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    CursorResult,
    Row,
    Table,
    and_,
    any_,
    bindparam,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.db import metadata
from kernel.errors import StaleFence
from kernel.tables import lease

CLAIM_MAX: Final = 500
"""Rows claimed at once, at most."""


async def claim(
    conn: AsyncConnection,
    table: Table,
    *,
    where: ColumnElement[bool],
    order_by: Sequence[ColumnElement[Any]],
    holder: str,
    now: datetime,
    lease_for: timedelta,
    limit: int = CLAIM_MAX,
) -> list[Row[Any]]:
    """Claim up to *limit* free rows of *table* and return them, fence raised, in order.

    *table* has the columns of `kernel.db.lease_columns` and a single-column primary key. Rows that
    another transaction has locked are skipped.
    """
    key = next(iter(table.primary_key.columns))
    free = or_(table.c.lease_until.is_(None), table.c.lease_until <= now)
    chosen = (
        select(key)
        .where(and_(where, free))
        .order_by(*order_by)
        .limit(min(limit, CLAIM_MAX))
        .with_for_update(skip_locked=True)
    )
    keys = (await conn.execute(chosen)).scalars().all()
    if not keys:
        return []
    # As an array, so that one statement is prepared however many there are.
    wanted = bindparam("claimed", type_=ARRAY(key.type))
    rows = await conn.execute(
        update(table)
        .where(key == any_(wanted))
        .values(lease_holder=holder, lease_until=now + lease_for, fence=table.c.fence + 1)
        .returning(table),
        {"claimed": keys},
    )
    place = {value: number for number, value in enumerate(keys)}
    return sorted(rows, key=lambda row: place[getattr(row, key.name)])


def require_one(result: CursorResult[Any], what: str) -> None:
    """Refuse to go on when a fenced write met no row: another worker has taken over."""
    if result.rowcount != 1:
        raise StaleFence(f"{what} was taken over by another worker")


async def take(
    conn: AsyncConnection, name: str, *, holder: str, now: datetime, lease_for: timedelta
) -> int | None:
    """Take (or renew) the named lease and return its fence; None while someone else holds it."""
    await conn.execute(insert(lease).values(name=name).on_conflict_do_nothing())
    row = (await conn.execute(select(lease).where(lease.c.name == name).with_for_update())).one()
    if row.lease_holder not in {None, holder} and row.lease_until > now:
        return None
    renewed = row.lease_holder == holder and row.lease_until > now
    fence = int(row.fence) if renewed else int(row.fence) + 1
    await conn.execute(
        update(lease)
        .where(lease.c.name == name)
        .values(lease_holder=holder, lease_until=now + lease_for, fence=fence)
    )
    return fence


async def wait_for(conn: AsyncConnection, name: str) -> None:
    """Wait until no other transaction is at what *name* stands for; held until this one ends.

    A row of its own is locked, so it is seen, timed out and found in a deadlock as any other lock is.
    """
    await conn.execute(insert(lease).values(name=name).on_conflict_do_nothing())
    await conn.execute(select(lease.c.name).where(lease.c.name == name).with_for_update())


async def give_back(conn: AsyncConnection, name: str, *, holder: str, fence: int) -> None:
    """End the named lease early, if it is still ours."""
    await conn.execute(
        update(lease)
        .where(lease.c.name == name, lease.c.lease_holder == holder, lease.c.fence == fence)
        .values(lease_holder=None, lease_until=None)
    )


def leased_tables() -> list[Table]:
    """Return every table of this process whose rows are leased, in the order of their names."""
    wanted = {"lease_holder", "lease_until"}
    found = [table for table in metadata.tables.values() if wanted <= set(table.columns.keys())]
    return sorted(found, key=lambda table: table.fullname)


async def give_back_rows(conn: AsyncConnection, table: Table, *, mark: str, now: datetime) -> int:
    """End every lease on rows of *table* whose holder's name ends with *mark*; return how many.

    For a process that stops: the holder and the fence stay as they are, so whatever of it should still
    write is kept out as soon as somebody else claims the row.
    """
    result = await conn.execute(
        update(table)
        .where(
            table.c.lease_until > now,
            table.c.lease_holder.endswith(mark, autoescape=True),
        )
        .values(lease_until=now)
    )
    return result.rowcount
