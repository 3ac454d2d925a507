"""The euro foreign exchange reference rates of the European Central Bank, read from its files.

Published at https://www.ecb.europa.eu/stats/eurofxref/ around 16:00 CET on every working day except
TARGET closing days, as

====================================  ================================================================
``eurofxref-daily.xml``               the newest day
``eurofxref-hist-90d.xml``            the last 90 days
``eurofxref-hist.xml``                every day since 1999-01-04
``eurofxref.csv`` (in a ``.zip``)     the newest day; its date is written ``19 November 2026``
``eurofxref-hist.csv`` (``.zip``)     every day; ``N/A`` where a currency had no rate
====================================  ================================================================

XML: a ``gesmes:Envelope`` (namespace http://www.gesmes.org/xml/2002-08-01) with one ``Cube`` of the
namespace http://www.ecb.int/vocabulary/2002-08-01/eurofxref, in it a ``Cube time='YYYY-MM-DD'`` a
day, in it a ``Cube currency='USD' rate='1.0944'`` a currency. CSV: a header ``Date, USD, JPY, …,``
with a comma at the end. A rate is how much of the currency one euro was worth; the decimal is kept
as it was published.

A file is somebody else's: sizes are limited before anything is parsed, a zip before it is unpacked,
XML may have no document type and no entities, and one wrong value refuses the whole file.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum, unique
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException  # type: ignore[import-untyped]  # it has no stubs
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]  # likewise

from kernel.errors import BadInput

SOURCE: Final = "ecb"
EURO: Final = "EUR"
BYTES_MAX: Final = 16 * 2**20
"""The whole history is about 7 MB of XML, and grows by 1 KB a working day."""

ZIP_BYTES_MAX: Final = 4 * 2**20
DAYS_MAX: Final = 20_000
CURRENCIES_MAX: Final = 100
RATE_DIGITS_MAX: Final = 20
FIRST_DAY: Final = date(1999, 1, 4)
ENVELOPE: Final = "{http://www.gesmes.org/xml/2002-08-01}Envelope"
CUBE: Final = "{http://www.ecb.int/vocabulary/2002-08-01/eurofxref}Cube"
FRIDAY: Final = 4
MISSING: Final = frozenset({"N/A", ""})
PUBLISHED_CET: Final = time(16, 0)
PACKED: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""How the file in a zip may be packed."""

ZIP_FAULTS: Final = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError),
)
"""What a damaged zip brings; a ValueError: a name in no encoding, a place before its beginning."""

COLUMNS_MAX: Final = 200

_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_RATE: Final = re.compile(r"(?P<whole>\d+)(?:\.(?P<fraction>\d+))?", re.ASCII)
_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_LONG_DATE: Final = re.compile(r"(?P<day>\d{1,2}) (?P<month>[A-Z][a-z]+) (?P<year>\d{4})", re.ASCII)


@unique
class EcbFormat(StrEnum):
    """How a file was written."""

    XML = "xml"
    CSV = "csv"
    ZIP = "zip"


@dataclass(frozen=True, slots=True)
class Rate:
    """A published decimal: ``mantissa / 10 ** scale``."""

    mantissa: int
    scale: int


@dataclass(frozen=True, slots=True)
class EcbDay:
    """What one euro was worth on a day, by currency."""

    day: date
    rates: Mapping[str, Rate]


@dataclass(frozen=True, slots=True)
class EcbFile:
    """A file as it was read: its days in ascending order."""

    format: EcbFormat
    days: tuple[EcbDay, ...]


def read_ecb(content: bytes) -> EcbFile:
    """Read any of the published files; which one is seen from its first bytes.

    Raises:
        BadInput: too large, not in the format, a day or a currency twice, a rate that is none.
    """
    if len(content) > BYTES_MAX:
        raise BadInput(f"the file has {len(content):,} bytes, at most {BYTES_MAX:,} are read")
    if content.startswith(b"PK"):
        return EcbFile(EcbFormat.ZIP, _in_order(_from_csv(_unpacked(content))))
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return EcbFile(EcbFormat.XML, _in_order(_from_xml(content)))
    return EcbFile(EcbFormat.CSV, _in_order(_from_csv(content)))


