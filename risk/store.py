"""Rows of risk and the values they stand for; the order in which its locks are taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, Table, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.rows import insert_rows
from risk.model import EVERY, Control, ControlState, DeskLimits, PartyLimits
from risk.tables import desk_control, desk_limits, order_passed, party_limit, party_limits

RATE_WINDOW: Final = timedelta(minutes=1)


async def lock_desk(conn: AsyncConnection, desk: str) -> None:
    """Lock the row of a desk, made if there is none.

    A row is made under a share of the house's, which a change of the house's switch locks: so that
    change either finds the row or is seen by whoever made it.
    """
    mine = select(desk_control.c.desk).where(desk_control.c.desk == desk).with_for_update()
    if (await conn.execute(mine)).first() is not None:
        return
    await _make(conn, EVERY)
    house = select(desk_control.c.desk).where(desk_control.c.desk == EVERY)
    await conn.execute(house.with_for_update(read=True))
    await _make(conn, desk)
    (await conn.execute(mine)).one()


async def lock_house(conn: AsyncConnection) -> None:
    """Lock the house's row, then the row of every desk, in the order of their names."""
    await _make(conn, EVERY)
    house = select(desk_control.c.desk).where(desk_control.c.desk == EVERY)
    await conn.execute(house.with_for_update())
    # A statement of its own: it sees the rows that were made while the first one waited.
    desks = select(desk_control.c.desk).where(desk_control.c.desk != EVERY)
    await conn.execute(desks.order_by(desk_control.c.desk).with_for_update())


async def list_controls(
    conn: AsyncConnection, desks: Collection[str] | None = None
) -> dict[str, Control]:
    """Return the switches on record, by desk; of all desks, or of these."""
    query = select(desk_control)
    if desks is not None:
        query = query.where(desk_control.c.desk.in_(sorted(desks)))
    return {row.desk: _control(row) for row in await conn.execute(query)}


async def update_control(conn: AsyncConnection, item: Control) -> None:
    """Write a switch whose row is locked."""
    await conn.execute(
        update(desk_control)
        .where(desk_control.c.desk == item.desk)
        .values(
            state=str(item.state),
            reason=item.reason,
            changed_by=item.by,
            since=item.since,
            version=item.version,
        )
    )


async def find_desk_limits(conn: AsyncConnection, desk: str) -> DeskLimits | None:
    """Return the limits in force for a desk: its own, else those of `EVERY`, else None."""
    found = await list_desk_limits(conn, {desk, EVERY})
    return found.get(desk) or found.get(EVERY)


async def list_desk_limits(
    conn: AsyncConnection, desks: Collection[str] | None = None
) -> dict[str, DeskLimits]:
    """Return the newest version of each desk's own limits; of all desks, or of these."""
    query = select(desk_limits).ext(distinct_on(desk_limits.c.desk))
    if desks is not None:
        query = query.where(desk_limits.c.desk.in_(sorted(desks)))
    newest = query.order_by(desk_limits.c.desk, desk_limits.c.version.desc())
    return {row.desk: _desk_limits(row) for row in await conn.execute(newest)}


async def insert_desk_limits(
    conn: AsyncConnection, item: DeskLimits, *, approved: Mapping[str, object]
) -> bool:
    """Insert a version of a desk's limits; False: there is one of that number."""
    row = {
        "desk": item.desk,
        "version": item.version,
        "currency": item.currency,
        "asset_units": {code: str(units) for code, units in item.asset_units.items()},
        "venue_units": {code: str(units) for code, units in item.venue_units.items()},
        "notional_units": item.notional_units,
        "order_notional_units": item.order_notional_units,
        "orders_per_minute": item.orders_per_minute,
        "unknown_orders_max": item.unknown_orders_max,
        "loss_units": item.loss_units,
        "book_age_max_ms": item.book_age_max_ms,
        **approved,
    }
    return await _insert(conn, desk_limits, row)


async def lock_party_limits(
    conn: AsyncConnection, parties: Collection[str]
) -> dict[str, PartyLimits]:
    """Lock those of *parties* that have limits, in the order of their codes, and return these.

    A party without limits of its own has those of `EVERY`, where there are some, and is then locked
    too; where there are none either it is left out, and so is not locked.
    """
    of_these = party_limit.c.party.in_(sorted({*parties, EVERY}))
    heads = {
        row.party: row.version for row in await conn.execute(select(party_limit).where(of_these))
    }
    bound = {p for p in parties if heads.get(p, 0) > 0 or heads.get(EVERY, 0) > 0}
    if not bound:
        return {}
    rows = [{"party": party, "version": 0} for party in sorted(bound - set(heads))]
    if rows:
        await insert_rows(conn, party_limit, rows, known="ON CONFLICT DO NOTHING")
    # In one order for everybody. What is in force is read again now that it cannot change.
    locked = select(party_limit.c.party).where(party_limit.c.party.in_(sorted(bound)))
    await conn.execute(locked.order_by(party_limit.c.party).with_for_update())
    in_force = await list_party_limits(conn, {*bound, EVERY})
    default = in_force.get(EVERY)
    found = {party: in_force.get(party, default) for party in sorted(bound)}
    return {party: limits for party, limits in found.items() if limits is not None}


