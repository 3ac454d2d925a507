"""Prices on record: what a deal, a fill or a report was valued with, reproducible for ever."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Row, Uuid, any_, bindparam, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.money import Asset, Price
from kernel.rows import insert_rows
from marketdata.errors import NoPrice
from marketdata.model import PriceRecord, Quality, RecordedPrice
from marketdata.price_model import PriceKind
from marketdata.price_tables import price as table

OF_THE_MARKET: Final = frozenset(PriceKind) - {
    *(PriceKind.AGREED, PriceKind.FILL, PriceKind.MANUAL),
}
"""What says something of the market. A deal's own price does not, and a manual one stands only as
long as its override does (`marketdata.overrides`)."""

LISTED_MAX: Final = 500
_IDS: Final = bindparam("price_ids", type_=ARRAY(Uuid))


async def record_price(
    conn: AsyncConnection, record: PriceRecord, *, now: datetime
) -> RecordedPrice:
    """Record a price; the same price with the same origin is recorded once."""
    constituents = [dict(item) for item in record.constituents]
    ratio, price_id = record.price, record.id
    done = await conn.execute(
        insert(table)
        .values(
            id=price_id,
            base=ratio.base.code,
            base_scale=ratio.base.scale,
            quote=ratio.quote.code,
            quote_scale=ratio.quote.scale,
            numerator=ratio.numerator,
            denominator=ratio.denominator,
            kind=str(record.kind),
            quality=str(record.quality),
            constituents=constituents,
            method=dict(record.method),
            observed_at=record.observed_at,
            recorded_at=now,
        )
        .on_conflict_do_nothing()
    )
    if done.rowcount:
        return RecordedPrice(id=price_id, record=record, recorded_at=now)
    return await get_price(conn, price_id)


async def record_prices(conn: AsyncConnection, prices: Sequence[RecordedPrice]) -> None:
    """Record many prices in one statement, in the order of their ids; known ones stay as they are."""
    rows = [
        {
            "id": item.id,
            "base": item.record.price.base.code,
            "base_scale": item.record.price.base.scale,
            "quote": item.record.price.quote.code,
            "quote_scale": item.record.price.quote.scale,
            "numerator": item.record.price.numerator,
            "denominator": item.record.price.denominator,
            "kind": item.record.kind,
            "quality": item.record.quality,
            "constituents": item.record.constituents,
            "method": dict(item.record.method),
            "observed_at": item.record.observed_at,
            "recorded_at": item.recorded_at,
        }
        for item in sorted(prices, key=attrgetter("id"))
    ]
    await insert_rows(conn, table, rows, known="ON CONFLICT DO NOTHING")


async def find_prices(
    conn: AsyncConnection, price_ids: Collection[UUID]
) -> dict[UUID, RecordedPrice]:
    """Return those of the recorded prices that there are, by id, in one statement."""
    rows = await conn.execute(
        select(table).where(table.c.id == any_(_IDS)), {_IDS.key: list(price_ids)}
    )
    return {row.id: _price(row) for row in rows}


async def get_price(conn: AsyncConnection, price_id: UUID) -> RecordedPrice:
    """Return a recorded price.

    Raises:
        NoPrice: none has this id.
    """
    row = (await conn.execute(select(table).where(table.c.id == price_id))).one_or_none()
    if row is None:
        raise NoPrice(f"no price {price_id} is on record")
    return _price(row)


async def latest_price(
    conn: AsyncConnection,
    base: str,
    quote: str,
    *,
    now: datetime,
    age_max: timedelta,
    kinds: Collection[str] = OF_THE_MARKET,
) -> RecordedPrice | None:
    """Return the newest price of a pair observed within *age_max* before *now*, if any."""
    row = (
        await conn.execute(
            select(table)
            .where(
                table.c.base == base,
                table.c.quote == quote,
                table.c.kind.in_(sorted(kinds)),
                table.c.observed_at <= now,
                table.c.observed_at >= now - age_max,
            )
            .order_by(table.c.observed_at.desc(), table.c.id.desc())
            .limit(1)
        )
    ).one_or_none()
    return None if row is None else _price(row)


async def list_prices(
    conn: AsyncConnection,
    *,
    base: str | None = None,
    quote: str | None = None,
    kind: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = LISTED_MAX,
) -> list[RecordedPrice]:
    """Return recorded prices, the newest observation first; *until* is the last moment that counts."""
    query = select(table)
    for column, value in ((table.c.base, base), (table.c.quote, quote), (table.c.kind, kind)):
        if value is not None:
            query = query.where(column == value)
    if since is not None:
        query = query.where(table.c.observed_at >= since)
    if until is not None:
        query = query.where(table.c.observed_at <= until)
    ordered = query.order_by(table.c.observed_at.desc(), table.c.id.desc())
    return [_price(row) for row in await conn.execute(ordered.limit(min(limit, LISTED_MAX)))]


def _price(row: Row[Any]) -> RecordedPrice:
    return RecordedPrice(
        id=row.id,
        record=PriceRecord(
            price=Price(
                Asset(row.base, row.base_scale),
                Asset(row.quote, row.quote_scale),
                row.numerator,
                row.denominator,
            ),
            kind=row.kind,
            quality=Quality(row.quality),
            constituents=tuple(row.constituents),
            method=row.method,
            observed_at=row.observed_at,
        ),
        recorded_at=row.recorded_at,
    )
