"""Verify an exported journal, with a checkpoint and no database.

Read twice: first for the transfers that later ones reverse, then to replay them all. Memory grows
with accounts, open holds and reversals; the ids of all records, which must not repeat, are sorted
into files of a temporary folder.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self
from uuid import UUID

from kernel.errors import BadInput
from ledger import merkle
from ledger.audit import Fault, Faults, Replay
from ledger.audit_rows import PENDING, REVERSAL, Row
from ledger.audit_tree import levels_of, merge, peaks_of
from ledger.checkpoint import Checkpoint, origin_of
from ledger.journal_file import (
    CHUNK,
    HEADER_LENGTH_MAX,
    JournalHeader,
    chunks_of,
    parse_header,
)
from ledger.verification_reading import name_of

BUCKETS: Final = 64
"""Files among which ids are divided; each is then held in memory by itself."""

ID_BYTES: Final = 16
NUMBER_BYTES: Final = 8
_TRANSFER: Final = b"transfer\t"
_SEQUENCE: Final = re.compile(r"\bsequence (\d+)")
REVERSES_FIELD: Final = 11


@dataclass(frozen=True, slots=True)
class AssetTotals:
    """One line of the trial balance: what the accounts of an asset come to."""

    asset: str
    accounts: int
    debits: int
    credits: int
    debits_pending: int
    credits_pending: int


@dataclass(slots=True)
class JournalVerified:
    """What a file came to.

    Attributes:
        records: in the file.
        root: of the tree over all of them.
        checkpoint_root: of the tree over as many as the checkpoint has; None: there are fewer.
    """

    header: JournalHeader
    records: int = 0
    root: bytes = merkle.EMPTY_ROOT
    checkpoint_root: bytes | None = None
    totals: list[AssetTotals] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


class FileLinks:
    """What transfers refer to, kept from what has been replayed: open holds, and reversed ones."""

    def __init__(self, reversed_ids: Collection[bytes]) -> None:
        self.watched = reversed_ids
        self.holds: dict[bytes, Row] = {}
        self.originals: dict[bytes, Row] = {}

    def hold(self, row: Row) -> Row | None:
        """Return the open hold that a resolution names; it is not open any more."""
        return self.holds.pop(row.pending_id, None)

    def original(self, row: Row) -> Row | None:
        """Return the transfer that a reversal names; it cannot be reversed again."""
        return self.originals.pop(row.reverses, None)

    def made(self, row: Row) -> None:
        """Keep what a later transfer may refer to."""
        if row.kind == PENDING:
            self.holds[row.id] = row
        elif row.id in self.watched and row.kind != REVERSAL:
            self.originals[row.id] = row


def verify_journal(
    path: Path,
    checkpoint: Checkpoint | None,
    *,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> JournalVerified:
    """Verify a journal file; every fault names line, transfer and account.

    Args:
        path: as `ledger.journal_file.export_journal` wrote it.
        checkpoint: of that book, of as many records or fewer; None: the tree is compared with none.
        progress: told after each chunk (records verified, records to verify).

    Raises:
        BadInput: the file cannot be read, or is not a journal.
    """
    try:
        with path.open("rb") as stream:
            first = stream.readline(HEADER_LENGTH_MAX)
            header = parse_header(first)
            watched = _reversed_ids(stream)
            stream.seek(len(first))
            with Spent() as spent:
                check = _Check(header, checkpoint, watched, spent)
                for lines in chunks_of(stream, CHUNK):
                    check.chunk(lines)
                    progress(check.found.records, header.records)
                return check.finish()
    except OSError as error:
        raise BadInput(f"the journal cannot be read: {error.strerror}", where=str(path)) from error


def _reversed_ids(stream: BinaryIO) -> frozenset[bytes]:
    ids = set()
    for lines in chunks_of(stream, CHUNK):
        for line in lines:
            if b"\t6\t" in line and line.startswith(_TRANSFER):
                fields = line.split(b"\t", REVERSES_FIELD + 1)
                if len(fields) > REVERSES_FIELD and fields[4] == REVERSAL:
                    ids.add(fields[REVERSES_FIELD])
    return frozenset(ids)


class _Check:
    """One run over one file."""

    def __init__(
        self,
        header: JournalHeader,
        checkpoint: Checkpoint | None,
        watched: Collection[bytes],
        spent: Spent,
    ) -> None:
        self.faults = Faults()
        self.links = FileLinks(watched)
        self.replay = Replay(self.faults, header.book, self.links)
        self.checkpoint = checkpoint
        self.spent = spent
        self.peaks: list[bytes] = []
        self.found = JournalVerified(header)
        self.named: dict[Fault, None] = {}

    def chunk(self, lines: list[bytes]) -> None:
        """Replay the next lines, and grow the tree by them."""
        run: list[bytes] = []
        for line in lines:
            if line.startswith(_TRANSFER):
                run.append(line[len(_TRANSFER) :])
                continue
            self._flush(run)
            self._other(line)
        self._flush(run)
        self.replay.report_overdrawn()
        self.replay.take()
        self.replay.times.clear()
        self._grow(lines)
        self._name_lines(lines)

    def _flush(self, run: list[bytes]) -> None:
        self.replay.transfers(run)
        for line in run:
            fields = line.split(b"\t", 3)
            if len(fields) > 3:
                self.spent.add(fields[2], fields[1])
        run.clear()

    def _other(self, line: bytes) -> None:
        fields = line.split(b"\t", 4)
        if len(fields) < 4 or not fields[2].isdigit():
            key = f"line {line[:40].decode(errors='replace')!r}"
            self.faults.report("journal", key, "cannot be read")
            return
        sequence = int(fields[2])
        if sequence < self.replay.expected:
            table, name = name_of(sequence, line)
            self.faults.report(table, name, "has a sequence number that was given before")
        self.replay.seek(sequence)
        self.replay.other(sequence, line)
        self.replay.expected = sequence + 1
        if fields[0] == b"refusal":
            self.spent.add(fields[3], fields[2])

    def _grow(self, lines: list[bytes]) -> None:
        found, count = self.found, len(lines)
        levels = levels_of([sha256(b"\x00" + line).digest() for line in lines])
        size = None if self.checkpoint is None else self.checkpoint.size - found.records
        if size is not None and 0 <= size <= count:
            peaks = merge(self.peaks, found.records, peaks_of(levels, size), size)
            found.checkpoint_root = merkle.frontier_root(peaks)
        self.peaks = merge(self.peaks, found.records, peaks_of(levels, count), count)
        found.records += count

    def _name_lines(self, lines: list[bytes]) -> None:
        """Say in which line each new fault is."""
        fresh = [fault for fault in self.faults.found if fault not in self.named]
        if not fresh:
            return
        begin = self.found.records - len(lines) + 2
        numbers = {
            fields[2].decode(errors="replace"): begin + place
            for place, fields in enumerate(line.split(b"\t", 3) for line in lines)
            if len(fields) > 2
        }
        for fault in fresh:
            match = _SEQUENCE.search(fault.key)
            line = numbers.get(match[1]) if match else None
            del self.faults.found[fault]
            shown = fault if line is None else replace(fault, key=f"line {line}, {fault.key}")
            self.named[shown] = None
        self.faults.found.update(self.named)

    def finish(self) -> JournalVerified:
        """Check what only the end tells."""
        found, report = self.found, self.faults.report
        found.root = merkle.frontier_root(self.peaks)
        if found.records != found.header.records:
            what = f"has {found.records} records, its first line says {found.header.records}"
            report("journal", f"book {found.header.book}", what)
        self.replay.check_sums()
        for id_text, first, second in self.spent.repeated():
            what = f"is spent again at sequence {second}"
            report("transfer", f"line {first + 1}, {id_text} (sequence {first})", what)
        self._check_root()
        found.totals = self._totals()
        found.faults = list(self.faults.found)
        return found

    def _check_root(self) -> None:
        checkpoint, found = self.checkpoint, self.found
        if checkpoint is None:
            return
        key, report = f"book {found.header.book}", self.faults.report
        origin = origin_of(found.header.entity, found.header.book)
        if checkpoint.origin != origin:
            report("checkpoint", key, f"is of {checkpoint.origin}, the journal of {origin}")
        if checkpoint.size == 0:
            found.checkpoint_root = merkle.EMPTY_ROOT
        if found.checkpoint_root is None:
            report("checkpoint", key, f"is of {checkpoint.size} records, here are {found.records}")
        elif found.checkpoint_root != checkpoint.root:
            report("checkpoint", key, f"has another root than the first {checkpoint.size} records")

    def _totals(self) -> list[AssetTotals]:
        sums: dict[str, list[int]] = {}
        for account in self.replay.accounts.values():
            total = sums.setdefault(account.asset, [0] * 5)
            columns = (
                1,
                account.debits_posted,
                account.credits_posted,
                account.debits_pending,
                account.credits_pending,
            )
            for place, value in enumerate(columns):
                total[place] += value
        return [AssetTotals(asset, *total) for asset, total in sorted(sums.items())]


class Spent:
    """The ids of all records, divided among files so that only a part is in memory at once."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="causeway-ids-")
        self._files: list[BinaryIO] = []

    def __enter__(self) -> Self:
        folder = Path(self._folder.name)
        self._files = [(folder / str(n)).open("w+b") for n in range(BUCKETS)]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in self._files:
            stream.close()
        self._folder.cleanup()

    def add(self, record_id: bytes, sequence: bytes) -> None:
        """Note an id; what is no id is reported elsewhere."""
        try:
            data = bytes.fromhex(record_id.replace(b"-", b"").decode())
            number = int(sequence).to_bytes(NUMBER_BYTES, "big")
        except (ValueError, OverflowError):
            return
        if len(data) == ID_BYTES:
            self._files[data[-1] % BUCKETS].write(data + number)

    def repeated(self) -> list[tuple[str, int, int]]:
        """Return (id, sequence, later sequence) of ids that occur twice."""
        found = []
        for stream in self._files:
            stream.seek(0)
            seen: dict[bytes, bytes] = {}
            while record := stream.read(ID_BYTES + NUMBER_BYTES):
                data, number = record[:ID_BYTES], record[ID_BYTES:]
                earlier = seen.setdefault(data, number)
                if earlier != number:
                    name = str(UUID(bytes=data))
                    found.append((name, int.from_bytes(earlier), int.from_bytes(number)))
        return found
