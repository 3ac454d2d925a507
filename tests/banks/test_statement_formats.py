"""One day at a bank, in every format that is read: the same values come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banks.continuity import Link, gaps
from banks.errors import FileUnreadable
from banks.reading import read_file
from banks.safe_xml import BYTES_MAX, MARKS_MAX, parse_xml
from banks.simulator.model import DayEnd, Movement
from banks.simulator.writing import camt_054, statement_bytes
from banks.statement_model import Entry, EntryKind, FileFormat, Statement, StatementKind
from kernel.money import Asset

IBAN = "DE89370400440532013000"
PAYER = "DE02120300000000202051"
DAY = date(2026, 11, 17)
ASSETS: Mapping[str, Asset] = {"EUR": Asset("EUR", 2), "USD": Asset("USD", 4)}
STATEMENTS = [form for form in FileFormat if form is not FileFormat.CAMT_054_08]
XML = [form for form in STATEMENTS if form is not FileFormat.MT940]
CREDIT = Movement(
    bank_ref="BK1",
    amount=60_000_000,
    booking_date=DAY,
    value_date=DAY,
    end_to_end="RUN-7-ACME",
    name="Acme GmbH",
    iban=PAYER,
    remittance="invoice 7",
)
REVERSED = replace(CREDIT, bank_ref="BK2", amount=-60_000_000, reversal=True)
RETURNED = replace(
    CREDIT, bank_ref="BK3", amount=500, end_to_end="OURS-1", return_reason="AC04", name="Birch"
)
CHARGE = Movement(
    bank_ref="BK4",
    amount=-25_00,
    booking_date=DAY,
    value_date=DAY,
    domain=("ACMT", "MCOP", "CHRG"),
)
MOVEMENTS = (CREDIT, REVERSED, RETURNED, CHARGE)


def end(*movements: Movement, **changed: Any) -> DayEnd:
    opening = changed.pop("opening", 1_000_000)
    values: dict[str, Any] = {
        "iban": IBAN,
        "currency": "EUR",
        "owner": "Desk",
        "sequence": 12,
        "day": DAY,
        "opening": opening,
        "closing": opening + sum(item.amount for item in movements),
        "movements": movements,
    }
    return DayEnd(**{**values, **changed})


def read_one(raw: bytes) -> Statement:
    _, (statement,) = read_file(raw, ASSETS)
    return statement


def essence(entry: Entry) -> tuple[object, ...]:
    (line,) = entry.lines
    return (
        *(entry.amount, entry.asset, entry.booking_date, entry.value_date, entry.reversal),
        *(entry.kind, entry.bank_ref, line.end_to_end, line.name, line.iban, line.remittance),
        line.return_reason,
    )


@pytest.mark.parametrize("form", STATEMENTS)
def test_a_day_is_read_as_it_was_written(form: FileFormat) -> None:
    found, (statement,) = read_file(statement_bytes(end(*MOVEMENTS), form), ASSETS)

    assert found is form
    assert (statement.account, statement.sequence, statement.asset) == (IBAN, 12, "EUR")
    assert (statement.opening, statement.closing) == (1_000_000, 1_000_000 + 500 - 2_500)
    assert (statement.from_date, statement.to_date) == (DAY, DAY)
    assert [essence(item) for item in statement.entries] == [
        (
            *(item.amount, "EUR", DAY, DAY, item.reversal),
            EntryKind.CHARGE if item is CHARGE else EntryKind.PAYMENT,
            *(item.bank_ref, item.end_to_end, item.name, item.iban, item.remittance),
            item.return_reason,
        )
        for item in MOVEMENTS
    ]


@pytest.mark.parametrize("form", STATEMENTS)
def test_an_entry_has_the_same_key_in_a_notice_and_in_every_format(form: FileFormat) -> None:
    statement = read_one(statement_bytes(end(CREDIT), form))
    notice = read_one(camt_054(IBAN, "EUR", CREDIT))

    assert notice.kind is StatementKind.NOTICE
    assert (notice.opening, notice.closing) == (None, None)
    assert [item.key for item in notice.entries] == [item.key for item in statement.entries]


@pytest.mark.parametrize(
    ("mark", "amount"), [("C", 20_488), ("D", -20_488), ("RC", -20_488), ("RD", 20_488)]
)
def test_mt940_takes_a_reversed_credit_for_a_debit(mark: str, amount: int) -> None:
    closing = f"{(100_000 + amount) // 100},{(100_000 + amount) % 100:02}"
    raw = (
        f":20:X\r\n:25:{IBAN}\r\n:28C:1/1\r\n:60F:C261117EUR1000,00\r\n"
        f":61:2611171117{mark}204,88NTRFNONREF//R1\r\n:62F:C261117EUR{closing}\r\n-\r\n"
    )

    (entry,) = read_one(raw.encode()).entries

    assert (entry.amount, entry.reversal) == (amount, mark.startswith("R"))


def test_german_subfields_of_mt940_are_read() -> None:
    raw = (
        f":20:X\n:25:{IBAN}\n:28C:1/1\n:60F:C261117EUR1000,00\n:61:2611171117CR1,00NTRFNONREF//R1\n"
        f":86:166?00GUTSCHRIFT?20EREF+RUN-7?21SVWZ+INV 8?31{PAYER}?32ACME GMBH\n"
        ":62F:C261117EUR1001,00\n-\n"
    )

    ((line,),) = [item.lines for item in read_one(raw.encode()).entries]

    assert (line.end_to_end, line.name, line.iban, line.remittance) == (
        *("RUN-7", "ACME GMBH", PAYER),
        "INV 8",
    )


@pytest.mark.parametrize("form", STATEMENTS)
@pytest.mark.parametrize("part", [2, 3, 5])
def test_a_truncated_statement_is_not_read(form: FileFormat, part: int) -> None:
    raw = statement_bytes(end(*MOVEMENTS), form)

    with pytest.raises(FileUnreadable):
        read_file(raw[: len(raw) * (part - 1) // part], ASSETS)


@pytest.mark.parametrize("form", STATEMENTS)
def test_a_statement_that_does_not_add_up_is_not_read(form: FileFormat) -> None:
    with pytest.raises(FileUnreadable, match="does not add up"):
        read_file(statement_bytes(end(CREDIT, closing=5), form), ASSETS)


@pytest.mark.parametrize("form", STATEMENTS)
def test_a_currency_that_nobody_knows_is_not_read(form: FileFormat) -> None:
    with pytest.raises(FileUnreadable, match="CHF"):
        read_file(statement_bytes(end(CREDIT, currency="CHF"), form), ASSETS)


def test_a_currency_counts_in_its_own_smallest_units() -> None:
    statement = read_one(statement_bytes(end(CREDIT, currency="USD"), FileFormat.CAMT_053_08))

    assert (statement.opening, statement.entries[0].amount) == (100_000_000, 6_000_000_000)


ENTITY = b'<!DOCTYPE Document [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
LAUGHS = b'<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize("form", XML)
@pytest.mark.parametrize("trap", [ENTITY, LAUGHS, b"<!doctype x>", b"<!ENTITY x 'y'>"])
def test_a_document_type_is_refused_before_it_is_parsed(form: FileFormat, trap: bytes) -> None:
    head, _, body = statement_bytes(end(CREDIT), form).partition(b"?>")

    with pytest.raises(FileUnreadable, match="document type"):
        read_file(head + b"?>" + trap + body, ASSETS)


def test_a_document_type_cannot_hide_in_another_encoding() -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE x><x/>'

    for raw in (text.encode("utf-16"), text.encode("utf-16-be")):
        with pytest.raises(FileUnreadable, match="cannot be seen"):
            parse_xml(raw)
    with pytest.raises(FileUnreadable):
        parse_xml(b'<?xml version="1.0" encoding="UTF-7"?>+ADw-x/+AD4-')


@pytest.mark.parametrize("piece", [b"<a/>", b"<a b='' c='' d=''/>"])
def test_a_file_has_a_number_of_elements(piece: bytes) -> None:
    marks = piece.count(b"<") + piece.count(b"=")

    with pytest.raises(FileUnreadable, match="elements and attributes"):
        parse_xml(b"<r>" + piece * (MARKS_MAX // marks) + b"</r>")


def test_a_file_has_a_size() -> None:
    with pytest.raises(FileUnreadable, match="more than"):
        parse_xml(b"<x>" + b" " * BYTES_MAX + b"</x>")


@pytest.mark.parametrize("raw", [b"", b"  \n", b"<x/>", b"hello", b"<Document/>", b"\x00"])
def test_what_is_no_statement_is_not_read(raw: bytes) -> None:
    with pytest.raises(FileUnreadable):
        read_file(raw, ASSETS)


@pytest.mark.parametrize("form", XML)
def test_what_the_schema_does_not_allow_is_not_read(form: FileFormat) -> None:
    raw = statement_bytes(end(CREDIT), form)
    for old, new in ((b"<CdtDbtInd>CRDT", b"<CdtDbtInd>CREDIT"), (b"<Id>STMT", b"<Idx>STMT")):
        with pytest.raises(FileUnreadable):
            read_file(raw.replace(old, new), ASSETS)


@pytest.mark.parametrize("form", XML)
def test_a_page_of_a_longer_statement_is_not_read(form: FileFormat) -> None:
    page = b"<StmtPgntn><PgNb>2</PgNb><LastPgInd>true</LastPgInd></StmtPgntn>"
    raw = statement_bytes(end(CREDIT), form).replace(b"<ElctrncSeqNb>", page + b"<ElctrncSeqNb>")

    with pytest.raises(FileUnreadable):
        read_file(raw, ASSETS)


def test_pages_of_mt940_are_not_read() -> None:
    raw = statement_bytes(end(CREDIT), FileFormat.MT940).replace(b":62F:", b":62M:")

    with pytest.raises(FileUnreadable, match="pages"):
        read_file(raw, ASSETS)


def test_a_line_of_mt940_that_is_not_understood_is_not_left_out() -> None:
    raw = statement_bytes(end(CREDIT, CHARGE), FileFormat.MT940)

    with pytest.raises(FileUnreadable):
        read_file(raw.replace(b":61:2611171117D", b":61:YESTERDAY D"), ASSETS)


def test_two_statements_of_mt940_do_not_run_into_one() -> None:
    """Without its own field 20 the second one is taken for a part of the first; the sums still hold."""
    even = statement_bytes(
        end(CREDIT, replace(CREDIT, bank_ref="X", amount=-60_000_000)), FileFormat.MT940
    )
    _, _, second = statement_bytes(end(sequence=13), FileFormat.MT940).partition(b"\r\n")

    with pytest.raises(FileUnreadable, match="understood"):
        read_file(even.replace(b"-\r\n", b"") + second, ASSETS)


def test_pending_entries_are_no_bookings() -> None:
    raw = statement_bytes(end(CREDIT, closing=1_000_000), FileFormat.CAMT_053_08)

    statement = read_one(raw.replace(b"<Cd>BOOK</Cd>", b"<Cd>PDNG</Cd>"))

    assert (len(statement.entries), statement.booked) == (1, ())


@pytest.mark.parametrize(
    ("told", "booked"),
    [
        (b"<Cd>FUTR</Cd>", 0),
        (b"<Cd>INFO</Cd>", 0),
        (b"<Cd>XXXX</Cd>", None),
        (b"<Prtry>pending</Prtry>", None),
        (b"<Prtry>BOOK</Prtry>", 1),
    ],
)
def test_only_what_the_bank_says_is_booked_is_booked(told: bytes, booked: int | None) -> None:
    raw = statement_bytes(
        end(CREDIT, closing=1_000_000 + bool(booked) * CREDIT.amount), FileFormat.CAMT_053_08
    ).replace(b"<Cd>BOOK</Cd>", told)

    if booked is None:
        with pytest.raises(FileUnreadable, match="status"):
            read_one(raw)
    else:
        assert len(read_one(raw).booked) == booked


def test_a_batch_of_which_not_all_is_told_has_no_reference() -> None:
    raw = statement_bytes(end(CREDIT), FileFormat.CAMT_053_08).replace(
        b"<NtryDtls>", b"<NtryDtls><Btch><NbOfTxs>3</NbOfTxs></Btch>"
    )

    (entry,) = read_one(raw).entries

    assert [(item.amount, item.end_to_end, item.name) for item in entry.lines] == [
        (CREDIT.amount, "", "")
    ]


@pytest.mark.parametrize("form", XML)
def test_what_is_undone_names_its_parties_as_it_was_sent(form: FileFormat) -> None:
    raw = statement_bytes(end(REVERSED), form)
    assert b"<DbtrAcct>" in raw

    (entry,) = read_one(raw).entries

    assert (entry.lines[0].name, entry.lines[0].iban) == (CREDIT.name, PAYER)


@pytest.mark.parametrize("zone", [b"Z", b"+02:00", b"-05:00"])
def test_a_date_may_say_its_zone(zone: bytes) -> None:
    raw = statement_bytes(end(CREDIT), FileFormat.CAMT_053_08)

    (entry,) = read_one(raw.replace(b"-17</Dt>", b"-17" + zone + b"</Dt>")).entries

    assert (entry.booking_date, entry.value_date) == (DAY, DAY)


def test_a_number_that_is_no_count_is_none() -> None:
    raw = statement_bytes(end(CREDIT), FileFormat.CAMT_053_08)

    assert read_one(raw.replace(b">12<", b">202611170000000001<")).sequence is None


def test_a_batch_has_its_lines_and_they_add_up() -> None:
    raw = statement_bytes(end(CREDIT), FileFormat.CAMT_053_08)
    details = raw[raw.index(b"<TxDtls>") : raw.index(b"</NtryDtls>")]
    halves = [
        details.replace(b"600000.00", amount).replace(b"RUN-7-ACME", name)
        for amount, name in ((b"400000.00", b"A"), (b"200000.00", b"B"))
    ]

    (entry,) = read_one(raw.replace(details, b"".join(halves))).entries
    assert [(item.amount, item.end_to_end) for item in entry.lines] == [
        (40_000_000, "A"),
        (20_000_000, "B"),
    ]

    (whole,) = read_one(raw.replace(details, halves[0] * 2)).entries
    assert [(item.amount, item.end_to_end) for item in whole.lines] == [(60_000_000, "")]


def test_equal_payments_of_one_day_are_two() -> None:
    twin = replace(CREDIT, bank_ref="")
    statement = read_one(
        statement_bytes(end(twin, twin), FileFormat.CAMT_053_08).replace(
            b"<AcctSvcrRef></AcctSvcrRef>", b""
        )
    )

    assert len({item.key for item in statement.entries}) == 2


def link(number: int | None, opening: int, closing: int, day: date = DAY) -> Link:
    return Link(f"S{number}", number, day, day, opening, closing)


@pytest.mark.parametrize(
    ("links", "missing"),
    [
        ([link(1, 0, 5), link(2, 5, 7)], []),
        ([link(1, 0, 5), link(3, 5, 7)], [1]),
        ([link(1, 0, 5), link(2, 6, 7)], [0]),
        ([link(None, 0, 5), link(None, 5, 7)], []),
        ([link(None, 0, 5), link(None, 6, 7)], [None]),
        ([link(250, 0, 5), link(1, 5, 7, date(2027, 1, 4))], []),
        ([link(250, 0, 5), link(2, 5, 7, date(2027, 1, 4))], [1]),
        ([link(1, 0, 5), link(5, 5, 7), link(6, 9, 9)], [3, 0]),
    ],
)
def test_statements_follow_one_another(links: list[Link], missing: list[int | None]) -> None:
    assert [gap.missing for gap in gaps(links)] == missing


@given(
    amounts=st.lists(st.integers(-(10**12), 10**12).filter(bool), max_size=12),
    form=st.sampled_from(STATEMENTS),
)
def test_no_amount_changes_on_the_way(amounts: list[int], form: FileFormat) -> None:
    movements = [
        replace(CREDIT, bank_ref=f"R{place}", amount=amount) for place, amount in enumerate(amounts)
    ]

    statement = read_one(statement_bytes(end(*movements), form))

    assert [item.amount for item in statement.entries] == amounts
