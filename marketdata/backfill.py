"""Trades and candles of the past, asked for by REST page by page: what a gap in a stream has missed.

A page's rows and the cursor that asks for the next one are committed together, so a backfill that
was cut off goes on where it stopped, whoever goes on with it, and a page that comes twice changes
nothing. The venue is never asked within a transaction. Two that run one backfill at once do no harm:
the page of the slower one is dropped, because the cursor is not the one any more that it asked with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock, to_unix_ns
from kernel.db import transact
from kernel.errors import BadInput, OutsideUnavailable
from marketdata.backfill_model import (
    FILLABLE,
    Backfill,
    Past,
    Wanted,
    begun,
    gap_wanted,
    is_too_young,
    missing_of,
    turned,
    within,
)
from marketdata.backfill_store import (
    count_differing,
    count_past,
    find_backfill,
    insert_backfill,
    insert_rows,
    select_backfills,
    select_past,
    update_backfill,
)
from marketdata.errors import NoBackfill
from marketdata.events import Channel
from marketdata.gaps import GapRow, gaps_within, mark_filled
from marketdata.model import Instrument, Page
from marketdata.ports import History

PAGES_MAX: Final = 10_000
"""Pages of one run: ten million rows; what is left is for the next one."""
LIST_MAX: Final = 500
PAST_MAX: Final = 100_000

log = structlog.get_logger("backfill")


async def ask_backfill(conn: AsyncConnection, wanted: Wanted, *, now: datetime) -> Backfill:
    """Record that *wanted* is asked for, and return how far it has come: the same one is one."""
    await insert_backfill(conn, begun(wanted, now=now))
    return await get_backfill(conn, wanted.id)


async def get_backfill(conn: AsyncConnection, backfill_id: UUID) -> Backfill:
    """Return a backfill.

    Raises:
        NoBackfill: none has this id.
    """
    found = await find_backfill(conn, backfill_id)
    if found is None:
        raise NoBackfill(f"no backfill {backfill_id} was asked for")
    return found


async def list_backfills(
    conn: AsyncConnection, venue: str | None = None, *, is_open: bool = False, limit: int = LIST_MAX
) -> list[Backfill]:
    """Return backfills, those asked for last first; *is_open*: only those with pages to come."""
    return await select_backfills(conn, venue, is_open=is_open, limit=min(limit, LIST_MAX))


async def list_past(
    conn: AsyncConnection,
    channel: Channel,
    *,
    venue: str,
    symbol: str,
    since_ns: int,
    until_ns: int,
    interval_s: int | None = None,
    version: int | None = None,
    limit: int = PAST_MAX,
) -> list[Past]:
    """Return trades or candles that backfills brought, oldest first, at most `PAST_MAX`.

    Args:
        interval_s: only candles that last so long; None: all.
        version: only what was read on this version of the grid; None: on any.
    """
    return await select_past(
        conn,
        channel,
        venue=venue,
        symbol=symbol,
        since_ns=since_ns,
        until_ns=until_ns,
        interval_s=interval_s,
        version=version,
        limit=min(limit, PAST_MAX),
    )


async def ask_for_gaps(
    conn: AsyncConnection, gaps: Sequence[GapRow], *, interval_s: int, now: datetime
) -> list[Backfill]:
    """Ask for what each of *gaps* has missed; those that are open or that no venue tells are left.

    So is one that has just ended: what is asked for is a little more, and must be over.
    """
    asked = []
    for gap in gaps:
        if gap.until is None or gap.channel not in FILLABLE or gap.filled_at is not None:
            continue
        wanted = gap_wanted(
            venue=gap.venue,
            symbol=gap.symbol,
            channel=gap.channel,
            since=gap.since,
            until=gap.until,
            gap_id=gap.id,
            interval_s=interval_s if gap.channel is Channel.CANDLES else 0,
        )
        if wanted.until <= now:
            asked.append(await ask_backfill(conn, wanted, now=now))
    return asked


async def run_backfill(
    engine: AsyncEngine,
    history: History,
    instrument: Instrument,
    backfill_id: UUID,
    *,
    clock: Clock,
    progress: Callable[[int, int], None] | None = None,
    pages_max: int = PAGES_MAX,
) -> Backfill:
    """Ask for pages until there are no more, or *pages_max* of them; return how far that came.

    Args:
        instrument: the grid that *history* reads prices on, as recorded.
        progress: told the seconds of the venue's time that are done, and all of them.

    Raises:
        NoBackfill: none has this id.
        OutsideUnavailable: the venue does not answer, or answers nonsense; what came is kept.
    """
    item = await transact(engine, lambda conn: get_backfill(conn, backfill_id))
    if (instrument.venue, instrument.symbol) != (item.wanted.venue, item.wanted.symbol):
        raise BadInput(f"{instrument.symbol} is not what the backfill is of")
    for _ in range(pages_max):
        if item.done_at is not None:
            break
        page = await _page(history, item)
        item = await _keep(engine, item, page, instrument, clock)
        if progress is not None:
            progress(item.done_s, item.total_s)
    return item


async def _page(history: History, item: Backfill) -> Page[Past]:
    wanted = item.wanted
    page: Page[Past]
    if wanted.channel is Channel.TRADES:
        trades = await history.trades(
            wanted.symbol, since=wanted.since, until=wanted.until, cursor=item.cursor
        )
        page = Page(trades.items, trades.cursor, trades.untold_until_ns)
    else:
        candles = await history.candles(
            wanted.symbol,
            wanted.interval_s,
            since=wanted.since,
            until=wanted.until,
            cursor=item.cursor,
        )
        page = Page(candles.items, candles.cursor, candles.untold_until_ns)
    return page


async def _mark_gaps(conn: AsyncConnection, item: Backfill, now: datetime) -> None:
    """Record what a backfill that is done has filled: its gap, or all gaps that lie within it."""
    wanted = item.wanted
    for gap in await gaps_within(
        conn, wanted.venue, wanted.symbol, wanted.channel, wanted.since, wanted.until
    ):
        if gap.until is None or wanted.gap_id not in {None, gap.id}:
            continue
        rows = item.seen
        if wanted.gap_id is None:
            if is_too_young(wanted, gap.until, asked_at=item.asked_at):
                continue
            since_ns, until_ns = to_unix_ns(gap.since), to_unix_ns(gap.until)
            rows = await count_past(conn, wanted, since_ns=since_ns, until_ns=until_ns)
        missing = missing_of(item, gap.since)
        by = f"backfill {item.id}"
        await mark_filled(conn, gap.id, by=by, rows=rows, missing=missing, at=now)


async def _keep(
    engine: AsyncEngine, asked: Backfill, page: Page[Past], instrument: Instrument, clock: Clock
) -> Backfill:
    """Commit a page and the next cursor; what another one has done meanwhile stands."""
    try:
        rows = within(asked.wanted, page.items)
    except BadInput as error:
        raise OutsideUnavailable(f"the answer cannot be used: {error}") from error

    async def work(conn: AsyncConnection) -> Backfill:
        found = await find_backfill(conn, asked.id, lock=True)
        if found is None or (found.pages, found.cursor) != (asked.pages, asked.cursor):
            return found or asked
        new = await insert_rows(conn, found, rows, version=instrument.version)
        differing = 0
        if new < len(rows):
            differing = await count_differing(conn, found.wanted, rows, version=instrument.version)
        now = clock.now()
        item = turned(
            found,
            cursor=page.cursor,
            rows=rows,
            new=new,
            differing=differing,
            untold_until_ns=page.untold_until_ns,
            now=now,
        )
        await update_backfill(conn, item)
        if item.done_at is not None:
            await _mark_gaps(conn, item, now)
        return item

    try:
        done = await transact(engine, work)
    except BadInput as error:
        raise OutsideUnavailable(f"the answer cannot be used: {error}") from error
    if done.differing > asked.differing:
        log.warning(
            "a venue tells its past otherwise than before",
            venue=done.wanted.venue,
            symbol=done.wanted.symbol,
            rows=done.differing - asked.differing,
        )
    return done
