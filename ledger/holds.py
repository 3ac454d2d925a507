"""Open holds, now and a while ago; and a balance with the holds behind its pending columns."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from ledger.errors import BookNotOpen
from ledger.model import OpenHold
from ledger.points import AT, Point, account_by_number, fill, to_balance
from ledger.store import run
from ledger.views import PAGE_MAX, HoldPage, Position

HOLD_LOOKBACK_MAX: Final = 100_000
"""Records behind the head at which open holds can still be listed."""


async def get_position(
    conn: AsyncConnection,
    book: int,
    path: str,
    asset: str,
    *,
    at_sequence: int | None = None,
    limit: int = PAGE_MAX,
) -> Position:
    """Return an account's balance and its open holds, both at one sequence number.

    Args:
        at_sequence: as of then, None is now; at most `HOLD_LOOKBACK_MAX` entries of the account may
            have followed it.
        limit: holds at most, oldest first.

    Raises:
        BookNotOpen: there is no such account.
        BadInput: *at_sequence* lies too far back.
    """
    point = Point(at_sequence)
    limit = max(1, min(limit, PAGE_MAX))
    arguments = (book, *point.arguments, path, asset, limit + 1, HOLD_LOOKBACK_MAX)
    rows = await run(conn, _POSITION, *arguments)
    if not rows:
        raise BookNotOpen(f"book {book} has no account {path} {asset}")
    _require_recent(rows[0].followed)
    holds = tuple(_open_hold(row) for row in rows if row.id is not None)
    return Position(
        balance=to_balance(rows[0]),
        holds=holds[:limit],
        after=holds[limit - 1].sequence if len(holds) > limit else None,
    )


# What is open now and was there then, and what has been resolved since; each by an index.
_OPEN_NOW: Final = """
    SELECT h.* FROM ledger.hold h
     WHERE h.book = $1 AND h.state = 'open' AND h.sequence <= p.known AND h.sequence > <after>
"""

_RESOLVED_SINCE: Final = """
    SELECT h.* FROM since s
      JOIN LATERAL (
          SELECT t.pending_id FROM ledger.transfer t
           WHERE t.book = $1 AND t.sequence = s.sequence LIMIT 1
      ) t ON true
      JOIN LATERAL (
          SELECT * FROM ledger.hold h WHERE h.book = $1 AND h.id = t.pending_id LIMIT 1
      ) h ON h.sequence <= p.known AND h.sequence > <after>
"""

_HOLDS_AMONG: Final = fill(
    """
      SELECT h.id, d.path AS debit, c.path AS credit, d.asset, h.amount::text AS amount,
             h.purpose, h.correlation, h.expires_at, h.sequence AS hold_sequence
        FROM (<among>) h
        JOIN LATERAL (<debit>) d ON true
        JOIN LATERAL (<credit>) c ON true
""",
    debit=account_by_number("h.debit"),
    credit=account_by_number("h.credit"),
)

_POSITION: Final = fill(
    """
<point>
, account AS MATERIALIZED (
    SELECT a.*, p.known, <four_columns>
      FROM point p JOIN ledger.account a ON a.book + 0 = $1 AND a.path = $5 AND a.asset = $6
      <columns_at>
), since AS MATERIALIZED (
    SELECT e.sequence FROM ledger.entry e
     WHERE e.book = $1 AND e.account = (SELECT number FROM account)
       AND e.sequence > (SELECT known FROM account)
     LIMIT $8 + 1
)
SELECT a.side, a.known AS sequence, a.debits_pending, a.debits_posted, a.credits_pending,
       a.credits_posted, (SELECT count(*) FROM since) > $8 AS followed, h.*
  FROM account a CROSS JOIN point p LEFT JOIN LATERAL (
      <holds> ORDER BY h.sequence LIMIT $7
  ) h ON true
 ORDER BY h.hold_sequence
