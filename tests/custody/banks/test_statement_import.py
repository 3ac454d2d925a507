"""What a bank sends, taken in: booked once, or put aside."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import date

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Clones, Database, Server, cloned, run_apart
from banks.errors import FileUnreadable
from banks.simulator.model import DayEnd, Movement
from banks.simulator.writing import statement_bytes
from banks.statement_model import FileFormat
from custody.banks.entry_model import (
    BANK_FILE_STATES,
    BANK_RECEIPT_STATES,
    BankFileState,
    BankReceiptKind,
    BankReceiptState,
)
from custody.banks.importing import dismiss_file, import_file, parse_bank_file, reread_file
from custody.banks.receipts import (
    explain_bank_receipt,
    mark_bank_receipt_matched,
    mark_bank_receipt_unmatched,
)
from custody.banks.statements import (
    StatementGap,
    explain_bank_file,
    get_bank_balance,
    get_bank_file,
    list_bank_entries,
    list_bank_files,
    list_bank_statements,
    list_gaps,
    require_continuous,
)
from custody.errors import NotPossible, UnknownRow
from kernel.db import APP_ROLE, constraint_name, create_engine, transact
from kernel.errors import BadInput
from kernel.states import StateTable, trigger_name, trigger_statements
from ledger.testing import enforce_lock_order
from registry.model import BankAccount
from registry.testing import ENTITY, change
from tests.custody.banks.bank_house import CLIENTS_IBAN, IBAN, PAYER, BankHouse

IDLE_MS = 60_000
"""A test that is not scheduled for two seconds on a busy machine is not a worker that hangs."""
DESK, SUSPENSE = "bank:desk-eur", "suspense:bank"


@pytest.fixture(scope="module")
def houses(database_server: Server, database_template: str) -> Iterator[Clones]:
    """Databases with the house in them, founded once."""
    name = f"causeway_banks_{secrets.token_hex(6)}"
    with cloned(database_server, database_template, name) as database:
        run_apart(lambda: found_house(database))
        clones = Clones(database_server, name)
        yield clones
        clones.close()


async def found_house(database: Database) -> None:
    engine = create_engine(database.app_url, role=APP_ROLE, injected_clock=True)
    await BankHouse(engine).found()
    await engine.dispose()


@pytest.fixture
async def house(houses: Clones) -> AsyncIterator[BankHouse]:
    database = houses.take()
    engine = create_engine(
        database.app_url,
        role=APP_ROLE,
        idle_in_transaction_timeout_ms=IDLE_MS,
        injected_clock=True,
    )
    with enforce_lock_order(engine):
        yield BankHouse(engine).with_accounts()
    await engine.dispose()
    houses.give_back(database)


async def match(house: BankHouse, to: str = "instruction-1") -> None:
    (receipt,) = await house.receipts()
    await house.do(
        lambda conn: mark_bank_receipt_matched(
            conn, receipt.id, matched_to=to, party="acme", by="system:settlement", now=house.now
        )
    )


async def test_a_credit_lies_in_suspense_until_it_is_matched(house: BankHouse) -> None:
    house.credit(600_000, "RUN-7", remittance="invoice 7")
    (raw,) = house.end_of_day()
    report = await house.take_in(raw)

    assert (report.new, report.booked, report.gaps) == (True, 1, ())
    (receipt,) = await house.receipts()
    assert (receipt.value, receipt.asset, receipt.kind, receipt.state) == (
        *(600_000, "EUR", BankReceiptKind.RECEIPT),
        BankReceiptState.UNMATCHED,
    )
    assert (receipt.end_to_end, receipt.name, receipt.iban, receipt.remittance) == (
        *("RUN-7", "Acme"),
        *(PAYER, "invoice 7"),
    )
    assert await house.balances() == {DESK: 600_000, SUSPENSE: -600_000}

    await match(house)
    (after,) = await house.receipts()
    assert (after.state, after.matched_to, after.party) == (
        *(BankReceiptState.MATCHED, "instruction-1"),
        "acme",
    )
    with pytest.raises(NotPossible, match="not unmatched"):
        await match(house)
    await house.do(
        lambda conn: mark_bank_receipt_unmatched(
            conn, receipt.id, by="ada", reason="wrong one", now=house.now
        )
    )
    history = await house.do(lambda conn: explain_bank_receipt(conn, receipt.id))
    assert [event.name for event in history] == [
        *("BankReceiptBooked", "BankReceiptMatched", "BankReceiptUnmatched")
    ]
    assert not any(PAYER in str(event.payload) or "Acme" in str(event.payload) for event in history)


async def test_the_journal_never_has_a_name_or_a_number_of_an_account(house: BankHouse) -> None:
    house.credit(5, "RUN-7", remittance="for Jane")
    await house.take_in(house.end_of_day()[0])

    async with house.engine.connect() as conn:
        rows = await conn.execute(text("SELECT t::text FROM ledger.transfer t"))
        told = " ".join(rows.scalars())
    assert told
    assert not any(secret in told for secret in ("Acme", PAYER, "Jane", "RUN-7"))


async def test_charges_and_interest_are_booked_as_such(house: BankHouse) -> None:
    house.credit(1_000)
    house.bank.execute({"verb": "charge", "account": IBAN, "amount": 25})
    house.bank.execute({"verb": "interest", "account": IBAN, "amount": 7})
    await house.take_in(house.end_of_day()[0])

    assert await house.balances() == {
        DESK: 982,
        SUSPENSE: -1_000,
        "expense:bank-charge": 25,
        "income:interest": -7,
    }
    assert len(await house.receipts()) == 1


async def test_our_payment_is_left_to_whoever_made_it(house: BankHouse) -> None:
    house.payments.references = {"OURS-1"}
    house.credit(1_000, "RUN-7")
    house.credit(40, "OURS-1")
    await house.take_in(house.end_of_day()[0])

    assert [item.end_to_end for item in house.payments.seen] == ["OURS-1"]
    assert await house.balances() == {DESK: 1_040, SUSPENSE: -1_000, "in-flight:bank": -40}
    assert [item.end_to_end for item in await house.receipts()] == ["RUN-7"]


async def test_clients_money_has_its_owner_in_the_ledger(house: BankHouse) -> None:
    house.credit(50, account=CLIENTS_IBAN)
    house.bank.execute({"verb": "end-of-day"})
    name = next(n for n in house.bank.files if CLIENTS_IBAN in n and n.startswith("statement"))
    await house.take_in(house.bank.files[name])

    async with house.engine.connect() as conn:
        owner = await conn.scalar(
            text("SELECT owner FROM ledger.account WHERE path = 'bank:pool-eur'")
        )
    assert owner == "client"


# Twice.


async def test_the_same_bytes_are_nothing_new_whatever_they_are_called(house: BankHouse) -> None:
    house.credit(100)
    (raw,) = house.end_of_day()
    first = await house.take_in(raw, "a.xml")
    again = await house.take_in(raw, "b.xml")

    assert (again.new, again.booked, again.file.id) == (False, 0, first.file.id)
    assert await house.balances() == {DESK: 100, SUSPENSE: -100}


async def test_a_statement_in_another_file_is_nothing_new(house: BankHouse) -> None:
    house.credit(100)
    (raw,) = house.end_of_day()
    await house.take_in(raw)
    again = await house.take_in(raw + b"\n")

    assert (again.new, again.booked, again.statements) == (True, 0, ())
    assert len(again.known) == 1
    assert await house.balances() == {DESK: 100, SUSPENSE: -100}


async def test_a_statement_that_says_something_else_is_put_aside(house: BankHouse) -> None:
    house.credit(100)
    (raw,) = house.end_of_day()
    await house.take_in(raw)
    other = await house.take_in(raw.replace(b">1.00<", b">2.00<"))

    assert other.file.state is BankFileState.QUARANTINED
    assert "something else" in other.file.reason
    assert await house.balances() == {DESK: 100, SUSPENSE: -100}


async def test_an_entry_of_a_notice_is_not_booked_again_by_the_statement(house: BankHouse) -> None:
    house.credit(100, "RUN-7")
    notice = next(raw for name, raw in house.bank.files.items() if name.startswith("camt054"))
    first = await house.take_in(notice)
    assert (first.booked, len(first.receipts)) == (1, 1)

    second = await house.take_in(house.end_of_day()[0])
    assert (second.booked, len(second.statements)) == (0, 1)
    assert await house.balances() == {DESK: 100, SUSPENSE: -100}


async def test_a_notice_without_the_banks_reference_waits_for_the_statement(
    house: BankHouse,
) -> None:
    house.credit(100, "RUN-7")
    notice = next(raw for name, raw in house.bank.files.items() if name.startswith("camt054"))
    start, stop = notice.index(b"<AcctSvcrRef>"), notice.index(b"<BkTxCd>")

    report = await house.take_in(notice[:start] + notice[stop:])

    assert (report.file.state, report.booked) == (BankFileState.IMPORTED, 0)
    assert await house.balances() == {}


async def test_a_reference_that_a_bank_uses_again_another_day_is_another_entry(
    house: BankHouse,
) -> None:
    days = []
    for _ in range(3):
        house.credit(100)
        days += house.end_of_day()
    for number in (2, 3):
        days[number - 1] = days[number - 1].replace(
            f">{reference(days[number - 1])}<".encode(), f">{reference(days[0])}<".encode()
        )
    reports = [await house.take_in(raw) for raw in days]

    assert [report.booked for report in reports] == [1, 1, 1]
    assert len(await house.receipts()) == 3
    assert await house.balances() == {DESK: 300, SUSPENSE: -300}


def reference(raw: bytes) -> str:
    """Return the bank's reference for the one entry of a statement."""
    return raw.partition(b"<AcctSvcrRef>")[2].partition(b"<")[0].decode()


