"""Placing orders exactly once, and clearing up what is not known.

The order of work: `intend` writes the row in the caller's transaction; `submit` commits the state
``submitting`` with the time that will be signed, sends the request once, records the outcome. `send`
does the first two in one transaction, `venues.intended` does the second for many at once. A crash at any point leaves a row that `resume` takes further:
start-up is recovery. What was never ``submitting`` was never sent; what was, is looked for at the
venue until there is evidence.

An intent is tried again with `try_again` only: a new order under a new id, once every earlier one is
proven not to exist at the venue. An id that was sent once is never sent again, because no venue
promises to refuse it: Binance forgets an id when its order has ended.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from venues.account_state import is_halted, reduce_only
from venues.capabilities import Capabilities
from venues.claims import (
    LEASE,
    Writer,
    claim_order,
    leave_as_it_is,
    read_order,
    record_seen,
    write_claimed,
    write_seen,
)
from venues.errors import AttemptRefused, VenueUnavailable
from venues.lifecycle import (
    ResolvePolicy,
    Silence,
    is_due,
    listed_from,
    weigh_silence,
    why_not_again,
)
from venues.model import (
    EPOCH,
    FINAL_STATES,
    OPEN_STATES,
    UNSETTLED_STATES,
    OrderReport,
    OrderState,
    OrderTicket,
    VenueOrder,
)
from venues.order_sending import (
    insert_once,
    ordered,
    place,
    record_outcome,
    record_sent,
    to_milliseconds,
    write_and_place,
)
from venues.order_writer import OrderWriter
from venues.ports import VenueGateway
from venues.round_trips import SENT_ONCE
from venues.store import (
    advance,
    get_order,
    list_attempts,
    list_in_states,
    record_intent,
)

ORDERS_MAX: Final = 200
LISTING_MARGIN: Final = timedelta(seconds=5)
"""Orders are listed from a little before they were made: clocks differ."""


async def intend(
    conn: AsyncConnection,
    ticket: OrderTicket,
    *,
    capabilities: Capabilities,
    recv_window: timedelta,
    actor: str,
    reason: str,
    now: datetime,
) -> VenueOrder:
    """Write the intent to place an order; the same ticket again returns the order there is.

    Raises:
        AccountHalted: nothing may be ordered for the account.
        OrderConflict: the attempt is on record with other content.
        AttemptRefused: an earlier attempt is not proven not to exist, or was refused for good.
    """
    order = ordered(ticket, capabilities, recv_window, reason, now)
    order, is_new = await insert_once(conn, order)
    if is_new:
        await record_intent(conn, order, actor=actor)
    return order


async def send(
    writer: OrderWriter,
    gateway: VenueGateway,
    ticket: OrderTicket,
    *,
    recv_window: timedelta,
    holder: str,
    reason: str,
    clock: Clock,
    is_recorded_later: bool = False,
) -> VenueOrder:
    """Write an order down and send it, with one statement before and one after.

    Orders that many tasks send at once share them: see `venues.order_writer`.

    With *is_recorded_later* it returns with the venue's answer: a plain yes is on record a little
    later, and at the latest when *writer* is settled or closed. Until then others see it as sent.

    The same ticket again sends nothing: it returns the order there is, sent if it was a mere intent.

    Raises:
        AccountHalted, OrderConflict, AttemptRefused: as `intend`.
    """
    actor = f"system:{holder}"
    now = clock.now()
    signed_at = to_milliseconds(gateway.venue_time(now))
    order = ordered(ticket, gateway.capabilities, recv_window, reason, now, signed_at=signed_at)
    lease = now + LEASE
    record = partial(record_sent, writer, actor=actor, clock=clock, is_later=is_recorded_later)
    if ticket.attempt == 1:
        writing = writer.insert_sent(order, holder=holder, lease_until=lease, actor=actor)
        placement = await write_and_place(gateway, order, writing)
        if placement is not None:
            return await record(order, placement)

    async def begin(conn: AsyncConnection) -> tuple[VenueOrder, bool]:
        row, is_new = await insert_once(conn, order, lease_holder=holder, lease_until=lease)
        if is_new:
            await record_intent(conn, row, actor=actor)
        return row, is_new

    row, ours = await transact(writer.engine, begin)
    if ours:
        return await record(row, await place(gateway, row))
    return await submit(writer.engine, gateway, row.id, holder=holder, clock=clock)


async def submit(
    engine: AsyncEngine, gateway: VenueGateway, order_id: UUID, *, holder: str, clock: Clock
) -> VenueOrder:
    """Send an intent, once, and record what came of it; any other order is returned as it is.

    An intent of a halted account is ended: it was never sent. Of several that submit the same order one
    sends it. If another worker took the order over
    meanwhile, only the venue's yes is recorded still: it is a fact, anything else a conclusion.
    """
    actor = f"system:{holder}"

    async def begin(conn: AsyncConnection) -> tuple[VenueOrder, bool]:
        order = await get_order(conn, order_id, lock=True)
        if order.state is not OrderState.INTENT:
            return order, False
        now = clock.now()
        if await is_halted(conn, order.venue, order.account):
            why = "the account was halted before it was sent"
            done = await advance(
                conn, order, OrderState.NOT_PLACED, reason=why, actor=actor, now=now
            )
            return done, False
        sent = await advance(
            conn,
            order,
            OrderState.SUBMITTING,
            reason=SENT_ONCE,
            actor=actor,
            now=now,
            signed_at=to_milliseconds(gateway.venue_time(now)),
            lease_holder=holder,
            lease_until=now + LEASE,
            fence=order.fence + 1,
        )
        return sent, True

    order, ours = await transact(engine, begin)
    if not ours:
        return order
    placement = await place(gateway, order)
    return await record_outcome(engine, order, placement, actor=actor, clock=clock)


async def try_again(
    conn: AsyncConnection,
    order: VenueOrder,
    *,
    capabilities: Capabilities,
    actor: str,
    reason: str,
    now: datetime,
) -> VenueOrder:
    """Write the next attempt of an order that is proven not to exist at the venue.

    Raises:
        AttemptRefused: it may exist, it was refused for good, or it was tried often enough.
    """
    earlier = await list_attempts(conn, order.venue, order.account, order.intent, lock=True)
    why_not = why_not_again(earlier, len(earlier) + 1)
    if why_not is not None:
        raise AttemptRefused(why_not)
    last = earlier[-1]
    ticket = OrderTicket(
        venue=last.venue,
        account=last.account,
        symbol=last.symbol,
        instrument_version=last.instrument_version,
        kind=last.kind,
        side=last.side,
        base_units=last.base_units,
        quantity=last.quantity,
        price=last.price,
        time_in_force=last.time_in_force,
        reference=last.reference,
        intent=last.intent,
        attempt=last.attempt + 1,
    )
    return await intend(
        conn,
        ticket,
        capabilities=capabilities,
        recv_window=last.recv_window,
        actor=actor,
        reason=reason,
        now=now,
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
    ``policy.patience``, plus the look under way; an error of the query is no evidence. Not finding
    it counts once the venue's own clock says that it can no longer accept the order, and only if the
    single query and the lists miss it, several times.

    An escalated order is also cancelled, blindly, by its id: nobody wants it to go on while nobody
    knows of it, and a cancel that succeeds is proof. One that finds nothing proves nothing.
    """
    order = await claim_order(engine, order_id, holder=holder, now=clock.now(), policy=policy)
    if order is None:
        return await read_order(engine, order_id)
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
            venue_now = await gateway.server_time()
            report = await _look_for(gateway, order)
            if report is None and look == 0 and order.state is OrderState.ESCALATED:
                report = await gateway.cancel(order)
        except VenueUnavailable:
            continue
        if report is not None:
            return await write_seen(engine, order, report, actor=actor, now=clock.now())
        silence = weigh_silence(order, venue_now, policy, gateway.capabilities)
        missing += silence is Silence.COUNTS
        if missing >= policy.not_founds:
            return await write_claimed(engine, order, _not_placed(missing, actor, clock))
    return await write_claimed(engine, order, _still_unknown(policy, actor, clock))


