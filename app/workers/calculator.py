"""The job of a window of the house file: the cycle of its slot is opened, and its runs calculated.

A window whose policy two people have set needs no such job: `app.workers.cycles` opens its slots. Here
the file's clock tells when; calculating moves nothing: parties affirm, and people seal and release.
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
from settlement.cycles import open_cycle
from settlement.errors import NothingOwed

ACTOR: Final = "system:scheduler"

log = structlog.get_logger("calculator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculator:
    """Everything that is needed; `calculate` for the same slot again finds the cycle there is."""

    engine: AsyncEngine
    clock: Clock
    book: int

    async def calculate(self, window: Window, job: Job) -> None:
        """Open the cycle of the slot's day; a day on which nothing is owed has none."""
        zone = ZoneInfo(window.schedule.timezone)
        day = job.scheduled_for.astimezone(zone).date()

        async def calculate(conn: AsyncConnection) -> None:
            await open_cycle(
                conn,
                book=self.book,
                business_date=day,
                window=window.name,
                by=ACTOR,
                now=self.clock.now(),
            )

        try:
            await transact(self.engine, calculate)
        except NothingOwed:
            log.info("nothing is owed", window=window.name, value_date=day.isoformat())
