"""How each stream is doing, on record, so that another process can ask."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from marketdata.events import Channel
from marketdata.model import StreamState, StreamStatus
from marketdata.stream_tables import stream_status as table

STREAMS_MAX: Final = 10_000
ROWS_MAX: Final = 1_000
"""Rows of one statement."""
_KEY: Final = frozenset({"venue", "symbol", "channel"})


async def write_status(
    conn: AsyncConnection, statuses: Sequence[StreamStatus], *, at: datetime
) -> None:
    """Record how streams are doing; an older word than the one on record changes nothing."""
    # In one order, so that two writers wait for each other and never in a circle.
    ordered = sorted(statuses, key=lambda item: (item.venue, item.symbol, item.channel))
    for start in range(0, len(ordered), ROWS_MAX):
        query = insert(table).values([_row(one, at) for one in ordered[start : start + ROWS_MAX]])
        changes = {c.name: query.excluded[c.name] for c in table.c if c.name not in _KEY}
        await conn.execute(
            query.on_conflict_do_update(
                index_elements=[table.c.venue, table.c.symbol, table.c.channel],
                set_=changes,
                where=table.c.told_at <= query.excluded.told_at,
            )
        )


async def replace_status(
    conn: AsyncConnection, venue: str, statuses: Sequence[StreamStatus], *, at: datetime
) -> None:
    """Record how all streams of a venue are doing; one that is not among them is followed no more."""
    keys = [(item.symbol, str(item.channel)) for item in statuses if item.venue == venue]
    others = tuple_(table.c.symbol, table.c.channel).not_in(keys)
    await conn.execute(delete(table).where(table.c.venue == venue, others))
    await write_status(conn, statuses, at=at)


async def list_status(
    conn: AsyncConnection, venue: str | None = None
) -> list[tuple[StreamStatus, datetime]]:
    """Return every stream as it was told last, and when that was."""
    query = select(table).order_by(table.c.venue, table.c.symbol, table.c.channel)
    if venue is not None:
        query = query.where(table.c.venue == venue)
    rows = await conn.execute(query.limit(STREAMS_MAX))
    return [(_status_of(row), row.told_at) for row in rows]


def _row(item: StreamStatus, at: datetime) -> dict[str, Any]:
    return {
        "venue": item.venue,
        "symbol": item.symbol,
        "channel": str(item.channel),
        "state": str(item.state),
        "since": item.since,
        "last_event_at": item.last_event_at,
        "sequence": str(item.sequence),
        "gaps": item.gaps,
        "reconnects": item.reconnects,
        "messages": item.messages,
        "detail": item.detail,
        "told_at": at,
    }


def _status_of(row: Row[Any]) -> StreamStatus:
    return StreamStatus(
        venue=row.venue,
        symbol=row.symbol,
        channel=Channel(row.channel),
        state=StreamState(row.state),
        since=row.since,
        last_event_at=row.last_event_at,
        sequence=int(row.sequence),
        gaps=row.gaps,
        reconnects=row.reconnects,
        messages=row.messages,
        detail=row.detail,
    )
