"""The PDF of a confirmation, drawn from its text alone; the only module that needs reportlab.

The same text gives the same bytes with one version of the library (``invariant``: no time of making, no
random id); `drawing` keeps what was drawn, so that a newer library changes no document that was sent.
Fonts are those that every reader of PDF has, which know Windows-1252: a character that they lack is
written as its number, never left out.
"""

from __future__ import annotations

import hashlib
import io
from functools import partial
from typing import Any, Final
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    HRFlowable,
    KeepTogether,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from trading.confirmations.document import Document, Section, parse

INK: Final = HexColor(0x1B2733)
QUIET: Final = HexColor(0x5C6B7A)
RULE: Final = HexColor(0xC9D2DB)
MARGIN: Final = 18 * mm
FOOT: Final = 10 * mm
PADDING: Final = 6
"""Points that reportlab leaves between a page's margin and its text."""

LABEL_WIDTH: Final = 44 * mm
VALUE_WIDTH: Final = A4[0] - 2 * (MARGIN + PADDING) - LABEL_WIDTH
FONTS_KNOW: Final = "cp1252"

_TITLE: Final = ParagraphStyle(
    "title", fontName="Helvetica-Bold", fontSize=16, leading=20, textColor=INK
)
_SUBTITLE: Final = ParagraphStyle(
    "subtitle", fontName="Helvetica", fontSize=11, leading=15, textColor=QUIET
)
_HEADING: Final = ParagraphStyle(
    "heading", fontName="Helvetica-Bold", fontSize=9.5, leading=12, textColor=INK, spaceBefore=7
)
_LABEL: Final = ParagraphStyle(
    "label", fontName="Helvetica", fontSize=8.5, leading=11, textColor=QUIET
)
_VALUE: Final = ParagraphStyle(
    "value", fontName="Helvetica", fontSize=9, leading=11, textColor=INK, splitLongWords=True
)
_SENTENCE: Final = ParagraphStyle(
    "sentence", parent=_VALUE, fontSize=8.5, leading=11.5, spaceBefore=3
)


def draw(text: str) -> bytes:
    """Return the PDF of a confirmation's text, which names the text's SHA-256 on every page.

    Raises:
        NotADocument: the text is not of the form that confirmations are written in.
    """
    document = parse(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    target = io.BytesIO()
    template = SimpleDocTemplate(
        target,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=_known(document.title),
        author=_known(document.subtitle),
        subject=f"SHA-256 of the text: {digest}",
        invariant=True,
    )
    template.build(_story(document), canvasmaker=partial(_Pages, digest))
    return target.getvalue()


class _Pages(Canvas):  # type: ignore[misc] # reportlab has no types
    """A canvas that writes the feet once it knows how many pages there are."""

    def __init__(self, digest: str, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._digest = digest
        self._drawn: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802  the name that reportlab calls
        """Keep the page; it is written when all are there."""
        self._drawn.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        """Write every page with its foot."""
        pages = self._drawn
        for number, page in enumerate(pages, start=1):
            self.__dict__.update(page)
            self.setFont("Courier", 6.5)
            self.setFillColor(QUIET)
            self.drawString(MARGIN + PADDING, FOOT, f"SHA-256 of the text {self._digest}")
            self.drawRightString(A4[0] - MARGIN - PADDING, FOOT, f"page {number} of {len(pages)}")
            super().showPage()
        super().save()


def _story(document: Document) -> list[Any]:
    story: list[Any] = [
        Paragraph(_markup(document.title), _TITLE),
        Paragraph(_markup(document.subtitle), _SUBTITLE),
    ]
    for section in document.sections:
        story += _section(section)
    return story


def _section(section: Section) -> list[Any]:
    """Return a section; its heading never stands alone at the foot of a page."""
    rows = [
        [Paragraph(_markup(row.label), _LABEL), Paragraph(_markup(row.value), _VALUE)]
        for row in section.rows
    ]
    body: list[Any] = []
    if rows:
        table = Table(rows, colWidths=[LABEL_WIDTH, VALUE_WIDTH], hAlign="LEFT")
        table.setStyle(_TABLE)
        body.append(table)
    body += [Paragraph(_markup(sentence), _SENTENCE) for sentence in section.sentences]
    rule = HRFlowable(width="100%", thickness=0.6, color=RULE, spaceBefore=2, spaceAfter=3)
    return [
        KeepTogether([Paragraph(_markup(section.heading), _HEADING), rule, *body, Spacer(1, 2)])
    ]


def _markup(text: str) -> str:
    return escape(_known(text))


def _known(text: str) -> str:
    """Return *text* with what the fonts lack as ``[U+4E2D]``."""
    return "".join(
        character if _is_known(character) else f"[U+{ord(character):04X}]" for character in text
    )


def _is_known(character: str) -> bool:
    return bool(character.encode(FONTS_KNOW, "ignore"))


_TABLE: Final = TableStyle(
    [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 4),
        ("TOPPADDING", (0, 0), (-1, -1), 0.8),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 0.8),
    ]
)
