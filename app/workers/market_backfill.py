"""What the streams of one venue have missed, fetched by REST: every gap that has ended, oldest first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.market_data_file import FeedSection
from app.workers.market_feeds import history_of
from kernel.clock import Clock, to_unix_ns
from kernel.db import transact
from kernel.errors import BadInput, CausewayError, OutsideUnavailable
from marketdata.backfill import ask_for_gaps, list_backfills, list_past, run_backfill
from marketdata.backfill_model import FILLABLE, Backfill, Past, row_key, time_ns_of
from marketdata.gaps import list_gaps
from marketdata.instruments import get_instrument, list_instruments
from marketdata.model import Instrument
from marketdata.ports import History
from marketdata.recording.derive import Deriver
from marketdata.recording.layout import PARQUET_SUFFIX, encoded, parquet_folder

LOOK_BACK: Final = timedelta(days=30)
"""Older gaps are left to a person: `causeway marketdata backfill SYMBOL --since …`."""
LENGTH_MAX: Final = timedelta(days=2)
"""A longer gap is left to a person too: it may be more than anybody wants to fetch."""
SESSION: Final = "backfill-"
"""Begins the names of sessions that are no recordings."""
ID_LENGTH: Final = 36
FAILURES_MAX: Final = 3
"""Backfills that are not answered in one turn; then it is the venue that is in trouble."""
PAGES_MAX: Final = 200
"""Pages of one backfill in one turn; the rest is for the next one."""

log = structlog.get_logger("backfill")


@dataclass(frozen=True, slots=True, kw_only=True)
class GapFiller:
    """Fills the gaps of one venue.

    Attributes:
        interval_s: how long a candle lasts.
        recordings: where what was fetched is laid as Parquet beside what was recorded; None: nowhere.
        progress: told the seconds of the venue's time that are done, and all of them.
    """

    engine: AsyncEngine
    section: FeedSection
    clock: Clock
    interval_s: int
    recordings: Path | None = None
    progress: Callable[[int, int], None] | None = None

    async def fill(self) -> list[Backfill]:
        """Fetch what every ended gap has missed, and go on with what was cut off.

        Raises:
            OutsideUnavailable, BadInput: one of them cannot be answered; what came is kept.
        """
        if self.recordings is not None:
            await self._lay_down_left(self.recordings)
        return await self.run(await transact(self.engine, self._due))

    async def run(self, backfills: Sequence[Backfill]) -> list[Backfill]:
        """Fetch what is left of *backfills*; one that cannot be answered does not keep the others.

        Raises:
            OutsideUnavailable, BadInput: one of them, the first, cannot be answered.
        """
        grids = await self._grids()
        due = [item for item in backfills if item.done_at is None and item.wanted.symbol in grids]
        if not due:
            return list(backfills)
        done = {item.id: item for item in backfills}
        wanted = tuple({item.wanted.symbol: grids[item.wanted.symbol] for item in due}.values())
        failed: list[CausewayError] = []
        async with history_of(self.section, wanted, clock=self.clock) as history:
            for item in due:
                try:
                    done[item.id] = await self._run_one(history, grids[item.wanted.symbol], item)
                except (OutsideUnavailable, BadInput) as error:
                    log.warning("a backfill is not answered", id=str(item.id), error=str(error))
                    failed.append(error)
                if len(failed) >= FAILURES_MAX:
                    break
        if failed:
            raise failed[0]
        return list(done.values())

    async def _run_one(self, history: History, grid: Instrument, item: Backfill) -> Backfill:
        done = await run_backfill(
            self.engine,
            history,
            grid,
            item.id,
            clock=self.clock,
            progress=self.progress,
            pages_max=PAGES_MAX,
        )
        if self.recordings is not None and done.done_at is not None:
            await self._lay_down(self.recordings, done, grid.version)
        return done

    async def _grids(self) -> dict[str, Instrument]:
        venue = self.section.venue
        known = await transact(self.engine, lambda conn: list_instruments(conn, venue))
        return {item.symbol: item for item in known}

    async def _lay_down_left(self, folder: Path) -> None:
        """Write what a crash, or a full disk, kept from being written when its rows had come."""
        venue = self.section.venue
        known = await transact(self.engine, lambda conn: list_backfills(conn, venue))
        done = [item for item in known if item.done_at is not None and item.seen]
        there = await asyncio.to_thread(_laid_down, folder, venue)
        left = [item for item in done if str(item.id) not in there]
        grids = await self._grids() if left else {}
        for item in left:
            if item.wanted.symbol in grids:
                await self._lay_down(folder, item, grids[item.wanted.symbol].version)

    async def _lay_down(self, folder: Path, item: Backfill, version: int) -> None:
        """Write what a backfill was about as Parquet; a second time gives the same file.

        Rows of another backfill may have been read on an older grid: each grid has its file.
        """
        wanted = item.wanted
        for number in range(1, version + 1):
            read = partial(get_instrument, venue=wanted.venue, symbol=wanted.symbol, version=number)
            grid = await transact(self.engine, read)
            session = f"{SESSION}{item.id}-{number}"
            with Deriver(folder, self.section.venue, session, (grid,)) as deriver:
                async for rows in self._rows(item, number):
                    await asyncio.to_thread(deriver.write, rows)

    async def _rows(self, item: Backfill, version: int) -> AsyncIterator[Sequence[Past]]:
        """Yield what is on record of the stretch of a backfill, read on one version of the grid."""
        since_ns, until_ns = to_unix_ns(item.wanted.since), to_unix_ns(item.wanted.until)
        last: set[str | int] = set()
        while True:
            read = partial(
                list_past,
                channel=item.wanted.channel,
                venue=item.wanted.venue,
                symbol=item.wanted.symbol,
                since_ns=since_ns,
                until_ns=until_ns,
                interval_s=item.wanted.interval_s or None,
                version=version,
            )
            rows = await transact(self.engine, read)
            new = [row for row in rows if row_key(row) not in last]
            if not new:
                return
            yield new
            since_ns = time_ns_of(new[-1])
            last = {row_key(row) for row in rows if time_ns_of(row) == since_ns}

    async def _due(self, conn: AsyncConnection) -> list[Backfill]:
        now, venue = self.clock.now(), self.section.venue
        gaps = [
            gap
            for channel in sorted(FILLABLE)
            for gap in await list_gaps(
                conn, venue, None, channel, now - LOOK_BACK, now, unfilled=True
            )
        ]
        short = [
            gap for gap in gaps if gap.until is not None and gap.until - gap.since < LENGTH_MAX
        ]
        asked = await ask_for_gaps(conn, short, interval_s=self.interval_s, now=now)
        left = await list_backfills(conn, venue, is_open=True)
        return list({item.id: item for item in (*asked, *reversed(left))}.values())


def _laid_down(folder: Path, venue: str) -> frozenset[str]:
    """Return the ids of the backfills of which there are files."""
    found = parquet_folder(folder).glob(f"*/venue={encoded(venue)}/*/*-{SESSION}*{PARQUET_SUFFIX}")
    return frozenset(path.name.partition(SESSION)[2][:ID_LENGTH] for path in found)
