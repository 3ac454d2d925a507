"""Rows of backfills: written page by page, read by whoever continues or looks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Table, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from marketdata.backfill_model import Backfill, Past, Wanted, figures, row_key
from marketdata.backfill_tables import backfill, past_candle, past_trade
from marketdata.events import CandleSeen, Channel, TradeSeen

INSERT_MAX: Final = 1_000
"""Rows of one statement: PostgreSQL counts 32,767 parameters at most."""


async def insert_backfill(conn: AsyncConnection, item: Backfill) -> None:
    """Write a backfill unless it is there."""
    wanted = item.wanted
    values = {
        "id": item.id,
        "venue": wanted.venue,
        "symbol": wanted.symbol,
        "channel": str(wanted.channel),
        "interval_s": wanted.interval_s,
        "since": wanted.since,
        "until": wanted.until,
        "gap_id": wanted.gap_id,
        "asked_at": item.asked_at,
        **_progress(item),
    }
    await conn.execute(insert(backfill).values(values).on_conflict_do_nothing())


async def find_backfill(
    conn: AsyncConnection, backfill_id: UUID, *, lock: bool = False
) -> Backfill | None:
    """Return a backfill, its row locked if asked."""
    query = select(backfill).where(backfill.c.id == backfill_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else _backfill_of(row)


async def update_backfill(conn: AsyncConnection, item: Backfill) -> None:
    """Write how far a backfill has come."""
    await conn.execute(update(backfill).where(backfill.c.id == item.id).values(_progress(item)))


async def select_backfills(
    conn: AsyncConnection, venue: str | None, *, is_open: bool, limit: int
) -> list[Backfill]:
    """Return backfills, those asked for last first."""
    query = select(backfill).order_by(backfill.c.asked_at.desc(), backfill.c.id.desc())
    if venue is not None:
        query = query.where(backfill.c.venue == venue)
    if is_open:
        query = query.where(backfill.c.done_at.is_(None))
    return [_backfill_of(row) for row in await conn.execute(query.limit(limit))]


async def insert_rows(
    conn: AsyncConnection, item: Backfill, rows: Sequence[Past], *, version: int
) -> int:
    """Write those rows of a page that nobody had, and return how many they are."""
    table = _table(item.wanted)
    new = 0
    for start in range(0, len(rows), INSERT_MAX):
        values = [_values(row, item.id, version) for row in rows[start : start + INSERT_MAX]]
        result = await conn.execute(insert(table).values(values).on_conflict_do_nothing())
        new += result.rowcount
    return new


async def count_differing(
    conn: AsyncConnection, wanted: Wanted, rows: Sequence[Past], *, version: int
) -> int:
    """Return how many of *rows* are on record with other figures, on the same grid."""
    said = {row_key(row): figures(row) for row in rows}
    table = _table(wanted)
    key = table.c.trade_id if wanted.channel is Channel.TRADES else table.c.open_ns
    query = select(table).where(
        table.c.venue == wanted.venue,
        table.c.symbol == wanted.symbol,
        table.c.instrument_version == version,
        key.in_(list(said)),
    )
    if wanted.channel is Channel.CANDLES:
        query = query.where(table.c.interval_s == wanted.interval_s)
    read = [_past(row, wanted.channel) for row in await conn.execute(query)]
    return sum(figures(known) != said[row_key(known)] for known in read)


async def count_past(conn: AsyncConnection, wanted: Wanted, *, since_ns: int, until_ns: int) -> int:
    """Return how many rows on record lie in a stretch of the venue's time."""
    table = _table(wanted)
    at = table.c.exchange_ns if wanted.channel is Channel.TRADES else table.c.open_ns
    query = select(func.count()).where(
        table.c.venue == wanted.venue,
        table.c.symbol == wanted.symbol,
        at >= since_ns,
        at < until_ns,
    )
    if wanted.channel is Channel.CANDLES:
        query = query.where(table.c.interval_s == wanted.interval_s)
    return int((await conn.execute(query)).scalar_one())


