"""Transfers by what is known about them, in pages of either direction; and one with all its ties.

A page is read in two steps of one statement. Candidates come in the journal's order from the one
index that narrows most (`_candidates`), at most `SCAN_MAX` of them; then each is looked up by key
and held against every other filter. So no page reads more than a fixed number of records, whatever
is asked; the price is that a page can be short and still lead on.

Metadata alone is the exception: its index knows no order, so a page costs in proportion to all that
match. It is for looking up what is rare.
"""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from ledger.model import (
    Balance,
    HoldState,
    JournalTransfer,
    Kind,
    Side,
)
from ledger.opaque import canonical_metadata
from ledger.points import SEQUENCE_MAX, account_by_number, fill, last_before
from ledger.store import run
from ledger.views import (
    PAGE_MAX,
    HoldFacts,
    Refusal,
    TransferDetail,
    TransferFilter,
    TransferPage,
    TransferRef,
)

SCAN_MAX: Final = 20_000
"""Candidates that one page looks at, at most."""

EVERYTHING: Final = TransferFilter()


async def page_transfers(
    conn: AsyncConnection,
    book: int,
    wanted: TransferFilter = EVERYTHING,
    *,
    after: int | None = None,
    before: int | None = None,
    limit: int = PAGE_MAX,
) -> TransferPage:
    """Return transfers in the journal's order.

    Args:
        after: the first ones behind this sequence number; the default, from the beginning.
        before: instead, the last ones ahead of this sequence number.
        limit: transfers at most.

    Raises:
        BadInput: both directions at once, or a time without a zone.
    """
    if after is not None and before is not None:
        raise BadInput("ask for the page after or before a sequence number, not both")
    limit = max(1, min(limit, PAGE_MAX))
    query = _Query(book, wanted)
    statement = query.build(is_forward=before is None)
    arguments = (book, after or 0, SEQUENCE_MAX if before is None else before - 1)
    rows = await run(conn, statement, *arguments, limit + 1, query.scan(limit), *query.arguments)
    items = [to_journal_transfer(row) for row in rows if row.id is not None]
    left_off = _left_off(items, rows[0], limit, query.scan(limit)) if rows else None
    items = items[:limit]
    if before is None:
        start = after + 1 if after else None
        return TransferPage(items=tuple(items), after=left_off, before=start)
    items.reverse()
    return TransferPage(items=tuple(items), after=before - 1, before=left_off)


def _left_off(items: list[JournalTransfer], row: Row[Any], limit: int, scan: int) -> int | None:
    """Return where the next page of the same direction begins, None at the end."""
    if len(items) > limit:
        return items[limit - 1].sequence
    return int(row.last_scanned) if row.scanned >= scan else None


