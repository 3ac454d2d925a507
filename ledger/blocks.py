"""A block on its way into the database: its tree, its rows, and the order in which PostgreSQL gets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.db import driver
from ledger import merkle, statements
from ledger.arrays import nullable, numbers, texts, times
from ledger.model import PostResult
from ledger.records import pg_time
from ledger.state import Decisions, EffectiveRow, HoldRow
from ledger.store import LockedHead, read_leaves, read_tile_roots

COPIED_FROM: Final = 64
"""Transfers in a block from which on they are COPYed: below, two more exchanges cost more."""

COPY_CHUNK: Final = 65_536
"""Bytes given to COPY at once."""

PIECE: Final = 1_024
"""Records worked at before PostgreSQL is looked after again."""


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
            self.results += [_dated(item, self.head) for item in results[start : start + PIECE]]
            yield


def exhaust(work: Iterator[None]) -> None:
    """Do all of the work at once."""
    for _ in work:
        pass


def _dated(result: PostResult, head: LockedHead) -> PostResult:
    """Return an answer with the block's time, if this block decided it: it may not have been known."""
    if result.sequence is None or result.sequence <= head.sequence or result.recorded_at == head.at:
        return result
    return result._replace(recorded_at=head.at)


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
