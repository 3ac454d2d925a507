"""Reads: balances at any time, holds, trial balance, statements, transfers.

Each query is one statement, so what it returns is true at one instant; balances say at which
sequence. A recorded time is turned into a sequence through the block table; a balance at a
sequence is the account's last entry up to it, one index look-up.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from ledger import merkle
from ledger.errors import BookNotOpen
from ledger.model import (
    Account,
    AccountSpec,
    Balance,
    Head,
    JournalTransfer,
    Kind,
    OpenHold,
    Side,
    Statement,
    StatementLine,
    TrialBalanceRow,
)
from ledger.store import run

PAGE_MAX: Final = 1_000
STATEMENT_LINES_MAX: Final = 100_000

_COLUMNS = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")


async def head(conn: AsyncConnection, book: int) -> Head:
    """Return where the book stands."""
    rows = await run(conn, "SELECT * FROM ledger.head WHERE book = $1", book)
    if not rows:
        raise BookNotOpen(f"there is no book {book}", remedy="Open it with open_book")
    row = rows[0]
    return Head(
        book=book,
        entity=row.entity,
        sequence=row.sequence,
        height=row.height,
        block_time=row.block_time.astimezone(UTC),
        account_count=row.account_count,
        root=merkle.frontier_root(merkle.unpack(row.frontier)),
    )


async def sequence_at(conn: AsyncConnection, book: int, at: datetime) -> int:
    """Return the last sequence number recorded at or before *at*; 0 before the first."""
    rows = await run(
        conn,
        "SELECT last_sequence FROM ledger.block WHERE book = $1 AND recorded_at <= $2"
        " ORDER BY recorded_at DESC, last_sequence DESC LIMIT 1",
        book,
        at,
    )
    return int(rows[0][0]) if rows else 0


async def get_balance(
    conn: AsyncConnection,
    book: int,
    path: str,
    asset: str,
    *,
    at_sequence: int | None = None,
    at_time: datetime | None = None,
) -> Balance:
    """Return an account's four columns: now, or as of a sequence number or a recorded time.

    Raises:
        BookNotOpen: there is no such account.
    """
    at_sequence = await _as_of(conn, book, at_sequence, at_time)
    if at_sequence is None:
        rows = await run(conn, _BALANCE_NOW, book, path, asset)
    else:
        rows = await run(conn, _BALANCE_AT, book, path, asset, at_sequence)
    if not rows:
        raise BookNotOpen(f"book {book} has no account {path} {asset}")
    return _balance(rows[0])


_BALANCE_NOW = """
SELECT a.side, b.debits_pending::text, b.debits_posted::text, b.credits_pending::text,
       b.credits_posted::text, h.sequence
  FROM ledger.account a
  JOIN ledger.balance b ON b.book = a.book AND b.account = a.number
  JOIN ledger.head h ON h.book = a.book
 WHERE a.book = $1 AND a.path = $2 AND a.asset = $3
"""

_BALANCE_AT = """
SELECT a.side, coalesce(e.debits_pending, 0)::text AS debits_pending,
       coalesce(e.debits_posted, 0)::text AS debits_posted,
       coalesce(e.credits_pending, 0)::text AS credits_pending,
       coalesce(e.credits_posted, 0)::text AS credits_posted, least($4, h.sequence) AS sequence
  FROM ledger.account a
  JOIN ledger.head h ON h.book = a.book
  LEFT JOIN LATERAL (
      SELECT * FROM ledger.entry
       WHERE book = a.book AND account = a.number AND sequence <= $4
       ORDER BY sequence DESC LIMIT 1
  ) e ON true
 WHERE a.book = $1 AND a.path = $2 AND a.asset = $3