async def refresh(
    engine: AsyncEngine, gateway: VenueGateway, order_id: UUID, *, holder: str, clock: Clock
) -> VenueOrder:
    """Ask the venue for an acknowledged order's state and record it.

    Also of an order that is over, or proven not placed: the venue may have learnt better.

    Raises:
        VenueUnavailable: the venue does not answer.
    """
    now = clock.now()
    order = await claim_order(engine, order_id, holder=holder, now=now, policy=ResolvePolicy())
    if order is None:
        return await _look_again(engine, gateway, order_id, holder=holder, clock=clock)
    try:
        report = await gateway.find_order(order)
        if report is None and order.revived_at is not None:
            report = await gateway.cancel(order)
    except VenueUnavailable:
        await write_claimed(engine, order, leave_as_it_is, looked_at=now)
        raise
    if report is None:
        return await write_claimed(engine, order, leave_as_it_is, looked_at=now)
    actor = f"system:{holder}"
    return await write_seen(engine, order, report, actor=actor, now=clock.now(), looked_at=now)


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
    ``policy.patience`` does not suffice for are left to the next call, which begins with them.
    """
    until = clock.now() + policy.patience
    older = clock.now() - intents_older_than
    await transact(
        engine, lambda conn: _give_up(conn, gateway, symbol, older, holder=holder, now=clock.now())
    )
    left = []
    orders = await transact(engine, lambda conn: _open_orders(conn, gateway, symbol))
    for order in sorted(orders, key=lambda item: item.looked_at or EPOCH):
        after = order
        now = clock.now()
        if order.state is not OrderState.INTENT and now < until and is_due(order, now, policy):
            after = await _take_further(
                engine, gateway, order, holder=holder, clock=clock, policy=policy
            )
        if after.may_be_alive:
            left.append(after)
    return left


async def order_on_record(conn: AsyncConnection, order_id: UUID) -> VenueOrder:
    """Return an order.

    Raises:
        NoOrder: there is none.
    """
    return await get_order(conn, order_id)


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
        if order.revived_at is not None or order.cancel_requested_at is not None:
            await gateway.cancel(order)  # wanted by nobody any more
        return await refresh(engine, gateway, order.id, holder=holder, clock=clock)
    except VenueUnavailable:
        return order


async def _open_orders(
    conn: AsyncConnection, gateway: VenueGateway, symbol: str | None
) -> list[VenueOrder]:
    return await list_in_states(
        conn,
        gateway.venue,
        gateway.account,
        OPEN_STATES,
        symbol=symbol,
        revived=True,
        unseen_first=True,
        limit=ORDERS_MAX,
    )


async def _look_again(
    engine: AsyncEngine, gateway: VenueGateway, order_id: UUID, *, holder: str, clock: Clock
) -> VenueOrder:
    """Ask about an order that nobody has to ask about any more; others are left to their workers."""
    order = await read_order(engine, order_id)
    if order.state not in FINAL_STATES:
        return order
    report = await gateway.find_order(order)
    if report is None:
        return order
    return await record_seen(engine, order_id, report, actor=f"system:{holder}", now=clock.now())


async def _look_for(gateway: VenueGateway, order: VenueOrder) -> OrderReport | None:
    """Look for an order in both places; None: both say that it is not there."""
    report = await gateway.find_order(order)
    if report is not None:
        return report
    since = listed_from(order, gateway.venue_time(order.created_at)) - LISTING_MARGIN
    listed = await gateway.list_orders(order.symbol, since)
    return next((r for r in listed if r.client_order_id == order.client_order_id), None)


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
        if row.state is not OrderState.UNKNOWN or row.sought_since is None:
            return row
        waited = now - row.sought_since
        if waited < policy.escalate_after:
            return row
        reason = f"no evidence for {waited}"
        row = await advance(conn, row, OrderState.ESCALATED, reason=reason, actor=actor, now=now)
        await reduce_only(
            conn,
            row.venue,
            row.account,
            reason=f"order {row.client_order_id}: {reason}",
            actor=actor,
            now=now,
        )
        return row

    return write
