"""Rows of venues: read into values, written one state at a time."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import StaleFence
from kernel.events import DomainEvent, next_version, record
from matching.model import Side, TimeInForce
from venues.errors import NoOrder
from venues.model import ORDER_STATES, OrderState, VenueFill, VenueOrder
from venues.tables import fill, venue_order

ENTITY = "venue-order"
STRAY = "venue-fill"
FILLS_ACTOR = "system:venue-fills"


async def insert_order(conn: AsyncConnection, order: VenueOrder) -> bool:
    """Insert an intent; False: its client order id is taken."""
    values: dict[str, Any] = {
        "id": order.id,
        "venue": order.venue,
        "account": order.account,
        "symbol": order.symbol,
        "instrument_version": order.instrument_version,
        "side": order.side.value,
        "base_units": order.base_units,
        "quantity": order.quantity,
        "price": order.price,
        "time_in_force": order.time_in_force.value,
        "reference": order.reference,
        "client_order_id": order.client_order_id,
        "state": str(order.state),
        "state_reason": order.state_reason,
        "recv_window_ms": order.recv_window // timedelta(milliseconds=1),
        "created_at": order.created_at,
        "updated_at": order.updated_at,
    }
    statement = insert(venue_order).values(**values).on_conflict_do_nothing()
    return (await conn.execute(statement)).rowcount == 1


async def get_order(conn: AsyncConnection, order_id: UUID, *, lock: bool = False) -> VenueOrder:
    """Return an order, locked for this transaction if asked.

    Raises:
        NoOrder: there is none.
    """
    query = select(venue_order).where(venue_order.c.id == order_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoOrder(f"no order {order_id} is on record")
    return order_of(row)


async def find_by_client_id(
    conn: AsyncConnection, venue: str, account: str, client_order_id: str
) -> VenueOrder | None:
    """Return the order with this client order id, if there is one."""
    row = (
        await conn.execute(
            select(venue_order).where(
                venue_order.c.venue == venue,
                venue_order.c.account == account,
                venue_order.c.client_order_id == client_order_id,
            )
        )
    ).one_or_none()
    return None if row is None else order_of(row)


async def list_in_states(
    conn: AsyncConnection,
    venue: str,
    account: str,
    states: Collection[OrderState],
    *,
    symbol: str | None = None,
    limit: int,
) -> list[VenueOrder]:
    """Return orders in one of *states*, oldest first."""
    query = select(venue_order).where(
        venue_order.c.venue == venue,
        venue_order.c.account == account,
        venue_order.c.state.in_([str(state) for state in states]),
    )
    if symbol is not None:
        query = query.where(venue_order.c.symbol == symbol)
    rows = await conn.execute(
        query.order_by(venue_order.c.created_at, venue_order.c.id).limit(limit)
    )
    return [order_of(row) for row in rows]


async def lock_fenced(conn: AsyncConnection, order: VenueOrder) -> VenueOrder:
    """Lock the row and return it as it is now, under the claim *order* was read with.

    Raises:
        StaleFence: another worker has claimed it since.
    """
    current = await get_order(conn, order.id, lock=True)
    if current.fence != order.fence:
        raise StaleFence(f"order {order.client_order_id} was taken over by another worker")
    return current


async def advance(
    conn: AsyncConnection,
    order: VenueOrder,
    state: OrderState,
    *,
    reason: str,
    actor: str,
    now: datetime,
    **columns: object,
) -> VenueOrder:
    """Take the locked *order* to *state*, with other *columns*, and record the event."""
    ORDER_STATES.require(order.state, state)
    values = {"state": str(state), "state_reason": reason, "updated_at": now, **columns}
    row = (
        await conn.execute(
            update(venue_order)
            .where(venue_order.c.id == order.id)
            .values(**values)
            .returning(venue_order)
        )
    ).one()
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=order.id,
        version=await next_version(conn, ENTITY, order.id),
        name=_EVENT_NAMES[state],
        at=now,
        actor=actor,
        reason=reason,
        from_state=str(order.state),
        to_state=str(state),
        payload={"client_order_id": order.client_order_id, "reference": order.reference},
    )
    await record(conn, [event])
    return order_of(row)


async def record_late_trade(conn: AsyncConnection, order: VenueOrder, *, now: datetime) -> None:
    """Record that the locked *order* traded although it was over: somebody must look why."""
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=order.id,
        version=await next_version(conn, ENTITY, order.id),
        name="OrderTradedLate",
        at=now,
        actor=FILLS_ACTOR,
        reason=f"the venue traded {order.executed_units} units of an order that was {order.state}",
        payload={
            "client_order_id": order.client_order_id,
            "venue_order_id": order.venue_order_id,
            "reference": order.reference,
            "executed_units": str(order.executed_units),
        },
    )
    await record(conn, [event])


async def record_stray_fill(conn: AsyncConnection, item: VenueFill, *, now: datetime) -> None:
    """Record, once, that a trade in our account belongs to no order of ours."""
    if await next_version(conn, STRAY, item.id) > 1:
        return
    event = DomainEvent(
        entity_type=STRAY,
        entity_id=item.id,
        version=1,
        name="FillOfNoOrder",
        at=now,
        actor=FILLS_ACTOR,
        reason=f"no order of ours is {item.venue_order_id} at {item.venue}/{item.account}",
        payload={
            "symbol": item.symbol,
            "trade_id": item.trade_id,
            "venue_order_id": item.venue_order_id,
            "side": item.side.value,
            "base_units": str(item.base_units),
        },
    )
    await record(conn, [event])


async def set_columns(conn: AsyncConnection, order: VenueOrder, **columns: object) -> VenueOrder:
    """Update columns of the locked *order* other than its state."""
    statement = update(venue_order).where(venue_order.c.id == order.id).values(**columns)
    row = (await conn.execute(statement.returning(venue_order))).one()
    return order_of(row)


async def record_intent(conn: AsyncConnection, order: VenueOrder, *, actor: str) -> None:
    """Record the event of a new intent."""
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=order.id,
        version=1,
        name=_EVENT_NAMES[OrderState.INTENT],
        at=order.created_at,
        actor=actor,
        reason=order.state_reason,
        to_state=str(OrderState.INTENT),
        payload={
            "client_order_id": order.client_order_id,
            "reference": order.reference,
            "venue": order.venue,
            "account": order.account,
            "symbol": order.symbol,
            "side": order.side.value,
            "quantity": order.quantity,
            "price": order.price,
        },
    )
    await record(conn, [event])


async def insert_fills(
    conn: AsyncConnection, fills: Collection[VenueFill], *, source: str, now: datetime
) -> int:
    """Insert fills that are not there yet; return how many were new."""
    if not fills:
        return 0
    rows = [
        {
            "id": item.id,
            "venue": item.venue,
            "account": item.account,
            "symbol": item.symbol,
            "trade_id": item.trade_id,
            "venue_order_id": item.venue_order_id,
            "side": item.side.value,
            "price": item.price,
            "base": item.base,
            "base_units": item.base_units,
            "quote": item.quote,
            "quote_units": item.quote_units,
            "quote_dust": item.quote_dust,
            "fee_asset": item.fee_asset,
            "fee_units": item.fee_units,
            "fee_dust": item.fee_dust,
            "is_maker": item.is_maker,
            "executed_at": item.executed_at,
            "source": source,
            "recorded_at": now,
        }
        for item in fills
    ]
    statement = (
        insert(fill)
        .values(rows)
        .on_conflict_do_nothing(index_elements=["venue", "account", "symbol", "trade_id"])
        .returning(fill.c.trade_id)
    )
    return len((await conn.execute(statement)).all())


def order_of(row: Row[Any]) -> VenueOrder:
    """Return the value of an order's row."""
    return VenueOrder(
        id=row.id,
        venue=row.venue,
        account=row.account,
        symbol=row.symbol,
        instrument_version=row.instrument_version,
        side=Side(row.side),
        base_units=row.base_units,
        quantity=row.quantity,
        price=row.price,
        time_in_force=TimeInForce(row.time_in_force),
        reference=row.reference,
        client_order_id=row.client_order_id,
        venue_order_id=row.venue_order_id,
        state=OrderState(row.state),
        state_reason=row.state_reason,
        signed_at=row.signed_at,
        recv_window=timedelta(milliseconds=row.recv_window_ms),
        executed_units=row.executed_units,
        created_at=row.created_at,
        updated_at=row.updated_at,
        fence=row.fence,
    )


