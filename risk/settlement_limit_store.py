"""Rows of settlement limits to values and back; private to the package."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from risk.settlement_limit_model import SettlementLimit
from risk.settlement_limit_tables import settlement_limit

_KEY = (settlement_limit.c.party, settlement_limit.c.asset)
_NEWEST = (
    select(settlement_limit)
    .ext(distinct_on(*_KEY))
    .order_by(*_KEY, settlement_limit.c.version.desc())
)


async def list_newest(
    conn: AsyncConnection, parties: Collection[str] | None = None, asset: str | None = None
) -> list[SettlementLimit]:
    """Return the newest version of every limit, by party and asset."""
    query = _NEWEST
    if parties is not None:
        query = query.where(settlement_limit.c.party.in_(parties))
    if asset is not None:
        query = query.where(settlement_limit.c.asset == asset)
    return [_limit(row) for row in await conn.execute(query)]


async def insert_limit(
    conn: AsyncConnection,
    item: SettlementLimit,
    *,
    set_by: str,
    approved_by: str,
    reason: str,
    at: datetime,
) -> bool:
    """Write a version of a limit; False: there is one of that number."""
    statement = insert(settlement_limit).values(
        party=item.party,
        asset=item.asset,
        version=item.version,
        gross_units=item.gross_units,
        net_units=item.net_units,
        set_by=set_by,
        approved_by=approved_by,
        reason=reason,
        set_at=at,
    )
    return (await conn.execute(statement.on_conflict_do_nothing())).rowcount == 1


def _limit(row: Row[Any]) -> SettlementLimit:
    return SettlementLimit(
        party=row.party,
        asset=row.asset,
        version=row.version,
        gross_units=row.gross_units,
        net_units=row.net_units,
    )
