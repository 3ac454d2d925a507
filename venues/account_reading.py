"""What is on record of an account, in bounded pages, for whoever compares it with the venue."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from matching.model import Side
from venues.exposure import exact
from venues.model import OPEN_STATES, VenueFill, VenueOrder
from venues.store import fill_of, order_of
from venues.tables import balance_snapshot, fill, venue_order

ORDERS_PAGE: Final = 1_000
FILLS_PAGE: Final = 5_000
NAMES_MAX: Final = 5_000
"""Names in one question: PostgreSQL takes 32,767 parameters."""
UNPOSTED_MAX: Final = 200


async def symbols_of(conn: AsyncConnection, venue: str, account: str) -> set[str]:
    """Return every symbol that orders or trades on record speak of."""
    found: set[str] = set()
    for table in (venue_order, fill):
        rows = await conn.execute(
            select(table.c.symbol)
            .where(table.c.venue == venue, table.c.account == account)
            .distinct()
        )
        found |= {row.symbol for row in rows}
    return found


async def orders_since(
    conn: AsyncConnection,
    venue: str,
    account: str,
    symbol: str,
    since: datetime,
    *,
    after: VenueOrder | None = None,
) -> list[VenueOrder]:
    """Return a page of orders made since *since*, and older ones that are open, oldest first."""
    query = select(venue_order).where(
        venue_order.c.venue == venue,
        venue_order.c.account == account,
        venue_order.c.symbol == symbol,
        or_(
            venue_order.c.created_at >= since,
            venue_order.c.state.in_([str(state) for state in OPEN_STATES]),
        ),
    )
    place = tuple_(venue_order.c.created_at, venue_order.c.id)
    if after is not None:
        query = query.where(place > (after.created_at, after.id))
    rows = await conn.execute(
        query.order_by(venue_order.c.created_at, venue_order.c.id).limit(ORDERS_PAGE)
    )
    return [order_of(row) for row in rows]


async def oldest_open_order(conn: AsyncConnection, venue: str, account: str) -> datetime | None:
    """Return when the oldest order was made that may still trade; None: there is none."""
    at: datetime | None = await conn.scalar(
        select(func.min(venue_order.c.created_at)).where(
            venue_order.c.venue == venue,
            venue_order.c.account == account,
            venue_order.c.state.in_([str(state) for state in OPEN_STATES]),
        )
    )
    return at


async def orders_named(
    conn: AsyncConnection,
    venue: str,
    account: str,
    symbol: str,
    names: Collection[str],
) -> list[VenueOrder]:
    """Return the orders on record that go by one of *names*, client's or venue's, however old."""
    found: dict[UUID, VenueOrder] = {}
    for part in _parts(names):
        for column in (venue_order.c.client_order_id, venue_order.c.venue_order_id):
            rows = await conn.execute(
                select(venue_order).where(
                    venue_order.c.venue == venue,
                    venue_order.c.account == account,
                    venue_order.c.symbol == symbol,
                    column.in_(part),
                )
            )
            found |= {row.id: order_of(row) for row in rows}
    return sorted(found.values(), key=lambda order: (order.created_at, order.id))


async def filled_of(
    conn: AsyncConnection, venue: str, account: str, symbol: str, venue_order_ids: Collection[str]
) -> dict[str, int]:
    """Return the sum of the trades on record of each order, by the venue's id of it."""
    found: dict[str, int] = {}
    for part in _parts(venue_order_ids):
        rows = await conn.execute(
            select(fill.c.venue_order_id, func.sum(fill.c.base_units).label("units"))
            .where(_mine(venue, account), fill.c.symbol == symbol)
            .where(fill.c.venue_order_id.in_(part))
            .group_by(fill.c.venue_order_id)
        )
        found |= {row.venue_order_id: int(row.units) for row in rows}
    return found


async def opened_at(conn: AsyncConnection, venue: str, account: str) -> datetime | None:
    """Return when the balances were read with which the account's books began, if any were."""
    at: datetime | None = await conn.scalar(
        select(func.min(balance_snapshot.c.taken_at)).where(
            balance_snapshot.c.venue == venue,
            balance_snapshot.c.account == account,
            balance_snapshot.c.is_opening,
        )
    )
    return at


