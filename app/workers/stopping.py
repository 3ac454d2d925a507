"""The end of a house: not ready, no new claims, turns finished or leases given back, gone in time.

Nothing here is needed for correctness: a house that is killed leaves rows from which the next one goes
on. It is needed for speed, as what a stopped house had leased would else wait for its leases to lapse.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from functools import partial
from threading import Timer
from typing import Final

import structlog
from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import CausewayError
from kernel.leases import give_back_rows, leased_tables

STOP_WITHIN: Final = timedelta(seconds=28)
"""From the signal to the end, whatever hangs: less than the 30 s after which Kubernetes kills."""
CUT_OFF_EXIT: Final = 3
"""The exit code of a process that had to be cut off: something outside of it did not let it go."""
GIVE_BACK_TIMEOUT_MS: Final = 1_000
"""What looking for leases in one table may take; one that is not found lapses by itself."""

log = structlog.get_logger("house")


class Deadline:
    """Ends this process when its time to stop is over, also where nothing in it runs any more.

    A thread of its own counts: an event loop that hangs counts nothing.
    """

    def __init__(
        self,
        within: timedelta = STOP_WITHIN,
        *,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """Be ready to end the process through *leave*, so long after `begin`."""
        self._leave = leave
        self._within_s = within.total_seconds()
        self._timer = Timer(self._within_s, self._cut_off)
        self._timer.daemon = True
        self._begun = False

    def begin(self) -> None:
        """Begin to count; a second time changes nothing."""
        if not self._begun:
            self._begun = True
            self._timer.start()

    def end(self) -> None:
        """Stop counting: the process ends by itself."""
        self._timer.cancel()

    def _cut_off(self) -> None:
        # Not by the log, whose locks whoever hangs may hold.
        sys.stderr.write(f"the house did not end within {self._within_s:g} s and is cut off\n")
        sys.stderr.flush()
        self._leave(CUT_OFF_EXIT)


@contextlib.contextmanager
def deadline(within: timedelta = STOP_WITHIN) -> Iterator[Deadline]:
    """Give a deadline that counts no longer than the context is open."""
    found = Deadline(within)
    try:
        yield found
    finally:
        found.end()


async def until_stopped(
    work: Coroutine[object, object, None], stop: asyncio.Event, has_started: Callable[[], bool]
) -> None:
    """Run *work* to its end; give it up where *stop* is set before it has started.

    What has started ends by itself; what is still starting has claimed nothing, and may wait for a node
    or a lock for longer than anybody wants to.
    """
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work)
        waiting = group.create_task(stop.wait())
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not has_started():
            working.cancel()
        await asyncio.wait({working})
        waiting.cancel()


async def give_back_leases(engine: AsyncEngine, clock: Clock, *, mark: str) -> dict[str, int]:
    """End what leases holders with this *mark* still have; return how many rows, by table.

    A table that cannot be searched in time, or a database that is gone, is logged and left: its leases
    lapse by themselves.
    """
    found: dict[str, int] = {}
    for table in leased_tables():
        try:
            count = await transact(engine, partial(_give_back, table, clock, mark), attempts_max=1)
        except (DBAPIError, CausewayError) as error:
            log.warning("leases were not given back", table=table.fullname, error=str(error))
        else:
            found[table.fullname] = count
    return {name: count for name, count in found.items() if count}


async def _give_back(table: Table, clock: Clock, mark: str, conn: AsyncConnection) -> int:
    await conn.exec_driver_sql(f"SET LOCAL statement_timeout = {GIVE_BACK_TIMEOUT_MS}")
    return await give_back_rows(conn, table, mark=mark, now=clock.now())
