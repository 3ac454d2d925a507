"""Fills: one table, one way in, whether the venue told us by stream or was asked.

The cursor of `collect` is its own: a fill that the stream brought first does not move it, so
nothing between is skipped. What an order has filled is always the sum of its fills; the venue's own
figure is compared with it, never taken for it.

A trade of an order that we do not know by the venue's id is looked up there: it may belong to an
order that was taken for not placed, or to nobody. Either is recorded as an event with the fill.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, and_, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from venues.errors import ContradictingFill
from venues.model import FINAL_STATES, OrderReport, OrderState, VenueFill, VenueOrder
from venues.orders import record_report
from venues.ports import VenueGateway
from venues.store import (
    FILLS_ACTOR,
    fill_of,
    find_by_client_id,
    get_order,
    insert_fills,
    order_of,
    record_late_trade,
    record_stray_fill,
    set_columns,
)
from venues.tables import fill, fill_cursor, venue_order

FROM_THE_FIRST: Final = "0"
PAGES_MAX: Final = 20
ORDERS_CHECKED_MAX: Final = 50
FILLS_MAX: Final = 500
LISTED_BEFORE_MAX: Final = timedelta(hours=1)
"""How much older than its first trade an order may be for it to be looked up by its trade."""


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
    if new:
        await _note_late(conn, distinct, now=now)
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
        reports = await _reports_of_unknown(engine, gateway, symbol, page)
        write = _storing(page, gateway, symbol, cursor, clock.now(), reports)
        new += await transact(engine, write)
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
    reports: Sequence[OrderReport] = (),
) -> Callable[[AsyncConnection], Awaitable[int]]:
    async def work(conn: AsyncConnection) -> int:
        if cursor is not None:  # first, so that of two collectors one waits for the other here
            await _move_cursor(conn, gateway.venue, gateway.account, symbol, cursor, now)
        new = await record_fills(conn, page, source="rest", now=now)
        if cursor is not None:
            await _attribute(conn, gateway, page, reports, now=now)
        return new

    return work


async def _reports_of_unknown(
    engine: AsyncEngine, gateway: VenueGateway, symbol: str, page: Sequence[VenueFill]
) -> list[OrderReport]:
    """Ask the venue about orders behind *page* of which we do not know its id."""
    known = await transact(engine, lambda conn: _known_orders(conn, page))
    unknown = [item for item in page if item.venue_order_id not in known]
    if not unknown:
        return []
    since = min(item.executed_at for item in unknown) - LISTED_BEFORE_MAX
    wanted = {item.venue_order_id for item in unknown}
    return [r for r in await gateway.list_orders(symbol, since) if r.venue_order_id in wanted]


async def _known_orders(conn: AsyncConnection, page: Sequence[VenueFill]) -> set[str]:
    rows = await conn.execute(select(venue_order.c.venue_order_id).where(_orders_behind(page)))
    return {str(row.venue_order_id) for row in rows}


def _orders_behind(page: Sequence[VenueFill]) -> ColumnElement[bool]:
    key = tuple_(
        venue_order.c.venue,
        venue_order.c.account,
        venue_order.c.symbol,
        venue_order.c.venue_order_id,
    )
    return key.in_({(f.venue, f.account, f.symbol, f.venue_order_id) for f in page})


async def _attribute(
    conn: AsyncConnection,
    gateway: VenueGateway,
    page: Sequence[VenueFill],
    reports: Sequence[OrderReport],
    *,
    now: datetime,
) -> None:
    """Give the reports to our orders; a trade of none of them is recorded as a stray one.

    An order that is just being sent is left to its sender.
    """
    claimed = await _known_orders(conn, page)
    for report in sorted(reports, key=lambda item: item.client_order_id):
        found = await find_by_client_id(
            conn, gateway.venue, gateway.account, report.client_order_id
        )
        if found is None:
            continue
        claimed.add(report.venue_order_id)
        row = await get_order(conn, found.id, lock=True)
        if row.state not in {OrderState.INTENT, OrderState.SUBMITTING}:
            await record_report(conn, row, report, actor=FILLS_ACTOR, now=now)
    for item in page:
        if item.venue_order_id not in claimed:
            await record_stray_fill(conn, item, now=now)


async def _note_late(conn: AsyncConnection, fills: Sequence[VenueFill], *, now: datetime) -> None:
    """Record an event for each ended order that has more fills than the venue said it executed."""
    ended = venue_order.c.state.in_([str(state) for state in FINAL_STATES])
    rows = await conn.execute(
        select(venue_order)
        .where(_orders_behind(fills), ended)
        .order_by(venue_order.c.id)
        .with_for_update()
    )
    for order in [order_of(row) for row in rows]:
        filled = await filled_units(conn, order)
        if filled > order.executed_units:
            after = await set_columns(conn, order, executed_units=filled)
            await record_late_trade(conn, after, now=now)


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
