"""The ECB's files: every published format, hostile ones, the business-day rule."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
import zipfile
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from marketdata import ecb
from marketdata.ecb import (
    EcbFormat,
    Rate,
    closing_days,
    is_publication_day,
    missing_days,
    parse_rate,
    published_at,
    read_ecb,
)
from tests.marketdata.ecb_files import DAYS, as_csv, as_xml, zipped

DAILY_CSV = b"Date, USD, JPY, GBP, \n30 October 2026, 1.1550, 178.20, 0.88100, \n"
ONE = {"2026-10-30": DAYS["2026-10-30"]}


@pytest.mark.parametrize(
    ("content", "form", "days"),
    [
        (as_xml(), EcbFormat.XML, 3),
        (as_xml(ONE), EcbFormat.XML, 1),
        (as_csv(), EcbFormat.CSV, 3),
        (b"\xef\xbb\xbf" + as_csv(between=", "), EcbFormat.CSV, 3),
        (DAILY_CSV, EcbFormat.CSV, 1),
        (zipped(as_csv()), EcbFormat.ZIP, 3),
        (zipped(DAILY_CSV, "eurofxref.csv"), EcbFormat.ZIP, 1),
    ],
)
def test_every_published_format_is_read(content: bytes, form: EcbFormat, days: int) -> None:
    read = read_ecb(content)

    assert (read.format, len(read.days)) == (form, days)
    assert [item.day for item in read.days] == sorted(item.day for item in read.days)
    assert read.days[-1].day == date(2026, 10, 30)
    assert read.days[-1].rates["JPY"] == Rate(17820, 2)
    assert read.days[-1].rates["GBP"] == Rate(88100, 5)


def test_a_currency_without_a_rate_on_a_day_is_left_out_of_that_day() -> None:
    days = {"2026-10-29": {"USD": "1.1"}, "2026-10-30": {"USD": "1.2", "ISK": "140.5"}}

    first, second = read_ecb(as_csv(days)).days

    assert (set(first.rates), set(second.rates)) == ({"USD"}, {"USD", "ISK"})


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))
    + b"]><lolz>&l9;</lolz>"
)
OUTSIDE = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
FOREIGN = as_xml().replace(b"http://www.ecb.int/", b"http://example.org/")


def packed_otherwise() -> bytes:
    """A zip whose one file is packed as the ECB's never are, and damaged."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("eurofxref.csv", as_csv() * 50)
    content = bytearray(buffer.getvalue())
    content[60:90] = b"\xff" * 30
    return bytes(content)


HOSTILE = {
    "nothing": b"",
    "another file": b"hello",
    "a cut XML": as_xml()[:-30],
    "entities in entities": BOMB,
    "an entity from outside": OUTSIDE,
    "a document type": as_xml().replace(b"<gesmes:Env", b"<!DOCTYPE x><gesmes:Env", 1),
    "another XML": b"<html/>",
    "another namespace": FOREIGN,
    "no days": as_xml({}),
    "a day without rates": as_xml({"2026-10-30": {}}),
    "a day twice": as_csv() + as_csv().splitlines(keepends=True)[1],
    "a currency twice": as_xml(ONE).replace(b"'JPY'", b"'USD'"),
    "the euro itself": as_xml({"2026-10-30": {"EUR": "1"}}),
    "a day that is none": as_xml({"2026-02-30": {"USD": "1.1"}}),
    "a day before there were any": as_xml({"1998-12-31": {"USD": "1.1"}}),
    "a month that is none": DAILY_CSV.replace(b"October", b"Oktober"),
    "a currency that is none": as_xml({"2026-10-30": {"dollar": "1.1"}}),
    "a cell too many": as_csv() + b"2026-10-27,1,2,3,,5\n",
    "a cell too few": as_csv() + b"2026-10-27,1\n",
    "half a character": as_csv() + b"\xff\n",
    "an open quote": as_csv() + b'"2026',
    "a cut zip": zipped(as_csv())[:-30],
    "a zip of something else": zipped(as_csv(), "rates.xml"),
    "a zip packed otherwise": packed_otherwise(),
    "a zip with a name in no encoding": zipped(as_csv(), "\u00e9.csv").replace(
        "\u00e9".encode(), b"\xff\xff"
    ),
    "a Saturday": as_xml({"2026-10-31": {"USD": "1.1"}}),
    "a day by its week": as_xml({"2026-W44-5": {"USD": "1.1"}}),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_a_file_of_rates_is_refused_whole(content: bytes) -> None:
    with pytest.raises(BadInput):
        read_ecb(content)


@pytest.mark.parametrize(
    "text", ["0", "-1", "1e3", "1,5", ".5", "1.", "NaN", "inf", "", "1" * 30, "0.000", "\u0661"]
)
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_rate(text)


def test_sizes_are_limited_before_anything_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecb, "BYTES_MAX", 2_000)

    with pytest.raises(BadInput, match="at most 2,000"):
        read_ecb(as_xml(ONE) + b" " * 2_000)