class _Query:
    """The statement for one filter: which index leads, what is held against the rest."""

    def __init__(self, book: int, wanted: TransferFilter) -> None:
        self.book = book
        self.wanted = wanted
        self.arguments: list[Any] = []
        self.filters: list[str] = []
        self.places: dict[str, str] = {}
        self._collect()
        self.leader = self._choose()

    def scan(self, limit: int) -> int:
        """Return how many candidates are read: more than wanted only if some may not match."""
        needs_more = len(self.filters) > (0 if self.leader == "journal" else 1)
        return SCAN_MAX if needs_more else limit + 1

    def build(self, *, is_forward: bool) -> str:
        """Return the SQL; $1 book, $2 and $3 the cursor, $4 lines, $5 candidates."""
        return fill(
            _PAGE,
            candidates=_CANDIDATES[self.leader],
            range=_RANGE,
            filters="".join(f" AND {item}" for item in self.filters),
            from_time=self._bound("recorded_from", "0"),
            to_time=self._bound("recorded_to", "h.sequence"),
            of_asset=f"AND a.asset = {self.places['asset']}" if "asset" in self.places else "",
            effective_low=self._bound("effective_from", "0"),
            effective_high=self._bound("effective_to", "9223372036854775807"),
            effective_range=self._effective("t.effective_at"),
            direction="" if is_forward else "DESC",
            last="max" if is_forward else "min",
            **self.places,
        )

    def _collect(self) -> None:
        wanted = self.wanted
        for name, value, sql_type, condition in (
            ("correlation", wanted.correlation, "uuid", "t.correlation = {}"),
            ("reference", wanted.reference, "text", "t.reference = {}"),
            ("path", wanted.path, "text", "(d.path = {0} OR c.path = {0})"),
            ("code", wanted.code, "text", "t.code = {}"),
            ("asset", wanted.asset, "text", "d.asset = {}"),
            ("kind", wanted.kind, "smallint", "t.kind = {}"),
        ):
            if value is not None:
                self.filters.append(condition.format(self._place(name, value, sql_type)))
        if wanted.metadata:
            text = canonical_metadata(wanted.metadata)
            self.filters.append("m.data @> " + self._place("metadata", text, "text") + "::jsonb")
        for name in ("recorded_from", "recorded_to", "effective_from", "effective_to"):
            value = getattr(wanted, name)
            if value is not None:
                if value.tzinfo is None:
                    raise BadInput(f"{value.isoformat()} has no time zone")
                self._place(name, value, "timestamptz")
        if "effective_from" in self.places or "effective_to" in self.places:
            self.filters.append(self._effective("coalesce(t.effective_at, t.recorded_at)"))

    def _place(self, name: str, value: object, sql_type: str) -> str:
        self.arguments.append(value)
        self.places[name] = f"${len(self.arguments) + 5}::{sql_type}"
        return self.places[name]

    def _bound(self, name: str, otherwise: str) -> str:
        return last_before("< " + self.places[name]) if name in self.places else otherwise

    def _effective(self, column: str) -> str:
        ends = [("effective_from", ">="), ("effective_to", "<")]
        return " AND ".join(
            f"{column} {sign} {self.places[name]}" for name, sign in ends if name in self.places
        )

    def _choose(self) -> str:
        for name in ("correlation", "reference", "metadata", "path", "code"):
            # The many that have no reference are not in its index.
            if name in self.places and (name != "reference" or self.wanted.reference):
                return name
        is_effective = "effective_from" in self.places or "effective_to" in self.places
        return "effective" if is_effective else "journal"


# Ranges are compared with scalar subqueries, not joined: so an index range stays in its order.
_RANGE: Final = """
    t.book = $1 AND t.sequence > (SELECT low FROM span) AND t.sequence <= (SELECT high FROM span)
"""
_IN_ORDER: Final = """
    SELECT t.sequence FROM ledger.transfer t
     WHERE <range> AND <which> ORDER BY t.sequence <direction> LIMIT $5"""

_CANDIDATES: Final = {
    "journal": fill(_IN_ORDER, which="true"),
    "correlation": fill(_IN_ORDER, which="t.correlation = <correlation>"),
    "reference": fill(_IN_ORDER, which="t.reference = <reference> AND t.reference <> ''"),
    "code": fill(_IN_ORDER, which="t.code = <code>"),
    # Of one path there is an account for each asset, and the entries of each are in order.
    "path": """
    SELECT x.sequence FROM ledger.account a CROSS JOIN LATERAL (
        SELECT t.sequence FROM ledger.entry t
         WHERE t.account = a.number AND <range> ORDER BY t.sequence <direction> LIMIT $5
    ) x
     WHERE a.book + 0 = $1 AND a.path = <path> <of_asset>
     ORDER BY x.sequence <direction> LIMIT $5""",
    # OFFSET 0 keeps the planner from walking through all metadata in order to find the rare.
    "metadata": """
    SELECT x.sequence FROM (
        SELECT m.sequence FROM ledger.transfer_metadata m
         WHERE m.book = $1 AND m.data @> <metadata>::jsonb OFFSET 0
    ) x
     WHERE x.sequence > (SELECT low FROM span) AND x.sequence <= (SELECT high FROM span)
     ORDER BY x.sequence <direction> LIMIT $5""",
    # What has an effective time of its own has an index; all else is effective when recorded.
    "effective": """
    SELECT x.sequence FROM (
        (SELECT t.sequence FROM ledger.transfer t
          WHERE <range> AND t.sequence > (SELECT effective_low FROM span)
            AND t.sequence <= (SELECT effective_high FROM span) AND t.effective_at IS NULL
          ORDER BY t.sequence <direction> LIMIT $5)
        UNION ALL
        (SELECT t.sequence FROM ledger.transfer t
          WHERE <range> AND t.effective_at IS NOT NULL AND <effective_range>
          ORDER BY t.sequence <direction> LIMIT $5)
    ) x
     ORDER BY x.sequence <direction> LIMIT $5""",
}