async def fills_between(
    conn: AsyncConnection,
    venue: str,
    account: str,
    symbol: str,
    since: datetime | None,
    until: datetime | None,
) -> list[VenueFill]:
    """Return trades on record from *since* to before *until*; at most `FILLS_PAGE`, oldest first.

    None on either side is no bound.
    """
    query = select(fill).where(_mine(venue, account), fill.c.symbol == symbol)
    if since is not None:
        query = query.where(fill.c.executed_at >= since)
    if until is not None:
        query = query.where(fill.c.executed_at < until)
    rows = await conn.execute(query.order_by(fill.c.executed_at, fill.c.trade_id).limit(FILLS_PAGE))
    return [fill_of(row) for row in rows]


async def fills_named(
    conn: AsyncConnection, venue: str, account: str, symbol: str, trade_ids: Collection[str]
) -> list[VenueFill]:
    """Return the trades on record of these ids."""
    rows = await conn.execute(
        select(fill).where(
            _mine(venue, account), fill.c.symbol == symbol, fill.c.trade_id.in_(trade_ids)
        )
    )
    return [fill_of(row) for row in rows]


async def count_fills(conn: AsyncConnection, venue: str, account: str) -> int:
    """Return how many trades are on record: it only rises."""
    return int(
        await conn.scalar(select(func.count()).select_from(fill).where(_mine(venue, account))) or 0
    )


async def unposted_by_asset(conn: AsyncConnection, venue: str, account: str) -> dict[str, int]:
    """Return what the venue has more than the books because trades are not posted yet.

    Units: ``10 ** -DUST_SCALE`` of a smallest unit, without dust, which is counted elsewhere.
    """
    rows = await conn.execute(
        select(
            fill.c.side,
            fill.c.base,
            fill.c.quote,
            fill.c.fee_asset,
            func.sum(fill.c.base_units).label("base_units"),
            func.sum(fill.c.quote_units).label("quote_units"),
            func.sum(fill.c.fee_units).label("fee_units"),
        )
        .where(_mine(venue, account), fill.c.booked_at.is_(None))
        .group_by(fill.c.side, fill.c.base, fill.c.quote, fill.c.fee_asset)
    )
    total: dict[str, int] = {}
    for row in rows:
        sign = 1 if Side(row.side) is Side.BUY else -1
        for asset, units in (
            (row.base, sign * int(row.base_units)),
            (row.quote, -sign * int(row.quote_units)),
            (row.fee_asset, -int(row.fee_units)),
        ):
            total[asset] = total.get(asset, 0) + exact(units, 0)
    return total


async def unposted_since(
    conn: AsyncConnection, venue: str, account: str, recorded_before: datetime
) -> list[VenueFill]:
    """Return trades that were recorded before then and are not posted, oldest first, bounded."""
    rows = await conn.execute(
        select(fill)
        .where(
            and_(_mine(venue, account), fill.c.booked_at.is_(None)),
            fill.c.recorded_at < recorded_before,
        )
        .order_by(fill.c.executed_at, fill.c.trade_id)
        .limit(UNPOSTED_MAX)
    )
    return [fill_of(row) for row in rows]


async def recorded_since(
    conn: AsyncConnection, venue: str, account: str, since: datetime, *, limit: int
) -> list[VenueFill]:
    """Return trades that were recorded since then, of every symbol, in the order of trading."""
    rows = await conn.execute(
        select(fill)
        .where(_mine(venue, account), fill.c.recorded_at >= since)
        .order_by(fill.c.executed_at, fill.c.symbol, func.length(fill.c.trade_id), fill.c.trade_id)
        .limit(limit)
    )
    return [fill_of(row) for row in rows]


def _parts(names: Collection[str]) -> Iterator[list[str]]:
    every = sorted(names)
    for start in range(0, len(every), NAMES_MAX):
        yield every[start : start + NAMES_MAX]


def _mine(venue: str, account: str) -> ColumnElement[bool]:
    return and_(fill.c.venue == venue, fill.c.account == account)
