"""Fills: one table, one way in, whether the venue told us by stream or was asked.

The cursor of `collect` is its own: a fill that the stream brought first does not move it, so
nothing between is skipped. What an order has filled is always the sum of its fills; the venue's own
figure is compared with it, never taken for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import and_, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from venues.errors import ContradictingFill
from venues.model import FINAL_STATES, VenueFill, VenueOrder
from venues.ports import VenueGateway
from venues.store import fill_of, insert_fills, order_of
from venues.tables import fill, fill_cursor, venue_order

FROM_THE_FIRST: Final = "0"
PAGES_MAX: Final = 20
ORDERS_CHECKED_MAX: Final = 50
FILLS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection brought: new fills, and orders whose fills still do not add up."""

    new: int
    incomplete: tuple[VenueOrder, ...]


async def record_fills(
    conn: AsyncConnection, fills: Sequence[VenueFill], *, source: str, now: datetime
) -> int:
    """Insert what is not there yet and return how many were new; order and repeats do not matter.

    Raises:
        ContradictingFill: a trade id is on record with other content.
    """
    distinct = list({(f.venue, f.account, f.symbol, f.trade_id): f for f in fills}.values())
    new = await insert_fills(conn, distinct, source=source, now=now)
    if new < len(distinct):
        await _require_same(conn, distinct)
    return new


async def collect(
    engine: AsyncEngine, gateway: VenueGateway, symbol: str, *, clock: Clock
) -> Collected:
    """Read our trades of *symbol* from the cursor on, then the trades of orders that fall short.

    Raises:
        VenueUnavailable: the venue does not answer; what was read until then is kept.
    """
    new = 0
    cursor = await transact(engine, lambda conn: _cursor(conn, gateway, symbol))
    for _ in range(PAGES_MAX):
        page = [f for f in await gateway.fills(symbol, cursor) if f.trade_id != cursor]
        if not page:
            break
        cursor = page[-1].trade_id
        new += await transact(engine, _storing(page, gateway, symbol, cursor, clock.now()))
    new += await _fill_up(engine, gateway, symbol, clock)
    return Collected(new, await _incomplete(engine, gateway, symbol))


async def begin_history(
    conn: AsyncConnection, venue: str, account: str, symbol: str, *, trade_id: str, now: datetime
) -> None:
    """Leave out our trades up to *trade_id*: they are in the opening balances."""
    await _move_cursor(conn, venue, account, symbol, trade_id, now)


async def list_fills(
    conn: AsyncConnection, venue: str, account: str, symbol: str, *, limit: int = FILLS_MAX
) -> list[VenueFill]:
    """Return the newest fills of a symbol, newest first."""
    rows = await conn.execute(
        select(fill)
        .where(fill.c.venue == venue, fill.c.account == account, fill.c.symbol == symbol)
        .order_by(fill.c.executed_at.desc(), fill.c.trade_id.desc())
        .limit(min(limit, FILLS_MAX))
    )
    return [fill_of(row) for row in rows]


async def filled_units(conn: AsyncConnection, order: VenueOrder) -> int:
    """Return the sum of the order's fills, in smallest units of the base asset."""
    if order.venue_order_id is None:
        return 0
    total = await conn.scalar(
        select(func.coalesce(func.sum(fill.c.base_units), 0)).where(
            fill.c.venue == order.venue,
            fill.c.account == order.account,
            fill.c.symbol == order.symbol,
            fill.c.venue_order_id == order.venue_order_id,
        )
    )
    return int(total or 0)


async def _fill_up(engine: AsyncEngine, gateway: VenueGateway, symbol: str, clock: Clock) -> int:
    new = 0
    for order in await _incomplete(engine, gateway, symbol):
        if order.venue_order_id is not None:
            trades = await gateway.fills_of_order(symbol, order.venue_order_id)
            new += await transact(engine, _storing(trades, gateway, symbol, None, clock.now()))
    return new


async def _incomplete(
    engine: AsyncEngine, gateway: VenueGateway, symbol: str
) -> tuple[VenueOrder, ...]:
    """Return orders of which the venue executed more than we have fills for; mark the complete."""
    mine = and_(
        venue_order.c.venue == gateway.venue,
        venue_order.c.account == gateway.account,
        venue_order.c.symbol == symbol,
        ~venue_order.c.is_complete,
    )
    filled = (
        select(func.coalesce(func.sum(fill.c.base_units), 0))
        .where(
            fill.c.venue == venue_order.c.venue,
            fill.c.account == venue_order.c.account,
            fill.c.symbol == venue_order.c.symbol,
            fill.c.venue_order_id == venue_order.c.venue_order_id,
        )
        .scalar_subquery()
    )
    ended = venue_order.c.state.in_([str(state) for state in FINAL_STATES])

    async def work(conn: AsyncConnection) -> tuple[VenueOrder, ...]:
        await conn.execute(
            update(venue_order)
            .where(mine, ended, venue_order.c.executed_units <= filled)
            .values(is_complete=True)
        )
        rows = await conn.execute(
            select(venue_order)
            .where(mine, venue_order.c.executed_units > filled)
            .order_by(venue_order.c.created_at)
            .limit(ORDERS_CHECKED_MAX)
        )
        return tuple(order_of(row) for row in rows)

    return await transact(engine, work)


def _storing(
    page: Sequence[VenueFill],
    gateway: VenueGateway,
    symbol: str,
    cursor: str | None,
    now: datetime,
) -> Callable[[AsyncConnection], Awaitable[int]]:
    async def work(conn: AsyncConnection) -> int:
        new = await record_fills(conn, page, source="rest", now=now)
        if cursor is not None:
            await _move_cursor(conn, gateway.venue, gateway.account, symbol, cursor, now)
        return new

    return work


async def _cursor(conn: AsyncConnection, gateway: VenueGateway, symbol: str) -> str:
    found = await conn.scalar(
        select(fill_cursor.c.trade_id).where(
            fill_cursor.c.venue == gateway.venue,
            fill_cursor.c.account == gateway.account,
            fill_cursor.c.symbol == symbol,
        )
    )
    return FROM_THE_FIRST if found is None else str(found)


async def _move_cursor(
    conn: AsyncConnection, venue: str, account: str, symbol: str, trade_id: str, now: datetime
) -> None:
    statement = insert(fill_cursor).values(
        venue=venue, account=account, symbol=symbol, trade_id=trade_id, updated_at=now
    )
    await conn.execute(
        statement.on_conflict_do_update(
            index_elements=["venue", "account", "symbol"],
            set_={"trade_id": trade_id, "updated_at": now},
        )
    )


async def _require_same(conn: AsyncConnection, fills: Sequence[VenueFill]) -> None:
    keys = [(f.venue, f.account, f.symbol, f.trade_id) for f in fills]
    key = tuple_(fill.c.venue, fill.c.account, fill.c.symbol, fill.c.trade_id)
    rows = await conn.execute(select(fill).where(key.in_(keys)))
    known = {item.trade_id: item for item in map(fill_of, rows)}
    for item in fills:
        if known[item.trade_id] != item:
            raise ContradictingFill(
                f"trade {item.trade_id} of {item.symbol} at {item.venue} is on record otherwise",
                remedy="Compare the fill with the venue's statement; the first report stays",
            )
