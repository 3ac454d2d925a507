"""Writes down what a feed's streams lack: every gap a row, and how each stream is doing.

The gaps of the process before are ended where this one begins. Where that one was killed, nobody
wrote that its streams ended: then the gap of the beginning reaches back to its last word about them.
A database that does not answer holds up no socket: gaps wait in a bounded queue meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Final, Protocol

import structlog
from msgspec.structs import replace
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock, to_unix_ns
from kernel.db import transact
from kernel.errors import OutcomeUnknown, OutsideUnavailable
from marketdata.consumers import LosslessQueue, Overflow
from marketdata.events import Channel, GapReason, GapSeen
from marketdata.gaps import end_gap, open_gap, open_gaps
from marketdata.model import StreamState, StreamStatus
from marketdata.status import list_status, write_status

log = structlog.get_logger()

GAPS_MAX: Final = 20_000
"""Gaps that wait while the database does not answer."""
BATCH_MAX: Final = 500
PAUSE: Final = timedelta(seconds=1)
LAST_WORDS: Final = timedelta(seconds=3)
"""What may still be written when the process ends."""

_SECOND: Final = timedelta(seconds=1)
_FAULTS: Final = (OutsideUnavailable, OutcomeUnknown, SQLAlchemyError, OSError)


class KeptFeed(Protocol):
    """The part of a feed that is written down."""

    venue: str

    def gaps(self, queue: LosslessQueue[GapSeen]) -> AbstractContextManager[object]:
        """Put every gap into *queue* while the context is open."""
        ...

    def status(self) -> Sequence[StreamStatus]:
        """Return how each stream is doing now."""
        ...


class Keeper:
    """Keeps the gaps and the status of one feed; `run` it beside the feed, and end it after it."""

    def __init__(
        self,
        feed: KeptFeed,
        engine: AsyncEngine,
        clock: Clock,
        *,
        every: timedelta = timedelta(seconds=5),
    ) -> None:
        """Listen to *feed*'s gaps from now on; write its status *every* so often."""
        self._feed = feed
        self._engine = engine
        self._clock = clock
        self._every = every
        self._queue: LosslessQueue[GapSeen] = LosslessQueue(GAPS_MAX)
        self._listening = feed.gaps(self._queue)
        self._listening.__enter__()
        self._waiting: list[GapSeen] = []
        self._told: dict[tuple[str, Channel], int] = {}
        """Since when streams are not known of that nobody said the end of."""

    async def run(self) -> None:
        """Write until cancelled, and then what is left."""
        try:
            await self._until_done(self._begin)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_gaps())
                group.create_task(self._keep_status())
        finally:
            self._listening.__exit__(None, None, None)
            await self._end()

    async def _begin(self, conn: AsyncConnection) -> None:
        """End the gaps of the process before, and learn when it last spoke of its other streams."""
        venue, now = self._feed.venue, self._clock.now()
        while left := await open_gaps(conn, venue):
            for gap in left:
                await end_gap(conn, gap.id, now)
        self._told = {
            (status.symbol, status.channel): to_unix_ns(min(told_at, now))
            for status, told_at in await list_status(conn, venue)
            if status.state is StreamState.LIVE
        }

    async def _keep_gaps(self) -> None:
        while True:
            self._collect(await self._queue.get_batch(BATCH_MAX))
            await self._until_done(self._write_gaps)
            self._waiting.clear()

    async def _keep_status(self) -> None:
        while True:
            await self._until_done(self._write_status)
            await asyncio.sleep(self._every / _SECOND)

    async def _until_done(self, work: Callable[[AsyncConnection], Awaitable[None]]) -> None:
        """Write, and once more after a pause if that fails: what is written twice is the same."""
        while True:
            try:
                await transact(self._engine, work)
            except _FAULTS as error:
                log.warning("streams are not on record", venue=self._feed.venue, fault=str(error))
            else:
                return
            await asyncio.sleep(PAUSE / _SECOND)

    async def _end(self) -> None:
        """Write the last gaps: the feed has ended by now, or ends with us."""
        self._collect(self._queue.take_nowait(GAPS_MAX))
        try:
            async with asyncio.timeout(LAST_WORDS / _SECOND):
                await transact(self._engine, self._write_gaps)
                await transact(self._engine, self._write_status)
        except (TimeoutError, *_FAULTS) as error:
            log.warning("the last gaps are not on record", venue=self._feed.venue, fault=str(error))

    def _collect(self, found: Sequence[GapSeen | Overflow]) -> None:
        for one in found:
            if isinstance(one, Overflow):
                log.error("gaps are lost", venue=self._feed.venue, gaps=one.dropped)
            else:
                self._waiting.append(self._widened(one))

    def _widened(self, gap: GapSeen) -> GapSeen:
        """Return the gap of a beginning since the last word of the process before."""
        if gap.reason is not GapReason.STARTED:
            return gap
        told_ns = self._told.get((gap.symbol, gap.channel), gap.since_ns)
        return replace(gap, since_ns=min(told_ns, gap.since_ns))

    async def _write_gaps(self, conn: AsyncConnection) -> None:
        for gap in self._waiting:
            await open_gap(conn, gap)

    async def _write_status(self, conn: AsyncConnection) -> None:
        await write_status(conn, self._feed.status(), at=self._clock.now())
