"""A working day through the command line, on real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.signer.hd_keys import PrivateNode
from custody.signer.testing import SEED
from kernel.clock import SystemClock
from kernel.db import transact
from registry.queries import get_operator
from settlement.book_rail import accept_book
from settlement.release_model import BookSettlement
from settlement.releasing import release_runs
from tests.app.cli.conftest import Cli

PAYEE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
As = Callable[[str], tuple[str, ...]]

pytestmark = pytest.mark.usefixtures("house")


@pytest.fixture
def allowed(house: AsyncEngine, cli: Cli, as_: As, tmp_path: Path) -> str:
    """All that a payout of acme's needs; returns the id of the allowed destination."""
    cli("custody", "address", "assign", "client-pool", "--purpose", "hot", *as_("dan"))
    rules = tmp_path / "rules.json"
    rules.write_text(
        '[{"claim": "client", "asset": "ETH", "amount_max": "3", "approvals": 1},'
        ' {"claim": "*", "approvals": 2}]'
    )
    proposed = cli("custody", "policy", "propose", str(rules), *as_("ada"), "--json").json
    cli("custody", "policy", "approve", proposed["version"], *as_("ben"))
    where = cli("custody", "destinations", "propose", "acme", PAYEE, *as_("dan"), "--json").json
    done = cli("custody", "destinations", "approve", where["id"], *as_("ben"), "--json")
    assert done.json["state"] == "active"
    return str(done.json["id"])


def payout(cli: Cli, as_: As, amount: str, *more: str) -> tuple[str, ...]:
    return (
        *("custody", "payout", amount, "--claim", "client:acme", "--to", PAYEE),
        *("--from", "client-pool", *as_("dan"), "--json", *more),
    )


def available(cli: Cli, path: str, asset: str) -> str:
    [found] = cli("ledger", "balance", path, asset, "--json").json
    return str(found["available"])


@pytest.mark.usefixtures("allowed")
def test_a_payout_is_rehearsed_requested_approved_by_another_and_explained(
    cli: Cli, as_: As
) -> None:
    rehearsed = cli(*payout(cli, as_, "2 ETH", "--ref", "w-1", "--dry-run"))
    assert rehearsed.code == 0, rehearsed.err
    assert rehearsed.json["dry_run"] is True
    assert "nothing is written" in rehearsed.err
    assert available(cli, "client:acme", "ETH") == "10 ETH"
    assert cli("custody", "payouts", "--json").json == []

    made = cli(*payout(cli, as_, "2 ETH", "--ref", "w-1")).json
    assert (made["state"], made["amount"]) == ("pending_approval", "2 ETH")
    assert available(cli, "client:acme", "ETH") == "8 ETH"

    by_the_dealer = cli("custody", "approve", made["id"], *as_("dan"))
    assert by_the_dealer.code == 1
    approved = cli("custody", "approve", made["id"], *as_("cleo"), "--json").json
    assert approved["state"] == "approved"

    story = cli("custody", "explain", made["id"], "--json").json
    kinds = {moment["kind"] for moment in story["timeline"]}
    assert {"event", "posting", "approval"} <= kinds
    assert any("2 ETH Dr client:acme" in moment["what"] for moment in story["timeline"])
    assert [item["operator"] for item in story["approvals"]] == ["cleo"]
    assert "Time line" in cli("custody", "explain", made["id"]).out

    cancelled = cli("custody", "cancel", made["id"], "--reason", "later", *as_("dan"), "--json")
    assert cancelled.json["state"] == "cancelled"
    assert available(cli, "client:acme", "ETH") == "10 ETH"


@pytest.mark.usefixtures("allowed")
def test_a_payout_that_the_client_cannot_cover_is_rejected_with_exit_code_1(
    cli: Cli, as_: As
) -> None:
    answer = cli(*payout(cli, as_, "11 ETH", "--ref", "w-2"))

    assert answer.code == 1
    assert answer.json["state"] == "rejected"
    assert answer.json["refused"]


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    ("amount", "rule", "approvals"), [("3 ETH", "1", "1"), ("3.1 ETH", "2", "2")]
)
def test_the_approval_policy_says_which_rule_decides(
    cli: Cli, amount: str, rule: str, approvals: str
) -> None:
    found = cli("custody", "policy", "explain", amount, "--claim", "client:acme", "--json").json

    assert (found["rule"], found["approvals"]) == (rule, approvals)
    assert cli("custody", "policy", "show", "--json").json[0]["up_to"] == "3 ETH"


