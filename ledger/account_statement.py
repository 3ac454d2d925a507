"""An account's statement, by recorded time and by effective date, a page at a time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from ledger.errors import BookNotOpen
from ledger.model import Balance, Kind, Side, StatementLine
from ledger.points import account_by_number, fill, last_before, last_before_day, to_balance
from ledger.store import run
from ledger.views import (
    PAGE_MAX,
    EffectiveCursor,
    EffectiveLine,
    EffectiveStatementPage,
    StatementPage,
)

DAY: Final = timedelta(days=1)


async def page_statement(
    conn: AsyncConnection,
    book: int,
    path: str,
    asset: str,
    start: datetime,
    end: datetime,
    *,
    after: int | None = None,
    known: int | None = None,
    limit: int = PAGE_MAX,
) -> StatementPage:
    """Return lines of an account from *start* (inclusive) to *end* (exclusive), as recorded.

    Holds appear as lines without a change; *held* is what was reserved to leave after the line.

    Args:
        after: cursor of the page before this one.
        known: sequence of the first page, for those behind it: nothing recorded since is in them.

    Raises:
        BookNotOpen: there is no such account.
    """
    if end < start:
        raise BadInput("the statement ends before it starts", remedy="Give its times in order")
    limit = max(1, min(limit, PAGE_MAX))
    rows = await run(conn, _RECORDED, book, start, end, known, path, asset, after or 0, limit + 1)
    if not rows:
        raise BookNotOpen(f"book {book} has no account {path} {asset}")
    first = rows[0]
    before = _net(first.side, first.before_debits, first.before_credits)
    lines: list[StatementLine] = []
    for row in rows[:limit]:
        if row.id is not None:
            balance = to_balance(row)
            lines.append(_line(row, balance, balance.posted - before, balance.posted))
            before = balance.posted
    return StatementPage(
        path=path,
        asset=asset,
        opening=_net(first.side, first.opening_debits, first.opening_credits),
        closing=_net(first.side, first.closing_debits, first.closing_credits),
        lines=tuple(lines),
        sequence=first.known,
        after=lines[-1].sequence if len(rows) > limit else None,
    )


def _net(side: str, debits: str, credits_: str) -> int:
    return Balance(side=Side(side), debits_posted=int(debits), credits_posted=int(credits_)).posted


def _line(row: Row[Any], balance: Balance, change: int, posted: int) -> StatementLine:
    return StatementLine(
        sequence=row.sequence,
        recorded_at=row.recorded_at.astimezone(UTC),
        transfer_id=row.id,
        code=row.code,
        kind=Kind(row.kind),
        counterpart=row.counterpart,
        change=change,
        balance=posted,
        held=balance.posted - balance.available,
        reference=row.reference,
        correlation=row.correlation,
    )


_LAST_ENTRY: Final = """
  LEFT JOIN LATERAL (
      SELECT x.debits_posted, x.credits_posted FROM ledger.entry x
       WHERE x.book = $1 AND x.account = a.number AND x.sequence <= <upto>
       ORDER BY x.sequence DESC LIMIT 1
  ) <name> ON true
"""

_TRANSFER: Final = fill(
    """
      JOIN LATERAL (
          SELECT * FROM ledger.transfer t WHERE t.book = $1 AND t.sequence = e.sequence LIMIT 1
      ) t ON true
      JOIN LATERAL (<counterpart>) o ON true
""",
    counterpart=account_by_number("CASE WHEN t.debit = a.number THEN t.credit ELSE t.debit END"),
)

# $2, $3: the times; $4: what the answer may know; $7: the cursor; $8: lines.
_RECORDED: Final = fill(
    """