def parse_rate(text: str) -> Rate:
    """Read a rate as it is published: digits and at most one point, above zero.

    Raises:
        BadInput: anything else.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None or len(text.strip()) > RATE_DIGITS_MAX:
        raise BadInput(f"{text[:40]!r} is not a rate")
    fraction = found["fraction"] or ""
    mantissa = int(found["whole"] + fraction)
    if mantissa == 0:
        raise BadInput("a rate is above zero")
    return Rate(mantissa, len(fraction))


# The business-day rule.


def published_at(day: date) -> datetime:
    """Return when the rates of a day come out: 16:00 Central European Time, as UTC.

    Summer time is from the last Sunday of March to the last one of October (Directive 2000/84/EC,
    articles 2 and 3): then 16:00 is 14:00 UTC, else 15:00.
    """
    is_summer = _last_sunday(day.year, 3) <= day < _last_sunday(day.year, 10)
    offset = timedelta(hours=2 if is_summer else 1)
    return datetime.combine(day, PUBLISHED_CET, tzinfo=UTC) - offset


def is_publication_day(day: date) -> bool:
    """Tell whether rates are published: Monday to Friday, except TARGET closing days."""
    return day.weekday() < 5 and day not in closing_days(day.year)


def closing_days(year: int) -> frozenset[date]:
    """Return the TARGET closing days besides weekends, as they are since 2002.

    New Year's Day, Good Friday, Easter Monday, 1 May, 25 and 26 December (decision of the ECB's
    Governing Council of 14 December 2000). Before, other days were closed, and 31 December 2001 was.
    """
    easter = _easter(year)
    return frozenset(
        {
            date(year, 1, 1),
            easter - timedelta(days=2),
            easter + timedelta(days=1),
            date(year, 5, 1),
            date(year, 12, 25),
            date(year, 12, 26),
        }
    )


def missing_days(known: Iterable[date], first: date, last: date) -> list[date]:
    """Return the publication days from *first* to *last* of which nothing is known."""
    there = set(known)
    span = (last - first).days + 1
    days = (first + timedelta(days=n) for n in range(max(span, 0)))
    return [day for day in days if is_publication_day(day) and day not in there]


def _last_sunday(year: int, month: int) -> date:
    last = date(year, month, 31)
    return last - timedelta(days=(last.weekday() + 1) % 7)


def _easter(year: int) -> date:
    """Return Easter Sunday (the anonymous Gregorian algorithm; Meeus, Astronomical Algorithms, 8)."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)


# The formats.


def _unpacked(content: bytes) -> bytes:
    """Return the one file in a zip, never more of it than is allowed, whatever it claims."""
    if len(content) > ZIP_BYTES_MAX:
        raise BadInput(f"the zip has {len(content):,} bytes, at most {ZIP_BYTES_MAX:,} are read")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) != 1 or not members[0].filename.lower().endswith(".csv"):
                raise BadInput("the zip does not hold exactly one CSV file")
            if members[0].flag_bits & 1:
                raise BadInput("the file in the zip is encrypted")
            if members[0].compress_type not in PACKED:
                raise BadInput("the file in the zip is neither stored nor deflated")
            with archive.open(members[0]) as stream:
                text = stream.read(BYTES_MAX + 1)
    except ZIP_FAULTS as error:
        raise BadInput(f"the zip cannot be read: {error}") from error
    if len(text) > BYTES_MAX:
        raise BadInput(f"the file in the zip has more than {BYTES_MAX:,} bytes")
    return text


