"""Checkpoints, proofs and journals: made from a database, checked without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from ledger.model import JournalTransfer
from ledger.queries import list_transfers
from tests.app.cli.conftest import BOOK, Cli

pytestmark = pytest.mark.usefixtures("house")


@pytest.fixture
async def first(house: AsyncEngine) -> JournalTransfer:
    """The first transfer of the journal."""
    return (await transact(house, lambda conn: list_transfers(conn, BOOK)))[0]


def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no command can ask a database."""
    for name in ("CAUSEWAY_DATABASE_URL", "CAUSEWAY_APP_DATABASE_URL"):
        monkeypatch.delenv(name)


def test_a_transfer_is_proven_to_somebody_without_the_database(
    first: JournalTransfer,
    cli: Cli,
    keys: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    note, proof, vkey = (str(tmp_path / name) for name in ("note", "proof", "vkey"))
    signing = ("--key", str(keys["ada"]))

    made = cli("ledger", "checkpoint", *signing, "-o", note, "--json")
    proven = cli("ledger", "prove", str(first.id), "--checkpoint", note, "-o", proof)
    Path(vkey).write_text(made.json["verifier_key"])
    cut_off(monkeypatch)
    checked = cli("ledger", "check-proof", proof, "--checkpoint", note, "--key", vkey, "--json")

    assert (made.code, proven.code, checked.code) == (0, 0, 0), checked.err
    assert made.json["origin"].endswith(f"/book/{BOOK}")
    assert Path(note).read_text() == made.json["note"]
    assert checked.json["signature"] == "valid"
    assert checked.json["sequence"] == str(first.sequence)
    assert str(first.id) in checked.json["record"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("record", "transfer\t1\t1\tforged"), ("index", 0), ("size", 5), ("origin", "other/book/1")],
)
def test_a_forged_proof_is_refused(
    first: JournalTransfer,
    cli: Cli,
    keys: dict[str, Path],
    tmp_path: Path,
    field: str,
    value: object,
) -> None:
    note, proof = str(tmp_path / "note"), tmp_path / "proof"
    cli("ledger", "checkpoint", "--key", str(keys["ada"]), "-o", note)
    cli("ledger", "prove", str(first.id), "-o", str(proof))
    proof.write_text(json.dumps(json.loads(proof.read_text()) | {field: value}))

    assert cli("ledger", "check-proof", str(proof), "--checkpoint", note).code == 1


def test_the_journal_is_proven_to_have_only_grown(
    cli: Cli, keys: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, proof = (str(tmp_path / name) for name in ("old", "new", "proof"))
    signing = ("--key", str(keys["ada"]))
    cli("ledger", "checkpoint", *signing, "--size", "5", "-o", old)
    vkey = cli("ledger", "checkpoint", *signing, "-o", new, "--json").json["verifier_key"]

    assert cli("ledger", "prove", "--between", old, new, "-o", proof).code == 0
    sizes = cli("ledger", "prove", "--between", "5", "7").json
    cut_off(monkeypatch)
    both = ("--checkpoint", old, "--checkpoint", new)
    checked = cli("ledger", "check-proof", proof, *both, "--key", vkey, "--json")

    assert checked.code == 0, checked.err
    assert checked.json["first"] == "5"
    assert (sizes["first"], sizes["second"]) == (5, 7)
    assert cli("ledger", "check-proof", proof, "--checkpoint", new).code == 2
    Path(old).write_text(Path(new).read_text())
    assert cli("ledger", "check-proof", proof, *both).code == 1


def test_a_checkpoint_of_another_journal_is_refused(
    first: JournalTransfer, cli: Cli, keys: dict[str, Path], tmp_path: Path
) -> None:
    note = tmp_path / "note"
    cli("ledger", "checkpoint", "--key", str(keys["ada"]), "-o", str(note))
    lines = note.read_text().splitlines(keepends=True)
    lines[2] = "A" * 43 + "=\n"
    note.write_text("".join(lines))

    answer = cli("ledger", "prove", str(first.id), "--checkpoint", str(note))

    assert answer.code == 1
    assert "not those of the checkpoint" in answer.err
    assert cli("verify", "--checkpoint", str(note)).code == 1


def test_an_exported_journal_verifies_without_the_database(
    cli: Cli, keys: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, note = tmp_path / "book.journal", str(tmp_path / "note")
    made = cli("ledger", "checkpoint", "--key", str(keys["ada"]), "-o", note, "--json").json

    written = cli("ledger", "export-journal", str(journal), "--json")
    cut_off(monkeypatch)
    signed = ("--checkpoint", note, "--key", made["verifier_key"])
    found = cli("verify", "--journal", str(journal), *signed, "--json")

    assert written.json["records"] == str(made["size"])
    assert found.code == 0, found.out
    assert found.json["root"] == made["root"]
    assert found.json["signature"] == "valid"
    assert {row["asset"]: row["debits"] == row["credits"] for row in found.json["totals"]} == {
        "ETH": True,
        "USDT": True,
    }
    assert [path.name for path in tmp_path.iterdir()].count("book.journal") == 1
    assert not list(tmp_path.glob(".*"))
    shown = cli("verify", "--journal", str(journal))
    assert shown.code == 0
    assert made["root"] in shown.out

    data = journal.read_text()
    journal.write_text(data.replace("client:acme", "client:adme", 1))
    forged = cli("verify", "--journal", str(journal), "--checkpoint", note, "--json")
    assert forged.code == 1
    assert [fault["table"] for fault in forged.json["faults"]] == ["checkpoint"]


def test_verification_goes_on_where_it_ended(cli: Cli, tmp_path: Path) -> None:
    state = str(tmp_path / "verified")

    once = cli("verify", "--since", state, "--json")
    again = cli("verify", "--since", state, "--json")

    assert once.code == again.code == 0
    assert once.json["held"]
    assert again.json["held"]


def test_what_cannot_be_read_is_said(cli: Cli, keys: dict[str, Path], tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing")
    signing = ("--key", str(keys["ada"]))
    for arguments in (
        ("verify", "--journal", nothing),
        ("verify", "--journal", str(keys["ada"])),
        ("ledger", "check-proof", nothing, "--checkpoint", nothing),
        ("ledger", "check-proof", str(keys["ada"]), "--checkpoint", nothing),
        ("ledger", "prove"),
        ("ledger", "checkpoint", *signing, "-o", nothing + "/deeper"),
        ("ledger", "export-journal", nothing + "/deeper"),
    ):
        answer = cli(*arguments)
        assert answer.code == 2, (arguments, answer)
        assert "Traceback" not in answer.err
