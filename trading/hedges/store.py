"""Rows of hedging: read into values, written within the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from matching.model import Side
from trading.errors import NoHandFill, NoHedgeLine
from trading.hedges.model import (
    HandFill,
    HandFillState,
    HedgeLine,
    HedgeLook,
    HedgePlace,
    HedgeState,
    HedgeVerdict,
)
from trading.hedges.tables import fill_posting, hand_fill, hedge, hedge_place
from trading.pacing import Pace
from venues.model import VenueFill

HEDGE = "hedge"


async def lock_line(conn: AsyncConnection, desk: str, asset: str) -> HedgeLine:
    """Lock a hedge line and return it: planning and posting of one line take turns.

    Raises:
        NoHedgeLine: there is none.
    """
    return await get_line(conn, desk, asset, lock=True)


async def get_line(
    conn: AsyncConnection, desk: str, asset: str, *, lock: bool = False
) -> HedgeLine:
    """Return a hedge line, locked for this transaction if asked.

    The places are read after the lock is held, so that they are those of the locked line.

    Raises:
        NoHedgeLine: there is none.
    """
    query = select(hedge).where(hedge.c.desk == desk, hedge.c.asset == asset)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise _no_line(desk, asset)
    mine = and_(hedge_place.c.desk == desk, hedge_place.c.asset == asset)
    places = await conn.execute(select(hedge_place).where(mine).order_by(*hedge_place.primary_key))
    return line_of(row, [place_of(item) for item in places])


def _no_line(desk: str, asset: str) -> NoHedgeLine:
    return NoHedgeLine(
        f"nobody has said where {asset} of desk {desk} is hedged",
        remedy="Say it with `causeway venues line open`; `venues line list` shows the lines",
    )


async def get_line_id(conn: AsyncConnection, desk: str, asset: str) -> UUID:
    """Return the id under which a line's events are on record.

    Raises:
        NoHedgeLine: there is none.
    """
    line_id: UUID | None = await conn.scalar(
        select(hedge.c.id).where(hedge.c.desk == desk, hedge.c.asset == asset)
    )
    if line_id is None:
        raise _no_line(desk, asset)
    return line_id


async def list_lines(conn: AsyncConnection) -> list[HedgeLine]:
    """Return every hedge line, by desk and asset."""
    places: dict[tuple[str, str], list[HedgePlace]] = {}
    for row in await conn.execute(select(hedge_place).order_by(*hedge_place.primary_key)):
        places.setdefault((row.desk, row.asset), []).append(place_of(row))
    rows = await conn.execute(select(hedge).order_by(hedge.c.desk, hedge.c.asset))
    return [line_of(row, places.get((row.desk, row.asset), ())) for row in rows]


async def insert_line(
    conn: AsyncConnection, line: HedgeLine, line_id: UUID, *, now: datetime
) -> bool:
    """Insert a line without its places; False: there is one of this desk and asset."""
    statement = (
        insert(hedge)
        .values(
            id=line_id,
            desk=line.desk,
            asset=line.asset,
            quote=line.quote,
            target=line.target,
            state=str(line.state),
            sequence=line.sequence,
            created_at=now,
            updated_at=now,
        )
        .on_conflict_do_nothing()
    )
    return (await conn.execute(statement)).rowcount == 1


async def insert_place(
    conn: AsyncConnection, desk: str, asset: str, place: HedgePlace, *, now: datetime
) -> bool:
    """Insert a place of a line; False: it is a place of this or another line already."""
    statement = (
        insert(hedge_place)
        .values(
            venue=place.venue,
            account=place.account,
            symbol=place.symbol,
            desk=desk,
            asset=asset,
            is_open=place.is_open,
            created_at=now,
            updated_at=now,
        )
        .on_conflict_do_nothing()
    )
    return (await conn.execute(statement)).rowcount == 1


async def update_place(conn: AsyncConnection, place: HedgePlace, *, now: datetime) -> None:
    """Open or close a place of a locked line."""
    await conn.execute(
        update(hedge_place)
        .where(
            hedge_place.c.venue == place.venue,
            hedge_place.c.account == place.account,
            hedge_place.c.symbol == place.symbol,
        )
        .values(is_open=place.is_open, updated_at=now)
    )


async def line_of_place(
    conn: AsyncConnection, venue: str, account: str, symbol: str
) -> tuple[str, str] | None:
    """Return desk and asset of the line that a place belongs to; None: of none."""
    query = select(hedge_place.c.desk, hedge_place.c.asset).where(
        hedge_place.c.venue == venue,
        hedge_place.c.account == account,
        hedge_place.c.symbol == symbol,
    )
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else (row.desk, row.asset)


async def update_line(
    conn: AsyncConnection, line: HedgeLine, *, now: datetime, **columns: object
) -> UUID:
    """Update the locked *line*; return its id."""
    statement = (
        update(hedge)
        .where(hedge.c.desk == line.desk, hedge.c.asset == line.asset)
        .values(updated_at=now, **columns)
        .returning(hedge.c.id)
    )
    line_id: UUID = (await conn.execute(statement)).scalar_one()
    return line_id


async def learn_quote(
    conn: AsyncConnection, line: HedgeLine, quote: str, now: datetime
) -> HedgeLine:
    """Keep what the locked *line* pays with: its first place has told."""
    await update_line(conn, line, now=now, quote=quote)
    return replace(line, quote=quote)


async def write_look(
    conn: AsyncConnection, line: HedgeLine, look: HedgeLook, pace: Pace | None
) -> None:
    """Keep what was seen of the locked *line*, and how far its hedge is stretched."""
    await update_line(
        conn,
        line,
        now=look.at,
        pace_started_at=None if pace is None else pace.started_at,
        pace_units=None if pace is None else pace.units,
        pace_until=None if pace is None else pace.until,
        looked_at=look.at,
        look_verdict=str(look.verdict),
        look_detail=look.detail,
        look_position=look.position,
        look_low=look.low,
        look_high=look.high,
        look_need=look.need,
        look_waiting=look.waiting,
        look_residual=look.residual,
    )


async def insert_posting(
    conn: AsyncConnection,
    fill: VenueFill,
    *,
    book: int,
    desk: str,
    fee_value: int | None,
    fee_price_id: UUID | None,
    now: datetime,
) -> None:
    """Insert the row that says that *fill* is posted; a second one breaks its unique key."""
    await conn.execute(
        insert(fill_posting).values(
            fill_id=fill.id,
            book=book,
            desk=desk,
            venue=fill.venue,
            account=fill.account,
            symbol=fill.symbol,
            trade_id=fill.trade_id,
            fee_value=fee_value,
            fee_price_id=fee_price_id,
            posted_at=now,
        )
    )


async def insert_hand_fill(conn: AsyncConnection, item: HandFill) -> bool:
    """Insert a fill that was entered by hand; False: its trade was entered before."""
    fill = item.fill
    statement = (
        insert(hand_fill)
        .values(
            id=item.id,
            book=item.book,
            venue=fill.venue,
            account=fill.account,
            symbol=fill.symbol,
            trade_id=fill.trade_id,
            venue_order_id=fill.venue_order_id,
            side=fill.side.value,
            price=fill.price,
            base=fill.base,
            base_units=fill.base_units,
            quote=fill.quote,
            quote_units=fill.quote_units,
            fee_asset=fill.fee_asset,
            fee_units=fill.fee_units,
            executed_at=fill.executed_at,
            evidence=item.evidence,
            state=str(item.state),
            proposed_by=item.proposed_by,
            created_at=item.created_at,
            updated_at=item.created_at,
        )
        .on_conflict_do_nothing(index_elements=["venue", "account", "symbol", "trade_id"])
    )
    return (await conn.execute(statement)).rowcount == 1


async def find_hand_fill(
    conn: AsyncConnection, venue: str, account: str, symbol: str, trade_id: str
) -> HandFill | None:
    """Return what was entered of a trade; None: nothing was."""
    query = select(hand_fill).where(
        hand_fill.c.venue == venue,
        hand_fill.c.account == account,
        hand_fill.c.symbol == symbol,
        hand_fill.c.trade_id == trade_id,
    )
    row = (await conn.execute(query)).one_or_none()
    return None if row is None else hand_fill_of(row)


async def get_hand_fill(conn: AsyncConnection, fill_id: UUID, *, lock: bool = False) -> HandFill:
    """Return a fill that was entered by hand, locked for this transaction if asked.

    Raises:
        NoHandFill: there is none.
    """
    query = select(hand_fill).where(hand_fill.c.id == fill_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoHandFill(f"no fill {fill_id} was entered by hand")
    return hand_fill_of(row)


async def list_hand_fills(
    conn: AsyncConnection, states: Collection[HandFillState], limit: int
) -> list[HandFill]:
    """Return fills that were entered by hand, newest first."""
    rows = await conn.execute(
        select(hand_fill)
        .where(hand_fill.c.state.in_([str(state) for state in states]))
        .order_by(hand_fill.c.created_at.desc(), hand_fill.c.id)
        .limit(limit)
    )
    return [hand_fill_of(row) for row in rows]


async def update_hand_fill(
    conn: AsyncConnection, item: HandFill, *, signature: bytes, now: datetime
) -> None:
    """Write how the locked fill was decided."""
    await conn.execute(
        update(hand_fill)
        .where(hand_fill.c.id == item.id)
        .values(
            state=str(item.state),
            decided_by=item.decided_by,
            decided_at=item.decided_at,
            signature=signature,
            updated_at=now,
        )
    )


def hand_fill_of(row: Row[Any]) -> HandFill:
    """Return the value of the row of a fill that was entered by hand."""
    return HandFill(
        id=row.id,
        book=row.book,
        fill=VenueFill(
            venue=row.venue,
            account=row.account,
            symbol=row.symbol,
            trade_id=row.trade_id,
            venue_order_id=row.venue_order_id,
            side=Side(row.side),
            price=row.price,
            base=row.base,
            base_units=row.base_units,
            quote=row.quote,
            quote_units=row.quote_units,
            quote_dust=0,
            fee_asset=row.fee_asset,
            fee_units=row.fee_units,
            fee_dust=0,
            is_maker=False,
            executed_at=row.executed_at,
        ),
        evidence=row.evidence,
        state=HandFillState(row.state),
        proposed_by=row.proposed_by,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        created_at=row.created_at,
    )


def place_of(row: Row[Any]) -> HedgePlace:
    """Return the value of a place's row."""
    return HedgePlace(row.venue, row.account, row.symbol, row.is_open)


def line_of(row: Row[Any], places: Sequence[HedgePlace]) -> HedgeLine:
    """Return the value of a hedge line's row and those of its places."""
    return HedgeLine(
        desk=row.desk,
        asset=row.asset,
        places=tuple(places),
        quote=row.quote,
        target=row.target,
        state=HedgeState(row.state),
        sequence=row.sequence,
        pace=_pace(row),
        look=_look(row),
    )


def _pace(row: Row[Any]) -> Pace | None:
    if row.pace_started_at is None:
        return None
    return Pace(started_at=row.pace_started_at, units=row.pace_units, until=row.pace_until)


def _look(row: Row[Any]) -> HedgeLook | None:
    if row.looked_at is None:
        return None
    return HedgeLook(
        at=row.looked_at,
        verdict=HedgeVerdict(row.look_verdict),
        detail=row.look_detail,
        position=row.look_position,
        low=row.look_low,
        high=row.look_high,
        need=row.look_need,
        waiting=row.look_waiting,
        residual=row.look_residual,
    )
