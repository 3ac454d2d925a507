"""Books merged level by level say what the whole joint book says, to the same integers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.money import Asset, Price
from marketdata.consolidated import VenueBook, consolidate, sweep_joint
from marketdata.fees import VenueFee
from marketdata.freshness import Freshness
from marketdata.merged import ROWS_FIRST, ROWS_MAX, MergedBooks, MergedLevel, MergedSweep
from marketdata.model import BookView, Instrument, Level
from marketdata.testing import ETH, USDT, book_view, eth_usdt
from matching.model import Side

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ONE = 10**18
FINE = eth_usdt("fine")
COARSE = replace(
    eth_usdt("coarse"), price_scale=1, tick=5, base=Asset("ETH", 8), quote=Asset("USDT", 8), lot=1
)
BOTH_SIDES = (Side.BUY, Side.SELL)


def merged(*books: VenueBook) -> MergedBooks:
    return MergedBooks(ETH, USDT, books, now=NOW, age_max=SECOND)


def book(
    instrument: Instrument,
    bids: list[tuple[str, str]],
    asks: list[tuple[str, str]],
    *,
    at: datetime = NOW,
    fee_ppm: int = 0,
) -> VenueBook:
    view = book_view(bids, asks, at=at, instrument=instrument)
    return VenueBook(instrument, view, VenueFee(fee_ppm))


def test_levels_come_best_first_and_equal_prices_in_the_order_of_the_books() -> None:
    books = merged(
        book(FINE, [("100.00", "1"), ("99.99", "2")], [("100.50", "1")]),
        book(COARSE, [("100.0", "3"), ("99.5", "1")], [("100.5", "0.5"), ("101.0", "2")]),
    )

    bids = list(books.levels(Side.SELL, after_fees=False))
    asks = list(books.levels(Side.BUY, after_fees=False))

    assert [(row.steps, row.book, row.ticks) for row in bids] == [
        (10_000, 0, 10_000),
        (10_000, 1, 200),
        (9_999, 0, 9_999),
        (9_950, 1, 199),
    ]
    assert [(row.units, row.book) for row in asks] == [(ONE, 0), (ONE // 2, 1), (2 * ONE, 1)]
    assert books.names == ("fine:ETHUSDT", "coarse:ETHUSDT")


def test_a_venue_that_is_dearer_after_fees_comes_later() -> None:
    books = merged(
        book(FINE, [], [("100.10", "1")], fee_ppm=0),
        book(COARSE, [], [("100", "1")], fee_ppm=2_000),
    )

    before = [row.book for row in books.levels(Side.BUY, after_fees=False)]
    after = list(books.levels(Side.BUY))

    assert (before, [row.book for row in after]) == ([1, 0], [0, 1])
    assert books.price(after[1].steps) == Price.parse("100.2", ETH, USDT)
    assert books.price(10_010, after_fees=False) == Price.parse("100.1", ETH, USDT)


def test_a_venue_that_cannot_be_trusted_shows_nothing_and_is_named() -> None:
    books = merged(
        book(FINE, [("100", "1")], [("101", "1")]),
        VenueBook(COARSE, None),
        book(replace(FINE, venue="late"), [("105", "9")], [("106", "9")], at=NOW - 2 * SECOND),
        book(replace(FINE, venue="crossed"), [("105", "9")], [("105", "9")]),
    )

    assert books.evicted == {
        "coarse:ETHUSDT": Freshness.MISSING,
        "late:ETHUSDT": Freshness.STALE,
        "crossed:ETHUSDT": Freshness.CROSSED,
    }
    assert books.names == ("fine:ETHUSDT",)
    assert {row.book for side in BOTH_SIDES for row in books.levels(side)} == {0}


def test_the_middle_is_of_the_best_prices_of_all_venues_before_fees() -> None:
    books = merged(
        book(FINE, [("99.98", "1")], [("100.03", "1")], fee_ppm=5_000),
        book(COARSE, [("99.5", "1")], [("100.0", "1")], fee_ppm=5_000),
    )

    assert books.mid_price() == Price.parse("99.99", ETH, USDT)
    assert merged(book(FINE, [("100", "1")], [])).mid_price() is None


def test_an_average_is_exact_and_stops_at_the_limit_and_at_the_end() -> None:
    books = merged(book(FINE, [], [("100", "1"), ("101", "5")]), book(COARSE, [], [("100.5", "2")]))

    swept = books.average(Side.BUY, 4 * ONE, after_fees=False)
    capped = books.average(Side.BUY, 4 * ONE, after_fees=False, limit_steps=10_050)
    all_of_it = books.average(Side.BUY, 100 * ONE, after_fees=False)

    assert books.average_price(swept) == Price.parse("100.5", ETH, USDT)
    assert (swept.by_venue, swept.worst_steps) == ({"fine": 2 * ONE, "coarse": 2 * ONE}, 10_100)
    assert (capped.units, capped.worst_steps) == (3 * ONE, 10_050)
    assert all_of_it.units == 8 * ONE
    nothing = books.average(Side.SELL, ONE)
    assert (nothing.units, nothing.worst_steps) == (0, None)
    assert books.average_price(nothing) is None


def test_a_fee_is_in_the_average() -> None:
    books = merged(book(FINE, [("100", "4")], [("100.5", "4")], fee_ppm=1_000))

    sold, bought = books.average(Side.SELL, ONE), books.average(Side.BUY, ONE)

    assert books.average_price(sold) == Price.parse("99.9", ETH, USDT)
    assert books.average_price(bought) == Price.parse("100.6005", ETH, USDT)


def test_a_few_levels_are_had_without_reading_the_books_to_their_end() -> None:
    read = 0

    class Counted(tuple[Level, ...]):
        __slots__ = ()

        def __getitem__(self, key: Any) -> Any:
            nonlocal read
            found = tuple.__getitem__(self, key)
            read += len(found) if isinstance(key, slice) else 1
            return found

        def __iter__(self) -> Iterator[Level]:
            raise AssertionError("a side is read whole")

    view = BookView(
        venue=FINE.venue,
        symbol=FINE.symbol,
        sequence=1,
        received_at=NOW,
        bids=(),
        asks=Counted(Level(10_000 + number, ONE) for number in range(1_000)),
    )
    books = merged(VenueBook(FINE, view))

    found = list(islice(books.levels(Side.BUY), 3))

    assert [row.ticks for row in found] == [10_000, 10_001, 10_002]
    assert 0 < read <= 2 * ROWS_FIRST


MANY = 3 * ROWS_MAX


def long_books() -> MergedBooks:
    """Four books of different depth, density and fee; what rests at a level differs, too."""
    return merged(
        *(
            VenueBook(
                grid := replace(FINE, venue=f"v{number}"),
                BookView(
                    venue=grid.venue,
                    symbol=grid.symbol,
                    sequence=1,
                    received_at=NOW,
                    bids=tuple(Level(20_000 - n * every, 1 + n % 7) for n in range(count)),
                    asks=tuple(Level(20_001 + n * every, 1 + n % 5) for n in range(count)),
                ),
                VenueFee(fee),
            )
            for number, (every, count, fee) in enumerate(
                [(1, MANY, 0), (2, MANY, -500), (3, 40, 0), (1, 1, 2_000)]
            )
        )
    )


def test_long_books_are_in_one_order_however_differently_deep_they_are() -> None:
    books = long_books()

    asks, bids = list(books.levels(Side.BUY)), list(books.levels(Side.SELL))

    assert len(asks) == len(bids) == 2 * MANY + 41
    assert asks == sorted(asks, key=lambda row: (row.steps, row.book))
    assert bids == sorted(bids, key=lambda row: (-row.steps, row.book))


@pytest.mark.parametrize("side", BOTH_SIDES)
def test_what_is_added_up_by_blocks_is_what_a_walk_level_by_level_finds(side: Side) -> None:
    books = long_books()
    levels = list(books.levels(side))
    whole = sum(row.units for row in levels)
    limit = levels[len(levels) // 3].steps

    for parts in (0, 1, 7, 63, 64, 65, 500, 2_000, 9_999, 10_000, 10_001):
        units = whole * parts // 10_000
        assert found(books.average(side, units)) == walked(levels, units)
        within = [row for row in levels if (row.steps - limit) * (levels[0].steps - limit) >= 0]
        capped = books.average(side, units, limit_steps=limit)
        assert found(capped) == walked(within, units)


@pytest.mark.parametrize("side", BOTH_SIDES)
def test_an_amount_of_money_is_reached_with_the_last_unit_and_not_before(side: Side) -> None:
    books = long_books()
    levels = list(books.levels(side))
    whole = sum(row.units * row.steps for row in levels)

    for parts in (0, 1, 64, 500, 2_000, 9_999, 10_000):
        cost = whole * parts // 10_000
        swept = books.average_worth(side, cost)
        assert found(swept) == walked(levels, swept.units)
        assert swept.cost >= cost
        assert swept.worst_steps is None or swept.cost - swept.worst_steps < cost
    short = books.average_worth(side, whole + 1)
    assert (short.cost, short.units) == (whole, sum(row.units for row in levels))


def found(swept: MergedSweep) -> tuple[int, int, int | None, list[tuple[str, int]]]:
    return swept.units, swept.cost, swept.worst_steps, list(swept.by_venue.items())


def walked(
    levels: list[MergedLevel], units: int
) -> tuple[int, int, int | None, list[tuple[str, int]]]:
    left, cost, worst, by_venue = units, 0, None, dict[str, int]()
    for row in levels:
        if not left:
            break
        part = min(row.units, left)
        left, cost, worst = left - part, cost + part * row.steps, row.steps
        by_venue[f"v{row.book}"] = by_venue.get(f"v{row.book}", 0) + part
    return units - left, cost, worst, list(by_venue.items())


def test_other_pairs_and_the_same_book_twice_are_refused() -> None:
    item = book(FINE, [("100", "1")], [("101", "1")])

    with pytest.raises(BadInput):
        merged(item, item)
    with pytest.raises(BadInput, match="USDT, not ETH/USD"):
        MergedBooks(ETH, Asset("USD", 6), [item], now=NOW, age_max=SECOND)


rows = st.dictionaries(st.integers(1, 60), st.integers(1, 5), max_size=8)
venues_of_all_kinds = st.lists(
    st.tuples(rows, rows, st.integers(-500, 3_000), st.integers(0, 2)), min_size=1, max_size=5
)


def venue_book(
    number: int, bids: dict[int, int], asks: dict[int, int], fee: int, age: int
) -> VenueBook:
    grid = replace(
        (FINE, COARSE)[number % 2], venue=f"v{number}", price_scale=number % 3, tick=1 + number
    )
    view = BookView(
        venue=grid.venue,
        symbol=grid.symbol,
        sequence=1,
        received_at=NOW - SECOND * age,
        bids=tuple(Level(t, u) for t, u in sorted(bids.items(), reverse=True)),
        asks=tuple(Level(t, u) for t, u in sorted(asks.items())),
    )
    return VenueBook(grid, view, VenueFee(fee))


@given(
    venues=venues_of_all_kinds,
    after_fees=st.booleans(),
    side=st.sampled_from(BOTH_SIDES),
    tenths=st.integers(0, 12),
    limit=st.none() | st.integers(0, 20),
)
def test_random_books_merge_and_sweep_as_the_whole_joint_book_does(
    *,
    venues: list[tuple[dict[int, int], dict[int, int], int, int]],
    after_fees: bool,
    side: Side,
    tenths: int,
    limit: int | None,
) -> None:
    items = [venue_book(number, *parts) for number, parts in enumerate(venues)]
    whole = consolidate(items, ETH, USDT, now=NOW, age_max=SECOND, after_fees=after_fees)
    lazy = merged(*items)
    joint = whole.asks if side is Side.BUY else whole.bids

    assert [
        (row.steps, items[row.book].instrument.venue, row.ticks, row.units)
        for row in lazy.levels(side, after_fees=after_fees)
    ] == [
        (level.steps, share.venue, share.ticks, share.units)
        for level in joint
        for share in level.shares
    ]
    assert (lazy.evicted, lazy.names) == (whole.evicted, whole.venues)

    units = sum(level.units for level in joint) * tenths // 10
    limit_steps = joint[limit % len(joint)].steps if joint and limit is not None else None
    expected = sweep_joint(whole, side, units, limit_steps=limit_steps)
    found = lazy.average(side, units, after_fees=after_fees, limit_steps=limit_steps)
    assert (found.units, found.cost, found.worst_steps, found.by_venue) == (
        expected.units,
        expected.cost,
        expected.worst_steps,
        expected.by_venue,
    )
    if found.worst_steps is not None:
        assert lazy.price(found.worst_steps, after_fees=after_fees) == whole.price(
            found.worst_steps
        )
    average = lazy.average_price(found)
    if average is not None:
        per_step = 10**whole.price_scale * whole.step_parts
        scale = Fraction(10**USDT.scale, 10**ETH.scale)
        assert Fraction(average.numerator, average.denominator) == (
            Fraction(found.cost, found.units) / per_step * scale
        )
