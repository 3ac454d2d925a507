"""What a test waits for that lets two transactions meet: that one of them stands at a lock."""

from __future__ import annotations

import asyncio
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

PATIENCE_S: Final = 10
WAITING: Final = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def waits_for_a_lock(engine: AsyncEngine) -> None:
    """Return once some session of this database waits for a lock.

    Raises:
        TimeoutError: none has, for so long that none will.
    """
    async with asyncio.timeout(PATIENCE_S), engine.connect() as conn:
        while not await conn.scalar(WAITING):
            await conn.rollback()
            await asyncio.sleep(0.005)
