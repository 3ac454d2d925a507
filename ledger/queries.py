"""Reads: the head, balances at any time, accounts, holds, periods; and the walks over pages.

Each read is one statement, so what it returns is true at one instant and says at which sequence
number. Lists come in pages of at most `PAGE_MAX`, empty where there is no such book. The pages
behind the first are asked for at the first one's sequence number, so that together they are true
at one instant too. What is read by page in other modules has its walk here: `trial_balance`,
`list_transfers`, `list_open_holds`, `statement`.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from ledger import merkle
from ledger.account_statement import page_statement
from ledger.arrays import texts
from ledger.errors import BookNotOpen
from ledger.holds import page_open_holds
from ledger.model import (
    Account,
    AccountSpec,
    Balance,
    Head,
    JournalTransfer,
    OpenHold,
    Side,
    Statement,
    StatementLine,
    TrialBalanceRow,
)
from ledger.points import (
    AT,
    KNOWN,
    LAST_ENTRY,
    LAST_TEXT,
    Point,
    fill,
    last_before,
    to_balance,
)
from ledger.search import page_transfers
from ledger.store import run
from ledger.trial import page_trial_balance
from ledger.views import PAGE_MAX, AccountPage, PeriodEvent, PeriodPage, TransferFilter

STATEMENT_LINES_MAX: Final = 100_000


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
        closed_through=row.closed_through,
        imported_through=None
        if row.imported_through is None
        else row.imported_through.astimezone(UTC),
    )


async def sequence_at(conn: AsyncConnection, book: int, at: datetime) -> int:
    """Return the last sequence number recorded at or before *at*; 0 before the first."""
    rows = await run(conn, _SEQUENCE_AT, book, at)
    return int(rows[0][0])


_SEQUENCE_AT: Final = "SELECT " + last_before("<= $2")


async def get_balance(
    conn: AsyncConnection,
    book: int,
    path: str,
    asset: str,
    *,
    at_sequence: int | None = None,
    at_time: datetime | None = None,
    effective_on: date | None = None,
) -> Balance:
    """Return an account's four columns: now, or as of a sequence number, a time or a date.

    Args:
        at_sequence: as recorded up to this number.
        at_time: as recorded up to this time.
        effective_on: at the end of this day (UTC) by effective time, as known now, or at the
            sequence number or time given with it. Pending columns are as recorded by then.

    Returns:
        The balance; its sequence is the last one that it knows.

    Raises:
        BookNotOpen: there is no such account.
    """
    point = Point(at_sequence, at_time, effective_on)
    if point.is_now:
        rows = await run(conn, _BALANCE_NOW, book, path, asset)
    elif effective_on is None:
        rows = await run(conn, _BALANCE_RECORDED, book, at_sequence, at_time, path, asset)
    else:
        rows = await run(conn, _BALANCE_EFFECTIVE, book, *point.arguments, path, asset)
    if not rows:
        raise BookNotOpen(f"book {book} has no account {path} {asset}")
    return to_balance(rows[0])


_BALANCE_NOW: Final = """
SELECT a.side, b.debits_pending::text, b.debits_posted::text, b.credits_pending::text,
       b.credits_posted::text, h.sequence
  FROM ledger.account a
  JOIN LATERAL (
      SELECT * FROM ledger.balance WHERE book = $1 AND account = a.number LIMIT 1
  ) b ON true
  JOIN ledger.head h ON h.book = $1
 WHERE a.book + 0 = $1 AND a.path = $2 AND a.asset = $3
"""

_BALANCE_RECORDED: Final = fill(
    """
<known>
SELECT a.side, p.sequence, coalesce(e.debits_pending, 0)::text AS debits_pending,
       coalesce(e.debits_posted, 0)::text AS debits_posted,
       coalesce(e.credits_pending, 0)::text AS credits_pending,
       coalesce(e.credits_posted, 0)::text AS credits_posted
  FROM known p JOIN ledger.account a ON a.book + 0 = $1 AND a.path = $4 AND a.asset = $5
  <last_entry>
""",
    known=KNOWN,
    last_entry=LAST_ENTRY,
)

_BALANCE_EFFECTIVE: Final = fill(
    """
