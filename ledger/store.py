"""Rows to values and back, for the posting path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
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
from ledger.arrays import nullable, numbers, texts, times
from ledger.errors import BookNotOpen, NotATransaction
from ledger.form import NIL
from ledger.model import (
    AccountEventKind,
    AccountSpec,
    HoldState,
    Kind,
    PeriodEventKind,
    PostResult,
    Side,
)
from ledger.outcome import Outcome
from ledger.records import account_line, period_line, pg_time, refusal_line, transfer_line
from ledger.state import (
    Decisions,
    EffectiveRow,
    HoldRow,
    RefusalRow,
    Request,
    Snapshot,
    Standing,
    TransferRow,
)

COPIED_FROM: Final = 64
"""Transfers in a block from which on they are COPYed: below, two more exchanges cost more."""

COPY_CHUNK: Final = 65_536
"""Bytes given to COPY at once."""

PIECE: Final = 256
"""Records worked at before PostgreSQL is looked after again."""

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


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a block adds to the tree.

    Attributes:
        open_leaves: leaf hashes of the tile that the block leaves incomplete; None: not known.
    """

    root: bytes
    frontier: bytes
    tiles: list[merkle.Tile]
    open_leaves: list[bytes] | None


@dataclass(frozen=True, slots=True)
class Written:
    """A block that was written: its answers, and what the next one may go on from."""

    results: list[PostResult]
    open_leaves: list[bytes] | None


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
    """Begin SQLAlchemy's transaction, so that statements of the driver run inside it."""
    await run(conn, "SELECT 1")


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


async def seal(conn: AsyncConnection, head: LockedHead, lines: Sequence[bytes]) -> Sealed:
    """Add *lines* to the tree; write nothing yet."""
    rows = await _read_open_tiles(conn, head, len(lines), None)
    return _grow(head, rows, merkle.leaf_hashes(lines))


async def _read_open_tiles(
    conn: AsyncConnection, head: LockedHead, added: int, open_leaves: list[bytes] | None
) -> list[list[bytes] | None]:
    """Return the beginnings of the tiles that a block will complete, level by level.

    Args:
        conn: the connection that holds the head's lock.
        head: the locked head.
        added: records of the block.
        open_leaves: leaf hashes of the incomplete tile, if the caller wrote the last block.
    """
    width = merkle.TILE_WIDTH
    rows: list[list[bytes] | None] = [open_leaves]
    count, level = head.sequence, 0
    while count // width < (count + added) // width:
        start = count // width * width
        if level:
            # The hashes of such a tile are the roots of stored ones: keeping them twice would cost
            # more than these rare reads.
            rows.append(await read_tile_roots(conn, head.book, level - 1, start, count))
        elif open_leaves is None:
            rows[0] = await read_leaves(conn, head.book, start, count)
        added = (count + added) // width - count // width
        count, level = count // width, level + 1
    return rows


