"""``causeway bank statement`` as it is typed: files in, what they say out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from banks.simulator.bank import Bank
from kernel.db import transact
from tests.app.cli.conftest import Cli
from tests.custody.banks.bank_house import IBAN, PAYER, TODAY, register_accounts

Person = Callable[[str], tuple[str, ...]]


@pytest.fixture
async def bank(house: object, engine: AsyncEngine) -> Bank:
    await transact(engine, register_accounts)
    bank = Bank(TODAY)
    bank.execute({"verb": "account", "iban": IBAN, "currency": "EUR"})
    return bank


def end_of_day(bank: Bank, folder: Path) -> list[str]:
    """End a day on which 100.50 came in; return the statement's path."""
    sent = {"account": IBAN, "amount": 10_050, "end_to_end": "RUN-7", "name": "Acme", "iban": PAYER}
    bank.execute({"verb": "credit", **sent})
    names = bank.execute({"verb": "end-of-day"})
    for name in names:
        (folder / name).write_bytes(bank.files[name])
    return [str(folder / name) for name in names]


def cut_off(path: str) -> bytes:
    """Let the end of a file be lost; return what is left."""
    left = Path(path).read_bytes()[:-20]
    Path(path).write_bytes(left)
    return left


async def test_a_statement_is_taken_in_once_and_looked_at(
    bank: Bank, cli: Cli, as_: Person, tmp_path: Path
) -> None:
    (path,) = end_of_day(bank, tmp_path)
    words = ("bank", "statement", "import", path, *as_("cleo"), "--json")

    rehearsed = cli(*words, "--dry-run")
    assert rehearsed.json[0]["booked"] == 1
    assert cli("bank", "statement", "list", "--json").json == []
    first, again = cli(*words), cli(*words)

    assert (first.code, again.code) == (0, 0)
    assert [answer.json[0]["new"] for answer in (first, again)] == [True, False]
    (statement,) = cli("bank", "statement", "list", "--json").json
    assert (statement["account"], statement["closing"]) == ("desk-eur", "100.5 EUR")
    (entry,) = cli("bank", "statement", "show", statement["id"], "--json").json
    assert (entry["amount"], entry["end_to_end"]) == ("100.5 EUR", "RUN-7")
    (receipt,) = cli("bank", "receipts", "--json").json
    assert (receipt["kind"], receipt["amount"], receipt["name"]) == ("receipt", "100.5 EUR", "Acme")
    assert cli("bank", "statement", "gaps").code == 0


async def test_what_cannot_be_read_ends_with_1_and_is_kept(
    bank: Bank, cli: Cli, as_: Person, tmp_path: Path
) -> None:
    (path,) = end_of_day(bank, tmp_path)
    cut = cut_off(path)

    answer = cli("bank", "statement", "import", path, *as_("cleo"))
    assert answer.code == 1
    assert "not XML" in answer.err
    (kept,) = cli("bank", "statement", "quarantine", "--json").json
    copy = tmp_path / "copy.xml"
    assert cli("bank", "statement", "raw", kept["id"], "--out", str(copy), "--json").code == 0
    assert copy.read_bytes() == cut
    assert cli("bank", "statement", "reread", kept["id"], *as_("cleo")).code == 2
    done = cli("bank", "statement", "dismiss", kept["id"], *as_("cleo"), "--reason", "cut off")
    assert done.code == 0
    assert cli("bank", "statement", "quarantine", "--json").json == []


async def test_a_gap_ends_with_1(bank: Bank, cli: Cli, as_: Person, tmp_path: Path) -> None:
    paths = [end_of_day(bank, tmp_path)[0] for _ in range(3)]

    answer = cli("bank", "statement", "import", paths[0], paths[2], *as_("cleo"))
    assert answer.code == 0
    assert "statements are missing" in answer.err
    gaps = cli("bank", "statement", "gaps", "--json")
    assert (gaps.code, len(json.loads(gaps.out))) == (1, 1)


async def test_only_who_keeps_the_books_takes_statements_in(
    bank: Bank, cli: Cli, as_: Person, tmp_path: Path
) -> None:
    (path,) = end_of_day(bank, tmp_path)

    assert cli("bank", "statement", "import", path, *as_("ben")).code == 1
    assert cli("bank", "statement", "import", str(tmp_path / "no.xml"), *as_("cleo")).code == 2
