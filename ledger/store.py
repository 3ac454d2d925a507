"""Rows to values and back, for the posting path."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.db import driver
from ledger import merkle, statements
from ledger.arrays import numbers, texts
from ledger.errors import BookNotOpen, NotATransaction
from ledger.form import NIL
from ledger.model import (
    AccountEventKind,
    AccountSpec,
    HoldState,
    Kind,
    PeriodEventKind,
    Side,
)
from ledger.outcome import Outcome
from ledger.records import account_line, period_line, refusal_line, transfer_line
from ledger.state import (
    HoldRow,
    RefusalRow,
    Request,
    Snapshot,
    Standing,
    TransferRow,
)

CLOCK_BEHIND_MAX: Final = timedelta(seconds=5)
"""A clock further behind the last block's time is wrong, or that block's was: an alarm."""

NOTHING: Final = "{}"
"""An array literal without elements."""

LOG: Final = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LockedHead:
    """A book's head, locked by this transaction until it ends, and what was read once it was.

    Attributes:
        at: time of the block to be written, never before the last block's.
        due: ids of the holds that are due then, in (deadline, sequence) order.
        spent: those of the ids asked for that are recorded or refused.
        accounts: the accounts asked for that exist.
    """

    book: int
    entity: str
    sequence: int
    height: int
    block_time: datetime
    account_count: int
    frontier: list[bytes]
    closed_through: date | None
    imported_through: datetime | None
    at: datetime
    due: tuple[UUID, ...]
    spent: tuple[UUID, ...]
    accounts: tuple[Standing, ...]


async def run(conn: AsyncConnection, statement: str, *arguments: Any) -> Sequence[Row[Any]]:
    """Run a statement in SQLAlchemy's transaction and return its rows."""
    result = await conn.exec_driver_sql(statement, arguments)
    return result.fetchall() if result.returns_rows else ()


async def lock(
    conn: AsyncConnection,
    book: int,
    now: datetime | None,
    *,
    due_max: int = 0,
    ids: str = NOTHING,
    keys: Iterable[tuple[str, str]] = (),
) -> LockedHead:
    """Lock the head, then read what a posting needs first: one exchange.

    Args:
        conn: a connection in a READ COMMITTED transaction.
        book: the book.
        now: the caller's time; None: the database's clock.
        due_max: due holds wanted, at most.
        ids: of the transfers asked for, as an array literal.
        keys: (path, asset) of the accounts wanted.

    Raises:
        BookNotOpen: there is no such book.
        NotATransaction: the transaction would not see what others have just committed.
    """
    pairs = list(keys)
    rows = await run(
        conn,
        statements.LOCK_AND_READ,
        book,
        now,
        due_max,
        ids,
        texts([path for path, _ in pairs]),
        texts([asset for _, asset in pairs]),
    )
    row = rows[0]
    if row.sequence is None:
        raise BookNotOpen(f"there is no book {book}", remedy="Open it with open_book")
    # Any other level would still see the past behind the lock.
    if row.isolation != "read committed":
        raise NotATransaction(
            f"posting cannot run at isolation level {row.isolation}", remedy="Use READ COMMITTED"
        )
    async with driver(conn) as raw:
        if not raw.is_in_transaction():
            raise NotATransaction(
                "the connection commits every statement by itself",
                remedy="Post inside a transaction: kernel.db.transact",
            )
    _watch_clock(book, row.block_time, row.clock)
    return LockedHead(
        book=book,
        entity=row.entity,
        sequence=row.sequence,
        height=row.height,
        block_time=row.block_time.astimezone(UTC),
        account_count=row.account_count,
        frontier=merkle.unpack(row.frontier),
        closed_through=row.closed_through,
        imported_through=row.imported_through,
        at=row.at.astimezone(UTC),
        due=tuple(row.due or ()),
        spent=tuple(row.spent or ()),
        accounts=tuple(_standing(line) for line in row.accounts or ()),
    )


def _watch_clock(book: int, block_time: datetime, clock: datetime) -> None:
    behind = block_time - clock
    if behind > CLOCK_BEHIND_MAX:
        LOG.warning(
            "ledger.clock_behind",
            book=book,
            seconds=behind.total_seconds(),
            block_time=block_time.isoformat(),
        )


def snapshot_of(head: LockedHead) -> Snapshot:
    """Return a snapshot of a locked book that knows no transfer yet."""
    snapshot = Snapshot(
        head.book,
        head.sequence,
        head.block_time,
        due=head.due,
        closed_through=head.closed_through,
        imported_through=head.imported_through,
    )
    snapshot.add(head.accounts)
    return snapshot


