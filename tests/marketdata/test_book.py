"""The level-2 book: stitching by Binance's rule, gaps, crossed and broken books."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from marketdata.book import LEVELS_MAX, OLD_RUN_MAX, WAITING_MAX, BookOutcome, L2Book, StitchRule
from marketdata.events import Rows
from marketdata.model import BookView, Level, TopOfBook

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def levels(*pairs: tuple[int, int]) -> tuple[Level, ...]:
    return tuple(Level(ticks, units) for ticks, units in pairs)


def rows(*pairs: tuple[int, int]) -> Rows:
    return pairs


def delta(first: int, last: int, bids: Rows = (), asks: Rows = ()) -> tuple[int, int, Rows, Rows]:
    return first, last, bids, asks


def live_book(sequence: int = 100) -> L2Book:
    book = L2Book("sim", "ETHUSDT")
    assert book.snapshot(sequence, rows((99, 5), (98, 7)), rows((101, 4), (102, 6))) is (
        BookOutcome.APPLIED
    )
    return book


def view(book: L2Book) -> BookView:
    found = book.view(NOW)
    assert found is not None
    return found


def test_a_delta_changes_adds_and_removes_levels() -> None:
    book = live_book()

    outcome = book.apply(*delta(101, 103, bids=((99, 0), (97, 1), (98, 9)), asks=((100, 2),)))

    assert outcome is BookOutcome.APPLIED
    assert view(book).bids == levels((98, 9), (97, 1))
    assert view(book).asks == levels((100, 2), (101, 4), (102, 6))
    assert view(book).sequence == 103


def test_removing_an_unknown_level_changes_nothing() -> None:
    book = live_book()
    before = view(book).bids

    book.apply(*delta(101, 101, bids=((50, 0),)))

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
    assert live_book(100).apply(*delta(first, last)) is expected


@pytest.mark.parametrize("first", [100, 103, 200])
def test_a_later_delta_must_begin_right_after_the_last_one(first: int) -> None:
    book = live_book(100)
    book.apply(*delta(101, 101))

    assert book.apply(*delta(first, first + 5)) is BookOutcome.GAP
    assert book.view(NOW) is None


def test_deltas_that_came_before_the_snapshot_are_applied_after_it() -> None:
    book = L2Book("sim", "ETHUSDT")
    kept = [book.apply(*delta(n, n, bids=((90, n),))) for n in (99, 100, 101, 102)]

    book.snapshot(100, rows((90, 1)), rows((101, 1)))

    assert kept == [BookOutcome.KEPT] * 4
    assert view(book).sequence == 102
    assert view(book).bids == levels((90, 102))


def test_a_snapshot_older_than_the_first_kept_delta_is_a_gap_and_the_next_one_heals_it() -> None:
    book = L2Book("sim", "ETHUSDT")
    for n in (105, 106):
        book.apply(*delta(n, n, bids=((90, n),)))

    assert book.snapshot(100, rows((90, 1)), rows((101, 1))) is BookOutcome.GAP
    assert not book.is_live
    assert book.snapshot(104, rows((90, 1)), rows((101, 1))) is BookOutcome.APPLIED
    assert view(book).bids == levels((90, 106))


def test_after_a_gap_deltas_wait_for_the_next_snapshot() -> None:
    book = live_book(100)
    book.apply(*delta(105, 105, bids=((98, 1),)))
    book.apply(*delta(106, 106, bids=((98, 2),)))

    book.snapshot(104, rows((98, 7)), rows((101, 4)))

    assert view(book).bids == levels((98, 2))


def test_a_crossed_book_is_unusable_until_a_new_snapshot() -> None:
    book = live_book()

    assert book.apply(*delta(101, 101, bids=((101, 1),))) is BookOutcome.CROSSED
    assert book.view(NOW) is None
    assert book.snapshot(200, rows((101, 1)), rows((102, 6))) is BookOutcome.APPLIED


def test_a_crossed_snapshot_is_refused() -> None:
    book = L2Book("sim", "ETHUSDT")

    assert book.snapshot(1, rows((101, 1)), rows((101, 1))) is BookOutcome.CROSSED
    assert not book.is_live


@pytest.mark.parametrize("bad", [(0, 1), (-3, 1), (99, -1)])
def test_a_level_that_cannot_be_spoils_the_book(bad: tuple[int, int]) -> None:
    book = live_book()

    assert book.apply(*delta(101, 101, bids=(bad,))) is BookOutcome.MALFORMED
    assert book.view(NOW) is None


def test_a_snapshot_that_never_comes_does_not_fill_the_memory() -> None:
    book = L2Book("sim", "ETHUSDT")

    outcomes = [book.apply(*delta(n, n)) for n in range(WAITING_MAX + 1)]

    assert outcomes[-1] is BookOutcome.OVERFULL
    assert book.apply(*delta(9, 9)) is BookOutcome.KEPT


def test_reset_forgets_the_book_and_what_waited() -> None:
    book = live_book()
    book.reset()

    assert book.view(NOW) is None
    assert book.snapshot(1, (), ()) is BookOutcome.APPLIED


def test_the_top_of_a_book_is_the_best_level_of_both_sides() -> None:
    book = live_book(100)

    assert book.top == TopOfBook(bid=Level(99, 5), ask=Level(101, 4), sequence=100)
    book.apply(*delta(101, 101, bids=((99, 0), (98, 0))))
    assert book.is_live
    assert book.top is None


def test_a_view_has_no_more_levels_than_asked_for_and_is_never_changed() -> None:
    book = live_book(100)
    seen = book.view(NOW, levels_max=1)
    book.apply(*delta(101, 101, bids=((99, 8),)))

    assert seen is not None
    assert (seen.bids, seen.asks) == (levels((99, 5)), levels((101, 4)))


def test_of_a_level_named_twice_in_an_update_the_last_row_counts() -> None:
    book = live_book()

    book.apply(*delta(101, 101, bids=((97, 3), (97, 0), (97, 4), (99, 0), (99, 1), (98, 0))))

    assert view(book).bids == levels((99, 1), (97, 4))


def test_an_update_that_ends_before_it_begins_spoils_the_book() -> None:
    book = live_book(100)

    assert book.apply(*delta(101, 99)) is BookOutcome.MALFORMED
    assert not book.is_live


def test_repeated_updates_are_dropped_but_a_venue_that_counts_anew_is_noticed() -> None:
    book = live_book(100)
    book.apply(*delta(101, 110))

    repeated = [book.apply(*delta(105, 106)) for _ in range(OLD_RUN_MAX)]
    book.apply(*delta(111, 111))
    outcomes = [book.apply(*delta(n, n, bids=((98, n),))) for n in range(1, OLD_RUN_MAX + 2)]

    assert set(repeated) == {BookOutcome.OLD}
    assert outcomes == [BookOutcome.OLD] * OLD_RUN_MAX + [BookOutcome.RESTARTED]
    assert not book.is_live


def test_a_snapshot_may_be_newer_than_many_updates_that_are_on_their_way() -> None:
    book = live_book(100)

    outcomes = {book.apply(*delta(n, n)) for n in range(1, 101)}

    assert outcomes == {BookOutcome.OLD}
    assert book.apply(*delta(101, 101)) is BookOutcome.APPLIED


def test_a_side_with_more_levels_than_there_can_be_spoils_the_book() -> None:
    book = L2Book("sim", "ETHUSDT")
    many = tuple((10**6 - n, 1) for n in range(LEVELS_MAX))

    assert book.snapshot(1, many, ()) is BookOutcome.APPLIED
    assert book.apply(*delta(2, 2, bids=((1, 1),))) is BookOutcome.OVERFULL
    assert not book.is_live


def test_what_lies_beyond_a_cut_snapshot_is_not_shown() -> None:
    """The venue has more levels than it gave: of those beyond, only the changed ones are known."""
    book = L2Book("sim", "ETHUSDT")
    book.snapshot(100, rows((99, 5), (98, 7)), rows((101, 4), (102, 6)), is_whole=False)

    book.apply(*delta(101, 101, bids=((90, 3),), asks=((110, 3),)))

    assert view(book).bids == levels((99, 5), (98, 7))
    assert view(book).asks == levels((101, 4), (102, 6))


@pytest.mark.parametrize(
    ("bids", "asks"),
    [
        (((99, 0), (98, 0)), ()),
        ((), ((101, 0), (102, 0), (105, 1))),
        (((98, 0), (99, 0), (97, 1)), ()),
    ],
)
def test_a_book_that_has_used_up_its_snapshot_needs_another(bids: Rows, asks: Rows) -> None:
    book = L2Book("sim", "ETHUSDT")
    book.snapshot(100, rows((99, 5), (98, 7)), rows((101, 4), (102, 6)), is_whole=False)

    assert book.apply(*delta(101, 101, bids=bids, asks=asks)) is BookOutcome.EXHAUSTED
    assert book.view(NOW) is None
    assert book.apply(*delta(102, 102)) is BookOutcome.KEPT


def test_a_stream_that_begins_with_its_snapshot_has_nothing_to_wait_for() -> None:
    book = L2Book("sim", "ETH/USD", StitchRule.SNAPSHOT_DELTA)

    before = book.apply(*delta(7, 7))
    book.snapshot(10, rows((99, 5)), rows((101, 4)))
    outcomes = [book.apply(*delta(n, n)) for n in (11, 12, 14)]

    assert before is BookOutcome.GAP
    assert outcomes == [BookOutcome.APPLIED, BookOutcome.APPLIED, BookOutcome.GAP]
    assert book.apply(*delta(15, 15)) is BookOutcome.GAP


def test_updates_without_numbers_are_counted_from_the_snapshot() -> None:
    book = L2Book("sim", "ETH/USD", StitchRule.SNAPSHOT_DELTA)
    book.snapshot(1, rows((99, 5)), rows((101, 4)))

    book.apply(*delta(0, 0, bids=((98, 1),)))
    book.apply(*delta(0, 0, bids=((97, 1),)))

    assert book.sequence == 3


def test_levels_that_fall_out_of_the_subscribed_depth_are_forgotten() -> None:
    book = L2Book("sim", "ETH/USD", StitchRule.SNAPSHOT_DELTA, depth=2)
    book.snapshot(1, rows((99, 5), (98, 7)), rows((101, 4), (102, 6)))

    book.apply(*delta(0, 0, bids=((97, 1), (100, 1))))
    book.apply(*delta(0, 0, bids=((100, 0),)))

    assert view(book).bids == levels((99, 5))


def test_every_fault_has_the_reason_of_a_gap_and_nothing_else_has() -> None:
    fine = {BookOutcome.APPLIED, BookOutcome.KEPT, BookOutcome.OLD}

    assert {outcome for outcome in BookOutcome if not outcome.is_fault} == fine
    assert {outcome for outcome in BookOutcome if outcome.gap_reason is None} == fine
