"""Rows of trading: read into values, written with their events."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, next_version, record
from kernel.money import Asset, Price
from trading.errors import NoDeal, NoHedgeLine
from trading.model import (
    DEAL_STATES,
    Deal,
    DealRequest,
    DealSide,
    DealState,
    HedgeLine,
    HedgeState,
)
from trading.tables import deal, fill_posting, hedge
from venues.model import VenueFill

DEAL = "deal"
HEDGE = "hedge"


async def insert_deal(conn: AsyncConnection, item: Deal) -> bool:
    """Insert a deal; False: its client reference is taken. Waits for whoever inserts the same."""
    asked = item.request
    values = {
        "id": item.id,
        "book": item.book,
        "client_ref": asked.client_ref,
        "desk": asked.desk,
        "party": asked.party,
        "side": str(asked.side),
        "base": asked.base.code,
        "base_scale": asked.base.scale,
        "quote": asked.quote.code,
        "quote_scale": asked.quote.scale,
        "base_units": asked.base_units,
        "quote_units": item.quote_units,
        "price_numerator": asked.price.numerator,
        "price_denominator": asked.price.denominator,
        "fee_units": asked.fee_units,
        "price_id": asked.price_id,
        "value_date": asked.value_date,
        "booked_by": asked.booked_by,
        "reason": asked.reason,
        "state": str(item.state),
        "amends": item.amends,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
    }
    statement = (
        insert(deal).values(**values).on_conflict_do_nothing(index_elements=["book", "client_ref"])
    )
    return (await conn.execute(statement)).rowcount == 1


async def find_deal(conn: AsyncConnection, book: int, client_ref: str) -> Deal | None:
    """Return the deal with this client reference, if there is one."""
    query = select(deal).where(deal.c.book == book, deal.c.client_ref == client_ref)
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else deal_of(row)


async def get_deal(conn: AsyncConnection, deal_id: UUID, *, lock: bool = False) -> Deal:
    """Return a deal, locked for this transaction if asked.

    Raises:
        NoDeal: there is none.
    """
    query = select(deal).where(deal.c.id == deal_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoDeal(f"no deal {deal_id} is on record")
    return deal_of(row)


async def advance_deal(
    conn: AsyncConnection, item: Deal, state: DealState, *, by: str, reason: str, now: datetime
) -> Deal:
    """Take the locked *item* to *state* and record the event."""
    DEAL_STATES.require(item.state, state)
    statement = update(deal).where(deal.c.id == item.id).values(state=str(state), updated_at=now)
    row = (await conn.execute(statement.returning(deal))).one()
    await record_deal_event(conn, item, state, by=by, reason=reason, now=now)
    return deal_of(row)


async def record_deal_event(
    conn: AsyncConnection, item: Deal, state: DealState, *, by: str, reason: str, now: datetime
) -> None:
    """Record that *item* went (from its state, unless it is new) to *state*."""
    asked = item.request
    version = await next_version(conn, DEAL, item.id)
    event = DomainEvent(
        entity_type=DEAL,
        entity_id=item.id,
        version=version,
        name=_DEAL_EVENTS[state],
        at=now,
        actor=by,
        reason=reason,
        from_state=None if version == 1 else str(item.state),
        to_state=str(state),
        payload={
            "client_ref": asked.client_ref,
            "desk": asked.desk,
            "party": asked.party,
            "side": str(asked.side),
            "base": asked.base.code,
            "base_units": str(asked.base_units),
            "quote": asked.quote.code,
            "quote_units": str(item.quote_units),
            "fee_units": str(asked.fee_units),
        },
    )
    await record(conn, [event])


async def lock_line(conn: AsyncConnection, desk: str, asset: str) -> HedgeLine:
    """Lock a hedge line and return it: planning and posting of one line take turns.

    Raises:
        NoHedgeLine: there is none.
    """
    return await get_line(conn, desk, asset, lock=True)


async def get_line(
    conn: AsyncConnection, desk: str, asset: str, *, lock: bool = False
) -> HedgeLine:
    """Return a hedge line, locked for this transaction if asked.

    Raises:
        NoHedgeLine: there is none.
    """
    query = select(hedge).where(hedge.c.desk == desk, hedge.c.asset == asset)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoHedgeLine(f"nobody has said where {asset} of desk {desk} is hedged")
    return line_of(row)


async def insert_line(
    conn: AsyncConnection, line: HedgeLine, line_id: UUID, *, now: datetime
) -> bool:
    """Insert a line; False: the line or its instrument is taken."""
    statement = (
        insert(hedge)
        .values(
            id=line_id,
            desk=line.desk,
            asset=line.asset,
            venue=line.venue,
            account=line.account,
            symbol=line.symbol,
            target=line.target,
            state=str(line.state),
            sequence=line.sequence,
            created_at=now,
            updated_at=now,
        )
        .on_conflict_do_nothing()
    )
    return (await conn.execute(statement)).rowcount == 1


async def list_lines(conn: AsyncConnection) -> list[HedgeLine]:
    """Return every hedge line, by desk and asset."""
    rows = await conn.execute(select(hedge).order_by(hedge.c.desk, hedge.c.asset))
    return [line_of(row) for row in rows]


async def update_line(
    conn: AsyncConnection, line: HedgeLine, *, now: datetime, **columns: object
) -> UUID:
    """Update the locked *line*; return its id."""
    statement = (
        update(hedge)
        .where(hedge.c.desk == line.desk, hedge.c.asset == line.asset)
        .values(updated_at=now, **columns)
        .returning(hedge.c.id)
    )
    line_id: UUID = (await conn.execute(statement)).scalar_one()
    return line_id


async def insert_posting(
    conn: AsyncConnection,
    fill: VenueFill,
    *,
    book: int,
    desk: str,
    fee_value: int | None,
    fee_price_id: UUID | None,
    now: datetime,
) -> None:
    """Insert the row that says that *fill* is posted; a second one breaks its unique key."""
    await conn.execute(
        insert(fill_posting).values(
            fill_id=fill.id,
            book=book,
            desk=desk,
            venue=fill.venue,
            account=fill.account,
            symbol=fill.symbol,
            trade_id=fill.trade_id,
            fee_value=fee_value,
            fee_price_id=fee_price_id,
            posted_at=now,
        )
    )


def deal_of(row: Row[Any]) -> Deal:
    """Return the value of a deal's row."""
    base, quote = Asset(row.base, row.base_scale), Asset(row.quote, row.quote_scale)
    return Deal(
        id=row.id,
        book=row.book,
        request=DealRequest(
            client_ref=row.client_ref,
            desk=row.desk,
            party=row.party,
            side=DealSide(row.side),
            base=base,
            quote=quote,
            base_units=row.base_units,
            price=Price(base, quote, row.price_numerator, row.price_denominator),
            fee_units=row.fee_units,
            price_id=row.price_id,
            value_date=row.value_date,
            booked_by=row.booked_by,
            reason=row.reason,
        ),
        quote_units=row.quote_units,
        state=DealState(row.state),
        pulled_at=row.pulled_at,
        amends=row.amends,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def line_of(row: Row[Any]) -> HedgeLine:
    """Return the value of a hedge line's row."""
    return HedgeLine(
        desk=row.desk,
        asset=row.asset,
        venue=row.venue,
        account=row.account,
        symbol=row.symbol,
        target=row.target,
        state=HedgeState(row.state),
        sequence=row.sequence,
    )


_DEAL_EVENTS = {
    DealState.BOOKED: "DealBooked",
    DealState.AMENDED: "DealAmended",
    DealState.CANCELLED: "DealCancelled",
    DealState.SETTLING: "DealSettling",
    DealState.SETTLED: "DealSettled",
}