_JOURNAL_TRANSFER: Final = """
t.sequence, t.id, t.kind, d.path AS debit, c.path AS credit, d.asset, t.amount::text AS amount,
t.code, t.pending_id, t.reverses, t.purpose, t.reference, t.correlation, t.effective_at,
t.recorded_at, coalesce(m.data::text, '{}') AS data
"""

_TIES: Final = fill(
    """
  JOIN LATERAL (<debit>) d ON true
  JOIN LATERAL (<credit>) c ON true
  LEFT JOIN LATERAL (
      SELECT m.data FROM ledger.transfer_metadata m
       WHERE m.book = $1 AND m.sequence = t.sequence LIMIT 1
  ) m ON true
""",
    debit=account_by_number("t.debit"),
    credit=account_by_number("t.credit"),
)

_PAGE: Final = fill(
    """
WITH span AS MATERIALIZED (
    SELECT greatest($2::bigint, <from_time>) AS low,
           least($3::bigint, h.sequence, <to_time>) AS high,
           <effective_low> AS effective_low, <effective_high> AS effective_high
      FROM ledger.head h WHERE h.book = $1
), candidate AS MATERIALIZED (<candidates>
), scanned AS MATERIALIZED (
    SELECT count(*) AS scanned, <last>(sequence) AS last_scanned FROM candidate
)
SELECT s.scanned, s.last_scanned, found.*
  FROM span CROSS JOIN scanned s LEFT JOIN LATERAL (
      SELECT <columns>
        FROM candidate k
        JOIN LATERAL (
            SELECT * FROM ledger.transfer t WHERE t.book = $1 AND t.sequence = k.sequence LIMIT 1
        ) t ON true <ties>
       WHERE true <filters>
       ORDER BY k.sequence <direction> LIMIT $4
  ) found ON true
 ORDER BY found.sequence <direction>
""",
    columns=_JOURNAL_TRANSFER,
    ties=_TIES,
)


def to_journal_transfer(row: Row[Any]) -> JournalTransfer:
    """Return the transfer in a row."""
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
        effective_at=None if row.effective_at is None else row.effective_at.astimezone(UTC),
        recorded_at=row.recorded_at.astimezone(UTC),
        metadata=json.loads(row.data),
    )


async def find_transfer(
    conn: AsyncConnection, book: int, transfer_id: UUID
) -> TransferDetail | None:
    """Return a transfer with its entries' balances, its hold, and what it is tied to."""
    rows = await run(conn, _DETAIL, book, transfer_id)
    if not rows:
        return None
    row = rows[0]
    hold = None
    if row.hold_id is not None:
        hold = HoldFacts(
            id=row.hold_id,
            state=HoldState(row.hold_state),
            amount=int(row.hold_amount),
            purpose=row.hold_purpose,
            expires_at=None if row.expires_at is None else row.expires_at.astimezone(UTC),
        )
    return TransferDetail(
        transfer=to_journal_transfer(row),
        flags=row.flags,
        metadata_hash=row.metadata_hash,
        height=row.height,
        debit_balance=_balance_after(row, "debit"),
        credit_balance=_balance_after(row, "credit"),
        hold=hold,
        pending=_ref(row, "pending"),
        resolved_by=_ref(row, "resolver"),
        original=_ref(row, "original"),
        reversed_by=_ref(row, "reverser"),
    )


