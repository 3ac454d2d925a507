"""The job of a move between books: step after step, each in a transaction of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import Refused
from kernel.jobs import Job
from ledger.interbook.model import Move
from ledger.interbook.moving import advance_move, get_move

STEPS_MAX: Final = 8
"""More steps than any move has; a worker that needs more goes round in circles."""


@dataclass(frozen=True, slots=True)
class BookMover:
    """Everything that is needed; `move` for the same slot again goes on where the row stands."""

    engine: AsyncEngine
    clock: Clock

    async def move(self, job: Job) -> None:
        """Drive the move that the job names to its end."""
        await self.drive(UUID(job.payload["move"]))

    async def drive(self, move_id: UUID) -> Move:
        """Do what is left of a move and return it as it has ended."""

        async def step(conn: AsyncConnection) -> Move:
            return await advance_move(conn, move_id, now=self.clock.now())

        move = await transact(self.engine, lambda conn: get_move(conn, move_id))
        for _ in range(STEPS_MAX):
            if not move.in_flight:
                return move
            move = await transact(self.engine, step)
        raise Refused(f"the move {move_id} does not end", where=str(move.state))
