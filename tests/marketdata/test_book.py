"""The level-2 book: stitching by Binance's rule, gaps, crossed books, against a plain model."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.book import WAITING_MAX, BookOutcome, L2Book
from marketdata.model import BookDelta, BookView, Level

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def levels(*pairs: tuple[int, int]) -> tuple[Level, ...]:
    return tuple(Level(ticks, units) for ticks, units in pairs)


def delta(
    first: int,
    last: int,
    bids: tuple[tuple[int, int], ...] = (),
    asks: tuple[tuple[int, int], ...] = (),
) -> BookDelta:
    return BookDelta(first=first, last=last, bids=levels(*bids), asks=levels(*asks))


def live_book(sequence: int = 100) -> L2Book:
    book = L2Book("sim", "ETHUSDT")
    assert book.snapshot(sequence, levels((99, 5), (98, 7)), levels((101, 4), (102, 6))) is (
        BookOutcome.APPLIED
    )
    return book


def view(book: L2Book) -> BookView:
    found = book.view(NOW)
    assert found is not None
    return found


def test_a_delta_changes_adds_and_removes_levels() -> None:
    book = live_book()

    outcome = book.apply(delta(101, 103, bids=((99, 0), (97, 1), (98, 9)), asks=((100, 2),)))

    assert outcome is BookOutcome.APPLIED
    assert view(book).bids == levels((98, 9), (97, 1))
    assert view(book).asks == levels((100, 2), (101, 4), (102, 6))
    assert view(book).sequence == 103


def test_removing_an_unknown_level_changes_nothing() -> None:
    book = live_book()
    before = view(book).bids

    book.apply(delta(101, 101, bids=((50, 0),)))

    assert view(book).bids == before


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (90, 100, BookOutcome.OLD),
        (90, 101, BookOutcome.APPLIED),
        (101, 101, BookOutcome.APPLIED),
        (101, 110, BookOutcome.APPLIED),
        (102, 110, BookOutcome.GAP),
    ],
)
def test_the_first_delta_after_a_snapshot_must_span_the_next_update(
    first: int, last: int, expected: BookOutcome
) -> None:
    assert live_book(100).apply(delta(first, last)) is expected


@pytest.mark.parametrize("first", [100, 103, 200])
def test_a_later_delta_must_begin_right_after_the_last_one(first: int) -> None:
    book = live_book(100)
    book.apply(delta(101, 101))

    assert book.apply(delta(first, first + 5)) is BookOutcome.GAP
    assert book.view(NOW) is None


def test_deltas_that_came_before_the_snapshot_are_applied_after_it() -> None:
    book = L2Book("sim", "ETHUSDT")
    kept = [book.apply(delta(n, n, bids=((90, n),))) for n in (99, 100, 101, 102)]

    book.snapshot(100, levels((90, 1)), levels((101, 1)))

    assert kept == [BookOutcome.KEPT] * 4
    assert view(book).sequence == 102
    assert view(book).bids == levels((90, 102))


def test_a_snapshot_older_than_the_first_kept_delta_is_a_gap_and_the_next_one_heals_it() -> None:
    book = L2Book("sim", "ETHUSDT")
    for n in (105, 106):
        book.apply(delta(n, n, bids=((90, n),)))

    assert book.snapshot(100, levels((90, 1)), levels((101, 1))) is BookOutcome.GAP
    assert not book.is_live
    assert book.snapshot(104, levels((90, 1)), levels((101, 1))) is BookOutcome.APPLIED
    assert view(book).bids == levels((90, 106))


def test_after_a_gap_deltas_wait_for_the_next_snapshot() -> None:
    book = live_book(100)
    book.apply(delta(105, 105, bids=((98, 1),)))
    book.apply(delta(106, 106, bids=((98, 2),)))

    book.snapshot(104, levels((98, 7)), levels((101, 4)))

    assert view(book).bids == levels((98, 2))


def test_a_crossed_book_is_unusable_until_a_new_snapshot() -> None:
    book = live_book()

    assert book.apply(delta(101, 101, bids=((101, 1),))) is BookOutcome.CROSSED
    assert book.view(NOW) is None
    assert book.snapshot(200, levels((101, 1)), levels((102, 6))) is BookOutcome.APPLIED


def test_a_crossed_snapshot_is_refused() -> None:
    book = L2Book("sim", "ETHUSDT")

    assert book.snapshot(1, levels((101, 1)), levels((101, 1))) is BookOutcome.CROSSED
    assert not book.is_live


@pytest.mark.parametrize("bad", [(0, 1), (-3, 1), (99, -1)])
def test_a_level_that_cannot_be_spoils_the_book(bad: tuple[int, int]) -> None:
    book = live_book()

    assert book.apply(delta(101, 101, bids=(bad,))) is BookOutcome.MALFORMED
    assert book.view(NOW) is None


def test_a_snapshot_that_never_comes_does_not_fill_the_memory() -> None:
    book = L2Book("sim", "ETHUSDT")

    outcomes = [book.apply(delta(n, n)) for n in range(WAITING_MAX + 1)]

    assert outcomes[-1] is BookOutcome.GAP
    assert book.apply(delta(9, 9)) is BookOutcome.KEPT


def test_reset_forgets_the_book_and_what_waited() -> None:
    book = live_book()
    book.reset()

    assert book.view(NOW) is None
    assert book.snapshot(1, (), ()) is BookOutcome.APPLIED


bid_changes = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 5)), max_size=6)
ask_changes = st.lists(st.tuples(st.integers(51, 100), st.integers(0, 5)), max_size=6)


@given(
    frames=st.lists(st.tuples(bid_changes, ask_changes), max_size=12),
    snapshot_after=st.integers(0, 12),
)
def test_whenever_the_snapshot_comes_the_book_equals_a_plain_model(
    frames: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]], snapshot_after: int
) -> None:
    """The snapshot holds the first `snapshot_after` frames and arrives after all were sent."""
    book = L2Book("sim", "ETHUSDT")
    early: tuple[dict[int, int], dict[int, int]] = ({}, {})
    whole: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for number, (bids, asks) in enumerate(frames, start=1):
        book.apply(delta(number, number, tuple(bids), tuple(asks)))
        for side, changes in zip(whole, (bids, asks), strict=True):
            _change(side, changes)
        if number <= snapshot_after:
            for side, changes in zip(early, (bids, asks), strict=True):
                _change(side, changes)

    book.snapshot(min(snapshot_after, len(frames)), *(levels(*side.items()) for side in early))

    assert {level.ticks: level.units for level in view(book).bids} == whole[0]
    assert {level.ticks: level.units for level in view(book).asks} == whole[1]
    assert [x.ticks for x in view(book).bids] == sorted(whole[0], reverse=True)
    assert [x.ticks for x in view(book).asks] == sorted(whole[1])


def _change(side: dict[int, int], changes: list[tuple[int, int]]) -> None:
    for ticks, units in changes:
        if units:
            side[ticks] = units
        else:
            side.pop(ticks, None)
