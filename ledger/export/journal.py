"""Reads for exports: the frame of a book at a watermark, then its records in short transactions.

Everything that is read is append-only and bounded by the watermark, so what is read does not depend
on when: records and pages come in transactions of their own, and none of them is long (a snapshot
kept open would ruin the vacuum of the head row).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.money import Asset
from ledger.errors import BookNotOpen
from ledger.export.model import (
    By,
    ExportAccount,
    ExportEvent,
    ExportRefused,
    ExportTransfer,
    Frame,
    Totals,
)
from ledger.model import Kind, Side
from ledger.opaque import canonical_metadata
from ledger.store import run

RECORDS_AT_ONCE: Final = 4_096
"""Journal records read in one transaction."""

ACCOUNTS_AT_ONCE: Final = 2_048

EMPTY_ROOT: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Watermark:
    """A book's journal up to one record, which ended a block, and the root of the tree over it."""

    book: int
    entity: str
    sequence: int
    root: bytes


async def watermark(
    engine: AsyncEngine, book: int, *, as_of: datetime | None = None, covering: int | None = None
) -> Watermark:
    """Return the last block there is: of all, recorded up to *as_of*, or the one with a record.

    Raises:
        BookNotOpen: there is no such book.
    """

    async def work(conn: AsyncConnection) -> Watermark:
        heads = await run(conn, "SELECT entity FROM ledger.head WHERE book = $1", book)
        if not heads:
            raise BookNotOpen(f"there is no book {book}")
        rows = await run(
            conn, _LAST_BLOCK if covering is None else _BLOCK_OF, book, covering or as_of
        )
        if not rows:
            return Watermark(book, heads[0].entity, 0, EMPTY_ROOT)
        return Watermark(book, heads[0].entity, rows[0].last_sequence, bytes(rows[0].root))

    return await transact(engine, work)


_LAST_BLOCK: Final = """
SELECT last_sequence, root FROM ledger.block
 WHERE book = $1 AND ($2::timestamptz IS NULL OR recorded_at <= $2)
 ORDER BY recorded_at DESC, last_sequence DESC LIMIT 1
"""

_BLOCK_OF: Final = """
SELECT last_sequence, root FROM ledger.block WHERE book = $1 AND last_sequence >= $2::bigint
 ORDER BY last_sequence LIMIT 1
"""


async def read_frame(
    engine: AsyncEngine, mark: Watermark, assets: Mapping[str, Asset], by: By
) -> Frame:
    """Return the accounts and their totals at a watermark.

    Raises:
        ExportRefused: accounts are in assets that are not registered, so have no scale.
    """
    accounts: dict[int, ExportAccount] = {}
    totals: dict[int, Totals] = {}
    last = 0
    while True:
        page = await _read(engine, _ACCOUNTS, mark.book, mark.sequence, last, ACCOUNTS_AT_ONCE)
        for row in page:
            accounts[row.number] = _account(row)
            totals[row.number] = Totals(
                int(row.debits_pending),
                int(row.debits_posted),
                int(row.credits_pending),
                int(row.credits_posted),
            )
            last = row.number
        if len(page) < ACCOUNTS_AT_ONCE:
            break
    used = {account.asset for account in accounts.values()}
    unknown = sorted(used - assets.keys())
    if unknown:
        raise ExportRefused(
            f"the scale of {', '.join(unknown)} is not known",
            remedy="Register the asset: `causeway registry --help`",
        )
    return Frame(
        book=mark.book,
        entity=mark.entity,
        sequence=mark.sequence,
        root=mark.root,
        by=by,
        accounts=accounts,
        assets={code: assets[code] for code in sorted(used)},
        totals=totals,
    )


async def _read(engine: AsyncEngine, statement: str, *arguments: Any) -> list[Row[Any]]:
    async def work(conn: AsyncConnection) -> list[Row[Any]]:
        return list(await run(conn, statement, *arguments))

    return await transact(engine, work)


_ACCOUNTS: Final = """
SELECT a.number, a.path, a.asset, a.side, a.owner, a.purpose, a.opened_at,
       coalesce(e.debits_pending, 0)::text AS debits_pending,
       coalesce(e.debits_posted, 0)::text AS debits_posted,
       coalesce(e.credits_pending, 0)::text AS credits_pending,
       coalesce(e.credits_posted, 0)::text AS credits_posted
  FROM ledger.account a
  LEFT JOIN LATERAL (
      SELECT * FROM ledger.entry
       WHERE book = a.book AND account = a.number AND sequence <= $2
       ORDER BY sequence DESC LIMIT 1
  ) e ON true
  LEFT JOIN LATERAL (
      SELECT true AS was FROM ledger.account_event v
       WHERE v.book = a.book AND v.account BETWEEN a.number AND a.number AND v.sequence <= $2
       ORDER BY v.account LIMIT 1
  ) opened ON true
 WHERE a.book = $1 AND a.number > $3
   AND opened.was
 ORDER BY a.number LIMIT $4
"""


