"""The form of a confirmation: one text for one document, read back without loss, drawn as PDF."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pypdf import PdfReader

from tests.trading.confirmations.paper import facts
from trading.confirmations.document import LABEL_WIDTH, TEXT_WIDTH, Document, Row, Section, parse
from trading.confirmations.document import plain as plain_name
from trading.confirmations.errors import NotADocument
from trading.confirmations.pdf import draw
from trading.confirmations.wording import confirm

WORDS = st.text(
    st.characters(exclude_categories=("Z", "C"), exclude_characters="-"), min_size=1, max_size=30
)


def plain(words_max: int) -> st.SearchStrategy[str]:
    return st.lists(WORDS, min_size=1, max_size=words_max).map(" ".join)


LABELS = st.text(
    st.characters(min_codepoint=ord("a"), max_codepoint=ord("z")), min_size=1, max_size=20
)
ROWS = st.builds(Row, LABELS, plain(8))
SECTIONS = st.builds(
    Section,
    plain(3).filter(lambda heading: len(heading) >= 3),
    st.lists(ROWS, max_size=3).map(tuple),
    st.lists(plain(20), min_size=1, max_size=2).map(tuple),
)
DOCUMENTS = st.builds(
    Document, plain(3), plain(3), st.lists(SECTIONS, min_size=1, max_size=3).map(tuple)
)


@given(DOCUMENTS)
@example(Document("T", "S", (Section("Head", (Row("a", "x " * 40 + "y"),), ("one", "two")),)))
def test_what_is_written_is_read_back_without_loss(document: Document) -> None:
    assert parse(document.to_text()) == document


@given(DOCUMENTS)
def test_no_line_is_longer_than_a_mail_bears_unless_one_word_is(document: Document) -> None:
    for line in document.to_text().splitlines():
        words = line[LABEL_WIDTH:].split() if line.startswith(" ") else line.split()
        assert len(line) <= TEXT_WIDTH or len(words) <= 2 or line in _headings(document)


def _headings(document: Document) -> set[str]:
    sections = {section.heading for section in document.sections}
    rules = {"-" * len(heading) for heading in sections}
    return {document.title, document.subtitle} | sections | rules


@pytest.mark.parametrize(
    "text",
    [
        "two  spaces",
        " begins with one",
        "a line\nand another",
        "a tab\tin it",
        "",
        "a --- rule",
        "\u200bhidden",
        "right-to-left \u202e mark",
    ],
)
def test_a_value_that_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(NotADocument):
        Row("label", text)


def test_a_label_that_leaves_no_room_for_its_value_is_refused() -> None:
    Row("x" * (LABEL_WIDTH - 1), "value")
    with pytest.raises(NotADocument):
        Row("x" * LABEL_WIDTH, "value")


def test_a_section_says_something_below_a_heading_that_can_be_seen() -> None:
    with pytest.raises(NotADocument):
        Section("Heading")
    with pytest.raises(NotADocument):
        Section("He", sentences=("something",))


@given(st.text(max_size=60))
@example("North - South --- Desk Ltd")
@example("a\u202e b\tc")
def test_any_name_can_be_made_plain(name: str) -> None:
    made = plain_name(name)

    assert made == plain_name(made)
    if made:
        document = Document("Title", made, (Section("Head", (Row("a", made),)),))
        assert parse(document.to_text()) == document


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: text.replace("10 ETH", "10  ETH", 1),
        lambda text: text.replace("\n\n", "\n\n\n", 1),
        lambda text: text.replace("Parties\n-------", "Parties\n------", 1),
        lambda text: text.rstrip("\n"),
        lambda text: text[:0],
    ],
)
def test_a_text_of_another_form_is_not_guessed_at(change: Callable[[str], str]) -> None:
    text = confirm(facts()).to_text()
    assert parse(text) == confirm(facts())

    with pytest.raises(NotADocument):
        parse(change(text))


def test_the_same_text_is_drawn_as_the_same_bytes_and_another_text_is_not() -> None:
    text = confirm(facts()).to_text()

    assert draw(text) == draw(text)
    assert draw(text) != draw(text.replace("10 ETH", "11 ETH"))


def test_the_pdf_says_every_word_of_the_text_and_its_hash_on_every_page() -> None:
    document = confirm(facts())
    text = document.to_text()

    reader = PdfReader(io.BytesIO(draw(text)))
    pages = [page.extract_text() for page in reader.pages]
    drawn = " ".join(" ".join(pages).split())
    assert [page.count(hashlib.sha256(text.encode()).hexdigest()) for page in pages] == [1]
    assert "page 1 of 1" in pages[0]
    for section in document.sections:
        for words in (section.heading, *section.sentences):
            assert words in drawn
        for row in section.rows:
            assert row.label in drawn
            assert _together(row.value) in _together(drawn)


def test_a_long_document_has_a_foot_on_each_of_its_pages() -> None:
    rows = tuple(Row(f"label {number}", "value") for number in range(20))
    text = Document("T", "S", tuple(Section(f"Head {n}", rows) for n in range(6))).to_text()

    pages = [page.extract_text() for page in PdfReader(io.BytesIO(draw(text))).pages]

    assert len(pages) > 1
    for number, page in enumerate(pages, start=1):
        assert f"page {number} of {len(pages)}" in page
        assert hashlib.sha256(text.encode()).hexdigest() in page


def test_a_character_that_the_fonts_lack_is_drawn_as_its_number_and_markup_as_itself() -> None:
    text = Document("T", "S", (Section("Head", (Row("name", "東 é <b>&amp;"),)),)).to_text()

    (page,) = PdfReader(io.BytesIO(draw(text))).pages

    assert "[U+6771] é <b>&amp;" in page.extract_text()


def _together(text: str) -> str:
    return "".join(text.split())