async def test_a_name_that_a_bank_uses_again_is_no_statement_that_came_before(
    house: BankHouse,
) -> None:
    (first,) = house.end_of_day()
    house.credit(5)
    house.bank.execute({"verb": "charge", "account": IBAN, "amount": 5})
    (second,) = house.end_of_day()
    name = b"<Stmt><Id>%s</Id>"
    names = [raw.partition(b"<Stmt><Id>")[2].partition(b"<")[0] for raw in (first, second)]
    await house.take_in(first)

    report = await house.take_in(second.replace(name % names[1], name % names[0]))

    assert report.file.state is BankFileState.QUARANTINED
    assert "says something else" in report.file.reason


async def test_two_at_the_same_time_book_once(house: BankHouse) -> None:
    house.credit(100)
    (raw,) = house.end_of_day()
    files = [raw, raw, raw + b"\n", raw + b"\n\n"]

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(house.take_in(item)) for item in files]
    reports = [task.result() for task in running]

    assert sum(report.booked for report in reports) == 1
    assert sum(report.new for report in reports) == 3
    assert await house.balances() == {DESK: 100, SUSPENSE: -100}


# Taken back.


async def test_a_credit_that_the_bank_takes_back_is_over(house: BankHouse) -> None:
    house.fault("reversed_credit")
    house.credit(100, "RUN-7")
    for raw in house.end_of_day(2):
        await house.take_in(raw)

    (receipt,) = await house.receipts()
    assert receipt.state is BankReceiptState.RETURNED
    assert await house.balances() == {}
    with pytest.raises(NotPossible):
        await match(house)


