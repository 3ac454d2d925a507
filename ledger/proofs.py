"""Proofs read from the database: that a transfer is in the journal, that the journal only grew.

The pure algorithms of `ledger.merkle` ask for the roots of complete subtrees. They are run twice:
once to learn which ones they need, and again with those read from tiles and records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from ledger import merkle
from ledger.checkpoint import Checkpoint
from ledger.queries import head
from ledger.store import read_leaves, read_lines, read_tile_roots, run


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusionProof:
    """That *record* is leaf *index* (from 0) of the tree of *size* leaves with that *root*."""

    record: bytes
    index: int
    size: int
    root: bytes
    path: tuple[bytes, ...]

    def holds(self) -> bool:
        """Check the proof by itself; the root is to be compared with a checkpoint's."""
        leaf = merkle.leaf_hash(self.record)
        return merkle.verify_inclusion(leaf, self.index, self.size, self.path, self.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyProof:
    """That the tree of size *second* begins with that of size *first*."""

    first: int
    second: int
    first_root: bytes
    second_root: bytes
    path: tuple[bytes, ...]

    def holds(self) -> bool:
        """Check the proof by itself; the roots are to be compared with two checkpoints'."""
        return merkle.verify_consistency(
            self.first, self.second, self.path, self.first_root, self.second_root
        )


async def make_checkpoint(
    conn: AsyncConnection, book: int, *, origin: str, size: int | None = None
) -> Checkpoint:
    """Return the checkpoint of the book now, or when it had *size* records; unsigned."""
    if size is None:
        now = await head(conn, book)
        return Checkpoint(origin, now.sequence, now.root)
    return Checkpoint(origin, size, await root_at(conn, book, size))


async def root_at(conn: AsyncConnection, book: int, size: int) -> bytes:
    """Return the root of the tree over the first *size* records."""
    await _require_size(conn, book, size)
    if size == 0:
        return merkle.EMPTY_ROOT

    def root(subtree: merkle.SubtreeRoot) -> list[bytes]:
        return [merkle.root_of(0, size, subtree)]

    return (await _resolve(conn, book, root))[0]


async def prove_inclusion(
    conn: AsyncConnection, book: int, transfer_id: UUID, *, size: int | None = None
) -> InclusionProof:
    """Prove that a transfer is in the journal, now or as of *size* records.

    Raises:
        Refused: the transfer is not in the journal, or not among the first *size* records.
    """
    size = (await head(conn, book)).sequence if size is None else size
    rows = await run(
        conn,
        "SELECT sequence FROM ledger.transfer WHERE book + 0 = $1 AND id = $2",
        book,
        transfer_id,
    )
    if not rows or rows[0][0] > size:
        raise Refused(f"transfer {transfer_id} is not among the first {size} records")
    index = rows[0][0] - 1
    record = (await read_lines(conn, book, index, index + 1))[0]
    path = await _resolve(conn, book, lambda sub: merkle.inclusion_proof(index, size, sub))
    return InclusionProof(
        record=record,
        index=index,
        size=size,
        root=await root_at(conn, book, size),
        path=tuple(path),
    )


async def prove_consistency(
    conn: AsyncConnection, book: int, first: int, second: int
) -> ConsistencyProof:
    """Prove that the journal of *second* records begins with that of *first* records."""
    await _require_size(conn, book, second)
    if not 0 <= first <= second:
        raise BadInput(f"{first} records are not the beginning of {second}")
    path = await _resolve(conn, book, lambda sub: merkle.consistency_proof(first, second, sub))
    return ConsistencyProof(
        first=first,
        second=second,
        first_root=await root_at(conn, book, first),
        second_root=await root_at(conn, book, second),
        path=tuple(path),
    )


async def _require_size(conn: AsyncConnection, book: int, size: int) -> None:
    now = await head(conn, book)
    if not 0 <= size <= now.sequence:
        raise BadInput(f"book {book} has {now.sequence} records, not {size}")


async def _resolve(
    conn: AsyncConnection, book: int, work: Callable[[merkle.SubtreeRoot], list[bytes]]
) -> list[bytes]:
    needed: dict[tuple[int, int], bytes] = {}

    def note(level: int, index: int) -> bytes:
        needed[level, index] = b""
        return b""

    work(note)
    for level, index in needed:
        needed[level, index] = await _subtree(conn, book, level, index)
    return work(lambda level, index: needed[level, index])


async def _subtree(conn: AsyncConnection, book: int, level: int, index: int) -> bytes:
    """Return the root of a complete subtree: over a part of one row of hashes of a tile's level."""
    tile_level, rest = divmod(level, merkle.TILE_HEIGHT)
    start, end = index << rest, (index + 1) << rest
    if tile_level:
        return merkle.tree_hash(await read_tile_roots(conn, book, tile_level - 1, start, end))
    tile, first = divmod(start, merkle.TILE_WIDTH)
    rows = await run(
        conn,
        "SELECT hashes FROM ledger.tile WHERE book = $1 AND level = 0 AND position = $2",
        book,
        tile,
    )
    if rows:
        return merkle.tree_hash(merkle.unpack(rows[0][0])[first : first + end - start])
    return merkle.tree_hash(await read_leaves(conn, book, start, end))
