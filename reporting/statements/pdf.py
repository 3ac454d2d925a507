"""The PDF of a statement, drawn from its CSV alone; the only module here that needs reportlab.

The same CSV gives the same bytes with one version of the library (``invariant``: no time of making, no
random id); what was drawn is kept, so that a newer library changes no document that was sent. Fonts are
those that every reader of PDF has: a character that they lack is written as its number.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import LongTable, Paragraph, SimpleDocTemplate, Spacer, TableStyle

from reporting.errors import StatementRefused
from reporting.statements.document import CLOSING, COLUMNS, OPENING, POSTING, sha256_hex

INK: Final = HexColor(0x1B2733)
QUIET: Final = HexColor(0x5C6B7A)
RULE: Final = HexColor(0xC9D2DB)
PAGE: Final = landscape(A4)
MARGIN: Final = 14 * mm
FOOT: Final = 8 * mm
HEAD_LINES: Final = 4
"""Lines of the CSV before the first account: what it is, period, book, names of the columns."""

LINES_MAX: Final = 20_000
"""Postings in one PDF: more than three hundred pages are for a machine, which has the CSV."""

SHOWN: Final = ("recorded", "trade_date", "value_date", "posting", "reference", "change", "balance")
WIDTHS: Final = tuple(width * mm for width in (44, 22, 22, 48, 53, 40, 40))
_TITLE: Final = ParagraphStyle(
    "title", fontName="Helvetica-Bold", fontSize=15, leading=19, textColor=INK
)
_QUIET: Final = ParagraphStyle(
    "quiet", fontName="Helvetica", fontSize=9, leading=12, textColor=QUIET
)
_ACCOUNT: Final = ParagraphStyle(
    "account", fontName="Helvetica-Bold", fontSize=10, leading=13, textColor=INK, spaceBefore=8
)
_CELL: Final = ParagraphStyle(
    "cell", fontName="Helvetica", fontSize=7, leading=8.5, textColor=INK, splitLongWords=True
)
_STYLE: Final = TableStyle(
    [
        ("FONT", (0, 0), (-1, -1), "Helvetica", 7),
        ("FONT", (0, 0), (-1, 0), "Helvetica-Bold", 7),
        ("TEXTCOLOR", (0, 0), (-1, -1), INK),
        ("ALIGN", (-2, 0), (-1, -1), "RIGHT"),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, 0), 0.6, RULE),
        ("TOPPADDING", (0, 0), (-1, -1), 1),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
    ]
)


def draw(content: bytes) -> bytes:
    """Return the PDF of a statement's CSV, which names the CSV's SHA-256 on every page.

    Raises:
        StatementRefused: it has more than `LINES_MAX` postings.
    """
    rows = list(csv.reader(io.StringIO(content.decode())))
    if len(rows) > LINES_MAX:
        raise StatementRefused(
            f"the statement has more than {LINES_MAX} lines", remedy="Read its CSV"
        )
    digest = sha256_hex(content)
    target = io.BytesIO()
    template = SimpleDocTemplate(
        target,
        pagesize=PAGE,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=_known(f"Statement of {rows[0][1]}"),
        author=_known(rows[0][3]),
        subject=f"SHA-256 of the CSV: {digest}",
        invariant=True,
    )

    def foot(canvas: Any, _: Any) -> None:
        canvas.setFont("Courier", 6.5)
        canvas.setFillColor(QUIET)
        canvas.drawString(MARGIN, FOOT, f"SHA-256 of the CSV {digest}")
        canvas.drawRightString(PAGE[0] - MARGIN, FOOT, f"page {canvas.getPageNumber()}")

    template.build(list(_story(rows)), onFirstPage=foot, onLaterPages=foot)
    return target.getvalue()


def _story(rows: Sequence[Sequence[str]]) -> Iterator[Any]:
    (_, party, _, entity), (_, first, _, last), (_, book, _, sequence) = rows[:3]
    yield Paragraph(_markup(f"Statement of {party}"), _TITLE)
    yield Paragraph(
        _markup(f"{entity} · {first} to {last} · book {book}, record {sequence}"), _QUIET
    )
    lines = [dict(zip(COLUMNS, row, strict=True)) for row in rows[HEAD_LINES:]]
    if not lines:
        yield Paragraph("No account had a balance or a posting.", _QUIET)
        return
    begins = [at for at, line in enumerate(lines) if line["line"] == OPENING]
    for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True):
        yield from _account(lines[begin:end])


def _account(lines: Sequence[dict[str, str]]) -> Iterator[Any]:
    head = lines[0]
    yield Paragraph(_markup(f"{head['account']} in {head['asset']}"), _ACCOUNT)
    cells: list[list[Any]] = [[name.replace("_", " ") for name in SHOWN]]
    for line in lines:
        if line["line"] == POSTING:
            wide = {name: Paragraph(_markup(line[name]), _CELL) for name in SHOWN[3:5]}
            cells.append([wide.get(name, line[name]) for name in SHOWN])
        elif line["line"] in (OPENING, CLOSING):
            cells.append(["", "", "", line["line"], "", "", line["balance"]])
    yield LongTable(cells, colWidths=WIDTHS, repeatRows=1, style=_STYLE, hAlign="LEFT")
    yield Spacer(1, 4)


def _markup(text: str) -> str:
    return escape(_known(text))


def _known(text: str) -> str:
    """Return *text* with what the fonts lack as its code point in hexadecimal."""
    return text.encode("cp1252", "backslashreplace").decode("cp1252")