WITH known AS MATERIALIZED (
    SELECT least($4::bigint, h.sequence) AS sequence FROM ledger.head h WHERE h.book = $1
), span AS MATERIALIZED (
    SELECT k.sequence AS known, least(k.sequence, <start>) AS low, least(k.sequence, <end>) AS high
      FROM known k
)
SELECT a.side, s.known,
       coalesce(opened.debits_posted, 0)::text AS opening_debits,
       coalesce(opened.credits_posted, 0)::text AS opening_credits,
       coalesce(ended.debits_posted, 0)::text AS closing_debits,
       coalesce(ended.credits_posted, 0)::text AS closing_credits,
       coalesce(prior.debits_posted, 0)::text AS before_debits,
       coalesce(prior.credits_posted, 0)::text AS before_credits,
       line.*
  FROM span s JOIN ledger.account a ON a.book + 0 = $1 AND a.path = $5 AND a.asset = $6
  <opened> <ended> <prior>
  LEFT JOIN LATERAL (
    SELECT e.sequence, e.debits_pending::text, e.debits_posted::text, e.credits_pending::text,
           e.credits_posted::text, t.id, t.kind, t.code, t.reference, t.correlation,
           t.recorded_at, o.path AS counterpart
      FROM (
          SELECT * FROM ledger.entry x
           WHERE x.book = $1 AND x.account = a.number
             AND x.sequence > greatest(s.low, $7::bigint) AND x.sequence <= s.high
           ORDER BY x.sequence LIMIT $8
      ) e <transfer>
  ) line ON true
 ORDER BY line.sequence
""",
    start=last_before("< $2"),
    end=last_before("< $3"),
    opened=fill(_LAST_ENTRY, upto="s.low", name="opened"),
    ended=fill(_LAST_ENTRY, upto="s.high", name="ended"),
    prior=fill(_LAST_ENTRY, upto="greatest(s.low, $7::bigint)", name="prior"),
    transfer=_TRANSFER,
)


async def page_effective_statement(
    conn: AsyncConnection,
    book: int,
    path: str,
    asset: str,
    first: date,
    last: date,
    *,
    after: EffectiveCursor | None = None,
    limit: int = PAGE_MAX,
) -> EffectiveStatementPage:
    """Return lines of an account from day *first* to day *last*, both included, by effective day.

    A movement stands at the day on which it is effective (UTC), behind what was recorded before it;
    a hold, at the day on which it was recorded. The opening balance is that of the end of the day
    before *first*, the closing balance that of the end of *last*: `ledger.queries.get_balance`.

    Args:
        after: cursor of the page before this one.

    Raises:
        BookNotOpen: there is no such account.
    """
    if last < first:
        raise BadInput("the statement ends before it starts", remedy="Give its days in order")
    if first == date.min:
        raise BadInput(f"there is no day before {first}", remedy="Begin a day later")
    limit = max(1, min(limit, PAGE_MAX))
    begin = (after.effective_on, after.sequence) if after else (first - DAY, 0)
    known = after.known if after else None
    rows = await run(conn, _EFFECTIVE, book, first, last, known, path, asset, *begin, limit + 1)
    if not rows:
        raise BookNotOpen(f"book {book} has no account {path} {asset}")
    head = rows[0]
    opening = _net(head.side, head.opening_debits, head.opening_credits)
    balance = after.balance if after else opening
    lines: list[EffectiveLine] = []
    for row in rows[:limit]:
        if row.id is not None:
            change = _net(head.side, row.debits, row.credits)
            balance += change
            line = _line(row, to_balance(row), change, balance)
            lines.append(EffectiveLine(effective_on=row.effective_on, line=line))
    cursor = None
    if len(rows) > limit:
        cursor = EffectiveCursor(
            effective_on=lines[-1].effective_on,
            sequence=lines[-1].line.sequence,
            balance=balance,
            known=head.known,
        )
    return EffectiveStatementPage(
        path=path,
        asset=asset,
        opening=opening,
        closing=_net(head.side, head.closing_debits, head.closing_credits),
        lines=tuple(lines),
        sequence=head.known,
        after=cursor,
    )


# Movements of an account that by day <day> count otherwise than they were recorded.
_CORRECTION: Final = """
  LEFT JOIN LATERAL (
      SELECT coalesce(sum(x.debits), 0) AS debits, coalesce(sum(x.credits), 0) AS credits FROM (
          SELECT y.debits, y.credits FROM ledger.effective_entry y
           WHERE y.book = $1 AND y.account = a.number AND y.effective_on <= <day>
             AND y.sequence > <upto> AND y.sequence <= s.known
          UNION ALL
          SELECT -y.debits, -y.credits FROM ledger.effective_entry y
           WHERE y.book = $1 AND y.account = a.number AND y.effective_on > <day>
             AND y.sequence <= <upto>
      ) x
  ) <name> ON true
"""

# $2, $3: the days; $4: what the answer may know; $7, $8: the cursor; $9: lines.
# Recorded lines are in the order of their days, so the cursor is a range of sequence numbers: those
# of the cursor's day end at the day's last block, and those behind it begin there.
_EFFECTIVE: Final = fill(
    """
