"""One writer for all tasks of a process that send orders: what is handed in meanwhile goes together.

A statement takes whatever waits when it begins, and commits it at once: many orders share its round trip
and its write to the disk. Whoever finds nobody writing has it begin, so an order alone waits for nobody.
Senders hold a future of their own each: one that goes away harms no other of his group.

What nobody waits for lingers a little, for company: half a dozen rows cost PostgreSQL little more than one.

Each kind of write has a connection of its own, held between orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool

from kernel.errors import BadInput, CausewayError, CommitUnknown
from venues.model import VenueOrder
from venues.round_trips import (
    ADVANCE,
    INSERT_SENT,
    SEND_INTENDED,
    OrderRows,
    parameters,
    rows_of_intent,
)

log = structlog.get_logger()

GROUP_MAX: Final = 100
"""Orders in one commit, at most."""

WAITING_MAX: Final = 1_000
"""Orders that may wait for a statement; those that find no room go the plain way."""

HELD_MAX: Final = 4
"""Connections that stay with a writer, at most: one for each kind of write."""

LINGER: Final = timedelta(milliseconds=20)
"""How long what nobody waits for is kept for company, at most."""

LOST: Final = (
    *(asyncpg.PostgresError, asyncpg.InterfaceError, OSError),
    asyncpg.InternalClientError,  # it breaks while the driver asks it about the statement
)
"""How a statement ends that fails, and how it ends when its connection does."""

NOT_ON_RECORD: Final = "what came of an order is not on record"


class OrderWriter:
    """Writes for many senders of one process; use it as an async context manager around them.

    Up to `HELD_MAX` connections of *engine* stay with it, each from its first use on. Whoever still sends
    when it is closed is told that nothing is written here, and goes the plain way.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        """Take over the writing for *engine*.

        Raises:
            BadInput: its pool has no connection besides those that stay here: the plain way would
                wait for one for ever.
        """
        pool = engine.pool
        if isinstance(pool, QueuePool) and pool.size() <= HELD_MAX:
            raise BadInput(
                f"a pool of {pool.size()} connections is too small to send orders in groups",
                remedy=f"Make it larger than {HELD_MAX}",
            )
        self.engine = engine
        self._tasks = asyncio.TaskGroup()
        self._intents = _Lane(engine, INSERT_SENT, self._tasks)
        self._sendings = _Lane(engine, SEND_INTENDED, self._tasks)
        self._outcomes = _Lane(engine, ADVANCE, self._tasks)
        self._later = _Later(_Lane(engine, ADVANCE, self._tasks), self._tasks)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish what was taken over and give the connections back."""
        self._later.hurry()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            for lane in (self._intents, self._sendings, self._outcomes, self._later.lane):
                await lane.close()

    def insert_sent(
        self, order: VenueOrder, *, holder: str, lease_until: datetime, actor: str
    ) -> asyncio.Future[bool]:
        """Have an order written down, and committed, that is about to be sent.

        Returns:
            Whether it was; it ends with `CommitUnknown` if the connection was lost: the order may be on
            record, and was not sent. Cancelled before its turn has come, it leaves nothing behind.
        """
        rows = rows_of_intent(order, holder=holder, lease_until=lease_until, actor=actor)
        return self._intents.hand_in(rows)

    def write_sending(self, rows: OrderRows) -> asyncio.Future[bool]:
        """Have written down, and committed, that an intent on record is about to be sent.

        Returns:
            As `insert_sent` does.
        """
        return self._sendings.hand_in(rows)

    async def write_outcome(self, rows: OrderRows) -> bool:
        """Write what came of sending an order, as it was when it was sent; False: nothing was written.

        The commit does not wait for the disk, unlike the one before the order was sent: if the server
        dies the order is found as sent, and resolved. A later commit that waits takes this one along.

        Raises:
            CommitUnknown: the connection was lost; what came of it may be on record.
        """
        return await self._outcomes.hand_in(rows)

    def writes_later(
        self, rows: OrderRows, *, otherwise: Callable[[], Awaitable[object]], about: str
    ) -> bool:
        """Take over to write what came of an order while the caller goes on; False: there is no room.

        Where it is not written as `write_outcome` does, *otherwise* does it. What goes wrong is logged:
        whoever reads the row finds the order as it was sent.
        """
        return self._later.take(_Kept(rows, otherwise, about))

    async def settled(self) -> None:
        """Wait until all that was taken over so far is on record, or in the log."""
        await self._later.settled()


@dataclass(frozen=True, slots=True)
class _Kept:
    """What nobody waits for, how it is recorded in the plain way, and of which order it tells."""

    rows: OrderRows
    otherwise: Callable[[], Awaitable[object]]
    about: str


class _Later:
    """What is recorded while those whom it concerns have gone on: one task for all of it."""

    def __init__(self, lane: _Lane, tasks: asyncio.TaskGroup) -> None:
        self.lane = lane
        self._tasks = tasks
        self._kept: list[_Kept] = []
        self._group: list[_Kept] = []
        self._taken = self._done = 0
        self._draining: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def take(self, item: _Kept) -> bool:
        """Keep an item; False: there are too many already, or nobody is left who would write it."""
        if len(self._kept) >= WAITING_MAX:
            return False
        if not _is_under_way(self._draining):
            self._draining = _begun(self._tasks, self._drain(), self._ended)
            if self._draining is None:
                return False
        self._kept.append(item)
        self._taken += 1
        if len(self._kept) >= GROUP_MAX:
            self._hurry.set()
        return True

    def hurry(self) -> None:
        """Let what is kept wait for company no longer."""
        self._hurry.set()

    async def settled(self) -> None:
        """Wait until what was kept so far is on record, or in the log."""
        if self._done == self._taken:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((self._taken, waiter))
        self._hurry.set()
        await waiter

    async def _drain(self) -> None:
        """Write until nothing is kept any more."""
        while self._kept:
            await self._linger()
            self._group, self._kept = self._kept[:GROUP_MAX], self._kept[GROUP_MAX:]
            await self._write(self._group)
            self._done += len(self._group)
            self._group = []
            self._answer()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Let nobody wait for a task that was ended; it may never have begun."""
        if task is not self._draining:
            return
        left, self._group, self._kept = [*self._group, *self._kept], [], []
        for item in left:
            log.warning(NOT_ON_RECORD, order=item.about, error="the writer was ended")
        self._done += len(left)
        self._answer()

    async def _linger(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER / timedelta(seconds=1)):
                await self._hurry.wait()
        if not self._waiters:
            self._hurry.clear()

    async def _write(self, group: Sequence[_Kept]) -> None:
        async def write() -> None:
            written.update(await self.lane.run([item.rows for item in group]))

        written: set[UUID] = set()
        if not await _logged(write, ", ".join(item.about for item in group)):
            return
        # All at once: where the database keeps one waiting, it keeps none behind it waiting longer.
        async with asyncio.TaskGroup() as plainly:
            for item in group:
                if item.rows.order_id not in written:
                    plainly.create_task(_logged(item.otherwise, item.about))

    def _answer(self) -> None:
        left = []
        for target, waiter in self._waiters:
            if target > self._done:
                left.append((target, waiter))
            elif not waiter.done():
                waiter.set_result(None)
        self._waiters = left


