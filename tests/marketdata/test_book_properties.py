"""The book against a naive one, which sorts two dicts and remembers every update id.

Whatever is sent, in whatever order and however broken, either both books are the same or ours shows
nothing. It never shows anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.book import UNITS_END, BookOutcome, L2Book, StitchRule
from marketdata.checksum import kraken_checksum
from marketdata.events import Rows

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
CHECKSUM = kraken_checksum(price_step=1)


@dataclass(frozen=True)
class Update:
    """What the venue says of one change of its book."""

    first: int
    last: int
    bids: Rows
    asks: Rows


@dataclass
class Venue:
    """The truth: a venue's book after each of its updates."""

    depth: int | None = None
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)
    states: list[tuple[Rows, Rows]] = field(default_factory=lambda: [((), ())])

    def change(self, bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]) -> Update:
        """Make a change, and say it."""
        for side, rows in ((self.bids, bids), (self.asks, asks)):
            for ticks, units in rows:
                if units:
                    side[ticks] = units
                else:
                    side.pop(ticks, None)
        self.bids = dict(sorted(self.bids.items(), reverse=True)[: self.depth])
        self.asks = dict(sorted(self.asks.items())[: self.depth])
        self.states.append((tuple(self.bids.items()), tuple(self.asks.items())))
        number = len(self.states) - 1
        return Update(number, number, tuple(bids), tuple(asks))


def shown(book: L2Book) -> tuple[Rows, Rows] | None:
    view = book.view(NOW, 10**6)
    if view is None:
        return None
    bids, asks = (tuple((x.ticks, x.units) for x in side) for side in (view.bids, view.asks))
    return bids, asks


bid_rows = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 5)), max_size=6)
ask_rows = st.lists(st.tuples(st.integers(51, 100), st.integers(0, 5)), max_size=6)
changes = st.lists(st.tuples(bid_rows, ask_rows), min_size=1, max_size=20)


@given(
    changes=changes,
    order=st.lists(st.integers(0, 19), max_size=40),
    snapshots=st.dictionaries(st.integers(0, 40), st.integers(0, 20), max_size=4),
)
def test_of_lost_repeated_and_reordered_updates_no_wrong_book_is_ever_made(
    changes: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]],
    order: list[int],
    snapshots: dict[int, int],
) -> None:
    """Updates come in any order, with snapshots of any moment among them."""
    venue = Venue()
    updates = [venue.change(*change) for change in changes]
    book = L2Book("sim", "ETHUSDT")
    for at, pick in enumerate(order):
        if at in snapshots:
            sequence = snapshots[at] % len(venue.states)
            book.snapshot(sequence, *venue.states[sequence])
        update = updates[pick % len(updates)]
        outcome = book.apply(update.first, update.last, update.bids, update.asks)

        if book.sequence is None:
            assert shown(book) is None
            assert outcome.is_fault or outcome is BookOutcome.KEPT
        else:
            assert shown(book) == venue.states[book.sequence]


@given(changes=changes, snapshot_at=st.integers(0, 20), joined=st.integers(1, 4))
def test_whenever_the_snapshot_comes_the_book_ends_as_the_venues(
    changes: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]],
    snapshot_at: int,
    joined: int,
) -> None:
    """Updates are sent several together; the snapshot holds some of them and comes after all."""
    venue = Venue()
    updates = [venue.change(*change) for change in changes]
    book = L2Book("sim", "ETHUSDT")
    for begin in range(0, len(updates), joined):
        part = updates[begin : begin + joined]
        book.apply(
            part[0].first,
            part[-1].last,
            tuple(row for update in part for row in update.bids),
            tuple(row for update in part for row in update.asks),
        )
    sequence = min(snapshot_at, len(updates))

    outcome = book.snapshot(sequence, *venue.states[sequence])

    assert outcome is BookOutcome.APPLIED
    assert shown(book) == venue.states[-1]


@given(changes=changes, depth=st.integers(1, 12), lost=st.integers(0, 40))
def test_a_book_with_checksums_is_the_venues_or_empty(
    changes: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]], depth: int, lost: int
) -> None:
    """Nothing is numbered; one update may be lost, and only the checksum can tell."""
    venue = Venue(depth)
    book = L2Book("sim", "ETH/USD", StitchRule.SNAPSHOT_DELTA, depth=depth, checksum=CHECKSUM)
    book.snapshot(1, (), ())
    for number, change in enumerate(changes):
        update = venue.change(*change)
        if number == lost:
            continue
        truth = venue.states[-1]
        best = tuple(side[:10] for side in truth)
        book.apply(0, 0, update.bids, update.asks, CHECKSUM(*best))

        found = shown(book)
        if found is not None:
            assert tuple(side[:10] for side in found) == best
        if lost > number:
            assert found == truth


BROKEN_ROWS = [
    (0, 1),
    (-3, 1),
    (0, 0),
    (-1, 0),
    (60, -1),
    (60, UNITS_END),
]


@pytest.mark.parametrize("broken", BROKEN_ROWS)
@pytest.mark.parametrize("side", ["bids", "asks"])
@pytest.mark.parametrize("sent_as", ["snapshot", "update"])
def test_a_row_that_cannot_be_empties_the_book(
    broken: tuple[int, int], side: str, sent_as: str
) -> None:
    book = L2Book("sim", "ETHUSDT")
    book.snapshot(1, ((50, 1),), ((70, 1),))
    rows = ((40, 1), broken) if side == "bids" else ((80, 1), broken)
    bids, asks = (rows, ()) if side == "bids" else ((), rows)

    outcome = (
        book.snapshot(2, bids, asks) if sent_as == "snapshot" else book.apply(2, 2, bids, asks)
    )

    assert outcome is BookOutcome.MALFORMED
    assert shown(book) is None
    assert book.top is None