<point>
SELECT a.side, p.known AS sequence, <four_columns>
  FROM point p JOIN ledger.account a ON a.book + 0 = $1 AND a.path = $5 AND a.asset = $6
  <columns_at>
""",
    **AT,
)


async def get_balances(
    conn: AsyncConnection, book: int, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Balance]:
    """Return the balances of those (path, asset) that are open accounts, as of one instant."""
    if not keys:
        return {}
    pairs = sorted(keys)
    asked = texts([path for path, _ in pairs]), texts([asset for _, asset in pairs])
    rows = await run(conn, _BALANCES_NOW, book, *asked)
    return {(row.path, row.asset): to_balance(row) for row in rows}


_BALANCES_NOW: Final = """
SELECT a.path, a.asset, a.side, b.debits_pending::text, b.debits_posted::text,
       b.credits_pending::text, b.credits_posted::text, h.sequence
  FROM unnest($2::text::text[], $3::text::text[]) AS asked (path, asset)
  JOIN LATERAL (
      SELECT * FROM ledger.account
       WHERE path = asked.path AND asset = asked.asset AND book + 0 = $1 LIMIT 1
  ) a ON true
  JOIN LATERAL (
      SELECT * FROM ledger.balance WHERE book = $1 AND account = a.number LIMIT 1
  ) b ON true
  JOIN ledger.head h ON h.book = $1
"""


async def page_accounts(
    conn: AsyncConnection,
    book: int,
    prefix: str = "",
    *,
    at_sequence: int | None = None,
    at_time: datetime | None = None,
    effective_on: date | None = None,
    after: tuple[str, str] | None = None,
    limit: int = PAGE_MAX,
) -> AccountPage:
    """Return accounts whose path begins with *prefix*, by path and asset.

    Balances are those of the point asked for (see `get_balance`); whether an account is frozen or
    closed is always as of now.

    Args:
        after: cursor of the page before this one.
    """
    point = Point(at_sequence, at_time, effective_on)
    limit = max(1, min(limit, PAGE_MAX))
    rows = await run(
        conn,
        _ACCOUNTS,
        book,
        *point.arguments,
        prefix,
        prefix + LAST_TEXT,
        *(after or ("", "")),
        limit + 1,
    )
    found = [row for row in rows if row.number is not None]
    items = tuple(_account(row) for row in found[:limit])
    is_more = len(found) > limit
    return AccountPage(
        items=items,
        sequence=rows[0].sequence if rows else 0,
        after=(items[-1].path, items[-1].asset) if is_more else None,
    )


_ACCOUNTS: Final = fill(
    """
<point>
SELECT p.known AS sequence, found.*
  FROM point p LEFT JOIN LATERAL (
      SELECT a.*, a.metadata::text AS properties, <four_columns>, b.frozen, b.closed,
             b.credit_limit::text
        FROM ledger.account a
        JOIN LATERAL (
            SELECT * FROM ledger.balance WHERE book = $1 AND account = a.number LIMIT 1
        ) b ON true
        <columns_at> <opened>
       WHERE a.book = $1 AND a.path >= $5 AND a.path < $6
         AND (a.path, a.asset) > ($7, $8) AND <was_open>
       ORDER BY a.path, a.asset LIMIT $9
  ) found ON true
 ORDER BY found.path, found.asset
