"""The tree of a journal, built again from the records, beside what blocks and tiles say.

It is built a chunk at a time, level by level; a chunk is a power of two of leaves and begins at a
multiple of it, so that only the last one of a journal is not a complete subtree. A complete tile keeps
the leaf hashes of 256 records: they show *which* record was changed, and let the check go on behind
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from ledger import merkle
from ledger.audit import Faults
from ledger.merkle import HASH_SIZE, TILE_HEIGHT, TILE_WIDTH

NO_LEAF: Final = bytes(HASH_SIZE)
"""Stands where a record is missing; no record has such a leaf."""

NAMED_MAX: Final = 8
"""Records of a block that a fault names one by one."""

Name = Callable[[int], tuple[str, str]]
"""A sequence number → the table and the key of the record."""


@dataclass(frozen=True, slots=True)
class BlockRow:
    """A block as stored."""

    height: int
    at: bytes
    first: int
    last: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored about a chunk: blocks that end in it, and tiles that it completes."""

    blocks: Sequence[BlockRow]
    tiles: Mapping[tuple[int, int], tuple[bytes, bytes]]


def levels_of(leaves: list[bytes]) -> list[list[bytes]]:
    """Return the roots of the complete subtrees over *leaves*, by level."""
    levels = [leaves]
    row = leaves
    while len(row) > 1:
        row = [
            sha256(b"\x01" + left + right).digest()
            for left, right in zip(row[::2], row[1::2], strict=False)
        ]
        levels.append(row)
    return levels


def peaks_of(levels: Sequence[Sequence[bytes]], count: int) -> list[bytes]:
    """Return the frontier over the first *count* leaves of a chunk."""
    return [
        levels[level][(count >> level) - 1]
        for level in range(count.bit_length() - 1, -1, -1)
        if count >> level & 1
    ]


