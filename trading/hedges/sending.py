"""Sending one leg of a hedge, and telling how its venue took it."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from risk.model import Outcome
from risk.venue_health import record_outcome
from venues.lifecycle import ResolvePolicy
from venues.model import UNSETTLED_STATES, OrderState, VenueOrder
from venues.orders import resolve, submit
from venues.ports import VenueGateway


async def send_leg(
    engine: AsyncEngine,
    gateway: VenueGateway,
    order: VenueOrder,
    *,
    holder: str,
    clock: Clock,
    policy: ResolvePolicy,
) -> VenueOrder:
    """Send an intent once, look for it if nobody knows what became of it, and return it as it is."""
    began = clock.now()
    sent = await submit(engine, gateway, order.id, holder=holder, clock=clock)
    await _tell_how_it_went(engine, sent, began, clock.now())
    if sent.state not in UNSETTLED_STATES:
        return sent
    return await resolve(engine, gateway, order.id, holder=holder, clock=clock, policy=policy)


async def _tell_how_it_went(
    engine: AsyncEngine, order: VenueOrder, began: datetime, ended: datetime
) -> None:
    latency_ms = max(0, (ended - began) // timedelta(milliseconds=1))
    outcome = outcome_of(order.state)
    await transact(
        engine,
        lambda conn: record_outcome(conn, order.venue, order.account, outcome, latency_ms, ended),
    )


def outcome_of(state: OrderState) -> Outcome:
    """Return what the state after a request says of its venue: a refusal is an answer."""
    if state in UNSETTLED_STATES:
        return Outcome.UNKNOWN
    return Outcome.FAILED if state is OrderState.NOT_PLACED else Outcome.ANSWERED
