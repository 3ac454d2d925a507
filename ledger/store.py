"""Rows to values and back, for the posting path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger import merkle, statements
from ledger.arrays import nullable, numbers, texts, times
from ledger.errors import BookNotOpen, NotATransaction
from ledger.model import AccountEventKind, AccountSpec, HoldState, Kind, Side
from ledger.outcome import Outcome
from ledger.records import account_line, refusal_line, to_unix_us, transfer_line
from ledger.state import (
    AccountState,
    Columns,
    Decisions,
    HoldRow,
    RefusalRow,
    Snapshot,
    TransferRow,
)


@dataclass(frozen=True, slots=True)
class LockedHead:
    """A book's head, locked by this transaction until it ends."""

    book: int
    entity: str
    sequence: int
    height: int
    block_time: datetime
    account_count: int
    frontier: list[bytes]
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a block adds to the tree."""

    root: bytes
    frontier: bytes
    tiles: list[merkle.Tile]


async def run(conn: AsyncConnection, statement: str, *arguments: Any) -> Sequence[Row[Any]]:
    """Run a statement of the posting path in SQLAlchemy's transaction and return its rows."""
    result = await conn.exec_driver_sql(statement, arguments)
    return result.fetchall() if result.returns_rows else ()


async def lock_head(conn: AsyncConnection, book: int) -> LockedHead:
    """Lock the head. Balances and the clock are to be read in a *later* statement.

    Under READ COMMITTED a statement sees what was committed when it began, which for this one may
    be before it waited; the next one sees everything up to the lock. Any other isolation level
    would still see the past, so it is refused.
    """
    rows = await run(conn, statements.LOCK_HEAD, book)
    if not rows:
        raise BookNotOpen(f"there is no book {book}", remedy="Open it with open_book")
    row = rows[0]
    if row.isolation != "read committed":
        raise NotATransaction(
            f"posting cannot run at isolation level {row.isolation}", remedy="Use READ COMMITTED"
        )
    return LockedHead(
        book=book,
        entity=row.entity,
        sequence=row.sequence,
        height=row.height,
        block_time=row.block_time.astimezone(UTC),
        account_count=row.account_count,
        frontier=merkle.unpack(row.frontier),
        began_at=row.began_at,
    )


async def read_clock_and_due(
    conn: AsyncConnection, head: LockedHead, now: datetime | None, due_max: int
) -> tuple[datetime, dict[UUID, HoldRow]]:
    """Return the block's time (never before the last block's) and the holds that are due then."""
    rows = await run(conn, statements.READ_CLOCK_AND_DUE, head.book, head.block_time, now, due_max)
    if rows[0].began_at != head.began_at:
        raise NotATransaction(
            "the connection commits every statement by itself",
            remedy="Post inside a transaction: kernel.db.transact",
        )
    due = {
        row.id: HoldRow(
            row.id,
            row.sequence,
            row.debit,
            row.credit,
            int(row.amount),
            HoldState(row.state),
            row.purpose,
            row.correlation,
            row.expires_at,
            row.resolved_sequence,
            row.flags,
        )
        for row in rows
        if row.id is not None
    }
    return rows[0].at.astimezone(UTC), due


async def read_snapshot(
    conn: AsyncConnection,
    head: LockedHead,
    *,
    ids: list[UUID],
    keys: set[tuple[str, str]],
    due: dict[UUID, HoldRow],
) -> Snapshot:
    """Read what a batch touches.

    Args:
        conn: the connection that holds the head's lock.
        head: the locked head.
        ids: of the transfers asked for, the holds they resolve, the transfers they reverse.
        keys: (path, asset) of the accounts they name.
        due: holds that this block expires first.
    """
    transfers: dict[UUID, TransferRow] = {}
    refusals: dict[UUID, RefusalRow] = {}
    holds = dict(due)
    reversed_ids: set[UUID] = set()
    for row in await run(conn, statements.READ_TRANSFERS, head.book, numbers(ids)):
        if row.id is not None:
            found = transfer_row(row, None if row.held is None else int(row.held))
            transfers[found.id] = found
            if row.reversed_by is not None:
                reversed_ids.add(found.id)
        if row.hold_id is not None:
            holds[row.hold_id] = _hold_row(row)
        if row.refused_id is not None:
            refusals[row.refused_id] = RefusalRow(
                row.refused_sequence,
                row.refused_id,
                Outcome(row.refused_outcome),
                row.refused_at.astimezone(UTC),
            )
    touched = {n for t in transfers.values() for n in (t.debit, t.credit)}
    touched |= {n for h in holds.values() for n in (h.debit, h.credit)}
    return Snapshot(
        sequence=head.sequence,
        accounts=await read_accounts(conn, head.book, keys, touched),
        transfers=transfers,
        refusals=refusals,
        holds=holds,
        reversed_ids=frozenset(reversed_ids),
        due=tuple(due),
    )


