"""Prices on record: what a deal, a fill or a report was valued with, reproducible for ever."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.ids import derive_id
from kernel.money import Asset, Price
from marketdata.errors import NoPrice
from marketdata.model import PriceRecord, Quality, RecordedPrice
from marketdata.tables import price as table


async def record_price(
    conn: AsyncConnection, record: PriceRecord, *, now: datetime
) -> RecordedPrice:
    """Record a price; the same price with the same origin is recorded once."""
    constituents = [dict(item) for item in record.constituents]
    origin = orjson.dumps(constituents, option=orjson.OPT_SORT_KEYS)
    ratio = record.price
    price_id = derive_id(
        record.observed_at,
        "price",
        ratio.base.code,
        ratio.quote.code,
        ratio.numerator,
        ratio.denominator,
        record.kind,
        str(record.quality),
        origin,
    )
    await conn.execute(
        insert(table)
        .values(
            id=price_id,
            base=ratio.base.code,
            base_scale=ratio.base.scale,
            quote=ratio.quote.code,
            quote_scale=ratio.quote.scale,
            numerator=ratio.numerator,
            denominator=ratio.denominator,
            kind=record.kind,
            quality=str(record.quality),
            constituents=constituents,
            observed_at=record.observed_at,
            recorded_at=now,
        )
        .on_conflict_do_nothing()
    )
    return await get_price(conn, price_id)


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
    conn: AsyncConnection, base: str, quote: str, *, now: datetime, age_max: timedelta
) -> RecordedPrice | None:
    """Return the newest price of a pair observed within *age_max* before *now*, if any."""
    row = (
        await conn.execute(
            select(table)
            .where(
                table.c.base == base,
                table.c.quote == quote,
                table.c.observed_at <= now,
                table.c.observed_at >= now - age_max,
            )
            .order_by(table.c.observed_at.desc(), table.c.id.desc())
            .limit(1)
        )
    ).one_or_none()
    return None if row is None else _price(row)


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
            observed_at=row.observed_at,
        ),
        recorded_at=row.recorded_at,
    )
