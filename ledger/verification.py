"""Verify a live book: derive everything again from its transfers, and name what does not fit.

The journal is streamed up to a watermark, the head's sequence at the start, in statements that are
transactions of their own, so that a long check never holds back the head row's vacuum. The next
chunk is read while one is replayed. Rows that may change (balance, hold, head) are checked at the
version they carry, so the book may go on working meanwhile. Memory grows with the accounts.

Incremental: a check can begin where an earlier one ended (`ledger.verification_state`). Then it
proves that the journal still begins with the tree verified before, everything recorded since, and
every row that may change; rows of the journal from before are not read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.errors import ungrouped
from ledger import verification_state
from ledger import verification_statements as sql
from ledger.audit import Fault, Faults, Replay
from ledger.audit_entries import explain, explain_effective
from ledger.audit_rows import PENDING, Row
from ledger.audit_tree import NO_LEAF, Stored, TreeAuditor
from ledger.checkpoint import Checkpoint, origin_of
from ledger.errors import BookNotOpen
from ledger.merkle import TILE_WIDTH
from ledger.proofs import root_at
from ledger.verification_reading import Chunk, ChunkReader, name_of, reading
from ledger.verification_rows import RowChecks

CHUNK: Final = 16_384
"""Journal records read at once: a power of two, and at least a tile."""

SLICE: Final = 128
"""Records replayed before the next chunk's bytes are taken from the socket."""

PREFIX: Final = b"\x00transfer\t"
"""What a leaf's hash has before a transfer's row."""

Progress = Callable[[int, int], None]
"""Called with (records verified, records to verify)."""


KEEP_EVERY: Final = 64
"""Chunks after which what was verified is kept, for a check that is broken off."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check came to.

    Attributes:
        sequence: the watermark: records up to it are verified.
        since: records up to this one were verified by an earlier check, and not read again.
    """

    faults: list[Fault]
    sequence: int
    since: int


async def verify(
    engine: AsyncEngine, book: int, *, progress: Progress = lambda _done, _all: None
) -> list[Fault]:
    """Verify a book and return every fault found, at most `ledger.audit.FAULTS_MAX`.

    Args:
        engine: any role that may read the ledger.
        book: the book.
        progress: told after each chunk.

    Raises:
        BookNotOpen: there is no such book.
    """
    return (await examine(engine, book, progress=progress)).faults


async def examine(
    engine: AsyncEngine,
    book: int,
    *,
    progress: Progress = lambda _done, _all: None,
    chunk: int = CHUNK,
    state: Path | None = None,
    checkpoint: Checkpoint | None = None,
) -> Verified:
    """Verify a book: as `verify`, and say how far.

    Args:
        engine: any role that may read the ledger.
        book: the book.
        progress: told after each chunk.
        chunk: records read at once, a power of two and at least a tile.
        state: a file (`ledger.verification_state`): the check begins where the one before ended,
            and leaves there how far it came.
        checkpoint: what the tree over the first records must be.

    Raises:
        BookNotOpen: there is no such book.
        BadInput: the file is of another book, or not whole.
    """
    assert chunk >= TILE_WIDTH
    assert chunk & (chunk - 1) == 0
    async with reading(engine, book) as reader:
        check = Check(reader, chunk)
        since = 0 if state is None else verification_state.load(state, check)
        with ungrouped():
            await check.run(progress, state)
    if checkpoint is not None:
        async with engine.connect() as conn:
            await _compare(conn, check, checkpoint)
    return Verified(list(check.faults.found), check.watermark, since)


async def _compare(conn: AsyncConnection, check: Check, checkpoint: Checkpoint) -> None:
    """Compare the stored tree, which the records have been found to be, with a checkpoint."""
    book, report = check.reader.book, check.faults.report
    key = f"book {book}"
    origin = origin_of(check.head["entity"], book)
    if checkpoint.origin != origin:
        report("head", key, f"is {origin}, the checkpoint of {checkpoint.origin}")
    if checkpoint.size > check.watermark:
        what = f"has {check.watermark} records, the checkpoint {checkpoint.size}"
        report("head", key, what)
    elif await root_at(conn, book, checkpoint.size) != checkpoint.root:
        what = f"has another root over {checkpoint.size} records than the checkpoint"
        report("head", key, what)


