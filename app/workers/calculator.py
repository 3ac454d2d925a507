"""The job of a settlement window: pull what is owed and calculate version 1 of the run.

Calculating moves nothing: parties affirm, and people seal and release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.house_file import Window
from kernel.clock import Clock
from kernel.db import transact
from kernel.jobs import Job
from settlement.errors import NothingOwed
from settlement.runs import open_run, pull_obligations

ACTOR: Final = "system:scheduler"

log = structlog.get_logger("calculator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculator:
    """Everything that is needed; `calculate` for the same slot again finds the run there is."""

    engine: AsyncEngine
    clock: Clock
    book: int

    async def calculate(self, window: Window, job: Job) -> None:
        """Calculate the window's run of the slot's day; a day on which nothing is owed has none."""
        zone = ZoneInfo(window.schedule.timezone)
        day = job.scheduled_for.astimezone(zone).date()

        async def pull(conn: AsyncConnection) -> int:
            return len(await pull_obligations(conn, book=self.book, now=self.clock.now()))

        async def run(conn: AsyncConnection) -> None:
            await open_run(
                conn,
                book=self.book,
                value_date=day,
                window=window.name,
                by=ACTOR,
                now=self.clock.now(),
            )

        while await transact(self.engine, pull):
            pass
        try:
            await transact(self.engine, run)
        except NothingOwed:
            log.info("nothing is owed", window=window.name, value_date=day.isoformat())
