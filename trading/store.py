"""Rows of deals: read into values, written in fixed numbers of statements with their events."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Row, Text, Uuid, any_, bindparam, func, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, next_version, next_versions, record
from kernel.money import Asset, Price
from kernel.rows import insert_new_rows
from trading.errors import NoDeal
from trading.model import (
    DEAL_STATES,
    Deal,
    DealOrigin,
    DealPurpose,
    DealRequest,
    DealSide,
    DealState,
)
from trading.tables import deal
from trading.terms.model import Rail, SettlementTarget

DEAL: Final = "deal"
_REFERENCES: Final = bindparam("client_refs", type_=ARRAY(Text))
_IDS: Final = bindparam("deal_ids", type_=ARRAY(Uuid))


async def insert_deals(conn: AsyncConnection, items: Sequence[Deal]) -> set[UUID]:
    """Insert those deals whose client reference and quote are free; return their ids.

    Waits for whoever inserts the same; the order of the references keeps two batches from waiting
    for each other.
    """
    ordered = sorted(items, key=lambda item: item.request.client_ref)
    return {
        UUID(str(deal_id))
        for deal_id in await insert_new_rows(conn, deal, [_row(item) for item in ordered])
    }


async def find_deals(
    conn: AsyncConnection, book: int, client_refs: Collection[str]
) -> dict[str, Deal]:
    """Return the deals that have one of these client references, by it.

    Each is looked up by itself: a plan that was kept since the table was small would read all of it.
    """
    asked = func.unnest(_REFERENCES).table_valued("ref").render_derived(name="asked")
    known = (
        select(deal).where(deal.c.book == book, deal.c.client_ref == asked.c.ref).limit(1).lateral()
    )
    query = select(known).select_from(asked.join(known, true()))
    rows = await conn.execute(query, {_REFERENCES.key: list(client_refs)})
    return {row.client_ref: deal_of(row) for row in rows}


async def find_deals_by_id(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Deal]:
    """Return those of *ids* that are deals, by id."""
    rows = await conn.execute(select(deal).where(deal.c.id == any_(_IDS)), {_IDS.key: list(ids)})
    return {row.id: deal_of(row) for row in rows}


async def get_deal(conn: AsyncConnection, deal_id: UUID, *, lock: bool = False) -> Deal:
    """Return a deal, locked for this transaction if asked.

    Raises:
        NoDeal: there is none.
    """
    query = select(deal).where(deal.c.id == deal_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoDeal(
            f"no deal {deal_id} is on record",
            remedy="Look for it with `causeway desk blotter`",
        )
    return deal_of(row)


async def advance_deal(
    conn: AsyncConnection, item: Deal, state: DealState, *, by: str, reason: str, now: datetime
) -> Deal:
    """Take the locked *item* to *state* and record the event."""
    DEAL_STATES.require(item.state, state)
    statement = update(deal).where(deal.c.id == item.id).values(state=str(state), updated_at=now)
    row = (await conn.execute(statement.returning(deal))).one()
    version = await next_version(conn, DEAL, item.id)
    event = _event(item, version, item.state, state, by=by, reason=reason, now=now)
    await record(conn, [event])
    return deal_of(row)


async def lock_deals(conn: AsyncConnection, ids: Collection[UUID]) -> list[Deal]:
    """Lock and return deals, by id.

    Raises:
        NoDeal: one of them is not on record.
    """
    rows = await conn.execute(
        select(deal).where(deal.c.id == any_(_IDS)).order_by(deal.c.id).with_for_update(),
        {_IDS.key: list(ids)},
    )
    found = [deal_of(row) for row in rows]
    missing = set(ids) - {item.id for item in found}
    if missing:
        raise NoDeal(f"no deal {min(missing)} is on record")
    return found


async def advance_deals(
    conn: AsyncConnection,
    items: Sequence[Deal],
    state: DealState,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> dict[UUID, Deal]:
    """Take the locked *items* to *state* and record the events, in a fixed number of statements."""
    for item in items:
        DEAL_STATES.require(item.state, state)
    if not items:
        return {}
    ids = [item.id for item in items]
    statement = update(deal).where(deal.c.id == any_(_IDS)).values(state=str(state), updated_at=now)
    rows = await conn.execute(statement.returning(deal), {_IDS.key: ids})
    after = {row.id: deal_of(row) for row in rows}
    versions = await next_versions(conn, DEAL, ids)
    await record(
        conn,
        [
            _event(item, versions[item.id], item.state, state, by=by, reason=reason, now=now)
            for item in items
        ],
    )
    return after


async def record_booked(conn: AsyncConnection, items: Sequence[Deal], *, now: datetime) -> None:
    """Record the first event of deals that were inserted just now."""
    await record(
        conn,
        [
            _event(
                item,
                1,
                None,
                DealState.BOOKED,
                by=item.request.booked_by,
                reason=item.request.reason,
                now=now,
            )
            for item in items
        ],
    )


def _event(
    item: Deal,
    version: int,
    before: DealState | None,
    after: DealState,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> DomainEvent:
    asked = item.request
    return DomainEvent(
        entity_type=DEAL,
        entity_id=item.id,
        version=version,
        name=_EVENT_NAMES[after],
        at=now,
        actor=by,
        reason=reason,
        from_state=None if before is None else str(before),
        to_state=str(after),
        payload={
            "client_ref": asked.client_ref,
            "desk": asked.desk,
            "party": asked.party,
            "purpose": str(asked.purpose),
            "side": str(asked.side),
            "base": asked.base.code,
            "base_units": str(asked.base_units),
            "quote": asked.quote.code,
            "quote_units": str(item.quote_units),
            "fee_units": str(asked.fee_units),
            "value_date": item.value_date.isoformat(),
        },
    )


def _row(item: Deal) -> Mapping[str, Any]:
    asked = item.request
    return {
        "id": item.id,
        "book": item.book,
        "client_ref": asked.client_ref,
        "desk": asked.desk,
        "party": asked.party,
        "side": asked.side,
        "base": asked.base.code,
        "base_scale": asked.base.scale,
        "quote": asked.quote.code,
        "quote_scale": asked.quote.scale,
        "base_units": asked.base_units,
        "quote_units": item.quote_units,
        "price_numerator": asked.price.numerator,
        "price_denominator": asked.price.denominator,
        "fee_units": asked.fee_units,
        "price_id": item.price_id,
        "value_date": item.value_date,
        "booked_by": asked.booked_by,
        "reason": asked.reason,
        "state": item.state,
        "amends": item.amends,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
        "quote_id": asked.quote_id,
        "mid_price_id": item.mid_price_id,
        "off_market_ppm": item.off_market_ppm,
        "origin": asked.origin,
        "purpose": asked.purpose,
        "agreed_at": item.agreed_at,
        "terms_version": item.terms_version,
        "calendars": item.calendars,
        "instructions": [
            {"asset": target.asset, "rail": target.rail, "version": target.version}
            for target in item.instructions
        ],
        "off_market_reason": asked.off_market_reason,
    }


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
            origin=DealOrigin(row.origin),
            purpose=DealPurpose(row.purpose),
            quote_id=row.quote_id,
            agreed_at=row.agreed_at,
            mid_price_id=row.mid_price_id,
            off_market_reason=row.off_market_reason,
            booked_by=row.booked_by,
            reason=row.reason,
        ),
        quote_units=row.quote_units,
        value_date=row.value_date,
        agreed_at=row.agreed_at,
        price_id=row.price_id,
        mid_price_id=row.mid_price_id,
        terms_version=row.terms_version,
        calendars=row.calendars,
        instructions=tuple(
            SettlementTarget(asset=item["asset"], rail=Rail(item["rail"]), version=item["version"])
            for item in row.instructions
        ),
        off_market_ppm=row.off_market_ppm,
        state=DealState(row.state),
        pulled_at=row.pulled_at,
        amends=row.amends,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


_EVENT_NAMES: Final = {
    DealState.BOOKED: "DealBooked",
    DealState.AMENDED: "DealAmended",
    DealState.CANCELLED: "DealCancelled",
    DealState.SETTLING: "DealSettling",
    DealState.SETTLED: "DealSettled",
}
