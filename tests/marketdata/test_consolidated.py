"""One book of several venues: attribution, eviction, fees, crossing, against a plain model."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.money import Asset, Price
from marketdata.consolidated import (
    ConsolidatedBook,
    VenueBook,
    VenueShare,
    consolidate,
    sweep_joint,
)
from marketdata.fees import VenueFee
from marketdata.freshness import Freshness
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


def joined(*books: VenueBook, after_fees: bool = False) -> ConsolidatedBook:
    return consolidate(books, ETH, USDT, now=NOW, age_max=SECOND, after_fees=after_fees)


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


def told(found: ConsolidatedBook, side: Side) -> list[tuple[str, int, list[str]]]:
    levels = found.asks if side is Side.BUY else found.bids
    return [
        (
            found.price(level.steps).format().split()[0],
            level.units,
            [share.venue for share in level.shares],
        )
        for level in levels
    ]


def test_equal_prices_of_different_grids_are_one_level_with_every_venue_in_it() -> None:
    found = joined(
        book(FINE, [("100.00", "1"), ("99.99", "2")], [("100.50", "1")]),
        book(COARSE, [("100.0", "3"), ("99.5", "1")], [("100.5", "0.5"), ("101.0", "2")]),
    )

    assert told(found, Side.SELL) == [
        ("100", 4 * ONE, ["fine", "coarse"]),
        ("99.99", 2 * ONE, ["fine"]),
        ("99.5", ONE, ["coarse"]),
    ]
    assert told(found, Side.BUY)[0] == ("100.5", 3 * ONE // 2, ["fine", "coarse"])
    assert found.bids[0].shares[1] == VenueShare("coarse", "ETHUSDT", 200, 3 * ONE)
    assert found.evicted == {}


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        (VenueBook(COARSE, None), Freshness.MISSING),
        (book(COARSE, [("100", "9")], [("101", "9")], at=NOW - SECOND * 2), Freshness.STALE),
        (book(COARSE, [("101", "9")], [("101", "9")]), Freshness.CROSSED),
    ],
)
def test_a_venue_that_cannot_be_trusted_is_evicted_whole(
    second: VenueBook, verdict: Freshness
) -> None:
    first = book(FINE, [("100", "1")], [("101", "1")])

    found = joined(first, second)

    assert found.evicted == {"coarse:ETHUSDT": verdict}
    assert found.venues == ("fine:ETHUSDT",)
    assert found.bids == joined(first, VenueBook(COARSE, None)).bids
    assert [share.venue for level in found.asks for share in level.shares] == ["fine"]


def test_a_venue_with_one_side_only_still_shows_it() -> None:
    found = joined(book(FINE, [("100", "1")], []))

    assert (len(found.bids), len(found.asks), found.evicted) == (1, 0, {})


def test_bids_of_one_venue_may_reach_asks_of_another_and_are_shown_as_they_are() -> None:
    found = joined(
        book(FINE, [("100", "1")], [("101", "1")]), book(COARSE, [("102", "1")], [("103", "1")])
    )

    assert found.is_crossed
    assert [row[0] for row in told(found, Side.SELL)] == ["102", "100"]


def test_after_fees_the_order_of_venues_may_turn_round() -> None:
    cheap = book(FINE, [("99.90", "1")], [("100.10", "1")], fee_ppm=0)
    dear = book(COARSE, [("100", "1")], [("100", "1")], fee_ppm=2_000)
    dear = replace(dear, view=replace(dear.view, bids=()) if dear.view else None)

    before, after = joined(cheap, dear), joined(cheap, dear, after_fees=True)

    assert [row[2] for row in told(before, Side.BUY)] == [["coarse"], ["fine"]]
    assert [row[2] for row in told(after, Side.BUY)] == [["fine"], ["coarse"]]
    assert after.price(after.asks[1].steps) == Price.parse("100.2", ETH, USDT)
    assert after.asks[1].shares[0].ticks == 200


def test_a_seller_gets_less_after_fees() -> None:
    found = joined(book(FINE, [("100", "1")], [], fee_ppm=1_000), after_fees=True)

    assert found.price(found.bids[0].steps) == Price.parse("99.9", ETH, USDT)


def test_an_order_is_told_what_it_would_find_where_and_at_what_cost() -> None:
    found = joined(book(FINE, [], [("100", "1"), ("101", "5")]), book(COARSE, [], [("100.5", "2")]))

    swept = sweep_joint(found, Side.BUY, 4 * ONE)
    capped = sweep_joint(found, Side.BUY, 4 * ONE, limit_steps=found.asks[1].steps)

    assert swept.by_venue == {"fine": 2 * ONE, "coarse": 2 * ONE}
    assert Fraction(swept.cost, 10**found.price_scale * 10**found.base_scale) == 402
    assert swept.worst_steps == found.asks[2].steps
    assert (capped.units, capped.worst_steps) == (3 * ONE, found.asks[1].steps)
    assert sweep_joint(found, Side.SELL, ONE).worst_steps is None


def test_other_pairs_and_the_same_book_twice_are_refused() -> None:
    item = book(FINE, [("100", "1")], [("101", "1")])

    with pytest.raises(BadInput):
        joined(item, item)
    with pytest.raises(BadInput, match="USDT, not ETH/USD"):
        consolidate([item], ETH, Asset("USD", 6), now=NOW, age_max=SECOND)


levels = st.dictionaries(st.integers(1, 60), st.integers(1, 5), max_size=8)


@given(
    venues=st.lists(
        st.tuples(levels, levels, st.integers(-500, 3_000), st.integers(0, 2)),
        min_size=1,
        max_size=5,
    ),
    after_fees=st.booleans(),
)
def test_any_venues_join_as_a_plain_model_says(
    *, venues: list[tuple[dict[int, int], dict[int, int], int, int]], after_fees: bool
) -> None:
    items: list[VenueBook] = []
    expected: tuple[dict[Fraction, dict[str, Fraction]], ...] = ({}, {})
    for number, (bids, asks, fee_ppm, age) in enumerate(venues):
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
        items.append(VenueBook(grid, view, VenueFee(fee_ppm)))
        if age > 1 or (bids and asks and max(bids) >= min(asks)):
            continue
        for side, rows, sign in zip(expected, (bids, asks), (-1, 1), strict=True):
            fee = Fraction(fee_ppm * sign, 10**6) if after_fees else 0
            for ticks, units in rows.items():
                key = Fraction(grid.price_text(ticks)) * (1 + fee)
                whole = Fraction(units, 10**grid.base.scale)
                side.setdefault(key, {})[grid.venue] = whole

    found = joined(*items, after_fees=after_fees)

    per_step = 10**found.price_scale * found.step_parts
    for model, joint, is_bid in zip(expected, (found.bids, found.asks), (True, False), strict=True):
        assert [Fraction(row.steps, per_step) for row in joint] == sorted(model, reverse=is_bid)
        for row in joint:
            shares = model[Fraction(row.steps, per_step)]
            scale = 10**found.base_scale
            assert {x.venue: Fraction(x.units, scale) for x in row.shares} == shares
            assert Fraction(row.units, scale) == sum(shares.values())
