"""The life of an order, for people: what happened to it, and what it traded; the newest orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, list_history
from venues.model import VenueFill, VenueOrder
from venues.store import ENTITY, fill_of, get_order, order_of
from venues.tables import fill, venue_order

NEWEST_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderStory:
    """An order with its events and trades, oldest first."""

    order: VenueOrder
    events: Sequence[DomainEvent]
    fills: Sequence[VenueFill]

    @property
    def states(self) -> tuple[str, ...]:
        """Return the states that the order went through."""
        return tuple(event.to_state for event in self.events if event.to_state is not None)


async def explain_order(conn: AsyncConnection, order_id: UUID) -> OrderStory:
    """Return the story of an order.

    Raises:
        NoOrder: there is none of that id.
    """
    order = await get_order(conn, order_id)
    return OrderStory(
        order=order,
        events=await list_history(conn, ENTITY, order_id),
        fills=await _fills_of(conn, order),
    )


async def list_newest_orders(
    conn: AsyncConnection, venue: str, account: str, *, symbol: str, reference: str | None = None
) -> list[VenueOrder]:
    """Return the newest orders in a symbol, newest first: at most `NEWEST_MAX`, of one reference only, if asked."""
    query = select(venue_order).where(
        venue_order.c.venue == venue,
        venue_order.c.account == account,
        venue_order.c.symbol == symbol,
    )
    if reference is not None:
        query = query.where(venue_order.c.reference == reference)
    newest = (venue_order.c.created_at.desc(), venue_order.c.id.desc())
    rows = await conn.execute(query.order_by(*newest).limit(NEWEST_MAX))
    return [order_of(row) for row in rows]


async def _fills_of(conn: AsyncConnection, order: VenueOrder) -> list[VenueFill]:
    rows = await conn.execute(
        select(fill)
        .where(
            fill.c.venue == order.venue,
            fill.c.account == order.account,
            fill.c.symbol == order.symbol,
            fill.c.venue_order_id == order.venue_order_id,
        )
        .order_by(fill.c.executed_at, fill.c.id)
    )
    return [fill_of(row) for row in rows]
