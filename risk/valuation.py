"""Prices to value risk with: the recorded ones, by the hierarchy that values everything else.

An order can wait for the next price, so it is judged by a fresh one or refused. A deal that people have
agreed is there whatever is on record, and its limit is one of credit: where no price is fresh, one of
up to `CREDIT_AGE_MAX` will do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.money import Price
from marketdata.errors import NoPrice
from marketdata.hierarchy import DEFAULT, Hierarchy
from marketdata.price_model import Pair, Purpose
from marketdata.price_resolution import resolve_price
from registry.queries import list_assets
from risk.worth import Worth

CREDIT_AGE_MAX: Final = timedelta(minutes=15)
FRESH: Final = (DEFAULT,)
FOR_CREDIT: Final = (DEFAULT, DEFAULT.within(CREDIT_AGE_MAX))


async def load_worth(
    conn: AsyncConnection,
    currency: str,
    assets: Collection[str],
    *,
    now: datetime,
    hierarchies: Sequence[Hierarchy] = FRESH,
) -> Worth:
    """Return the prices of *assets* in *currency* as of *now*; one without a price is left out.

    Args:
        hierarchies: asked one after the other until one has a price.

    They are looked up in the order of their codes, so that two that record the same derived prices
    never wait for each other in a circle.
    """
    known = {asset.code: asset for asset in await list_assets(conn)}
    found: dict[str, Price] = {}
    if currency not in known:
        return Worth(currency, found)
    for code in sorted(set(assets) & set(known) - {currency}):
        pair = Pair(known[code], known[currency])
        price = await _price(conn, pair, hierarchies, now)
        if price is not None:
            found[code] = price
    return Worth(currency, found, known[currency])


async def _price(
    conn: AsyncConnection, pair: Pair, hierarchies: Sequence[Hierarchy], now: datetime
) -> Price | None:
    for hierarchy in hierarchies:
        try:
            resolved = await resolve_price(
                conn, pair, at=now, purpose=Purpose.VALUATION, now=now, hierarchy=hierarchy
            )
        except NoPrice:
            continue
        return resolved.price.record.price
    return None
