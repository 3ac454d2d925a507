"""The worker of scheduled jobs: claims what is due, does it, and says how it ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel import tracing
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import CausewayError, StaleFence
from kernel.jobs import Job, JobState, claim_due, complete, retry_later

LEASE: Final = timedelta(minutes=5)
JOBS_PER_TURN_MAX: Final = 50

Handler = Callable[[Job], Awaitable[None]]
"""Does a job. It may be called again for the same slot, and must then have no second effect."""


@dataclass(slots=True)
class JobTurn:
    """What one turn did, by job name and slot."""

    done: list[Job] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    dead: list[Job] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWorker:
    """Everything that is needed; *handlers* by job name."""

    engine: AsyncEngine
    clock: Clock
    handlers: Mapping[str, Handler]
    holder: str = "jobs"

    async def turn(self) -> JobTurn:
        """Do what is due; a job that fails is tried again later, and is dead after many tries."""
        report = JobTurn()
        for job in await transact(self.engine, self._claim):
            try:
                with tracing.resuming(f"job {job.name}", job.traceparent, job.id):
                    await self.handlers[job.name](job)
                await transact(self.engine, partial(complete, done=job, now=self.clock.now()))
                report.done.append(job)
            except StaleFence:
                continue
            except CausewayError as error:
                state = await self._retry(job, str(error))
                if state is not None:
                    report.failed[f"{job.name} {job.scheduled_for:%Y-%m-%d %H:%M}"] = str(error)
                if state is JobState.DEAD:
                    report.dead.append(job)
        return report

    async def _claim(self, conn: AsyncConnection) -> list[Job]:
        return await claim_due(
            conn,
            sorted(self.handlers),
            holder=self.holder,
            now=self.clock.now(),
            lease_for=LEASE,
            limit=JOBS_PER_TURN_MAX,
        )

    async def _retry(self, job: Job, error: str) -> JobState | None:
        now = self.clock.now()
        return await transact(
            self.engine, lambda conn: retry_later(conn, job, now=now, error=error)
        )
