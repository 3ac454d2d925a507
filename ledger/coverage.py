"""Client money: what is held for clients covers what is owed to them, asset by asset.

Holdings count where the account's owner class is ``client`` or ``client:<id>``: wallets, venue,
bank and transit accounts, as posted. Liabilities are the clients' own accounts, as posted. Coins that arrived
but are credited to nobody yet are pending on both sides and count on neither.

`coverage` is the state at one point; `page_coverage` is its history, block by block: a chain inside
one block never leaves clients short in between, so it is the blocks' ends that count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from ledger.arrays import texts
from ledger.points import AT, Point, account_by_number, fill
from ledger.store import run

WINDOW: Final = 100_000
"""Records that one page of the history reads, and those of the block in which it ends."""

IS_OWED: Final = "starts_with(a.path, 'client:')"
"""Account ``a`` is what a client is owed (rule 6 of the account book), in SQL."""

IS_HELD: Final = """((a.owner = 'client' OR starts_with(a.owner, 'client:'))
    AND (starts_with(a.path, 'custody:') OR starts_with(a.path, 'venue:')
         OR starts_with(a.path, 'bank:') OR starts_with(a.path, 'transit:')))"""
"""Account ``a`` holds what covers it, in SQL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """One asset: holdings of owner class client, and what is owed to clients, in smallest units."""

    asset: str
    holdings: int
    liabilities: int

    @property
    def shortfall(self) -> int:
        """Return what is missing, 0 where clients are covered."""
        return max(0, self.liabilities - self.holdings)

    @property
    def covered(self) -> bool:
        """Tell whether the holdings are enough."""
        return self.holdings >= self.liabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageChange:
    """The coverage of an asset at the end of a block that moved it."""

    height: int
    sequence: int
    recorded_at: datetime
    coverage: Coverage


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveragePage:
    """Changes in the order of the blocks; *after*: height at which the next page begins, or None."""

    items: tuple[CoverageChange, ...]
    after: int | None


async def coverage(
    conn: AsyncConnection,
    book: int,
    *,
    at_sequence: int | None = None,
    at_time: datetime | None = None,
    at_block: int | None = None,
) -> list[Coverage]:
    """Return the coverage of every asset that clients hold: now, or at a sequence, time or block.

    Raises:
        BadInput: more than one point, or no such block.
    """
    if at_block is not None:
        if at_sequence is not None or at_time is not None:
            raise BadInput("ask for the coverage at a block, a sequence number or a time, only one")
        at_sequence = await _end_of_block(conn, book, at_block)
    rows = await run(conn, _COVERAGE, book, *Point(at_sequence, at_time).arguments)
    return [
        Coverage(asset=row.asset, holdings=int(row.holdings), liabilities=int(row.liabilities))
        for row in rows
        if row.asset is not None
    ]


async def _end_of_block(conn: AsyncConnection, book: int, height: int) -> int:
    if height == 0:
        return 0
    rows = await run(
        conn, "SELECT last_sequence FROM ledger.block WHERE book = $1 AND height = $2", book, height
    )
    if not rows:
        raise BadInput(f"book {book} has no block {height}")
    return int(rows[0].last_sequence)


_COVERAGE: Final = fill(
    """
<point>
SELECT found.* FROM point p LEFT JOIN LATERAL (
    SELECT a.asset,
           coalesce(sum(<debits> - <credits>) FILTER (WHERE <is_held>), 0)::text AS holdings,
           coalesce(sum(<credits> - <debits>) FILTER (WHERE <is_owed>), 0)::text AS liabilities
      FROM ledger.account a
      <columns_at> <opened>
     WHERE a.book = $1 AND (<is_owed> OR <is_held>) AND <was_open>
     GROUP BY a.asset
) found ON true
 ORDER BY found.asset
""",
    is_owed=IS_OWED,
    is_held=IS_HELD,
    **AT,
)


async def page_coverage(
    conn: AsyncConnection,
    book: int,
    *,
    asset: str | None = None,
    after: int = 0,
    known: Mapping[str, Coverage] | None = None,
) -> CoveragePage:
    """Return how the coverage changed, block by block, behind block *after*.

    One call reads at most `WINDOW` records and one block: a page may be empty and still lead on.

    Args:
        asset: only this one.
        after: cursor of the page before this one: a height.
        known: coverage by asset at the end of block *after*, of a caller who has kept it; else every
            account of clients is asked for it.

    Raises:
        BadInput: there is no block *after*.
    """
    start = await _end_of_block(conn, book, after)
    if known is None:
        known = {item.asset: item for item in await coverage(conn, book, at_sequence=start)}
    held = dict(known)
    rows = await run(conn, _CHANGES, book, start, WINDOW, asset)
    if not rows:
        return CoveragePage(items=(), after=None)
    items: list[CoverageChange] = []
    for row in rows:
        if row.asset is not None:
            before = held.get(row.asset, Coverage(asset=row.asset, holdings=0, liabilities=0))
            held[row.asset] = _moved(before, row)
            items.append(_change(row, held[row.asset]))
    first = rows[0]
    return CoveragePage(
        items=tuple(items), after=first.end_height if first.end_height < first.last_height else None
    )