async def select_past(
    conn: AsyncConnection,
    channel: Channel,
    *,
    venue: str,
    symbol: str,
    since_ns: int,
    until_ns: int,
    interval_s: int | None,
    version: int | None,
    limit: int,
) -> list[Past]:
    """Return rows on record of a stretch of the venue's time, oldest first."""
    table = past_trade if channel is Channel.TRADES else past_candle
    at = table.c.exchange_ns if channel is Channel.TRADES else table.c.open_ns
    tie = table.c.trade_id if channel is Channel.TRADES else table.c.interval_s
    query = select(table).where(
        table.c.venue == venue, table.c.symbol == symbol, at >= since_ns, at < until_ns
    )
    if interval_s is not None and channel is Channel.CANDLES:
        query = query.where(past_candle.c.interval_s == interval_s)
    if version is not None:
        query = query.where(table.c.instrument_version == version)
    rows = await conn.execute(query.order_by(at, tie).limit(limit))
    return [_past(row, channel) for row in rows]


def _table(wanted: Wanted) -> Table:
    return past_trade if wanted.channel is Channel.TRADES else past_candle


def _progress(item: Backfill) -> dict[str, Any]:
    return {
        "cursor": item.cursor,
        "reached": item.reached,
        "pages": item.pages,
        "seen": item.seen,
        "new": item.new,
        "differing": item.differing,
        "untold_until": item.untold_until,
        "updated_at": item.updated_at,
        "done_at": item.done_at,
    }


def _values(row: Past, backfill_id: UUID, version: int) -> dict[str, Any]:
    shared = {
        "venue": row.venue,
        "symbol": row.symbol,
        "instrument_version": version,
        "received_ns": row.received_ns,
        "backfill_id": backfill_id,
    }
    if isinstance(row, TradeSeen):
        return {
            **shared,
            "trade_id": row.trade_id,
            "ticks": row.ticks,
            "units": row.units,
            "buyer_is_maker": row.buyer_is_maker,
            "exchange_ns": row.exchange_ns,
        }
    return {
        **shared,
        "interval_s": row.interval_s,
        "open_ns": row.open_ns,
        "open_ticks": row.open_ticks,
        "high_ticks": row.high_ticks,
        "low_ticks": row.low_ticks,
        "close_ticks": row.close_ticks,
        "base_units": row.base_units,
        "trades": row.trades,
    }


def _past(row: Row[Any], channel: Channel) -> Past:
    if channel is Channel.TRADES:
        return TradeSeen(
            venue=row.venue,
            symbol=row.symbol,
            trade_id=row.trade_id,
            ticks=row.ticks,
            units=row.units,
            buyer_is_maker=row.buyer_is_maker,
            exchange_ns=row.exchange_ns,
            received_ns=row.received_ns,
        )
    return CandleSeen(
        venue=row.venue,
        symbol=row.symbol,
        interval_s=row.interval_s,
        open_ns=row.open_ns,
        open_ticks=row.open_ticks,
        high_ticks=row.high_ticks,
        low_ticks=row.low_ticks,
        close_ticks=row.close_ticks,
        base_units=row.base_units,
        trades=row.trades,
        is_closed=True,
        exchange_ns=0,
        received_ns=row.received_ns,
    )


def _backfill_of(row: Row[Any]) -> Backfill:
    done_at: datetime | None = row.done_at
    return Backfill(
        id=row.id,
        wanted=Wanted(
            venue=row.venue,
            symbol=row.symbol,
            channel=Channel(row.channel),
            since=row.since,
            until=row.until,
            interval_s=row.interval_s,
            gap_id=row.gap_id,
        ),
        cursor=row.cursor,
        reached=row.reached,
        pages=row.pages,
        seen=row.seen,
        new=row.new,
        differing=row.differing,
        untold_until=row.untold_until,
        asked_at=row.asked_at,
        updated_at=row.updated_at,
        done_at=done_at,
    )
