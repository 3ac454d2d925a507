"""Carrying out a plan: accounts, one posting, events. The last thing a custody verb does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.plan import Plan
from kernel.events import record
from ledger.accounts import ensure_accounts
from ledger.model import BATCH_MAX, Transfer
from ledger.posting import post, require_applied


async def apply_plan(conn: AsyncConnection, plan: Plan, *, book: int, now: datetime) -> None:
    """Make the accounts, post every transfer, and record the events.

    Every row behind the plan is locked and written by now: after the posting nothing waits. A block
    may hold more than the ledger takes at once; all its batches are of this one transaction.

    Raises:
        PostingRefused: a transfer was refused; the caller's transaction must not commit.
    """
    if plan.accounts:
        await ensure_accounts(conn, book, sorted(plan.accounts), owners=plan.owners, now=now)
    for batch in in_batches(plan.transfers, BATCH_MAX):
        require_applied(await post(conn, book, batch, now=now))
    await record(conn, plan.events)


def in_batches(transfers: Sequence[Transfer], size_max: int) -> Iterator[list[Transfer]]:
    """Yield *transfers* in order, at most *size_max* at once, and no chain of them divided."""
    batch: list[Transfer] = []
    start = 0
    for end, item in enumerate(transfers, start=1):
        if item.linked:
            continue
        if batch and len(batch) + end - start > size_max:
            yield batch
            batch = []
        batch += transfers[start:end]
        start = end
    if batch:
        yield batch
