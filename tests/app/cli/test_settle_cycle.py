"""A cycle through the command line: a window, a preview, statements out and signed answers in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.app.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("house")

As = Callable[[str], tuple[str, ...]]


def deal(cli: Cli, as_: As, party: str, side: str, amount: str, ref: str) -> None:
    done = cli(
        *("desk", "deal", party, f"--{side}", amount, "--price", "3000 USDT", "--ref", ref),
        *("--reason", "as agreed", *as_("dan")),
    )
    assert done.code == 0, done.err


def test_a_cycle_is_previewed_opened_answered_and_sealed(
    cli: Cli, as_: As, keys: dict[str, Path], tmp_path: Path
) -> None:
    two = ("--approver", "ben", "--approver-key", str(keys["ben"]))
    paper = tmp_path / "paper.pdf"
    paper.write_text("signed")
    for party in ("acme", "birch"):
        agreed = cli("settle", "agree", party, "--document", str(paper), *as_("ada"), *two)
        assert agreed.code == 0, agreed.err
        deal(cli, as_, party, "sell", "2 ETH", f"{party}-1")
        deal(cli, as_, party, "buy", "1 ETH", f"{party}-2")
    window = ("settle", "windows", "set", "noon", "--cut-off", "00:00", "--zone", "UTC")
    # Nothing is as large as that: all of the money is carried.
    made = cli(*window, "--threshold", "9999999 USDT", *as_("ada"), *two, "--json")
    assert made.json["thresholds"] == "9,999,999 USDT", made.err
    again = cli(*window, "--threshold", "4000 USDT", "--closed", *as_("ada"), *two, "--json")
    assert (again.json["version"], again.json["active"]) == ("2", "false")
    versions = cli("settle", "windows", "show", "noon", "--json").json
    assert [item["version"] for item in versions] == ["1", "2"]

    seen = cli("settle", "preview", "--window", "noon", "--json")
    assert seen.code == 0, seen.err
    assert [(i["party"], i["amount"]) for i in seen.json["items"]] == [
        ("acme", "1 ETH"),
        ("birch", "1 ETH"),
    ]
    assert {i["amount"] for i in seen.json["carried"]} == {"3,000 USDT"}
    [eth, usdt] = seen.json["savings"]
    assert (eth["gross"], eth["moves"], eth["saved"]) == ("6 ETH", "2 ETH", "4 ETH")
    assert eth["cycles"] == "2 ETH"
    assert eth["note"]
    assert (usdt["moves"], usdt["carried"]) == ("0 USDT", "6,000 USDT")
    assert {(i["from"], i["need"], i["short"]) for i in seen.json["needs"]} == {
        ("house-hot", "2 ETH", "0 ETH")
    }
    assert cli("settle", "cycles", "--json").json == []
    assert "has no cycle" in cli("settle", "open", "--window", "noon", *as_("ada")).err

    opened = cli("settle", "open", "--window", "by-hand", *as_("ada"), "--json")
    assert opened.code == 0, opened.err
    runs = {item["party"]: item["id"] for item in opened.json["runs"]}
    assert sorted(runs) == ["acme", "birch"]
    cycle = opened.json["id"]
    assert [i["state"] for i in cli("settle", "cycles", "--json").json] == ["calculated"]

    statement, answer, secret = (tmp_path / name for name in ("s.json", "s.signed", "acme.key"))
    secret.write_text(f"{'ab' * 32}\n")
    secret.chmod(0o600)
    public = Ed25519PrivateKey.from_private_bytes(bytes.fromhex("ab" * 32)).public_key()
    enrol = ("desk", "enrol-confirmation-key", "acme", "office", public.public_bytes_raw().hex())
    assert cli(*enrol, *as_("ada"), *two).code == 0
    issued = cli(
        "settle", "statement", runs["acme"], "--out", str(statement), *as_("dan"), "--json"
    )
    said = cli(
        *("settle", "answer", str(statement), "--key", str(secret), "--out", str(answer)), "--json"
    )
    assert said.json["statement"] == issued.json["sha256"], said.err
    rehearsed = cli("settle", "affirm-file", str(answer), "--dry-run", *as_("dan"), "--json")
    assert rehearsed.json["dry_run"] is True, rehearsed.err
    entered = cli("settle", "affirm-file", str(answer), *as_("dan"), "--json")
    assert (entered.json["state"], entered.json["verdict"]) == ("affirmed", "affirmed")
    other = statement.read_bytes().replace(b'"version": 1', b'"version": 2')
    statement.write_bytes(other)
    forged = ("settle", "answer", str(statement), "--key", str(secret), "--out", str(answer))
    assert cli(*forged).code == 0
    refused = cli("settle", "affirm-file", str(answer), *as_("dan"))
    assert (refused.code, "was issued to acme" in refused.err) == (1, True)

    dry = cli("settle", "seal-cycle", cycle, *as_("ada"), "--dry-run", "--json")
    assert [item["party"] for item in dry.json] == ["acme"], dry.err
    done = cli("settle", "seal-cycle", cycle, *as_("ada"), "--json")
    assert [(item["party"], item["state"]) for item in done.json] == [("acme", "sealed")]

    told = cli("settle", "explain", runs["acme"], "--json").json
    assert told["replay"] == "same"
    assert [item["proof"] for item in told["affirmations"]] == ["key 1"]
    assert {(item["state"], item["net"]) for item in told["gross"]} == {
        ("sealed", "pay 1 ETH"),
        ("sealed", "receive 3,000 USDT"),
    }
    assert len(told["gross"]) == 4
    assert any("payable:acme:netted" in moment["what"] for moment in told["timeline"])
    whole = cli("settle", "explain", cycle, "--json").json
    assert [item["party"] for item in whole["runs"]] == ["acme", "birch"]
    line = cli("settle", "explain", told["gross"][0]["id"], "--json").json
    assert (line["kind"], line["run"]) == ("obligation", runs["acme"])
    shown = cli("settle", "cycle", cycle, "--json").json
    assert (shown["left"], "time_for" in shown) == ("0", True)

    # Birch's first deal is disputed: one obligation goes back to the pool, then all to trading.
    owed = cli("obligations", "list", "--party", "birch", "--json").json
    wrong = [item["id"] for item in owed if item["deal"] == owed[0]["deal"]]
    why = ("--reason", "a wrong price")
    assert cli("settle", "dispute", runs["birch"], *wrong, *why, *as_("dan")).code == 0
    open_again = cli("settle", "resolve", runs["birch"], wrong[0], *why, *as_("ada"), "--json")
    assert open_again.json["state"] == "open", open_again.err
    assert cli("settle", "resolve", runs["birch"], wrong[0], *why, *as_("ada")).code == 1
    given = cli("settle", "withdraw", owed[0]["deal"], *why, *as_("ada"), "--json")
    assert given.json["obligations"] == "2", given.err
    listed = cli("settle", "runs", "--limit", "1", "--json")
    assert "there may be more" in listed.err
    rest = cli("settle", "runs", "--after", listed.json[0]["id"], "--json").json
    assert sorted([listed.json[0]["id"], *(item["id"] for item in rest)]) == sorted(runs.values())
    page = cli("obligations", "list", "--after", owed[1]["id"], "--party", "birch", "--json").json
    assert [item["id"] for item in page] == [item["id"] for item in owed[2:]]
    unsigned = ("--dispute", wrong[0], "--key", str(secret), "--out", str(tmp_path / "none"))
    assert cli("settle", "answer", str(statement), *unsigned).code == 2
    assert not (tmp_path / "none").exists()
