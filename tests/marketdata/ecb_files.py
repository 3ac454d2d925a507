"""Files in the formats of the European Central Bank, with rates of our own making."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

Days = Mapping[str, Mapping[str, str]]

DAYS: Days = {
    "2026-10-28": {"USD": "1.1600", "JPY": "176.52", "GBP": "0.87700"},
    "2026-10-29": {"USD": "1.1625", "JPY": "176.91", "GBP": "0.87810"},
    "2026-10-30": {"USD": "1.1550", "JPY": "178.20", "GBP": "0.88100"},
}
"""Wednesday to Friday before a month's end on a Saturday."""


def as_xml(days: Days = DAYS) -> bytes:
    """Return the days as ``eurofxref-hist-90d.xml`` has them, newest first."""
    cubes = "".join(
        f"<Cube time='{day}'>"
        + "".join(f"<Cube currency='{c}' rate='{rate}'/>" for c, rate in rates.items())
        + "</Cube>"
        for day, rates in sorted(days.items(), reverse=True)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" '
        'xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">\n'
        "\t<gesmes:subject>Reference rates</gesmes:subject>\n"
        "\t<gesmes:Sender><gesmes:name>European Central Bank</gesmes:name></gesmes:Sender>\n"
        f"\t<Cube>{cubes}</Cube>\n</gesmes:Envelope>"
    ).encode()


def as_csv(days: Days = DAYS, *, between: str = ",") -> bytes:
    """Return the days as ``eurofxref-hist.csv`` has them: ``N/A`` where there is no rate."""
    currencies = sorted({c for rates in days.values() for c in rates})
    rows = [["Date", *currencies, ""]]
    for day, rates in sorted(days.items(), reverse=True):
        rows.append([day, *(rates.get(c, "N/A") for c in currencies), ""])
    return "".join(between.join(row) + "\n" for row in rows).encode()


def zipped(content: bytes, name: str = "eurofxref-hist.csv") -> bytes:
    """Return the content as the one file of a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()
