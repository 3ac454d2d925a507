"""Fiat rates on record: importing the published files, and pricing one currency in another.

Every version of a rate is kept with the document that it was read from: a correction becomes the next
version, and what was priced before keeps the id of what it was priced with.

**Business-day rule.** A moment is priced with the newest publication that was out by then, at 16:00
CET of its day; weekends and TARGET closing days use the day before. If that publication was not
imported, an older one within `DAYS_MAX` is used and the price is degraded; beyond that there is none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from kernel.ids import derive_id
from kernel.money import Asset, Price
from kernel.rows import ROWS_MAX, insert_rows
from marketdata.ecb import (
    EURO,
    SOURCE,
    EcbFile,
    Rate,
    is_publication_day,
    missing_days,
    published_at,
    read_ecb,
)
from marketdata.model import PriceRecord, Quality
from marketdata.price_model import FiatRate, PriceKind
from marketdata.price_tables import fiat_import, fiat_rate

METHOD: Final = "fiat-cross/1"
DAYS_MAX: Final = 5
"""Days between a moment and the publication that it is priced with: Easter has four."""

LISTED_MAX: Final = 1_000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FiatImport:
    """A document that was imported, and what was new in it.

    Attributes:
        is_new: False: exactly this document had been imported before, and nothing was done.
        corrected: rates that stood otherwise before.
        missing: publication days between the first and the last day that nobody imported.
    """

    id: UUID
    format: str
    sha256: str
    first_day: date
    last_day: date
    days: int
    rates: int
    is_new: bool
    added: int = 0
    corrected: int = 0
    missing: tuple[date, ...] = ()


async def import_rates(
    conn: AsyncConnection,
    content: bytes,
    *,
    by: str,
    now: datetime,
    progress: Progress = lambda _done, _total: None,
) -> FiatImport:
    """Record every rate of a published file that is not on record yet.

    Args:
        content: any of the files that `marketdata.ecb` names, as downloaded.
        by: operator code, or ``system:<process>``.

    Raises:
        BadInput: it is none of them, or speaks of a day that is not over.
        Refused: another import of the same days was faster; do it again.
    """
    read = read_ecb(content)
    first, last = read.days[0].day, read.days[-1].day
    if last > now.date():
        raise BadInput(f"the file has rates of {last}, which is still to come")
    item = FiatImport(
        id=derive_id(now, "fiat-import", hashlib.sha256(content).digest()),
        format=str(read.format),
        sha256=hashlib.sha256(content).hexdigest(),
        first_day=first,
        last_day=last,
        days=len(read.days),
        rates=sum(len(day.rates) for day in read.days),
        is_new=True,
    )
    known_import = await _find_import(conn, item.sha256)
    if known_import is not None:
        return known_import
    try:
        return await _write(conn, item, read, len(content), by, now, progress)
    except IntegrityError as error:
        raise Refused(
            "another import of the same days was faster", remedy="Import the file again"
        ) from error


async def list_rates(
    conn: AsyncConnection,
    currency: str,
    *,
    since: date,
    until: date,
    every_version: bool = False,
) -> list[FiatRate]:
    """Return the rates of a currency from *since* to *until*, newest day first, as they stand."""
    rows = await conn.execute(
        select(fiat_rate)
        .where(
            fiat_rate.c.source == SOURCE,
            fiat_rate.c.currency == currency,
            fiat_rate.c.day.between(since, until),
        )
        .order_by(fiat_rate.c.day.desc(), fiat_rate.c.version.desc())
        .limit(LISTED_MAX)
    )
    found = [_rate(row) for row in rows]
    return found if every_version else _standing(found)


async def fiat_price(
    conn: AsyncConnection, base: Asset, quote: Asset, *, at: datetime
) -> PriceRecord | Refused:
    """Return what one currency was worth in another at a moment, or why that is not known."""
    until = last_publication(at)
    since = at.date() - timedelta(days=DAYS_MAX)
    by_currency = {
        asset.code: await list_rates(conn, asset.code, since=since, until=until)
        for asset in (base, quote)
        if asset.code != EURO
    }
    return cross(base, quote, by_currency, expected=until)


# Decisions.


def last_publication(at: datetime) -> date:
    """Return the day of the newest rates that were published by then."""
    day = at.date()
    while not (is_publication_day(day) and published_at(day) <= at):
        day -= timedelta(days=1)
    return day


def cross(
    base: Asset, quote: Asset, rates: Mapping[str, Sequence[FiatRate]], *, expected: date
) -> PriceRecord | Refused:
    """Return *base* in *quote* through the euro, from the newest day that has both.

    ``units of quote per base = rate(quote) / rate(base)`` with ``rate(EUR) = 1``; exact. Rates of
    two different days are never crossed with each other.

    Args:
        rates: of each of the two that is not the euro, newest first.
        expected: the day whose rates should be there.
    """
    if base.code == quote.code:
        raise BadInput(f"{base.code} has no price in itself")
    days = [{rate.day: rate for rate in found} for found in rates.values()]
    common = set(days[0]).intersection(*days[1:]) if days else set()
    if not common:
        named = " and ".join(sorted(rates))
        return Refused(
            f"no rate of {named} on one day up to {expected} is on record",
            remedy="Import the published reference rates with `causeway prices fx-import`",
        )
    day = max(common)
    of_base = None if base.code == EURO else _on(rates[base.code], day)
    of_quote = None if quote.code == EURO else _on(rates[quote.code], day)
    above, below = of_quote or _ONE, of_base or _ONE
    price = Price.of(
        above.mantissa * int(10 ** (below.scale + quote.scale)),
        below.mantissa * int(10 ** (above.scale + base.scale)),
        base,
        quote,
    )
    return PriceRecord(
        price=price,
        kind=PriceKind.FIAT_RATE,
        quality=Quality.GOOD if day == expected else Quality.DEGRADED,
        constituents=tuple(
            {
                "source": rate.source,
                "currency": rate.currency,
                "day": rate.day.isoformat(),
                "rate": rate.text,
                "version": rate.version,
                "import_id": str(rate.import_id),
            }
            for rate in (of_base, of_quote)
            if rate is not None
        ),
        method={"name": METHOD, "expected_day": expected.isoformat()},
        observed_at=published_at(day),
    )


_ONE: Final = Rate(1, 0)


def _on(rates: Iterable[FiatRate], day: date) -> FiatRate:
    return next(rate for rate in rates if rate.day == day)


def _standing(rates: Iterable[FiatRate]) -> list[FiatRate]:
    """Return the newest version of each day; versions of a day stand together, newest first."""
    found: dict[date, FiatRate] = {}
    for rate in rates:
        found.setdefault(rate.day, rate)
    return list(found.values())


# Writing.


async def _write(
    conn: AsyncConnection,
    item: FiatImport,
    read: EcbFile,
    size: int,
    by: str,
    now: datetime,
    progress: Progress,
) -> FiatImport:
    row = {
        "id": item.id,
        "source": SOURCE,
        "format": item.format,
        "sha256": item.sha256,
        "bytes": size,
        "first_day": item.first_day,
        "last_day": item.last_day,
        "days": item.days,
        "rates": item.rates,
        "imported_by": by,
        "imported_at": now,
    }
    await insert_rows(conn, fiat_import, [row])
    known = await _known(conn, item.first_day, item.last_day)
    rows, corrected = [], 0
    for day in read.days:
        for currency, rate in day.rates.items():
            before = known.get((currency, day.day))
            if before is not None and _is_same(before, rate):
                continue
            corrected += before is not None
            rows.append(
                {
                    "source": SOURCE,
                    "currency": currency,
                    "day": day.day,
                    "version": 1 if before is None else before.version + 1,
                    "mantissa": rate.mantissa,
                    "scale": rate.scale,
                    "import_id": item.id,
                    "recorded_at": now,
                }
            )
    for start in range(0, len(rows), ROWS_MAX):
        await insert_rows(conn, fiat_rate, rows[start : start + ROWS_MAX])
        progress(min(start + ROWS_MAX, len(rows)), len(rows))
    there = {day.day for day in read.days} | {day for _, day in known}
    return FiatImport(
        **{name: getattr(item, name) for name in _KEPT},
        is_new=True,
        added=len(rows) - corrected,
        corrected=corrected,
        missing=tuple(missing_days(there, item.first_day, item.last_day)),
    )


_KEPT: Final = ("id", "format", "sha256", "first_day", "last_day", "days", "rates")


async def _known(
    conn: AsyncConnection, first: date, last: date
) -> dict[tuple[str, date], FiatRate]:
    newest = (
        select(
            fiat_rate.c.currency, fiat_rate.c.day, func.max(fiat_rate.c.version).label("version")
        )
        .where(fiat_rate.c.source == SOURCE, fiat_rate.c.day.between(first, last))
        .group_by(fiat_rate.c.currency, fiat_rate.c.day)
        .subquery()
    )
    rows = await conn.execute(
        select(fiat_rate)
        .join(
            newest,
            (fiat_rate.c.currency == newest.c.currency)
            & (fiat_rate.c.day == newest.c.day)
            & (fiat_rate.c.version == newest.c.version),
        )
        .where(fiat_rate.c.source == SOURCE)
    )
    return {(row.currency, row.day): _rate(row) for row in rows}


async def _find_import(conn: AsyncConnection, sha256: str) -> FiatImport | None:
    query = select(fiat_import).where(
        fiat_import.c.source == SOURCE, fiat_import.c.sha256 == sha256
    )
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        return None
    return FiatImport(**{name: getattr(row, name) for name in _KEPT}, is_new=False)


def _is_same(before: FiatRate, rate: Rate) -> bool:
    """Tell whether both are the same number: 1.1 is 1.10."""
    return before.mantissa * int(10**rate.scale) == rate.mantissa * int(10**before.scale)


def _rate(row: Row[Any]) -> FiatRate:
    return FiatRate(
        source=row.source,
        day=row.day,
        currency=row.currency,
        mantissa=row.mantissa,
        scale=row.scale,
        version=row.version,
        import_id=row.import_id,
    )