def _grow(head: LockedHead, rows: list[list[bytes] | None], leaves: list[bytes]) -> Sealed:
    """Return what a block adds to the tree: its root, its frontier, the tiles it completes."""
    width = merkle.TILE_WIDTH
    size = head.sequence + len(leaves)
    frontier = merkle.append(size, head.frontier, leaves)
    tiles: list[merkle.Tile] = []
    count, row = head.sequence, leaves
    for level, earlier in enumerate(rows):
        if count // width == (count + len(row)) // width:
            break
        hashes = (earlier or []) + row
        complete = [
            merkle.tile_of(level, count // width + n, hashes[n * width : (n + 1) * width])
            for n in range(len(hashes) // width)
        ]
        tiles += complete
        count, row = count // width, [tile.root for tile in complete]
    open_leaves = rows[0]
    if size // width > head.sequence // width:
        open_leaves = leaves[len(leaves) - size % width :]
    elif open_leaves is not None:
        open_leaves = open_leaves + leaves
    return Sealed(merkle.frontier_root(frontier), merkle.pack(frontier), tiles, open_leaves)


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


async def write(
    conn: AsyncConnection,
    head: LockedHead,
    decisions: Decisions,
    open_leaves: list[bytes] | None = None,
) -> Written:
    """Write a block: one statement, with two COPYs before it where the block is large.

    Entries hold neither the block's time nor a hash: while PostgreSQL takes them in, the records are
    finished and the tree grows.

    Args:
        conn: the connection that holds the head's lock.
        head: the locked head.
        decisions: what the block holds, decided before its time was known or after.
        open_leaves: leaf hashes of the tree's incomplete tile, if the caller wrote the last block.
    """
    rows = await _read_open_tiles(conn, head, len(decisions.lines), open_leaves)
    block = _Block(head, decisions, rows)
    entries = "\n".join(decisions.entries)
    async with driver(conn) as raw:
        large = len(decisions.lines) >= COPIED_FROM
        if large:
            await _copy(raw, "entry", statements.ENTRY_COLUMNS, entries, block.work())
            await _copy(raw, "transfer", statements.TRANSFER_COLUMNS, block.transfers)
        else:
            exhaust(block.work())
        parts: dict[str, Sequence[str]] = {
            "transfers": [block.transfers] if block.transfers and not large else (),
            "entries": [entries] if entries and not large else (),
            **decisions.balances,
            "holds": _new_hold_arrays(decisions.new_holds),
            "resolved": _resolved_arrays(decisions.resolved_holds),
            "refusals": [block.refusals] if block.refusals else (),
            "metadata": _metadata_arrays(decisions.metadata),
            "effective": _effective_arrays(decisions.effective),
        }
        present = tuple(name for name, arrays in parts.items() if arrays)
        sealed = block.sealed
        await raw.execute(
            statements.write_statement(present),
            head.book,
            head.height + 1,
            head.at,
            head.sequence + 1,
            decisions.sequence,
            sealed.root,
            head.account_count,
            sealed.frontier,
            decisions.imported_through,
            *(array for name in present for array in parts[name]),
        )
        await write_tiles(raw, head.book, sealed.tiles)
    return Written(block.results, sealed.open_leaves)


class _Block:
    """The part of writing a block that can be done while PostgreSQL is busy, in small pieces."""

    transfers: str
    refusals: str
    sealed: Sealed

    def __init__(
        self, head: LockedHead, decisions: Decisions, rows: list[list[bytes] | None]
    ) -> None:
        self.head = head
        self.decisions = decisions
        self.rows = rows
        self.results: list[PostResult] = []

    def work(self) -> Iterator[None]:
        """Finish the records, grow the tree, date the answers; a pause after each piece."""
        time = pg_time(self.head.at)
        records = [f"{line}\t{time}" for line in self.decisions.lines]
        transfers = [line[9:] for line in records if line.startswith("transfer\t")]
        self.transfers = "\n".join(transfers)
        self.refusals = ""
        if len(transfers) < len(records):
            self.refusals = "\n".join(
                [line[8:] for line in records if line.startswith("refusal\t")]
            )
        yield
        leaves: list[bytes] = []
        for start in range(0, len(records), PIECE):
            leaves += merkle.leaf_hashes([line.encode() for line in records[start : start + PIECE]])
            yield
        self.sealed = _grow(self.head, self.rows, leaves)
        yield
        results = self.decisions.results
        for start in range(0, len(results), PIECE):
            self.results += [_dated(item, self.head.at) for item in results[start : start + PIECE]]
            yield


def exhaust(work: Iterator[None]) -> None:
    """Do all of the work at once."""
    for _ in work:
        pass


def _dated(result: PostResult, at: datetime) -> PostResult:
    """Return an answer with the block's time, if this block decided it: it may not have been known."""
    if result.sequence is None or result.replayed or result.recorded_at == at:
        return result
    return PostResult(result.outcome, result.transfer_id, result.sequence, at, result.amount)


async def _copy(
    raw: asyncpg.Connection,
    table: str,
    columns: Sequence[str],
    rows: str,
    meanwhile: Iterator[None] | None = None,
) -> None:
    """COPY rows; *meanwhile* is worked at while PostgreSQL takes in what it was sent."""
    await raw.copy_to_table(
        table,
        source=_chunks(rows.encode(), meanwhile or iter(())),
        columns=columns,
        schema_name="ledger",
    )


async def _chunks(data: bytes, meanwhile: Iterator[None]) -> AsyncIterator[bytes]:
    for start in range(0, len(data), COPY_CHUNK):
        yield data[start : start + COPY_CHUNK]
        next(meanwhile, None)
    for _ in meanwhile:
        # Others have their turn: among them the one that reads what PostgreSQL answers.
        await asyncio.sleep(0)


def _new_hold_arrays(rows: Sequence[HoldRow]) -> Sequence[str]:
    if not rows:
        return ()
    return (
        numbers([row.id for row in rows]),
        numbers([row.sequence for row in rows]),
        numbers([row.debit for row in rows]),
        numbers([row.credit for row in rows]),
        numbers([row.amount for row in rows]),
        numbers([row.state for row in rows]),
        numbers([row.flags for row in rows]),
        texts([row.purpose for row in rows]),
        nullable([row.correlation for row in rows]),
        times([row.expires_at for row in rows]),
        nullable([row.resolved_sequence for row in rows]),
    )


def _resolved_arrays(rows: Sequence[HoldRow]) -> Sequence[str]:
    if not rows:
        return ()
    return (
        numbers([row.id for row in rows]),
        numbers([row.state for row in rows]),
        nullable([row.resolved_sequence for row in rows]),
    )


def _metadata_arrays(rows: Sequence[tuple[int, str]]) -> Sequence[str]:
    if not rows:
        return ()
    return numbers([sequence for sequence, _ in rows]), texts([text for _, text in rows])


def _effective_arrays(rows: Sequence[EffectiveRow]) -> Sequence[str]:
    return [numbers(column) for column in zip(*rows, strict=True)]


async def write_tiles(raw: asyncpg.Connection, book: int, tiles: Sequence[merkle.Tile]) -> None:
    """Write completed tiles, if there are any."""
    if not tiles:
        return
    await raw.execute(
        statements.WRITE_TILES,
        book,
        [tile.level for tile in tiles],
        [tile.index for tile in tiles],
        [tile.hashes for tile in tiles],
        [tile.root for tile in tiles],
    )


async def write_block(
    raw: asyncpg.Connection,
    head: LockedHead,
    sealed: Sealed,
    *,
    records: int,
    opened: int = 0,
    closed_through: date | None = None,
) -> None:
    """Write a block of other records than transfers: *records* of them, *opened* new accounts."""
    await raw.execute(
        statements.WRITE_BLOCK,
        head.book,
        head.height + 1,
        head.at,
        head.sequence + 1,
        head.sequence + records,
        sealed.root,
        head.account_count + opened,
        sealed.frontier,
        closed_through,
    )
    await write_tiles(raw, head.book, sealed.tiles)
