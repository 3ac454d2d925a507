"""Manual journals, periods, moves between books and the cut-over, as commands."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.cli.ledger_import import read_folder
from kernel.clock import SystemClock
from kernel.db import transact
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.imports.importing import begin_import, check_import
from ledger.imports.planning import import_bytes
from ledger.model import transfer
from ledger.posting import open_book, post, require_applied
from ledger.queries import get_balance
from ledger.verification import verify
from registry.model import LegalEntity, Role
from registry.testing import USDT, change, operator, operator_keypair
from settlement.queries import list_obligations
from tests.app.cli.conftest import BOOK, Cli

OTHER = 2
As = Callable[[str], tuple[str, ...]]


@pytest.fixture
def both(keys: dict[str, Path]) -> tuple[str, ...]:
    """Two operators who want something together."""
    return (
        *("--as", "ada", "--key", str(keys["ada"])),
        *("--approver", "ben", "--approver-key", str(keys["ben"])),
    )


@pytest.fixture
async def two_books(house: AsyncEngine) -> AsyncEngine:
    async def work(conn: AsyncConnection) -> None:
        now = SystemClock().now()
        await change(conn, LegalEntity("causeway-trust", "Causeway Trust Ltd", OTHER), now=now)
        await open_book(conn, OTHER, entity="causeway-trust")
        for book in (BOOK, OTHER):
            keys = [("bank:clients", "USDT")]
            await ensure_accounts(conn, book, keys, owners={"bank:clients": "client"})

    await transact(house, work)
    return house


async def balance(engine: AsyncEngine, path: str, asset: str = "USDT", book: int = BOOK) -> int:
    async with engine.connect() as conn:
        return (await get_balance(conn, book, path, asset)).posted


def propose(cli: Cli, as_: As, evidence: Path, *words: str, ref: str = "mj-1") -> str:
    answer = cli(
        *("ledger", "journal", "propose", *words, "--ref", ref, "--reason", "first payment"),
        *("--attachment", str(evidence), *as_("ada"), "--json"),
    )
    assert answer.code == 0, answer.err
    assert answer.json["state"] == "proposed"
    return str(answer.json["id"])


CAPITAL = ("capital", "action=paid-in", "holding=bank:main", "amount=1,000.5 USDT")


async def test_a_manual_journal_from_its_proposal_to_its_story(
    cli: Cli, house: AsyncEngine, as_: As, evidence: Path
) -> None:
    journal = propose(cli, as_, evidence, *CAPITAL)
    again = propose(cli, as_, evidence, *CAPITAL)
    assert again == journal

    own = cli("ledger", "journal", "approve", journal, *as_("ada"))
    wrong = cli("ledger", "journal", "approve", journal, *as_("dan"))
    assert (own.code, wrong.code) == (1, 1)
    assert "proposed this" in own.err
    assert "not approver or treasurer" in wrong.err

    dry = cli("ledger", "journal", "approve", journal, *as_("ben"), "--dry-run", "--json")
    assert (dry.json["state"], dry.json["dry_run"]) == ("posted", True)
    done = cli("ledger", "journal", "approve", journal, *as_("ben"), "--json")
    assert (done.code, done.json["state"], done.json["decided_by"]) == (0, "posted", "ben")
    assert done.json["attachment"] == hashlib.sha256(b"agreed").hexdigest()
    assert done.json["fields"] == "action=paid-in holding=bank:main amount=1,000.5 USDT"
    assert await balance(house, "bank:main") == USDT.parse("1000.5")

    (listed,) = cli("ledger", "journal", "list", "--state", "posted", "--json").json
    assert listed["id"] == journal
    story = cli("ledger", "journal", "explain", journal, "--json").json
    kinds = [(moment["kind"], moment["who"]) for moment in story["timeline"]]
    assert sorted(kinds) == [("event", "ada"), ("event", "ben"), ("posting", "ledger")]


@pytest.mark.usefixtures("house")
def test_manual_journals_are_listed_page_by_page(cli: Cli, as_: As, evidence: Path) -> None:
    first = propose(cli, as_, evidence, *CAPITAL, ref="mj-1")
    second = propose(cli, as_, evidence, *CAPITAL, ref="mj-2")

    page = cli("ledger", "journal", "list", "--limit", "1", "--json")
    rest = cli("ledger", "journal", "list", "--after", first, "--json")

    assert [item["id"] for item in page.json] == [first]
    assert f"there is more: --after {first}" in page.err
    assert [item["id"] for item in rest.json] == [second]
    assert "more" not in rest.err


async def test_what_the_ledger_refuses_ends_with_1_and_its_outcome(
    cli: Cli, house: AsyncEngine, as_: As, evidence: Path
) -> None:
    words = ("loan", "action=repaid", "party=lender", "holding=bank:main", "principal=5 USDT")
    journal = propose(cli, as_, evidence, *words, "interest=1 USDT")

    refused = cli("ledger", "journal", "approve", journal, *as_("ben"), "--json")

    assert (refused.code, refused.json["state"]) == (1, "refused")
    assert refused.json["outcome"] == "exceeds_credits"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("bribe", "amount=1 USDT"), 2, "no template"),
        (("capital", "amount"), 2, "not FIELD=VALUE"),
        (("capital", "amount=1 USDT", "amount=2 USDT"), 2, "each field once"),
        (("capital", "action=paid-in", "holding=bank:main"), 2, "needs asset, amount"),
        (("capital", "action=paid-in", "holding=bank:main", "amount=1 DOGE"), 1, "DOGE"),
        (
            (
                *("loan", "action=repaid", "party=a", "holding=bank:m"),
                *("principal=1 USDT", "interest=1 ETH"),
            ),
            2,
            "one asset",
        ),
    ],
)
@pytest.mark.usefixtures("house")
def test_what_makes_no_journal_is_told(
    cli: Cli, as_: As, evidence: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    answer = cli(
        *("ledger", "journal", "propose", *words, "--ref", "x", "--reason", "y"),
        *("--attachment", str(evidence), *as_("ada")),
    )

    assert answer.code == code
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_the_templates_are_listed_without_a_database(cli: Cli) -> None:
    found = {
        row["template"]: row["fields"]
        for row in cli("ledger", "journal", "templates", "--json").json
    }

    assert found["bank-fee"] == "account=PATH amount=AMOUNT"
    assert len(found) == 7


async def test_a_journal_is_taken_back_and_a_period_closed_by_three(
    cli: Cli, house: AsyncEngine, as_: As, evidence: Path
) -> None:
    yesterday = (SystemClock().now() - timedelta(days=1)).date().isoformat()
    journal = propose(cli, as_, evidence, *CAPITAL, "--effective-on", yesterday)
    close = ("ledger", "close-period", yesterday, "--reason", "month end", *as_("cleo"))
    waiting = cli(*close)
    assert waiting.code == 1
    assert "mj-1" in waiting.err
    rejected = cli(
        "ledger", "journal", "reject", journal, "--reason", "wrong day", *as_("ada"), "--json"
    )
    assert rejected.json["state"] == "rejected"

    proposal = cli(*close, "--json").json["id"]
    assert cli("ledger", "approve-period", proposal, *as_("cleo")).code == 1
    first = cli("ledger", "approve-period", proposal, *as_("ben"), "--json").json
    assert (first["state"], first["approved_by"]) == ("proposed", "ben")
    second = cli("ledger", "approve-period", proposal, *as_("ada"), "--json").json
    assert (second["state"], second["approved_by"]) == ("recorded", "ben, ada")

    before = (SystemClock().now() - timedelta(days=9)).date().isoformat()
    again = cli("ledger", "reopen-period", before, "--reason", "late", *as_("cleo"), "--json").json[
        "id"
    ]
    no = cli("ledger", "reject-period", again, "--reason", "not yet", *as_("ben"), "--json").json
    assert no["state"] == "rejected"
    listed = cli("ledger", "period-proposals", "--json").json
    assert [(row["kind"], row["state"]) for row in listed] == [
        ("reopened", "rejected"),
        ("closed", "recorded"),
    ]


async def test_a_claim_and_its_funds_move_between_books(
    cli: Cli, two_books: AsyncEngine, both: tuple[str, ...], as_: As, evidence: Path
) -> None:
    # Custody covers birch; its money is to be at the bank for the move.
    now = SystemClock().now()

    async def fund(conn: AsyncConnection) -> None:
        item = transfer(
            derive_id(now, "fund"),
            "bank:clients",
            "custody:client-pool",
            USDT.parse("20000"),
            "USDT",
            code="test",
        )
        require_applied(await post(conn, BOOK, [item]))

    await transact(two_books, fund)
    command = (
        *("ledger", "move-between-books", "60 USDT", "--from-book", "1", "--to-book", "2"),
        *("--claim", "client:birch=client:birch", "--funds", "bank:clients"),
        *("--ref", "mv-1", "--reason", "birch moves", *both),
    )
    dry = cli(*command, "--dry-run", "--json")
    assert (dry.code, dry.json["state"], dry.json["dry_run"]) == (0, "settled", True)
    assert cli("ledger", "moves", "--json").json == []

    done = cli(*command, "--json")
    assert (done.code, done.json["state"]) == (0, "settled"), done.err
    assert cli(*command, "--json").json["id"] == done.json["id"]
    assert await balance(two_books, "client:birch", book=OTHER) == USDT.parse("60")
    assert await balance(two_books, "clearing:2") == 0
    (pair,) = cli("ledger", "clearing", "--json").json
    assert (pair["moves"], pair["difference"]) == ("0", "0 USDT")
    story = cli("ledger", "explain-move", done.json["id"], "--json").json
    assert len(story["timeline"]) == 4 + 6

    bounced = cli(
        *("ledger", "move-between-books", "60 USDT", "--from-book", "1", "--to-book", "2"),
        *("--claim", "client:birch", "--ref", "mv-2", "--reason", "x", *both, "--json"),
    )
    assert (bounced.code, bounced.json["state"]) == (1, "returned")
    assert bounced.json["outcome"] == "client_money_not_covered"
    page = cli("ledger", "moves", "--limit", "1", "--json")
    assert ([item["reference"] for item in page.json], page.code) == (["mv-1"], 0)
    assert f"there is more: --after {done.json['id']}" in page.err
    rest = cli("ledger", "moves", "--after", done.json["id"], "--json")
    assert [item["reference"] for item in rest.json] == ["mv-2"]
    for book in (BOOK, OTHER):
        assert await verify(two_books, book) == []


async def test_a_cut_over_is_rehearsed_imported_and_found_again(
    cli: Cli, house: AsyncEngine, both: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "cut-over"
    folder.mkdir()
    (folder / "accounts.csv").write_text(
        "path,asset,owner\nbank:old,USDT,house\nequity:capital,USDT,\npayable:acme:open,USDT,\n"
    )
    (folder / "balances.csv").write_text(
        "path,asset,amount,effective_at\n"
        "bank:old,USDT,500.25,2025-12-01\nequity:capital,USDT,400.25,2025-12-01\n"
        "payable:acme:open,USDT,100,2025-12-01\n"
    )
    (folder / "obligations.csv").write_text(
        "reference,party,direction,asset,amount,value_date\nob-1,acme,pay,USDT,100,2026-01-05\n"
    )
    (folder / "totals.csv").write_text("file,asset,rows,total\nbalances,USDT,3,1000.6\n")
    (folder / "notes.txt").write_text("not a part of it")
    command = ("ledger", "import", str(folder), "--name", "cut-over", "--reason", "old", *both)

    wrong = cli(*command)
    assert wrong.code == 2
    assert "totals.csv:2 total: balances.csv comes to 1000500000" in wrong.err
    assert "totals.csv:1: obligations.csv has 1 rows of USDT" in wrong.err

    (folder / "totals.csv").write_text(
        "file,asset,rows,total\nbalances,USDT,3,1000.5\nobligations,USDT,1,100\n"
    )
    dry = cli(*command, "--dry-run", "--json")
    assert (dry.code, dry.json["transfers_created"], dry.json["dry_run"]) == (0, 3, True), dry.err
    assert cli("ledger", "imports", "--json").json == []

    done = cli(*command, "--json")
    assert done.code == 0, done.err
    assert (done.json["state"], done.json["transfers_created"]) == ("completed", 3)
    assert done.json["obligations"] == 1
    assert done.json["totals"][0] == {
        "file": "balances.csv",
        "asset": "USDT",
        "rows": "3",
        "total": "1,000.5 USDT",
    }
    again = cli(*command, "--json")
    assert (again.code, again.json["transfers_created"]) == (0, 0)
    assert (again.json["transfers_existing"], again.json["obligations"]) == (3, 0)
    assert await balance(house, "bank:old") == USDT.parse("500.25")
    async with house.connect() as conn:
        (owed,) = await list_obligations(conn, BOOK)
    assert (owed.party, owed.amount) == ("acme", USDT.parse("100"))
    (listed,) = cli("ledger", "imports", "--json").json
    assert (listed["name"], listed["state"]) == ("cut-over", "completed")
    assert await verify(house, BOOK) == []


async def test_who_began_an_import_may_be_gone_when_it_is_completed(
    cli: Cli, house: AsyncEngine, both: tuple[str, ...], tmp_path: Path
) -> None:
    files = {
        "accounts.csv": "path,asset\nconversion:otc,USDT\npayable:acme:open,USDT\n",
        "transfers.csv": "effective_at,debit,credit,amount,asset,code\n"
        "2025-12-01,conversion:otc,payable:acme:open,9,USDT,old.deal\n",
        "obligations.csv": "reference,party,direction,asset,amount,value_date\n"
        "ob-1,acme,pay,USDT,9,2026-01-05\n",
        "totals.csv": "file,asset,rows,total\ntransfers,USDT,1,9\nobligations,USDT,1,9\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    now = SystemClock().now()

    async def begin_and_leave(conn: AsyncConnection) -> None:
        await change(conn, operator("eve", Role.FINANCE), now=now)
        plan = await check_import(conn, read_folder(tmp_path), book=BOOK, now=now)
        payload = import_bytes(BOOK, "cut-over", plan.digest, reason="old", imported_by="eve")
        await begin_import(
            conn,
            plan,
            book=BOOK,
            name="cut-over",
            reason="old",
            by="eve",
            approver="ben",
            signature=operator_keypair("ben").sign(payload),
            now=now,
        )
        await change(conn, operator("eve", Role.FINANCE, active=False), now=now)

    await transact(house, begin_and_leave)

    done = cli(
        *("ledger", "import", str(tmp_path), "--name", "cut-over", "--reason", "old"),
        *(*both, "--json"),
    )
    assert done.code == 0, done.err
    assert (done.json["state"], done.json["obligations"]) == ("completed", 1)


@pytest.mark.usefixtures("house")
def test_an_imported_hold_is_ended(cli: Cli, both: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "holds.csv").write_text(
        "effective_at,debit,credit,amount,asset,purpose\n"
        "2025-12-01,equity:capital,in-flight:bank,5,USDT,payout\n"
    )
    (tmp_path / "accounts.csv").write_text("path,asset\nequity:capital,USDT\nin-flight:bank,USDT\n")
    (tmp_path / "totals.csv").write_text("file,asset,rows,total\nholds,USDT,1,5\n")
    words = ("--reason", "y", *both, "--json")
    assert cli("ledger", "import", str(tmp_path), "--name", "x", *words).code == 0
    (held,) = cli("ledger", "holds", "--json").json

    wrong = cli("ledger", "resolve-hold", held["hold"], "kept", *words)
    done = cli("ledger", "resolve-hold", held["hold"], "voided", *words)
    again = cli("ledger", "resolve-hold", held["hold"], "voided", *words)

    assert (wrong.code, done.code, again.code) == (2, 0, 1)
    assert "already_voided" in again.err
    assert cli("ledger", "holds", "--json").json == []


@pytest.mark.usefixtures("house")
def test_a_folder_that_is_none_is_2(cli: Cli, both: tuple[str, ...], tmp_path: Path) -> None:
    words = ("--name", "x", "--reason", "y", *both)

    missing = cli("ledger", "import", str(tmp_path / "none"), *words)
    empty = cli("ledger", "import", str(tmp_path), *words)

    assert (missing.code, empty.code) == (2, 2)
    assert "cannot be read" in missing.err
    assert "no CSV file" in empty.err
