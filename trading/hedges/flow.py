"""What clients' deals have added to a desk's need of late, and at which prices."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from trading import store
from trading.internalising import Flow
from trading.model import Deal, DealPurpose, DealSide, DealState
from trading.tables import deal

STANDING: Final = (DealState.BOOKED, DealState.SETTLING, DealState.SETTLED)
"""An amended or cancelled deal has left the position again."""
DEALS_MAX: Final = 500
"""Deals looked at, newest first; what is older counts as old flow, which waits for nothing."""


async def recent_deals(conn: AsyncConnection, book: int, desk: str, asset: str) -> Sequence[Deal]:
    """Return the newest deals of clients that moved the desk's position in *asset*, newest first."""
    query = (
        select(deal)
        .where(
            deal.c.book == book,
            deal.c.desk == desk,
            or_(deal.c.base == asset, deal.c.quote == asset),
            deal.c.state.in_([str(state) for state in STANDING]),
            deal.c.purpose == str(DealPurpose.CLIENT),
        )
        .order_by(deal.c.created_at.desc(), deal.c.id.desc())
        .limit(DEALS_MAX)
    )
    return [store.deal_of(row) for row in await conn.execute(query)]


def flows(deals: Sequence[Deal], asset: str, since: datetime) -> list[Flow]:
    """Return what *deals* booked at or after *since* have added to the need of *asset*."""
    return [Flow(added(item, asset), item.created_at) for item in deals if item.created_at >= since]


def added(item: Deal, asset: str) -> int:
    """Return what a deal adds to the need of *asset*: positive, it has to be bought."""
    sells = item.request.side is DealSide.DESK_SELLS
    if item.request.base.code == asset:
        return item.request.base_units if sells else -item.request.base_units
    return -item.quote_units if sells else item.quote_units
