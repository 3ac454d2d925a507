"""The tree of a journal, built again from the records, beside what blocks and tiles say.

A complete tile keeps the leaf hashes of 256 records. They show *which* record was changed, and
let the check go on behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ledger import merkle
from ledger.audit import Auditor


@dataclass(frozen=True, slots=True)
class Record:
    """A journal record: the table and row it is from, and its leaf made from that row."""

    table: str
    key: str
    at: datetime
    leaf: bytes


@dataclass(frozen=True, slots=True)
class BlockRow:
    """A block as stored."""

    height: int
    at: datetime
    first: int
    last: int
    root: bytes


class TreeAuditor:
    """The tree up to the last block it was shown."""

    def __init__(self, auditor: Auditor) -> None:
        self.report = auditor.report
        self.size = 0
        self.frontier: list[bytes] = []
        self.height = 0
        self.block_time: datetime | None = None
        self.lost = False
        self.completed: list[merkle.Tile] = []
        self._rows: list[list[bytes]] = []
        self._counts: list[int] = []

    def block(
        self, block: BlockRow, records: Mapping[int, Record], kept: Mapping[int, bytes]
    ) -> None:
        """Check a block.

        Args:
            block: the next block.
            records: its records by sequence.
            kept: leaf hashes by sequence, where a complete tile keeps them.
        """
        key = f"height {block.height}"
        if block.height != self.height + 1 or block.first != self.size + 1:
            self.report("block", key, f"does not follow sequence {self.size}")
        if self.block_time is not None and block.at < self.block_time:
            self.report("block", key, "is earlier than the block before it")
        self.height, self.block_time = block.height, block.at
        leaves: list[bytes | None] = []
        trusted: list[bytes | None] = []
        for sequence in range(block.first, block.last + 1):
            record = records.get(sequence)
            leaf = None if record is None else record.leaf
            leaves.append(leaf)
            trusted.append(kept.get(sequence, leaf))
            if record is None:
                continue
            if record.at != block.at:
                self.report(record.table, record.key, "has another time than its block")
            if sequence in kept and kept[sequence] != leaf:
                self.report(record.table, record.key, "is not what the tree was built over")
        self._grow(key, block, leaves, trusted)

    def _grow(
        self,
        key: str,
        block: BlockRow,
        leaves: Sequence[bytes | None],
        trusted: Sequence[bytes | None],
    ) -> None:
        self.size = block.last
        if self.lost:
            return
        for row in (leaves, trusted):
            known = [leaf for leaf in row if leaf is not None]
            if len(known) < len(row):
                continue
            frontier = merkle.append(block.last, self.frontier, known)
            if merkle.frontier_root(frontier) == block.root:
                break
        else:
            self.report("block", key, "has another root than its records")
            known = [leaf for leaf in trusted if leaf is not None]
            if len(known) < len(trusted):
                self.report("block", key, "cannot be built again, nor can those after it")
                self.lost = True
                return
            frontier = merkle.append(block.last, self.frontier, known)
        self.frontier = frontier
        self._fill_tiles(known)

    def _fill_tiles(self, leaves: list[bytes]) -> None:
        level, row = 0, leaves
        while row:
            if level == len(self._rows):
                self._rows.append([])
                self._counts.append(0)
            open_tile = self._rows[level]
            open_tile += row
            row = []
            while len(open_tile) >= merkle.TILE_WIDTH:
                tile = merkle.tile_of(level, self._counts[level], open_tile[: merkle.TILE_WIDTH])
                del open_tile[: merkle.TILE_WIDTH]
                self._counts[level] += 1
                self.completed.append(tile)
                row.append(tile.root)
            level += 1

    def check_tiles(self, stored: Mapping[tuple[int, int], tuple[bytes, bytes]]) -> None:
        """Compare the tiles completed since the last call with those stored, by level and index."""
        for tile in self.completed:
            found = stored.get((tile.level, tile.index))
            key = f"level {tile.level} index {tile.index}"
            if found is None:
                self.report("tile", key, "is missing")
            elif found != (tile.hashes, tile.root):
                self.report("tile", key, "has other hashes than the records")
        self.completed = []
