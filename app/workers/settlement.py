"""The settlement worker: takes back, matches and records what the chain brought, ends what expired."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.payout_model import Payout
from custody.payouts import expire_payouts
from kernel.clock import Clock
from kernel.db import transact
from settlement.matching import Match, match_receipts
from settlement.model import Instruction, Run, RunState
from settlement.queries import list_runs
from settlement.release import record_finality
from settlement.reopening import take_back

MATCHES_MAX: Final = 500
"""Receipts matched in one turn; the rest waits for the next one."""


@dataclass(frozen=True, slots=True)
class SettlementTurn:
    """What one turn did."""

    matched: list[Match] = field(default_factory=list)
    final: list[Run] = field(default_factory=list)
    expired: list[Payout] = field(default_factory=list)
    taken_back: list[Instruction] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementWorker:
    """Everything that is needed; `turn` is safe to call again after any error or crash."""

    engine: AsyncEngine
    clock: Clock
    book: int

    async def turn(self) -> SettlementTurn:
        """Do what is due: each match and each run in a transaction of its own."""
        taken_back = await transact(self.engine, self._take_back)
        matched = await self._match()
        released = await transact(self.engine, self._released)
        after = [await self._record(run) for run in released]
        expired = await transact(self.engine, self._expire)
        return SettlementTurn(
            matched, [run for run in after if run.state is RunState.FINAL], expired, taken_back
        )

    async def _take_back(self, conn: AsyncConnection) -> list[Instruction]:
        return await take_back(conn, book=self.book, now=self.clock.now())

    async def _match(self) -> list[Match]:
        matched: list[Match] = []
        while len(matched) < MATCHES_MAX:
            found = await transact(self.engine, self._match_one)
            if found is None:
                break
            matched.append(found)
        return matched

    async def _match_one(self, conn: AsyncConnection) -> Match | None:
        return await match_receipts(conn, book=self.book, now=self.clock.now())

    async def _released(self, conn: AsyncConnection) -> list[Run]:
        return await list_runs(conn, self.book, {RunState.RELEASED})

    async def _record(self, run: Run) -> Run:
        now = self.clock.now()
        return await transact(self.engine, lambda conn: record_finality(conn, run.id, now=now))

    async def _expire(self, conn: AsyncConnection) -> list[Payout]:
        return await expire_payouts(conn, book=self.book, now=self.clock.now())
