"""Cards of the bank: what it sends is read by other people's libraries, what it is told is written by ours.

A statement is true if it is as ISO's own definitions say, which others have generated (pyiso20022), and if an
independent reading of it (by them; mt-940) sees the same money as `banks.reading` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import mt940
import pytest
from lxml import etree

from banks.pain001 import Payment, PaymentOrder, write_file
from banks.pain002 import Meaning, meaning_of, read_report
from banks.payee import Payee
from banks.reading import read_file
from banks.safe_xml import SCHEMAS
from banks.simulator.model import FaultKind
from banks.simulator.testing import BankThread
from banks.statement_model import Entry, FileFormat, Statement
from kernel.money import Asset
from tests.conformance.bank.iso_definitions import Found, definitions, read_message

EUR = Asset("EUR", 2)
ASSETS = {"EUR": EUR}
ACCOUNTS = {
    FileFormat.CAMT_053_08: "DE89370400440532013000",
    FileFormat.CAMT_053_02: "DE75512108001245126199",
    FileFormat.MT940: "GB29NWBK60161331926819",
}
PAYEE = Payee("DE02120300000000202051", "BYLADEM1001", "Acme GmbH")
XML = [FileFormat.CAMT_053_08, FileFormat.CAMT_053_02]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BankThread]:
    """A bank after three days on which everything happened, with an account for each format.

    Its files are counted: it is only read. Who sends it anything takes `own_bank`.
    """
    with BankThread(tmp_path_factory.mktemp("bank")) as running:
        for form, iban in ACCOUNTS.items():
            running.control("account", iban=iban, currency="EUR", balance=10_000_000, format=form)
        for number, iban in enumerate(ACCOUNTS.values()):
            said = {"account": iban, "name": "Jane & Co <1>", "iban": PAYEE.iban}
            running.control("credit", **said, amount=12_345, end_to_end="RUN-1", remittance="a b")
            running.control("fault", kind=FaultKind.REVERSED_CREDIT)
            running.control("credit", **said, amount=700, end_to_end="RUN-2")
            running.control("charge", account=iban, amount=250)
            running.control("interest", account=iban, amount=3)
            running.control("fault", kind=FaultKind.RETURNED)
            running.order(f"{number}.xml", order(f"MSG-{number}", iban, f"PAY-{number}"))
        running.control("end-of-day", days=3)
        yield running


@pytest.fixture
def own_bank(tmp_path: Path) -> Iterator[BankThread]:
    with BankThread(tmp_path) as running:
        for form, iban in ACCOUNTS.items():
            running.control("account", iban=iban, currency="EUR", balance=10_000_000, format=form)
        yield running


def order(message: str, iban: str, end_to_end: str, amount: int = 5_000) -> bytes:
    payment = Payment(end_to_end=end_to_end, amount=amount, payee=PAYEE, remittance="invoice")
    return write_file(
        PaymentOrder(
            message_id=message,
            created_at=datetime(2026, 1, 5, 9, tzinfo=UTC),
            execution_date=date(2026, 1, 5),
            debtor="Causeway Desk Ltd",
            iban=iban,
            bic="COBADEFFXXX",
            asset=EUR,
            payments=[payment],
        )
    )


def statements(bank: BankThread, form: FileFormat) -> list[tuple[bytes, Statement]]:
    files = bank.files(f"statement-{ACCOUNTS[form]}")
    return [(raw, read_file(raw, ASSETS)[1][0]) for _, raw in sorted(files.items())]


def signed(item: Found) -> Decimal:
    sign = {"DBIT": -1, "CRDT": 1}[item.one("CdtDbtInd")]
    return Decimal(item.one("Amt")) * sign


def decimal(units: int | None) -> Decimal:
    return Decimal(units or 0) / 100


def reference(entry: Entry) -> str:
    return entry.lines[0].end_to_end or "NOTPROVIDED"


@pytest.mark.parametrize("form", XML)
def test_an_independent_reader_sees_the_same_statement(bank: BankThread, form: FileFormat) -> None:
    seen = 0
    for raw, ours in statements(bank, form):
        (theirs,) = read_message(raw, form).all("BkToCstmrStmt/Stmt")
        assert theirs.one("Acct/Id/IBAN") == ours.account
        assert int(theirs.one("ElctrncSeqNb")) == ours.sequence
        balances = [decimal(ours.opening), decimal(ours.closing)]
        assert [signed(item) for item in theirs.all("Bal")] == balances
        details = "NtryDtls/TxDtls/Refs/EndToEndId"
        assert [
            (signed(n), n.one("AcctSvcrRef"), n.one(details), n.one("RvslInd"))
            for n in theirs.all("Ntry")
        ] == [
            (decimal(e.amount), e.bank_ref, reference(e), "true" if e.reversal else "")
            for e in ours.entries
        ]
        seen += len(ours.entries)
    assert seen == 7


def test_an_independent_reader_sees_the_same_mt940(bank: BankThread) -> None:
    seen = 0
    for raw, ours in statements(bank, FileFormat.MT940):
        options = mt940.Options(reversal_sign=True)
        theirs = mt940.parse(raw.decode(), options=options)
        assert [line.data["amount"].amount for line in theirs.transactions] == [
            decimal(entry.amount) for entry in ours.entries
        ]
        assert theirs.data["final_closing_balance"].amount.amount == decimal(ours.closing)
        seen += len(ours.entries)
    assert seen == 7


def test_every_format_tells_the_same_three_days(bank: BankThread) -> None:
    told = {
        form: [
            (e.amount, e.kind, e.reversal, e.booking_date, e.lines[0].return_reason)
            for _, statement in statements(bank, form)
            for e in statement.entries
        ]
        for form in ACCOUNTS
    }

    assert told[FileFormat.CAMT_053_08] == told[FileFormat.CAMT_053_02] == told[FileFormat.MT940]


def test_an_independent_reader_sees_the_same_notices(bank: BankThread) -> None:
    notices = bank.files("camt054")

    assert len(notices) == 21
    for raw in notices.values():
        theirs = read_message(raw, "camt.054.001.08").all("BkToCstmrDbtCdtNtfctn/Ntfctn/Ntry")
        (ours,) = read_file(raw, ASSETS)[1]
        assert [signed(n) for n in theirs] == [decimal(e.amount) for e in ours.entries]
        assert [n.one("AcctSvcrRef") for n in theirs] == [e.bank_ref for e in ours.entries]


def test_our_payment_file_is_taken_and_its_report_is_understood(own_bank: BankThread) -> None:
    iban = ACCOUNTS[FileFormat.CAMT_053_08]
    for message, amount, meaning in (
        ("GOOD", 1, Meaning.TAKEN),
        ("TOO-MUCH", 10**12, Meaning.REFUSED),
    ):
        status, answer = own_bank.order("x.xml", order(message, iban, f"{message}-1", amount))
        report = read_report(own_bank.files(answer["report"])[answer["report"]])

        assert status == 202
        assert report.message_id == message
        read_message(own_bank.files(answer["report"])[answer["report"]], "pain.002.001.10")
        assert [(p.end_to_end, meaning_of(p.status)) for p in report.payments] == [
            (f"{message}-1", meaning)
        ]


def test_our_file_again_is_no_second_payment(own_bank: BankThread) -> None:
    raw = order("AGAIN", ACCOUNTS[FileFormat.MT940], "AGAIN-1")
    own_bank.control("fault", kind=FaultKind.STATUS_503_AFTER_ACCEPT)

    answers = [own_bank.order(name, raw)[0] for name in ("a.xml", "a.xml", "b.xml")]
    own_bank.control("end-of-day")

    assert answers == [503, 200, 200]
    assert own_bank.state()["paid"]["AGAIN-1"] == 1


def test_what_is_put_into_the_folder_is_an_order(tmp_path: Path) -> None:
    iban = ACCOUNTS[FileFormat.CAMT_053_08]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.xml").write_bytes(order("FOLDER", iban, "F-1"))
    with BankThread(tmp_path, "--account", f"{iban}:EUR:1000") as bank:
        bank.take_folder()
        bank.control("end-of-day")
        assert bank.state()["paid"] == {"F-1": 1}
    assert list((tmp_path / "in").iterdir()) == []
    assert any(path.name.startswith("statement") for path in (tmp_path / "out").iterdir())


def test_what_is_no_message_of_iso_is_seen(bank: BankThread) -> None:
    raw, _ = statements(bank, FileFormat.CAMT_053_02)[0]
    for old, new in (
        (b"<ElctrncSeqNb>", b"<Odd/><ElctrncSeqNb>"),
        (b"CRDT", b"CREDIT"),
        (b"<CreDtTm>2026-01-05T20:00:00</CreDtTm>", b""),
    ):
        assert old in raw
        with pytest.raises(AssertionError):
            read_message(raw.replace(old, new), FileFormat.CAMT_053_02)


def test_our_part_of_the_old_definition_is_isos_own() -> None:
    """Every element that our schema of camt.053.001.02 names is there, in its place, as often."""
    space = "{http://www.w3.org/2001/XMLSchema}"
    schema = etree.parse(SCHEMAS / "camt.053.001.02-read.xsd").getroot()
    types = {item.get("name"): item for item in schema.iter(f"{space}complexType")}
    known = definitions("camt.053.001.02")
    open_, seen = [("Document", "Document")], set()
    while open_:
        ours, theirs = open_.pop()
        if (ours, theirs) in seen or types[ours].find(f"{space}simpleContent") is not None:
            continue
        seen.add((ours, theirs))
        is_choice = types[ours].find(f"{space}choice") is not None
        elements = list(types[ours].iter(f"{space}element"))
        members = known[theirs].members
        assert [e.get("name") for e in elements] == [m.name for m in members], theirs
        for element, member in zip(elements, members, strict=True):
            if not is_choice:
                assert (element.get("minOccurs") is None) == member.required, member.name
                assert member.many == (element.get("maxOccurs") == "unbounded") or (
                    element.get("type") == "xs:anyType"
                ), member.name
            if element.get("type") in types:
                open_.append((str(element.get("type")), member.kind))
    assert len(seen) > 25
