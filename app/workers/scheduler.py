"""The clock of the house: schedules become job rows, each slot once, however many replicas tick.

APScheduler tells when to look, and nothing else: it keeps its jobs in memory, coalesces what it
missed and never gives a late tick up. What is due is decided here, from the rows: a sweep inserts
every slot since the schedule began that has no row yet. So a slot that passed while nothing ran is
made up for at the next start, and the same sweep serves the tick, the start and an hourly check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import BadInput
from kernel.jobs import enqueue, find_last_slot

SWEEP_EVERY: Final = timedelta(hours=1)
SLOTS_MAX: Final = 400
"""Slots inserted for one schedule in one sweep: more than a year of days. The rest comes next."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job is due.

    Attributes:
        name: of the job: ``settlement.calculate/afternoon``.
        cron: five fields, as cron writes them: ``0 17 * * mon-fri``.
        timezone: in which the fields are read, daylight saving included: ``Europe/London``.
        since: slots before this are not missed but never meant.
    """

    name: str
    cron: str
    timezone: str
    since: datetime

    def trigger(self) -> CronTrigger:
        """Return the schedule as APScheduler reads it.

        Raises:
            BadInput: names the schedule and what cannot be read.
        """
        try:
            return CronTrigger.from_crontab(self.cron, timezone=ZoneInfo(self.timezone))
        except (ValueError, ZoneInfoNotFoundError) as error:
            raise BadInput(
                f"the schedule {self.name} cannot be read: {error}",
                where=f"{self.cron!r} in {self.timezone!r}",
                remedy='Write five cron fields and a zone: "0 17 * * mon-fri", "Europe/London"',
            ) from error


def slots(schedule: Schedule, after: datetime, until: datetime) -> list[datetime]:
    """Return the slots in (*after*, *until*], oldest first, at most `SLOTS_MAX`."""
    trigger = schedule.trigger()
    found: list[datetime] = []
    last = after
    while len(found) < SLOTS_MAX:
        slot = trigger.get_next_fire_time(last, last + timedelta(microseconds=1))
        if slot is None or slot > until:
            break
        found.append(slot)
        last = slot
    return found


async def sweep(conn: AsyncConnection, schedule: Schedule, *, now: datetime) -> int:
    """Insert the rows of every slot that is due and has none; return how many were new."""
    last = await find_last_slot(conn, schedule.name)
    after = max(filter(None, (last, schedule.since)))
    return sum(
        [
            await enqueue(conn, schedule.name, slot, {"slot": slot.isoformat()})
            for slot in slots(schedule, after, now)
        ]
    )


class Ticker:
    """Sweeps each schedule at its slots, at the start, and every hour."""

    def __init__(self, engine: AsyncEngine, clock: Clock, schedules: Sequence[Schedule]) -> None:
        self._engine = engine
        self._clock = clock
        self._schedules = tuple(schedules)
        self._scheduler = AsyncIOScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={"default": AsyncIOExecutor()},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )

    async def __aenter__(self) -> Self:
        """Make up for what was missed, then tick."""
        for schedule in self._schedules:
            await self.sweep(schedule)
            self._scheduler.add_job(self.sweep, schedule.trigger(), args=[schedule])
            self._scheduler.add_job(
                self.sweep, "interval", seconds=SWEEP_EVERY.total_seconds(), args=[schedule]
            )
        self._scheduler.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop ticking; a sweep under way ends by itself or is rolled back."""
        self._scheduler.shutdown(wait=False)

    async def sweep(self, schedule: Schedule) -> int:
        """Sweep one schedule in a transaction of its own."""
        now = self._clock.now()
        return await transact(self._engine, lambda conn: sweep(conn, schedule, now=now))