async def test_a_matched_credit_that_is_taken_back_becomes_a_recall(house: BankHouse) -> None:
    house.fault("reversed_credit")
    house.credit(100, "RUN-7")
    first, second = house.end_of_day(2)
    await house.take_in(first)
    await match(house)
    await house.take_in(second)

    receipt, recall = await house.receipts()
    assert receipt.state is BankReceiptState.MATCHED
    assert (recall.kind, recall.recalls, recall.party, recall.value) == (
        *(BankReceiptKind.RECALL, receipt.id),
        *("acme", 100),
    )
    assert await house.balances() == {}


async def test_of_two_equal_credits_none_is_guessed_to_be_taken_back(house: BankHouse) -> None:
    house.fault("reversed_credit", skip=1)
    for _ in range(2):
        house.credit(100, "RUN-7")
    for raw in house.end_of_day(2):
        await house.take_in(raw)

    *credits_, recall = await house.receipts()
    assert {item.state for item in credits_} == {BankReceiptState.UNMATCHED}
    assert (recall.kind, recall.recalls) == (BankReceiptKind.RECALL, None)
    assert await house.balances() == {DESK: 100, SUSPENSE: -100}


async def test_a_credit_is_taken_back_once_also_by_one_statement(house: BankHouse) -> None:
    house.credit(700, "A")
    house.credit(800, "B")
    await house.take_in(house.end_of_day()[0])
    day = date(2026, 1, 6)
    back = [
        Movement(
            bank_ref=f"R{number}",
            amount=-amount,
            booking_date=day,
            value_date=day,
            end_to_end=end_to_end,
            reversal=True,
        )
        for number, (amount, end_to_end) in enumerate([(700, "A"), (800, "B"), (700, "A")])
    ]
    end = DayEnd(
        iban=IBAN,
        currency="EUR",
        owner="Desk",
        sequence=2,
        day=day,
        opening=1_500,
        closing=-700,
        movements=tuple(back),
    )

    await house.take_in(statement_bytes(end, FileFormat.CAMT_053_08))

    found = sorted((r.kind, r.value, r.state, r.recalls) for r in await house.receipts())
    assert found == [
        (BankReceiptKind.RECALL, 700, BankReceiptState.UNMATCHED, None),
        (BankReceiptKind.RECEIPT, 700, BankReceiptState.RETURNED, None),
        (BankReceiptKind.RECEIPT, 800, BankReceiptState.RETURNED, None),
    ]
    assert await house.balances() == {DESK: -700, SUSPENSE: 700}


