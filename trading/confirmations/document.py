"""The form of a confirmation: sections of labelled values and sentences, as text and back. Pure.

The text is what is hashed, affirmed and kept. It reads well in a mail and has one form for one
document, so that the PDF can be drawn from it and from nothing else (`parse`)::

    TITLE
    Subtitle

    Heading
    -------
      Label                   value, broken at spaces,
                              and continued below itself

    A sentence, broken at spaces, and continued
    at the margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trading.confirmations.errors import NotADocument

TEXT_WIDTH: Final = 90
"""Characters in a line; a word that is longer stands alone. 64 digits of a hash fit beside a label."""

INDENT: Final = 2
LABEL_WIDTH: Final = 24
RULE_MIN: Final = 3
"""Dashes that make a rule; a dash or two may stand between words."""

_BLANK: Final = " " * (INDENT + LABEL_WIDTH)


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled value."""

    label: str
    value: str

    def __post_init__(self) -> None:
        _require_plain(self.label)
        _require_plain(self.value)
        if len(self.label) >= LABEL_WIDTH:
            raise NotADocument(f"the label {self.label!r} has {LABEL_WIDTH} characters or more")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, what is labelled below it, and sentences after that."""

    heading: str
    rows: tuple[Row, ...] = ()
    sentences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_plain(self.heading)
        if len(self.heading) < RULE_MIN:
            raise NotADocument(f"the heading {self.heading!r} is too short to be seen as one")
        for sentence in self.sentences:
            _require_plain(sentence)
        if not self.rows and not self.sentences:
            raise NotADocument(f"nothing stands below {self.heading!r}")


@dataclass(frozen=True, slots=True)
class Document:
    """A confirmation before it is text: what it is called, between whom, and its sections."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        _require_plain(self.title)
        _require_plain(self.subtitle)

    def to_text(self) -> str:
        """Return the text, which ends in a line feed."""
        lines = [self.title, self.subtitle]
        for section in self.sections:
            lines += ["", section.heading, "-" * len(section.heading)]
            for row in section.rows:
                lines += _row_lines(row)
            for index, sentence in enumerate(section.sentences):
                lines += [""] if index or section.rows else []
                lines += _broken(sentence, TEXT_WIDTH)
        return "\n".join(lines) + "\n"


def parse(text: str) -> Document:
    """Return the document that `Document.to_text` wrote.

    Raises:
        NotADocument: it is not of that form; nothing is guessed.
    """
    lines = text.split("\n")
    marks = [index - 1 for index, line in enumerate(lines) if _is_rule(line)]
    if not marks or len(lines) < 3:
        raise NotADocument("a confirmation has a title, a subtitle and sections")
    ends = [*marks[1:], len(lines)]
    document = Document(
        lines[0],
        lines[1],
        tuple(
            _section(lines[start], lines[start + 2 : end - 1])
            for start, end in zip(marks, ends, strict=True)
        ),
    )
    if document.to_text() != text:
        raise NotADocument("the text is not in the form that confirmations are written in")
    return document


def _section(heading: str, lines: list[str]) -> Section:
    rows: list[tuple[str, list[str]]] = []
    sentences: list[list[str]] = []
    open_sentence = False
    for line in lines:
        if line.startswith(_BLANK) and rows:
            rows[-1][1].append(line.strip())
        elif line.startswith(" " * INDENT):
            rows.append((line[: len(_BLANK)].strip(), [line[len(_BLANK) :].strip()]))
        elif line and open_sentence:
            sentences[-1].append(line)
        elif line:
            sentences.append([line])
        open_sentence = bool(line) and not line.startswith(" ")
    return Section(
        heading,
        tuple(Row(label, " ".join(parts)) for label, parts in rows),
        tuple(" ".join(parts) for parts in sentences),
    )


def _row_lines(row: Row) -> list[str]:
    first, *rest = _broken(row.value, TEXT_WIDTH - len(_BLANK))
    label = (" " * INDENT + row.label).ljust(len(_BLANK))
    return [label + first, *(_BLANK + line for line in rest)]


def _broken(text: str, width: int) -> list[str]:
    """Break *text* at its spaces into lines of at most *width*; longer words stand alone."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _is_rule(line: str) -> bool:
    return len(line) >= RULE_MIN and not line.strip("-")


def plain(text: str) -> str:
    """Return somebody's name as a document can have it: single spaces, nothing hidden, no rules."""
    words = "".join(c if c.isprintable() else " " for c in text).split()
    return " ".join("-" if _is_rule(word) else word for word in words)


def _require_plain(text: str) -> None:
    """Refuse what could not be read back: control characters, odd spaces, a line of dashes."""
    if not text or text != " ".join(text.split()) or not text.isprintable():
        raise NotADocument(f"{text!r} is not plain text with single spaces")
    if any(_is_rule(word) for word in text.split(" ")):
        raise NotADocument(f"{text!r} has a word of dashes, which is a rule")
