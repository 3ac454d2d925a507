"""What of each order is booked and what may still come; fills on their way into the books."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from venues.errors import TooManyExposures
from venues.model import DUST_SCALE, OPEN_STATES, VenueFill
from venues.store import fill_of, order_of
from venues.tables import balance_snapshot, fill, venue_order
from venues.worst_case import OrderExposure

BOOKING_MAX: Final = 200
EXPOSURES_MAX: Final = 1_000


async def list_exposures(
    conn: AsyncConnection, venue: str, account: str, symbol: str
) -> list[OrderExposure]:
    """Return the orders that may still trade, or have traded more than is booked, oldest first.

    One statement, so that orders and fills are seen at one instant.

    Raises:
        TooManyExposures: there are more than `EXPOSURES_MAX`; some of them would be no worst case.
    """
    mine = and_(
        fill.c.venue == venue_order.c.venue,
        fill.c.account == venue_order.c.account,
        fill.c.symbol == venue_order.c.symbol,
        fill.c.venue_order_id == venue_order.c.venue_order_id,
    )
    filled = select(func.coalesce(func.sum(fill.c.base_units), 0)).where(mine).scalar_subquery()
    booked = (
        select(func.coalesce(func.sum(fill.c.base_units), 0))
        .where(mine, fill.c.booked_at.is_not(None))
        .scalar_subquery()
    )
    unbooked = select(fill.c.venue_order_id).where(
        fill.c.venue == venue,
        fill.c.account == account,
        fill.c.symbol == symbol,
        fill.c.booked_at.is_(None),
    )
    rows = await conn.execute(
        select(venue_order, filled.label("filled_units"), booked.label("booked_units"))
        .where(
            venue_order.c.venue == venue,
            venue_order.c.account == account,
            venue_order.c.symbol == symbol,
            or_(
                venue_order.c.state.in_([str(state) for state in OPEN_STATES]),
                ~venue_order.c.is_complete,
                venue_order.c.revived_at.is_not(None),
                venue_order.c.venue_order_id.in_(unbooked),
            ),
        )
        .order_by(venue_order.c.created_at, venue_order.c.id)
        .limit(EXPOSURES_MAX + 1)
    )
    found = [
        OrderExposure(
            order=order_of(row), filled=int(row.filled_units), booked=int(row.booked_units)
        )
        for row in rows
    ]
    if len(found) > EXPOSURES_MAX:
        raise TooManyExposures(
            f"more than {EXPOSURES_MAX} orders of {symbol} at {venue}/{account} are open or lack "
            "fills, so what they may still trade is not known",
            remedy="Collect the fills; if orders stay open, cancel them at the venue",
        )
    return found


async def lock_unbooked(
    conn: AsyncConnection, venue: str, account: str, symbol: str, *, limit: int = BOOKING_MAX
) -> list[VenueFill]:
    """Lock and return fills that are not booked, oldest first; locked ones of others are left."""
    rows = await conn.execute(
        select(fill)
        .where(
            fill.c.venue == venue,
            fill.c.account == account,
            fill.c.symbol == symbol,
            fill.c.booked_at.is_(None),
        )
        .order_by(fill.c.executed_at, fill.c.id)
        .limit(min(limit, BOOKING_MAX))
        .with_for_update(skip_locked=True)
    )
    return [fill_of(row) for row in rows]


async def mark_booked(conn: AsyncConnection, fill_ids: Sequence[UUID], *, now: datetime) -> None:
    """Mark fills that this transaction has locked and booked."""
    await conn.execute(update(fill).where(fill.c.id.in_(fill_ids)).values(booked_at=now))


async def dust_by_asset(conn: AsyncConnection, venue: str, account: str) -> dict[str, int]:
    """Return by how much the venue's own figures exceed ours, from fills and the opening.

    Units: ``10 ** -DUST_SCALE`` of a smallest unit.
    """
    mine = (fill.c.venue == venue, fill.c.account == account)
    total: dict[str, int] = {}
    for asset, dust in ((fill.c.quote, fill.c.quote_dust), (fill.c.fee_asset, fill.c.fee_dust)):
        rows = await conn.execute(select(asset, func.sum(dust)).where(*mine).group_by(asset))
        for code, units in rows:
            total[code] = total.get(code, 0) + int(units)
    rows = await conn.execute(
        select(balance_snapshot.c.asset, balance_snapshot.c.dust).where(
            balance_snapshot.c.venue == venue,
            balance_snapshot.c.account == account,
            balance_snapshot.c.is_opening,
        )
    )
    for code, units in rows:
        total[code] = total.get(code, 0) + int(units)
    return total


def exact(units: int, dust: int) -> int:
    """Return an amount with its dust, in units of ``10 ** -DUST_SCALE`` of a smallest unit."""
    return units * int(10**DUST_SCALE) + dust
