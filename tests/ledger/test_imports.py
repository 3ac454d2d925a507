"""The cut-over: files are checked whole, posted once, completed after any crash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import constraint_name, sqlstate
from kernel.errors import BadInput
from kernel.events import list_history
from kernel.ids import derive_id
from ledger.accounts import set_frozen
from ledger.errors import PostingRefused
from ledger.imports.errors import FilesNotValid, ImportDiffers, ImportStopped, NotImported
from ledger.imports.holds import HoldEnd, hold_bytes, resolve_imported_hold
from ledger.imports.importing import (
    begin_import,
    check_import,
    complete_import,
    import_accounts,
    import_batch,
    list_imports,
    rehearse_import,
    run_import,
)
from ledger.imports.model import (
    FAULTS_MAX,
    ImportReport,
    ImportRun,
    ImportState,
    ObligationRow,
    Plan,
)
from ledger.imports.planning import batches, import_bytes, make_plan
from ledger.imports.reading import read_files
from ledger.model import PostResult
from ledger.model import hold as make_hold
from ledger.periods import close_period
from ledger.queries import head, list_accounts, list_open_holds, list_transfers
from ledger.testing import enforce_lock_order
from ledger.verification import verify
from registry.errors import NotAuthorised
from registry.testing import ETH, USDT, operator_keypair
from tests.ledger.by_hand import BOOK, START, Hand, open_house

ASSETS = {asset.code: asset for asset in (ETH, USDT)}

ACCOUNTS = """path,asset,owner,credit_limit,purpose,effective_at
bank:clients,USDT,client,,,
bank:house,USDT,house,,operating,2025-01-01
client:acme,USDT,,,,
client:birch,USDT,,50,,
equity:capital,USDT,,,,
income:fee,USDT,,,,
in-flight:bank,USDT,,,,
payable:acme:open,USDT,,,,
receivable:birch:open,USDT,,,,
conversion:otc,USDT,,,,
"""
BALANCES = """path,asset,amount,effective_at,reference
bank:clients,USDT,"1,000.5",2025-12-01,old-1
client:acme,USDT,900,2025-12-01,
client:birch,USDT,100.5,2025-12-01,
bank:house,USDT,500,2025-12-01,
equity:capital,USDT,500,2025-12-01,
payable:acme:open,USDT,30,2025-12-01,
receivable:birch:open,USDT,20,2025-12-01,
conversion:otc,USDT,-10,2025-12-01,
"""
TRANSFERS = """effective_at,debit,credit,amount,asset,code,reference
2025-12-15T10:00:00Z,client:birch,client:acme,140,USDT,old.transfer,t-2
2025-12-10T10:00:00+01:00,client:acme,income:fee,1.25,USDT,old.fee,t-1
"""
HOLDS = """effective_at,debit,credit,amount,asset,purpose,reference
2025-12-20,client:acme,in-flight:bank,300,USDT,payout,w-1
"""
OBLIGATIONS = """reference,party,direction,asset,amount,value_date
ob-1,acme,pay,USDT,10,2026-01-05
ob-2,acme,pay,USDT,20,2026-01-06
ob-3,birch,receive,USDT,20,2026-01-05
"""
TOTALS = """file,asset,rows,total
balances,USDT,8,3041
transfers,USDT,2,141.25
holds,USDT,1,300
obligations,USDT,3,50
"""
FILES = {
    "accounts.csv": ACCOUNTS,
    "balances.csv": BALANCES,
    "transfers.csv": TRANSFERS,
    "holds.csv": HOLDS,
    "obligations.csv": OBLIGATIONS,
    "totals.csv": TOTALS,
}


def raw(**changes: str | None) -> dict[str, bytes]:
    """The files, with some replaced; None: left out."""
    texts = {**FILES, **{f"{name}.csv": value for name, value in changes.items()}}
    return {name: value.encode() for name, value in texts.items() if value is not None}


@pytest.fixture
async def hand(engine: AsyncEngine) -> Hand:
    return await open_house(engine)


class Entered:
    """Takes obligations, each once, as the settlement room does."""

    def __init__(self) -> None:
        self.rows: dict[str, ObligationRow] = {}

    async def __call__(self, conn: AsyncConnection, rows: Sequence[ObligationRow]) -> int:
        new = {row.key: row for row in rows if row.key not in self.rows}
        self.rows |= new
        return len(new)


async def check(hand: Hand, files: Mapping[str, bytes]) -> Plan:
    return await hand.do(lambda conn: check_import(conn, files, book=BOOK, now=hand.clock.now()))


async def begin(hand: Hand, plan: Plan, **changes: Any) -> ImportRun:
    values: dict[str, Any] = {
        "name": "cut-over",
        "reason": "from the old system",
        "by": "eve",
        "approver": "ben",
        **changes,
    }
    payload = import_bytes(
        BOOK,
        values["name"],
        values.pop("signed", plan.digest),
        reason=values["reason"],
        imported_by=values["by"],
    )
    signature = operator_keypair(values["approver"]).sign(payload)
    now = hand.clock.now()
    return await hand.do(
        lambda conn: begin_import(conn, plan, book=BOOK, signature=signature, now=now, **values)
    )


async def load(
    hand: Hand, files: Mapping[str, bytes] | None = None, settle: Entered | None = None
) -> ImportReport:
    plan = await check(hand, files or raw())
    run = await begin(hand, plan)
    return await run_import(
        hand.engine, plan, run, clock=hand.clock.now, settle=settle or Entered()
    )


async def test_a_whole_cut_over_is_in_the_books_and_they_verify(hand: Hand) -> None:
    entered = Entered()
    with enforce_lock_order(hand.engine):
        report = await load(hand, settle=entered)

    assert report.run.state is ImportState.COMPLETED
    assert (report.accounts_created, report.transfers_created, report.obligations) == (11, 11, 3)
    for path, amount in (
        ("bank:clients", "1000.5"),
        ("client:acme", "1038.75"),
        ("client:birch", "-39.5"),
        ("income:fee", "1.25"),
        ("conversion:otc", "-10"),
        # Liabilities and equity of 1,520.5 and the short position less holdings of 1,520.5.
        ("equity:opening", "0"),
    ):
        assert await hand.balance(path) == USDT.parse(amount), path
    (held,) = await hand.do(lambda conn: list_open_holds(conn, BOOK))
    assert (held.debit, held.amount, held.purpose) == ("client:acme", USDT.parse("300"), "payout")
    assert [row.reference for row in entered.rows.values()] == ["ob-1", "ob-2", "ob-3"]
    assert await verify(hand.engine, BOOK) == []


async def test_history_stands_in_the_order_of_its_own_time(hand: Hand) -> None:
    await load(hand)
    made = await hand.do(lambda conn: list_transfers(conn, BOOK))

    assert [item.effective_at for item in made] == sorted(
        item.effective_at for item in made if item.effective_at
    )
    assert [item.reference for item in made[-3:]] == ["t-1", "t-2", "w-1"]
    assert (made[-3].effective_at, made[-3].code) == (
        datetime(2025, 12, 10, 9, tzinfo=UTC),
        "old.fee",
    )
    standing = await hand.do(lambda conn: head(conn, BOOK))
    assert standing.imported_through == datetime(2025, 12, 20, tzinfo=UTC)
    accounts = {a.path: a for a in await hand.do(lambda conn: list_accounts(conn, BOOK))}
    assert accounts["bank:clients"].spec.owner == "client"
    assert accounts["bank:house"].spec.purpose == "operating"
    assert accounts["client:birch"].spec.credit_limit == USDT.parse("50")


async def test_a_second_run_says_exists_for_every_line(hand: Hand) -> None:
    entered = Entered()
    await load(hand, settle=entered)
    before = await hand.do(lambda conn: head(conn, BOOK))
    hand.later(days=1)

    again = await load(hand, settle=entered)

    assert (again.accounts_created, again.accounts_existing) == (0, 11)
    assert (again.transfers_created, again.transfers_existing, again.obligations) == (0, 11, 0)
    assert await hand.do(lambda conn: head(conn, BOOK)) == before


@pytest.mark.parametrize("steps", range(9))
async def test_a_run_that_was_cut_off_anywhere_is_completed_by_the_next(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Batches of two: accounts, then six batches, the obligations, the end; each may be the last."""
    monkeypatch.setattr("ledger.imports.planning.BATCH_MAX", 2)
    entered, done = Entered(), 0

    class Killed(Exception):
        pass

    def progress(_done: int, _total: int) -> None:
        nonlocal done
        done += 1
        if done > steps:
            raise Killed

    plan = await check(hand, raw())
    run = await begin(hand, plan)
    try:
        await run_import(
            hand.engine, plan, run, clock=hand.clock.now, settle=entered, progress=progress
        )
    except Killed:
        hand.later(hours=1)

    report = await load(hand, settle=entered)

    assert report.run.state is ImportState.COMPLETED
    assert report.run.id == run.id
    assert len(await hand.do(lambda conn: list_transfers(conn, BOOK))) == 11
    assert len(entered.rows) == 3
    assert await hand.balance("client:acme") == USDT.parse("1038.75")
    assert await verify(hand.engine, BOOK) == []


