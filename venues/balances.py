"""Balances as the venue states them, kept as snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from venues.model import VenueBalance
from venues.tables import balance_snapshot


async def record_snapshot(
    conn: AsyncConnection,
    venue: str,
    account: str,
    balances: Sequence[VenueBalance],
    *,
    taken_at: datetime,
    is_opening: bool = False,
) -> None:
    """Keep what the venue stated at *taken_at*; an empty statement leaves no rows.

    The opening snapshot is the one from which the books begin.
    """
    if not balances:
        return
    rows = [
        {
            "venue": venue,
            "account": account,
            "taken_at": taken_at,
            "asset": item.asset,
            "free": item.free,
            "locked": item.locked,
            "dust": item.dust,
            "is_opening": is_opening,
        }
        for item in balances
    ]
    await conn.execute(insert(balance_snapshot).values(rows).on_conflict_do_nothing())
