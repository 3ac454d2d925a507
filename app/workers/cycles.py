"""The clock of settlement: slots that are due are opened in their order, live cycles go on.

Whoever calls, and however often: the loop of the house, a second replica of it, a person, or an external
cron by ``causeway settle run``. What is due follows from the windows' policies and the rows alone. A slot
is one job row, claimed under a lease with a fence; no slot of a window overtakes an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.workers.cycle_release import CycleRelease, CycleReleased, Do
from kernel.clock import Clock
from kernel.errors import CausewayError, Refused, StaleFence
from kernel.jobs import (
    Job,
    JobState,
    claim_in_order,
    complete,
    enqueue,
    find_last_slot,
    retry_later,
)
from settlement.cycles import CLOCK, Advance, advance_cycle, open_cycle, seal_cycle
from settlement.model import Cycle, Run, Window
from settlement.netting.model import Method, Solvers
from settlement.queries import list_cycle_runs, list_live_cycles
from settlement.slots import Slot, due_slots, job_of
from settlement.solvers.loading import load_solvers
from settlement.windows import get_window, list_windows

LEASE: Final = timedelta(minutes=5)
"""How long a worker may be at one slot before another one takes it over."""
SLOTS_PER_TURN_MAX: Final = 100
CYCLES_MAX: Final = 1_000
"""Cycles with something left to do that one turn looks at, the oldest first."""
TIME_LIMIT_S: Final = 10.0
"""For one choice: the loop has other cycles."""

PLAN_EVERY: Final = timedelta(minutes=1)
"""Between two choices for one cycle: what is held moves all the time."""

log = structlog.get_logger("cycles")


@dataclass(slots=True)
class CyclesTurn:
    """What one turn did; *failed* by slot or cycle, in words."""

    slots: int = 0
    opened: list[Cycle] = field(default_factory=list)
    lapsed: list[Run] = field(default_factory=list)
    sealed: list[Run] = field(default_factory=list)
    released: list[CycleReleased] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    dead: list[Job] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleWorker:
    """Everything that is needed; `turn` is safe to call again after any error or crash.

    Attributes:
        holder: who leases: another one for each replica.
    """

    do: Do
    clock: Clock
    book: int
    holder: str = "settlement"
    solvers: Callable[[], Solvers] = load_solvers
    time_limit_s: float = TIME_LIMIT_S

    async def turn(self, only: Collection[str] | None = None) -> CyclesTurn:
        """Open what is due and go on with what is live; *only* these windows, if it is given."""
        done = CyclesTurn()
        windows = await self.do(self._windows)
        for name in sorted(windows):
            if only is None or name in only:
                await self._open_due(windows[name], done)
        for cycle_id in await self.do(self._live):
            await self._go_on(cycle_id, only, done)
        return done

    async def _windows(self, conn: AsyncConnection) -> dict[str, list[Window]]:
        found: dict[str, list[Window]] = {}
        for version in await list_windows(conn, self.book):
            found.setdefault(version.name, []).append(version)
        return found

    async def _live(self, conn: AsyncConnection) -> list[UUID]:
        return await list_live_cycles(conn, self.book, limit=CYCLES_MAX)

    async def _open_due(self, versions: list[Window], done: CyclesTurn) -> None:
        now = self.clock.now()
        done.slots += await self.do(lambda conn: sweep_window(conn, versions, now))
        name = job_of(versions[0].name)
        for _ in range(SLOTS_PER_TURN_MAX):
            job = await self.do(partial(self._claim, name=name))
            if job is None:
                return
            try:
                cycle = await self.do(partial(self._open, job=job))
                done.opened.append(cycle)
            except StaleFence:
                continue
            except CausewayError as error:
                state = await self._retry(job, str(error))
                if state is not None:
                    done.failed[f"{name} {job.scheduled_for:%Y-%m-%d %H:%M}"] = str(error)
                if state is JobState.DEAD:
                    done.dead.append(job)

    async def _claim(self, conn: AsyncConnection, *, name: str) -> Job | None:
        return await claim_in_order(
            conn, name, holder=self.holder, now=self.clock.now(), lease_for=LEASE
        )

    async def _open(self, conn: AsyncConnection, *, job: Job) -> Cycle:
        """Open the slot's cycle and end its job in one transaction: both, or neither."""
        now = self.clock.now()
        slot = slot_of(job)
        cycle = await open_cycle(
            conn,
            book=self.book,
            business_date=slot.business_date,
            window=slot.window,
            by=CLOCK,
            now=now,
        )
        await complete(conn, job, now=now)
        return cycle

    async def _retry(self, job: Job, error: str) -> JobState | None:
        now = self.clock.now()
        return await self.do(lambda conn: retry_later(conn, job, now=now, error=error))

    async def _go_on(self, cycle_id: UUID, only: Collection[str] | None, done: CyclesTurn) -> None:
        """Do what is due in one cycle; what is refused there holds up no other."""
        try:
            step = await self.do(lambda conn: advance_cycle(conn, cycle_id, self.clock.now()))
            if only is not None and step.cycle.window not in only:
                return
            done.lapsed += step.lapsed
            if step.to_seal:
                await self._seal(cycle_id, done)
            await self._release(step, done)
        except Refused as no:
            done.failed[str(cycle_id)] = str(no)
            log.warning("a cycle waits", cycle=str(cycle_id), why=str(no))

    async def _seal(self, cycle_id: UUID, done: CyclesTurn) -> None:
        async def seal(conn: AsyncConnection) -> list[Run]:
            return await seal_cycle(conn, cycle_id, by=None, now=self.clock.now())

        while batch := await self.do(seal):
            done.sealed += batch

    async def _release(self, step: Advance, done: CyclesTurn) -> None:
        """Release what the policy lets the clock release, and move what may move of it."""
        cycle = step.cycle

        async def read(conn: AsyncConnection) -> tuple[Window, list[Run]]:
            window = await get_window(conn, cycle.book, cycle.window, cycle.window_version)
            return window, await list_cycle_runs(conn, cycle.id)

        window, runs = await self.do(read)
        if not window.releases_by_clock:
            return
        now = self.clock.now()
        ready = [run for run in runs if run.release_at is not None and run.release_at <= now]
        release = CycleRelease(
            do=self.do,
            clock=self.clock,
            book=self.book,
            by=None,
            method=Method(window.method),
            solvers=self.solvers,
            time_limit_s=self.time_limit_s,
            plan_every=PLAN_EVERY,
        )
        found = await release.all(ready)
        if found.moved:
            done.released.append(found)


async def sweep_window(conn: AsyncConnection, versions: list[Window], now: datetime) -> int:
    """Insert the job rows of a window's slots that are due and have none; return how many were new."""
    name = versions[0].name
    last = await find_last_slot(conn, job_of(name))
    return sum(
        [
            await enqueue(conn, slot.job, slot.cutoff_at, _payload(slot))
            for slot in due_slots(versions, after=last, until=now)
        ]
    )


def slot_of(job: Job) -> Slot:
    """Return the slot of a job row."""
    return Slot(
        job.scheduled_for,
        str(job.payload["window"]),
        datetime.fromisoformat(str(job.payload["business_date"])).date(),
    )


def _payload(slot: Slot) -> dict[str, str]:
    return {"window": slot.window, "business_date": slot.business_date.isoformat()}