def test_a_destination_that_was_revoked_cannot_be_paid(cli: Cli, as_: As, allowed: str) -> None:
    revoked = cli(
        *("custody", "destinations", "revoke", allowed, "--reason", "key lost", *as_("ben"))
    )
    answer = cli(*payout(cli, as_, "1 ETH", "--ref", "w-3"))

    assert (revoked.code, answer.code) == (0, 1)
    assert answer.err.startswith("error: ")


def test_addresses_are_handed_out_once_each_and_a_rehearsal_keeps_none(cli: Cli, as_: As) -> None:
    assign = ("custody", "address", "assign", "client-pool", "--party", "acme", *as_("dan"))
    rehearsed = cli(*assign, "--json", "--dry-run").json
    first, second = cli(*assign, "--json").json, cli(*assign, "--json").json

    assert rehearsed["address"] == first["address"]
    assert (first["path"], second["path"]) == ("0/0", "0/1")
    listed = cli("custody", "address", "list", "--json").json
    assert [item["address"] for item in listed] == [first["address"], second["address"]]


@pytest.mark.parametrize("who", ["mallory", "ben"])
def test_somebody_elses_key_or_no_such_operator_is_refused(
    cli: Cli, keys: dict[str, Path], who: str
) -> None:
    key = keys["mallory"]
    answer = cli(
        *("custody", "address", "assign", "client-pool", "--party", "acme"),
        *("--as", who, "--key", str(key)),
    )

    assert answer.code == 1
    assert who in answer.err


def test_a_role_is_needed_and_a_private_key_file(
    cli: Cli, as_: As, keys: dict[str, Path], tmp_path: Path
) -> None:
    assign = ("custody", "address", "assign", "client-pool", "--party", "acme")
    loose = tmp_path / "dan.key"
    loose.write_text(keys["dan"].read_text())
    loose.chmod(0o644)

    by_finance = cli(*assign, *as_("cleo"))
    with_an_open_file = cli(*assign, "--as", "dan", "--key", str(loose))

    assert by_finance.code == 1
    assert with_an_open_file.code == 2
    assert f"chmod 600 {loose}" in with_an_open_file.err


def test_a_deal_moves_the_position_settles_and_is_told(
    cli: Cli, as_: As, keys: dict[str, Path], evidence: Path
) -> None:
    booked = cli(*deal("birch", "sell", as_), "--json")
    assert booked.code == 0, booked.err
    deal_id = booked.json["id"]
    assert booked.json["against"] == "6,000 USDT"
    position = {i["asset"]: i["position"] for i in cli("desk", "position", "--json").json}
    assert position == {"ETH": "-2 ETH", "USDT": "6,000 USDT"}
    other = cli(*deal("birch", "buy", as_, "--ref", "d-2"), "--json").json
    cli("desk", "cancel", other["id"], "--reason", "wrong side", *as_("dan"))
    assert [i["state"] for i in cli("desk", "deals", "--json").json] == ["cancelled", "booked"]

    two = ("--approver", "ben", "--approver-key", str(keys["ben"]))
    agreement = ("settle", "agree", "birch", "--document", str(evidence), "--prefunded")
    assert cli(*agreement, *as_("ada"), *two, "--json").json["prefunded"] == "true"

    seen = cli("settle", "preview", "--json")
    assert seen.code == 0, seen.err
    assert cli("obligations", "list", "--json").json == []
    [run] = cli("settle", "open", "--window", "noon", *as_("ada"), "--json").json["runs"]
    net = cli("settle", "explain", run["id"], "--json").json["net"]
    assert net == seen.json["items"]
    assert {(i["direction"], i["amount"], i["rail"]) for i in net} == {
        ("pay", "2 ETH", "book"),
        ("receive", "6,005 USDT", "book"),
    }
    witness = ("--witness", "ada", "--witness-key", str(keys["ada"]))
    affirm = ("settle", "affirm", run["id"], "--party", "birch", "--version", "1")
    affirmed = cli(*affirm, "--evidence", str(evidence), *as_("dan"), *witness, "--json")
    assert affirmed.json["state"] == "affirmed", affirmed.err
    assert cli("settle", "seal", run["id"], *as_("ada"), "--dry-run", "--json").json["dry_run"]
    assert cli("settle", "runs", "--state", "sealed", "--json").json == []
    assert cli("settle", "seal", run["id"], *as_("ada"), "--json").json["state"] == "sealed"

    rehearsed = cli("settle", "release", run["id"], *as_("ada"), "--dry-run", "--json")
    assert rehearsed.json["state"] == "final", rehearsed.err
    released = cli("settle", "release", run["id"], *as_("ada"), "--json").json
    assert (released["state"], released["waits"]) == ("final", [])
    assert available(cli, "client:birch", "ETH") == "2 ETH"

    told = cli("settle", "explain", run["id"], "--json").json
    assert {item["state"] for item in told["instructions"]} == {"final"}
    life = cli("desk", "explain", deal_id, "--json").json
    assert life["state"] == "settled"
    assert {item["state"] for item in life["obligations"]} == {"discharged"}
    [first, *_] = cli("obligations", "list", "--party", "birch", "--json").json
    assert cli("settle", "explain", first["id"], "--json").json["kind"] == "obligation"
    assert cli("verify", "--json").json["held"] is True