async def complete(
    raw: asyncpg.Connection, snapshot: Snapshot, head: LockedHead, batch: Sequence[Request]
) -> None:
    """Add to a snapshot what a batch needs and it does not know: history, holds, accounts.

    Args:
        raw: the driver's connection, in the transaction that holds the head's lock.
        snapshot: of the locked book.
        head: the locked head.
        batch: what is to be decided.
    """
    snapshot.due = head.due
    ids = {*head.spent, *head.due, *references_of(batch)}
    if ids:
        touched = await read_history(raw, snapshot, ids)
        await read_accounts_by_number(raw, snapshot, touched)
    await read_accounts(raw, snapshot, keys_of(batch))


def ids_of(batch: Iterable[Request]) -> str:
    """Return the ids that a batch asks for, as an array literal."""
    return "{" + ",".join([item.id_text for item in batch if item.transfer.id != NIL]) + "}"


def references_of(batch: Iterable[Request]) -> set[UUID]:
    """Return the ids of the holds that a batch resolves and of the transfers that it reverses."""
    return {
        found
        for item in batch
        if not item.is_simple
        for found in (item.transfer.pending_id, item.transfer.reverses)
        if found is not None and found != NIL
    }


def keys_of(batch: Iterable[Request]) -> set[tuple[str, str]]:
    """Return (path, asset) of the accounts that a batch names."""
    keys: set[tuple[str, str]] = set()
    for item in batch:
        keys.add(item.debit_key)
        keys.add(item.credit_key)
    return keys


async def begin(conn: AsyncConnection) -> None:
    """Begin SQLAlchemy's transaction, so that statements of the driver run inside it, and by key."""
    await run(conn, statements.KEYS_ONLY)


async def read_history(
    raw: asyncpg.Connection, snapshot: Snapshot, ids: Iterable[UUID]
) -> set[int]:
    """Add what is recorded under *ids* to the snapshot; return the accounts it speaks of."""
    touched: set[int] = set()
    for row in await raw.fetch(statements.READ_TRANSFERS, snapshot.book, numbers(ids)):
        if row["id"] is not None:
            held = row["held"]
            found = transfer_row(row, None if held is None else int(held))
            snapshot.transfers[found.id] = found
            touched |= {found.debit, found.credit}
            if row["reversed_by"] is not None:
                snapshot.reversed_ids.add(found.id)
        if row["hold_id"] is not None:
            snapshot.holds[row["hold_id"]] = _hold_row(row)
            touched |= {row["hold_debit"], row["hold_credit"]}
        if row["refused_id"] is not None:
            snapshot.refusals[row["refused_id"]] = RefusalRow(
                row["refused_sequence"],
                row["refused_id"],
                Outcome(row["refused_outcome"]),
                row["refused_at"].astimezone(UTC),
            )
    return touched


async def read_accounts(
    raw: asyncpg.Connection, snapshot: Snapshot, keys: Iterable[tuple[str, str]]
) -> None:
    """Add accounts with their balances to the snapshot, those it does not know."""
    pairs = [key for key in keys if key not in snapshot.by_key]
    if pairs:
        columns = texts([path for path, _ in pairs]), texts([asset for _, asset in pairs])
        rows = await raw.fetch(statements.READ_ACCOUNTS, snapshot.book, *columns)
        snapshot.add(_standing(row[0]) for row in rows)


async def read_accounts_by_number(
    raw: asyncpg.Connection, snapshot: Snapshot, accounts: Iterable[int]
) -> None:
    """Add accounts with their balances to the snapshot, those it does not know."""
    missing = [number for number in accounts if number not in snapshot.accounts]
    if missing:
        rows = await raw.fetch(statements.READ_ACCOUNTS_BY_NUMBER, snapshot.book, numbers(missing))
        snapshot.add(_standing(row[0]) for row in rows)


def _standing(line: str) -> Standing:
    """Return an account from its line (`ledger.statements`, lock_and_read)."""
    (
        number,
        path,
        asset,
        opened_at,
        debits_capped,
        credits_capped,
        limit,
        frozen,
        closed,
        version,
        sequence,
        debits_pending,
        debits_posted,
        credits_pending,
        credits_posted,
    ) = line.split("\t")
    account = Standing(
        int(number),
        path,
        asset,
        opened_at,
        debits_capped=debits_capped == "t",
        credits_capped=credits_capped == "t",
    )
    account.credit_limit = int(limit)
    account.frozen = frozen == "t"
    account.closed = closed == "t"
    account.version = int(version)
    account.sequence = int(sequence)
    account.debits_pending = int(debits_pending)
    account.debits_posted = int(debits_posted)
    account.credits_pending = int(credits_pending)
    account.credits_posted = int(credits_posted)
    return account


