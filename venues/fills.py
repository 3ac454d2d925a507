"""Fills: one table, one way in, whether the venue told us by stream or was asked.

The cursor of `collect` is its own: a fill that the stream brought first does not move it, so
nothing between is skipped. What an order has filled is always the sum of its fills; the venue's own
figure is compared with it, never taken for it.

A trade of an order that we do not know by the venue's id is looked up there: it may belong to an
order that was taken for not placed, or to nobody. Either is recorded as an event with the fill.

A trade that cannot be read, because its asset or instrument is not known yet, is kept as the venue
told it and alarmed once; the cursor stays before it, so it is read as soon as it can be. More filled
than ordered is recorded like everything else: a venue's trade is a fact, whatever we think of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Uuid,
    and_,
    any_,
    bindparam,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from venues.account_reading import opened_at
from venues.account_state import reduce_only
from venues.errors import VenueUnavailable
from venues.model import (
    FINAL_STATES,
    FillPage,
    OrderReport,
    OrderState,
    UnreadFill,
    VenueFill,
    VenueOrder,
)
from venues.ports import FROM_THE_FIRST, VenueGateway
from venues.reports import record_late_trade, record_overfill, record_report
from venues.store import (
    FILLS_ACTOR,
    fill_of,
    find_by_client_id,
    get_order,
    insert_fills,
    order_of,
    record_contradiction,
    record_stray_fill,
    set_columns,
)
from venues.tables import fill, fill_cursor, unread_fill, venue_order

PAGES_MAX: Final = 20
SKIPPED_PAGES_MAX: Final = 10_000
ORDERS_CHECKED_MAX: Final = 50
FILLS_MAX: Final = 500
LISTED_BEFORE_MAX: Final = timedelta(hours=1)
"""How much older than its first trade an order may be for it to be looked up by its trade."""

_FILL_IDS: Final = bindparam("fill_ids", type_=ARRAY(Uuid))


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection brought: new fills, orders whose fills still do not add up, bad rows."""

    new: int
    incomplete: tuple[VenueOrder, ...]
    unread: int = 0


async def record_fills(
    conn: AsyncConnection, fills: Sequence[VenueFill], *, source: str, now: datetime
) -> int:
    """Insert what is not there yet and return how many were new; order and repeats do not matter.

    A trade that is on record with other content stays as it was first told; a person is called.
    """
    distinct = list({(f.venue, f.account, f.symbol, f.trade_id): f for f in fills}.values())
    new = await insert_fills(conn, distinct, source=source, now=now)
    if new < len(distinct):
        await _compare(conn, distinct, now=now)
    if new:
        await _weigh(conn, distinct, now=now)
    return new


async def collect(
    engine: AsyncEngine, gateway: VenueGateway, symbol: str, *, clock: Clock
) -> Collected:
    """Read our trades of *symbol* from the cursor on, then the trades of orders that fall short.

    Raises:
        VenueUnavailable: the venue does not answer; what was read until then is kept.
    """
    new = unread = 0
    cursor, floor = await transact(engine, lambda conn: _start(conn, gateway, symbol))
    if floor is not None:
        cursor = await _skip_before(gateway, symbol, floor)
    for _ in range(PAGES_MAX):
        page = await gateway.fills(symbol, cursor)
        if floor is not None:
            page = replace(page, fills=tuple(f for f in page.fills if f.executed_at >= floor))
        cursor = page.cursor
        unread += len(page.unread)
        if page.fills or page.unread:
            reports = await _reports_of_unknown(engine, gateway, symbol, page.fills)
            kept = None if unread else cursor  # what cannot be read now is asked for again
            write = _storing(page, gateway, symbol, kept, clock.now(), reports)
            new += await transact(engine, write)
        elif floor is not None:
            await transact(engine, _keeping(gateway, symbol, cursor, clock.now()))
        if page.is_last:
            break
    new += await _fill_up(engine, gateway, symbol, clock)
    return Collected(new, await _incomplete(engine, gateway, symbol), unread)


async def _start(
    conn: AsyncConnection, gateway: VenueGateway, symbol: str
) -> tuple[str, datetime | None]:
    """Return from where on trades are read, and before when they are in the opening balances.

    The latter only for a symbol that nobody named when the account was opened.
    """
    cursor = await _cursor(conn, gateway, symbol)
    if cursor is not None:
        return cursor, None
    opened = await opened_at(conn, gateway.venue, gateway.account)
    return FROM_THE_FIRST, None if opened is None else gateway.venue_time(opened)