"""


async def _as_of(
    conn: AsyncConnection, book: int, at_sequence: int | None, at_time: datetime | None
) -> int | None:
    if at_sequence is not None and at_time is not None:
        raise BadInput("ask for a balance at a sequence number or at a time, not both")
    return at_sequence if at_time is None else await sequence_at(conn, book, at_time)


def _balance(row: Row[Any]) -> Balance:
    columns = {name: int(getattr(row, name)) for name in _COLUMNS}
    return Balance(side=Side(row.side), sequence=row.sequence, **columns)


async def list_accounts(conn: AsyncConnection, book: int, prefix: str = "") -> list[Account]:
    """Return the accounts whose path is *prefix* or lies below it, ordered by path and asset."""
    rows = await run(
        conn,
        """
        SELECT a.*, b.debits_pending::text, b.debits_posted::text, b.credits_pending::text,
               b.credits_posted::text, b.frozen, b.closed, h.sequence
          FROM ledger.account a
          JOIN ledger.balance b ON b.book = a.book AND b.account = a.number
          JOIN ledger.head h ON h.book = a.book
         WHERE a.book = $1 AND starts_with(a.path, $2)
         ORDER BY a.path, a.asset
        """,
        book,
        prefix,
    )
    return [
        Account(
            number=row.number,
            spec=_spec(row),
            balance=_balance(row),
            frozen=row.frozen,
            closed=row.closed,
        )
        for row in rows
    ]


def _spec(row: Row[Any]) -> AccountSpec:
    return AccountSpec(
        path=row.path,
        asset=row.asset,
        side=Side(row.side),
        owner=row.owner,
        debits_must_not_exceed_credits=row.debits_must_not_exceed_credits,
        credits_must_not_exceed_debits=row.credits_must_not_exceed_debits,
    )


async def list_open_holds(
    conn: AsyncConnection, book: int, *, path: str | None = None
) -> list[OpenHold]:
    """Return the open holds, oldest first; *path*: only those that debit or credit it."""
    rows = await run(
        conn,
        """
        SELECT h.id, d.path AS debit, c.path AS credit, d.asset, h.amount::text AS amount,
               h.purpose, h.correlation, h.expires_at, h.sequence
          FROM ledger.hold h
          JOIN ledger.account d ON d.book = h.book AND d.number = h.debit
          JOIN ledger.account c ON c.book = h.book AND c.number = h.credit
         WHERE h.book = $1 AND h.state = 'open'
           AND ($2::text IS NULL OR d.path = $2 OR c.path = $2)
         ORDER BY h.sequence
        """,
        book,
        path,
    )
    return [
        OpenHold(
            id=row.id,
            debit=row.debit,
            credit=row.credit,
            asset=row.asset,
            amount=int(row.amount),
            purpose=row.purpose,
            correlation=row.correlation,
            expires_at=row.expires_at,
            sequence=row.sequence,
        )
        for row in rows
    ]


async def trial_balance(
    conn: AsyncConnection,
    book: int,
    *,
    at_sequence: int | None = None,
    at_time: datetime | None = None,
) -> list[TrialBalanceRow]:
    """Return every account with its totals, now or as of then, ordered by asset and path."""
    at_sequence = await _as_of(conn, book, at_sequence, at_time)
    rows = await run(
        conn,
        """
        SELECT a.path, a.asset, a.side, a.owner,
               coalesce(e.debits_pending, 0)::text AS debits_pending,
               coalesce(e.debits_posted, 0)::text AS debits_posted,
               coalesce(e.credits_pending, 0)::text AS credits_pending,
               coalesce(e.credits_posted, 0)::text AS credits_posted
          FROM ledger.account a LEFT JOIN LATERAL (
              SELECT * FROM ledger.entry
               WHERE book = a.book AND account = a.number
                 AND ($2::bigint IS NULL OR sequence <= $2)
               ORDER BY sequence DESC LIMIT 1
          ) e ON true
         WHERE a.book = $1
           AND ($2::bigint IS NULL OR EXISTS (
               SELECT FROM ledger.account_event v
                WHERE v.book = a.book AND v.account = a.number AND v.sequence <= $2))
         ORDER BY a.asset, a.path
        """,
        book,
        at_sequence,
    )
    return [
        TrialBalanceRow(
            path=row.path,
            asset=row.asset,
            side=Side(row.side),
            owner=row.owner,
            debits=int(row.debits_posted),
            credits=int(row.credits_posted),
            debits_pending=int(row.debits_pending),
            credits_pending=int(row.credits_pending),
        )
        for row in rows
    ]


async def list_transfers(
    conn: AsyncConnection,
    book: int,
    *,
    correlation: UUID | None = None,
    path: str | None = None,
    code: str | None = None,
    after: int = 0,
    limit: int = PAGE_MAX,
) -> list[JournalTransfer]:
    """Return transfers in the journal's order, those after sequence *after*, at most *limit*."""
    rows = await run(
        conn,
        """
        SELECT t.sequence, t.id, t.kind, d.path AS debit, c.path AS credit, d.asset,
               t.amount::text AS amount, t.code, t.pending_id, t.reverses, t.purpose, t.reference,
               t.correlation, t.effective_at, t.recorded_at, coalesce(m.data::text, '{}') AS data
          FROM ledger.transfer t
          JOIN ledger.account d ON d.book = t.book AND d.number = t.debit
          JOIN ledger.account c ON c.book = t.book AND c.number = t.credit
          LEFT JOIN ledger.transfer_metadata m ON m.book = t.book AND m.sequence = t.sequence
         WHERE t.book = $1 AND t.sequence > $2
           AND ($3::uuid IS NULL OR t.correlation = $3)
           AND ($4::text IS NULL OR t.code = $4)
           AND ($5::text IS NULL OR d.path = $5 OR c.path = $5)
         ORDER BY t.sequence LIMIT $6
        """,
        book,
        after,
        correlation,
        code,
        path,
        min(limit, PAGE_MAX),
    )
    return [_journal_transfer(row) for row in rows]


