"""Points of time in a book, as SQL: at a sequence number, a recorded time, an effective date.

Every read of a balance begins with `POINT`, whose four parameters are the book, a sequence number, a
recorded time and an effective date, and goes on with its own parameters from $5. `COLUMNS_AT` gives
the four columns of the account ``a`` at that point ``p``: the account's last entry up to it, one look-up
by key, and, for an effective date, the few movements whose effective day is not their recorded day.
A date and a sequence number (or time) together ask what the book knew then about that date.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Self

from sqlalchemy import Row

from kernel.errors import BadInput
from ledger.model import Balance, Side

_LAST_BLOCK: Final = """coalesce((
    SELECT b.last_sequence FROM ledger.block b WHERE b.book = $1 AND b.recorded_at <condition>
     ORDER BY b.recorded_at DESC, b.last_sequence DESC LIMIT 1), 0)"""


# Of a book that is newer than the last ANALYZE the planner believes that it is empty, and that any index
# that begins with the book will do. A range of one, in order: only the index that is meant has it.
_ACCOUNT_BY_NUMBER: Final = """
    SELECT * FROM ledger.account
     WHERE book = $1 AND number BETWEEN <number> AND <number> ORDER BY number LIMIT 1"""


def fill(statement: str, **parts: str) -> str:
    """Return a statement with its ``<parts>`` filled in; all of it is this package's own text."""
    for name, part in parts.items():
        statement = statement.replace(f"<{name}>", part)
    return statement


def account_by_number(number: str) -> str:
    """Return SQL for the account with a number: one look-up by key, in a new book too."""
    return fill(_ACCOUNT_BY_NUMBER, number=number)


def last_before(condition: str) -> str:
    """Return SQL for the last sequence of the blocks whose recorded time meets *condition*."""
    return fill(_LAST_BLOCK, condition=condition)


def last_before_day(day: str) -> str:
    """Return SQL for the last sequence that was recorded before a day (UTC) began."""
    return last_before(f"< (({day})::timestamp AT TIME ZONE 'UTC')")


# What the answer may know.
KNOWN: Final = fill(
    """
WITH known AS MATERIALIZED (
    SELECT CASE WHEN $2::bigint IS NOT NULL THEN least($2, h.sequence)
                WHEN $3::timestamptz IS NOT NULL THEN <at_time>
                ELSE h.sequence END AS sequence
      FROM ledger.head h WHERE h.book = $1
)""",
    at_time=last_before("<= $3"),
)

# known: the same; sequence: the last record of the effective day, if one is asked for.
POINT: Final = fill(
    """
<known>, point AS MATERIALIZED (
    SELECT k.sequence AS known,
           CASE WHEN $4::date IS NULL THEN k.sequence
                ELSE least(k.sequence, <end_of_day>) END AS sequence
      FROM known k
)
""",
    known=KNOWN,
    end_of_day=last_before_day("$4::date + 1"),
)

LAST_ENTRY: Final = """
  LEFT JOIN LATERAL (
      SELECT x.sequence, x.debits_pending, x.debits_posted, x.credits_pending, x.credits_posted
        FROM ledger.entry x
       WHERE x.book = $1 AND x.account = a.number AND x.sequence <= p.sequence
       ORDER BY x.sequence DESC LIMIT 1
  ) e ON true
"""

# Two look-ups by key instead of one with OR: what was recorded later and counts already, and
# what was recorded by then and does not count yet.
COLUMNS_AT: Final = fill(
    """
  <last_entry>
  LEFT JOIN LATERAL (
      SELECT sum(x.debits) AS debits, sum(x.credits) AS credits FROM ledger.effective_entry x
       WHERE $4 IS NOT NULL AND x.book = $1 AND x.account = a.number
         AND x.sequence > p.sequence AND x.sequence <= p.known AND x.effective_on <= $4
  ) later ON true
  LEFT JOIN LATERAL (
      SELECT sum(x.debits) AS debits, sum(x.credits) AS credits FROM ledger.effective_entry x
       WHERE $4 IS NOT NULL AND x.book = $1 AND x.account = a.number
         AND x.sequence <= p.sequence AND x.effective_on > $4
  ) early ON true
""",
    last_entry=LAST_ENTRY,
)