@dataclass(slots=True)
class TreeAuditor:
    """The tree up to the last chunk it was shown.

    Attributes:
        size: leaves so far.
        peaks: the frontier at the beginning of the chunk.
        upper: hashes of tiles that are not complete, level 1 first.
        doubtful: blocks whose root is not that of their records, behind the last that was right.
        suspects: how many records of the first of them no tile was compared with.
        records: the first of these, as faults name them.
    """

    faults: Faults
    size: int = 0
    peaks: list[bytes] = field(default_factory=list)
    upper: list[list[bytes]] = field(default_factory=list)
    doubtful: list[BlockRow] = field(default_factory=list)
    suspects: int = 0
    records: list[tuple[str, str]] = field(default_factory=list)

    def chunk(self, leaves: list[bytes], stored: Stored, name: Name) -> None:
        """Check the records after `size`.

        Args:
            leaves: of the records, `NO_LEAF` where one is missing.
            stored: blocks and tiles.
            name: says which record a sequence number is.
        """
        levels = levels_of(leaves)
        if not self._tiles_agree(levels, stored):
            levels = levels_of(self._trusted(levels, stored, name))
        self._check_blocks(levels, stored.blocks, name)
        self._check_upper(levels, stored)
        peaks = self._frontier_at(levels, len(leaves))
        self.size += len(leaves)
        self.peaks = peaks

    def _tiles_agree(self, levels: Sequence[Sequence[bytes]], stored: Stored) -> bool:
        leaves = levels[0]
        for place in range(len(leaves) // TILE_WIDTH):
            found = stored.tiles.get((0, self.size // TILE_WIDTH + place))
            start = place * TILE_WIDTH
            if found is None or found != (
                b"".join(leaves[start : start + TILE_WIDTH]),
                levels[TILE_HEIGHT][place],
            ):
                return False
        return True

    def _trusted(
        self, levels: Sequence[Sequence[bytes]], stored: Stored, name: Name
    ) -> list[bytes]:
        """Report what tiles and records do not agree in; return the leaves to go on with."""
        leaves = list(levels[0])
        for place in range(len(leaves) // TILE_WIDTH):
            index = self.size // TILE_WIDTH + place
            start = place * TILE_WIDTH
            key = f"level 0 index {index}"
            found = stored.tiles.get((0, index))
            if found is None:
                self.faults.report("tile", key, "is missing")
                continue
            made = levels[TILE_HEIGHT][place]
            kept = merkle.unpack(found[0])
            if found[1] == made:
                if found[0] != b"".join(leaves[start : start + TILE_WIDTH]):
                    self.faults.report("tile", key, "has other hashes than the records")
                continue
            if merkle.tree_hash(kept) != found[1]:
                self.faults.report("tile", key, "has another root than its hashes")
            for at, leaf in enumerate(kept):
                if leaves[start + at] != leaf:
                    table, row = name(self.size + start + at + 1)
                    self.faults.report(table, row, "is not what the tree was built over")
            leaves[start : start + TILE_WIDTH] = kept
        return leaves

    def _check_blocks(
        self, levels: Sequence[Sequence[bytes]], blocks: Sequence[BlockRow], name: Name
    ) -> None:
        for block in blocks:
            frontier = self._frontier_at(levels, block.last - self.size)
            if merkle.frontier_root(frontier) != block.root:
                if not self.doubtful:
                    tiled = (self.size + len(levels[0])) // TILE_WIDTH * TILE_WIDTH
                    self._suspect(block, tiled, name)
                self.doubtful.append(block)
            elif self.doubtful:
                self._report_blocks()

    def _suspect(self, block: BlockRow, tiled: int, name: Name) -> None:
        """Note the records of a block that may be wrong: those that no tile was compared with."""
        first = max(block.first, tiled + 1)
        self.suspects = max(0, block.last + 1 - first)
        end = min(block.last + 1, first + NAMED_MAX)
        self.records = [name(sequence) for sequence in range(first, end)]

    def _frontier_at(self, levels: Sequence[Sequence[bytes]], count: int) -> list[bytes]:
        """Return the frontier over everything before the chunk and its first *count* leaves."""
        return merge(self.peaks, self.size, peaks_of(levels, count), count)

    def _report_blocks(self) -> None:
        """Report blocks whose root was wrong, behind which another was right: the rows themselves."""
        for block in self.doubtful:
            key = f"height {block.height}"
            self.faults.report("block", key, "has another root than its records")
        self.doubtful = []

    def finish(self, frontier: bytes) -> bool:
        """Report blocks that no later one contradicts; tell whether *frontier* is the tree's.

        Where records were changed that no complete tile holds, the first block over them is named,
        with its records; what is behind it cannot be told.
        """
        right = merkle.pack(self.peaks) == frontier
        if right:
            self._report_blocks()
            return True
        for at, block in enumerate(self.doubtful):
            key = f"height {block.height}"
            if at:
                self.faults.report("block", key, "cannot be proven behind the one before it")
                continue
            if self.suspects == 1:
                table, record = self.records[0]
                what = f"is not what block {block.height} was built over"
                self.faults.report(table, record, what)
            listed = ", ".join(f"{table} {record}" for table, record in self.records)
            more = self.suspects - len(self.records)
            what = f"has another root than its records: {listed}" + (f", {more} more" * bool(more))
            self.faults.report("block", key, what)
        return bool(self.doubtful)

    def _check_upper(self, levels: Sequence[Sequence[bytes]], stored: Stored) -> None:
        """Check the tiles of level 1 and above that the chunk completes."""
        row = list(levels[TILE_HEIGHT]) if len(levels) > TILE_HEIGHT else []
        level = 1
        while row:
            if level > len(self.upper):
                self.upper.append([])
            hashes = self.upper[level - 1]
            hashes += row
            row = []
            index = self.size >> TILE_HEIGHT * (level + 1)
            while len(hashes) >= TILE_WIDTH:
                tile = merkle.tile_of(level, index, hashes[:TILE_WIDTH])
                del hashes[:TILE_WIDTH]
                self._check_tile(tile, stored)
                row.append(tile.root)
                index += 1
            level += 1

    def _check_tile(self, tile: merkle.Tile, stored: Stored) -> None:
        found = stored.tiles.get((tile.level, tile.index))
        key = f"level {tile.level} index {tile.index}"
        if found is None:
            self.faults.report("tile", key, "is missing")
        elif found != (tile.hashes, tile.root):
            self.faults.report("tile", key, "has other hashes than the records")


def tiles_completed(size: int, count: int) -> list[tuple[int, int, int]]:
    """Return (level, first, last) of the tiles that *count* leaves after *size* complete."""
    found = []
    level, first, end = 0, size >> TILE_HEIGHT, size + count >> TILE_HEIGHT
    while end:
        if end > first:
            found.append((level, first, end - 1))
        level, first, end = level + 1, first >> TILE_HEIGHT, end >> TILE_HEIGHT
    return found


def merge(peaks: Sequence[bytes], size: int, more: Sequence[bytes], count: int) -> list[bytes]:
    """Return the frontier over *size* + *count* leaves, of which *more* is that over the last ones.

    *size* is a multiple of a power of two that is not below *count*.
    """
    if not more:
        return list(peaks)
    if count & (count - 1):
        return [*peaks, *more]
    level = count.bit_length() - 1
    merged, rest = list(peaks), size >> level
    root = more[0]
    while rest & 1:
        root = merkle.node_hash(merged.pop(), root)
        rest >>= 1
    return [*merged, root]
