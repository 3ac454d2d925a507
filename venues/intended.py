"""Sending orders that are on record as intents: many of them with one statement before, one after.

Whoever decides on several orders at once writes their rows in the transaction of the decision
(`venues.orders.intend`), and sends them when it is committed. A crash in between leaves intents, which
were never sent and are given up in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from kernel.clock import Clock
from kernel.errors import BadInput, OutcomeUnknown, OutsideUnavailable, ungrouped
from venues.claims import LEASE
from venues.model import OrderState, VenueOrder
from venues.order_sending import record_sent, to_milliseconds, write_and_place
from venues.order_writer import GROUP_MAX, OrderWriter
from venues.orders import submit
from venues.ports import VenueGateway
from venues.round_trips import rows_of_sending

log = structlog.get_logger()


async def send_intended(
    writer: OrderWriter,
    gateway: VenueGateway,
    orders: Sequence[VenueOrder],
    *,
    holder: str,
    clock: Clock,
    is_recorded_later: bool = False,
) -> list[VenueOrder]:
    """Send committed intents of one account, each once and all at the same time; return them after.

    They share the writer's statements and commits, also with those that other tasks send through
    other gateways meanwhile. What does not go that way goes as `venues.orders.submit` does: an intent of a
    halted account is ended, one that somebody else has sent or given up is returned as it is.

    Where the database fails for one, the others go on, the log says so and `venues.orders.resume`
    clears up how it is on record. It is returned as sent, with an outcome that is not known, if the
    venue was asked; or as it was given, and then whether it was sent is not known here.

    Args:
        writer: shared by all that send in this process.
        gateway: of the account.
        orders: as `venues.orders.intend` has returned them, their transaction committed.
        holder: name of the process; its actor is ``system:<holder>``.
        clock: tells the time that is signed.
        is_recorded_later: return with the venue's answers; as in `venues.orders.send`.

    Raises:
        BadInput: of another account than the gateway's, one given twice, or too many.
        NoOrder: one is not on record.
    """
    if len({order.id for order in orders}) != len(orders) or len(orders) > GROUP_MAX:
        raise BadInput(f"at most {GROUP_MAX} different orders are sent at once")
    if any((one.venue, one.account) != (gateway.venue, gateway.account) for one in orders):
        raise BadInput(f"not all orders are of {gateway.venue}/{gateway.account}")

    async def one(order: VenueOrder) -> VenueOrder:
        try:
            return await _send(writer, gateway, order, holder, clock, is_later=is_recorded_later)
        except (OutcomeUnknown, OutsideUnavailable) as error:
            log.warning("an intent may not be sent", order=order.client_order_id, error=str(error))
            return order

    with ungrouped():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(order)) for order in orders]
    return [task.result() for task in tasks]


async def _send(
    writer: OrderWriter,
    gateway: VenueGateway,
    order: VenueOrder,
    holder: str,
    clock: Clock,
    *,
    is_later: bool,
) -> VenueOrder:
    if order.state is OrderState.INTENT:
        actor = f"system:{holder}"
        now = clock.now()
        sent, rows = rows_of_sending(
            order,
            signed_at=to_milliseconds(gateway.venue_time(now)),
            holder=holder,
            lease_until=now + LEASE,
            actor=actor,
            now=now,
        )
        placement = await write_and_place(gateway, sent, writer.write_sending(rows))
        if placement is not None:
            try:
                return await record_sent(
                    writer, sent, placement, actor=actor, clock=clock, is_later=is_later
                )
            except (OutcomeUnknown, OutsideUnavailable) as error:
                name = order.client_order_id
                log.warning("what came of an order is not on record", order=name, error=str(error))
                return sent
    return await submit(writer.engine, gateway, order.id, holder=holder, clock=clock)