async def read_accounts(
    conn: AsyncConnection, book: int, keys: Iterable[tuple[str, str]], by_number: Iterable[int] = ()
) -> dict[int, AccountState]:
    """Return accounts with their balances, by number."""
    pairs = list(keys)
    rows = await run(
        conn,
        statements.READ_ACCOUNTS,
        book,
        texts([path for path, _ in pairs]),
        texts([asset for _, asset in pairs]),
        numbers(list(by_number)),
    )
    return {row[0]: _account_state(row) for row in rows}


def _account_state(row: Sequence[Any]) -> AccountState:
    # By position, in the order of the statement: this runs twice for each transfer.
    columns = Columns(int(row[8]), int(row[9]), int(row[10]), int(row[11]), row[7], row[6])
    return AccountState(row[0], row[1], row[2], row[3], row[4], row[5], columns)


def transfer_row(row: Row[Any], held: int | None = None) -> TransferRow:
    """Return a transfer as stored."""
    return TransferRow(
        sequence=row.sequence,
        id=row.id,
        kind=Kind(row.kind),
        flags=row.flags,
        debit=row.debit,
        credit=row.credit,
        amount=int(row.amount),
        code=row.code,
        pending_id=row.pending_id,
        reverses=row.reverses,
        purpose=row.purpose,
        timeout_us=row.timeout_us,
        effective_at=None if row.effective_at is None else row.effective_at.astimezone(UTC),
        reference=row.reference,
        correlation=row.correlation,
        metadata_hash=row.metadata_hash,
        recorded_at=row.recorded_at.astimezone(UTC),
        held=held,
    )


def _hold_row(row: Row[Any]) -> HoldRow:
    return HoldRow(
        row.hold_id,
        row.hold_sequence,
        row.hold_debit,
        row.hold_credit,
        int(row.held),
        HoldState(row.hold_state),
        row.hold_purpose,
        row.hold_correlation,
        row.expires_at,
        row.resolved_sequence,
        row.hold_flags,
    )


def lines_of(book: int, records: Sequence[TransferRow | RefusalRow], at: datetime) -> list[bytes]:
    """Return the canonical lines of a block's records."""
    time_us = to_unix_us(at)
    return [
        transfer_line(book, record, time_us)
        if isinstance(record, TransferRow)
        else refusal_line(book, record)
        for record in records
    ]


async def seal(conn: AsyncConnection, head: LockedHead, lines: Sequence[bytes]) -> Sealed:
    """Add *lines* to the tree; write nothing yet."""
    leaves = [merkle.leaf_hash(line) for line in lines]
    size = head.sequence + len(leaves)
    frontier = merkle.append(size, head.frontier, leaves)
    tiles: list[merkle.Tile] = []
    width = merkle.TILE_WIDTH
    if size // width > head.sequence // width:
        tiles = await _complete_tiles(conn, head, leaves)
    return Sealed(merkle.frontier_root(frontier), merkle.pack(frontier), tiles)