async def test_what_is_held_of_a_book_settlement_is_let_go_on_both_sides(
    house: AsyncEngine, cli: Cli, as_: As, keys: dict[str, Path], evidence: Path
) -> None:
    """Somebody died after it was held, and birch is to settle later: neither side stays held."""
    two = ("--approver", "ben", "--approver-key", str(keys["ben"]))
    cli("settle", "agree", "birch", "--document", str(evidence), "--prefunded", *as_("ada"), *two)
    cli(*deal("birch", "sell", as_))
    [run] = cli("settle", "open", "--window", "noon", *as_("ada"), "--json").json["runs"]
    witness = ("--witness", "ada", "--witness-key", str(keys["ada"]))
    affirm = ("settle", "affirm", run["id"], "--party", "birch", "--version", "1")
    cli(*affirm, "--evidence", str(evidence), *as_("dan"), *witness)
    cli("settle", "seal", run["id"], *as_("ada"))
    await transact(house, partial(hold_by_book, run_id=UUID(run["id"]), party="birch"))

    items = cli("settle", "explain", run["id"], "--json").json["instructions"]
    assert {item["state"] for item in items} == {"released"}
    why = ("--reason", "it settles later", *as_("ada"))
    let_go = cli("settle", "let-go", run["id"], items[0]["id"], *why, "--json")

    assert (let_go.code, let_go.json["state"]) == (0, "failed"), let_go.err
    again = [
        cli("settle", "reschedule", run["id"], item["id"], *why, "--json").json["state"]
        for item in items
    ]
    assert again == ["rescheduled", "rescheduled"]
    assert available(cli, "client:birch", "USDT") == "20,000 USDT"
    released = cli("settle", "release", run["id"], *as_("ada"), "--json").json
    assert (released["state"], released["waits"]) == ("final", [])
    unheld = cli("settle", "let-go", run["id"], items[0]["id"], *why)
    assert (unheld.code, "cannot be cancelled" in unheld.err) == (1, True)


async def hold_by_book(conn: AsyncConnection, *, run_id: UUID, party: str) -> None:
    """What ``settle release`` does before it settles."""
    ada, now = await get_operator(conn, "ada"), SystemClock().now()
    await release_runs(conn, [run_id], by=ada, now=now)
    await accept_book(conn, [BookSettlement(run_id, party)], by=ada, now=now)


def deal(party: str, side: str, as_: As, *more: str) -> tuple[str, ...]:
    return (
        *("desk", "deal", party, f"--{side}", "2 ETH", "--price", "3000 USDT"),
        *("--fee", "5 USDT", *(more or ("--ref", "d-1")), *as_("dan")),
    )


def test_a_deal_is_rehearsed_without_a_trace(cli: Cli, as_: As) -> None:
    answer = cli(*deal("acme", "sell", as_), "--dry-run", "--json")

    assert (answer.code, answer.json["state"]) == (0, "booked")
    assert cli("desk", "deals", "--json").json == []
    assert cli("desk", "position", "--json").json == []


