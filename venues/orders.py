"""Placing orders exactly once, and clearing up what is not known.

The order of work: `intend` writes the row in the caller's transaction; `submit` commits the state
``submitting`` with the time that will be signed, sends the request once, records the outcome.
A crash at any point leaves a row that `resume` takes further: start-up is recovery. What was never
``submitting`` was never sent; what was, is looked for at the venue until there is evidence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import StaleFence
from kernel.leases import claim
from venues.errors import OrderConflict, VenueUnavailable
from venues.lifecycle import ResolvePolicy, Silence, states_after, weigh_silence
from venues.model import (
    FINAL_STATES,
    OPEN_STATES,
    UNSETTLED_STATES,
    Accepted,
    OrderReport,
    OrderState,
    OrderTicket,
    Placement,
    PlacementRefused,
    PlacementUnknown,
    RefusalKind,
    VenueOrder,
)
from venues.ports import VenueGateway
from venues.store import (
    advance,
    find_by_client_id,
    get_order,
    insert_order,
    list_in_states,
    lock_fenced,
    order_of,
    record_intent,
    record_late_trade,
    same_order,
    set_columns,
)
from venues.tables import venue_order

LEASE: Final = timedelta(seconds=30)
"""How long a worker may be busy with one order; longer than any one request."""

ORDERS_MAX: Final = 200
LISTING_MARGIN: Final = timedelta(seconds=5)
"""Orders are listed from a little before they were signed: clocks differ."""


async def intend(
    conn: AsyncConnection,
    ticket: OrderTicket,
    *,
    recv_window: timedelta,
    actor: str,
    reason: str,
    now: datetime,
) -> VenueOrder:
    """Write the intent to place an order; the same ticket again returns the order there is.

    Raises:
        OrderConflict: the key was used for an order of other content.
    """
    order = VenueOrder(
        id=ticket.order_id(now),
        venue=ticket.venue,
        account=ticket.account,
        symbol=ticket.symbol,
        instrument_version=ticket.instrument_version,
        side=ticket.side,
        base_units=ticket.base_units,
        quantity=ticket.quantity,
        price=ticket.price,
        time_in_force=ticket.time_in_force,
        reference=ticket.reference,
        client_order_id=ticket.client_order_id(),
        venue_order_id=None,
        state=OrderState.INTENT,
        state_reason=reason,
        signed_at=None,
        recv_window=recv_window,
        executed_units=0,
        created_at=now,
        updated_at=now,
        fence=0,
    )
    if await insert_order(conn, order):
        await record_intent(conn, order, actor=actor)
        return order
    known = await find_by_client_id(conn, ticket.venue, ticket.account, order.client_order_id)
    if known is None:
        raise OrderConflict(f"the id of order {order.client_order_id} is taken by another account")
    field = same_order(known, order)
    if field is not None:
        raise OrderConflict(f"order {order.client_order_id} is on record with another {field}")
    return known


async def submit(
    engine: AsyncEngine, gateway: VenueGateway, order_id: UUID, *, holder: str, clock: Clock
) -> VenueOrder:
    """Send an intent, once, and record what came of it; any other order is returned as it is.

    Of several that submit the same order one sends it. If the outcome cannot be recorded because
    another worker took the order over, its word stands.
    """
    actor = f"system:{holder}"

    async def begin(conn: AsyncConnection) -> tuple[VenueOrder, bool]:
        order = await get_order(conn, order_id, lock=True)
        if order.state is not OrderState.INTENT:
            return order, False
        now = clock.now()
        signed_at = _to_milliseconds(gateway.venue_time(now))
        sent = await advance(
            conn,
            order,
            OrderState.SUBMITTING,
            reason="sent once",
            actor=actor,
            now=now,
            signed_at=signed_at,
            lease_holder=holder,
            lease_until=now + LEASE,
            fence=order.fence + 1,
        )
        return sent, True

    order, ours = await transact(engine, begin)
    if not ours:
        return order
    placement = await gateway.place(order)
    if isinstance(placement, PlacementRefused) and placement.kind is RefusalKind.CLOCK:
        await _try_to_synchronise(gateway)
    return await _write(
        engine,
        order,
        lambda conn, row: _record_placement(conn, row, placement, actor=actor, now=clock.now()),
    )


async def resolve(
    engine: AsyncEngine,
    gateway: VenueGateway,
    order_id: UUID,
    *,
    holder: str,
    clock: Clock,
    policy: ResolvePolicy,
) -> VenueOrder:
    """Find out what became of an order whose outcome is not known; return it as it is then.

    Looks until there is evidence, at most ``policy.looks_max`` times and no longer than
    ``policy.patience``, plus the look under way; an error of the query is no evidence. Not finding it counts once the venue's own clock says that it can no longer accept
    the order, and only if the single query and the lists miss it, several times.
    """
    order = await _claim(engine, order_id, holder=holder, now=clock.now())
    if order is None:
        return await _read(engine, order_id)
    actor = f"system:{holder}"
    missing = 0
    until = clock.now() + policy.patience
    for look in range(policy.looks_max):
        if look:
            await asyncio.sleep(policy.pause / timedelta(seconds=1))
            if clock.now() >= until:
                break
        try:
            # The clock first: what is not there after the door was seen shut will never be there.
            silence = weigh_silence(order, await gateway.server_time(), policy)
            report = await _look_for(gateway, order)
        except VenueUnavailable:
            continue
        if report is not None:
            return await _write(engine, order, _reporting(report, actor, clock))
        missing += silence is Silence.COUNTS
        if missing >= policy.not_founds:
            return await _write(engine, order, _not_placed(missing, actor, clock))
    return await _write(engine, order, _still_unknown(policy, actor, clock))


async def refresh(
    engine: AsyncEngine, gateway: VenueGateway, order_id: UUID, *, holder: str, clock: Clock
) -> VenueOrder:
    """Ask the venue for an acknowledged order's state and record it.

    Raises:
        VenueUnavailable: the venue does not answer.
    """
    order = await _claim(engine, order_id, holder=holder, now=clock.now())
    if order is None:
        return await _read(engine, order_id)
    actor = f"system:{holder}"
    try:
        report = await gateway.find_order(order.symbol, order.client_order_id)
    except VenueUnavailable:
        await _write(engine, order, _leave_as_it_is)
        raise
    if report is None:
        return await _write(engine, order, _leave_as_it_is)
    return await _write(engine, order, _reporting(report, actor, clock))


async def cancel(
    engine: AsyncEngine, gateway: VenueGateway, order_id: UUID, *, holder: str, clock: Clock
) -> VenueOrder:
    """Ask the venue to cancel an order, then record what it says; fills may still arrive.

    Raises:
        VenueUnavailable: the venue does not answer; the order is as it was on record.
    """
    order = await _read(engine, order_id)
    if order.state not in {OrderState.ACKED, OrderState.PARTIALLY_FILLED}:
        return order
    await gateway.cancel(order)
    return await refresh(engine, gateway, order_id, holder=holder, clock=clock)


async def resume(
    engine: AsyncEngine,
    gateway: VenueGateway,
    *,
    holder: str,
    clock: Clock,
    policy: ResolvePolicy,
    symbol: str | None = None,
    intents_older_than: timedelta = LEASE,
) -> list[VenueOrder]:
    """Take every open order of the account further; return those that are not final after it.

    Intents that nobody sent in time are given up (their price is old): they were never sent, so
    that is certain. Orders another worker is busy with are left to it, and those that
    ``policy.patience`` does not suffice for are left to the next call.
    """
    until = clock.now() + policy.patience
    older = clock.now() - intents_older_than
    await transact(
        engine, lambda conn: _give_up(conn, gateway, symbol, older, holder=holder, now=clock.now())
    )
    left = []
    for order in await transact(engine, lambda conn: _open_orders(conn, gateway, symbol)):
        after = order
        if order.state is not OrderState.INTENT and clock.now() < until:
            after = await _take_further(
                engine, gateway, order, holder=holder, clock=clock, policy=policy
            )
        if after.state in OPEN_STATES:
            left.append(after)
    return left


async def _give_up(
    conn: AsyncConnection,
    gateway: VenueGateway,
    symbol: str | None,
    older: datetime,
    *,
    holder: str,
    now: datetime,
) -> None:
    """End the intents made at or before *older*, under their locks: nobody will send them."""
    for order in await _open_orders(conn, gateway, symbol):
        if order.state is OrderState.INTENT and order.created_at <= older:
            row = await get_order(conn, order.id, lock=True)
            if row.state is OrderState.INTENT:
                await advance(
                    conn,
                    row,
                    OrderState.NOT_PLACED,
                    reason="given up before it was sent",
                    actor=f"system:{holder}",
                    now=now,
                )


async def _take_further(
    engine: AsyncEngine,
    gateway: VenueGateway,
    order: VenueOrder,
    *,
    holder: str,
    clock: Clock,
    policy: ResolvePolicy,
) -> VenueOrder:
    """Resolve or refresh one order; as it was when the venue does not answer."""
    if order.state in UNSETTLED_STATES:
        return await resolve(engine, gateway, order.id, holder=holder, clock=clock, policy=policy)
    try:
        return await refresh(engine, gateway, order.id, holder=holder, clock=clock)
    except VenueUnavailable:
        return order


async def list_orders(
    conn: AsyncConnection,
    venue: str,
    account: str,
    *,
    symbol: str | None = None,
    states: frozenset[OrderState] = frozenset(OrderState),
    limit: int = ORDERS_MAX,
) -> list[VenueOrder]:
    """Return orders of an account, oldest first."""
    return await list_in_states(
        conn, venue, account, states, symbol=symbol, limit=min(limit, ORDERS_MAX)
    )


async def _open_orders(
    conn: AsyncConnection, gateway: VenueGateway, symbol: str | None
) -> list[VenueOrder]:
    return await list_in_states(
        conn, gateway.venue, gateway.account, OPEN_STATES, symbol=symbol, limit=ORDERS_MAX
    )


async def _read(engine: AsyncEngine, order_id: UUID) -> VenueOrder:
    return await transact(engine, lambda conn: get_order(conn, order_id))


async def _claim(
    engine: AsyncEngine, order_id: UUID, *, holder: str, now: datetime
) -> VenueOrder | None:
    """Claim an order that is at the venue or may be; one whose sender vanished becomes unknown."""

    async def work(conn: AsyncConnection) -> VenueOrder | None:
        claimable = [str(state) for state in OPEN_STATES - {OrderState.INTENT}]
        rows = await claim(
            conn,
            venue_order,
            where=(venue_order.c.id == order_id) & venue_order.c.state.in_(claimable),
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
        return order

    return await transact(engine, work)


async def _look_for(gateway: VenueGateway, order: VenueOrder) -> OrderReport | None:
    """Look for an order in both places; None: both say that it is not there."""
    if gateway.capabilities.finds_by_client_id:
        report = await gateway.find_order(order.symbol, order.client_order_id)
        if report is not None:
            return report
    since = (order.signed_at or order.created_at) - LISTING_MARGIN
    listed = await gateway.list_orders(order.symbol, since)
    return next((r for r in listed if r.client_order_id == order.client_order_id), None)


Writer = Callable[[AsyncConnection, VenueOrder], Awaitable[VenueOrder]]


async def _write(engine: AsyncEngine, order: VenueOrder, write: Writer) -> VenueOrder:
    """Record under the claim that *order* was read with, and end the claim."""

    async def work(conn: AsyncConnection) -> VenueOrder:
        row = await write(conn, await lock_fenced(conn, order))
        return await set_columns(conn, row, lease_holder=None, lease_until=None)

    try:
        return await transact(engine, work)
    except StaleFence:
        return await _read(engine, order.id)


async def _record_placement(
    conn: AsyncConnection, row: VenueOrder, placement: Placement, *, actor: str, now: datetime
) -> VenueOrder:
    match placement:
        case Accepted(report):
            return await record_report(conn, row, report, actor=actor, now=now)
        case PlacementRefused(reason):
            return await advance(conn, row, OrderState.REFUSED, reason=reason, actor=actor, now=now)
        case PlacementUnknown(reason):
            return await advance(conn, row, OrderState.UNKNOWN, reason=reason, actor=actor, now=now)


async def record_report(
    conn: AsyncConnection, row: VenueOrder, report: OrderReport, *, actor: str, now: datetime
) -> VenueOrder:
    """Record what the venue says about the locked *row*, one edge at a time.

    An order that was over and has traded more all the same stays what it is, and an event says so.
    """
    is_late = row.state in FINAL_STATES and report.executed_units > row.executed_units
    executed = max(row.executed_units, report.executed_units)
    for state in states_after(row, report):
        row = await advance(
            conn,
            row,
            state,
            reason=f"the venue says {report.status}",
            actor=actor,
            now=now,
            venue_order_id=report.venue_order_id,
            executed_units=executed,
        )
    if executed > row.executed_units or row.venue_order_id is None:
        row = await set_columns(
            conn,
            row,
            executed_units=executed,
            venue_order_id=report.venue_order_id,
            is_complete=False,
        )
    if is_late:
        await record_late_trade(conn, row, now=now)
    return row


def _reporting(report: OrderReport, actor: str, clock: Clock) -> Writer:
    return lambda conn, row: record_report(conn, row, report, actor=actor, now=clock.now())


def _not_placed(missing: int, actor: str, clock: Clock) -> Writer:
    async def write(conn: AsyncConnection, row: VenueOrder) -> VenueOrder:
        if row.state not in UNSETTLED_STATES:
            return row  # a trade of it has come in meanwhile
        return await advance(
            conn,
            row,
            OrderState.NOT_PLACED,
            reason=f"not found {missing} times after the venue could no longer accept it",
            actor=actor,
            now=clock.now(),
        )

    return write


def _still_unknown(policy: ResolvePolicy, actor: str, clock: Clock) -> Writer:
    async def write(conn: AsyncConnection, row: VenueOrder) -> VenueOrder:
        now = clock.now()
        if row.state is not OrderState.UNKNOWN or now - row.created_at < policy.escalate_after:
            return row
        return await advance(
            conn,
            row,
            OrderState.ESCALATED,
            reason=f"no evidence for {now - row.created_at}",
            actor=actor,
            now=now,
        )

    return write


async def _leave_as_it_is(conn: AsyncConnection, row: VenueOrder) -> VenueOrder:
    del conn
    return row


async def _try_to_synchronise(gateway: VenueGateway) -> None:
    try:
        await gateway.synchronise()
    except VenueUnavailable:
        return


def _to_milliseconds(at: datetime) -> datetime:
    """Return *at* cut to the millisecond, which is all that the request can say."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