@dataclass(frozen=True, slots=True)
class _Handed:
    """What somebody wants written, and what tells him whether it was."""

    rows: OrderRows
    told: asyncio.Future[bool]

    def answer(self, *, written: bool) -> None:
        if not self.told.done():
            self.told.set_result(written)

    def fail(self) -> None:
        if not self.told.done():
            self.told.set_exception(_lost())
            self.told.exception()  # it is no fault of the program if nobody waits for it any more


class _Lane:
    """One statement, run by one task at a time for all that was handed in."""

    def __init__(self, engine: AsyncEngine, statement: str, tasks: asyncio.TaskGroup) -> None:
        self._engine = engine
        self._statement = statement
        self._tasks = tasks
        self._held: AsyncConnection | None = None
        self._raw: asyncpg.Connection | None = None
        self._waiting: dict[UUID, _Handed] = {}
        self._writing: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Give the connection back, which nobody uses any more."""
        held, self._held, self._raw = self._held, None, None
        if held is not None:
            await held.close()

    def hand_in(self, rows: OrderRows) -> asyncio.Future[bool]:
        """Have the rows of an order written; False: none of them was, take the plain way.

        Whoever cancels what is returned before his group begins has nothing written.
        """
        told = asyncio.get_running_loop().create_future()
        if rows.order_id in self._waiting or len(self._waiting) >= WAITING_MAX:
            told.set_result(False)
            return told
        if not _is_under_way(self._writing):
            self._writing = _begun(self._tasks, self._write(), self._ended)
            if self._writing is None:
                told.set_result(False)
                return told
        self._waiting[rows.order_id] = _Handed(rows, told)
        return told

    async def _write(self) -> None:
        """Write what waits, group by group, until nothing does."""
        while group := self._next_group():
            await self._write_group(group)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Let nobody wait for a task that was ended; it may never have begun."""
        while task is self._writing and (left := self._next_group()):
            for item in left:
                item.answer(written=False)

    async def _write_group(self, group: Sequence[_Handed]) -> None:
        try:
            written = await self.run(item.rows for item in group)
        except CommitUnknown:
            # Nobody knows of any of them. It is the row that tells, and each has one of his own.
            for item in group:
                item.fail()
        except BaseException:
            for item in group:
                item.fail()
            raise
        else:
            for item in group:
                item.answer(written=item.rows.order_id in written)

    def _next_group(self) -> list[_Handed]:
        group: list[_Handed] = []
        while self._waiting and len(group) < GROUP_MAX:
            item = self._waiting.pop(next(iter(self._waiting)))
            if not item.told.cancelled():
                group.append(item)
        return group

    async def run(self, group: Iterable[OrderRows]) -> frozenset[UUID]:
        """Run the statement, which commits by itself; return the ids of the orders it has written.

        One call at a time.

        Raises:
            CommitUnknown: the connection was lost.
        """
        raw = await self._connected()
        if raw is None:
            return frozenset()  # the plain way says what is wrong
        # In one order everywhere, so that two groups never wait for each other.
        rows = sorted(group, key=lambda item: item.order_id)
        try:
            values = parameters(rows)
        except UnicodeEncodeError:
            return frozenset()  # one of them says what no text can hold; the plain way finds it
        is_whole = False
        try:
            written = await raw.fetchval(self._statement, *values)
            is_whole = True
        except LOST as error:
            if raw.is_closed() or not isinstance(error, asyncpg.PostgresError):
                raise _lost() from error
            is_whole = True
            return frozenset()  # PostgreSQL itself says no: rolled back for certain
        finally:
            if not is_whole:  # also when whoever leads is cancelled: the statement may be under way
                await self._drop()
        return frozenset(written or ())

    async def _connected(self) -> asyncpg.Connection | None:
        if self._raw is not None and not self._raw.is_closed():
            return self._raw
        if self._held is not None:
            await self._drop()
        try:
            connection = await self._engine.connect()
        except (OSError, DBAPIError, PoolTimeout):
            return None
        self._held = connection
        self._raw = (await connection.get_raw_connection()).driver_connection
        return self._raw

    async def _drop(self) -> None:
        held, self._held, self._raw = self._held, None, None
        if held is not None:
            await held.invalidate()
            await held.close()


def _is_under_way(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()


def _begun(
    tasks: asyncio.TaskGroup,
    work: Coroutine[Any, Any, None],
    ended: Callable[[asyncio.Task[None]], None],
) -> asyncio.Task[None] | None:
    """Begin *work*, and call *ended* when it has ended; None: the group has ended, or is ending."""
    try:
        task = tasks.create_task(work)
    except RuntimeError:
        work.close()
        return None
    task.add_done_callback(ended)
    return task


async def _logged(record: Callable[[], Awaitable[object]], about: str) -> bool:
    """Tell whether it is on record."""
    try:
        await record()
    except (CausewayError, DBAPIError, OSError) as error:
        log.warning(NOT_ON_RECORD, order=about, error=str(error))
        return False
    return True


def _lost() -> CommitUnknown:
    return CommitUnknown(
        "the connection was lost during COMMIT",
        remedy="Read the row by its id before doing it again",
    )
