"""A reconciliation of the house: gathered, compared, recorded, its breaks aged. One transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.ids import derive_id
from kernel.leases import wait_for
from ledger.queries import head
from reporting.recon import store
from reporting.recon.breaks import SYSTEM, record_breaks
from reporting.recon.comparing import age, digest, find_breaks
from reporting.recon.gathering import gather
from reporting.recon.model import Run

LIST_MAX: Final = store.PAGE_MAX

DAILY_AT: Final = time(6)
"""Chains and venues are read in the night, and banks have sent their statements by then."""

get_run = store.get_run
find_run = store.find_run


async def reconcile_house(
    conn: AsyncConnection, book: int, *, by: str = SYSTEM, slot: date | None = None, now: datetime
) -> Run:
    """Compare everything that the house holds with what the outside has said of it, and record it.

    Args:
        conn: the caller's transaction; it reads one moment of the books.
        book: of the legal entity.
        by: operator code, or the system's.
        slot: the day whose daily run it is; a day has one, and a second one returns the first.
        now: the instant.
    """
    # Whoever comes second waits here, and reads what the first has written; no break need stand.
    await wait_for(conn, f"reconciliation:{book}")
    standing = await store.lock_standing(conn, book)
    if slot is not None and (known := await store.find_slot(conn, book, slot)) is not None:
        return await store.get_run(conn, known)
    sequence = (await head(conn, book)).sequence
    lines, items = await gather(conn, book)
    found = find_breaks(lines, items, now)
    run = Run(
        id=derive_id(now, "recon-run", book, None if slot is None else slot.isoformat()),
        book=book,
        at=now,
        slot=slot,
        sequence=sequence,
        lines=tuple(lines),
        found=tuple(found),
        sha256=digest(lines, found),
    )
    if not await store.insert_run(conn, run, by=by):
        known = run.id if slot is None else await store.find_slot(conn, book, slot)
        return run if known is None else await store.get_run(conn, known)
    aged = age(standing, found, book=book, run_id=run.id, now=now)
    written = await store.insert_breaks(conn, aged.new, run.id)
    await store.write_breaks(conn, [*aged.seen_again, *aged.reopened, *aged.cleared])
    changed = [(item, "BreakFound") for item in aged.new if item.id in written]
    changed += [(item, "BreakReopened") for item in aged.reopened]
    changed += [(item, "BreakCleared") for item in aged.cleared]
    await record_breaks(conn, changed, by=SYSTEM, reason=f"reconciliation {run.id}", now=now)
    return run


async def reconcile_daily(conn: AsyncConnection, book: int, *, now: datetime) -> Run | None:
    """Make the run of this UTC day after `DAILY_AT`, once, by whoever comes first; None: nothing to do."""
    at = now.astimezone(UTC)
    day = at.date()
    if at.time() < DAILY_AT or await store.find_slot(conn, book, day) is not None:
        return None
    return await reconcile_house(conn, book, slot=day, now=now)


async def list_runs(
    conn: AsyncConnection,
    book: int,
    *,
    after: tuple[datetime, UUID] | None = None,
    limit: int = LIST_MAX,
) -> Sequence[Run]:
    """Return runs, the newest first; *after* is (at, id) of the last one seen."""
    return await store.list_runs(conn, book, after=after, limit=limit)


async def verify_run(conn: AsyncConnection, run_id: UUID) -> bool:
    """Tell whether a run's figures are still those that its hash was made of, found anew from them."""
    run = await store.get_run(conn, run_id)
    return digest(run.lines, run.found) == run.sha256