class ChunkLinks:
    """What the transfers of a chunk refer to, as the database says."""

    watched: Collection[bytes] = frozenset()

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.links: dict[int, Row | None] = {}
        self.holds: dict[int, int] = {}

    def hold(self, row: Row) -> Row | None:
        """Return the pending transfer that a resolution names."""
        return self.links.get(int(row.sequence))

    def original(self, row: Row) -> Row | None:
        """Return the transfer that a reversal names."""
        return self.links.get(int(row.sequence))

    def made(self, row: Row) -> None:
        """Report a pending transfer that has no hold, or two."""
        count = self.holds.get(int(row.sequence), 1)
        if row.kind == PENDING and count != 1:
            self.faults.report("hold", row.key, "is there twice" if count else "is missing")


class Check:
    """One run over one book."""

    def __init__(self, reader: ChunkReader, size: int) -> None:
        self.reader = reader
        self.size = size
        self.faults = Faults()
        self.links = ChunkLinks(self.faults)
        self.replay = Replay(self.faults, reader.book, self.links)
        self.tree = TreeAuditor(self.faults)
        self.height = 0
        self.blocked = 0
        self.block_time = b""
        self.watermark = 0
        self.head: Any = None

    async def run(self, progress: Progress, state: Path | None = None) -> None:
        """Replay everything up to the watermark, reading one chunk ahead; then the other rows."""
        await self._start()
        first = self.tree.size + 1
        async with asyncio.TaskGroup() as group:
            ahead = group.create_task(self._read(first))
            while first <= self.watermark:
                chunk = await ahead
                first = chunk.last + 1
                ahead = group.create_task(self._read(first))
                await self._chunk(chunk)
                if state is not None and self._should_keep(chunk):
                    verification_state.save(state, self)
                progress(chunk.last, self.watermark)
        await self._finish()

    async def _start(self) -> None:
        rows = await self.reader.fetch(sql.HEAD)
        if not rows:
            raise BookNotOpen(f"there is no book {self.reader.book}")
        if len(rows) > 1:
            self.faults.report("head", f"book {self.reader.book}", "is there twice")
        self.head = rows[0]
        self.watermark = self.head["sequence"]
        if self.watermark < self.tree.size:
            key = f"book {self.reader.book}"
            what = f"is at sequence {self.watermark}, {self.tree.size} were verified before"
            self.faults.report("head", key, what)

    def _should_keep(self, chunk: Chunk) -> bool:
        """Tell whether to keep how far it came: only whole chunks, only without a fault."""
        if self.faults.found or chunk.last % self.size:
            return False
        is_last = chunk.last + self.size > self.watermark
        return is_last or chunk.last // self.size % KEEP_EVERY == 0

    async def _read(self, first: int) -> Chunk:
        last = min(first + self.size - 1, self.watermark)
        if first > last:
            return Chunk(first, last)
        return await self.reader.read(first, last)

    async def _chunk(self, chunk: Chunk) -> None:
        self.faults.take(chunk.faults)
        self.links.links, self.links.holds = chunk.links, chunk.holds
        others = dict(chunk.others)
        self.replay.others = chunk.others
        lines, leaves = chunk.transfers, []
        for start in range(0, len(lines), SLICE):
            some = lines[start : start + SLICE]
            self.replay.transfers(some)
            leaves += [sha256(PREFIX + line).digest() for line in some]
            await asyncio.sleep(0)
        self.replay.seek(chunk.last + 1)
        for sequence, line in self.replay.others.items():
            table, key = name_of(sequence, line)
            self.faults.report(table, key, "has a sequence number that was given before")
        name = _Names(chunk, others)
        self._compare(chunk, name)
        self._check_blocks(chunk, name)
        if others or len(leaves) != chunk.last - chunk.first + 1:
            leaves = _placed(chunk, others, leaves)
        self.tree.chunk(leaves, Stored(chunk.blocks, chunk.tiles), name)

    def _compare(self, chunk: Chunk, name: _Names) -> None:
        entries, effective, described = self.replay.take()
        if not _same(entries, chunk.entries):
            explain(self.replay, entries, chunk.entries, name.transfer)
        self.replay.report_overdrawn()
        if effective or chunk.effective:
            explain_effective(self.replay, effective, chunk.effective, name.transfer)
        for sequence in sorted(described.keys() | chunk.metadata.keys()):
            said = described.get(sequence, b"").decode()
            if said != chunk.metadata.get(sequence, ""):
                what = "is not what the transfer's hash says"
                self.faults.report("transfer_metadata", name.transfer(sequence), what)
            elif not said:
                what = "belongs to no transfer"
                self.faults.report("transfer_metadata", name.transfer(sequence), what)

    def _check_blocks(self, chunk: Chunk, name: _Names) -> None:
        """Check that the blocks follow one another, and that their records have their time."""
        times = self.replay.times
        place = 0
        for block in chunk.blocks:
            key = f"height {block.height}"
            if block.height != self.height + 1 or block.first != self.blocked + 1:
                self.faults.report("block", key, f"does not follow sequence {self.blocked}")
            if block.at < self.block_time:
                self.faults.report("block", key, "is earlier than the block before it")
            self.height, self.blocked, self.block_time = block.height, block.last, block.at
            while place + 1 < len(times) and times[place + 1][0] <= block.first:
                place += 1
            end = place + 1
            while end < len(times) and times[end][0] <= block.last:
                end += 1
            within = times[place:end]
            if len(within) == 1 and within[0][1] != block.at:
                self.faults.report("block", key, "has another time than its records")
            for sequence, at in within if len(within) > 1 else ():
                if at != block.at:
                    table, row = name(max(sequence, block.first))
                    self.faults.report(table, row, "has another time than its block")
        del times[:place]

    async def _finish(self) -> None:
        """Check what is not a journal record: heads, balances, holds, rows too many."""
        self.replay.check_sums()
        self._check_head()
        rows = RowChecks(self.reader, self.replay, self.watermark)
        await rows.run()

    def _check_head(self) -> None:
        head, replay, report = self.head, self.replay, self.faults.report
        key = f"book {self.reader.book}"
        if self.blocked != self.watermark or self.height != head["height"]:
            report("head", key, f"is at height {head['height']}, the blocks at {self.height}")
        if not self.tree.finish(head["frontier"]):
            report("head", key, "has another frontier than the records")
        if head["account_count"] != len(replay.accounts):
            report("head", key, f"counts {head['account_count']} accounts")
        for name, derived in (
            ("block_time", self.block_time),
            ("closed_through", replay.closed_through),
            ("imported_through", replay.imported_through),
        ):
            stored = head[name + "_text"] or ""
            if stored.encode() != derived and not (name == "block_time" and not self.height):
                report("head", key, f"has {name} {stored}, the journal {derived.decode()}")
        if self.height and head["opened_at"] > head["first_block_at"]:
            report("head", key, "was opened after its first block")


