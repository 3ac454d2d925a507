"""In which asset a desk counts what it earns, where nobody says."""

from __future__ import annotations

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.money import Asset
from registry.queries import get_asset
from risk.limits import desk_limits_of
from trading.pnl import store

ONE: Final = 1


async def find_currency(conn: AsyncConnection, book: int, desk: str) -> Asset | None:
    """Return the currency of the desk's limits, else what all its deals are priced in, if that is one.

    None: it has no limits, and deals in several assets or none at all.
    """
    limits = await desk_limits_of(conn, desk)
    if limits is not None:
        return await get_asset(conn, limits.currency)
    quotes = await store.list_quotes(conn, book, desk, limit=ONE + 1)
    return await get_asset(conn, quotes[0]) if len(quotes) == ONE else None