async def _skip_before(gateway: VenueGateway, symbol: str, floor: datetime) -> str:
    """Return where the page begins that has the first trade not before *floor*, or the last page."""
    cursor = FROM_THE_FIRST
    for _ in range(SKIPPED_PAGES_MAX):
        page = await gateway.fills(symbol, cursor)
        if page.is_last or any(item.executed_at >= floor for item in page.fills):
            return cursor
        cursor = page.cursor
    raise VenueUnavailable(f"{symbol} has more old trades than can be left out")


async def begin_history(
    conn: AsyncConnection, venue: str, account: str, symbol: str, *, cursor: str, now: datetime
) -> None:
    """Leave out our trades before *cursor*: they are in the opening balances."""
    await _move_cursor(conn, venue, account, symbol, cursor, now)


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


async def pairs_of_fills(
    conn: AsyncConnection, fill_ids: Collection[UUID]
) -> dict[UUID, tuple[str, str]]:
    """Return the codes of base and quote of those fills that are on record, by id."""
    rows = await conn.execute(
        select(fill.c.id, fill.c.base, fill.c.quote).where(fill.c.id == any_(_FILL_IDS)),
        {_FILL_IDS.key: list(fill_ids)},
    )
    return {row.id: (row.base, row.quote) for row in rows}


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
            page = FillPage(
                fills=tuple(await gateway.fills_of_order(order)), cursor="", is_last=True
            )
            new += await transact(engine, _storing(page, gateway, symbol, None, clock.now()))
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
    page: FillPage,
    gateway: VenueGateway,
    symbol: str,
    cursor: str | None,
    now: datetime,
    reports: Sequence[OrderReport] = (),
) -> Callable[[AsyncConnection], Awaitable[int]]:
    async def work(conn: AsyncConnection) -> int:
        if cursor is not None:  # first, so that of two collectors one waits for the other here
            await _move_cursor(conn, gateway.venue, gateway.account, symbol, cursor, now)
        new = await record_fills(conn, page.fills, source="rest", now=now)
        await _attribute(conn, gateway, page.fills, reports, now=now)
        if page.unread:
            await keep_unread(conn, gateway.venue, gateway.account, symbol, page.unread, now=now)
        if new:
            await _now_read(conn, page.fills, now=now)
        return new

    return work


def _keeping(
    gateway: VenueGateway, symbol: str, cursor: str, now: datetime
) -> Callable[[AsyncConnection], Awaitable[None]]:
    return lambda conn: _move_cursor(conn, gateway.venue, gateway.account, symbol, cursor, now)


async def keep_unread(
    conn: AsyncConnection,
    venue: str,
    account: str,
    symbol: str,
    rows: Sequence[UnreadFill],
    *,
    now: datetime,
) -> int:
    """Keep trades that cannot be read as the venue told them; return how many were new.

    What they did to the position is not known, so the account may only reduce it from here on.
    """
    statement = (
        insert(unread_fill)
        .values(
            [
                {
                    "venue": venue,
                    "account": account,
                    "symbol": symbol,
                    "trade_id": row.trade_id,
                    "venue_order_id": row.venue_order_id,
                    "reason": row.reason,
                    "raw": row.raw,
                    "seen_at": now,
                }
                for row in {row.trade_id: row for row in rows}.values()
            ]
        )
        .on_conflict_do_nothing()
        .returning(unread_fill.c.trade_id)
    )
    kept = (await conn.execute(statement)).scalars().all()
    if kept:
        reason = f"trades of {symbol} that cannot be read: {', '.join(sorted(kept)[:5])}"
        await reduce_only(conn, venue, account, reason=reason, actor=FILLS_ACTOR, now=now)
    return len(kept)


async def list_unread(conn: AsyncConnection, venue: str, account: str) -> list[UnreadFill]:
    """Return the trades that cannot be read yet, oldest first, at most `FILLS_MAX`."""
    rows = await conn.execute(
        select(unread_fill)
        .where(
            unread_fill.c.venue == venue,
            unread_fill.c.account == account,
            unread_fill.c.read_at.is_(None),
        )
        .order_by(unread_fill.c.seen_at, unread_fill.c.trade_id)
        .limit(FILLS_MAX)
    )
    return [
        UnreadFill(
            trade_id=row.trade_id,
            venue_order_id=row.venue_order_id,
            reason=row.reason,
            raw=row.raw,
        )
        for row in rows
    ]


