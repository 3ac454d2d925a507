"""Proving the signer's store: nothing in it is believed that does not follow from the log.

The log is read once from its first record. Its leaves, tiles and head are hashed again, every
control message is checked against what was in force when it came, every signature is recovered from
its bytes, and the index tables are rebuilt and compared. What is in the file beside them, a trigger
say, is a fault.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from chain.bitcoin.digests import Spent, signing_digests
from chain.bitcoin.psbt_finish import verify_witness
from chain.bitcoin.scripts import witness_key_hash_script
from chain.bitcoin.transactions import Output, Transaction, decode
from chain.evm.transactions import decode_signed, decode_unsigned
from custody.control_messages import ControlMessage, PayoutDead, RestoreOpened, SpendDead
from custody.restore_marks import Mark, require_line
from custody.signer.audit import CONTROL, GENESIS, MARKED, REFUSED, SIGNED, SPENT, AuditRecord
from custody.signer.control import InForce, apply_control, check_control
from custody.signer.mark_memory import mark_rows, void_row
from custody.signer.migrations import VERSION, migrate
from custody.signer.rules import check_rules
from custody.signer.spend_memory import SpendBody, bury_rows, index_spend
from custody.signer.store import BURY, Genesis, Memory, SignedBody, bury_row, index_rows
from custody.signer.wire import SpendIntent
from kernel.errors import CausewayError
from ledger.merkle import TILE_WIDTH, append, leaf_hash, pack, perfect_root

SCHEMA: Final = "SELECT type, name, tbl_name, sql FROM sqlite_master"
INDEXES: Final = ("payment", "signed", "spend", "spend_payout", "spend_signed", "coin", "mark")


def find_faults(memory: Memory) -> list[str]:
    """Return what is wrong with the store, each fault naming table and record; [] if nothing is."""
    reading = Reading(memory.database)
    for row in memory.database.execute(
        "SELECT seq, at, kind, subject, body, leaf FROM audit ORDER BY seq"
    ):
        reading.take(AuditRecord(*row[:5]), bytes(row[5]))
    reading.compare_tree()
    reading.compare_indexes()
    reading.compare_schema()
    versions = memory.database.execute("SELECT version FROM schema_version").fetchall()
    if versions != [(VERSION,)]:
        reading.faults.append(f"schema_version: {versions} instead of {VERSION}")
    return reading.faults


@dataclass(slots=True)
class Reading:
    """What has been read of the log so far, and what was wrong with it."""

    database: sqlite3.Connection
    faults: list[str] = field(default_factory=list)
    size: int = 0
    at: int = 0
    state: InForce | None = None
    frontier: list[bytes] = field(default_factory=list)
    row_of_leaves: list[bytes] = field(default_factory=list)
    tiles: list[tuple[int, bytes]] = field(default_factory=list)
    rebuilt: sqlite3.Connection = field(default_factory=lambda: sqlite3.connect(":memory:"))

    def __post_init__(self) -> None:
        """Make the empty tables that the log's records are put in again."""
        self.rebuilt.isolation_level = None
        migrate(self.rebuilt)

    def take(self, record: AuditRecord, leaf: bytes) -> None:
        """Read the next record."""
        where = f"audit record {record.seq}"
        if record.seq != self.size:
            self.faults.append(f"{where}: comes where record {self.size} should")
        if record.at < self.at:
            self.faults.append(f"{where}: is older than the one before")
        computed = leaf_hash(record.to_bytes())
        if computed != leaf:
            self.faults.append(f"{where}: is not what its leaf was hashed over")
        self.size, self.at = self.size + 1, max(self.at, record.at)
        self.frontier = append(self.size, self.frontier, [computed])
        self.row_of_leaves.append(computed)
        if len(self.row_of_leaves) == TILE_WIDTH:
            self.tiles.append((len(self.tiles), perfect_root(self.row_of_leaves)))
            self.row_of_leaves = []
        try:
            self._read(record)
        except (CausewayError, msgspec.DecodeError, ValueError, sqlite3.Error) as error:
            self.faults.append(f"{where}: {error}")

    def compare_tree(self) -> None:
        """Compare the stored head and tiles with those of the records."""
        heads = self.database.execute("SELECT one, size, frontier FROM head").fetchall()
        if heads != [(1, self.size, pack(self.frontier))]:
            self.faults.append("head: is not that of the log's records")
        if self.database.execute("SELECT * FROM tile ORDER BY number").fetchall() != self.tiles:
            self.faults.append("tile: hashes are not those of the log's records")

    def compare_indexes(self) -> None:
        """Compare the index tables with those that the log's records make."""
        for table in INDEXES:
            stored, rebuilt = _rows(self.database, table), _rows(self.rebuilt, table)
            missing, strange = rebuilt - stored, stored - rebuilt
            self.faults += [f"{table}: misses {_brief(row)}" for row in sorted(missing, key=repr)]
            self.faults += [f"{table}: has {_brief(row)}" for row in sorted(strange, key=repr)]

    def compare_schema(self) -> None:
        """Find tables, indexes, views and triggers that the program has not made, or that it misses."""
        stored, made = (
            {row[:2]: row for row in database.execute(SCHEMA)}
            for database in (self.database, self.rebuilt)
        )
        self.faults += [
            f"schema: {kind} {name} is not as the program makes it"
            for kind, name in sorted({*stored, *made})
            if stored.get((kind, name)) != made.get((kind, name))
        ]

    def _read(self, record: AuditRecord) -> None:
        if (record.kind == GENESIS) is not (record.seq == 0):
            self.faults.append(f"audit record {record.seq}: the first record is the genesis")
        if record.kind == GENESIS:
            genesis = msgspec.json.decode(record.body, type=Genesis)
            check_rules(genesis.rules)
            self.state = InForce.of(genesis.rules)
        elif record.kind == CONTROL:
            self._control(record)
        elif record.kind == SIGNED:
            self._signed(record)
        elif record.kind == SPENT:
            self._spent(record)
        elif record.kind == MARKED:
            self._marked(record)
        elif record.kind != REFUSED:
            self.faults.append(f"audit record {record.seq}: of no kind that there is")

    def _control(self, record: AuditRecord) -> None:
        message = msgspec.json.decode(record.body, type=ControlMessage)
        if message.digest != record.subject or self.state is None:
            self.faults.append(f"audit record {record.seq}: is not about its subject")
            return
        body = check_control(self.state, message)
        apply_control(
            self.state,
            message.kind,
            body,
            digest=message.digest,
            index=record.seq,
            at_ms=record.at,
        )
        if isinstance(body, PayoutDead):
            self.rebuilt.execute(BURY, bury_row(body, record.seq))
        if isinstance(body, SpendDead):
            for statement, values in bury_rows(body, record.seq):
                self.rebuilt.execute(statement, values)
        if isinstance(body, RestoreOpened):
            self.rebuilt.execute(*void_row(body))

    def _signed(self, record: AuditRecord) -> None:
        body = msgspec.json.decode(record.body, type=SignedBody)
        chain_id = body.intent.chain_id
        tx = decode_unsigned(body.unsigned, chain_id=chain_id)
        signed = decode_signed(body.raw, chain_id=chain_id)
        about = (str(body.intent.payout_id), body.intent.sender, tx)
        if about != (record.subject, signed.sender, signed.unsigned):
            self.faults.append(
                f"audit record {record.seq}: its bytes are not what was to be signed"
            )
        for statement, values in index_rows(body, tx, record.seq):
            self.rebuilt.execute(statement, values)

    def _marked(self, record: AuditRecord) -> None:
        marks = msgspec.json.decode(record.body, type=list[Mark])
        require_line(marks)
        if not marks or str(marks[-1].number) != record.subject:
            self.faults.append(f"audit record {record.seq}: is not about its subject")
        for statement, values in mark_rows(marks, record.seq):
            self.rebuilt.execute(statement, values)

    def _spent(self, record: AuditRecord) -> None:
        body = msgspec.json.decode(record.body, type=SpendBody)
        signed = decode(body.raw)
        if (str(body.intent.spend_id), decode(body.unsigned)) != (
            record.subject,
            signed.without_proofs(),
        ):
            self.faults.append(
                f"audit record {record.seq}: its bytes are not what was to be signed"
            )
        require_proved(body.intent, signed)
        for statement, values in index_spend(body, record.seq):
            self.rebuilt.execute(statement, values)


def require_proved(intent: SpendIntent, signed: Transaction) -> None:
    """Refuse a transaction of which a signature is not of the coin that its input spends.

    Raises:
        BadTransaction: says which.
    """
    keys = [item.witness[-1] if item.witness else b"" for item in signed.inputs]
    spent = [
        Spent(Output(item.amount, witness_key_hash_script(key)))
        for item, key in zip(intent.inputs, keys, strict=True)
    ]
    digests = signing_digests(signed, spent)
    for item, found, digest in zip(signed.inputs, spent, digests, strict=True):
        verify_witness(found, digest, item.witness)


def _rows(database: sqlite3.Connection, table: str) -> set[tuple[Any, ...]]:
    return set(database.execute(f"SELECT * FROM {table}"))  # noqa: S608  one of INDEXES


def _brief(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.hex()[:16] if isinstance(value, bytes) else value for value in row)
