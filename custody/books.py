"""Carrying out a plan: accounts, one posting, events. The last thing a custody verb does."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.plan import Plan
from kernel.events import record
from ledger.posting import ensure_accounts, post, require_applied


async def apply_plan(conn: AsyncConnection, plan: Plan, *, book: int, now: datetime) -> None:
    """Make the accounts, post every transfer in one batch, and record the events.

    Every row behind the plan is locked and written by now: after the posting nothing waits.

    Raises:
        PostingRefused: a transfer was refused; the caller's transaction must not commit.
    """
    if plan.accounts:
        await ensure_accounts(conn, book, sorted(plan.accounts), owners=plan.owners, now=now)
    if plan.transfers:
        require_applied(await post(conn, book, plan.transfers, now=now))
    await record(conn, plan.events)
