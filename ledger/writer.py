"""Group the stand-alone submissions of one process into few commits, and decide ahead of them.

One transfer per commit costs one commit each, and every poster of a book waits for the same head
row. The writer takes whatever is waiting, posts it as one batch in one transaction, and answers
each submitter after that commit. The busier, the larger the batches; nobody waits for a timer.

It carries the balances that it wrote itself (`ledger.carried`), and while PostgreSQL writes one batch it
decides the next. What is decided ahead counts only if the head, once locked, has the sequence number that
it was decided on, none of its ids is spent, and no hold is due; otherwise it is decided again. Nothing is
answered before its commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Final, Self

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import driver, transact
from kernel.errors import BadInput, CausewayError, OutcomeUnknown, OutsideUnavailable
from ledger import blocks, store
from ledger.carried import ACCOUNTS_MAX, Carried, is_plain
from ledger.decide import EXPIRIES_MAX, Deciding
from ledger.model import BATCH_MAX, PostResult, Transfer
from ledger.requests import prepare
from ledger.state import Decisions, Request, Snapshot

GROUP_MAX: Final = 1_000
"""Transfers in one commit, at most, unless a single submission is larger."""

WAITING_MAX: Final = 10_000
"""Submissions that may wait; the next submitter is held back until there is room."""

SLICE: Final = 64
"""Transfers decided before other tasks get a turn: the batch before them is being written."""


@dataclass(slots=True, eq=False)
class _Submission:
    requests: list[Request]
    answer: asyncio.Future[list[PostResult]]

    @property
    def imports(self) -> bool:
        """Tell whether this is history, which is never posted together with anything else."""
        return self.requests[0].transfer.imported


@dataclass(slots=True, eq=False)
class _Group:
    """Submissions that are posted together.

    Attributes:
        decisions: what they come to; None: not decided yet.
        carried: the state that they were decided on.
        base: the sequence that the head must have for the decisions to count.
        is_decided: set once the next group may be decided, on what this one leaves.
    """

    submissions: list[_Submission]
    requests: list[Request]
    decisions: Decisions | None = None
    carried: Carried | None = None
    base: int = 0
    is_decided: asyncio.Event = field(default_factory=asyncio.Event)


class Writer:
    """Posts for many tasks of one process; use it as an async context manager.

    Args:
        engine: of the runtime role.
        book: the book it posts to.
        clock: gives the block time; None: the database's clock.
        group_max: transfers per commit, at most.
        waiting_max: submissions that may wait.
        accounts_max: accounts whose balances are carried.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        book: int,
        *,
        clock: Clock | None = None,
        group_max: int = GROUP_MAX,
        waiting_max: int = WAITING_MAX,
        accounts_max: int = ACCOUNTS_MAX,
    ) -> None:
        self._engine = engine
        self._book = book
        self._clock = clock
        self._group_max = min(group_max, BATCH_MAX)
        self._accounts_max = accounts_max
        # Bounded by what room there is; the end, which is no submission, needs none.
        self._waiting: asyncio.Queue[_Submission | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(waiting_max)
        self._entering = 0
        # One group is written, one waits decided behind it.
        self._groups: asyncio.Queue[_Group | None] = asyncio.Queue(1)
        self._unanswered: set[_Group] = set()
        self._carried: Carried | None = None
        self._tasks = asyncio.TaskGroup()
        self._closing = False
        self._ended = False
        self.commits = 0
        self.decided_ahead = 0

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        name = f"ledger writer of book {self._book}"
        self._tasks.create_task(self._gather_all(), name=f"{name}: decides")
        self._tasks.create_task(self._write_all(), name=f"{name}: writes")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Post what still waits, then end."""
        self._closing = True
        self._end_behind_the_last()
        await self._tasks.__aexit__(kind, error, trace)

    async def submit(self, *transfers: Transfer) -> list[PostResult]:
        """Post *transfers*, in order, and return their results once they are committed.

        They are not a chain unless they are linked; a chain is never cut between two commits.

        Raises:
            CommitUnknown: the connection was lost during COMMIT: ask `ledger.posting.decided`.
            OutsideUnavailable: PostgreSQL does not answer, or the writer is closing.
            BadInput: a request that no book could understand; other submissions are unharmed.
            DBAPIError: PostgreSQL refused the commit that this was to be a part of; nothing of it is
                recorded.
        """
        if self._closing:
            raise OutsideUnavailable("the ledger's writer is closing")
        if not transfers:
            return []
        if transfers[-1].linked or len(transfers) > BATCH_MAX:
            raise BadInput(f"submit whole chains, at most {BATCH_MAX} transfers at once")
        requests: list[Request] = []
        for start in range(0, len(transfers), SLICE):
            if start:
                await asyncio.sleep(0)
            requests += [prepare(item) for item in transfers[start : start + SLICE]]
        if self._closing:
            raise OutsideUnavailable("the ledger's writer is closing")
        answer: asyncio.Future[list[PostResult]] = asyncio.get_running_loop().create_future()
        self._entering += 1
        try:
            await self._room.acquire()
            self._waiting.put_nowait(_Submission(requests, answer))
        finally:
            self._entering -= 1
            if self._closing:
                self._end_behind_the_last()
        if self._ended:
            # A full queue held it back until nobody was left to empty it; this wakes the next one.
            self._abandon()
        return await answer

    def _end_behind_the_last(self) -> None:
        """Let the end follow, once nobody is held back any more who was there before the closing."""
        if not self._entering:
            self._waiting.put_nowait(None)

    def _abandon(self, *held: _Submission | None) -> None:
        """Tell everybody who is still waiting that no answer will come."""
        self._closing = self._ended = True
        left = [item for group in self._unanswered for item in group.submissions]
        left += [item for item in held if item is not None]
        while not self._waiting.empty():
            item = self._next()
            if item is not None:
                left.append(item)
        for item in left:
            if not item.answer.done():
                item.answer.set_exception(
                    OutcomeUnknown(
                        "the ledger's writer ended before it answered",
                        remedy="Ask ledger.posting.decided about the ids",
                    )
                )

    async def _gather_all(self) -> None:
        """Take what waits in groups, decide each ahead if that is possible, and hand it on."""
        carried: _Submission | None = None
        last = False
        before: _Group | None = None
        try:
            while not last:
                first = carried
                if first is None:
                    first = await self._waiting.get()
                    if first is None:
                        break
                    self._room.release()
                carried = None
                group, carried, last = self._gather(first)
                self._unanswered.add(group)
                if before is not None:
                    await before.is_decided.wait()
                await self._decide_ahead(group)
                await self._groups.put(group)
                before = group
            await self._groups.put(None)
        except BaseException:
            self._abandon(carried)
            raise

    def _gather(self, first: _Submission) -> tuple[_Group, _Submission | None, bool]:
        """Return the next group, the submission that no longer fitted, and whether it is the last."""
        submissions, requests = [first], list(first.requests)
        while len(requests) < self._group_max and not self._waiting.empty():
            item = self._next()
            if item is None:
                return _Group(submissions, requests), None, True
            if (
                len(requests) + len(item.requests) > self._group_max
                or item.imports is not first.imports
            ):
                return _Group(submissions, requests), item, False
            submissions.append(item)
            requests += item.requests
        return _Group(submissions, requests), None, False

    def _next(self) -> _Submission | None:
        """Take the next submission from the queue, which makes room for one; None: it was the end."""
        item = self._waiting.get_nowait()
        if item is not None:
            self._room.release()
        return item

    async def _decide_ahead(self, group: _Group) -> None:
        carried = self._carried
        if carried is None or not is_plain(group.requests):
            return
        carried.make_room()
        snapshot = carried.snapshot
        missing = store.keys_of(group.requests) - snapshot.by_key.keys()
        if missing:
            # Nobody but this writer may have written since; if somebody has, none of this counts.
            try:
                async with self._engine.connect() as conn:
                    await store.begin(conn)
                    async with driver(conn) as raw:
                        await store.read_accounts(raw, snapshot, missing)
            except (OSError, DBAPIError, PoolTimeout):
                # Then it is decided when it is written: that is tried again, and answered if it fails.
                return
            if carried is not self._carried:
                return
        group.base = snapshot.sequence
        decisions = await _decide(snapshot, group.requests, snapshot.block_time)
        if carried is self._carried:
            _advance(snapshot, decisions)
            group.carried, group.decisions = carried, decisions
            group.is_decided.set()

    async def _write_all(self) -> None:
        try:
            while (group := await self._groups.get()) is not None:
                try:
                    await self._post(group)
                finally:
                    group.is_decided.set()
                self._unanswered.discard(group)
        except BaseException:
            self._abandon()
            raise

    async def _post(self, group: _Group) -> None:
        attempts = 0

        async def work(conn: AsyncConnection) -> list[PostResult]:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                self._forget(group)
            return await self._write(conn, group)

        try:
            results = await transact(self._engine, work)
        except (CausewayError, DBAPIError) as error:
            # Whatever PostgreSQL refused is rolled back: those who come next are none the worse.
            self._forget(group)
            for item in group.submissions:
                if not item.answer.done():
                    item.answer.set_exception(error)
            return
        except BaseException:
            self._forget(group)
            raise
        self.commits += 1
        if group.carried is not None and group.decisions is not None:
            group.carried.committed = group.decisions.sequence
        start = 0
        for item in group.submissions:
            end = start + len(item.requests)
            if not item.answer.done():
                item.answer.set_result(results[start:end])
            start = end

    def _forget(self, group: _Group) -> None:
        """Believe nothing any more: what was decided on it will be decided again."""
        self._carried = None
        group.carried = group.decisions = None

    async def _write(self, conn: AsyncConnection, group: _Group) -> list[PostResult]:
        """Write a group in the caller's transaction; decide it first where that has to be done."""
        now = None if self._clock is None else self._clock.now()
        ids = store.ids_of(group.requests)
        head = await store.lock(conn, self._book, now, due_max=EXPIRIES_MAX, ids=ids)
        carried = group.carried
        counts = (
            group.decisions is not None
            and carried is self._carried
            and group.base == head.sequence
            and not head.due
            and not head.spent
        )
        if not counts:
            async with driver(conn) as raw:
                carried = await self._decide_now(raw, head, group)
        decisions = group.decisions
        assert decisions is not None
        assert carried is not None
        self.decided_ahead += counts
        if not decisions.lines:
            return decisions.results
        written = await blocks.write(conn, head, decisions, carried.open_leaves)
        carried.open_leaves = written.open_leaves
        return written.results

    async def _decide_now(
        self, raw: asyncpg.Connection, head: store.LockedHead, group: _Group
    ) -> Carried:
        """Decide a group under the head's lock, on what is carried if that is still true."""
        carried = self._carried
        # Nobody decides ahead on what is being changed here. What was decided ahead of its turn and
        # does not count has spoilt the balances it stood on.
        self._carried = None
        spoilt = group.decisions is not None
        if carried is None or spoilt or carried.snapshot.sequence != head.sequence:
            carried = Carried(
                store.snapshot_of(head), head.sequence, accounts_max=self._accounts_max
            )
        carried.make_room()
        snapshot = carried.snapshot
        await store.complete(raw, snapshot, head, group.requests)
        group.base = snapshot.sequence
        group.decisions = await _decide(snapshot, group.requests, head.at)
        group.carried = self._carried = carried
        _advance(snapshot, group.decisions)
        group.is_decided.set()
        return carried


async def _decide(snapshot: Snapshot, requests: Sequence[Request], at: datetime) -> Decisions:
    """Decide a batch, with turns for other tasks in between."""
    deciding = Deciding(snapshot, at, imports=requests[0].transfer.imported)
    start = 0
    while start < len(requests):
        end = min(start + SLICE, len(requests))
        while end < len(requests) and requests[end - 1].transfer.linked:
            end += 1
        deciding.add(requests[start:end])
        start = end
        await asyncio.sleep(0)
    return deciding.finish()


def _advance(snapshot: Snapshot, decisions: Decisions) -> None:
    """Let a snapshot be the book after a batch; its history is of no use to the next one."""
    snapshot.sequence = decisions.sequence
    snapshot.imported_through = decisions.imported_through
    snapshot.transfers = {}
    snapshot.refusals = {}
    snapshot.holds = {}
    snapshot.reversed_ids = set()
    snapshot.due = ()