class _Names:
    """Which record a sequence number of a chunk is, in the words of a fault."""

    def __init__(self, chunk: Chunk, others: dict[int, bytes]) -> None:
        self.chunk = chunk
        self.others = others
        self.rows: dict[int, str] | None = None

    def transfer(self, sequence: int) -> str:
        """Return what a fault calls the transfer."""
        if self.rows is None:
            rows = (line.split(b"\t", 3) for line in self.chunk.transfers)
            self.rows = {int(row[1]): row[2].decode() for row in rows}
        found = self.rows.get(sequence)
        return f"{found} (sequence {sequence})" if found else f"sequence {sequence}"

    def __call__(self, sequence: int) -> tuple[str, str]:
        """Return table and key of the record."""
        line = self.others.get(sequence)
        if line is None:
            return "transfer", self.transfer(sequence)
        return name_of(sequence, line)


def _same(expected: list[str], stored: bytes) -> bool:
    """Tell whether the entries are those expected, in whatever order they are read."""
    text = "".join(expected).encode()
    if text == stored:
        return True
    return len(text) == len(stored) and sorted(text.split(b"\n")) == sorted(stored.split(b"\n"))


def _placed(chunk: Chunk, others: dict[int, bytes], leaves: list[bytes]) -> list[bytes]:
    """Return the leaves of all records of a chunk where they belong."""
    placed = [NO_LEAF] * (chunk.last - chunk.first + 1)
    for line, leaf in zip(chunk.transfers, leaves, strict=True):
        placed[int(line.split(b"\t", 2)[1]) - chunk.first] = leaf
    for sequence, line in others.items():
        placed[sequence - chunk.first] = sha256(b"\x00" + line).digest()
    return placed
