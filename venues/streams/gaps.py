"""Gaps of private streams on record: opened when one is lost, ended when another listens, filled."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.ids import derive_id
from venues.model import VenueFill
from venues.store import fill_of
from venues.streams.model import GapReason, GapRow, StreamGap
from venues.streams.tables import stream_gap
from venues.tables import fill

GAPS_MAX: Final = 200
AUDITED_MAX: Final = 2_000
DETAIL_LENGTH_MAX: Final = 500


async def open_gap(conn: AsyncConnection, venue: str, account: str, gap: StreamGap) -> UUID:
    """Record that from ``gap.since`` on nobody listens, and return the gap's id."""
    gap_id = derive_id(gap.since, "stream-gap", venue, account, str(gap.reason))
    await conn.execute(
        insert(stream_gap)
        .values(
            id=gap_id,
            venue=venue,
            account=account,
            since=gap.since,
            until=gap.until,
            reason=str(gap.reason),
            detail=gap.detail[:DETAIL_LENGTH_MAX],
            attempts=0,
            fills_found=0,
            orders_left=0,
        )
        .on_conflict_do_nothing()
    )
    return gap_id


async def note_attempt(conn: AsyncConnection, gap_id: UUID, detail: str) -> None:
    """Record that another connection failed."""
    await conn.execute(
        update(stream_gap)
        .where(stream_gap.c.id == gap_id)
        .values(attempts=stream_gap.c.attempts + 1, detail=detail[:DETAIL_LENGTH_MAX])
    )


async def end_gap(conn: AsyncConnection, gap_id: UUID, *, until: datetime) -> None:
    """Record that somebody listens again since *until*."""
    since = stream_gap.c.since
    await conn.execute(
        update(stream_gap)
        .where(stream_gap.c.id == gap_id, stream_gap.c.until.is_(None), since <= until)
        .values(until=until)
    )
    # A clock that was set back: the gap is as short as it can be.
    await conn.execute(
        update(stream_gap)
        .where(stream_gap.c.id == gap_id, stream_gap.c.until.is_(None))
        .values(until=since)
    )


async def unfilled_gaps(conn: AsyncConnection, venue: str, account: str) -> list[UUID]:
    """Return the gaps that have ended and for which nobody has asked the venue yet."""
    rows = await conn.execute(
        select(stream_gap.c.id).where(
            stream_gap.c.venue == venue,
            stream_gap.c.account == account,
            stream_gap.c.until.is_not(None),
            stream_gap.c.filled_at.is_(None),
        )
    )
    return [row.id for row in rows]


async def mark_filled(
    conn: AsyncConnection, gap_ids: list[UUID], *, fills: int, orders: int, now: datetime
) -> None:
    """Record that everything was asked for that may have happened in these gaps."""
    await conn.execute(
        update(stream_gap)
        .where(stream_gap.c.id.in_(gap_ids), stream_gap.c.filled_at.is_(None))
        .values(filled_at=now, fills_found=fills, orders_left=orders)
    )


async def list_gaps(
    conn: AsyncConnection, venue: str, account: str, *, limit: int = GAPS_MAX
) -> list[GapRow]:
    """Return the newest gaps of an account's stream, newest first.

    The newest one has no `until` while nobody listens.
    """
    rows = await conn.execute(
        select(stream_gap)
        .where(stream_gap.c.venue == venue, stream_gap.c.account == account)
        .order_by(stream_gap.c.since.desc(), stream_gap.c.id.desc())
        .limit(min(limit, GAPS_MAX))
    )
    return [_gap_of(row) for row in rows]


async def last_listened(conn: AsyncConnection, venue: str, account: str) -> datetime | None:
    """Return when somebody listened last, as far as gaps tell; None: nobody ever did."""
    (newest, *_) = [*await list_gaps(conn, venue, account, limit=1), None]
    if newest is None:
        return None
    return newest.until or newest.since


async def traded_between(
    conn: AsyncConnection, venue: str, account: str, since: datetime, until: datetime
) -> list[VenueFill]:
    """Return the trades on record of a stretch of the venue's time, newest first, bounded."""
    rows = await conn.execute(
        select(fill)
        .where(
            fill.c.venue == venue,
            fill.c.account == account,
            fill.c.executed_at > since,
            fill.c.executed_at <= until,
        )
        .order_by(fill.c.executed_at.desc())
        .limit(AUDITED_MAX)
    )
    return [fill_of(row) for row in rows]


def _gap_of(row: Row[Any]) -> GapRow:
    return GapRow(
        id=row.id,
        venue=row.venue,
        account=row.account,
        since=row.since,
        until=row.until,
        reason=GapReason(row.reason),
        detail=row.detail,
        attempts=row.attempts,
        filled_at=row.filled_at,
        fills_found=row.fills_found,
        orders_left=row.orders_left,
    )