""",
    **AT,
)


async def list_accounts(
    conn: AsyncConnection,
    book: int,
    prefix: str = "",
    *,
    at_sequence: int | None = None,
    at_time: datetime | None = None,
    effective_on: date | None = None,
) -> list[Account]:
    """Return every account whose path begins with *prefix*: all pages, of one instant."""
    point = Point(at_sequence, at_time, effective_on)
    found: list[Account] = []
    after: tuple[str, str] | None = None
    while True:
        page = await page_accounts(
            conn,
            book,
            prefix,
            at_sequence=point.at_sequence,
            at_time=point.at_time,
            effective_on=point.effective_on,
            after=after,
        )
        found += page.items
        if page.after is None:
            return found
        after, point = page.after, point.pinned(page.sequence)


def _account(row: Row[Any]) -> Account:
    return Account(
        number=row.number,
        spec=_spec(row),
        balance=to_balance(row),
        frozen=row.frozen,
        closed=row.closed,
    )


def _spec(row: Row[Any]) -> AccountSpec:
    return AccountSpec(
        path=row.path,
        asset=row.asset,
        side=Side(row.side),
        owner=row.owner,
        debits_must_not_exceed_credits=row.debits_must_not_exceed_credits,
        credits_must_not_exceed_debits=row.credits_must_not_exceed_debits,
        credit_limit=int(row.credit_limit),
        purpose=row.purpose,
        metadata=json.loads(row.properties),
        effective_at=None if row.effective_at is None else row.effective_at.astimezone(UTC),
    )


async def list_open_holds(
    conn: AsyncConnection, book: int, *, path: str | None = None
) -> list[OpenHold]:
    """Return every open hold, oldest first: all pages, of one instant."""
    page = await page_open_holds(conn, book, path=path)
    found = list(page.items)
    while page.after is not None:
        page = await page_open_holds(
            conn, book, path=path, at_sequence=page.sequence, after=page.after
        )
        found += page.items
    return found


async def page_periods(
    conn: AsyncConnection, book: int, *, after: int = 0, limit: int = PAGE_MAX
) -> PeriodPage:
    """Return a page of the closings and reopenings, oldest first, behind sequence *after*."""
    size = max(1, min(limit, PAGE_MAX))
    rows = await run(conn, _PERIODS, book, after, size + 1)
    items = tuple(
        PeriodEvent(
            sequence=row.sequence,
            kind=row.kind,
            through=row.through,
            reason=row.reason,
            proposed_by=row.proposed_by,
            approved_by=row.approved_by,
            recorded_at=row.recorded_at.astimezone(UTC),
        )
        for row in rows[:size]
    )
    return PeriodPage(items=items, after=items[-1].sequence if len(rows) > size else None)


_PERIODS: Final = """
SELECT * FROM ledger.period_event WHERE book = $1 AND sequence > $2 ORDER BY sequence LIMIT $3
"""


async def trial_balance(
    conn: AsyncConnection,
    book: int,
    *,
    at_sequence: int | None = None,
    at_time: datetime | None = None,
    effective_on: date | None = None,
) -> list[TrialBalanceRow]:
    """Return every account with its totals, by asset and path: all pages, of one instant."""
    point = Point(at_sequence, at_time, effective_on)
    found: list[TrialBalanceRow] = []
    after: tuple[str, str] | None = None
    while True:
        page = await page_trial_balance(conn, book, point, after=after)
        found += page.items
        if page.after is None:
            return sorted(found, key=lambda row: (row.asset, row.path))
        after, point = page.after, point.pinned(page.sequence)


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
    """Return transfers in the journal's order, those after sequence *after*, at most *limit*.

    See `ledger.search.page_transfers` for every other filter and for both directions.
    """
    wanted = TransferFilter(correlation=correlation, path=path, code=code)
    limit = max(1, min(limit, PAGE_MAX))
    found: list[JournalTransfer] = []
    cursor: int | None = after
    while cursor is not None and len(found) < limit:
        page = await page_transfers(conn, book, wanted, after=cursor, limit=limit - len(found))
        found += page.items
        cursor = page.after
    return found


async def statement(
    conn: AsyncConnection, book: int, path: str, asset: str, start: datetime, end: datetime
) -> Statement:
    """Return what moved on an account from *start* (inclusive) to *end* (exclusive), as recorded.

    Holds appear as lines without a change; *held* is what was reserved to leave after the line.
    These are all pages of `ledger.account_statement.page_statement`.

    Raises:
        BookNotOpen: there is no such account.
        BadInput: more than `STATEMENT_LINES_MAX` lines; ask for a shorter time.
    """
    page = await page_statement(conn, book, path, asset, start, end)
    lines: list[StatementLine] = list(page.lines)
    while page.after is not None:
        if len(lines) >= STATEMENT_LINES_MAX:
            raise BadInput(
                f"the statement of {path} has more than {STATEMENT_LINES_MAX} lines",
                remedy="Ask for a shorter time",
            )
        page = await page_statement(
            conn, book, path, asset, start, end, after=page.after, known=page.sequence
        )
        lines += page.lines
    return Statement(
        path=path,
        asset=asset,
        start=start,
        end=end,
        opening=page.opening,
        closing=page.closing,
        lines=tuple(lines),
    )