async def find_refusal(conn: AsyncConnection, book: int, transfer_id: UUID) -> Refusal | None:
    """Return the refusal that spent an id."""
    rows = await run(
        conn, "SELECT * FROM ledger.refusal WHERE book + 0 = $1 AND id = $2", book, transfer_id
    )
    if not rows:
        return None
    row = rows[0]
    return Refusal(
        id=row.id,
        sequence=row.sequence,
        outcome=row.outcome,
        recorded_at=row.recorded_at.astimezone(UTC),
    )


def _balance_after(row: Row[Any], side: str) -> Balance:
    columns = row._mapping  # noqa: SLF001  SQLAlchemy's public name for a row by column
    return Balance(
        side=Side(columns[f"{side}_side"]),
        debits_pending=int(columns[f"{side}_dp"]),
        debits_posted=int(columns[f"{side}_d"]),
        credits_pending=int(columns[f"{side}_cp"]),
        credits_posted=int(columns[f"{side}_c"]),
        sequence=row.sequence,
    )


def _ref(row: Row[Any], name: str) -> TransferRef | None:
    columns = row._mapping  # noqa: SLF001  SQLAlchemy's public name for a row by column
    if columns[f"{name}_id"] is None:
        return None
    return TransferRef(
        id=columns[f"{name}_id"],
        sequence=columns[f"{name}_sequence"],
        kind=Kind(columns[f"{name}_kind"]),
        code=columns[f"{name}_code"],
        amount=int(columns[f"{name}_amount"]),
        recorded_at=columns[f"{name}_recorded_at"].astimezone(UTC),
    )


_ENTRY_COLUMNS: Final = """
<n>.side AS <side>_side, <e>.debits_pending::text AS <side>_dp, <e>.debits_posted::text AS <side>_d,
<e>.credits_pending::text AS <side>_cp, <e>.credits_posted::text AS <side>_c
"""
_ENTRY: Final = """
  JOIN LATERAL (
      SELECT * FROM ledger.entry
       WHERE book = $1 AND account = t.<side> AND sequence = t.sequence LIMIT 1
  ) <e> ON true
"""
_REF_COLUMNS: Final = """
<n>.id AS <n>_id, <n>.sequence AS <n>_sequence, <n>.kind AS <n>_kind, <n>.code AS <n>_code,
<n>.amount::text AS <n>_amount, <n>.recorded_at AS <n>_recorded_at
"""
_REF: Final = """
  LEFT JOIN LATERAL (SELECT * FROM ledger.transfer WHERE <key> LIMIT 1) <n> ON true
"""

_DETAIL: Final = fill(
    """
SELECT t.flags, t.metadata_hash, b.height, h.id AS hold_id, h.state AS hold_state,
       h.amount::text AS hold_amount, h.purpose AS hold_purpose, h.expires_at, <columns>
  FROM ledger.transfer t
  LEFT JOIN LATERAL (
      SELECT * FROM ledger.hold WHERE book = $1 AND id = coalesce(t.pending_id, t.id) LIMIT 1
  ) h ON true <ties>
  JOIN LATERAL (
      SELECT height FROM ledger.block
       WHERE book = $1 AND last_sequence >= t.sequence ORDER BY last_sequence LIMIT 1
  ) b ON true
 WHERE t.book + 0 = $1 AND t.id = $2
""",
    columns=", ".join(
        [
            _JOURNAL_TRANSFER,
            fill(_ENTRY_COLUMNS, n="d", e="de", side="debit"),
            fill(_ENTRY_COLUMNS, n="c", e="ce", side="credit"),
            *(fill(_REF_COLUMNS, n=n) for n in ("pending", "resolver", "original", "reverser")),
        ]
    ),
    ties="".join(
        [
            _TIES,
            fill(_ENTRY, e="de", side="debit"),
            fill(_ENTRY, e="ce", side="credit"),
            fill(_REF, n="pending", key="id = t.pending_id AND book + 0 = $1"),
            fill(
                _REF,
                n="resolver",
                key="book = $1 AND sequence = h.resolved_sequence AND h.id = t.id",
            ),
            fill(_REF, n="original", key="id = t.reverses AND book + 0 = $1"),
            fill(_REF, n="reverser", key="reverses = t.id AND book + 0 = $1"),
        ]
    ),
)
