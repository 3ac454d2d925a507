"""One writer for all tasks of a process that send orders: what is handed in meanwhile goes together.

A statement takes whatever waits when it begins, and commits it at once: many orders share its round trip
and its write to the disk. Whoever finds nobody writing writes himself, so an order alone waits for
nobody, and no task has to be woken for it. The next one in the line takes over from him.

What nobody waits for lingers a little, for company: half a dozen rows cost PostgreSQL little more than one.

Each kind of write has a connection of its own, held between orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Self
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


class OrderWriter:
    """Writes for many senders of one process; use it as an async context manager around them.

    Up to `HELD_MAX` connections of *engine* stay with it, each from its first use on.
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
        self._intents = _Lane(engine, INSERT_SENT)
        self._sendings = _Lane(engine, SEND_INTENDED)
        self._outcomes = _Lane(engine, ADVANCE)
        self._tasks = asyncio.TaskGroup()
        self._later = _Later(_Lane(engine, ADVANCE), self._tasks)

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

    async def insert_sent(
        self, order: VenueOrder, *, holder: str, lease_until: datetime, actor: str
    ) -> bool:
        """Write down, and commit, an order that is about to be sent; False: nothing was written.

        Raises:
            CommitUnknown: the connection was lost; the order may be on record, and was not sent.
        """
        rows = rows_of_intent(order, holder=holder, lease_until=lease_until, actor=actor)
        return await self._intents.write(rows)

    async def write_sending(self, rows: OrderRows) -> bool:
        """Write down, and commit, that an intent on record is about to be sent; False: nothing was.

        Raises:
            CommitUnknown: the connection was lost; it may be on record as sent, and was not sent.
        """
        return await self._sendings.write(rows)

    async def write_outcome(self, rows: OrderRows) -> bool:
        """Write what came of sending an order, as it was when it was sent; False: nothing was written.

        The commit does not wait for the disk, unlike the one before the order was sent: if the server
        dies the order is found as sent, and resolved. A later commit that waits takes this one along.

        Raises:
            CommitUnknown: the connection was lost; what came of it may be on record.
        """
        return await self._outcomes.write(rows)

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
        self._taken = self._done = 0
        self._is_draining = False
        self._hurry = asyncio.Event()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def take(self, item: _Kept) -> bool:
        """Keep an item; False: there are too many already."""
        if len(self._kept) >= WAITING_MAX:
            return False
        self._kept.append(item)
        self._taken += 1
        if not self._is_draining:
            self._is_draining = True
            self._tasks.create_task(self._drain())
        elif len(self._kept) >= GROUP_MAX:
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
        try:
            while self._kept:
                await self._linger()
                group, self._kept = self._kept[:GROUP_MAX], self._kept[GROUP_MAX:]
                await self._write(group)
                self._done += len(group)
                self._answer()
        finally:
            self._is_draining = False
            for _, waiter in self._waiters:
                waiter.cancel()  # there is nobody left only if this task was ended

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


@dataclass(slots=True, eq=False)
class _Handed:
    """What somebody wants written.

    Attributes:
        turn: what he waits for, if he does: whether it was written, or None: he writes next.
    """

    rows: OrderRows
    turn: asyncio.Future[bool | None] | None = None

    @property
    def is_given_up(self) -> bool:
        return self.turn is not None and self.turn.cancelled()

    def answer(self, *, written: bool | None) -> None:
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(written)

    def fail(self) -> None:
        if self.turn is not None and not self.turn.done():
            self.turn.set_exception(_lost())


class _Lane:
    """One statement, run by one task at a time for all that waits."""

    def __init__(self, engine: AsyncEngine, statement: str) -> None:
        self._engine = engine
        self._statement = statement
        self._held: AsyncConnection | None = None
        self._raw: asyncpg.Connection | None = None
        self._waiting: dict[UUID, _Handed] = {}
        self._is_led = False
        self._is_busy = False  # the last group had company: there will be company for the next one

    async def close(self) -> None:
        """Give the connection back; one that is in use is given up."""
        if self._held is not None and self._is_led:
            await self._drop()
        elif self._held is not None:
            await self._held.close()
            self._held = self._raw = None

    async def write(self, rows: OrderRows) -> bool:
        """Tell whether the rows of an order were written; False: none of them, take the plain way."""
        if rows.order_id in self._waiting or len(self._waiting) >= WAITING_MAX:
            return False
        mine = _Handed(rows)
        self._waiting[rows.order_id] = mine
        if self._is_led:
            written = await self._queue(mine)
            if written is not None:
                return written
        self._is_led = True
        if self._is_busy:
            await self._gather(mine)
        return await self._lead(mine)

    async def _queue(self, mine: _Handed) -> bool | None:
        mine.turn = asyncio.get_running_loop().create_future()
        try:
            return await mine.turn
        except asyncio.CancelledError:
            # Whoever goes away before his group begins leaves nothing behind.
            if self._waiting.get(mine.rows.order_id) is mine:
                del self._waiting[mine.rows.order_id]
                if mine.turn.done() and not mine.turn.cancelled():
                    self._hand_over()  # he was to lead
            raise

    async def _gather(self, mine: _Handed) -> None:
        """Let whoever has come as far in this turn of the loop hand in, too, before *mine* leads."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._waiting.pop(mine.rows.order_id, None)
            self._hand_over()
            raise

    async def _lead(self, mine: _Handed) -> bool:
        """Write what waits, *mine* among it, and answer; then the next one in the line leads."""
        group = self._next_group()
        self._is_busy = len(group) > 1
        try:
            written = await self.run(item.rows for item in group)
        except BaseException:
            # Nobody knows of any of them. It is the row that tells, and each has one of his own.
            for item in group:
                item.fail()
            raise
        finally:
            self._hand_over()
        for item in group:
            item.answer(written=item.rows.order_id in written)
        return mine.rows.order_id in written

    def _next_group(self) -> list[_Handed]:
        group: list[_Handed] = []
        while self._waiting and len(group) < GROUP_MAX:
            order_id = next(iter(self._waiting))
            item = self._waiting.pop(order_id)
            if not item.is_given_up:
                group.append(item)
        return group

    def _hand_over(self) -> None:
        for item in self._waiting.values():
            if not item.is_given_up:
                item.answer(written=None)
                return
        self._is_led = False

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
        is_whole = False
        try:
            written = await raw.fetchval(self._statement, *parameters(rows))
            is_whole = True
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
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


async def _logged(record: Callable[[], Awaitable[object]], about: str) -> bool:
    """Tell whether it is on record."""
    try:
        await record()
    except (CausewayError, DBAPIError, OSError) as error:
        log.warning("what came of an order is not on record", order=about, error=str(error))
        return False
    return True


def _lost() -> CommitUnknown:
    return CommitUnknown(
        "the connection was lost during COMMIT",
        remedy="Read the row by its id before doing it again",
    )
