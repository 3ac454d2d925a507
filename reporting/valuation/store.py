"""Rows of valuations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.money import Asset
from kernel.rows import insert_rows
from reporting.errors import NoValuation
from reporting.valuation.model import (
    Interval,
    Line,
    LineKind,
    Method,
    Prices,
    Valuation,
    ValuationRecord,
)
from reporting.valuation.tables import valuation_line, valuation_price, valuation_run

LISTED_MAX: Final = 500
DAY: Final = "day"
START: Final = "start"
END: Final = "end"


def price_keys(interval: Interval, prices: Prices) -> Iterator[tuple[str, date, str, UUID]]:
    """Return (use, day, asset, price id) of every price of a valuation, in order."""
    for use, day, marks in (
        (START, interval.since.date(), prices.start),
        (END, interval.until.date(), prices.end),
        *((DAY, day, marks) for day, marks in sorted(prices.days.items())),
    ):
        for asset, price_id in sorted(marks.price_ids.items()):
            yield use, day, asset, price_id


async def insert_valuation(
    conn: AsyncConnection, item: Valuation, *, by: str, now: datetime
) -> bool:
    """Insert a valuation with its prices and lines; False: it is on record."""
    interval = item.interval
    values = {
        "id": item.id,
        "book": interval.book,
        "currency": item.currency.code,
        "currency_scale": item.currency.scale,
        "method": str(item.method),
        "since": interval.since,
        "until": interval.until,
        "after": interval.after,
        "through": interval.through,
        "inputs_hash": item.inputs_hash,
        "lines_hash": item.lines_hash,
        "realised": item.total(LineKind.REALISED),
        "unrealised": item.total(LineKind.UNREALISED),
        "net": item.net,
        "run_by": by,
        "run_at": now,
    }
    statement = insert(valuation_run).values(**values).on_conflict_do_nothing(index_elements=["id"])
    if (await conn.execute(statement)).rowcount == 0:
        return False
    names = ("use", "day", "asset", "price_id")
    await insert_rows(
        conn,
        valuation_price,
        [
            {"run_id": item.id, **dict(zip(names, key, strict=True))}
            for key in price_keys(interval, item.prices)
        ],
    )
    await insert_rows(
        conn,
        valuation_line,
        [
            {
                "run_id": item.id,
                "number": number,
                "kind": str(line.kind),
                "account": line.account,
                "asset": line.asset,
                "units": line.units,
                "value": line.value,
            }
            for number, line in enumerate(item.lines, start=1)
        ],
    )
    return True


async def get_valuation(conn: AsyncConnection, run_id: UUID) -> ValuationRecord:
    """Return a valuation as it was recorded.

    Raises:
        NoValuation: there is none.
    """
    query = select(valuation_run).where(valuation_run.c.id == run_id)
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        raise NoValuation(f"no valuation {run_id} is on record")
    return _record(row)


async def list_valuations(
    conn: AsyncConnection, book: int, *, limit: int = LISTED_MAX
) -> list[ValuationRecord]:
    """Return the valuations of a book, those of the latest intervals first."""
    rows = await conn.execute(
        select(valuation_run)
        .where(valuation_run.c.book == book)
        .order_by(
            valuation_run.c.until.desc(), valuation_run.c.run_at.desc(), valuation_run.c.id.desc()
        )
        .limit(max(1, min(limit, LISTED_MAX)))
    )
    return [_record(row) for row in rows]


async def list_prices(
    conn: AsyncConnection, run_id: UUID
) -> dict[tuple[str, date], dict[str, UUID]]:
    """Return the price ids of a valuation by use and day, and by asset."""
    rows = await conn.execute(select(valuation_price).where(valuation_price.c.run_id == run_id))
    found: dict[tuple[str, date], dict[str, UUID]] = {}
    for row in rows:
        found.setdefault((row.use, row.day), {})[row.asset] = row.price_id
    return found


async def list_lines(conn: AsyncConnection, run_id: UUID) -> tuple[Line, ...]:
    """Return the lines of a valuation in their order."""
    rows = await conn.execute(
        select(valuation_line)
        .where(valuation_line.c.run_id == run_id)
        .order_by(valuation_line.c.number)
    )
    return tuple(
        Line(LineKind(row.kind), row.account, row.asset, row.units, row.value) for row in rows
    )


def _record(row: Row[Any]) -> ValuationRecord:
    return ValuationRecord(
        id=row.id,
        interval=Interval(
            book=row.book, since=row.since, until=row.until, after=row.after, through=row.through
        ),
        currency=Asset(row.currency, row.currency_scale),
        method=Method(row.method),
        inputs_hash=row.inputs_hash,
        lines_hash=row.lines_hash,
        realised=row.realised,
        unrealised=row.unrealised,
        net=row.net,
        run_by=row.run_by,
        run_at=row.run_at,
    )