async def test_a_batch_that_is_rolled_back_leaves_nothing(hand: Hand) -> None:
    plan = await check(hand, raw())
    run = await begin(hand, plan)
    now = hand.clock.now()
    await hand.do(lambda conn: import_accounts(conn, BOOK, plan.accounts, now=now))
    before = await hand.do(lambda conn: head(conn, BOOK))
    (batch,) = batches(plan)
    async with hand.engine.connect() as conn:
        await import_batch(conn, BOOK, batch, now=now)
        await conn.rollback()

    assert await hand.do(lambda conn: head(conn, BOOK)) == before
    with pytest.raises(ImportStopped, match=r"balances.csv:2"):
        await hand.do(lambda conn: complete_import(conn, run.id, plan, now=now))


async def test_a_line_that_the_ledger_refuses_stops_the_import_and_is_named(hand: Hand) -> None:
    plan = await check(hand, raw())
    run = await begin(hand, plan)
    now = hand.clock.now()
    await hand.do(lambda conn: import_accounts(conn, BOOK, plan.accounts, now=now))

    async def freeze(conn: AsyncConnection, *, frozen: bool) -> None:
        await set_frozen(conn, BOOK, "income:fee", "USDT", frozen=frozen, reason="asked", now=now)

    await hand.do(lambda conn: freeze(conn, frozen=True))
    with pytest.raises(ImportStopped, match=r"credit_account_frozen \(transfers.csv:3\)"):
        await run_import(hand.engine, plan, run, clock=hand.clock.now, settle=Entered())
    # Nothing of the batch is in the journal, so nothing is spent.
    assert await hand.do(lambda conn: list_transfers(conn, BOOK)) == []
    await hand.do(lambda conn: freeze(conn, frozen=False))
    assert (await load(hand)).transfers_created == 11