DEBITS_PENDING: Final = "coalesce(e.debits_pending, 0)"
CREDITS_PENDING: Final = "coalesce(e.credits_pending, 0)"
DEBITS_POSTED: Final = (
    "(coalesce(e.debits_posted, 0) + coalesce(later.debits, 0) - coalesce(early.debits, 0))"
)
CREDITS_POSTED: Final = (
    "(coalesce(e.credits_posted, 0) + coalesce(later.credits, 0) - coalesce(early.credits, 0))"
)

FOUR_COLUMNS: Final = f"""{DEBITS_PENDING}::text AS debits_pending,
       {DEBITS_POSTED}::text AS debits_posted,
       {CREDITS_PENDING}::text AS credits_pending,
       {CREDITS_POSTED}::text AS credits_posted"""

# An account is there from its first record on; one that a later, back-dated transfer moved is
# there for the dates that it moved on as well. A join and not EXISTS, which the planner may answer
# by reading every event of the book.
OPENED: Final = """
  LEFT JOIN LATERAL (
      SELECT true AS was FROM ledger.account_event v
       WHERE e.sequence IS NULL AND later.debits IS NULL
         AND v.book = $1 AND v.account BETWEEN a.number AND a.number AND v.sequence <= p.sequence
       ORDER BY v.account LIMIT 1
  ) opened ON true
"""
WAS_OPEN: Final = "(e.sequence IS NOT NULL OR later.debits IS NOT NULL OR opened.was)"

AT: Final = {
    "point": POINT,
    "four_columns": FOUR_COLUMNS,
    "columns_at": COLUMNS_AT,
    "opened": OPENED,
    "was_open": WAS_OPEN,
    "debits": DEBITS_POSTED,
    "credits": CREDITS_POSTED,
    "debits_pending": DEBITS_PENDING,
    "credits_pending": CREDITS_PENDING,
}
"""Parts for `fill`: what a read at a point is made of."""

SEQUENCE_MAX: Final = 2**63 - 1
LAST_TEXT: Final = "\U0010ffff"
"""Behind every path in the order of bytes, which is that of PostgreSQL's collation C."""


@dataclass(frozen=True, slots=True)
class Point:
    """When a balance is asked for; nothing set means now.

    Raises:
        BadInput: a sequence number and a time, a negative number, or a time without a zone.
    """

    at_sequence: int | None = None
    at_time: datetime | None = None
    effective_on: date | None = None

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if self.at_sequence is not None and self.at_time is not None:
            raise BadInput("ask for a balance at a sequence number or at a time, not both")
        if self.at_sequence is not None and not 0 <= self.at_sequence <= SEQUENCE_MAX:
            raise BadInput(f"{self.at_sequence} is not a sequence number")
        if self.at_time is not None and self.at_time.tzinfo is None:
            raise BadInput(f"{self.at_time.isoformat()} has no time zone")
        if isinstance(self.effective_on, datetime):
            raise BadInput("an effective date is a day, not a time")

    @property
    def is_now(self) -> bool:
        """Tell whether nothing is set."""
        return self == Point()

    @property
    def arguments(self) -> tuple[int | None, datetime | None, date | None]:
        """Return $2, $3 and $4."""
        return self.at_sequence, self.at_time, self.effective_on

    def pinned(self, sequence: int) -> Self:
        """Return the same point as known at *sequence*: for the pages behind the first one."""
        return type(self)(at_sequence=sequence, effective_on=self.effective_on)


def to_balance(row: Row[Any]) -> Balance:
    """Return the balance in a row of side, four columns and sequence."""
    return Balance(
        side=Side(row.side),
        debits_pending=int(row.debits_pending),
        debits_posted=int(row.debits_posted),
        credits_pending=int(row.credits_pending),
        credits_posted=int(row.credits_posted),
        sequence=row.sequence,
    )
