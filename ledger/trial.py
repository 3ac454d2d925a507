"""The trial balance by pages, and its totals per asset: zero at any sequence, time and date."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.model import Side, TrialBalanceRow
from ledger.points import AT, Point, fill
from ledger.store import run
from ledger.views import PAGE_MAX, AssetTotals, TrialBalancePage

NOW: Final = Point()


async def page_trial_balance(
    conn: AsyncConnection,
    book: int,
    point: Point = NOW,
    *,
    after: tuple[str, str] | None = None,
    limit: int = PAGE_MAX,
) -> TrialBalancePage:
    """Return accounts with their totals at *point*, by path and asset.

    Args:
        point: of the pages behind the first, ``point.pinned(page.sequence)``: together they are
            then true at one instant.
        after: cursor of the page before this one.
    """
    limit = max(1, min(limit, PAGE_MAX))
    rows = await run(conn, _PAGE, book, *point.arguments, *(after or ("", "")), limit + 1)
    items = tuple(_trial_balance_row(row) for row in rows if row.path is not None)
    is_more = len(items) > limit
    items = items[:limit]
    return TrialBalancePage(
        items=items,
        sequence=rows[0].sequence if rows else 0,
        after=(items[-1].path, items[-1].asset) if is_more else None,
    )


_PAGE: Final = fill(
    """
<point>
SELECT p.known AS sequence, found.*
  FROM point p LEFT JOIN LATERAL (
      SELECT a.path, a.asset, a.side, a.owner, <four_columns>
        FROM ledger.account a
        <columns_at> <opened>
       WHERE a.book = $1 AND (a.path, a.asset) > ($5, $6) AND <was_open>
       ORDER BY a.path, a.asset LIMIT $7
  ) found ON true
 ORDER BY found.path, found.asset
""",
    **AT,
)


def _trial_balance_row(row: Row[Any]) -> TrialBalanceRow:
    return TrialBalanceRow(
        path=row.path,
        asset=row.asset,
        side=Side(row.side),
        owner=row.owner,
        debits=int(row.debits_posted),
        credits=int(row.credits_posted),
        debits_pending=int(row.debits_pending),
        credits_pending=int(row.credits_pending),
    )


async def sum_trial_balance(
    conn: AsyncConnection, book: int, point: Point = NOW
) -> list[AssetTotals]:
    """Return what the trial balance at *point* sums to, by asset, whatever its length."""
    rows = await run(conn, _TOTALS, book, *point.arguments)
    return [
        AssetTotals(
            asset=row.asset,
            accounts=row.accounts,
            debits=int(row.debits),
            credits=int(row.credits),
            debits_pending=int(row.debits_pending),
            credits_pending=int(row.credits_pending),
        )
        for row in rows
    ]


_TOTALS: Final = fill(
    """
<point>
SELECT a.asset, count(*) AS accounts, sum(<debits>)::text AS debits, sum(<credits>)::text AS credits,
       sum(<debits_pending>)::text AS debits_pending,
       sum(<credits_pending>)::text AS credits_pending
  FROM point p CROSS JOIN ledger.account a
  <columns_at> <opened>
 WHERE a.book = $1 AND <was_open>
 GROUP BY a.asset ORDER BY a.asset
""",
    **AT,
)
