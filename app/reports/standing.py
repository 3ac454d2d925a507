"""How a book stands at a month's end: its books, its prices, and what reconciliation says."""

from __future__ import annotations

from datetime import UTC, date, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.points import Point
from ledger.queries import head, trial_balance
from ledger.trial import sum_trial_balance
from marketdata.errors import SnapshotRefused
from marketdata.price_snapshots import month_end, verify_snapshot
from reporting.month_end.model import OpenBreak, Standing
from reporting.positions import positions_of
from reporting.recon.breaks import list_breaks
from reporting.recon.runs import list_runs


async def read_standing(conn: AsyncConnection, book: int, month: date) -> Standing:
    """Return how a book stands for the end of *month* (its first day).

    Raises:
        BookNotOpen: there is no such book.
    """
    as_of = month_end(month)
    last = as_of.date() - timedelta(days=1)
    rows = await trial_balance(conn, book, effective_on=last)
    totals = await sum_trial_balance(conn, book, Point(effective_on=last))
    runs = await list_runs(conn, book, limit=1)
    return Standing(
        last=last,
        closed_through=(await head(conn, book)).closed_through,
        unbalanced=tuple(item.asset for item in totals if item.debits != item.credits),
        untied=tuple(item.asset for item in positions_of(rows) if not item.is_tied),
        snapshot_faults=await _faults(conn, month),
        is_reconciled=bool(runs) and runs[0].at >= as_of,
        breaks=await list_open_breaks(conn, book),
    )


async def list_open_breaks(conn: AsyncConnection, book: int) -> tuple[OpenBreak, ...]:
    """Return every break that nobody has resolved, on chains, at venues and in banks, the oldest first."""
    found: list[OpenBreak] = []
    page = await list_breaks(conn, book)
    while page:
        found += [
            OpenBreak(
                id=item.id,
                place=f"{item.found.place_kind}:{item.found.place}",
                what=f"{item.found.kind} in {item.found.asset or 'its statements'}: {item.found.text}",
                amount=item.found.amount,
                since=item.opened_at.astimezone(UTC).date(),
            )
            for item in page
        ]
        page = await list_breaks(conn, book, after=(page[-1].opened_at, page[-1].id))
    return tuple(found)


async def _faults(conn: AsyncConnection, month: date) -> tuple[str, ...] | None:
    try:
        return tuple(await verify_snapshot(conn, month))
    except SnapshotRefused:
        return None
