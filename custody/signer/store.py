"""What the signer has signed: its own memory, on disk, written before it answers.

A sending address, chain and nonce belong to one payment for ever, and a payout has one nonce for
ever; so whatever the application asks for, at most one of its payments can ever be mined. The
signed bytes are kept: the same request gets the same bytes. A replacement of the same payment (same
nonce, recipient, value, data) is allowed only with both fees higher by an eighth.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from chain.evm.transactions import UnsignedTransaction, encode_unsigned
from custody.signer.errors import SignerRefused

REPLACEMENTS_MAX: Final = 16

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS payment (
    chain_id INTEGER NOT NULL, sender TEXT NOT NULL, nonce INTEGER NOT NULL,
    payout_id TEXT NOT NULL UNIQUE, content BLOB NOT NULL,
    PRIMARY KEY (chain_id, sender, nonce)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signed (
    sender TEXT NOT NULL, unsigned BLOB NOT NULL,
    payout_id TEXT NOT NULL REFERENCES payment (payout_id),
    max_fee TEXT NOT NULL, max_priority_fee TEXT NOT NULL, raw BLOB NOT NULL,
    PRIMARY KEY (sender, unsigned)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Memory:
    """The open store. One process holds it: a second one is kept out by an exclusive lock."""

    database: sqlite3.Connection

    @classmethod
    def open(cls, path: Path) -> Memory:
        """Open or make the store, with mode 0600."""
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        database = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            # A commit is the removal of the journal, and only EXTRA waits until the directory is on
            # disk too: with FULL, a power cut may undo it (sqlite.org/pragma.html#pragma_synchronous).
            database.execute("PRAGMA journal_mode = DELETE")
            database.execute("PRAGMA synchronous = EXTRA")
            database.execute("PRAGMA foreign_keys = ON")
            database.execute("BEGIN EXCLUSIVE")
            database.execute("COMMIT")
            database.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            database.close()
            raise SignerRefused(
                f"the signer's store cannot be used: {error}",
                where=str(path),
                remedy="End the other signer that uses it",
            ) from error
        return cls(database)

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def count(self) -> int:
        """Return how many transactions were signed."""
        return int(self.database.execute("SELECT count(*) FROM signed").fetchone()[0])

    def knows(self, payout_id: UUID) -> bool:
        """Tell whether anything was ever signed for the payout."""
        statement = "SELECT 1 FROM payment WHERE payout_id = ?"
        return self.database.execute(statement, (str(payout_id),)).fetchone() is not None

    def find(self, payout_id: UUID, sender: str, tx: UnsignedTransaction) -> bytes | None:
        """Return the bytes that this very request got before."""
        row = self.database.execute(
            "SELECT raw FROM signed WHERE sender = ? AND unsigned = ? AND payout_id = ?",
            (sender, encode_unsigned(tx), str(payout_id)),
        ).fetchone()
        return None if row is None else bytes(row[0])

    def check(self, payout_id: UUID, sender: str, tx: UnsignedTransaction) -> None:
        """Refuse a second payment on a nonce, a second nonce of a payout, a cheap replacement.

        Raises:
            SignerRefused: names what was signed before.
        """
        row = self.database.execute(
            "SELECT payout_id, content FROM payment WHERE chain_id = ? AND sender = ? AND nonce = ?",
            (tx.chain_id, sender, tx.nonce),
        ).fetchone()
        if row is None:
            self._check_new(payout_id)
            return
        if row[0] != str(payout_id) or bytes(row[1]) != _content(tx):
            raise SignerRefused(f"nonce {tx.nonce} of {sender} is signed for another payment")
        self._check_replacement(payout_id, tx)

    def remember(self, payout_id: UUID, sender: str, tx: UnsignedTransaction, raw: bytes) -> None:
        """Write what was signed; it is on disk when this returns."""
        self.database.execute("BEGIN IMMEDIATE")
        try:
            self.database.execute(
                "INSERT INTO payment VALUES (?, ?, ?, ?, ?) ON CONFLICT (chain_id, sender, nonce)"
                " DO NOTHING",
                (tx.chain_id, sender, tx.nonce, str(payout_id), _content(tx)),
            )
            self.database.execute(
                "INSERT INTO signed VALUES (?, ?, ?, ?, ?, ?)",
                (
                    sender,
                    encode_unsigned(tx),
                    str(payout_id),
                    str(tx.max_fee_per_gas),
                    str(tx.max_priority_fee_per_gas),
                    raw,
                ),
            )
            self.database.execute("COMMIT")
        except sqlite3.Error:
            # Some errors, a full disk among them, have rolled it back already.
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            raise

    def _check_new(self, payout_id: UUID) -> None:
        row = self.database.execute(
            "SELECT sender, nonce FROM payment WHERE payout_id = ?", (str(payout_id),)
        ).fetchone()
        if row is not None:
            raise SignerRefused(f"payout {payout_id} is signed at nonce {row[1]} of {row[0]}")

    def _check_replacement(self, payout_id: UUID, tx: UnsignedTransaction) -> None:
        rows = self.database.execute(
            "SELECT max_fee, max_priority_fee FROM signed WHERE payout_id = ?", (str(payout_id),)
        ).fetchall()
        if len(rows) > REPLACEMENTS_MAX:
            raise SignerRefused(f"payout {payout_id} was replaced {REPLACEMENTS_MAX} times already")
        if not all(
            is_bump(tx.max_fee_per_gas, int(max_fee))
            and is_bump(tx.max_priority_fee_per_gas, int(priority))
            for max_fee, priority in rows
        ):
            raise SignerRefused(
                f"payout {payout_id} is signed with other fees",
                remedy="A replacement raises both fees by 12.5 % or more",
            )


def is_bump(new: int, old: int) -> bool:
    """Tell whether *new* is at least an eighth (12.5 %) above *old*."""
    return new > old and new * 8 >= old * 9


def _content(tx: UnsignedTransaction) -> bytes:
    told = (tx.recipient, str(tx.value), tx.data.hex())
    return hashlib.sha256("\n".join(told).encode()).digest()