async def test_the_reference_says_which_of_two_is_taken_back(house: BankHouse) -> None:
    house.credit(100, "RUN-6")
    house.fault("reversed_credit")
    house.credit(100, "RUN-7")
    for raw in house.end_of_day(2):
        await house.take_in(raw)

    states = {item.end_to_end: item.state for item in await house.receipts()}
    assert states == {
        "RUN-6": BankReceiptState.UNMATCHED,
        "RUN-7": BankReceiptState.RETURNED,
    }


# Gaps.


async def test_a_gap_blocks_the_balance_of_its_account_until_it_is_closed(
    house: BankHouse,
) -> None:
    files = []
    for amount in (100, 20, 3):
        house.credit(amount)
        files += house.end_of_day()
    first, missing, last = files
    await house.take_in(first)
    report = await house.take_in(last)

    (word,) = report.gaps
    assert "1 statements are missing" in word
    assert report.booked == 1  # what came is a fact all the same
    with pytest.raises(StatementGap, match="Ask the bank"):
        await house.do(lambda conn: require_continuous(conn, "desk-eur"))
    with pytest.raises(StatementGap):
        await house.do(lambda conn: get_bank_balance(conn, "desk-eur"))
    assert await house.do(lambda conn: get_bank_balance(conn, "pool-eur")) is None

    closed = await house.take_in(missing)
    assert closed.gaps == ()
    assert await house.do(list_gaps) == []
    balance = await house.do(lambda conn: get_bank_balance(conn, "desk-eur"))
    assert balance is not None
    assert (balance.closing, balance.day, balance.asset) == (123, date(2026, 1, 7), "EUR")
    before = await house.do(lambda conn: get_bank_balance(conn, "desk-eur", on=date(2026, 1, 6)))
    assert before is not None
    assert before.closing == 120
    assert await house.balances() == {DESK: 123, SUSPENSE: -123}


async def test_an_opening_that_is_not_the_closing_before_is_a_gap(house: BankHouse) -> None:
    first, second = house.end_of_day(2)
    await house.take_in(first)
    moved = second.replace(b'<Amt Ccy="EUR">0.00</Amt>', b'<Amt Ccy="EUR">0.05</Amt>')
    report = await house.take_in(moved)

    assert "opens 5 units away" in report.gaps[0]
    history = await house.do(lambda conn: explain_bank_file(conn, report.file.id))
    assert [event.name for event in history] == ["BankStatementGap"]


# Put aside.


@pytest.mark.parametrize("kind", ["truncated_statement", "bad_xml"])
async def test_what_cannot_be_believed_is_kept_and_posts_nothing(
    house: BankHouse, kind: str
) -> None:
    house.fault(kind, skip=0)
    house.credit(100)
    (raw,) = house.end_of_day()
    report = await house.take_in(raw, "bad.xml")

    assert report.file.state is BankFileState.QUARANTINED
    assert report.file.reason
    _, kept = await house.do(lambda conn: get_bank_file(conn, report.file.id))
    assert kept == raw
    assert await house.balances() == {}
    again = await house.take_in(raw)
    assert (again.new, again.file.state) == (False, BankFileState.QUARANTINED)

    house.bank.execute({"verb": "deliver"})
    good = next(v for n, v in house.bank.files.items() if n.endswith("-again.xml") and IBAN in n)
    assert (await house.take_in(good)).booked == 1


async def test_a_statement_that_does_not_add_up_is_kept_and_posts_nothing(
    house: BankHouse,
) -> None:
    day = date(2026, 1, 5)
    came = Movement(bank_ref="B-1", amount=100, booking_date=day, value_date=day)
    end = DayEnd(
        iban=IBAN,
        currency="EUR",
        owner="Desk",
        sequence=1,
        day=day,
        opening=0,
        closing=150,
        movements=(came,),
    )
    raw = statement_bytes(end, FileFormat.CAMT_053_08)
    report = await house.take_in(raw)

    assert report.file.state is BankFileState.QUARANTINED
    assert "does not add up" in report.file.reason
    _, kept = await house.do(lambda conn: get_bank_file(conn, report.file.id))
    assert kept == raw
    assert await house.balances() == {}