async def _now_read(conn: AsyncConnection, fills: Sequence[VenueFill], *, now: datetime) -> None:
    key = tuple_(
        unread_fill.c.venue, unread_fill.c.account, unread_fill.c.symbol, unread_fill.c.trade_id
    )
    await conn.execute(
        update(unread_fill)
        .where(
            key.in_({(f.venue, f.account, f.symbol, f.trade_id) for f in fills}),
            unread_fill.c.read_at.is_(None),
        )
        .values(read_at=now)
    )


async def _reports_of_unknown(
    engine: AsyncEngine, gateway: VenueGateway, symbol: str, page: Sequence[VenueFill]
) -> list[OrderReport]:
    """Ask the venue about orders behind *page* of which we do not know its id."""
    if not page:
        return []
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
    """Give the reports to our orders; a trade of none of them is recorded as a stray one."""
    claimed = await _known_orders(conn, page)
    for report in sorted(reports, key=lambda item: item.client_order_id):
        found = await find_by_client_id(
            conn, gateway.venue, gateway.account, report.client_order_id
        )
        if found is None:
            continue
        claimed.add(report.venue_order_id)
        row = await get_order(conn, found.id, lock=True)
        if row.state is not OrderState.INTENT:
            await record_report(conn, row, report, actor=FILLS_ACTOR, now=now)
    for item in page:
        if item.venue_order_id not in claimed:
            await record_stray_fill(conn, item, now=now)


async def _weigh(conn: AsyncConnection, fills: Sequence[VenueFill], *, now: datetime) -> None:
    """Compare the orders behind new *fills* with what they have filled now.

    An order that is over and has more fills than the venue said it executed has traded late; one
    that has more than was ordered is overfilled. Either is an event, once per new height.
    """
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
    rows = await conn.execute(
        select(venue_order.c.id)
        .where(
            _orders_behind(fills),
            filled > venue_order.c.executed_units,
            or_(ended, filled > venue_order.c.base_units),
        )
        .order_by(venue_order.c.id)
    )
    for order_id in rows.scalars().all():
        await _weigh_one(conn, await get_order(conn, order_id, lock=True), now=now)


async def _weigh_one(conn: AsyncConnection, before: VenueOrder, *, now: datetime) -> None:
    filled = await filled_units(conn, before)
    if filled <= before.executed_units:
        return
    after = await set_columns(conn, before, executed_units=filled, is_complete=False)
    if before.state in FINAL_STATES:
        after = await record_late_trade(conn, after, filled, now=now)
    if before.executed_units <= before.base_units < filled:
        await record_overfill(conn, after, filled, now=now)


async def _cursor(conn: AsyncConnection, gateway: VenueGateway, symbol: str) -> str | None:
    found = await conn.scalar(
        select(fill_cursor.c.trade_id).where(
            fill_cursor.c.venue == gateway.venue,
            fill_cursor.c.account == gateway.account,
            fill_cursor.c.symbol == symbol,
        )
    )
    return None if found is None else str(found)


async def _move_cursor(
    conn: AsyncConnection, venue: str, account: str, symbol: str, cursor: str, now: datetime
) -> None:
    statement = insert(fill_cursor).values(
        venue=venue, account=account, symbol=symbol, trade_id=cursor, updated_at=now
    )
    await conn.execute(
        statement.on_conflict_do_update(
            index_elements=["venue", "account", "symbol"],
            set_={"trade_id": cursor, "updated_at": now},
        )
    )


async def _compare(conn: AsyncConnection, fills: Sequence[VenueFill], *, now: datetime) -> None:
    """Tell a person of each trade that is on record with other content; the first report stays."""
    keys = [(f.venue, f.account, f.symbol, f.trade_id) for f in fills]
    key = tuple_(fill.c.venue, fill.c.account, fill.c.symbol, fill.c.trade_id)
    rows = await conn.execute(select(fill).where(key.in_(keys)))
    known = {(f.symbol, f.trade_id): f for f in map(fill_of, rows)}
    for item in fills:
        stored = known[item.symbol, item.trade_id]
        if _story(stored) == _story(item):
            continue
        if await record_contradiction(conn, stored, now=now):
            await reduce_only(
                conn,
                item.venue,
                item.account,
                reason=f"two stories about trade {item.trade_id} of {item.symbol}",
                actor=FILLS_ACTOR,
                now=now,
            )


def _story(item: VenueFill) -> tuple[object, ...]:
    """Return what a trade did to our holdings: a stream may spell prices and times otherwise."""
    return (
        item.venue_order_id,
        item.side,
        (item.base, item.base_units),
        (item.quote, item.quote_units, item.quote_dust),
        (item.fee_asset, item.fee_units, item.fee_dust),
    )