def _moved(before: Coverage, row: Row[Any]) -> Coverage:
    return Coverage(
        asset=before.asset,
        holdings=before.holdings + int(row.holdings),
        liabilities=before.liabilities + int(row.liabilities),
    )


def _change(row: Row[Any], found: Coverage) -> CoverageChange:
    return CoverageChange(
        height=row.height,
        sequence=row.last_sequence,
        recorded_at=row.recorded_at.astimezone(UTC),
        coverage=found,
    )


# Only singles, posts and reversals (kinds 1, 3 and 6) move posted money.
_CHANGES: Final = fill(
    """
WITH ends AS MATERIALIZED (
    SELECT b.height AS end_height, b.last_sequence AS high, h.height AS last_height
      FROM ledger.head h JOIN LATERAL (
          (SELECT * FROM ledger.block
            WHERE book = $1 AND last_sequence >= $2::bigint + $3::bigint
            ORDER BY last_sequence LIMIT 1)
          UNION ALL
          (SELECT * FROM ledger.block
            WHERE book = $1 AND last_sequence > $2 ORDER BY last_sequence DESC LIMIT 1)
          LIMIT 1
      ) b ON true
     WHERE h.book = $1
), moved AS MATERIALIZED (
    SELECT b.height, x.asset, sum(x.holdings) AS holdings, sum(x.liabilities) AS liabilities
      FROM ends CROSS JOIN LATERAL (
          SELECT t.* FROM ledger.transfer t
           WHERE t.book = $1 AND t.sequence > $2 AND t.sequence <= ends.high
             AND t.kind IN (1, 3, 6)
      ) t
      JOIN LATERAL (
          SELECT height FROM ledger.block
           WHERE book = $1 AND last_sequence >= t.sequence ORDER BY last_sequence LIMIT 1
      ) b ON true
      CROSS JOIN LATERAL (VALUES (t.debit, t.amount), (t.credit, -t.amount)) AS s (account, net)
      JOIN LATERAL (
          SELECT a.asset, CASE WHEN <is_owed> THEN 0 ELSE s.net END AS holdings,
                 CASE WHEN <is_owed> THEN -s.net ELSE 0 END AS liabilities
            FROM (<account>) a
           WHERE (<is_owed> OR <is_held>) AND ($4::text IS NULL OR a.asset = $4)
      ) x ON true
     GROUP BY b.height, x.asset
)
SELECT ends.end_height, ends.last_height, m.height, m.asset, m.holdings::text,
       m.liabilities::text, b.last_sequence, b.recorded_at
  FROM ends LEFT JOIN moved m ON m.holdings <> 0 OR m.liabilities <> 0
  LEFT JOIN LATERAL (
      SELECT * FROM ledger.block WHERE book = $1 AND height = m.height LIMIT 1
  ) b ON true
 ORDER BY m.height, m.asset
""",
    account=account_by_number("s.account"),
    is_owed=IS_OWED,
    is_held=IS_HELD,
)


async def count_payable_cover(
    conn: AsyncConnection, book: int, assets: Collection[str]
) -> dict[str, int]:
    """Return by how much what wallets hold for clients exceeds what clients are owed, by asset.

    Unlike `coverage` it looks at what payouts may spend: wallets only, no venue and no bank. What is
    signed and not final counts as owed until the chain calls it final, and its coins as held.

    Returns:
        Smallest units by asset, for each of *assets*; negative where clients are short.
    """
    rows = await run(conn, _PAYABLE_COVER, book, texts(sorted(set(assets))))
    return {row.asset: int(row.spare) for row in rows}


# Four ranges of the index on paths. Credit-normal accounts (claims, payouts in flight) come out
# negative by themselves: a debit is plus everywhere.
_PAYABLE_COVER: Final = """
SELECT asked.asset, coalesce(sum(b.debits_posted - b.credits_posted), 0)::text AS spare
  FROM unnest($2::text::text[]) AS asked (asset)
  LEFT JOIN LATERAL (
      SELECT number FROM ledger.account
       WHERE path >= 'client:' AND path < 'client;' AND asset = asked.asset AND book + 0 = $1
      UNION ALL
      SELECT number FROM ledger.account
       WHERE path >= 'custody:' AND path < 'custody;' AND asset = asked.asset AND book + 0 = $1
         AND owner <> 'house'
      UNION ALL
      SELECT number FROM ledger.account
       WHERE path >= 'in-flight:' AND path < 'in-flight;' AND asset = asked.asset AND book + 0 = $1
      UNION ALL
      SELECT number FROM ledger.account
       WHERE path >= 'transit:out:' AND path < 'transit:out;' AND asset = asked.asset
         AND book + 0 = $1
  ) a ON true
  LEFT JOIN LATERAL (
      SELECT debits_posted, credits_posted FROM ledger.balance
       WHERE book = $1 AND account = a.number LIMIT 1
  ) b ON true
 GROUP BY asked.asset
"""
