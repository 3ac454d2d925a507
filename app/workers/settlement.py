"""The settlement worker: takes back, matches and records what the chain brought, ends what expired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.groups import in_groups
from custody.payout_model import Payout
from custody.payouts import expire_payouts
from kernel.clock import Clock
from kernel.db import transact
from settlement.fail_model import Fail, PaymentReturn
from settlement.fails import note_fails
from settlement.matching.model import Match
from settlement.matching.posting import match_receipts
from settlement.model import Instruction, Run, RunState
from settlement.release import find_ripe_runs, record_finality
from settlement.reopening import take_back
from settlement.returns import Recall, settle_recall, take_up_returns

MATCHES_MAX: Final = 10_000
"""Receipts matched in one turn; the rest waits for the next one."""
OBLIGATIONS_MAX: Final = 8_000
"""Obligations discharged in one transaction, about: a run is closed whole."""
RUN_WEIGHS: Final = OBLIGATIONS_MAX // 100
"""What a run of few obligations counts for: a hundred of them are closed in one transaction."""
RECALLS_MAX: Final = 100
"""Recalls dealt with in one turn."""

log = structlog.get_logger("settlement")


@dataclass(frozen=True, slots=True)
class SettlementTurn:
    """What one turn did; *failed* by run, in words."""

    matched: list[Match] = field(default_factory=list)
    final: list[Run] = field(default_factory=list)
    expired: list[Payout] = field(default_factory=list)
    taken_back: list[Instruction] = field(default_factory=list)
    recalled: list[Recall] = field(default_factory=list)
    returned: list[PaymentReturn] = field(default_factory=list)
    fails: list[Fail] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementWorker:
    """Everything that is needed; `turn` is safe to call again after any error or crash."""

    engine: AsyncEngine
    clock: Clock
    book: int

    async def turn(self) -> SettlementTurn:
        """Do what is due, in short transactions; a run that cannot be closed holds up no other."""
        taken_back = await transact(self.engine, self._take_back)
        recalled = await self._recall()
        returned = await transact(self.engine, self._take_up_returns)
        matched = await self._match()
        ripe = await transact(self.engine, self._ripe)
        after, refused = await in_groups(
            list(ripe),
            self._record,
            size=OBLIGATIONS_MAX,
            weigh=lambda run_id: max(ripe[run_id], RUN_WEIGHS),
        )
        for run_id, no in refused.items():
            log.warning("a run is not closed", run=str(run_id), why=str(no))
        expired = await transact(self.engine, self._expire)
        return SettlementTurn(
            matched=matched,
            final=[run for run in after if run.state is RunState.FINAL],
            expired=expired,
            taken_back=taken_back,
            recalled=recalled,
            returned=returned,
            fails=await transact(self.engine, self._note_fails),
            failed={str(run_id): str(no) for run_id, no in refused.items()},
        )

    async def _take_back(self, conn: AsyncConnection) -> list[Instruction]:
        return await take_back(conn, book=self.book, now=self.clock.now())

    async def _recall(self) -> list[Recall]:
        recalled: list[Recall] = []
        while len(recalled) < RECALLS_MAX:
            found = await transact(self.engine, self._recall_one)
            if found is None:
                break
            recalled.append(found)
        return recalled

    async def _recall_one(self, conn: AsyncConnection) -> Recall | None:
        return await settle_recall(conn, book=self.book, now=self.clock.now())

    async def _take_up_returns(self, conn: AsyncConnection) -> list[PaymentReturn]:
        return await take_up_returns(conn, book=self.book, now=self.clock.now())

    async def _note_fails(self, conn: AsyncConnection) -> list[Fail]:
        return await note_fails(conn, book=self.book, now=self.clock.now())

    async def _match(self) -> list[Match]:
        matched: list[Match] = []
        while len(matched) < MATCHES_MAX:
            found = await transact(self.engine, self._match_some)
            if not found:
                break
            matched += found
        return matched

    async def _match_some(self, conn: AsyncConnection) -> list[Match]:
        return await match_receipts(conn, book=self.book, now=self.clock.now())

    async def _ripe(self, conn: AsyncConnection) -> dict[UUID, int]:
        return await find_ripe_runs(conn, self.book)

    async def _record(self, run_ids: Sequence[UUID]) -> list[Run]:
        now = self.clock.now()
        return await transact(self.engine, lambda conn: record_finality(conn, run_ids, now=now))

    async def _expire(self, conn: AsyncConnection) -> list[Payout]:
        return await expire_payouts(conn, book=self.book, now=self.clock.now())
