"""Rows of venues: read into values, written one state at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, false, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import StaleFence
from kernel.events import REASON_LENGTH_MAX, DomainEvent, list_history, record
from matching.model import Side, TimeInForce
from venues.errors import NoOrder
from venues.model import (
    OPEN_STATES,
    ORDER_STATES,
    UNSETTLED_STATES,
    OrderKind,
    OrderState,
    RefusalKind,
    VenueFill,
    VenueOrder,
)
from venues.tables import fill, venue_order

ENTITY = "venue-order"
STRAY = "venue-fill"
FILLS_ACTOR = "system:venue-fills"


async def insert_order(
    conn: AsyncConnection,
    order: VenueOrder,
    *,
    lease_holder: str | None = None,
    lease_until: datetime | None = None,
) -> bool:
    """Insert a new order; False: its client order id or its attempt is taken, or one is alive."""
    values = order_row(order, lease_holder=lease_holder, lease_until=lease_until)
    statement = insert(venue_order).values(**values).on_conflict_do_nothing()
    return (await conn.execute(statement)).rowcount == 1


def order_row(
    order: VenueOrder, *, lease_holder: str | None, lease_until: datetime | None
) -> dict[str, Any]:
    """Return the columns of a new order."""
    return {
        "id": order.id,
        "venue": order.venue,
        "account": order.account,
        "symbol": order.symbol,
        "instrument_version": order.instrument_version,
        "kind": order.kind.value,
        "side": order.side.value,
        "base_units": order.base_units,
        "quantity": order.quantity,
        "price": order.price,
        "time_in_force": order.time_in_force.value,
        "reference": order.reference,
        "intent": order.intent,
        "attempt": order.attempt,
        "client_order_id": order.client_order_id,
        "state": str(order.state),
        "state_reason": order.state_reason,
        "signed_at": order.signed_at,
        "recv_window_ms": order.recv_window // timedelta(milliseconds=1),
        "created_at": order.created_at,
        "updated_at": order.updated_at,
        "version": order.version,
        "fence": order.fence,
        "lease_holder": lease_holder,
        "lease_until": lease_until,
    }


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


async def list_attempts(
    conn: AsyncConnection, venue: str, account: str, intent: str, *, lock: bool = False
) -> list[VenueOrder]:
    """Return the attempts of an intent, first one first; locked for this transaction if asked."""
    query = (
        select(venue_order)
        .where(
            venue_order.c.venue == venue,
            venue_order.c.account == account,
            venue_order.c.intent == intent,
        )
        .order_by(venue_order.c.attempt)
    )
    return [order_of(row) for row in await conn.execute(query.with_for_update() if lock else query)]


async def list_in_states(
    conn: AsyncConnection,
    venue: str,
    account: str,
    states: Collection[OrderState],
    *,
    symbol: str | None = None,
    revived: bool = False,
    unseen_first: bool = False,
    after: VenueOrder | None = None,
    limit: int,
) -> list[VenueOrder]:
    """Return orders in one of *states*, or *revived* ones too, oldest first, those *after* one.

    With *unseen_first* those come first that were looked at least lately, so that every order gets
    its turn however many there are.
    """
    query = select(venue_order).where(
        venue_order.c.venue == venue,
        venue_order.c.account == account,
        or_(
            venue_order.c.state.in_([str(state) for state in states]),
            venue_order.c.revived_at.is_not(None) if revived else false(),
        ),
    )
    if symbol is not None:
        query = query.where(venue_order.c.symbol == symbol)
    age = (venue_order.c.created_at, venue_order.c.id)
    if after is not None:
        query = query.where(tuple_(*age) > (after.created_at, after.id))
    first = (venue_order.c.looked_at.asc().nulls_first(),) if unseen_first else ()
    rows = await conn.execute(query.order_by(*first, *age).limit(limit))
    return [order_of(row) for row in rows]


async def last_looked_at(conn: AsyncConnection, venue: str, account: str) -> datetime | None:
    """Return when the venue was last asked about any open order of the account."""
    found: datetime | None = await conn.scalar(
        select(func.max(venue_order.c.looked_at)).where(
            venue_order.c.venue == venue,
            venue_order.c.account == account,
            venue_order.c.state.in_([str(state) for state in OPEN_STATES]),
        )
    )
    return found


async def seek_from_now(conn: AsyncConnection, order: VenueOrder, *, now: datetime) -> None:
    """Let the time in which unsettled orders of the account were looked for begin at *now*.

    Rows that others have locked are left to them: they see the same pause.
    """
    others = (
        select(venue_order.c.id)
        .where(
            venue_order.c.venue == order.venue,
            venue_order.c.account == order.account,
            venue_order.c.state.in_([str(state) for state in UNSETTLED_STATES]),
            venue_order.c.sought_since.is_not(None),
            venue_order.c.id != order.id,
        )
        .order_by(venue_order.c.id)
        .with_for_update(skip_locked=True)
    )
    await conn.execute(
        update(venue_order).where(venue_order.c.id.in_(others)).values(sought_since=now)
    )


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
    *states: OrderState,
    reason: str,
    actor: str,
    now: datetime,
    **columns: object,
) -> VenueOrder:
    """Take the locked *order* through *states*, with other *columns*, and record the events."""
    events = []
    for state in states:
        events.append(step_event(order, state, reason=reason, actor=actor, now=now))
        order = await set_columns(
            conn,
            order,
            state=str(state),
            state_reason=reason[:REASON_LENGTH_MAX],
            updated_at=now,
            version=order.version + 1,
            **columns,
        )
    await record(conn, events)
    return order


def step_event(
    order: VenueOrder, state: OrderState, *, reason: str, actor: str, now: datetime
) -> DomainEvent:
    """Return the event of taking *order* to *state*; refuse a step that does not exist."""
    ORDER_STATES.require(order.state, state)
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=order.id,
        version=order.version + 1,
        name=_EVENT_NAMES[state],
        at=now,
        actor=actor,
        reason=reason[:REASON_LENGTH_MAX],
        from_state=str(order.state),
        to_state=str(state),
        payload={"client_order_id": order.client_order_id, "reference": order.reference},
    )


async def note(
    conn: AsyncConnection,
    order: VenueOrder,
    name: str,
    *,
    reason: str,
    actor: str = FILLS_ACTOR,
    now: datetime,
    payload: Mapping[str, Any] | None = None,
) -> VenueOrder:
    """Record an event of the locked *order* that is not a step of its state."""
    order = await set_columns(conn, order, version=order.version + 1)
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=order.id,
        version=order.version,
        name=name,
        at=now,
        actor=actor,
        reason=reason[:REASON_LENGTH_MAX],
        payload={
            "client_order_id": order.client_order_id,
            "venue_order_id": order.venue_order_id,
            "reference": order.reference,
            "executed_units": str(order.executed_units),
            **(payload or {}),
        },
    )
    await record(conn, [event])
    return order


async def record_stray_fill(conn: AsyncConnection, item: VenueFill, *, now: datetime) -> None:
    """Record, once, that a trade in our account belongs to no order of ours."""
    await _record_of_fill(
        conn,
        item,
        "FillOfNoOrder",
        reason=f"no order of ours is {item.venue_order_id} at {item.venue}/{item.account}",
        now=now,
    )


async def record_contradiction(conn: AsyncConnection, item: VenueFill, *, now: datetime) -> bool:
    """Record, once, that the venue tells another story about a trade; False: it is on record."""
    return await _record_of_fill(
        conn,
        item,
        "FillContradicted",
        reason=f"trade {item.trade_id} of {item.symbol} was reported again with other content",
        now=now,
    )


async def _record_of_fill(
    conn: AsyncConnection, item: VenueFill, name: str, *, reason: str, now: datetime
) -> bool:
    told = await list_history(conn, STRAY, item.id)
    if any(event.name == name for event in told):
        return False
    event = DomainEvent(
        entity_type=STRAY,
        entity_id=item.id,
        version=len(told) + 1,
        name=name,
        at=now,
        actor=FILLS_ACTOR,
        reason=reason,
        payload={
            "symbol": item.symbol,
            "trade_id": item.trade_id,
            "venue_order_id": item.venue_order_id,
            "side": item.side.value,
            "base_units": str(item.base_units),
        },
    )
    await record(conn, [event])
    return True


async def set_columns(conn: AsyncConnection, order: VenueOrder, **columns: object) -> VenueOrder:
    """Update columns of the locked *order* other than its state."""
    statement = update(venue_order).where(venue_order.c.id == order.id).values(**columns)
    row = (await conn.execute(statement.returning(venue_order))).one()
    return order_of(row)


async def record_intent(conn: AsyncConnection, order: VenueOrder, *, actor: str) -> None:
    """Record the event of a new order."""
    await record(conn, [intent_event(order, actor=actor)])


def intent_event(order: VenueOrder, *, actor: str) -> DomainEvent:
    """Return the event of a new order, whether it is an intent or being sent at once."""
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=order.id,
        version=1,
        name=_EVENT_NAMES[order.state],
        at=order.created_at,
        actor=actor,
        reason=order.state_reason,
        to_state=str(order.state),
        payload={
            "client_order_id": order.client_order_id,
            "reference": order.reference,
            "venue": order.venue,
            "account": order.account,
            "symbol": order.symbol,
            "intent": order.intent,
            "attempt": order.attempt,
            "kind": order.kind.value,
            "side": order.side.value,
            "quantity": order.quantity,
            "price": order.price,
        },
    )


async def insert_fills(
    conn: AsyncConnection, fills: Collection[VenueFill], *, source: str, now: datetime
) -> int:
    """Insert fills that are not there yet; return how many were new.

    Two keys keep a fill from being there twice, its trade's and its own id: either is enough.
    """
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
    statement = insert(fill).values(rows).on_conflict_do_nothing().returning(fill.c.trade_id)
    return len((await conn.execute(statement)).all())


def order_of(row: Row[Any]) -> VenueOrder:
    """Return the value of an order's row."""
    return VenueOrder(
        id=row.id,
        venue=row.venue,
        account=row.account,
        symbol=row.symbol,
        instrument_version=row.instrument_version,
        kind=OrderKind(row.kind),
        side=Side(row.side),
        base_units=row.base_units,
        quantity=row.quantity,
        price=row.price,
        time_in_force=TimeInForce(row.time_in_force),
        reference=row.reference,
        intent=row.intent,
        attempt=row.attempt,
        client_order_id=row.client_order_id,
        venue_order_id=row.venue_order_id,
        state=OrderState(row.state),
        state_reason=row.state_reason,
        signed_at=row.signed_at,
        recv_window=timedelta(milliseconds=row.recv_window_ms),
        executed_units=row.executed_units,
        cancel_requested_at=row.cancel_requested_at,
        revived_at=row.revived_at,
        refusal=None if row.refusal is None else RefusalKind(row.refusal),
        sought_since=row.sought_since,
        looked_at=row.looked_at,
        version=row.version,
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
        "kind",
        "side",
        "base_units",
        "quantity",
        "price",
        "time_in_force",
        "reference",
        "intent",
        "attempt",
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
