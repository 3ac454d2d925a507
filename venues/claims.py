"""Whose turn it is with an order: claiming it, and concluding only under the claim.

What the venue says of an order is a fact whoever heard it, and is recorded without a claim too; what
its silence means is concluded by the worker whose turn it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import or_
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import StaleFence
from kernel.leases import claim
from venues.lifecycle import ResolvePolicy, sought_since
from venues.model import (
    OPEN_STATES,
    UNSETTLED_STATES,
    OrderReport,
    OrderState,
    VenueOrder,
)
from venues.reports import record_report
from venues.store import (
    advance,
    get_order,
    last_looked_at,
    lock_fenced,
    order_of,
    seek_from_now,
    set_columns,
)
from venues.tables import venue_order

LEASE: Final = timedelta(seconds=30)
"""How long a worker may be busy with one order; longer than any one request."""

Writer = Callable[[AsyncConnection, VenueOrder], Awaitable[VenueOrder]]


async def read_order(engine: AsyncEngine, order_id: UUID) -> VenueOrder:
    """Return an order as it is on record now."""
    return await transact(engine, lambda conn: get_order(conn, order_id))


async def claim_order(
    engine: AsyncEngine, order_id: UUID, *, holder: str, now: datetime, policy: ResolvePolicy
) -> VenueOrder | None:
    """Claim an order that is at the venue or may be; one whose sender vanished becomes unknown.

    None: it needs no looking at, or another worker is busy with it.
    """

    async def work(conn: AsyncConnection) -> VenueOrder | None:
        claimable = [str(state) for state in OPEN_STATES - {OrderState.INTENT}]
        state = or_(venue_order.c.state.in_(claimable), venue_order.c.revived_at.is_not(None))
        rows = await claim(
            conn,
            venue_order,
            where=(venue_order.c.id == order_id) & state,
            order_by=(venue_order.c.id,),
            holder=holder,
            now=now,
            lease_for=LEASE,
        )
        if not rows:
            return None
        order = order_of(rows[0])
        if order.state is OrderState.SUBMITTING:
            order = await advance(
                conn,
                order,
                OrderState.UNKNOWN,
                reason="the sender did not say what became of it",
                actor=f"system:{holder}",
                now=now,
            )
        if order.state in UNSETTLED_STATES:
            order = await _sought(conn, order, now, policy)
        return order

    return await transact(engine, work)


async def _sought(
    conn: AsyncConnection, order: VenueOrder, now: datetime, policy: ResolvePolicy
) -> VenueOrder:
    """Mark that *order* is looked for; after a pause of ours its account's orders all begin anew."""
    watched_at = await last_looked_at(conn, order.venue, order.account)
    since = sought_since(order, watched_at, now, policy)
    if order.sought_since is not None and since == now:
        await seek_from_now(conn, order, now=now)
    return await set_columns(conn, order, sought_since=since, looked_at=now)


async def record_seen(
    engine: AsyncEngine, order_id: UUID, report: OrderReport, *, actor: str, now: datetime
) -> VenueOrder:
    """Record what the venue said about an order, whoever has claimed it."""

    async def work(conn: AsyncConnection) -> VenueOrder:
        row = await get_order(conn, order_id, lock=True)
        return await record_report(conn, row, report, actor=actor, now=now)

    return await transact(engine, work)


async def write_seen(
    engine: AsyncEngine,
    order: VenueOrder,
    report: OrderReport,
    *,
    actor: str,
    now: datetime,
    **columns: object,
) -> VenueOrder:
    """Record what the venue said about the claimed *order*, and end the claim if it is ours still."""

    async def work(conn: AsyncConnection) -> VenueOrder:
        row = await get_order(conn, order.id, lock=True)
        after = await record_report(conn, row, report, actor=actor, now=now)
        if row.fence != order.fence:
            return after
        return await set_columns(conn, after, lease_holder=None, lease_until=None, **columns)

    return await transact(engine, work)


async def write_claimed(
    engine: AsyncEngine, order: VenueOrder, write: Writer, **columns: object
) -> VenueOrder:
    """Record a conclusion under the claim that *order* was read with, and end the claim.

    If another worker has taken the order over meanwhile, its word stands and is returned.
    """

    async def work(conn: AsyncConnection) -> VenueOrder:
        row = await write(conn, await lock_fenced(conn, order))
        return await set_columns(conn, row, lease_holder=None, lease_until=None, **columns)

    try:
        return await transact(engine, work)
    except StaleFence:
        return await read_order(engine, order.id)


async def leave_as_it_is(conn: AsyncConnection, row: VenueOrder) -> VenueOrder:
    """Write nothing: only the claim ends."""
    del conn
    return row
