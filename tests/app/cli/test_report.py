"""``causeway report`` at the command line: refusals, forms, exit codes. docs/reports.md is run elsewhere."""

from __future__ import annotations

import csv
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.cli.report_shown import per_cent
from kernel.db import transact
from tests.app.cli.conftest import Cli

Signed = Callable[[str], tuple[str, ...]]
JANUARY = ("--month", "2026-01")


@pytest.mark.usefixtures("house")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("positions", "--book", "9"), 2, "there is no book 9"),
        (("trial-balance", "--book", "9"), 2, "there is no book 9"),
        (("trial-balance", "--json", "--csv"), 2, "not both"),
        (("positions", "--in", "DOGE"), 1, "DOGE is not registered"),
        (("positions", "--in", "USDT"), 1, "no price of ETH/USDT"),
        (("positions", "--on", "2999-01-01"), 2, "still to come"),
        (("funding-forecast", "--from", "soon"), 2, "is not a date"),
        (
            ("settlement-efficiency", "--from", "2026-02-01", "--to", "2026-01-01"),
            2,
            "ends before it starts",
        ),
        (("statement", "acme"), 2, "say which days"),
        (("statement", "acme", *JANUARY, "--from", "2026-01-01"), 2, "say which days"),
        (("statement", "acme", "--from", "2026-01-01"), 2, "two ends"),
        (("statement", "acme", "--month", "January"), 2, "is not a month"),
        (("statement", "nobody", *JANUARY), 1, "nobody"),
        (("pnl", "--in", "USDT", "--method", "lifo"), 2, "fifo"),
        (("pnl", "--in", "USDT"), 1, "no price in USDT of ETH"),
        (("check-pack", "nowhere"), 2, "cannot read the pack"),
        (("obstacles", "2026-13"), 2, "is not a month"),
    ],
)
def test_what_cannot_be_reported_is_refused_in_a_sentence(
    cli: Cli, words: tuple[str, ...], code: int, said: str
) -> None:
    answer = cli("report", *words)

    assert answer.code == code, answer.err
    assert answer.err.startswith("error: ")
    assert said in answer.err


@pytest.mark.usefixtures("house")
def test_only_finance_or_the_treasurer_issues_and_records(cli: Cli, as_: Signed) -> None:
    refused = cli("report", "issue-statement", "acme", *JANUARY, *as_("dan"))

    assert refused.code == 1
    assert "finance" in refused.err
    assert cli("report", "statements", "--json").json == []


@pytest.mark.usefixtures("house")
def test_a_statement_is_the_same_as_csv_and_as_file(
    cli: Cli, as_: Signed, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.mktemp("out") / "acme.csv"

    shown = cli("report", "statement", "acme", *JANUARY, "--csv")
    issued = cli(
        "report", "issue-statement", "acme", *JANUARY, "--csv", str(target), *as_("cleo"), "--json"
    )

    assert issued.code == 0, issued.err
    assert target.read_bytes().decode().splitlines() == shown.out.splitlines()
    (kept,) = cli("report", "statements", "--party", "acme", "--json").json
    assert kept == issued.json
    assert cli("report", "statements", "--party", "birch", "--json").json == []


@pytest.mark.usefixtures("house")
def test_positions_tie_and_csv_has_plain_decimals(cli: Cli) -> None:
    rows = list(csv.DictReader(cli("report", "positions", "--csv").out.splitlines()))

    (eth,) = [row for row in rows if row["asset"] == "ETH"]
    assert (eth["for clients"], eth["clients"]) == (
        "15.000000000000000000",
        "10.000000000000000000",
    )
    assert eth["own"] == eth["equity"] == "25.000000000000000000"
    without = cli("report", "positions", "--without-clients", "--json").json
    assert {row["asset"]: row["for clients"] for row in without}["ETH"] == "5 ETH"


async def test_books_that_are_not_tied_end_with_1(
    cli: Cli, house: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    async def forge(conn: AsyncConnection) -> None:
        await conn.execute(text("ALTER TABLE ledger.entry DISABLE TRIGGER USER"))
        await conn.execute(
            text(
                "UPDATE ledger.entry SET debits_posted = debits_posted + 1 WHERE account = "
                "(SELECT number FROM ledger.account WHERE path = 'custody:house-hot')"
            )
        )

    await transact(owner_engine, forge)

    for command, said in (("positions", "not tied: ETH"), ("trial-balance", "not balanced: ETH")):
        answer = cli("report", command)
        assert answer.code == 1
        assert said in answer.err


@pytest.mark.parametrize(
    ("ppm", "told"), [(0, "0.00 %"), (596_026, "59.60 %"), (1_000_000, "100.00 %")]
)
def test_a_share_is_rounded_down(ppm: int, told: str) -> None:
    assert per_cent(ppm) == told