async def test_a_rehearsal_does_everything_and_leaves_nothing(hand: Hand) -> None:
    plan = await check(hand, raw())
    run = await begin(hand, plan)
    before = await hand.do(lambda conn: head(conn, BOOK))
    entered = Entered()
    async with hand.engine.connect() as conn:
        report = await rehearse_import(conn, plan, run, now=hand.clock.now(), settle=entered)
        await conn.rollback()

    assert (report.transfers_created, report.run.state) == (11, ImportState.COMPLETED)
    assert await hand.do(lambda conn: head(conn, BOOK)) == before


async def test_obligations_need_somebody_who_enters_them(hand: Hand) -> None:
    plan = await check(hand, raw())
    run = await begin(hand, plan)

    with pytest.raises(BadInput, match="nobody to enter"):
        await run_import(hand.engine, plan, run, clock=hand.clock.now)


async def test_corrected_files_are_not_a_second_cut_over(hand: Hand) -> None:
    await begin(hand, await check(hand, raw()))
    other = await check(hand, raw(balances=BALANCES.replace("old-1", "old-2")))

    with pytest.raises(ImportDiffers, match="other files"):
        await begin(hand, other)
    with pytest.raises(ImportDiffers, match="these files"):
        await begin(hand, await check(hand, raw()), name="again")
    (run,) = await hand.do(lambda conn: list_imports(conn, BOOK))
    assert run.state is ImportState.BEGUN


async def test_two_people_have_to_want_it(hand: Hand) -> None:
    plan = await check(hand, raw())
    with pytest.raises(NotAuthorised, match="proposed this"):
        await begin(hand, plan, by="ada", approver="ada")
    for by, approver in (("dan", "ben"), ("eve", "dan"), ("ben", "ada")):
        with pytest.raises(NotAuthorised):
            await begin(hand, plan, by=by, approver=approver)
    with pytest.raises(NotAuthorised, match="signature"):
        await begin(hand, plan, signed="0" * 64)
    assert await hand.do(lambda conn: list_imports(conn, BOOK)) == []