async def _complete_tiles(
    conn: AsyncConnection, head: LockedHead, leaves: list[bytes]
) -> list[merkle.Tile]:
    """Return the tiles that *leaves* complete, on every level.

    The hashes of a tile's beginning, from earlier blocks, are made again from the records (level 0)
    or read as the roots of stored tiles: keeping them twice would cost more than these rare reads.
    """
    width = merkle.TILE_WIDTH
    count, level, row = head.sequence, 0, leaves
    tiles: list[merkle.Tile] = []
    while row and (count + len(row)) // width > count // width:
        start = count // width * width
        if level == 0:
            earlier = await read_leaves(conn, head.book, start, count)
        else:
            earlier = await read_tile_roots(conn, head.book, level - 1, start, count)
        hashes = earlier + row
        complete = [
            merkle.tile_of(level, start // width + n, hashes[n * width : (n + 1) * width])
            for n in range(len(hashes) // width)
        ]
        tiles += complete
        count, level, row = count // width, level + 1, [tile.root for tile in complete]
    return tiles


async def read_leaves(conn: AsyncConnection, book: int, start: int, end: int) -> list[bytes]:
    """Return the leaf hashes ``[start, end)``, made from the records."""
    return [merkle.leaf_hash(line) for line in await read_lines(conn, book, start, end)]


async def read_lines(conn: AsyncConnection, book: int, start: int, end: int) -> list[bytes]:
    """Return the canonical lines of records ``[start, end)``, counted from 0; absent ones are left out."""
    if start >= end:
        return []
    bounds = (book, start + 1, end)
    lines: dict[int, bytes] = {}
    for row in await run(conn, statements.READ_TRANSFER_RANGE, *bounds):
        record = transfer_row(row)
        lines[record.sequence] = transfer_line(book, record, to_unix_us(record.recorded_at))
    for row in await run(conn, statements.READ_REFUSAL_RANGE, *bounds):
        refusal = RefusalRow(row.sequence, row.id, row.outcome, row.recorded_at)
        lines[row.sequence] = refusal_line(book, refusal)
    for row in await run(conn, statements.READ_EVENT_RANGE, *bounds):
        spec = AccountSpec(
            path=row.path,
            asset=row.asset,
            side=Side(row.side),
            owner=row.owner,
            debits_must_not_exceed_credits=row.debits_must_not_exceed_credits,
            credits_must_not_exceed_debits=row.credits_must_not_exceed_debits,
        )
        kind = AccountEventKind(row.kind)
        lines[row.sequence] = account_line(
            book, row.sequence, row.recorded_at, row.account, kind, spec, row.reason
        )
    return [lines[sequence] for sequence in sorted(lines)]


async def read_tile_roots(
    conn: AsyncConnection, book: int, level: int, start: int, end: int
) -> list[bytes]:
    """Return the roots of stored tiles ``[start, end)`` of a level."""
    if start >= end:
        return []
    rows = await run(conn, statements.READ_TILE_ROOTS, book, level, start, end - 1)
    return [row.root for row in rows]


async def write(
    conn: AsyncConnection, head: LockedHead, decisions: Decisions, sealed: Sealed, at: datetime
) -> None:
    """Write a block: one statement, and one more where tiles are complete."""
    transfers = [record for record in decisions.records if isinstance(record, TransferRow)]
    refusals = [record for record in decisions.records if isinstance(record, RefusalRow)]
    await run(
        conn,
        statements.WRITE,
        head.book,
        head.height + 1,
        at,
        head.sequence + 1,
        decisions.sequence,
        sealed.root,
        head.account_count,
        sealed.frontier,
        *_transfer_arrays(transfers),
        *_entry_arrays(decisions),
        *_balance_arrays(decisions),
        *_hold_arrays(decisions),
        numbers([row.sequence for row in refusals]),
        numbers([row.id for row in refusals]),
        numbers([row.outcome for row in refusals]),
        numbers([sequence for sequence, _ in decisions.metadata]),
        texts([text for _, text in decisions.metadata]),
    )
    await write_tiles(conn, head.book, sealed.tiles)


def _transfer_arrays(rows: Sequence[TransferRow]) -> list[str]:
    columns = list(zip(*rows, strict=True)) or [()] * len(TransferRow._fields)
    return [
        numbers(columns[0]),
        numbers(columns[1]),
        numbers([int(kind) for kind in columns[2]]),
        *(numbers(columns[at]) for at in range(3, 7)),
        texts(columns[7]),
        nullable(columns[8]),
        nullable(columns[9]),
        texts(columns[10]),
        nullable(columns[11]),
        times(columns[12]),
        texts(columns[13]),
        nullable(columns[14]),
        texts(columns[15]),
    ]


def _entry_arrays(decisions: Decisions) -> list[str]:
    columns = zip(*decisions.entries, strict=True) if decisions.entries else [()] * 7
    return [numbers(column) for column in columns]


def _balance_arrays(decisions: Decisions) -> list[str]:
    last = {entry.account: entry.sequence for entry in decisions.entries}
    rows = [decisions.balances[number] for number in last]
    dp, d, cp, c, versions, closed = zip(*rows, strict=True) if rows else [()] * 6
    return [numbers(column) for column in (last, last.values(), versions, closed, dp, d, cp, c)]


def _hold_arrays(decisions: Decisions) -> list[str]:
    new, resolved = decisions.new_holds, decisions.resolved_holds
    return [
        numbers([row.id for row in new]),
        numbers([row.sequence for row in new]),
        numbers([row.debit for row in new]),
        numbers([row.credit for row in new]),
        numbers([row.amount for row in new]),
        numbers([row.state for row in new]),
        numbers([row.flags for row in new]),
        texts([row.purpose for row in new]),
        nullable([row.correlation for row in new]),
        times([row.expires_at for row in new]),
        nullable([row.resolved_sequence for row in new]),
        numbers([row.id for row in resolved]),
        numbers([row.state for row in resolved]),
        nullable([row.resolved_sequence for row in resolved]),
    ]


async def write_tiles(conn: AsyncConnection, book: int, tiles: Sequence[merkle.Tile]) -> None:
    """Write completed tiles, if there are any."""
    if not tiles:
        return
    await run(
        conn,
        statements.WRITE_TILES,
        book,
        [tile.level for tile in tiles],
        [tile.index for tile in tiles],
        [tile.hashes for tile in tiles],
        [tile.root for tile in tiles],
    )


async def write_block(
    conn: AsyncConnection,
    head: LockedHead,
    sealed: Sealed,
    at: datetime,
    *,
    records: int,
    opened: int,
) -> None:
    """Write a block of account events: *records* of them, *opened* new accounts."""
    await run(
        conn,
        statements.WRITE_BLOCK,
        head.book,
        head.height + 1,
        at,
        head.sequence + 1,
        head.sequence + records,
        sealed.root,
        head.account_count + opened,
        sealed.frontier,
    )
    await write_tiles(conn, head.book, sealed.tiles)