""",
    holds=_HOLDS_AMONG,
    among="""
            (<open_now> AND h.debit = a.number ORDER BY h.sequence LIMIT $7)
            UNION ALL (<open_now> AND h.credit = a.number ORDER BY h.sequence LIMIT $7)
            UNION ALL <resolved_since>""",
    open_now=_OPEN_NOW,
    resolved_since=_RESOLVED_SINCE,
    after="0",
    **AT,
)


async def page_open_holds(
    conn: AsyncConnection,
    book: int,
    *,
    path: str | None = None,
    at_sequence: int | None = None,
    after: int = 0,
    limit: int = PAGE_MAX,
) -> HoldPage:
    """Return holds open now or at a sequence number, oldest first.

    Args:
        path: only those that debit or credit it.
        at_sequence: as of then, None is now; at most `HOLD_LOOKBACK_MAX` records may have followed.
        after: cursor of the page before this one.

    Raises:
        BadInput: *at_sequence* lies too far back.
    """
    point = Point(at_sequence)
    limit = max(1, min(limit, PAGE_MAX))
    statement = _HOLDS if path is None else _HOLDS_OF
    arguments: list[Any] = [book, *point.arguments, after, limit + 1, HOLD_LOOKBACK_MAX]
    rows = await run(conn, statement, *arguments, *([] if path is None else [path]))
    _require_recent(any(row.followed for row in rows))
    holds = tuple(_open_hold(row) for row in rows if row.id is not None)
    return HoldPage(
        items=holds[:limit],
        sequence=rows[0].sequence if rows else 0,
        after=holds[limit - 1].sequence if len(holds) > limit else None,
    )


_HOLD_PAGE: Final = fill(
    """
<point>
, since AS MATERIALIZED (
    SELECT t.sequence FROM ledger.transfer t
     WHERE t.book = $1 AND t.sequence > (SELECT known FROM point)
     ORDER BY t.sequence LIMIT $7 + 1
)
SELECT p.known AS sequence, (SELECT count(*) FROM since) > $7 AS followed, h.*
  FROM point p LEFT JOIN LATERAL (
      <holds> <where> ORDER BY h.sequence LIMIT $6
  ) h ON true
 ORDER BY h.hold_sequence
""",
    holds=_HOLDS_AMONG,
    **AT,
)

_HOLDS: Final = fill(
    _HOLD_PAGE,
    among="(<open_now> ORDER BY h.sequence LIMIT $6) UNION ALL <resolved_since>",
    open_now=_OPEN_NOW,
    resolved_since=_RESOLVED_SINCE,
    after="$5::bigint",
    where="",
)

# Of one path there is an account for each asset: a handful.
_HOLDS_OF: Final = fill(
    _HOLD_PAGE,
    among="""
            SELECT h.* FROM ledger.account a CROSS JOIN LATERAL (
                (<open_now> AND h.debit = a.number ORDER BY h.sequence LIMIT $6)
                UNION ALL (<open_now> AND h.credit = a.number ORDER BY h.sequence LIMIT $6)
            ) h WHERE a.book + 0 = $1 AND a.path = $8
            UNION ALL <resolved_since>""",
    open_now=_OPEN_NOW,
    resolved_since=_RESOLVED_SINCE,
    after="$5::bigint",
    where="WHERE d.path = $8 OR c.path = $8",
)


def _require_recent(followed: bool) -> None:  # noqa: FBT001  a column of the answer
    if followed:
        raise BadInput(
            f"more than {HOLD_LOOKBACK_MAX} records have followed: its open holds are not listed",
            remedy="Ask for a later sequence number, or read the transfers",
        )


def _open_hold(row: Row[Any]) -> OpenHold:
    return OpenHold(
        id=row.id,
        debit=row.debit,
        credit=row.credit,
        asset=row.asset,
        amount=int(row.amount),
        purpose=row.purpose,
        correlation=row.correlation,
        expires_at=row.expires_at,
        sequence=row.hold_sequence,
    )
