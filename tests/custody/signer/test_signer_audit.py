"""The signer's log: every decision is in it, anybody can prove so, and nothing can be changed in it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from chain.evm.transactions import encode_unsigned
from custody.control_messages import ControlKind, PayoutDead, ScopeKind
from custody.restore_marks import Mark, Shown
from custody.signer.__main__ import main
from custody.signer.audit import AuditRecord
from custody.signer.errors import StoreUnusable
from custody.signer.service import Signer
from custody.signer.store import Memory
from custody.signer.verification import find_faults
from custody.signer.wire import (
    AskAudit,
    AskCheckpoint,
    AskSign,
    AskWitness,
    Audited,
    Checkpointed,
    No,
    Witnessed,
)
from ledger.checkpoint import parse_verifier_key, verify
from ledger.merkle import leaf_hash, tree_hash, verify_consistency, verify_inclusion
from tests.custody.signer import purse
from tests.custody.signer.vault import (
    CHAIN_ID,
    RULES,
    SENDER,
    approval,
    ask,
    cancel,
    closed,
    control,
    intent,
    native,
    open_signer,
    opened,
    pay,
    rules,
    tell,
    told,
)


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    with open_signer(tmp_path) as it:
        yield it


def kinds(signer: Signer) -> list[str]:
    return [signer.memory.log.read(seq).kind for seq in range(signer.memory.log.size)]


def test_every_decision_is_a_record(signer: Signer) -> None:
    assert isinstance(pay(signer, 1), bytes)
    assert isinstance(pay(signer, 2, "eve"), str)
    tell(signer, closed(5, ScopeKind.ASSET, "USDT"))
    assert told(signer, opened(5, "ann")) != ""

    assert kinds(signer) == [
        "genesis", "control", "control", "signed", "refused", "control", "refused"
    ]  # fmt: skip


def test_what_is_asked_again_is_not_decided_again(signer: Signer) -> None:
    raw = pay(signer, 1)
    refused = pay(signer, 2, "eve")
    size = signer.memory.log.size

    assert pay(signer, 1) == raw
    assert [pay(signer, 2, "eve") for _ in range(3)] == [refused] * 3
    assert signer.memory.log.size == size
    assert isinstance(pay(signer, 2), bytes)
    assert signer.memory.log.size == size + 1


def test_a_record_is_proved_to_be_in_the_checkpoint(signer: Signer) -> None:
    for number in range(20):
        pay(signer, number, value=1)
    shown = signer.answer(AskCheckpoint())
    assert isinstance(shown, Checkpointed)
    name, key = parse_verifier_key(signer.places.key.verifier_key)
    checkpoint = verify(shown.note, key, name=name)
    for index in range(checkpoint.size):
        answer = signer.answer(AskAudit(index, checkpoint.size))
        assert isinstance(answer, Audited)
        leaf = leaf_hash(answer.record)
        assert verify_inclusion(leaf, index, checkpoint.size, answer.proof, checkpoint.root)
    assert isinstance(signer.answer(AskAudit(checkpoint.size, checkpoint.size)), No)
    assert isinstance(signer.answer(AskAudit(0, checkpoint.size + 1)), No)


def test_a_checkpoint_is_proved_to_go_on_from_an_earlier_one(signer: Signer) -> None:
    log, roots = signer.memory.log, {}
    for number in range(300):
        roots[log.size] = log.root
        pay(signer, number, value=1)
    for size, root in roots.items():
        shown = signer.answer(AskCheckpoint(size))
        assert isinstance(shown, Checkpointed)
        assert verify_consistency(size, log.size, shown.proof, root, log.root)
        assert log.root_at(size) == root
    leaves = [leaf_hash(log.read(seq).to_bytes()) for seq in range(log.size)]
    assert tree_hash(leaves) == log.root
    assert find_faults(signer.memory) == []


def busy(folder: Path) -> None:
    """A store in which every table has rows, and every column a value."""
    both = rules(
        chains={**RULES.chains, **purse.RULES.chains},
        assets=[*RULES.assets, purse.RULES.assets[0]],
        wallets=[*RULES.wallets, *purse.RULES.wallets],
    )
    with open_signer(folder, both) as signer:
        for number in range(300):
            assert isinstance(pay(signer, number, value=1), bytes)
        for party, number, place in (("acme", 71, purse.PAYEE), ("birch", 72, purse.SECOND_PAYEE)):
            assert told(signer, purse.allowed(party, number, place)) == ""
        assert isinstance(purse.ask(signer, purse.spend()), bytes)
        assert told(signer, purse.dead(purse.spend())) == ""
        tx = cancel(nonce=5)
        assert isinstance(ask(signer, tx, intent(tx, payout_id=UUID(int=1_005))), bytes)
        dead = PayoutDead(
            payout_id=UUID(int=1_007),
            chain_id=CHAIN_ID,
            sender=SENDER,
            nonce=7,
            spent_by="0x" + "ab" * 32,
        )
        assert told(signer, control(ControlKind.PAYOUT_DEAD, dead, "ann", "bob")) == ""
        mark = Mark(number=1, previous="", at=1)
        assert isinstance(signer.answer(AskWitness(Shown(marks=[mark]))), Witnessed)
        tx = native(nonce=900)
        meant = intent(tx, payout_id=UUID(int=1_900))
        shown = Shown(marks=[mark], seen=1)
        question = AskSign(meant, encode_unsigned(tx), [approval(meant, "eve")], shown)
        assert isinstance(signer.answer(question), No)
        assert find_faults(signer.memory) == []


@pytest.fixture(scope="module")
def busy_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("busy")
    busy(folder)
    return folder


TABLES = (
    "schema_version", "audit", "head", "tile", "payment", "signed", "spend", "spend_payout",
    "spend_signed", "coin", "mark",
)  # fmt: skip
COLUMNS = {
    "schema_version": ("version",),
    "audit": ("seq", "at", "kind", "subject", "body", "leaf"),
    "head": ("one", "size", "frontier"),
    "tile": ("number", "root"),
    "payment": (
        "chain_id", "sender", "nonce", "payout_id", "content", "pays", "first_seq", "dead_seq"
    ),
    "signed": (
        "sender", "unsigned_hash", "payout_id", "chain_id", "nonce", "pays", "max_fee",
        "max_priority_fee", "gas_limit", "seq",
    ),
    "spend": (
        "chain_id", "anchor", "spend_id", "content", "pays", "first_seq", "dead_seq"
    ),
    "spend_payout": ("payout_id", "spend_id", "first_seq", "dead_seq"),
    "spend_signed": ("unsigned_hash", "spend_id", "chain_id", "anchor", "pays", "fee", "seq"),
    "coin": ("chain_id", "outpoint", "amount", "key_path", "first_seq"),
    "mark": ("number", "token", "seq"),
}  # fmt: skip


def test_the_columns_below_are_all_there_are(busy_store: Path) -> None:
    with sqlite3.connect(busy_store / "signed") as database:
        found = {
            table: tuple(row[1] for row in database.execute(f"PRAGMA table_info({table})"))
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
    database.close()

    assert found == COLUMNS


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table in TABLES for column in COLUMNS[table]]
)
def test_a_changed_value_is_found_whatever_its_column(
    busy_store: Path, tmp_path: Path, table: str, column: str
) -> None:
    shutil.copy(busy_store / "signed", tmp_path / "signed")
    database = sqlite3.connect(tmp_path / "signed", isolation_level=None)
    database.execute("PRAGMA ignore_check_constraints = ON")
    [value] = database.execute(
        f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL LIMIT 1"  # noqa: S608  COLUMNS
    ).fetchone()
    changed = database.execute(
        f"UPDATE {table} SET {column} = ? WHERE {column} = ?",  # noqa: S608  COLUMNS
        (another(value, column), value),
    )
    assert changed.rowcount >= 1
    database.close()

    if (table, column) == ("schema_version", "version"):
        with pytest.raises(StoreUnusable):
            Memory.open(tmp_path / "signed")
        return
    if (table, column) == ("head", "size"):
        # It does not even open: the record that it calls the last is not there.
        with pytest.raises(StoreUnusable):
            Memory.open(tmp_path / "signed")
        return
    memory = Memory.open(tmp_path / "signed")
    faults = find_faults(memory)
    memory.close()

    assert faults, f"{table}.{column} can be changed unseen"


def another(value: Any, column: str) -> Any:
    if isinstance(value, int):
        return value + 1 if column == "version" else value + 1_000_000
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    return value[:-1] + ("1" if value[-1:] != "1" else "2")


@pytest.mark.parametrize(
    "table", [name for name in TABLES if name not in {"schema_version", "head"}]
)
def test_a_removed_row_is_found(busy_store: Path, tmp_path: Path, table: str) -> None:
    shutil.copy(busy_store / "signed", tmp_path / "signed")
    database = sqlite3.connect(tmp_path / "signed", isolation_level=None)
    key = COLUMNS[table][0] if table != "payment" else "payout_id"
    one = f"SELECT {key} FROM {table} LIMIT 1"  # noqa: S608  COLUMNS
    database.execute(f"DELETE FROM {table} WHERE {key} = ({one})")  # noqa: S608  COLUMNS
    database.close()
    memory = Memory.open(tmp_path / "signed")

    assert find_faults(memory)
    memory.close()


def test_a_forger_who_hashes_everything_anew_is_found_by_the_checkpoint(
    busy_store: Path, tmp_path: Path
) -> None:
    for name in ("signed", "signed.key", "checkpoint"):
        shutil.copy(busy_store / name, tmp_path / name)
    database = sqlite3.connect(tmp_path / "signed", isolation_level=None)
    [last] = database.execute("SELECT max(seq) FROM audit").fetchone()
    row = database.execute(
        "SELECT seq, at, kind, subject, body FROM audit WHERE seq = ?", (last,)
    ).fetchone()
    seq, at, kind, subject, body = row
    forged = AuditRecord(seq, at, kind, subject, body.replace("eve", "ann"))
    database.execute(
        "UPDATE audit SET body = ?, leaf = ? WHERE seq = ?",
        (forged.body, leaf_hash(forged.to_bytes()), last),
    )
    database.close()

    with pytest.raises(StoreUnusable, match="not those of its checkpoint"):
        open_signer(tmp_path).__enter__()


def test_the_command_proves_a_store_and_names_what_is_wrong(
    busy_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("signed", "signed.key", "checkpoint"):
        shutil.copy(busy_store / name, tmp_path / name)
    command = ["verify", "--store", str(tmp_path / "signed")]
    command += ["--checkpoint", str(tmp_path / "checkpoint")]

    assert main(command) == 0
    good = json.loads(capsys.readouterr().out)
    assert (good["faults"], good["records"]) == ([], 311)
    with sqlite3.connect(tmp_path / "signed") as database:
        database.execute("UPDATE signed SET max_fee = '1' WHERE nonce = 3")
    database.close()
    assert main(command) == 1
    faults = json.loads(capsys.readouterr().out)["faults"]
    assert [fault.split(":")[0] for fault in faults] == ["signed", "signed"]


def test_a_checkpoint_for_a_new_place_continues_the_others(
    busy_store: Path, tmp_path: Path
) -> None:
    for name in ("signed", "signed.key", "checkpoint"):
        shutil.copy(busy_store / name, tmp_path / name)
    command = ["checkpoint", "--store", str(tmp_path / "signed")]
    command += ["--checkpoint", str(tmp_path / "checkpoint")]
    command += ["--checkpoint", str(tmp_path / "second")]

    assert main(command) == 0
    assert (tmp_path / "second").read_bytes() == (tmp_path / "checkpoint").read_bytes()


def test_the_approvers_of_a_signature_are_in_its_record(signer: Signer) -> None:
    tx = native()
    meant = intent(tx)
    ask(signer, tx, meant, approval(meant, "ann"), approval(meant, "bob"))

    body = json.loads(signer.memory.log.read(signer.memory.log.size - 1).body)

    assert body["approvers"] == ["ann", "bob"]
    assert body["intent"]["destination"] == meant.destination
