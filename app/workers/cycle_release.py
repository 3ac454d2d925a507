"""The release of a cycle, one short transaction after another: the same for the clock and for people.

Released → gathered → chosen (outside of any transaction) → the choice kept → held → paid where there is
a ground → settled by book. Each step may be repeated; killed between two of them, the next call goes on
where the rows say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final, Protocol, TypeAlias, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.groups import in_groups
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import Refused
from registry.model import Operator
from settlement.book_rail import ASKED_MAX, accept_book, settle_book
from settlement.holding import hold_chosen
from settlement.liquidity_run import (
    TIME_LIMIT_S,
    Payable,
    choose_release,
    draft_plan,
    find_newest_plan,
    gather,
    read_payable,
    record_plan,
)
from settlement.model import Direction, Instruction, InstructionState, Run, RunState
from settlement.netting.model import Method, Solvers
from settlement.queries import list_instructions_of_runs
from settlement.release_model import BookSettlement, ReleasePlan
from settlement.releasing import (
    PAYMENTS_MAX,
    Released,
    await_receipts,
    release_ready,
    release_runs,
    survey,
)
from settlement.steps import SYSTEM
from settlement.value_against_value import OPEN
from trading.terms.model import Rail

RUNS_MAX: Final = 500
"""Runs that one transaction releases, or pays out of."""

T = TypeVar("T")

Step: TypeAlias = Callable[[AsyncConnection], Awaitable[None]]


class BookVerb(Protocol):
    """Takes a step of the book rail with a group, all of it or nothing."""

    async def __call__(
        self,
        conn: AsyncConnection,
        asked: Collection[BookSettlement],
        /,
        *,
        by: Operator | None,
        now: datetime,
    ) -> list[Instruction]:
        """Return the instructions as they stand then."""


class Do(Protocol):
    """Runs one step in a transaction of its own; in a rehearsal, behind a savepoint."""

    async def __call__(self, step: Callable[[AsyncConnection], Awaitable[T]], /) -> T:
        """Return what the step returned."""


@dataclass(frozen=True, slots=True)
class InTransactions:
    """Every step is a transaction that is committed."""

    engine: AsyncEngine

    async def __call__(self, step: Callable[[AsyncConnection], Awaitable[T]], /) -> T:
        """Return what the step returned."""
        return await transact(self.engine, step)


@dataclass(frozen=True, slots=True)
class BehindSavepoints:
    """Every step is part of one transaction, which the caller rolls back."""

    conn: AsyncConnection

    async def __call__(self, step: Callable[[AsyncConnection], Awaitable[T]], /) -> T:
        """Return what the step returned."""
        async with self.conn.begin_nested():
            return await step(self.conn)


@dataclass(slots=True)
class CycleReleased:
    """What one call did.

    Attributes:
        plan: the newest choice; None: there was nothing to choose.
        waits: why the others wait, by instruction; of a book settlement by ``<run>/<party>``.
    """

    released: list[Run] = field(default_factory=list)
    plan: ReleasePlan | None = None
    held: int = 0
    payouts: dict[UUID, UUID] = field(default_factory=dict)
    settled: list[str] = field(default_factory=list)
    waits: dict[str, str] = field(default_factory=dict)

    @property
    def moved(self) -> bool:
        """Tell whether anything happened."""
        return bool(self.released or self.held or self.payouts or self.settled)


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleRelease:
    """Everything that is needed to release the runs of one scope: a cycle, or a run without one.

    Attributes:
        by: a treasurer; None: the clock, where the policy of the window says so.
        method: how is chosen when what is held does not suffice.
        plan_every: an open choice is not made anew before it is so old: a solver takes its time.
    """

    do: Do
    clock: Clock
    book: int
    by: Operator | None
    method: Method = Method.OPTIMAL
    solvers: Callable[[], Solvers]
    time_limit_s: float = TIME_LIMIT_S
    plan_every: timedelta = timedelta(0)

    async def all(self, runs: Sequence[Run]) -> CycleReleased:
        """Release sealed runs, and move everything of released ones that may move now."""
        done = CycleReleased()
        live = [run for run in runs if run.state in {RunState.SEALED, RunState.RELEASED}]
        for part in _parts([run for run in live if run.state is RunState.SEALED]):
            await self._release(part, done)
        items = await self._read(live)
        for part in _parts([run for run in live if any(_is_to_await(i) for i in items[run.id])]):
            await self._await([run.id for run in part])
        open_runs = [run for run in live if any(_is_open(i) for i in items[run.id])]
        if open_runs:
            await self._plan(open_runs, done)
            for part in _parts(open_runs):
                await self._hold([run.id for run in part], done)
            items = await self._read(live)
        ready = await self._survey(live, done)
        for start in range(0, len(ready), PAYMENTS_MAX):
            await self._pay(ready[start : start + PAYMENTS_MAX], done)
        await self._settle_by_book(live, items, done)
        return done

    async def _read(self, runs: Sequence[Run]) -> dict[UUID, list[Instruction]]:
        """Return the instructions of each run as they stand; nothing is locked."""
        found: dict[UUID, list[Instruction]] = {}

        async def look(conn: AsyncConnection) -> None:
            found.clear()
            found.update({run.id: [] for run in runs})
            for item in await list_instructions_of_runs(conn, [run.id for run in runs]):
                found[item.run_id].append(item)

        await self.do(look)
        return found

    async def _release(self, runs: Sequence[Run], done: CycleReleased) -> None:
        async def step(conn: AsyncConnection) -> None:
            ids = [run.id for run in runs]
            found = await release_runs(conn, ids, by=self.by, now=self.clock.now())
            done.released += found

        await self.do(step)

    async def _await(self, ids: Collection[UUID]) -> None:
        async def step(conn: AsyncConnection) -> int:
            return await await_receipts(conn, ids, by=self.by, now=self.clock.now())

        while await self.do(step):
            pass

    async def _survey(self, runs: Sequence[Run], done: CycleReleased) -> list[Instruction]:
        """Return what is held and may leave; of the rest, note what it waits for."""
        ready: list[Instruction] = []

        async def look(conn: AsyncConnection) -> None:
            ids = [run.id for run in runs]
            ready[:], waits = await survey(conn, self.book, ids, now=self.clock.now())
            done.waits |= {str(key): why for key, why in waits.items()}

        await self.do(look)
        return ready

    async def _plan(self, runs: Sequence[Run], done: CycleReleased) -> None:
        """Choose, unless the newest choice is young, or was made from the very same inputs."""
        scope = runs[0].cycle_id or runs[0].id

        async def look(conn: AsyncConnection) -> Payable | None:
            done.plan = await find_newest_plan(conn, scope)
            if done.plan is not None and self.clock.now() - done.plan.at < self.plan_every:
                return None
            return await read_payable(conn, self.book, [run.id for run in runs])

        found = await self.do(look)
        if found is None:
            return
        draft = await asyncio.to_thread(self._choose, found, scope, runs[0].value_date, done.plan)
        if draft is not None:
            done.plan = await self.do(lambda conn: record_plan(conn, draft))

    def _choose(
        self, found: Payable, scope: UUID, on: date, newest: ReleasePlan | None
    ) -> ReleasePlan | None:
        """Return a new choice; None: there is nothing to choose, or nothing has changed."""
        inputs = gather(found, self.book, scope, on=on)
        if not inputs.payments or (newest is not None and newest.input_hash == inputs.hash):
            return None
        choice = choose_release(
            inputs, method=self.method, time_limit_s=self.time_limit_s, solvers=self.solvers()
        )
        by = SYSTEM if self.by is None else self.by.code
        return draft_plan(inputs, choice, by=by, now=self.clock.now())

    async def _hold(self, ids: Collection[UUID], done: CycleReleased) -> None:
        plan = done.plan
        if plan is None:
            return
        found = [1]

        async def step(conn: AsyncConnection) -> None:
            now = self.clock.now()
            found[0] = len(await hold_chosen(conn, plan, ids, by=self.by, now=now))

        while found[0]:
            if not await self._try(step, f"plan {plan.number}", done):
                return
            done.held += found[0]

    async def _pay(self, items: Sequence[Instruction], done: CycleReleased) -> None:
        """Pay a group; if one of it is refused, its halves, so that it holds nobody up."""

        async def step(conn: AsyncConnection) -> Released:
            runs, only = {item.run_id for item in items}, [item.id for item in items]
            return await release_ready(conn, runs, only=only, by=self.by, now=self.clock.now())

        found = await self.do(step)
        if found.refused and len(items) > 1:
            middle = len(items) // 2
            await self._pay(items[:middle], done)
            await self._pay(items[middle:], done)
            return
        done.payouts |= found.payouts
        done.waits |= {str(key): why for key, why in found.waits.items()}

    async def _settle_by_book(
        self, runs: Sequence[Run], items: Mapping[UUID, Sequence[Instruction]], done: CycleReleased
    ) -> None:
        """Settle the prefunded parties of runs whose sides were chosen, or are held already."""
        planned: list[BookSettlement] = []
        held: set[BookSettlement] = set()
        for run in runs:
            ours = [item for item in items[run.id] if item.rail is Rail.BOOK]
            held |= {
                BookSettlement(run.id, item.party)
                for item in ours
                if item.state is InstructionState.RELEASED
            }
            for party in sorted({item.party for item in ours if item.state in OPEN}):
                one = BookSettlement(run.id, party)
                held.discard(one)
                if done.plan is None or one.key not in done.plan.choice.chosen:
                    done.waits[one.key] = f"{party} or what covers clients is short: not chosen"
                else:
                    planned.append(one)
        await self._settle_held(sorted(held), done)
        for start in range(0, len(planned), ASKED_MAX):
            # Whoever dies here leaves the coins of one group held, and not those of all.
            group = planned[start : start + ASKED_MAX]
            await self._settle_held(await self._by_book(accept_book, group, done), done)

    async def _settle_held(self, asked: Sequence[BookSettlement], done: CycleReleased) -> None:
        done.settled += [one.key for one in await self._by_book(settle_book, asked, done)]

    async def _by_book(
        self, verb: BookVerb, asked: Sequence[BookSettlement], done: CycleReleased
    ) -> list[BookSettlement]:
        """Take a step with each of these; return those that have taken it, the others wait."""

        async def take(group: Sequence[BookSettlement]) -> Sequence[BookSettlement]:
            await self.do(lambda conn: verb(conn, group, by=self.by, now=self.clock.now()))
            return group

        taken, refused = await in_groups(asked, take, size=ASKED_MAX)
        done.waits |= {one.key: str(no) for one, no in refused.items()}
        return taken

    async def _try(self, step: Step, key: str, done: CycleReleased) -> bool:
        try:
            await self.do(step)
        except Refused as no:
            done.waits[key] = str(no)
            return False
        return True


def _is_open(item: Instruction) -> bool:
    """Tell whether something is to be chosen for it still."""
    return item.state in OPEN and (item.rail is Rail.BOOK or item.direction is Direction.PAY)


def _is_to_await(item: Instruction) -> bool:
    """Tell whether it comes from outside, and nobody watches for it yet."""
    return (
        item.state is InstructionState.PLANNED
        and item.direction is Direction.RECEIVE
        and item.rail is not Rail.BOOK
    )


def _parts(runs: Sequence[Run]) -> list[Sequence[Run]]:
    return [runs[start : start + RUNS_MAX] for start in range(0, len(runs), RUNS_MAX)]
