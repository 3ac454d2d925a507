"""Rows of month ends and their waivers."""

from __future__ import annotations

from datetime import date
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from reporting.month_end.model import MonthEnd, Waiver
from reporting.month_end.tables import month_end, month_end_waiver

LISTED_MAX: Final = 500


async def insert_waiver(conn: AsyncConnection, item: Waiver) -> bool:
    """Insert a waiver; False: there is one of that obstacle and month."""
    values = {
        "id": item.id,
        "book": item.book,
        "month": item.month,
        "obstacle": item.obstacle,
        "reason": item.reason,
        "proposed_by": item.proposed_by,
        "proposal": item.proposal,
        "approved_by": item.approved_by,
        "approval": item.approval,
        "at": item.at,
    }
    statement = insert(month_end_waiver).values(**values).on_conflict_do_nothing()
    return (await conn.execute(statement)).rowcount == 1


async def list_waivers(conn: AsyncConnection, book: int, month: date) -> dict[str, Waiver]:
    """Return the waivers of a month by obstacle."""
    rows = await conn.execute(
        select(month_end_waiver)
        .where(month_end_waiver.c.book == book, month_end_waiver.c.month == month)
        .order_by(month_end_waiver.c.obstacle)
    )
    return {row.obstacle: Waiver(**row._mapping) for row in rows}  # noqa: SLF001  a row's mapping


async def insert_month_end(conn: AsyncConnection, item: MonthEnd) -> bool:
    """Insert a pack; False: one with the same manifest is on record."""
    values = {
        "id": item.id,
        "book": item.book,
        "month": item.month,
        "manifest": item.manifest,
        "manifest_sha256": item.manifest_sha256,
        "built_by": item.built_by,
        "built_at": item.built_at,
    }
    statement = insert(month_end).values(**values).on_conflict_do_nothing()
    return (await conn.execute(statement)).rowcount == 1


async def list_month_ends(
    conn: AsyncConnection, book: int, *, month: date | None = None, limit: int = LISTED_MAX
) -> list[MonthEnd]:
    """Return the packs of a book, the latest months first, of a month the newest first."""
    query = select(month_end).where(month_end.c.book == book)
    if month is not None:
        query = query.where(month_end.c.month == month)
    rows = await conn.execute(
        query.order_by(
            month_end.c.month.desc(), month_end.c.built_at.desc(), month_end.c.id.desc()
        ).limit(max(1, min(limit, LISTED_MAX)))
    )
    return [MonthEnd(**row._mapping) for row in rows]  # noqa: SLF001  the public name of a row's mapping