def transfer_row(row: Any, held: int | None = None) -> TransferRow:
    """Return a transfer as stored, from a row of the driver or of SQLAlchemy (its mapping)."""
    effective_at = row["effective_at"]
    return TransferRow(
        sequence=row["sequence"],
        id=row["id"],
        kind=Kind(row["kind"]),
        flags=row["flags"],
        debit=row["debit"],
        credit=row["credit"],
        amount=int(row["amount"]),
        code=row["code"],
        pending_id=row["pending_id"],
        reverses=row["reverses"],
        purpose=row["purpose"],
        timeout_us=row["timeout_us"],
        effective_at=None if effective_at is None else effective_at.astimezone(UTC),
        reference=row["reference"],
        correlation=row["correlation"],
        metadata_hash=row["metadata_hash"],
        recorded_at=row["recorded_at"].astimezone(UTC),
        held=held,
    )


def _hold_row(row: Any) -> HoldRow:
    return HoldRow(
        row["hold_id"],
        row["hold_sequence"],
        row["hold_debit"],
        row["hold_credit"],
        int(row["held"]),
        HoldState(row["hold_state"]),
        row["hold_purpose"],
        row["hold_correlation"],
        row["expires_at"],
        row["resolved_sequence"],
        row["hold_flags"],
    )


def spec_of(row: Any) -> AccountSpec:
    """Return what an account is, from the columns of ``ledger.account`` and its credit limit."""
    effective_at = row["effective_at"]
    return AccountSpec(
        path=row["path"],
        asset=row["asset"],
        side=Side(row["side"]),
        owner=row["owner"],
        debits_must_not_exceed_credits=row["debits_must_not_exceed_credits"],
        credits_must_not_exceed_debits=row["credits_must_not_exceed_debits"],
        credit_limit=int(row["credit_limit"]),
        purpose=row["purpose"],
        metadata=json.loads(row["metadata"]),
        effective_at=None if effective_at is None else effective_at.astimezone(UTC),
    )


async def read_leaves(conn: AsyncConnection, book: int, start: int, end: int) -> list[bytes]:
    """Return the leaf hashes ``[start, end)``, made from the records."""
    return merkle.leaf_hashes(await read_lines(conn, book, start, end))


async def read_lines(conn: AsyncConnection, book: int, start: int, end: int) -> list[bytes]:
    """Return the canonical lines of records ``[start, end)``, counted from 0; absent ones are left out."""
    if start >= end:
        return []
    bounds = (book, start + 1, end)
    lines: dict[int, bytes] = {}
    for row in await _mappings(conn, statements.READ_TRANSFER_RANGE, *bounds):
        lines[row["sequence"]] = transfer_line(book, transfer_row(row))
    for row in await _mappings(conn, statements.READ_REFUSAL_RANGE, *bounds):
        refusal = RefusalRow(row["sequence"], row["id"], row["outcome"], row["recorded_at"])
        lines[row["sequence"]] = refusal_line(book, refusal)
    for row in await _mappings(conn, statements.READ_EVENT_RANGE, *bounds):
        lines[row["sequence"]] = account_line(
            book,
            row["sequence"],
            row["recorded_at"],
            row["account"],
            AccountEventKind(row["kind"]),
            spec_of(row),
            row["reason"],
        )
    for row in await _mappings(conn, statements.READ_PERIOD_RANGE, *bounds):
        lines[row["sequence"]] = period_line(
            book,
            row["sequence"],
            row["recorded_at"],
            PeriodEventKind(row["kind"]),
            row["through"],
            row["reason"],
            row["proposed_by"],
            row["approved_by"],
        )
    return [lines[sequence] for sequence in sorted(lines)]


async def _mappings(conn: AsyncConnection, statement: str, *arguments: Any) -> list[Any]:
    return [row._mapping for row in await run(conn, statement, *arguments)]  # noqa: SLF001  public


async def read_tile_roots(
    conn: AsyncConnection, book: int, level: int, start: int, end: int
) -> list[bytes]:
    """Return the roots of stored tiles ``[start, end)`` of a level."""
    if start >= end:
        return []
    rows = await run(conn, statements.READ_TILE_ROOTS, book, level, start, end - 1)
    return [row.root for row in rows]