def _journal_transfer(row: Row[Any]) -> JournalTransfer:
    return JournalTransfer(
        sequence=row.sequence,
        id=row.id,
        kind=Kind(row.kind),
        debit=row.debit,
        credit=row.credit,
        asset=row.asset,
        amount=int(row.amount),
        code=row.code,
        pending_id=row.pending_id,
        reverses=row.reverses,
        purpose=row.purpose,
        reference=row.reference,
        correlation=row.correlation,
        effective_at=row.effective_at,
        recorded_at=row.recorded_at.astimezone(UTC),
        metadata=json.loads(row.data),
    )


async def statement(
    conn: AsyncConnection, book: int, path: str, asset: str, start: datetime, end: datetime
) -> Statement:
    """Return what moved on an account from *start* (inclusive) to *end* (exclusive), as recorded.

    Holds appear as lines without a change; *held* is what was reserved to leave after the line.

    Raises:
        BookNotOpen: there is no such account.
        BadInput: more than `STATEMENT_LINES_MAX` lines; ask for a shorter time.
    """
    opening = await get_balance(conn, book, path, asset, at_time=start - timedelta(microseconds=1))
    last = await sequence_at(conn, book, end - timedelta(microseconds=1))
    rows = await run(
        conn, _STATEMENT, book, path, asset, opening.sequence, last, STATEMENT_LINES_MAX + 1
    )
    if len(rows) > STATEMENT_LINES_MAX:
        raise BadInput(
            f"the statement of {path} has more than {STATEMENT_LINES_MAX} lines",
            remedy="Ask for a shorter time",
        )
    lines: list[StatementLine] = []
    before = opening.posted
    for row in rows:
        after = _balance(row)
        lines.append(_statement_line(row, after, after.posted - before))
        before = after.posted
    return Statement(
        path=path,
        asset=asset,
        start=start,
        end=end,
        opening=opening.posted,
        closing=before,
        lines=tuple(lines),
    )


_STATEMENT = """
SELECT a.side, e.sequence, e.debits_pending::text, e.debits_posted::text,
       e.credits_pending::text, e.credits_posted::text, t.id, t.kind, t.code, t.reference,
       t.correlation, t.recorded_at, o.path AS counterpart
  FROM ledger.account a
  JOIN ledger.entry e ON e.book = a.book AND e.account = a.number
  JOIN ledger.transfer t ON t.book = e.book AND t.sequence = e.sequence
  JOIN ledger.account o ON o.book = a.book
   AND o.number = CASE WHEN t.debit = a.number THEN t.credit ELSE t.debit END
 WHERE a.book = $1 AND a.path = $2 AND a.asset = $3 AND e.sequence > $4 AND e.sequence <= $5
 ORDER BY e.sequence LIMIT $6
"""


def _statement_line(row: Row[Any], after: Balance, change: int) -> StatementLine:
    return StatementLine(
        sequence=row.sequence,
        recorded_at=row.recorded_at.astimezone(UTC),
        transfer_id=row.id,
        code=row.code,
        kind=Kind(row.kind),
        counterpart=row.counterpart,
        change=change,
        balance=after.posted,
        held=after.posted - after.available,
        reference=row.reference,
        correlation=row.correlation,
    )