def _from_xml(content: bytes) -> Iterator[EcbDay]:
    try:
        root: Element = fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        raise BadInput(f"the XML has what rates do not need: {type(error).__name__}") from error
    except (ParseError, ValueError, LookupError) as error:
        raise BadInput(f"the XML cannot be read: {error}") from error
    if root.tag != ENVELOPE:
        raise BadInput(f"the XML is a {root.tag[:80]}, not an envelope of reference rates")
    cubes = root.findall(CUBE)
    if len(cubes) != 1:
        raise BadInput(f"the envelope has {len(cubes)} cubes, not one")
    for item in cubes[0]:
        if item.tag != CUBE:
            raise BadInput(f"a {item.tag[:80]} stands among the days")
        yield EcbDay(_iso_day(item.get("time") or ""), _rates(_cells(item)))


def _cells(day: Element) -> Iterator[tuple[str, str]]:
    for item in day:
        if item.tag != CUBE:
            raise BadInput(f"a {item.tag[:80]} stands among the rates")
        yield item.get("currency") or "", item.get("rate") or "?"


def _from_csv(content: bytes) -> Iterator[EcbDay]:
    rows = _csv_rows(content)
    first = next(rows, [""])
    if first[0] != "Date":
        raise BadInput("the CSV does not begin with Date")
    header = _without_tail(first)
    for row in rows:
        values = row[: len(header)]
        if len(values) != len(header) or any(row[len(header) :]):
            raise BadInput(f"the row of {row[0][:20]!r} has not as many values as the header")
        known = zip(header[1:], values[1:], strict=True)
        yield EcbDay(_day(values[0]), _rates((c, r) for c, r in known if r not in MISSING))


def _csv_rows(content: bytes) -> Iterator[list[str]]:
    """Return the rows that hold anything, one after the other: lines of nothing take no room."""
    try:
        text = content.decode("utf-8-sig")
        for row in csv.reader(io.StringIO(text, newline=""), strict=True):
            if len(row) > COLUMNS_MAX:
                raise BadInput(f"a row of the CSV has more than {COLUMNS_MAX} values")
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield cells
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"the CSV cannot be read: {error}") from error


def _without_tail(header: Sequence[str]) -> list[str]:
    """Leave out the empty name behind the comma at the end."""
    return list(header[:-1] if header[-1] == "" else header)


def _rates(cells: Iterable[tuple[str, str]]) -> dict[str, Rate]:
    found: dict[str, Rate] = {}
    for currency, rate in cells:
        if not _CURRENCY.fullmatch(currency) or currency == EURO:
            raise BadInput(f"{currency[:20]!r} is not a currency of the reference rates")
        if currency in found:
            raise BadInput(f"a day has {currency} twice")
        found[currency] = parse_rate(rate)
    if not found or len(found) > CURRENCIES_MAX:
        raise BadInput(f"a day has {len(found)} rates")
    return found


def _in_order(days: Iterable[EcbDay]) -> tuple[EcbDay, ...]:
    found: dict[date, EcbDay] = {}
    for item in days:
        if item.day in found:
            raise BadInput(f"the file has {item.day} twice")
        if len(found) >= DAYS_MAX:
            raise BadInput(f"the file has more than {DAYS_MAX:,} days")
        found[item.day] = item
    if not found:
        raise BadInput("the file has no rates")
    return tuple(found[day] for day in sorted(found))


def _day(text: str) -> date:
    """Read ``2026-11-19`` or ``19 November 2026``."""
    found = _LONG_DATE.fullmatch(text)
    if found is None:
        return _iso_day(text)
    if found["month"] not in _MONTHS:
        raise BadInput(f"{text[:30]!r} is not a day")
    month = _MONTHS.index(found["month"]) + 1
    return _iso_day(f"{found['year']}-{month:02}-{int(found['day']):02}")


def _iso_day(text: str) -> date:
    """Read ``2026-11-19``: a day of the week since there are rates; weekends never had any."""
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{text[:30]!r} is not a day") from error
    if day < FIRST_DAY or day.isoformat() != text or day.weekday() > FRIDAY:
        raise BadInput(f"{text[:30]!r} is not a day that has reference rates")
    return day
