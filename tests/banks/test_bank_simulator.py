"""The simulated bank: what it is told, what it sends, and what goes wrong on order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from banks.continuity import Link, gaps
from banks.errors import FileUnreadable
from banks.reading import read_file
from banks.simulator.model import FaultKind, SimulatorError
from banks.simulator.testing import BankProcess, BankThread
from banks.statement_model import FileFormat, Statement
from kernel.money import Asset

OURS, THEIRS = "DE89370400440532013000", "DE02120300000000202051"
ASSETS = {"EUR": Asset("EUR", 2)}


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[BankThread]:
    with BankThread(tmp_path, "--account", f"{OURS}:EUR:1000", f"{THEIRS}:EUR:50") as running:
        yield running


def order(*lines: tuple[str, str], message: str = "MSG-1", day: str = "2026-01-05") -> bytes:
    items = "".join(
        f"<CdtTrfTxInf><PmtId><EndToEndId>{name}</EndToEndId></PmtId>"
        f'<Amt><InstdAmt Ccy="EUR">{amount}</InstdAmt></Amt><Cdtr><Nm>Acme</Nm></Cdtr>'
        f"<CdtrAcct><Id><IBAN>{THEIRS}</IBAN></Id></CdtrAcct></CdtTrfTxInf>"
        for name, amount in lines
    )
    return (
        '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"><CstmrCdtTrfInitn>'
        f"<GrpHdr><MsgId>{message}</MsgId></GrpHdr><PmtInf><ReqdExctnDt><Dt>{day}</Dt></ReqdExctnDt>"
        f"<DbtrAcct><Id><IBAN>{OURS}</IBAN></Id></DbtrAcct>{items}</PmtInf></CstmrCdtTrfInitn></Document>"
    ).encode()


def statements(bank: BankThread | BankProcess, iban: str = OURS) -> list[Statement]:
    found = [read_file(raw, ASSETS)[1][0] for raw in bank.files(f"statement-{iban}").values()]
    return sorted(found, key=lambda item: item.to_date)


def balance(bank: BankThread | BankProcess, iban: str = OURS) -> int:
    return int(next(a["balance"] for a in bank.state()["accounts"] if a["iban"] == iban))


def test_a_payment_is_reported_booked_and_stated(bank: BankThread) -> None:
    status, answer = bank.order("a.xml", order(("E1", "100.50"), ("E2", "1.00")))
    assert (status, answer["status"]) == (202, "taken")
    assert b"<GrpSts>ACTC</GrpSts>" in bank.files()[answer["report"]]

    bank.control("end-of-day")

    (mine,), (theirs,) = statements(bank), statements(bank, THEIRS)
    assert [(e.amount, e.lines[0].end_to_end) for e in mine.entries] == [
        (-10_050, "E1"),
        (-100, "E2"),
    ]
    assert [e.amount for e in theirs.entries] == [10_050, 100]
    assert bank.state()["paid"] == {"E1": 1, "E2": 1}


def test_the_same_file_again_pays_once_and_another_of_its_name_is_refused(bank: BankThread) -> None:
    first, again = (bank.order(name, order(("E1", "5.00"))) for name in ("a.xml", "b.xml"))
    status, _ = bank.order("a.xml", order(("E1", "6.00")))
    bank.control("end-of-day")

    assert (first[0], again[0], status) == (202, 200, 409)
    assert bank.state()["paid"] == {"E1": 1}
    assert balance(bank) == 99_500


def test_what_is_not_covered_is_refused_by_its_line(bank: BankThread) -> None:
    _, answer = bank.order("a.xml", order(("E1", "900"), ("E2", "200")))
    report = bank.files()[answer["report"]].decode()
    bank.control("end-of-day")

    assert "<GrpSts>PART</GrpSts>" in report
    assert "<Cd>AM04</Cd>" in report
    assert bank.state()["paid"] == {"E1": 1}


def test_an_order_waits_for_its_day_and_banks_rest_at_week_ends(bank: BankThread) -> None:
    bank.order("a.xml", order(("E1", "5.00"), day="2026-01-12"))

    bank.control("end-of-day", days=5)
    assert bank.state()["today"] == "2026-01-12"
    assert bank.state()["paid"] == {}

    bank.control("end-of-day")
    assert bank.state()["paid"] == {"E1": 1}


def credit(
    bank: BankThread, kind: FaultKind | None = None, days: int = 4
) -> list[tuple[int, str, str]]:
    """Let 100.00 come in, badly; return (amount, reference, day) of what is booked."""
    if kind is not None:
        bank.control("fault", kind=kind)
    sent = {"account": OURS, "amount": 10_000, "end_to_end": "RUN-7", "name": "Acme"}
    bank.control("credit", **sent)
    bank.control("end-of-day", days=days)
    return [
        (entry.amount, entry.lines[0].end_to_end, entry.booking_date.isoformat()[-2:])
        for statement in statements(bank)
        for entry in statement.entries
    ]


@pytest.mark.parametrize(
    ("kind", "booked"),
    [
        (None, [(10_000, "RUN-7", "05")]),
        (FaultKind.SHORT, [(7_500, "RUN-7", "05")]),
        (FaultKind.LATE, [(10_000, "RUN-7", "07")]),
        (FaultKind.WRONG_REFERENCE, [(10_000, "XX-UNKNOWN", "05")]),
        (FaultKind.DUPLICATE, [(10_000, "RUN-7", "05"), (10_000, "RUN-7", "05")]),
        (FaultKind.REVERSED_CREDIT, [(10_000, "RUN-7", "05"), (-10_000, "RUN-7", "06")]),
    ],
)
def test_a_credit_comes_as_it_was_ordered(
    bank: BankThread, kind: FaultKind | None, booked: list[tuple[int, str, str]]
) -> None:
    assert credit(bank, kind) == booked


def test_a_payment_comes_back_the_day_after(bank: BankThread) -> None:
    bank.control("fault", kind=FaultKind.RETURNED)
    bank.order("a.xml", order(("E1", "5.00")))
    bank.control("end-of-day", days=2)

    out, back = [entry for item in statements(bank) for entry in item.entries]
    assert (out.amount, back.amount, back.lines[0].return_reason) == (-500, 500, "AC04")
    assert back.lines[0].end_to_end == "E1"


def test_a_gap_is_seen_and_closed_by_what_was_kept_back(bank: BankThread) -> None:
    def holes() -> list[int | None]:
        links = [
            Link(s.id, s.sequence, s.from_date, s.to_date, s.opening or 0, s.closing or 0)
            for s in statements(bank)
        ]
        return [gap.missing for gap in gaps(links)]

    bank.control("end-of-day")
    bank.control("fault", kind=FaultKind.GAP)
    bank.control("credit", account=OURS, amount=1)
    bank.control("end-of-day", days=2)
    assert holes() == [1]

    assert len(bank.control("deliver")) == 1
    assert holes() == []


@pytest.mark.parametrize("kind", [FaultKind.TRUNCATED_STATEMENT, FaultKind.BAD_XML])
def test_a_spoiled_statement_comes_again_whole(bank: BankThread, kind: FaultKind) -> None:
    bank.control("fault", kind=kind)
    (bad, _) = bank.control("end-of-day")

    with pytest.raises(FileUnreadable):
        read_file(bank.files()[bad], ASSETS)
    (good,) = bank.control("deliver")
    assert read_file(bank.files()[good], ASSETS)[1][0].sequence == 1


def test_a_statement_can_come_twice(bank: BankThread) -> None:
    bank.control("fault", kind=FaultKind.DUPLICATE_STATEMENT)
    bank.control("end-of-day")

    first, second = bank.files(f"statement-{OURS}").values()
    assert first == second


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        (FaultKind.STATUS_503, False),
        (FaultKind.STATUS_503_AFTER_ACCEPT, True),
        (FaultKind.HANG_BEFORE_ACCEPT, False),
        (FaultKind.HANG_AFTER_ACCEPT, True),
    ],
)
def test_an_answer_that_is_kept_back_says_nothing(
    bank: BankThread, kind: FaultKind, *, taken: bool
) -> None:
    bank.control("fault", kind=kind, seconds=0.01)

    assert bank.order("a.xml", order(("E1", "5.00")))[0] == 503
    assert bank.state()["messages"] == (["MSG-1"] if taken else [])
    assert bank.order("a.xml", order(("E1", "5.00")))[0] == (200 if taken else 202)
    bank.control("end-of-day")
    assert bank.state()["paid"] == {"E1": 1}


@pytest.mark.parametrize("form", [FileFormat.MT940, FileFormat.CAMT_053_02])
def test_statements_come_in_the_format_of_the_account(bank: BankThread, form: FileFormat) -> None:
    iban = "DE75512108001245126199"
    bank.control("account", iban=iban, currency="EUR", balance=700, format=form)
    bank.control("interest", account=iban, amount=3)
    bank.control("end-of-day")

    (raw,) = bank.files(f"statement-{iban}").values()
    found, (statement,) = read_file(raw, ASSETS)
    assert (found, statement.closing) == (form, 703)


def test_what_cannot_be_understood_is_refused(bank: BankThread) -> None:
    for command, sent in (
        ("nothing", {}),
        ("credit", {"account": "XX", "amount": 1}),
        ("credit", {"account": OURS, "amount": 0}),
        ("fault", {"kind": "flood"}),
        ("end-of-day", {"days": 0}),
    ):
        with pytest.raises(SimulatorError):
            bank.control(command, **sent)
    assert bank.order("a.xml", b"<x/>")[0] == 400
    assert bank.request("GET", "/files/none")[0] == 404


def test_a_bank_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Also its files, its faults, and the messages it has taken."""
    with BankProcess(tmp_path, "--account", f"{OURS}:EUR:1000") as bank:
        bank.control("fault", kind=FaultKind.STATUS_503)
        assert bank.order("a.xml", order(("E1", "5.00")))[0] == 503
        assert bank.order("a.xml", order(("E1", "5.00")))[0] == 202
        bank.control("end-of-day")
        before, files = bank.state(), bank.files()
        bank.kill()

    (tmp_path / "in" / "again.xml").write_bytes(order(("E1", "5.00")))
    with BankProcess(tmp_path, "--account", f"{OURS}:EUR:1000") as bank:
        assert bank.ready["replayed"] == 5
        assert (bank.state(), bank.files()) == (before, files)
        assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == files
        assert bank.order("a.xml", order(("E1", "5.00")))[0] == 200
    assert bank.process is not None
    assert bank.process.returncode == 0


@pytest.mark.parametrize("left", [1, 20])
def test_a_command_that_was_cut_off_in_the_journal_was_never_given(
    tmp_path: Path, left: int
) -> None:
    with BankThread(tmp_path, "--account", f"{OURS}:EUR:1000") as bank:
        before = bank.state()
        bank.control("credit", account=OURS, amount=5)
    journal = tmp_path / "journal.jsonl"
    whole = journal.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    journal.write_bytes(whole[: len(whole) - len(last) + left])

    with BankThread(tmp_path, "--account", f"{OURS}:EUR:1000") as bank:
        assert bank.state() == before
        bank.control("credit", account=OURS, amount=5)
    assert journal.read_bytes() == whole


def test_a_bank_that_was_killed_before_its_first_line_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_bytes(b'{"tod')

    with BankThread(tmp_path, "--account", f"{OURS}:EUR:1000") as bank:
        assert balance(bank) == 100_000
