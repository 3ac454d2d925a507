"""Waiting until others wait: races that are to be seen are not left to chance."""

from __future__ import annotations

import asyncio
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

PATIENCE_S: Final = 30
_WAITING: Final = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


async def until_waiting(engine: AsyncEngine, sessions: int = 1) -> None:
    """Return once so many *sessions* of the database wait for a lock.

    Raises:
        TimeoutError: they do not.
    """
    async with asyncio.timeout(PATIENCE_S), engine.connect() as conn:
        while await conn.scalar(_WAITING) < sessions:
            # What is known of who waits is of the transaction's first look.
            await conn.rollback()
            await asyncio.sleep(0.005)
