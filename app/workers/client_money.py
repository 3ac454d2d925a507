"""The worker that watches client money: page after page until the journal has no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from reporting.client_money_watch import NAMES, watch_client_money
from reporting.model import ClientMoney, WatchedPage

PAGES_MAX: Final = 20
"""Pages watched in one turn; the rest of a long journal waits for the next one."""

log = structlog.get_logger("client-money")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientMoneyWatch:
    """Everything that is needed; `turn` is safe to call again after any error or crash."""

    engine: AsyncEngine
    clock: Clock
    book: int

    async def turn(self) -> list[ClientMoney]:
        """Watch what is new, each page in a transaction of its own; return the changes."""
        changes: list[ClientMoney] = []
        for _ in range(PAGES_MAX):
            page = await transact(self.engine, self._watch)
            # Only what is committed is told; the events are the record of it.
            for change in page.changes:
                self._warn(change)
            changes += page.changes
            if page.is_last:
                break
        return changes

    async def _watch(self, conn: AsyncConnection) -> WatchedPage:
        return await watch_client_money(conn, self.book, now=self.clock.now())

    def _warn(self, change: ClientMoney) -> None:
        log.warning(
            NAMES[change.state],
            book=self.book,
            asset=change.asset,
            height=change.height,
            sequence=change.sequence,
            holdings=str(change.holdings),
            liabilities=str(change.liabilities),
            shortfall=str(change.shortfall),
        )