WRONG: dict[str, tuple[dict[str, str | None], str]] = {
    "an unknown file": ({"ledger": "x\n"}, "ledger.csv:0: is no file of an import"),
    "no totals": ({"totals": None}, "totals.csv:0: is missing"),
    "a column is missing": (
        {"accounts": "path\nbank:house\n"},
        "accounts.csv:1 asset: this column is missing",
    ),
    "a column nobody knows": (
        {"accounts": "path,asset,colour\n"},
        "accounts.csv:1 colour: there is no such column",
    ),
    "a row too short": (
        {"balances": BALANCES + "bank:house,USDT\n"},
        "balances.csv:10: has 2 columns, the header has 5",
    ),
    "a bad quote": ({"balances": BALANCES + '"x"y,,,,\n'}, "balances.csv:10: is not CSV"),
    "an amount that is none": (
        {"balances": BALANCES.replace(",900,", ",nine,")},
        "balances.csv:3 amount: 'nine' is not an amount",
    ),
    "too many places": (
        {"balances": BALANCES.replace(",900,", ",900.1234567,")},
        "balances.csv:3 amount: '900.1234567' has more than the 6 decimal places",
    ),
    "a zero": (
        {"balances": BALANCES.replace(",900,", ",0,")},
        "balances.csv:3 amount: '0' is zero",
    ),
    "below zero": (
        {"transfers": TRANSFERS.replace(",140,", ",-140,")},
        "transfers.csv:2 amount: '-140' is below zero",
    ),
    "an unregistered asset": (
        {"balances": BALANCES.replace("client:acme,USDT", "client:acme,DOGE")},
        "balances.csv:3 asset: the asset 'DOGE' is not registered",
    ),
    "a path outside the chart": (
        {"balances": BALANCES.replace("client:acme", "customers:acme")},
        "balances.csv:3 path: 'customers:acme' is not in the chart of accounts",
    ),
    "a name in the journal": (
        {"transfers": TRANSFERS.replace("t-2", "John Doe")},
        "transfers.csv:2 reference: the reference 'John Doe' is not an opaque token",
    ),
    "no time zone": (
        {"transfers": TRANSFERS.replace("10:00:00Z", "10:00:00")},
        "transfers.csv:2 effective_at: '2025-12-15T10:00:00' has no zone",
    ),
    "a time outside the calendar": (
        {"transfers": TRANSFERS.replace("2025-12-15T10:00:00Z", "0001-01-01T00:00:00+05:00")},
        "transfers.csv:2 effective_at: '0001-01-01T00:00:00+05:00' is not a time",
    ),
    "no time": (
        {"transfers": TRANSFERS.replace("2025-12-15T10:00:00Z", "soon")},
        "transfers.csv:2 effective_at: 'soon' is not a time",
    ),
    "not yet": (
        {"transfers": TRANSFERS.replace("2025-12-15", "2026-12-15")},
        "transfers.csv:2 effective_at: 2026-12-15T10:00:00+00:00 has not come yet",
    ),
    "one account on both sides": (
        {"transfers": TRANSFERS.replace("client:birch,client:acme", "client:acme,client:acme")},
        "transfers.csv:2 credit: is the account that is debited",
    ),
    "no code": (
        {"transfers": TRANSFERS.replace("old.transfer", "")},
        "transfers.csv:2 code: is empty",
    ),
    "an account nobody opened": (
        {"accounts": ACCOUNTS.replace("income:fee,USDT,,,,\n", "")},
        "transfers.csv:3 credit: the account income:fee USDT is neither open nor listed",
    ),
    "an account that is younger": (
        {"accounts": ACCOUNTS.replace("2025-01-01", "2025-12-02")},
        "balances.csv:5 effective_at: bank:house exists since 2025-12-02T00:00:00+00:00 only",
    ),
    "an account twice": (
        {"accounts": ACCOUNTS + "client:acme,USDT,,,,\n"},
        "accounts.csv:12: client:acme USDT stands in line 4 already",
    ),
    "a balance twice": (
        {"balances": BALANCES + "client:acme,USDT,1,2025-12-01,\n"},
        "balances.csv:10: client:acme USDT stands in line 3 already",
    ),
    "another's client": (
        {"accounts": ACCOUNTS.replace("client:acme,USDT,,", "client:acme,USDT,house,")},
        "accounts.csv:4 owner: client:acme belongs to client:acme",
    ),
    "a limit on what has none": (
        {"accounts": ACCOUNTS.replace("income:fee,USDT,,,", "income:fee,USDT,,5,")},
        "accounts.csv:7 credit_limit: nothing limits income:fee",
    ),
    "the counter-account itself": (
        {"balances": BALANCES + "equity:opening,USDT,1,2025-12-01,\n"},
        "balances.csv:10 path: the balances themselves make equity:opening",
    ),
    "overdrawn by a transfer": (
        {"transfers": TRANSFERS.replace(",140,", ",151,")},
        "transfers.csv:2 debit: client:birch would be overdrawn in USDT by it",
    ),
    "overdrawn by a hold": (
        {"holds": HOLDS.replace(",300,", ",1039,")},
        "holds.csv:2 debit: client:acme would be overdrawn",
    ),
    "overdrawn at the beginning": (
        {"balances": BALANCES.replace("client:acme,USDT,900", "client:acme,USDT,-900")},
        "balances.csv:3 path: client:acme would be overdrawn",
    ),
    "a hold without a purpose": (
        {"holds": HOLDS.replace("payout", "")},
        "holds.csv:2 purpose: is empty",
    ),
    "a total of rows": (
        {"totals": TOTALS.replace("balances,USDT,8", "balances,USDT,9")},
        "totals.csv:2 rows: balances.csv has 8 of USDT",
    ),
    "a total of units": (
        {"totals": TOTALS.replace("3041", "3042")},
        "totals.csv:2 total: balances.csv comes to 3041000000 smallest units of USDT, not to",
    ),
    "a total nobody declared": (
        {"totals": TOTALS.replace("holds,USDT,1,300\n", "")},
        "totals.csv:1: holds.csv has 1 rows of USDT and no total is declared",
    ),
    "a total of nothing": (
        {"totals": TOTALS + "holds,ETH,1,5\n"},
        "totals.csv:6: holds.csv has no row of ETH",
    ),
    "a total twice": (
        {"totals": TOTALS + "holds,USDT,1,300\n"},
        "totals.csv:6: holds USDT stands in line 4 already",
    ),
    "an unregistered party": (
        {"obligations": OBLIGATIONS.replace("birch", "nobody")},
        "obligations.csv:4 party: the party nobody is not registered",
    ),
    "an obligation the files do not bring": (
        {"obligations": OBLIGATIONS.replace(",20,2026-01-06", ",21,2026-01-06")},
        "obligations.csv:2 amount: the files bring 30000000 smallest units of USDT to payable:acme",
    ),
    "an open claim without obligations": (
        {"obligations": OBLIGATIONS.replace("ob-3,birch,receive,USDT,20,2026-01-05\n", "")},
        "obligations.csv:1 amount: the files bring 20000000 smallest units of USDT to receivable:b",
    ),
    "a direction that is none": (
        {"obligations": OBLIGATIONS.replace("receive", "take")},
        "obligations.csv:4 direction: 'take' is not possible here. Use pay or receive",
    ),
    "a day that is none": (
        {"obligations": OBLIGATIONS.replace("2026-01-06", "Monday")},
        "obligations.csv:3 value_date: 'Monday' is not a date",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_fault_is_told_with_its_file_line_and_column(hand: Hand, name: str) -> None:
    changes, said = WRONG[name]
    before = await hand.do(lambda conn: head(conn, BOOK))

    with pytest.raises(FilesNotValid) as caught:
        await check(hand, raw(**changes))

    assert any(str(fault).startswith(said) for fault in caught.value.faults), str(caught.value)
    assert await hand.do(lambda conn: head(conn, BOOK)) == before


async def test_all_faults_are_told_at_once_up_to_a_bound(hand: Hand) -> None:
    three = raw(
        balances=BALANCES.replace(",900,", ",nine,").replace(",500,", ",five,"),
        transfers=TRANSFERS.replace("old.fee", "old fee"),
    )
    with pytest.raises(FilesNotValid) as caught:
        await check(hand, three)
    assert [(f.file, f.line, f.column) for f in caught.value.faults] == [
        ("balances.csv", 3, "amount"),
        ("balances.csv", 5, "amount"),
        ("balances.csv", 6, "amount"),
        ("transfers.csv", 3, "code"),
    ]
    assert "4 faults" in str(caught.value)

    many = "path,asset,amount,effective_at,reference\n" + "nowhere,USDT,x,y,\n" * 500
    with pytest.raises(FilesNotValid) as caught:
        await check(hand, raw(balances=many))
    assert len(caught.value.faults) == FAULTS_MAX
    assert "100 or more faults" in str(caught.value)


async def test_bytes_that_are_no_text_are_a_fault(hand: Hand) -> None:
    with pytest.raises(FilesNotValid, match=r"balances.csv:2: is not UTF-8"):
        await check(hand, {**raw(), "balances.csv": b"path,asset\n\xff\xfe"})


async def test_a_byte_order_mark_quotes_and_empty_lines_are_read(hand: Hand) -> None:
    files = raw()
    files["balances.csv"] = b"\xef\xbb\xbf" + files["balances.csv"].replace(
        b"client:acme", b'"client:acme"'
    ).replace(b"\n", b"\r\n")
    files["holds.csv"] += b"\n\n"

    assert (await check(hand, files)).rows == (await check(hand, raw())).rows


async def test_an_import_does_not_go_behind_the_last_one_nor_into_a_closed_period(
    hand: Hand,
) -> None:
    await load(hand)
    hand.later(days=1)
    rows = "\n".join(TRANSFERS.splitlines()[:2]) + "\n"
    second = {
        "transfers.csv": rows.encode(),
        "totals.csv": b"file,asset,rows,total\ntransfers,USDT,1,140\n",
    }
    with pytest.raises(FilesNotValid, match="imported events up to 2025-12-20"):
        await check(hand, second)

    now = hand.clock.now()
    day = (now - timedelta(days=1)).date()

    async def close(conn: AsyncConnection) -> None:
        await close_period(
            conn, BOOK, day, reason="test", proposed_by="x", approved_by="y", now=now
        )

    await hand.do(close)
    late = second | {"transfers.csv": rows.replace("2025-12-15", "2026-01-02").encode()}
    with pytest.raises(FilesNotValid, match=f"the period up to {day} is closed"):
        await check(hand, late)


async def test_an_import_counts_what_the_accounts_hold_already(hand: Hand) -> None:
    """1,038.75 less 300 held are available; the next import cannot take more."""
    await load(hand)
    hand.later(days=1)
    files = {
        "transfers.csv": (
            b"effective_at,debit,credit,amount,asset,code\n"
            b"2026-01-04T00:00:00Z,client:acme,client:birch,738.75,USDT,old.transfer\n"
        ),
        "totals.csv": b"file,asset,rows,total\ntransfers,USDT,1,738.75\n",
    }
    assert (await check(hand, files)).rows == 1
    more = {name: data.replace(b"738.75", b"738.76") for name, data in files.items()}
    with pytest.raises(FilesNotValid, match="would be overdrawn"):
        await check(hand, more)


async def test_obligations_are_those_of_the_files_whatever_else_is_owed(hand: Hand) -> None:
    """A deal or a settlement in between keeps no import from being completed, or run again."""
    first = await load(hand)
    assert first.run.state is ImportState.COMPLETED

    for name, debit, credit, amount in (
        ("deal", "conversion:otc", "payable:acme:open", "7"),
        ("sealed", "payable:acme:open", "payable:acme:netted", "37"),
    ):
        await hand.move(name, debit, credit, USDT.parse(amount))
        again = await load(hand)
        assert (again.transfers_created, again.transfers_existing) == (0, 11), name


async def test_lines_that_came_with_another_import_are_told_before_anything_is_posted(
    hand: Hand,
) -> None:
    await load(hand)
    before = await hand.do(lambda conn: head(conn, BOOK))
    files = {
        "holds.csv": HOLDS.encode(),
        "transfers.csv": (
            b"effective_at,debit,credit,amount,asset,code\n"
            b"2026-01-04T00:00:00Z,client:acme,client:birch,1,USDT,old.transfer\n"
        ),
        "totals.csv": b"file,asset,rows,total\ntransfers,USDT,1,1\nholds,USDT,1,300\n",
    }

    with pytest.raises(FilesNotValid, match=r"holds.csv:2: came with another import"):
        await check(hand, files)
    assert await hand.do(lambda conn: head(conn, BOOK)) == before


def test_the_same_files_always_make_the_same_plan() -> None:
    plan = make_plan(read_files(raw(), ASSETS))

    assert make_plan(read_files(dict(reversed(raw().items())), ASSETS)) == plan
    assert all(item.transfer.imported for item in plan.transfers)
    ids = [item.transfer.id for item in plan.transfers]
    assert len(set(ids)) == len(ids)
    other = make_plan(read_files(raw(balances=BALANCES + "\n"), ASSETS))
    assert {item.transfer.id for item in other.transfers if item.file == "balances"}.isdisjoint(ids)
    assert {item.transfer.id for item in other.transfers if item.file == "holds"} <= set(ids)


@given(st.binary(max_size=200), st.sampled_from(sorted(FILES)))
def test_no_bytes_at_all_make_the_reader_fail_otherwise(data: bytes, name: str) -> None:
    with suppress(FilesNotValid):
        read_files({**raw(), name: data}, ASSETS)


async def resolve(
    hand: Hand, hold: UUID, end: HoldEnd, *, signed: HoldEnd | None = None, approver: str = "ben"
) -> PostResult:
    payload = hold_bytes(BOOK, hold, signed or end, reason="known to the bank", by="eve")
    signature = operator_keypair(approver).sign(payload)
    now = hand.later(seconds=1)
    return await hand.do(
        lambda conn: resolve_imported_hold(
            conn,
            BOOK,
            hold,
            end,
            reason="known to the bank",
            by="eve",
            approver=approver,
            signature=signature,
            now=now,
        )
    )


@pytest.mark.parametrize(("end", "left"), [(HoldEnd.POSTED, "738.75"), (HoldEnd.VOIDED, "1038.75")])
async def test_an_imported_hold_is_ended_by_two_people_once(
    hand: Hand, end: HoldEnd, left: str
) -> None:
    await load(hand)
    (held,) = await hand.do(lambda conn: list_open_holds(conn, BOOK))

    other = HoldEnd.VOIDED if end is HoldEnd.POSTED else HoldEnd.POSTED
    with pytest.raises(NotAuthorised, match="signature"):
        await resolve(hand, held.id, end, signed=other)
    with pytest.raises(NotAuthorised):
        await resolve(hand, held.id, end, approver="dan")
    with enforce_lock_order(hand.engine):
        result = await resolve(hand, held.id, end)

    assert result.amount == USDT.parse("300")
    assert await hand.do(lambda conn: list_open_holds(conn, BOOK)) == []
    assert await hand.balance("client:acme") == USDT.parse(left)
    with pytest.raises(PostingRefused, match="already"):
        await resolve(hand, held.id, end)
    async with hand.engine.connect() as conn:
        (event,) = await list_history(conn, "imported-hold", held.id)
    assert (event.actor, event.reason) == ("eve", "known to the bank")
    assert await verify(hand.engine, BOOK) == []


async def test_a_hold_that_something_of_ours_made_is_left_to_it(hand: Hand) -> None:
    await load(hand)
    payout = make_hold(
        derive_id(START, "payout"),
        "client:acme",
        "in-flight:bank",
        5,
        "USDT",
        code="payout.reserved",
        purpose="payout",
    )
    await hand.post(payout)

    with pytest.raises(NotImported):
        await resolve(hand, payout.id, HoldEnd.VOIDED)
    with pytest.raises(NotImported):
        await resolve(hand, derive_id(START, "none"), HoldEnd.VOIDED)


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("UPDATE books.import_set SET digest = 'x'", "42501"),
        ("DELETE FROM books.import_set", "42501"),
        ("UPDATE books.import_set SET completed_at = now()", "ck_import_set_completed"),
        (
            "UPDATE books.import_set SET state = 'begun', completed_at = NULL",
            "import_set_state_edges",
        ),
    ],
)
async def test_the_database_itself_refuses_what_no_verb_does(
    hand: Hand, statement: str, refused: str
) -> None:
    if refused == "import_set_state_edges":
        await load(hand)
    else:
        await begin(hand, await check(hand, raw()))

    with pytest.raises(DBAPIError) as caught:
        await hand.do(lambda conn: conn.execute(text(statement)))

    assert refused in {sqlstate(caught.value), constraint_name(caught.value)}