async def lock_party(conn: AsyncConnection, party: str) -> int:
    """Lock the row of a party, made if there is none, and return the version in force."""
    row = {"party": party, "version": 0}
    await conn.execute(insert(party_limit).values(row).on_conflict_do_nothing())
    query = select(party_limit.c.version).where(party_limit.c.party == party).with_for_update()
    version: int = (await conn.execute(query)).scalar_one()
    return version


async def list_party_limits(
    conn: AsyncConnection, parties: Collection[str] | None = None
) -> dict[str, PartyLimits]:
    """Return the newest version of each party's own limits; of all parties, or of these."""
    newest = select(party_limit.c.party, party_limit.c.version)
    if parties is not None:
        newest = newest.where(party_limit.c.party.in_(sorted(parties)))
    query = select(party_limits).where(
        tuple_(party_limits.c.party, party_limits.c.version).in_(newest)
    )
    return {row.party: _party_limits(row) for row in await conn.execute(query)}


async def insert_party_limits(
    conn: AsyncConnection, item: PartyLimits, *, approved: Mapping[str, object]
) -> None:
    """Insert a version of the limits of a party whose row is locked, and put it into force."""
    row = {
        "party": item.party,
        "version": item.version,
        "currency": item.currency,
        "exposure_units": item.exposure_units,
        "settlement_units": item.settlement_units,
        **approved,
    }
    await conn.execute(insert(party_limits).values(row))
    await conn.execute(
        update(party_limit).where(party_limit.c.party == item.party).values(version=item.version)
    )


async def count_passed(conn: AsyncConnection, desk: str, *, now: datetime) -> int:
    """Return how many orders passed within the last minute; the desk is locked.

    Clocks of several processes differ a little: what seems to be of the future counts.
    """
    query = select(func.count()).where(
        order_passed.c.desk == desk, order_passed.c.passed_at > now - RATE_WINDOW
    )
    return (await conn.execute(query)).scalar_one()


async def add_passed(conn: AsyncConnection, desk: str, orders: int, *, now: datetime) -> None:
    """Count orders that passed, and forget those that no rate counts any more; the desk is locked."""
    of_desk = order_passed.c.desk == desk
    last = (await conn.execute(select(func.max(order_passed.c.number)).where(of_desk))).scalar()
    first = (last or 0) + 1
    rows = [
        {"desk": desk, "number": number, "passed_at": now}
        for number in range(first, first + orders)
    ]
    await insert_rows(conn, order_passed, rows)
    # Twice the window: what one process finds old, another one's clock may not.
    old = order_passed.c.passed_at < now - 2 * RATE_WINDOW
    await conn.execute(delete(order_passed).where(of_desk, old))


async def _insert(conn: AsyncConnection, table: Table, row: Mapping[str, object]) -> bool:
    done = await conn.execute(insert(table).values(dict(row)).on_conflict_do_nothing())
    return done.rowcount == 1


async def _make(conn: AsyncConnection, desk: str) -> None:
    row = {
        "desk": desk,
        "state": str(ControlState.ACTIVE),
        "reason": "",
        "changed_by": "",
        "since": None,
        "version": 0,
    }
    await conn.execute(insert(desk_control).values(row).on_conflict_do_nothing())


def _control(row: Row[Any]) -> Control:
    return Control(
        desk=row.desk,
        state=ControlState(row.state),
        reason=row.reason,
        by=row.changed_by,
        since=row.since,
        version=row.version,
    )


def _desk_limits(row: Row[Any]) -> DeskLimits:
    return DeskLimits(
        desk=row.desk,
        version=row.version,
        currency=row.currency,
        asset_units={code: int(text) for code, text in row.asset_units.items()},
        notional_units=row.notional_units,
        order_notional_units=row.order_notional_units,
        orders_per_minute=row.orders_per_minute,
        unknown_orders_max=row.unknown_orders_max,
        loss_units=row.loss_units,
        book_age_max_ms=row.book_age_max_ms,
        venue_units={code: int(text) for code, text in row.venue_units.items()},
    )


def _party_limits(row: Row[Any]) -> PartyLimits:
    return PartyLimits(
        party=row.party,
        version=row.version,
        currency=row.currency,
        exposure_units=row.exposure_units,
        settlement_units=row.settlement_units,
    )
