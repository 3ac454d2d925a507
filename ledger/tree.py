"""The account tree: subtotals for every segment of a path, at any time."""

from __future__ import annotations

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from ledger.model import Side
from ledger.points import AT, LAST_TEXT, Point, fill
from ledger.store import run
from ledger.views import TreeNode

NOW: Final = Point()
DEPTH_MAX: Final = 16
NODES_MAX: Final = 10_000
"""Nodes of one tree, at most."""


async def account_tree(
    conn: AsyncConnection,
    book: int,
    prefix: str = "",
    point: Point = NOW,
    *,
    depth: int = DEPTH_MAX,
) -> list[TreeNode]:
    """Return the paths at and below *prefix* with what lies at or below each, by asset.

    A node stands before what is below it, and the nodes of one path by asset.

    Args:
        prefix: whole segments: ``client`` or ``client:acme``; empty: the whole book.
        depth: segments of the longest path that gets a node of its own.

    Raises:
        BadInput: more than `NODES_MAX` nodes; ask for less.
    """
    prefix = prefix.rstrip(":")
    top = prefix.count(":") + 1 if prefix else 1
    rows = await run(
        conn,
        _TREE,
        book,
        *point.arguments,
        prefix,
        prefix + ":",
        (prefix + ":" if prefix else "") + LAST_TEXT,
        top,
        max(top, min(depth, DEPTH_MAX)),
        NODES_MAX + 1,
    )
    if len(rows) > NODES_MAX:
        raise BadInput(
            f"the tree has more than {NODES_MAX} nodes", remedy="Ask for less depth, or a path"
        )
    return [
        TreeNode(
            path=row.path,
            asset=row.asset,
            depth=row.depth,
            accounts=row.accounts,
            side=Side(row.side) if row.sides == 1 else None,
            debits=int(row.debits),
            credits=int(row.credits),
            debits_pending=int(row.debits_pending),
            credits_pending=int(row.credits_pending),
        )
        for row in rows
        if row.path is not None
    ]


# Sorted by segments, not by letters: "a:b" stands below "a" and before "a-c".
_TREE: Final = fill(
    """
<point>
SELECT node.* FROM point p LEFT JOIN LATERAL (
    SELECT s.parts, array_to_string(s.parts, ':') AS path, s.asset, cardinality(s.parts) AS depth,
           count(*) AS accounts, min(s.side) AS side, count(DISTINCT s.side) AS sides,
           sum(s.debits)::text AS debits, sum(s.credits)::text AS credits,
           sum(s.debits_pending)::text AS debits_pending,
           sum(s.credits_pending)::text AS credits_pending
      FROM (
          SELECT (string_to_array(a.path, ':'))[1:n.depth] AS parts, a.asset, a.side,
                 <debits> AS debits, <credits> AS credits,
                 <debits_pending> AS debits_pending, <credits_pending> AS credits_pending
            FROM ledger.account a
            <columns_at> <opened>
            CROSS JOIN LATERAL generate_series(
                $8::integer, least($9::integer, cardinality(string_to_array(a.path, ':')))
            ) AS n (depth)
           WHERE a.book = $1 AND a.path >= $5 AND a.path < $7
             AND ($5 = '' OR a.path = $5 OR starts_with(a.path, $6)) AND <was_open>
      ) s
     GROUP BY s.parts, s.asset
     ORDER BY s.parts, s.asset LIMIT $10
) node ON true
 ORDER BY node.parts, node.asset
""",
    **AT,
)
