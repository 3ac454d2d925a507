"""Group the stand-alone submissions of one process into few commits.

One transfer per commit costs one commit each, and every poster of a book waits for the same head
row. The writer takes whatever is waiting, posts it as one batch in one transaction, and answers
each submitter after that commit. While a batch commits, the next one gathers: the busier, the
larger the batches; nobody waits for a timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import BadInput, CausewayError, OutcomeUnknown, OutsideUnavailable
from ledger.model import BATCH_MAX, PostResult, Transfer
from ledger.posting import post, prepare

GROUP_MAX: Final = 1_000
"""Transfers in one commit, at most, unless a single submission is larger."""

WAITING_MAX: Final = 10_000
"""Submissions that may wait; the next submitter is held back until there is room."""


@dataclass(slots=True, eq=False)
class _Submission:
    transfers: tuple[Transfer, ...]
    answer: asyncio.Future[list[PostResult]]


class Writer:
    """Posts for many tasks of one process; use it as an async context manager.

    Args:
        engine: of the runtime role.
        book: the book it posts to.
        clock: gives the block time; None: the database's clock.
        group_max: transfers per commit, at most.
        waiting_max: submissions that may wait.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        book: int,
        *,
        clock: Clock | None = None,
        group_max: int = GROUP_MAX,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._engine = engine
        self._book = book
        self._clock = clock
        self._group_max = min(group_max, BATCH_MAX)
        self._waiting: asyncio.Queue[_Submission | None] = asyncio.Queue(waiting_max)
        self._tasks = asyncio.TaskGroup()
        self._closing = False
        self._ended = False
        self.commits = 0

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.create_task(self._work(), name=f"ledger writer of book {self._book}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Post what still waits, then end."""
        self._closing = True
        if error is None:
            await self._waiting.put(None)
        await self._tasks.__aexit__(kind, error, trace)

    async def submit(self, *transfers: Transfer) -> list[PostResult]:
        """Post *transfers*, in order, and return their results once they are committed.

        They are not a chain unless they are linked; a chain is never cut between two commits.

        Raises:
            CommitUnknown: the connection was lost during COMMIT: ask `ledger.posting.decided`.
            OutsideUnavailable: PostgreSQL does not answer, or the writer is closing.
            BadInput: a request that no book could understand; other submissions are unharmed.
        """
        if self._closing:
            raise OutsideUnavailable("the ledger's writer is closing")
        if not transfers:
            return []
        if transfers[-1].linked or len(transfers) > BATCH_MAX:
            raise BadInput(f"submit whole chains, at most {BATCH_MAX} transfers at once")
        for item in transfers:
            prepare(item)
        answer: asyncio.Future[list[PostResult]] = asyncio.get_running_loop().create_future()
        await self._waiting.put(_Submission(transfers, answer))
        if self._ended:
            # A full queue held it back until nobody was left to empty it; this wakes the next one.
            self._abandon([])
        return await answer

    async def _work(self) -> None:
        group: list[_Submission] = []
        carried: _Submission | None = None
        last = False
        try:
            while not last:
                first = carried or await self._waiting.get()
                if first is None:
                    return
                group, carried, last = self._gather(first)
                await self._post(group)
        finally:
            self._closing = True
            self._abandon([*group, *([carried] if carried else [])])

    def _abandon(self, group: list[_Submission]) -> None:
        """Tell everybody who is still waiting that no answer will come."""
        self._ended = True
        while not self._waiting.empty():
            item = self._waiting.get_nowait()
            if item is not None:
                group.append(item)
        for item in group:
            if not item.answer.done():
                item.answer.set_exception(
                    OutcomeUnknown(
                        "the ledger's writer ended before it answered",
                        remedy="Ask ledger.posting.decided about the ids",
                    )
                )

    def _gather(self, first: _Submission) -> tuple[list[_Submission], _Submission | None, bool]:
        """Return the next group, the submission that no longer fitted, and whether it is the last."""
        group, size = [first], len(first.transfers)
        while size < self._group_max and not self._waiting.empty():
            item = self._waiting.get_nowait()
            if item is None:
                return group, None, True
            if size + len(item.transfers) > self._group_max:
                return group, item, False
            group.append(item)
            size += len(item.transfers)
        return group, None, False

    async def _post(self, group: Sequence[_Submission]) -> None:
        batch = [transfer for item in group for transfer in item.transfers]

        async def work(conn: AsyncConnection) -> list[PostResult]:
            now = None if self._clock is None else self._clock.now()
            return await post(conn, self._book, batch, now=now)

        try:
            results = await transact(self._engine, work)
        except CausewayError as error:
            for item in group:
                if not item.answer.done():
                    item.answer.set_exception(error)
            return
        self.commits += 1
        start = 0
        for item in group:
            end = start + len(item.transfers)
            if not item.answer.done():
                item.answer.set_result(results[start:end])
            start = end
