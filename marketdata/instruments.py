"""Instruments on record: every version is kept, so an old order is read on its own grid."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.money import Asset
from marketdata.errors import NoInstrument
from marketdata.model import Instrument
from marketdata.tables import instrument as table


async def record_instrument(
    conn: AsyncConnection, instrument: Instrument, *, now: datetime
) -> Instrument:
    """Record *instrument* unless its newest version says the same; return the newest version.

    Of two that record a change at once, one inserts the version and the other reads it.
    """
    while True:
        known = await _newest(conn, instrument.venue, instrument.symbol)
        if known is not None and replace(instrument, version=known.version) == known:
            return known
        new = replace(instrument, version=1 if known is None else known.version + 1)
        result = await conn.execute(
            insert(table).values(**_row(new), recorded_at=now).on_conflict_do_nothing()
        )
        if result.rowcount:
            return new


async def get_instrument(
    conn: AsyncConnection, venue: str, symbol: str, *, version: int | None = None
) -> Instrument:
    """Return an instrument, in its newest version unless one is named.

    Raises:
        NoInstrument: there is none.
    """
    found = await _newest(conn, venue, symbol, version=version)
    if found is None:
        raise NoInstrument(f"no instrument {symbol} of {venue} is on record")
    return found


async def list_instruments(conn: AsyncConnection, venue: str) -> list[Instrument]:
    """Return the newest version of every instrument of a venue, by symbol."""
    rows = await conn.execute(
        select(table).where(table.c.venue == venue).order_by(table.c.symbol, table.c.version)
    )
    newest = {row.symbol: _instrument(row) for row in rows}
    return list(newest.values())


async def _newest(
    conn: AsyncConnection, venue: str, symbol: str, *, version: int | None = None
) -> Instrument | None:
    query = select(table).where(table.c.venue == venue, table.c.symbol == symbol)
    if version is not None:
        query = query.where(table.c.version == version)
    row = (await conn.execute(query.order_by(table.c.version.desc()).limit(1))).one_or_none()
    return None if row is None else _instrument(row)


def _row(item: Instrument) -> dict[str, Any]:
    return {
        "venue": item.venue,
        "symbol": item.symbol,
        "version": item.version,
        "base": item.base.code,
        "base_scale": item.base.scale,
        "quote": item.quote.code,
        "quote_scale": item.quote.scale,
        "price_scale": item.price_scale,
        "tick": item.tick,
        "lot": item.lot,
        "lots_min": item.lots_min,
        "lots_max": item.lots_max,
        "min_notional": item.min_notional,
    }


def _instrument(row: Row[Any]) -> Instrument:
    return Instrument(
        venue=row.venue,
        symbol=row.symbol,
        version=row.version,
        base=Asset(row.base, row.base_scale),
        quote=Asset(row.quote, row.quote_scale),
        price_scale=row.price_scale,
        tick=row.tick,
        lot=row.lot,
        lots_min=row.lots_min,
        lots_max=row.lots_max,
        min_notional=row.min_notional,
    )