def fill_of(row: Row[Any]) -> VenueFill:
    """Return the value of a fill's row."""
    return VenueFill(
        venue=row.venue,
        account=row.account,
        symbol=row.symbol,
        trade_id=row.trade_id,
        venue_order_id=row.venue_order_id,
        side=Side(row.side),
        price=row.price,
        base=row.base,
        base_units=row.base_units,
        quote=row.quote,
        quote_units=row.quote_units,
        quote_dust=row.quote_dust,
        fee_asset=row.fee_asset,
        fee_units=row.fee_units,
        fee_dust=row.fee_dust,
        is_maker=row.is_maker,
        executed_at=row.executed_at,
    )


def same_order(one: VenueOrder, other: VenueOrder) -> str | None:
    """Return the first field of the tickets of two orders that differs, if any."""
    fields = (
        "symbol",
        "instrument_version",
        "side",
        "base_units",
        "quantity",
        "price",
        "time_in_force",
        "reference",
    )
    return next((name for name in fields if getattr(one, name) != getattr(other, name)), None)


_EVENT_NAMES = {
    OrderState.INTENT: "OrderIntended",
    OrderState.SUBMITTING: "OrderSubmitted",
    OrderState.ACKED: "OrderAcked",
    OrderState.REFUSED: "OrderRefused",
    OrderState.UNKNOWN: "OrderOutcomeUnknown",
    OrderState.NOT_PLACED: "OrderNotPlaced",
    OrderState.ESCALATED: "OrderEscalated",
    OrderState.PARTIALLY_FILLED: "OrderPartiallyFilled",
    OrderState.FILLED: "OrderFilled",
    OrderState.CANCELLED: "OrderCancelled",
    OrderState.EXPIRED: "OrderExpired",
}