async def test_a_file_of_an_unknown_account_is_read_again_once_that_is_registered(
    house: BankHouse,
) -> None:
    iban = "GB29NWBK60161331926819"
    house.bank.execute({"verb": "account", "iban": iban, "currency": "EUR"})
    house.credit(9, account=iban)
    house.bank.execute({"verb": "end-of-day"})
    name = next(n for n in house.bank.files if iban in n)
    report = await house.take_in(house.bank.files[name])
    assert "no bank account of ours" in report.file.reason

    async def reread(raw: bytes = house.bank.files[name]) -> int:
        parsed = parse_bank_file(raw)
        done = await house.do(
            lambda conn: reread_file(conn, report.file.id, parsed, by="ada", now=house.now)
        )
        return done.booked

    with pytest.raises(NotPossible, match="is not bank file"):
        await reread(b"another")

    with pytest.raises(FileUnreadable):
        await reread()
    account = BankAccount("new-eur", "Sim", iban, "SIMBDEFF", "EUR", "house", ENTITY.code)
    await house.do(lambda conn: change(conn, account, now=house.now))
    assert await reread() == 1
    with pytest.raises(NotPossible, match="not in quarantine"):
        await reread()
    assert await house.balances() == {"bank:new-eur": 9, SUSPENSE: -9}


async def test_a_file_is_dismissed_with_a_reason(house: BankHouse) -> None:
    report = await house.take_in(b"junk")
    key = report.file.id
    with pytest.raises(BadInput):
        await house.do(lambda conn: dismiss_file(conn, key, by="ada", reason="", now=house.now))
    done = await house.do(
        lambda conn: dismiss_file(
            conn, key, by="ada", reason="sent to us by mistake", now=house.now
        )
    )
    assert done.state is BankFileState.DISMISSED
    states = [f.state for f in await house.do(list_bank_files)]
    assert states == [BankFileState.DISMISSED]
    with pytest.raises(UnknownRow):
        await house.do(lambda conn: get_bank_file(conn, report.file.id.__class__(int=5)))


async def test_a_failure_on_the_way_leaves_nothing(house: BankHouse) -> None:
    house.credit(100)
    (raw,) = house.end_of_day()

    async def broken(conn: object) -> None:
        await import_file(conn, raw, name="s.xml", now=house.now)  # type: ignore[arg-type]
        raise LookupError("the machine went down")

    with pytest.raises(LookupError):
        await transact(house.engine, broken)
    assert await house.do(list_bank_files) == []
    assert (await house.take_in(raw)).booked == 1


async def test_statements_and_entries_are_listed(house: BankHouse) -> None:
    house.credit(100, "RUN-7")
    await house.take_in(house.end_of_day()[0])

    (statement,) = await house.do(lambda conn: list_bank_statements(conn, account="desk-eur"))
    (entry,) = await house.do(lambda conn: list_bank_entries(conn, statement.id))
    assert (statement.closing, statement.entries, entry["amount"]) == (100, 1, 100)


@pytest.mark.parametrize("machine", [BANK_FILE_STATES, BANK_RECEIPT_STATES])
async def test_the_database_has_the_machines_of_the_code(
    owner_engine: AsyncEngine, machine: StateTable
) -> None:
    function, _ = trigger_statements(machine)
    async with owner_engine.connect() as conn:
        source = await conn.scalar(
            text("SELECT prosrc FROM pg_proc WHERE proname = :name"),
            {"name": trigger_name(machine)},
        )
    assert source is not None
    assert source.strip() in function


async def test_the_bytes_of_a_file_never_change(
    engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    house = BankHouse(engine)
    await house.take_in(b"junk")

    with pytest.raises(DBAPIError) as caught:
        async with owner_engine.begin() as conn:
            await conn.execute(text("UPDATE custody.bank_file SET raw = 'other'"))
    assert constraint_name(caught.value) == "bank_file_fixed"
    with pytest.raises(DBAPIError, match="permission denied"):
        async with house.engine.begin() as conn:
            await conn.execute(text("UPDATE custody.bank_file SET name = 'other'"))
