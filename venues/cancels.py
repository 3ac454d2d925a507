"""Taking orders back. A cancel is a wish: until the venue says it is over, the order may trade.

That a cancel is under way is a time on the order, not a state, because trades arrive meanwhile. It is
committed before the venue is asked, so that after a crash `venues.orders.resume` asks again: a cancel
may be sent as often as one likes.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import BadInput
from venues.claims import record_seen
from venues.errors import VenueUnavailable
from venues.model import OPEN_STATES, UNSETTLED_STATES, OrderState, VenueOrder
from venues.orders import ORDERS_MAX, refresh
from venues.ports import VenueGateway
from venues.store import advance, get_order, list_in_states, note, set_columns

DEAD_MAN_MAX: Final = timedelta(hours=24)


async def cancel(
    engine: AsyncEngine, gateway: VenueGateway, order_id: UUID, *, holder: str, clock: Clock
) -> VenueOrder:
    """Ask the venue to cancel an order, then record what it says; fills may still arrive.

    An intent that was not sent is given up. An order of unknown outcome is cancelled by its id: if
    that succeeds it is proof that the order existed; if the venue finds nothing it proves nothing,
    because the order may still be on its way.

    Raises:
        VenueUnavailable: the venue does not answer; the wish stays on record.
    """
    order = await transact(
        engine,
        lambda conn: _wish(conn, order_id, actor=f"system:{holder}", now=clock.now()),
    )
    if not order.may_be_alive:
        return order
    report = await gateway.cancel(order)
    if order.state not in UNSETTLED_STATES:
        return await refresh(engine, gateway, order_id, holder=holder, clock=clock)
    if report is None:
        return order
    return await record_seen(engine, order_id, report, actor=f"system:{holder}", now=clock.now())


async def cancel_all(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbol: str | None,
    *,
    holder: str,
    clock: Clock,
) -> list[VenueOrder]:
    """Ask the venue to cancel everything, or everything of one symbol; return what may be alive.

    Orders at the venue that are not ours are cancelled too: it is the account that is cleared.

    Raises:
        VenueUnavailable: the venue does not answer; the wishes stay on record.
    """
    orders = await ask_to_cancel(
        engine, gateway.venue, gateway.account, symbol, holder=holder, clock=clock
    )
    await gateway.cancel_all(symbol)
    left = []
    for order in orders:
        after = order
        if order.may_be_alive and order.state not in UNSETTLED_STATES:
            try:
                after = await refresh(engine, gateway, order.id, holder=holder, clock=clock)
            except VenueUnavailable:
                after = order
        if after.may_be_alive:
            left.append(after)
    return left


async def ask_to_cancel(
    engine: AsyncEngine,
    venue: str,
    account: str,
    symbol: str | None,
    *,
    holder: str,
    clock: Clock,
) -> list[VenueOrder]:
    """Put on record that everything, or everything of one symbol, is to be taken back.

    No venue is asked: whoever looks after the account does, with `venues.orders.resume`. Intents that
    were not sent are given up. Returns each order that was open, as it is now.
    """

    async def work(conn: AsyncConnection) -> list[VenueOrder]:
        wished: list[VenueOrder] = []
        actor = f"system:{holder}"
        while True:
            orders = await list_in_states(
                conn,
                venue,
                account,
                OPEN_STATES,
                symbol=symbol,
                revived=True,
                after=wished[-1] if wished else None,
                limit=ORDERS_MAX,
            )
            wished += [await _wish(conn, item.id, actor=actor, now=clock.now()) for item in orders]
            if len(orders) < ORDERS_MAX:
                return wished

    return await transact(engine, work)


async def arm_dead_man(gateway: VenueGateway, *, after: timedelta) -> bool:
    """Let the venue cancel everything unless it is told again within *after*; zero disarms.

    False: the venue has no such switch, so only our own watch stops what we left behind.

    Raises:
        BadInput: *after* is negative or longer than a day.
        VenueUnavailable: the venue does not answer; whether it is armed is not known.
    """
    if not timedelta(0) <= after <= DEAD_MAN_MAX:
        raise BadInput(f"a dead man's switch waits between nothing and {DEAD_MAN_MAX}")
    if not gateway.capabilities.dead_man:
        return False
    return await gateway.arm_dead_man(after)


async def _wish(conn: AsyncConnection, order_id: UUID, *, actor: str, now: datetime) -> VenueOrder:
    row = await get_order(conn, order_id, lock=True)
    if row.state is OrderState.INTENT:
        return await advance(
            conn,
            row,
            OrderState.NOT_PLACED,
            reason="cancelled before it was sent",
            actor=actor,
            now=now,
        )
    if not row.may_be_alive or row.cancel_requested_at is not None:
        return row
    row = await set_columns(conn, row, cancel_requested_at=now)
    return await note(conn, row, "OrderCancelRequested", reason="asked for", actor=actor, now=now)