def test_a_zip_that_is_small_and_unpacks_to_much_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ecb, "BYTES_MAX", 10_000)
    small = zipped(as_csv() + b"\n" * 1_000_000)

    assert len(small) < 10_000
    with pytest.raises(BadInput, match="more than 10,000 bytes"):
        read_ecb(small)


@pytest.mark.parametrize("filling", [b"\n", b",", b",\n", b" "])
def test_lines_of_nothing_cost_little_more_than_their_bytes(filling: bytes) -> None:
    size = 2**17
    tracemalloc.start()
    try:
        with contextlib.suppress(BadInput):
            read_ecb(zipped(as_csv(ONE) + filling * (size // len(filling))))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 12 * size + 2**19


def test_a_zip_with_two_files_is_refused() -> None:
    buffer = io.BytesIO(zipped(as_csv()))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("more.csv", "")

    with pytest.raises(BadInput, match="exactly one"):
        read_ecb(buffer.getvalue())


@given(st.binary(max_size=300))
def test_no_bytes_at_all_bring_anything_but_rates_or_a_refusal(content: bytes) -> None:
    for text in (content, b"PK" + content, b"<" + content, b"Date,USD\n" + content):
        try:
            read_ecb(text)
        except BadInput:
            continue


@given(st.integers(1, 10**12), st.integers(0, 6))
def test_a_rate_is_kept_as_the_decimal_that_was_published(mantissa: int, scale: int) -> None:
    digits = str(mantissa).rjust(scale + 1, "0")
    text = f"{digits[: len(digits) - scale]}.{digits[len(digits) - scale :]}" if scale else digits

    assert parse_rate(text) == Rate(mantissa, scale)


@pytest.mark.parametrize(
    ("year", "good_friday", "easter_monday"),
    [
        (2000, (4, 21), (4, 24)),
        (2024, (3, 29), (4, 1)),
        (2025, (4, 18), (4, 21)),
        (2026, (4, 3), (4, 6)),
        (2038, (4, 23), (4, 26)),
    ],
)
def test_target_is_closed_at_easter(
    year: int, good_friday: tuple[int, int], easter_monday: tuple[int, int]
) -> None:
    assert {date(year, *good_friday), date(year, *easter_monday)} <= closing_days(year)


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date(2026, 10, 30), True),
        (date(2026, 10, 31), False),
        (date(2026, 5, 1), False),
        (date(2026, 12, 24), True),
        (date(2026, 12, 25), False),
        (date(2026, 1, 6), True),
    ],
)
def test_rates_come_out_on_working_days(day: date, *, expected: bool) -> None:
    assert is_publication_day(day) is expected


def test_a_holiday_is_no_gap_and_a_missing_working_day_is() -> None:
    known = [date(2026, 12, 23), date(2026, 12, 28)]

    assert missing_days(known, date(2026, 12, 23), date(2026, 12, 28)) == [date(2026, 12, 24)]


@pytest.mark.parametrize(
    ("day", "hour"),
    [
        (date(2026, 3, 27), 15),
        (date(2026, 3, 30), 14),
        (date(2026, 10, 23), 14),
        (date(2026, 10, 26), 15),
    ],
)
def test_rates_come_out_at_four_in_frankfurt(day: date, hour: int) -> None:
    assert published_at(day) == datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


def test_published_times_never_go_back() -> None:
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(365)]
    times = [published_at(day) for day in days]

    assert times == sorted(times)
