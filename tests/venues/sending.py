"""Sending one order with a writer of its own."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import Clock
from venues.model import OrderTicket, VenueOrder
from venues.order_writer import OrderWriter
from venues.orders import send
from venues.ports import VenueGateway


async def send_alone(
    engine: AsyncEngine,
    gateway: VenueGateway,
    ticket: OrderTicket,
    *,
    recv_window: timedelta,
    holder: str,
    reason: str,
    clock: Clock,
) -> VenueOrder:
    """Send an order as `venues.orders.send` does."""
    async with OrderWriter(engine) as writer:
        return await send(
            writer,
            gateway,
            ticket,
            recv_window=recv_window,
            holder=holder,
            reason=reason,
            clock=clock,
        )
