"""What the signer remembers: its own database, on disk before it answers.

A sending address, chain and nonce belong to one payment for ever, and a payout has one nonce until
people prove that its transaction there is dead; so whatever the application asks for, at most one of
its payments can ever be mined. The signed bytes are kept: the same request gets the same bytes. A
replacement of the same payment (same nonce, recipient, value, data) is allowed only with both fees
higher by an eighth, and so is a transaction that sends nothing to its sender and cancels it.

After a cancellation was signed both may be mined, whichever a block takes first: the payment may be
replaced again, above the cancellation's fees. A nonce at which only nothing was sent never pays.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from chain.evm.transactions import UnsignedTransaction, transaction_hash
from custody.control_messages import PayoutDead
from custody.signer.audit import GENESIS, SIGNED, AuditLog
from custody.signer.errors import SignerRefused, StoreUnusable
from custody.signer.mark_memory import MarkMemory
from custody.signer.migrations import migrate, schema_version
from custody.signer.rules import Rules
from custody.signer.spend_memory import SpendMemory
from custody.signer.wire import Intent

REPLACEMENTS_MAX: Final = 16
FILE_MODE: Final = 0o600
CANCELLED: Final = b"sends nothing"
INSERT_PAYMENT: Final = (
    "INSERT INTO payment VALUES (?, ?, ?, ?, ?, ?, ?, NULL)"
    " ON CONFLICT (chain_id, sender, nonce) DO NOTHING"
)
INSERT_SIGNED: Final = "INSERT INTO signed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
OF_NONCE: Final = "signed INDEXED BY signed_nonce WHERE chain_id = ? AND sender = ? AND nonce = ?"
"""What was signed at a nonce. By itself SQLite goes through all that its sender has ever signed."""
BURY: Final = (
    "UPDATE payment SET dead_seq = ? WHERE chain_id = ? AND sender = ? AND nonce = ?"
    " AND payout_id = ?"
)


class Genesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The first record of the log: what the signer began with, and the key that names its store."""

    rules: Rules
    key_id: str
    verifier_key: str


class SignedBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The record of a signature; byte strings in base64.

    Attributes:
        amount, fee: what it added to the windows, decimal text.
    """

    intent: Intent
    unsigned: bytes
    raw: bytes
    approvers: list[str]
    auto: bool
    amount: str
    fee: str


@dataclass(frozen=True, slots=True)
class Memory:
    """The open store. One process holds it: a second one is kept out by an exclusive lock."""

    database: sqlite3.Connection
    log: AuditLog

    @classmethod
    def create(cls, path: Path, genesis: Genesis, *, at_ms: int) -> Memory:
        """Make the store, with mode 0600; never over an existing file.

        Raises:
            StoreUnusable: there is a file already.
        """
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))
        except FileExistsError as error:
            raise StoreUnusable("the signer has a store already", where=str(path)) from error
        except OSError as error:
            raise StoreUnusable(f"cannot make it: {error.strerror}", where=str(path)) from error
        database = _connect(path)
        migrate(database)
        memory = cls(database, AuditLog(database))
        with memory.writing():
            memory.log.append(GENESIS, "", msgspec.json.encode(genesis).decode(), at=at_ms)
        return memory

    @classmethod
    def open(cls, path: Path) -> Memory:
        """Open the store that is there.

        Raises:
            StoreUnusable: there is none, another signer holds it, or it is no store of ours.
        """
        if not path.is_file():
            raise StoreUnusable(
                "the signer's store is missing",
                where=str(path),
                remedy="Bring it back. Only a signer that never signed anything makes a new one",
            )
        database = _connect(path)
        try:
            _require_made(database, path)
            migrate(database)
            return cls(database, AuditLog(database))
        except StoreUnusable:
            database.close()
            raise
        except sqlite3.Error as error:
            database.close()
            raise StoreUnusable(f"the signer's store cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Open a transaction that is on disk when the context ends, or leaves no trace."""
        before = self.log.size
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
            if self.log.size != before:
                self.log.write_head()
            self.database.execute("COMMIT")
        except BaseException:
            # Some errors, a full disk among them, have rolled it back already.
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            self.log.reload()
            raise

    def genesis(self) -> Genesis:
        """Return the first record of the log."""
        return msgspec.json.decode(self.log.read(0).body, type=Genesis)

    @property
    def spends(self) -> SpendMemory:
        """Return the part that is about Bitcoin."""
        return SpendMemory(self.database, self.log)

    @property
    def marks(self) -> MarkMemory:
        """Return the part that is about the databases that asked."""
        return MarkMemory(self.database, self.log)

    def count(self) -> int:
        """Return how many transactions were signed."""
        return self.log.signed

    def knows(self, payout_id: UUID) -> bool:
        """Tell whether a payment of the payout was ever signed."""
        statement = "SELECT 1 FROM signed WHERE payout_id = ? AND pays = 1"
        return self.database.execute(statement, (str(payout_id),)).fetchone() is not None

    def find(self, intent: Intent, unsigned: bytes) -> bytes | None:
        """Return the bytes that this very request got before."""
        row = self.database.execute(
            "SELECT seq FROM signed WHERE sender = ? AND unsigned_hash = ? AND payout_id = ?",
            (intent.sender, _hash(unsigned), str(intent.payout_id)),
        ).fetchone()
        if row is None:
            return None
        body = msgspec.json.decode(self.log.read(row[0]).body, type=SignedBody)
        return body.raw if body.intent == intent else None

    def fee_before(self, intent: Intent) -> int | None:
        """Return the highest fee that was signed at the intent's nonce; None: nothing was."""
        rows = self.database.execute(
            f"SELECT max_fee, gas_limit FROM {OF_NONCE}",  # noqa: S608  fixed text
            (intent.chain_id, intent.sender, intent.nonce),
        ).fetchall()
        return max((int(fee) * gas for fee, gas in rows), default=None)

    def check(self, intent: Intent, tx: UnsignedTransaction) -> None:
        """Refuse a second payment on a nonce, a second nonce of a payout, a cheap replacement.

        Raises:
            SignerRefused: names what was signed before.
        """
        row = self.database.execute(
            "SELECT payout_id, content, pays, dead_seq FROM payment"
            " WHERE chain_id = ? AND sender = ? AND nonce = ?",
            (tx.chain_id, intent.sender, tx.nonce),
        ).fetchone()
        if row is None:
            self._check_new(intent)
            return
        payout_id, content, pays, dead_seq = row
        same_payout = payout_id == str(intent.payout_id)
        is_cancel = intent.kind == "cancel"
        if not same_payout or (not is_cancel and not (pays and bytes(content) == _content(tx))):
            raise SignerRefused(
                f"nonce {tx.nonce} of {intent.sender} is signed for another payment"
            )
        if dead_seq is not None and not is_cancel:
            raise SignerRefused(
                f"nonce {tx.nonce} of {intent.sender} was spent by another transaction"
            )
        self._check_replacement(intent, tx)

    def remember(self, tx: UnsignedTransaction, body: SignedBody, *, at_ms: int) -> None:
        """Write what is being signed, inside the caller's `writing`."""
        subject, text = str(body.intent.payout_id), msgspec.json.encode(body).decode()
        record = self.log.append(SIGNED, subject, text, at=at_ms)
        for statement, values in index_rows(body, tx, record.seq):
            self.database.execute(statement, values)

    def bury(self, body: PayoutDead, seq: int) -> None:
        """Note that the payout's nonce was spent by another transaction, inside `writing`."""
        self.database.execute(BURY, bury_row(body, seq))

    def check_dead(self, body: PayoutDead) -> None:
        """Refuse a death that this store contradicts.

        Raises:
            SignerRefused: nothing was signed there for the payout, or the transaction that is said
                to have spent the nonce is the payout's own payment.
        """
        row = self.database.execute(
            "SELECT dead_seq FROM payment WHERE chain_id = ? AND sender = ? AND nonce = ?"
            " AND payout_id = ? AND pays = 1",
            (body.chain_id, body.sender, body.nonce, str(body.payout_id)),
        ).fetchone()
        where = f"nonce {body.nonce} of {body.sender}"
        if row is None or row[0] is not None:
            raise SignerRefused(
                f"payout {body.payout_id} is not signed at {where}, or dead already"
            )
        rows = self.database.execute(
            "SELECT seq FROM signed WHERE payout_id = ? AND pays = 1", (str(body.payout_id),)
        )
        for (seq,) in rows.fetchall():
            signed = msgspec.json.decode(self.log.read(seq).body, type=SignedBody)
            if transaction_hash(signed.raw) == body.spent_by:
                raise SignerRefused(f"{body.spent_by} is the payment itself: it was made")

    def _check_new(self, intent: Intent) -> None:
        if intent.kind == "cancel":
            return
        row = self.database.execute(
            "SELECT sender, nonce FROM payment"
            " WHERE payout_id = ? AND pays = 1 AND dead_seq IS NULL",
            (str(intent.payout_id),),
        ).fetchone()
        if row is not None:
            raise SignerRefused(
                f"payout {intent.payout_id} is signed at nonce {row[1]} of {row[0]}",
                remedy="Two operators may state which other transaction has spent that nonce",
            )
        if self.spends.is_alive(intent.payout_id):
            raise SignerRefused(f"payout {intent.payout_id} is signed in a spend of Bitcoin")

    def _check_replacement(self, intent: Intent, tx: UnsignedTransaction) -> None:
        rows = self.database.execute(
            f"SELECT max_fee, max_priority_fee FROM {OF_NONCE}",  # noqa: S608  fixed text
            (tx.chain_id, intent.sender, tx.nonce),
        ).fetchall()
        if len(rows) > REPLACEMENTS_MAX:
            raise SignerRefused(
                f"payout {intent.payout_id} was replaced {REPLACEMENTS_MAX} times already"
            )
        if not all(
            is_bump(tx.max_fee_per_gas, int(max_fee))
            and is_bump(tx.max_priority_fee_per_gas, int(priority))
            for max_fee, priority in rows
        ):
            raise SignerRefused(
                f"payout {intent.payout_id} is signed with other fees",
                remedy="A replacement raises both fees by 12.5 % or more",
            )