def _account(row: Row[Any]) -> ExportAccount:
    return ExportAccount(
        number=row.number,
        path=row.path,
        asset=row.asset,
        side=Side(row.side),
        owner=row.owner,
        purpose=row.purpose,
        opened_on=row.opened_at.astimezone(UTC).date(),
    )


async def stream(
    engine: AsyncEngine, frame: Frame, *, start: int = 1, end: int | None = None
) -> AsyncIterator[tuple[int, list[ExportTransfer | ExportEvent]]]:
    """Yield (last sequence read, transfers and events up to it), in the journal's order.

    The ranges are fixed by *start*, so a file that is cut by them is cut in the same places.
    """
    last = frame.sequence if end is None else min(end, frame.sequence)
    while start <= last:
        stop = min(start + RECORDS_AT_ONCE - 1, last)
        yield stop, await _records(engine, frame, start, stop)
        start = stop + 1


async def _records(
    engine: AsyncEngine, frame: Frame, start: int, stop: int
) -> list[ExportTransfer | ExportEvent]:
    async def work(conn: AsyncConnection) -> tuple[list[Row[Any]], list[Row[Any]]]:
        bounds = (frame.book, start, stop)
        transfers = list(await run(conn, _TRANSFERS, *bounds))
        return transfers, list(await run(conn, _EVENTS, *bounds))

    transfers, events = await transact(engine, work)
    found: list[ExportTransfer | ExportEvent] = [transfer_of(frame, row) for row in transfers]
    if events:
        found += [_event(frame, row) for row in events]
        found.sort(key=lambda item: item.sequence)
    return found


_TRANSFER_COLUMNS: Final = """
SELECT t.sequence, t.id, t.kind, t.flags, t.debit, t.credit, t.amount::text AS amount, t.code,
       t.pending_id, t.reverses, t.purpose, t.timeout_us, t.effective_at, t.reference,
       t.correlation, t.recorded_at, p.amount::text AS held, m.data::text AS metadata
  FROM ledger.transfer t
  LEFT JOIN LATERAL (
      SELECT amount FROM ledger.transfer WHERE id = t.pending_id AND book + 0 = t.book LIMIT 1
  ) p ON true
  LEFT JOIN LATERAL (
      SELECT data FROM ledger.transfer_metadata
       WHERE book = t.book AND sequence = t.sequence LIMIT 1
  ) m ON true
"""

_TRANSFERS: Final = (
    _TRANSFER_COLUMNS + " WHERE t.book = $1 AND t.sequence BETWEEN $2 AND $3 ORDER BY t.sequence"
)

_EVENTS: Final = """
SELECT sequence, kind, account, coalesce(credit_limit::text, '') AS detail, reason, recorded_at
  FROM ledger.account_event
 WHERE book = $1 AND sequence BETWEEN $2 AND $3 AND kind <> 'opened'
UNION ALL
SELECT sequence, kind, NULL, through::text, reason, recorded_at
  FROM ledger.period_event WHERE book = $1 AND sequence BETWEEN $2 AND $3
"""


def transfer_of(frame: Frame, row: Row[Any]) -> ExportTransfer:
    """Return a transfer as it is exported."""
    return ExportTransfer(
        sequence=row.sequence,
        id=row.id,
        kind=Kind(row.kind),
        flags=row.flags,
        debit=frame.accounts[row.debit],
        credit=frame.accounts[row.credit],
        amount=int(row.amount),
        held=int(row.held or 0),
        code=row.code,
        pending_id=row.pending_id,
        reverses=row.reverses,
        purpose=row.purpose,
        timeout_us=row.timeout_us,
        effective_at=None if row.effective_at is None else row.effective_at.astimezone(UTC),
        reference=row.reference,
        correlation=row.correlation,
        recorded_at=row.recorded_at.astimezone(UTC),
        metadata="" if row.metadata is None else canonical_metadata(json.loads(row.metadata)),
    )


def _event(frame: Frame, row: Row[Any]) -> ExportEvent:
    account = None if row.account is None else frame.accounts[row.account]
    detail = row.detail
    if account is not None and detail:
        detail = f"{frame.assets[account.asset].format(int(detail))}"
    return ExportEvent(
        sequence=row.sequence,
        kind=row.kind,
        account=account,
        detail=detail,
        reason=row.reason,
        recorded_at=row.recorded_at.astimezone(UTC),
    )