WITH known AS MATERIALIZED (
    SELECT least($4::bigint, h.sequence) AS sequence FROM ledger.head h WHERE h.book = $1
), span AS MATERIALIZED (
    SELECT k.sequence AS known, least(k.sequence, <before_first>) AS low,
           least(k.sequence, <end_of_last>) AS high,
           greatest(<before_cursor>, least($8::bigint, <end_of_cursor>)) AS past
      FROM known k
)
SELECT a.side, s.known,
       (coalesce(opened.debits_posted, 0) + opening.debits)::text AS opening_debits,
       (coalesce(opened.credits_posted, 0) + opening.credits)::text AS opening_credits,
       (coalesce(ended.debits_posted, 0) + closing.debits)::text AS closing_debits,
       (coalesce(ended.credits_posted, 0) + closing.credits)::text AS closing_credits,
       line.*
  FROM span s JOIN ledger.account a ON a.book + 0 = $1 AND a.path = $5 AND a.asset = $6
  <opened> <ended> <opening> <closing>
  LEFT JOIN LATERAL (
    SELECT e.effective_on, e.sequence, e.debits::text, e.credits::text,
           n.debits_pending::text, n.debits_posted::text, n.credits_pending::text,
           n.credits_posted::text, t.id, t.kind, t.code, t.reference, t.correlation,
           t.recorded_at, o.path AS counterpart
      FROM (
          SELECT * FROM (
              (SELECT (t.recorded_at AT TIME ZONE 'UTC')::date AS effective_on, x.sequence,
                      x.debits_posted - coalesce(w.debits_posted, 0) AS debits,
                      x.credits_posted - coalesce(w.credits_posted, 0) AS credits
                 FROM ledger.entry x
                 JOIN LATERAL (
                     SELECT t.recorded_at FROM ledger.transfer t
                      WHERE t.book = $1 AND t.sequence = x.sequence LIMIT 1
                 ) t ON true
                 LEFT JOIN LATERAL (
                     SELECT w.debits_posted, w.credits_posted FROM ledger.entry w
                      WHERE w.book = $1 AND w.account = a.number AND w.sequence < x.sequence
                      ORDER BY w.sequence DESC LIMIT 1
                 ) w ON true
                 LEFT JOIN LATERAL (
                     SELECT true AS differs FROM ledger.effective_entry y
                      WHERE y.book = $1 AND y.account = a.number
                        AND y.sequence BETWEEN x.sequence AND x.sequence
                      ORDER BY y.sequence LIMIT 1
                 ) y ON true
                WHERE x.book = $1 AND x.account = a.number
                  AND x.sequence > greatest(s.low, s.past) AND x.sequence <= s.high
                  AND y.differs IS NULL
                ORDER BY x.sequence LIMIT $9)
              UNION ALL
              (SELECT y.effective_on, y.sequence, y.debits, y.credits
                 FROM ledger.effective_entry y
                WHERE y.book = $1 AND y.account = a.number AND y.sequence <= s.known
                  AND y.effective_on >= greatest($2, $7) AND y.effective_on <= $3
                  AND (y.effective_on > $7 OR y.sequence > $8)
                ORDER BY y.effective_on, y.sequence LIMIT $9)
          ) both_kinds
           ORDER BY effective_on, sequence LIMIT $9
      ) e
      JOIN LATERAL (
          SELECT * FROM ledger.entry n
           WHERE n.book = $1 AND n.account = a.number AND n.sequence = e.sequence LIMIT 1
      ) n ON true <transfer>
  ) line ON true
 ORDER BY line.effective_on, line.sequence
""",
    before_first=last_before_day("$2::date"),
    end_of_last=last_before_day("$3::date + 1"),
    before_cursor=last_before_day("$7::date"),
    end_of_cursor=last_before_day("$7::date + 1"),
    opened=fill(_LAST_ENTRY, upto="s.low", name="opened"),
    ended=fill(_LAST_ENTRY, upto="s.high", name="ended"),
    opening=fill(_CORRECTION, day="($2::date - 1)", upto="s.low", name="opening"),
    closing=fill(_CORRECTION, day="$3::date", upto="s.high", name="closing"),
    transfer=_TRANSFER,
)
