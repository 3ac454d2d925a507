"""The signer's log: every decision in order, as a Merkle tree of the journal's kind (RFC 6962).

A record is (number, time, kind, subject, body); its leaf is hashed over all five. The log is what
the signer remembers with: signed bytes and control messages are in its bodies, and the other tables
are an index of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from custody.signer.errors import StoreUnusable
from kernel.errors import BadInput
from ledger.merkle import (
    EMPTY_ROOT,
    TILE_HEIGHT,
    TILE_WIDTH,
    append,
    consistency_proof,
    frontier_root,
    inclusion_proof,
    leaf_hash,
    pack,
    perfect_root,
    root_of,
    unpack,
)

GENESIS: Final = "genesis"
CONTROL: Final = "control"
SIGNED: Final = "signed"
SPENT: Final = "spent"
REFUSED: Final = "refused"
MARKED: Final = "marked"
SIGNATURES: Final = (SIGNED, SPENT)
"""The kinds of record that stand for something that was signed."""

_COLUMNS: Final = "seq, at, kind, subject, body, leaf"


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One decision.

    Attributes:
        seq: its number, from 0 without gaps.
        at: when, in milliseconds since 1970 by the signer's clock; never before its predecessor.
        kind: ``genesis``, ``control``, ``signed``, ``spent`` (a Bitcoin transaction),
            ``marked`` (marks of the database that asks) or ``refused``.
        subject: payout id, spend id, the hash of a control message, or the number of a mark.
        body: JSON text.
    """

    seq: int
    at: int
    kind: str
    subject: str
    body: str

    def to_bytes(self) -> bytes:
        """Return what the leaf is hashed over: one JSON array."""
        return msgspec.json.encode([self.seq, self.at, self.kind, self.subject, self.body])


@dataclass(slots=True)
class AuditLog:
    """The log in the signer's database; appends inside the transaction that the caller opened."""

    database: sqlite3.Connection
    size: int = field(default=0)
    signed: int = field(default=0)
    """How many of the records are of something that was signed."""
    last_at: int = field(default=0)
    _frontier: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read where the log ends."""
        self.reload()

    def reload(self) -> None:
        """Read where the log ends again: after a transaction that was rolled back."""
        [size, frontier] = self.database.execute("SELECT size, frontier FROM head").fetchone()
        if int(size) != self.size:
            statement = "SELECT count(*) FROM audit WHERE kind IN (?, ?)"
            self.signed = int(self.database.execute(statement, SIGNATURES).fetchone()[0])
        self.size, self._frontier = int(size), unpack(bytes(frontier))
        row = self.database.execute("SELECT at FROM audit WHERE seq = ?", (self.size - 1,))
        found = row.fetchone()
        if self.size and found is None:
            raise StoreUnusable(f"the log says that it has {self.size} records; the last is gone")
        self.last_at = 0 if found is None else int(found[0])

    @property
    def root(self) -> bytes:
        """Return the root over all records."""
        return frontier_root(self._frontier)

    def append(self, kind: str, subject: str, body: str, *, at: int) -> AuditRecord:
        """Add a record; a clock that went back does not take the log back with it."""
        record = AuditRecord(self.size, max(at, self.last_at), kind, subject, body)
        leaf = leaf_hash(record.to_bytes())
        self.database.execute(
            f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608  fixed names
            (record.seq, record.at, kind, subject, body, leaf),
        )
        self.size += 1
        self.signed += kind in SIGNATURES
        self.last_at = record.at
        self._frontier = append(self.size, self._frontier, [leaf])
        if self.size % TILE_WIDTH == 0:
            number = self.size // TILE_WIDTH - 1
            root = perfect_root(self._leaves(number * TILE_WIDTH, self.size))
            self.database.execute("INSERT INTO tile VALUES (?, ?)", (number, root))
        return record

    def write_head(self) -> None:
        """Store where the log ends, once before the transaction commits."""
        self.database.execute(
            "UPDATE head SET size = ?, frontier = ?", (self.size, pack(self._frontier))
        )

    def read(self, seq: int) -> AuditRecord:
        """Return a record."""
        row = self.database.execute(
            "SELECT seq, at, kind, subject, body FROM audit WHERE seq = ?", (seq,)
        ).fetchone()
        if row is None:
            raise BadInput(f"the log has no record {seq}")
        return AuditRecord(*row)

    def last_of(self, subject: str) -> AuditRecord | None:
        """Return the newest record about *subject*."""
        row = self.database.execute(
            "SELECT seq, at, kind, subject, body FROM audit WHERE subject = ?"
            " ORDER BY seq DESC LIMIT 1",
            (subject,),
        ).fetchone()
        return None if row is None else AuditRecord(*row)

    def of_kind(self, kind: str, *, since: int = 0) -> Iterator[AuditRecord]:
        """Return the records of a kind from the time *since* on, oldest first."""
        rows = self.database.execute(
            "SELECT seq, at, kind, subject, body FROM audit WHERE kind = ? AND at >= ?"
            " ORDER BY seq",
            (kind, since),
        )
        return (AuditRecord(*row) for row in rows)

    def root_at(self, size: int) -> bytes:
        """Return the root that the log had at *size* records."""
        self._require_size(size)
        return root_of(0, size, self._subtree) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the proof that record *index* is in the tree of *size* records."""
        self._require_size(size)
        if not 0 <= index < size:
            raise BadInput(f"record {index} is not among {size}")
        return inclusion_proof(index, size, self._subtree)

    def consistency(self, first: int) -> list[bytes]:
        """Return the proof that the log goes on from its first *first* records."""
        self._require_size(first)
        return consistency_proof(first, self.size, self._subtree)

    def _require_size(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise BadInput(f"the log has {self.size} records, not {size}")

    def _subtree(self, level: int, index: int) -> bytes:
        if level < TILE_HEIGHT:
            return perfect_root(self._leaves(index << level, (index + 1) << level))
        width = 1 << (level - TILE_HEIGHT)
        rows = self.database.execute(
            "SELECT root FROM tile WHERE number >= ? AND number < ? ORDER BY number",
            (index * width, (index + 1) * width),
        )
        return perfect_root([bytes(row[0]) for row in rows])

    def _leaves(self, start: int, end: int) -> list[bytes]:
        rows = self.database.execute(
            "SELECT leaf FROM audit WHERE seq >= ? AND seq < ? ORDER BY seq", (start, end)
        )
        return [bytes(row[0]) for row in rows]