def index_rows(
    body: SignedBody, tx: UnsignedTransaction, seq: int
) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Return the statements that index a signature: by its nonce, and by its bytes."""
    intent = body.intent
    pays = int(intent.kind != "cancel")
    yield (
        INSERT_PAYMENT,
        (
            tx.chain_id,
            intent.sender,
            tx.nonce,
            str(intent.payout_id),
            _content(tx) if pays else CANCELLED,
            pays,
            seq,
        ),
    )
    yield (
        INSERT_SIGNED,
        (
            intent.sender,
            _hash(body.unsigned),
            str(intent.payout_id),
            tx.chain_id,
            tx.nonce,
            pays,
            str(tx.max_fee_per_gas),
            str(tx.max_priority_fee_per_gas),
            tx.gas_limit,
            seq,
        ),
    )


def bury_row(body: PayoutDead, seq: int) -> tuple[object, ...]:
    """Return the values of `BURY`."""
    return (seq, body.chain_id, body.sender, body.nonce, str(body.payout_id))


def is_bump(new: int, old: int) -> bool:
    """Tell whether *new* is at least an eighth (12.5 %) above *old*."""
    return new > old and new * 8 >= old * 9


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, timeout=0)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        # A commit is the removal of the journal, and only EXTRA waits until the directory is on
        # disk too: with FULL, a power cut may undo it (sqlite.org/pragma.html#pragma_synchronous).
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA synchronous = EXTRA")
        database.execute("BEGIN EXCLUSIVE")
        database.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        database.close()
        raise StoreUnusable(
            f"the signer's store cannot be used: {error}",
            where=str(path),
            remedy="End the other signer that uses it",
        ) from error
    return database


def _require_made(database: sqlite3.Connection, path: Path) -> None:
    if schema_version(database) == 0:
        raise StoreUnusable("the signer's store is empty", where=str(path))


def _content(tx: UnsignedTransaction) -> bytes:
    told = (tx.recipient, str(tx.value), tx.data.hex())
    return hashlib.sha256("\n".join(told).encode()).digest()


def _hash(unsigned: bytes) -> bytes:
    return hashlib.sha256(unsigned).digest()
