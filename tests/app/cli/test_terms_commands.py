"""Commands of what is agreed: agreements, destinations, limits, calendars, collateral, obligations."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.ids import stable_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from tests.app.cli.conftest import BOOK, Cli

PAYEE = "DE89370400440532013000|COBADEFFXXX|Acme GmbH"

pytestmark = pytest.mark.usefixtures("house")


@pytest.fixture
def two(keys: dict[str, Path]) -> tuple[str, ...]:
    """Ada enters, ben signs."""
    return (
        *("--as", "ada", "--key", str(keys["ada"])),
        *("--approver", "ben", "--approver-key", str(keys["ben"])),
    )


def test_an_agreement_names_what_it_covers(cli: Cli, two: tuple[str, ...], evidence: Path) -> None:
    agree = ("settle", "agree", "acme", "--document", str(evidence), "--name", "fx")
    scope = ("--product", "spot", "--asset", "USDT", "--kind", "isda-2002", "--close-out")

    made = cli(*agree, *scope, *two, "--json").json
    assert (made["products"], made["assets"], made["offices"]) == ("spot", "USDT", "every")

    overlapping = cli("settle", "agree", "acme", "--document", str(evidence), *two)
    assert overlapping.code == 1
    assert "fx of acme covers some" in overlapping.err
    (listed,) = cli("settle", "agreements", "--json").json
    assert (listed["name"], listed["close_out"], listed["agreed_by"]) == ("fx", "true", "ada")
    assert (
        cli("settle", "agree", "acme", "--document", str(evidence), "--kind", "x", *two).code == 2
    )


def test_a_party_is_paid_at_a_bank_that_there_is(cli: Cli, two: tuple[str, ...]) -> None:
    instruct = ("settle", "instruct", "acme", "USDT")
    made = cli(*instruct, PAYEE, "--rail", "bank", *two, "--json").json
    assert (made["destination"], made["rail"], made["state"]) == (PAYEE, "bank", "in_force")

    wrong_digit = cli(*instruct, PAYEE.replace("3000|", "3001|"), "--rail", "bank", *two)
    elsewhere = cli(*instruct, PAYEE.replace("COBADEFF", "COBAFRPP"), "--rail", "bank", *two)
    assert (wrong_digit.code, elsewhere.code) == (2, 2)
    assert "not an IBAN" in wrong_digit.err


def test_limits_are_set_and_their_use_is_told(cli: Cli, two: tuple[str, ...]) -> None:
    words = ("settle", "limits", "set", "acme", "USDT", "--reason", "committee", *two)
    assert cli(*words).code == 2
    made = cli(*words, "--gross", "1000", "--net", "0", "--json").json
    assert (made["version"], made["gross"], made["net"]) == ("1", "1,000 USDT", "0 USDT")

    assert cli("settle", "limits", "list", "--json").json == [made]
    used = cli("settle", "limits", "usage", "--json").json
    assert [(use["bound"], use["used"]) for use in used] == [("gross", "0 USDT"), ("net", "0 USDT")]
    assert cli("settle", "limits", "usage", "--over", "80", "--json").json == []


def test_holidays_are_looked_at_and_then_taken_over(cli: Cli, two: tuple[str, ...]) -> None:
    take = ("registry", "calendars", "import", "gb", "--years", "2026-2027", "--part", "ENG")
    looked = cli(*take, *two, "--dry-run", "--json").json
    assert cli("registry", "calendars", "list", "--json").json == []
    taken = cli(*take, *two, "--json").json
    assert {**looked, "dry_run": None} == {**taken, "dry_run": None}

    days = {
        row["day"]: row["name"] for row in cli("registry", "calendars", "show", "gb", "--json").json
    }
    assert "2026-08-31" in days
    after = cli(
        *("registry", "calendars", "next-value-date", "GBP", "USD"),
        *("--tenor", "1", "--trade-date", "2026-08-28", "--json"),
    ).json
    assert (after["value_date"], after["calendars"].partition(":")[2]) == (
        "2026-09-01",
        "fedwire+gb@1",
    )
    assert cli("registry", "calendars", "import", "gb", "--years", "soon", *two).code == 2
    assert cli("registry", "calendars", "import", "xx", "--years", "2026", *two).code == 2
    assert cli("registry", "calendars", "show", "jp").code == 1


def test_a_cutoff_is_told_in_utc(cli: Cli, two: tuple[str, ...]) -> None:
    words = ("registry", "cutoffs", "set", "USDT", "bank", "15:30", "Europe/London")
    assert cli(*words, *two).code == 0

    for day, moment in (("2026-01-15", "15:30"), ("2026-07-15", "14:30")):
        (row,) = cli("registry", "cutoffs", "list", "--day", day, "--json").json
        assert row["moment"].startswith(f"{day}T{moment}")
    assert cli(*words[:-1], "Europe/Frankfurt", *two).code == 2


def test_collateral_is_rehearsed_given_and_never_returned_twice(
    cli: Cli, two: tuple[str, ...]
) -> None:
    def move(verb: str, *more: str) -> int:
        words = ("settle", "collateral", verb, "acme", "100 USDT", "--reason", "margin", *two)
        return cli(*words, *more).code

    assert move("take", "--ref", "c-1", "--dry-run") == 0
    assert cli("settle", "collateral", "list", "--json").json == []
    assert move("take", "--ref", "c-1") == 0
    assert move("take", "--ref", "c-1") == 0
    (held,) = cli("settle", "collateral", "list", "--json").json
    assert (held["party"], held["side"], held["amount"]) == ("acme", "taken", "100 USDT")
    assert move("return", "--taken", "--ref", "c-2") == 0
    assert move("return", "--taken", "--ref", "c-3") == 1
    assert move("return", "--given", "--ref", "c-4") == 1

    due = cli("obligations", "list", "--due", "--json").json
    assert sorted(row["direction"] for row in due) == ["pay", "receive"]


async def claim(house: AsyncEngine) -> None:
    """Let the books say that acme owes nine USDT."""

    async def work(conn: AsyncConnection) -> None:
        debit, credit = "receivable:acme:open", "income:fee"
        await ensure_accounts(conn, BOOK, [(debit, "USDT"), (credit, "USDT")])
        fee = transfer(stable_id("fee", 1), debit, credit, 9_000_000, "USDT", code="test.fee")
        require_applied(await post(conn, BOOK, [fee]))

    await transact(house, work)


async def test_obligations_come_by_file_and_are_told_line_by_line(
    cli: Cli, house: AsyncEngine, keys: dict[str, Path], tmp_path: Path
) -> None:
    ada = ("--reason", "fees", "--as", "ada", "--key", str(keys["ada"]))
    file = tmp_path / "owed.csv"
    header = "ref,party,direction,asset,amount,value_date\n"
    file.write_text(f"{header}a,acme,receive,USDT,much,2026-01-05\n")
    wrong = cli("obligations", "import", str(file), *ada)
    assert wrong.code == 2
    assert "owed.csv:2 amount" in wrong.err

    file.write_text(f"{header}a,acme,receive,USDT,5,2026-01-05\n")
    uncovered = cli("obligations", "import", str(file), *ada)
    assert uncovered.code == 1
    assert "receivable:acme:open" in uncovered.err
    add = ("obligations", "add", "acme", "receive", "10 USDT", "--ref", "b", *ada)
    assert cli(*add).code == 1
    assert cli("obligations", "list", "--json").json == []

    await claim(house)
    assert cli(*add).code == 1
    assert cli("obligations", "import", str(file), *ada, "--dry-run", "--json").json["new"] == "1"
    assert cli("obligations", "import", str(file), *ada, "--json").json["new"] == "1"
    assert cli("obligations", "import", str(file), *ada, "--json").json["new"] == "0"
