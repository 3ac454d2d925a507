"""Sending an order: its row first, then the request, then what came of it.

The parts that the verbs of `venues.orders` are made of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel import tracing
from kernel.clock import Clock
from venues.account_state import is_halted
from venues.capabilities import Capabilities
from venues.claims import write_claimed, write_seen
from venues.errors import AccountHalted, AttemptRefused, OrderConflict, VenueUnavailable
from venues.lifecycle import why_not_again
from venues.model import (
    Accepted,
    OrderState,
    OrderTicket,
    Placement,
    PlacementRefused,
    RefusalKind,
    VenueOrder,
)
from venues.order_writer import OrderWriter
from venues.ports import VenueGateway
from venues.reports import record_placement
from venues.round_trips import rows_of_outcome
from venues.store import (
    find_by_client_id,
    insert_order,
    list_attempts,
    same_order,
)


def ordered(
    ticket: OrderTicket,
    capabilities: Capabilities,
    recv_window: timedelta,
    reason: str,
    now: datetime,
    *,
    signed_at: datetime | None = None,
) -> VenueOrder:
    """Return the row of an intent; with *signed_at*, of one that is sent at once."""
    return VenueOrder(
        id=ticket.order_id(now),
        venue=ticket.venue,
        account=ticket.account,
        symbol=ticket.symbol,
        instrument_version=ticket.instrument_version,
        kind=ticket.kind,
        side=ticket.side,
        base_units=ticket.base_units,
        quantity=ticket.quantity,
        price=ticket.price,
        time_in_force=ticket.time_in_force,
        reference=ticket.reference,
        intent=ticket.intent,
        attempt=ticket.attempt,
        client_order_id=capabilities.client_id(ticket.named()),
        venue_order_id=None,
        state=OrderState.INTENT if signed_at is None else OrderState.SUBMITTING,
        state_reason=reason,
        signed_at=signed_at,
        recv_window=capabilities.window(recv_window),
        executed_units=0,
        version=1,
        created_at=now,
        updated_at=now,
        fence=0 if signed_at is None else 1,
    )


async def insert_once(
    conn: AsyncConnection,
    order: VenueOrder,
    *,
    lease_holder: str | None = None,
    lease_until: datetime | None = None,
) -> tuple[VenueOrder, bool]:
    """Insert *order*, or return the one on record of the same attempt; say which.

    The first attempt of an intent is guarded by the unique indexes alone, so that it costs one
    statement; a later one looks at those before it, under their locks.
    """
    if order.attempt > 1:
        earlier = await list_attempts(conn, order.venue, order.account, order.intent, lock=True)
        if all(item.attempt != order.attempt for item in earlier):
            why_not = why_not_again(earlier, order.attempt)
            if why_not is not None:
                raise AttemptRefused(why_not)
    if await insert_order(conn, order, lease_holder=lease_holder, lease_until=lease_until):
        if await is_halted(conn, order.venue, order.account):
            place = f"{order.venue}/{order.account}"
            raise AccountHalted(
                f"the account {place} is halted", remedy=f"Run `causeway venues release {place}`"
            )
        return order, True
    known = await find_by_client_id(conn, order.venue, order.account, order.client_order_id)
    if known is None:
        raise AttemptRefused(f"another order of intent {order.intent} may be at the venue")
    field = same_order(known, order)
    if field is not None:
        raise OrderConflict(f"order {order.client_order_id} is on record with another {field}")
    return known, False


async def write_and_place(
    gateway: VenueGateway, order: VenueOrder, written: asyncio.Future[bool]
) -> Placement | None:
    """Send an order that is being written down; None: it was not written, so it was not sent.

    The request is made and signed while the statement is under way. It goes out once the order is
    known to be committed.

    Args:
        gateway: to send it through.
        order: as it is on record then.
        written: tells whether it was committed.

    Raises:
        CommitUnknown: the order may be on record, and was not sent.
    """
    try:
        await asyncio.sleep(0)  # lets the statement begin
        placement = await place(gateway, order, after=_Committed(written))
        return placement if await written else None
    except _NotWritten:
        return None
    finally:
        written.cancel()  # whoever goes away before it begins leaves nothing behind


class _NotWritten(Exception):
    """An order is not to be sent after all."""


@dataclass(frozen=True, slots=True)
class _Committed:
    """What a request waits for before it goes out; whoever waits for it goes on only if it is true."""

    written: asyncio.Future[bool]

    def __await__(self) -> Generator[Any, None, None]:
        """Wait for the answer."""
        if not (yield from self.written):
            raise _NotWritten


async def record_sent(
    writer: OrderWriter,
    order: VenueOrder,
    placement: Placement,
    *,
    actor: str,
    clock: Clock,
    is_later: bool,
) -> VenueOrder:
    """Record what came of sending an order, together with what came of others.

    A plain yes may be recorded later: if it never is the order is found as sent, and resolved, as
    after a crash at that moment.
    """
    found = rows_of_outcome(order, placement, actor=actor, now=clock.now())
    if found is None:
        return await record_outcome(writer.engine, order, placement, actor=actor, clock=clock)
    after, rows = found

    async def record_plainly() -> VenueOrder:
        return await record_outcome(writer.engine, order, placement, actor=actor, clock=clock)

    if (
        is_later
        and isinstance(placement, Accepted)
        and writer.writes_later(rows, otherwise=record_plainly, about=order.client_order_id)
    ):
        return after
    return after if await writer.write_outcome(rows) else await record_plainly()


async def place(
    gateway: VenueGateway, order: VenueOrder, after: Awaitable[None] | None = None
) -> Placement:
    """Send an order that is on record as sent; after a refusal for its time look at the clock."""
    with tracing.working("venue-order place", [order.id]):
        placement = await gateway.place(order, after=after)
    if isinstance(placement, PlacementRefused) and placement.kind is RefusalKind.CLOCK:
        await _try_to_synchronise(gateway)
    return placement


async def record_outcome(
    engine: AsyncEngine, order: VenueOrder, placement: Placement, *, actor: str, clock: Clock
) -> VenueOrder:
    """Record what came of sending *order*, whatever has become of its row meanwhile."""
    if isinstance(placement, Accepted):
        report = placement.report
        return await write_seen(engine, order, report, actor=actor, now=clock.now())
    return await write_claimed(
        engine,
        order,
        lambda conn, row: record_placement(conn, row, placement, actor=actor, now=clock.now()),
    )


async def _try_to_synchronise(gateway: VenueGateway) -> None:
    try:
        await gateway.synchronise()
    except VenueUnavailable:
        return


def to_milliseconds(at: datetime) -> datetime:
    """Return *at* cut to the millisecond, which is all that the request can say."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