def test_the_registry_is_changed_by_two_people(cli: Cli, as_: As, tmp_path: Path) -> None:
    record = tmp_path / "cedar.json"
    record.write_text('{"code": "cedar", "kind": "client", "entity": "causeway-desk"}')
    propose = ("registry", "propose", "party", str(record), "--reason", "new client")

    proposal = cli(*propose, *as_("ada"), "--json").json
    alone = cli("registry", "approve", proposal["id"], *as_("ada"))
    done = cli("registry", "approve", proposal["id"], *as_("ben"), "--json").json

    assert alone.code == 1
    assert (done["code"], done["version"]) == ("cedar", "1")
    codes = [item["code"] for item in cli("registry", "list", "party", "--json").json]
    assert codes == ["acme", "birch", "cedar", "simvenue"]
    shown = cli("registry", "show", "party", "cedar", "--json").json
    assert shown["versions"][0]["proposal"] == proposal["id"]
    assert cli("registry", "show", "party", "nobody").code == 1
    assert cli("registry", "proposals", "--state", "proposed", "--json").json == []


@pytest.mark.parametrize(
    ("path", "code"), [("m/44'/60'/3'", 0), ("m/44'/60'/7'", 2)], ids=["its path", "another path"]
)
def test_a_wallet_comes_into_force_only_with_a_key_that_two_libraries_agree_about(
    cli: Cli, as_: As, tmp_path: Path, path: str, code: int
) -> None:
    record = tmp_path / "wallet.json"
    record.write_text(
        json.dumps(
            {
                "code": "reserve",
                "chain": "evm",
                "owner": "house",
                "purpose": "hot",
                "account_xpub": PrivateNode.from_seed(SEED).derive("m/44'/60'/3'").xpub(),
                "account_path": path,
            }
        )
    )
    propose = ("registry", "propose", "wallet", str(record), "--reason", "reserve", *as_("ada"))
    proposal = cli(*propose, "--json").json

    answer = cli("registry", "approve", proposal["id"], *as_("ben"))

    assert answer.code == code, answer.err
    codes = {item["code"] for item in cli("registry", "list", "wallet", "--json").json}
    assert ("reserve" in codes) is (code == 0)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"code": "cedar"}', '{"code": "cedar", "kind": "tree", "entity": "x"}'],
)
def test_a_record_that_is_not_complete_is_2(
    cli: Cli, as_: As, tmp_path: Path, content: str
) -> None:
    record = tmp_path / "record.json"
    record.write_text(content)

    answer = cli("registry", "propose", "party", str(record), "--reason", "new", *as_("ada"))

    assert answer.code == 2
    assert answer.err.startswith("error: ")


def test_a_house_is_founded_once(cli: Cli, tmp_path: Path) -> None:
    founding = tmp_path / "founding.json"
    founding.write_text("{}")

    answer = cli("registry", "found", str(founding))

    assert answer.code == 1


def test_a_new_key_is_written_for_its_owner_alone_and_never_over_another(
    cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "eve.key"
    made, again = (
        cli("registry", "new-key", str(path), "--json"),
        cli("registry", "new-key", str(path)),
    )

    assert (made.code, again.code) == (0, 2)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(made.json["public_key"])) == 32
    assert path.read_text().strip() not in made.out


@pytest.fixture
async def spoilt(house: AsyncEngine, owner_engine: AsyncEngine) -> None:
    """Somebody who owns the tables changed every balance by one unit."""
    async with owner_engine.begin() as conn:
        for statement in (
            "ALTER TABLE ledger.balance DISABLE TRIGGER USER",
            "UPDATE ledger.balance SET credits_posted = credits_posted + 1",
            "ALTER TABLE ledger.balance ENABLE TRIGGER USER",
        ):
            await conn.execute(text(statement))


@pytest.mark.usefixtures("spoilt")
def test_verify_names_what_does_not_fit_and_ends_with_1(cli: Cli) -> None:
    answer = cli("verify", "--json")
    told = cli("verify")

    assert (answer.code, told.code) == (1, 1)
    assert answer.json["held"] is False
    assert any("client:acme" in fault["row"] for fault in answer.json["faults"])
    assert "client:acme" in told.out


def test_reconcile_needs_a_node_that_answers(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    without = cli("custody", "reconcile")
    monkeypatch.setenv("CAUSEWAY_EVM_URL", "http://127.0.0.1:9")
    silent = cli("custody", "reconcile")

    assert without.code == 3
    assert "CAUSEWAY_EVM_URL" in without.err
    assert silent.code in {1, 3}
    assert "Traceback" not in silent.err
