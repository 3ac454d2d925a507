"""Gaps of market streams on record: opened, ended, filled afterwards; never deleted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, unique
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import from_unix_ns
from kernel.ids import derive_id
from marketdata.backfill_model import FILLABLE
from marketdata.events import Channel, GapReason, GapSeen
from marketdata.stream_tables import gap as table

GAPS_MAX: Final = 1_000
DETAIL_MAX: Final = 500
_FILLABLE: Final = sorted(str(channel) for channel in FILLABLE)


@unique
class GapState(StrEnum):
    """What has become of a gap."""

    OPEN = "open"
    UNFILLED = "unfilled"
    FILLED = "filled"
    LOST = "lost"
    """Nothing can fill it, or not all of it: no venue tells the past of a book."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRow:
    """A gap on record.

    Attributes:
        until: None while the stream cannot be relied on.
        filled_at: when all that was missed had been fetched.
        filled_by, rows: by what, and how much of it there was; also of one that is lost in part.
        missing: what was asked for and cannot be had any more; empty: nothing.
    """

    id: UUID
    venue: str
    symbol: str
    channel: Channel
    reason: GapReason
    since: datetime
    until: datetime | None
    detail: str
    filled_at: datetime | None
    filled_by: str
    rows: int
    missing: str

    @property
    def state(self) -> GapState:
        """Return what has become of it."""
        if self.until is None:
            return GapState.OPEN
        if self.filled_at is not None:
            return GapState.FILLED
        can_be_filled = self.channel in FILLABLE and not self.missing
        return GapState.UNFILLED if can_be_filled else GapState.LOST


def gap_id(gap: GapSeen) -> UUID:
    """Return the id of a gap: the same when it opens and when it ends."""
    since = from_unix_ns(gap.since_ns)
    parts = (gap.venue, gap.symbol, str(gap.channel), str(gap.reason), gap.since_ns)
    return derive_id(since, "market-gap", *parts)


async def open_gap(conn: AsyncConnection, gap: GapSeen) -> UUID:
    """Record a gap, and its end if it is known; return its id. A second time changes the detail."""
    found = gap_id(gap)
    since = from_unix_ns(gap.since_ns)
    until = max(since, from_unix_ns(gap.until_ns)) if gap.until_ns else None
    values = {
        "id": found,
        "venue": gap.venue,
        "symbol": gap.symbol,
        "channel": str(gap.channel),
        "reason": str(gap.reason),
        "since": since,
        "until": until,
        "detail": gap.detail[:DETAIL_MAX],
        "filled_at": None,
        "filled_by": "",
        "rows": 0,
        "missing": "",
    }
    changes: dict[str, Any] = {"detail": values["detail"]}
    if until is not None:
        changes["until"] = until
    await conn.execute(
        insert(table)
        .values(values)
        .on_conflict_do_update(index_elements=[table.c.id], set_=changes)
    )
    return found


async def end_gap(conn: AsyncConnection, gap_id: UUID, until: datetime) -> None:
    """Record that the stream can be relied on again since *until*; one that has ended stays so."""
    still_open = (table.c.id == gap_id, table.c.until.is_(None))
    await conn.execute(update(table).where(*still_open, table.c.since <= until).values(until=until))
    # A clock that was set back: the gap is as short as it can be.
    await conn.execute(update(table).where(*still_open).values(until=table.c.since))


async def list_gaps(
    conn: AsyncConnection,
    venue: str | None,
    symbol: str | None,
    channel: Channel | None,
    since: datetime,
    until: datetime,
    *,
    unfilled: bool = False,
    limit: int = GAPS_MAX,
) -> list[GapRow]:
    """Return the gaps that touch a stretch of time, oldest first; None: of any.

    *unfilled*: only those that are not filled and still can be.
    """
    query = select(table).where(
        table.c.since < until, or_(table.c.until.is_(None), table.c.until >= since)
    )
    if venue is not None:
        query = query.where(table.c.venue == venue)
    if symbol is not None:
        query = query.where(table.c.symbol == symbol)
    if channel is not None:
        query = query.where(table.c.channel == str(channel))
    if unfilled:
        query = query.where(
            table.c.filled_at.is_(None), table.c.missing == "", table.c.channel.in_(_FILLABLE)
        )
    rows = await conn.execute(query.order_by(table.c.since, table.c.id).limit(min(limit, GAPS_MAX)))
    return [_gap_of(row) for row in rows]


async def open_gaps(conn: AsyncConnection, venue: str) -> list[GapRow]:
    """Return the gaps of a venue that have not ended: after a kill, those of the process before."""
    rows = await conn.execute(
        select(table)
        .where(table.c.venue == venue, table.c.until.is_(None))
        .order_by(table.c.since, table.c.id)
        .limit(GAPS_MAX)
    )
    return [_gap_of(row) for row in rows]


async def gaps_within(
    conn: AsyncConnection,
    venue: str,
    symbol: str,
    channel: Channel,
    since: datetime,
    until: datetime,
) -> list[GapRow]:
    """Return the gaps of a stream that ended within a stretch of time and are not filled."""
    rows = await conn.execute(
        select(table)
        .where(
            table.c.venue == venue,
            table.c.symbol == symbol,
            table.c.channel == str(channel),
            table.c.since >= since,
            table.c.until <= until,
            table.c.filled_at.is_(None),
        )
        .order_by(table.c.since, table.c.id)
        .limit(GAPS_MAX)
    )
    return [_gap_of(row) for row in rows]


async def mark_filled(
    conn: AsyncConnection, gap_id: UUID, *, by: str, rows: int, at: datetime, missing: str = ""
) -> None:
    """Record what came of all that a gap has missed; the first time counts.

    With something *missing* it is not filled: a later answer that has everything still can fill it,
    one that has as little changes nothing.
    """
    query = update(table).where(
        table.c.id == gap_id, table.c.until.is_not(None), table.c.filled_at.is_(None)
    )
    values: dict[str, Any] = {"filled_by": by, "rows": rows, "missing": missing[:DETAIL_MAX]}
    if missing:
        query = query.where(table.c.missing == "")
    else:
        values["filled_at"] = at
    await conn.execute(query.values(values))


def _gap_of(row: Row[Any]) -> GapRow:
    return GapRow(
        id=row.id,
        venue=row.venue,
        symbol=row.symbol,
        channel=Channel(row.channel),
        reason=GapReason(row.reason),
        since=row.since,
        until=row.until,
        detail=row.detail,
        filled_at=row.filled_at,
        filled_by=row.filled_by,
        rows=row.rows,
        missing=row.missing,
    )
