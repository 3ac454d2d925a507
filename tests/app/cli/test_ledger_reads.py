"""``causeway ledger``: what is read, at any time, in pages, and what the exit codes say."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import hold, post_hold, reversal, transfer
from ledger.periods import close_period
from ledger.posting import post, require_applied
from ledger.queries import head
from registry.testing import ETH
from tests.app.cli.conftest import BOOK, Cli

YESTERDAY = timedelta(days=1)


@pytest.fixture
async def books(house: AsyncEngine) -> AsyncEngine:
    """The house after a payout of 2 ETH, a hold of 1 ETH, and 3 ETH that counted yesterday."""

    async def work(conn: AsyncConnection) -> None:
        now = SystemClock().now()
        ids = {name: derive_id(now, name) for name in "abcdef"}
        await ensure_accounts(
            conn, BOOK, [("in-flight:evm", "ETH"), ("client:birch", "ETH"), ("income:fee", "ETH")]
        )
        batch = [
            hold(
                ids["a"],
                "client:acme",
                "in-flight:evm",
                ETH.parse("2"),
                "ETH",
                code="payout.reserved",
                purpose="payout",
                metadata={"order": "o-7"},
                correlation=ids["f"],
            ),
            post_hold(ids["b"], ids["a"], code="payout.signed"),
            hold(
                ids["c"],
                "client:acme",
                "in-flight:evm",
                ETH.parse("1"),
                "ETH",
                code="payout.reserved",
                purpose="payout",
            ),
            transfer(
                ids["d"],
                "client:acme",
                "client:birch",
                ETH.parse("3"),
                "ETH",
                code="moved",
                reference="ref-1",
                effective_at=now - YESTERDAY,
            ),
            transfer(ids["e"], "client:acme", "income:fee", ETH.parse("0.5"), "ETH", code="fee"),
        ]
        require_applied(await post(conn, BOOK, batch))
        require_applied(
            await post(conn, BOOK, [reversal(derive_id(now, "r"), ids["e"], code="fee.undone")])
        )

    await transact(house, work)
    return house


async def sequence(engine: AsyncEngine) -> int:
    return (await transact(engine, lambda conn: head(conn, BOOK))).sequence


def today() -> date:
    return SystemClock().now().date()


async def test_a_balance_now_then_and_on_a_date(books: AsyncEngine, cli: Cli) -> None:
    where = ("ledger", "balance", "client:acme", "ETH", "--json")
    [now] = cli(*where).json
    assert (now["balance"], now["available"]) == ("5 ETH", "4 ETH")
    assert (now["debits_posted"], now["debits_pending"]) == ("5.5 ETH", "1 ETH")
    assert (now["credits_posted"], now["credits_pending"]) == ("10.5 ETH", "0 ETH")
    last = await sequence(books)
    assert now["sequence"] == str(last)

    [then] = cli(*where, "--at-sequence", str(last - 6)).json
    assert (then["balance"], then["sequence"]) == ("10 ETH", str(last - 6))
    assert cli(*where, "--as-of", "2020-01-01").json[0]["balance"] == "0 ETH"
    yesterday = (today() - YESTERDAY).isoformat()
    assert cli(*where, "--effective", yesterday).json[0]["balance"] == "-3 ETH"
    known = cli(*where, "--effective", today().isoformat(), "--at-sequence", str(last)).json
    assert known[0]["balance"] == "5 ETH"

    [held] = cli(*where, "--holds").json
    assert [item["amount"] for item in held["holds"]] == ["1 ETH"]
    [before] = cli(*where, "--holds", "--at-sequence", str(last - 5)).json
    assert [item["amount"] for item in before["holds"]] == ["2 ETH"]
    assert cli(*where[:-1], "--holds").out.count("payout") == 1


@pytest.mark.usefixtures("books")
def test_accounts_are_listed_in_pages_and_summed_as_a_tree(cli: Cli) -> None:
    first = cli("ledger", "accounts", "client:", "--limit", "1", "--json")
    assert [row["account"] for row in first.json] == ["client:acme"]
    assert '--after "client:acme ETH"' in first.err
    rest = cli("ledger", "accounts", "client:", "--after", "client:acme ETH", "--json")
    assert [row["account"] for row in rest.json] == ["client:birch", "client:birch"]
    assert "there is more" not in rest.err

    tree = cli("ledger", "accounts", "client", "--tree", "--depth", "1", "--json").json
    assert [(row["account"], row["asset"], row["balance"]) for row in tree] == [
        ("client", "ETH", "8 ETH"),
        ("client", "USDT", "20,000 USDT"),
    ]
    assert "  acme" in cli("ledger", "accounts", "--tree").out


async def test_transfers_are_filtered_and_paged_in_both_directions(
    books: AsyncEngine, cli: Cli
) -> None:
    def codes(*words: str) -> list[str]:
        return [row["posting"] for row in cli("ledger", "transfers", *words, "--json").json]

    assert codes("--code", "fee") == ["fee"]
    assert codes("--kind", "reversal") == ["fee.undone"]
    assert codes("--reference", "ref-1") == ["moved"]
    assert codes("--metadata", '{"order": "o-7"}') == ["payout.reserved"]
    assert codes("--path", "client:birch", "--asset", "ETH") == ["moved"]
    yesterday = (today() - YESTERDAY).isoformat()
    assert codes("--effective-to", yesterday) == ["moved"]
    assert codes("--to", "2020-01-01") == []
    assert codes("--from", "2020-01-01", "--asset", "USDT") == ["opening"]

    first = cli("ledger", "transfers", "--path", "client:acme", "--limit", "2", "--json")
    assert [row["posting"] for row in first.json] == ["opening", "payout.reserved"]
    assert f"--after {first.json[-1]['sequence']}" in first.err
    last = str(await sequence(books) + 1)
    end = cli("ledger", "transfers", "--before", last, "--limit", "2", "--json")
    assert [row["posting"] for row in end.json] == ["fee", "fee.undone"]
    assert f"--before {end.json[0]['sequence']}" in end.err


@pytest.mark.usefixtures("books")
def test_a_transfer_is_explained_with_what_belongs_to_it(cli: Cli) -> None:
    [reserved] = cli("ledger", "transfers", "--metadata", '{"order": "o-7"}', "--json").json
    told = cli("ledger", "explain", reserved["id"], "--json").json
    assert told["hold"] == f"posted {reserved['id']}"
    assert json.loads(told["metadata"]) == {"order": "o-7"}
    assert told["balances_after"][0]["account"] == "client:acme"
    assert (told["balances_after"][0]["balance"], told["balances_after"][0]["available"]) == (
        "10 ETH",
        "8 ETH",
    )
    assert any("resolved it: post 2 ETH" in item["what"] for item in told["timeline"])

    [fee] = cli("ledger", "transfers", "--code", "fee", "--json").json
    assert "reversed it: reversal 0.5 ETH" in cli("ledger", "explain", fee["id"]).out
    nothing = cli("ledger", "explain", "0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80")
    assert nothing.code == 1
    assert "has no transfer" in nothing.err


@pytest.mark.usefixtures("books")
def test_a_statement_as_recorded_and_by_effective_date(cli: Cli) -> None:
    where = ("ledger", "statement", "client:birch", "ETH", "--json")
    recorded = cli(*where, "--from", today().isoformat()).json
    assert [(row["posting"], row["balance"]) for row in recorded] == [
        ("opening", "0 ETH"),
        ("moved", "3 ETH"),
        ("closing", "3 ETH"),
    ]
    assert len(cli(*where, "--to", (today() - YESTERDAY).isoformat()).json) == 2
    yesterday = (today() - YESTERDAY).isoformat()
    effective = cli(*where, "--effective", "--from", yesterday, "--to", yesterday).json
    assert [(row["effective"], row["posting"], row["balance"]) for row in effective] == [
        ("", "opening", "0 ETH"),
        (yesterday, "moved", "3 ETH"),
        ("", "closing", "3 ETH"),
    ]
    now = today().isoformat()
    later = cli(*where, "--effective", "--from", now, "--to", now).json
    assert [row["balance"] for row in later] == ["3 ETH", "3 ETH"]


@pytest.mark.usefixtures("books")
def test_the_trial_balance_says_that_it_is_zero(cli: Cli) -> None:
    totals = cli("ledger", "trial-balance", "--totals", "--json")
    assert totals.code == 0
    assert {row["asset"]: row["zero"] for row in totals.json} == {"ETH": "yes", "USDT": "yes"}
    yesterday = (today() - YESTERDAY).isoformat()
    rows = cli("ledger", "trial-balance", "--effective", yesterday, "--json").json
    assert {row["account"]: row["balance"] for row in rows if row["balance"] != "0 ETH"} == {
        "client:acme": "-3 ETH",
        "client:birch": "3 ETH",
    }


async def test_coverage_is_told_now_and_as_a_history_and_1_means_short(
    books: AsyncEngine, cli: Cli
) -> None:
    sound = cli("ledger", "coverage", "--json")
    assert sound.code == 0
    assert [(row["asset"], row["held"], row["owed"], row["spare"]) for row in sound.json] == [
        ("ETH", "15 ETH", "8 ETH", "7 ETH"),
        ("USDT", "20,000 USDT", "20,000 USDT", "0 USDT"),
    ]
    assert cli("ledger", "coverage", "--short", "--json").json == []

    async def take(conn: AsyncConnection) -> None:
        await ensure_accounts(conn, BOOK, [("expense:loss", "USDT")])
        item = transfer(
            derive_id(SystemClock().now(), "loss"),
            "expense:loss",
            "custody:client-pool",
            1,
            "USDT",
            code="lost",
        )
        require_applied(await post(conn, BOOK, [item]))

    await transact(books, take)
    short = cli("ledger", "coverage", "--json")
    assert short.code == 1
    assert [row["covered"] for row in short.json] == ["yes", "NO"]
    [change] = cli("ledger", "coverage", "--short", "--asset", "USDT", "--json").json
    height = int(change["block"])
    assert cli("ledger", "coverage", "--block", str(height)).code == 1
    assert cli("ledger", "coverage", "--block", str(height - 1)).code == 0
    history = cli("ledger", "coverage", "--history", "--limit", "1", "--json")
    assert "there is more: --after" in history.err


async def test_holds_and_periods_are_listed(books: AsyncEngine, cli: Cli) -> None:
    [held] = cli("ledger", "holds", "--path", "client:acme", "--json").json
    assert (held["amount"], held["purpose"]) == ("1 ETH", "payout")
    assert cli("ledger", "holds", "--path", "client:birch", "--json").json == []

    assert cli("ledger", "periods", "--json").json == []
    through = date(2026, 1, 31)
    await transact(
        books,
        lambda conn: close_period(
            conn, BOOK, through, reason="month-end", proposed_by="ada", approved_by="ben"
        ),
    )
    [period] = cli("ledger", "periods", "--json").json
    assert (period["what"], period["through"], period["approved_by"]) == (
        "closed",
        "2026-01-31",
        "ben",
    )


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize(
    "words",
    [
        ("balance", "client:acme", "ETH", "--as-of", "2026-01-01", "--at-sequence", "3"),
        ("balance", "client:acme", "ETH", "--holds", "--effective", "2026-01-01"),
        ("balance", "client:nobody", "ETH"),
        ("trial-balance", "--effective", "soon"),
        ("transfers", "--kind", "gift"),
        ("transfers", "--metadata", "[1]"),
        ("transfers", "--metadata", "{"),
        ("transfers", "--correlation", "7"),
        ("transfers", "--after", "1", "--before", "2"),
        ("statement", "client:acme", "ETH", "--from", "2026-02-01", "--to", "2026-01-01"),
        ("coverage", "--block", "999"),
        ("coverage", "--history", "--block", "1"),
    ],
)
def test_a_question_without_meaning_is_2(words: tuple[str, ...], cli: Cli) -> None:
    answer = cli("ledger", *words)

    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("option", ["", "effective-"])
def test_a_date_of_transfers_means_its_beginning_and_its_end(
    cli: Cli, books: AsyncEngine, option: str
) -> None:
    """What happened on a day is listed from that day to that day; to the day before, it is not."""
    today = SystemClock().now().date()
    first, last = ("--from", "--to") if not option else ("--effective-from", "--effective-to")
    on_the_day = cli("ledger", "transfers", first, str(today), last, str(today), "--json").json
    until_then = cli("ledger", "transfers", last, str(today - YESTERDAY), "--json").json

    assert "fee" in {row["posting"] for row in on_the_day}
    assert "fee" not in {row["posting"] for row in until_then}


@pytest.mark.parametrize(
    "arguments",
    [
        ("statement", "client:acme", "ETH", "--to", "9999-12-31"),
        ("statement", "client:acme", "ETH", "--from", "20260101"),
        ("transfers", "--to", "9999-12-31"),
        ("balance", "client:acme", "ETH", "--effective", "9999-12-31"),
        ("statement", "client:acme", "ETH", "--effective", "--to", "9999-12-31"),
    ],
)
def test_a_date_at_the_end_of_the_calendar_is_an_answer(
    cli: Cli, books: AsyncEngine, arguments: tuple[str, ...]
) -> None:
    answer = cli("ledger", *arguments, "--json")

    assert answer.code == 0, answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("transfers", "--after", str(2**63)),
        ("transfers", "--before", str(2**63)),
        ("transfers", "--after", "-1"),
        ("holds", "--after", str(2**63)),
        ("periods", "--after", str(2**63)),
        ("coverage", "--block", str(2**63)),
        ("coverage", "--block", "-1"),
        ("coverage", "--history", "--after", str(2**63)),
        ("accounts", "--book", "99999"),
        ("checkpoint", "--key", "missing.key"),
        ("statement", "client:acme", "ETH", "--effective", "--from", "0001-01-01"),
        ("prove", "--between", "²", "2"),
        ("prove", "--between", "1", str(2**63)),
    ],
)
def test_a_number_out_of_range_is_bad_input(
    cli: Cli, books: AsyncEngine, arguments: tuple[str, ...]
) -> None:
    answer = cli("ledger", *arguments)

    assert answer.code in {1, 2}, answer.err


@pytest.mark.parametrize(
    "words",
    [
        ("accounts",),
        ("accounts", "--tree"),
        ("balance", "client:acme", "ETH"),
        ("statement", "client:acme", "ETH"),
        ("transfers",),
        ("holds",),
        ("trial-balance",),
        ("trial-balance", "--totals"),
        ("coverage",),
        ("coverage", "--history"),
        ("periods",),
        ("period-proposals",),
        ("journal", "list"),
    ],
    ids=" ".join,
)
def test_a_book_that_does_not_exist_is_2_and_no_empty_list(
    words: tuple[str, ...], books: AsyncEngine, cli: Cli
) -> None:
    answer = cli("ledger", *words, "--book", "77")
    assert (answer.code, answer.out) == (2, ""), answer.err
    assert "there is no book 77" in answer.err
