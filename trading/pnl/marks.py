"""What assets are worth at a moment: recorded prices, found as every price for valuation is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.money import Asset
from marketdata.errors import NoPrice
from marketdata.hierarchy import DEFAULT
from marketdata.model import RecordedPrice
from marketdata.price_model import Pair, Purpose
from marketdata.price_resolution import resolve_price
from marketdata.prices import find_prices, latest_price
from registry.errors import UnknownRecord
from registry.queries import get_asset
from trading.pnl.model import Marks

MARK_AGE_MAX: Final = timedelta(hours=1)
"""A mark is not observed longer before its moment than this."""


async def find_marks(
    conn: AsyncConnection,
    assets: Collection[str],
    currency: Asset,
    *,
    at: datetime,
    now: datetime,
) -> Marks:
    """Return the marks of *assets* in *currency* at the moment *at*.

    Where the market had none, what two people approved for that moment counts, later too: so a day
    that ended without a price can be closed.

    Raises:
        NoPrice: an asset has none that is fit for valuation and not older than `MARK_AGE_MAX`.
    """
    found = {
        code: await _mark(conn, code, currency, at=at, now=now)
        for code in sorted(set(assets) - {currency.code})
    }
    return _marks(currency, at, found)


async def available_marks(
    conn: AsyncConnection,
    assets: Collection[str],
    currency: Asset,
    *,
    at: datetime,
    now: datetime,
) -> Marks:
    """Return the marks of those of *assets* that have one: to look at, not to account with."""
    found: dict[str, RecordedPrice] = {}
    for code in sorted(set(assets) - {currency.code}):
        try:
            found[code] = await _mark(conn, code, currency, at=at, now=now)
        except NoPrice:
            continue
    return _marks(currency, at, found)


async def recorded_marks(
    conn: AsyncConnection, price_ids: Mapping[str, UUID], currency: Asset, *, at: datetime
) -> Marks:
    """Return the marks that an earlier run valued with, by the ids of their prices."""
    prices = await find_prices(conn, set(price_ids.values()))
    return _marks(currency, at, {code: prices[ident] for code, ident in price_ids.items()})


async def _mark(
    conn: AsyncConnection, code: str, currency: Asset, *, at: datetime, now: datetime
) -> RecordedPrice:
    try:
        pair = Pair(await get_asset(conn, code), currency)
    except UnknownRecord:
        # A venue may charge in what nobody has registered: a recorded price will do, no cross.
        found = await latest_price(conn, code, currency.code, now=at, age_max=MARK_AGE_MAX)
        if found is None:
            raise NoPrice(
                f"{code} is not registered and has no price in {currency.code} at {at.isoformat()}",
                remedy=f"Register {code}, or record a price of it",
            ) from None
        return found
    rungs = DEFAULT.within(MARK_AGE_MAX)
    resolved = await resolve_price(
        conn,
        pair,
        at=at,
        purpose=Purpose.VALUATION,
        now=now,
        hierarchy=rungs,
        is_closing=True,
    )
    return resolved.price


def _marks(currency: Asset, at: datetime, found: Mapping[str, RecordedPrice]) -> Marks:
    return Marks(
        currency=currency,
        at=at,
        prices={code: item.record.price for code, item in found.items()},
        price_ids={code: item.id for code, item in found.items()},
    )
