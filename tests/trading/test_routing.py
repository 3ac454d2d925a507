"""Routes over several venues: tables of limits and minimums, and an oracle that tries everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.money import Asset, Price
from marketdata.fees import VenueFee
from marketdata.model import BookView, Level
from marketdata.testing import ETH, USDT, book_view, eth_usdt
from matching.model import Side
from trading.funding import FundingProposal, propose_funding
from trading.routing import (
    LEGS_MAX,
    Place,
    Route,
    RouteLimits,
    RouteRule,
    RouteViolation,
    plan_route,
)

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ONE = 10**18
LIMITS = RouteLimits(slippage_ppm=10_000, book_age_max=SECOND)
R = RouteRule


def place(
    venue: str,
    bids: Sequence[tuple[str, str]] = (("99.90", "100"),),
    asks: Sequence[tuple[str, str]] = (("100.10", "100"),),
    *,
    base: str = "1000",
    quote: str = "1000000",
    fee_ppm: int = 0,
    at: datetime = NOW,
    account: str = "desk",
) -> Place:
    grid = eth_usdt(venue)
    return Place(
        venue=venue,
        account=account,
        instrument=grid,
        view=book_view(bids, asks, at=at, instrument=grid),
        fee=VenueFee(fee_ppm),
        base_free=ETH.parse(base),
        quote_free=USDT.parse(quote),
    )


def route(places: Sequence[Place], side: Side, amount: str, limits: RouteLimits = LIMITS) -> Route:
    return plan_route(places, side, ETH.parse(amount), limits, now=NOW)


def taken(found: Route) -> dict[int, str]:
    return {leg.place: ETH.format(leg.units, code=False) for leg in found.legs}


def rules(found: Route) -> list[tuple[RouteRule, int | None]]:
    return [(one.rule, one.place) for one in found.violations]


DEEP = [("99.90", "100")], [("100.10", "100")]


def test_the_best_price_after_fees_comes_first() -> None:
    places = [
        place("dear", asks=[("100.00", "5")], fee_ppm=2_000),
        place("cheap", asks=[("100.10", "3"), ("100.30", "9")], fee_ppm=0),
    ]

    found = route(places, Side.BUY, "7")

    # 100.10, then 100.20 with the fee, then 100.30.
    assert taken(found) == {0: "4", 1: "3"}
    assert [leg.expected_cost for leg in found.legs] == [
        USDT.parse("400.8"),
        USDT.parse("300.3"),
    ]
    assert (found.expected_cost, found.residual) == (USDT.parse("701.1"), 0)
    assert found.violations == ()


def test_a_seller_goes_where_most_is_got_after_fees() -> None:
    places = [
        place("dear", bids=[("100.00", "5")], asks=[("100.20", "5")], fee_ppm=2_000),
        place("cheap", bids=[("99.90", "3"), ("99.50", "9")], asks=[("100.30", "5")]),
    ]

    found = route(places, Side.SELL, "7")

    assert taken(found) == {0: "4", 1: "3"}
    assert found.expected_cost == USDT.parse("399.2") + USDT.parse("299.7")


def test_every_leg_is_limited_at_one_cap_rounded_to_what_is_allowed() -> None:
    coarse = replace(place("coarse"), instrument=replace(eth_usdt("coarse"), price_scale=0))
    coarse = replace(
        coarse,
        view=book_view([("99", "1")], [("101", "1")], at=NOW, instrument=coarse.instrument),
    )
    limits = replace(LIMITS, slippage_ppm=12_345)

    bought = route([place("fine", asks=[("100.10", "1")]), coarse], Side.BUY, "2", limits)
    sold = route([place("fine", bids=[("99.90", "1")]), coarse], Side.SELL, "2", limits)

    # The middle is 100: the cap 101.2345, or 98.7655 for a seller.
    assert bought.mid == Price.parse("100", ETH, USDT)
    assert bought.cap == Price.parse("101.2345", ETH, USDT)
    assert [leg.limit_ticks for leg in bought.legs] == [10_123, 101]
    assert [leg.limit_ticks for leg in sold.legs] == [9_877, 99]


def test_the_clients_price_caps_what_slippage_would_allow() -> None:
    asks = [("100.10", "1"), ("100.50", "1"), ("100.90", "1")]
    capped = replace(LIMITS, price_cap=Price.parse("100.50", ETH, USDT))
    loose = replace(LIMITS, price_cap=Price.parse("200", ETH, USDT))

    found = route([place("a", asks=asks)], Side.BUY, "3", capped)

    assert (taken(found), found.legs[0].limit_ticks) == ({0: "2"}, 10_050)
    assert found.residual == ONE
    assert rules(found) == [(R.TOO_THIN, None)]
    assert taken(route([place("a", asks=asks)], Side.BUY, "3", loose)) == {0: "3"}


def test_slippage_is_measured_from_no_price_beyond_the_best_where_books_cross() -> None:
    broken = place("broken", bids=[("49", "9")], asks=[("51", "9")])
    sane = place("sane", bids=[("100", "1"), ("98", "9")], asks=[("100.20", "9")])

    sold = route([broken, sane], Side.SELL, "5")
    bought = route([broken, sane], Side.BUY, "20")

    assert (sold.mid, sold.cap) == (
        Price.parse("75.5", ETH, USDT),
        Price.parse("99", ETH, USDT),
    )
    assert taken(sold) == {1: "1"}
    assert taken(bought) == {0: "9"}

    dear = place("dear", bids=[("149", "9")], asks=[("151", "9")])
    deep = place("deep", bids=[("99.80", "9")], asks=[("100", "1"), ("115", "9")])
    found = route([dear, deep], Side.BUY, "5")
    assert (found.cap, taken(found)) == (Price.parse("101", ETH, USDT), {1: "1"})


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"is_open": False}, R.PLACE_CLOSED),
        ({"view": None}, R.BOOK_UNUSABLE),
        ({"view": book_view(*DEEP, at=NOW - 2 * SECOND)}, R.BOOK_UNUSABLE),
        ({"view": book_view([("100.1", "1")], [("100.1", "9")], at=NOW)}, R.BOOK_UNUSABLE),
        ({"view": book_view([("90", "1")], [("102", "9")], at=NOW)}, R.BEYOND_CAP),
        ({"view": book_view([("90", "1")], [], at=NOW)}, R.BEYOND_CAP),
        ({"quote_free": 4_000_000}, R.NO_FUNDS),
        ({"quote_free": -1}, R.NO_FUNDS),
        ({"units_max": 10**14}, R.PLACE_LIMIT),
        ({"units_max": 0}, R.PLACE_LIMIT),
    ],
)
def test_a_place_that_cannot_be_used_is_named_with_the_rule(
    changed: dict[str, object], rule: RouteRule
) -> None:
    places = [replace(place("a"), **changed), place("b")]  # type: ignore[arg-type]  # a table of rows

    found = route(places, Side.BUY, "3")

    assert (taken(found), found.residual) == ({1: "3"}, 0)
    assert rules(found) == [(rule, 0)]


def test_without_two_sides_anywhere_nothing_is_traded() -> None:
    found = route([place("a", bids=[]), place("b", bids=[])], Side.BUY, "1")

    assert (found.legs, found.residual, found.mid, found.cap) == ((), ONE, None, None)
    assert rules(found) == [(R.NO_MARKET, None)]


def test_funds_are_counted_at_the_limit_and_with_the_fee() -> None:
    # The cap is 101: one whole costs 101.0 and with one per cent 102.01.
    poor = place("poor", asks=[("100.10", "9")], quote="204.02", fee_ppm=10_000)
    other = place("other", asks=[("101", "9")], fee_ppm=10_000)

    found = route([poor, other], Side.BUY, "3")

    assert (taken(found), rules(found)) == ({0: "2", 1: "1"}, [(R.NO_FUNDS, 0)])
    less = replace(poor, quote_free=poor.quote_free - 1)
    assert taken(route([less, other], Side.BUY, "3"))[0] == "1.9999"


def test_a_seller_sells_no_more_than_is_free() -> None:
    found = route([place("a", base="0.50005")], Side.SELL, "3")

    assert (taken(found), found.residual) == ({0: "0.5"}, 5 * ONE // 2)
    assert rules(found) == [(R.NO_FUNDS, 0), (R.TOO_THIN, None)]


def test_orders_and_routes_have_their_largest_size() -> None:
    limits = replace(LIMITS, order_units_max=2 * ONE, units_max=3 * ONE)

    found = route([place("a"), place("b")], Side.BUY, "10", limits)

    assert (taken(found), found.residual) == ({0: "2", 1: "1"}, 7 * ONE)
    assert rules(found) == [(R.ROUTE_LIMIT, None), (R.ORDER_LIMIT, 0)]


def test_the_venues_own_largest_order_is_one_too() -> None:
    small = place("a")
    small = replace(small, instrument=replace(small.instrument, lots_max=5_000))

    assert taken(route([small, place("b")], Side.BUY, "3")) == {0: "0.5", 1: "2.5"}


def test_a_part_below_the_minimum_goes_elsewhere() -> None:
    # Five USDT are the least: 0.0495 of it at the cap of 101.
    places = [
        place("a", asks=[("100.10", "0.9"), ("100.30", "5")]),
        place("b", asks=[("100.20", "0.04"), ("100.40", "5")]),
    ]

    found = route(places, Side.BUY, "0.94")

    assert (taken(found), found.residual) == ({0: "0.94"}, 0)
    assert rules(found) == [(R.BELOW_MINIMUM, 1)]


def test_a_part_below_the_minimum_that_can_go_nowhere_else_is_made_large_enough() -> None:
    places = [
        place("a", asks=[("100.10", "0.9")]),
        place("b", asks=[("100.20", "5")]),
    ]

    found = route(places, Side.BUY, "0.91")

    assert (taken(found), found.residual) == ({0: "0.8604", 1: "0.0496"}, 0)
    assert found.violations == ()


def test_an_amount_below_every_minimum_is_carried_whole() -> None:
    found = route([place("a"), place("b")], Side.BUY, "0.04")

    assert (found.legs, found.residual) == ((), ETH.parse("0.04"))
    assert rules(found)[-1] == (R.TOO_THIN, None)
    assert (R.BELOW_MINIMUM, 0) in rules(found)


def test_what_is_less_than_a_lot_is_left() -> None:
    found = route([place("a")], Side.BUY, "1.00005")

    assert (taken(found), found.residual) == ({0: "1"}, ETH.parse("0.00005"))


def test_levels_off_the_lot_grid_are_taken_together() -> None:
    places = [place("a", asks=[("100.10", "0.50005"), ("100.20", "0.50005")])]

    found = route(places, Side.BUY, "1.0001")

    assert (taken(found), found.residual) == ({0: "1.0001"}, 0)


def test_of_too_many_legs_the_smallest_are_left_out() -> None:
    places = [
        place("a", asks=[("100.10", "3"), ("100.50", "9")]),
        place("b", asks=[("100.20", "1"), ("100.60", "9")]),
        place("c", asks=[("100.30", "2"), ("100.70", "9")]),
    ]

    found = route(places, Side.BUY, "6", replace(LIMITS, legs_max=2))

    assert (taken(found), rules(found)) == ({0: "4", 2: "2"}, [(R.TOO_MANY_LEGS, 1)])


def test_two_accounts_at_a_venue_do_not_find_its_depth_twice() -> None:
    asks = [("100.10", "4")]
    places = [
        place("a", asks=asks, fee_ppm=1_000, account="one"),
        place("a", asks=asks, fee_ppm=500, account="two", quote="202"),
    ]

    found = route(places, Side.BUY, "9")

    assert sum(leg.units for leg in found.legs) == 4 * ONE
    # Who pays less goes first, as far as its money reaches at the cap of 101.
    assert taken(found) == {0: "2.001", 1: "1.999"}
    assert rules(found)[-1] == (R.TOO_THIN, None)


def test_the_same_question_has_the_same_answer() -> None:
    places = [place(f"v{number}", asks=[("100.10", "1")]) for number in range(5)]

    found = {route(places, Side.BUY, "2.5") for _ in range(3)}

    assert [taken(one) for one in found] == [{0: "1", 1: "1", 2: "0.5"}]


@pytest.mark.parametrize(
    "ask",
    [
        lambda: route([place("a"), place("a")], Side.BUY, "1"),
        lambda: route([], Side.BUY, "1"),
        lambda: route([place("a")], Side.BUY, "-1"),
        lambda: route(
            [
                place("a"),
                replace(
                    place("b"), instrument=replace(eth_usdt("b"), base=Asset("ETH", 8), lot=100)
                ),
            ],
            Side.BUY,
            "1",
        ),
        lambda: route(
            [place("a")],
            Side.BUY,
            "1",
            replace(LIMITS, price_cap=Price.parse("100", ETH, Asset("USD", 6))),
        ),
        lambda: replace(LIMITS, slippage_ppm=10**6),
        lambda: replace(LIMITS, legs_max=LEGS_MAX + 1),
    ],
)
def test_what_makes_no_sense_is_refused(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(BadInput):
        ask()


def test_funding_names_what_is_missing_and_where_it_is_free() -> None:
    places = [
        place("best", asks=[("100.00", "5")], bids=[("99.90", "5")], quote="101"),
        place("rich", asks=[("101.50", "5")], quote="300"),
        place("closed", quote="9000"),
    ]
    places[2] = replace(places[2], is_open=False)

    # The cap is 100.9495, in ticks 100.94: five cost 504.70, and 101 are there.
    found = propose_funding(places, Side.BUY, 5 * ONE, LIMITS, now=NOW)

    assert found == (
        FundingProposal(USDT, USDT.parse("300"), 0, 1),
        FundingProposal(USDT, USDT.parse("103.7"), 0, None),
    )
    assert propose_funding(places, Side.BUY, ONE // 10, LIMITS, now=NOW) == ()
    short = [place("a", base="1")]
    assert propose_funding(short, Side.SELL, 3 * ONE, LIMITS, now=NOW) == (
        FundingProposal(ETH, 2 * ONE, 0, None),
    )


# An oracle: units are lots of a small instrument, so that everything can be tried.
TINY = replace(
    eth_usdt(), base=Asset("ETH", 0), quote=Asset("USDT", 6), lot=1, lots_min=1, min_notional=0
)

small_side = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2)), max_size=3)
small_places = st.lists(
    st.tuples(
        small_side,
        small_side,
        st.sampled_from([-500, 0, 1_000, 4_000]),
        st.integers(0, 5),
        st.integers(0, 600_000_000),
    ),
    min_size=1,
    max_size=4,
)


def tiny_place(
    number: int,
    bids: list[tuple[int, int]],
    asks: list[tuple[int, int]],
    fee_ppm: int,
    base_free: int,
    quote_free: int,
) -> Place:
    """Return a place around 100: bids below it and asks above, one tick or more apart."""

    def side(rows: list[tuple[int, int]], sign: int) -> Iterator[Level]:
        ticks = 10_000
        for gap, units in rows:
            ticks += sign * (1 + 7 * gap)
            yield Level(ticks, units)

    grid = replace(TINY, venue=f"v{number}")
    return Place(
        venue=grid.venue,
        account="desk",
        instrument=grid,
        view=BookView(
            venue=grid.venue,
            symbol=grid.symbol,
            sequence=1,
            received_at=NOW,
            bids=tuple(side(bids, -1)),
            asks=tuple(side(asks, 1)),
        ),
        fee=VenueFee(fee_ppm),
        base_free=base_free,
        quote_free=quote_free,
    )


def money(place: Place, side: Side, lots: int) -> Fraction:
    """Return what lots of a place cost (or bring) after fees, level by level, exactly."""
    assert place.view is not None
    total, left = Fraction(0), lots
    for ticks, units in place.view.asks if side is Side.BUY else place.view.bids:
        part = min(units, left)
        total += part * Fraction(ticks, 100) * 10**6
        left -= part
    fee = Fraction(place.fee.taker_ppm, 10**6)
    return total * (1 + fee if side is Side.BUY else 1 - fee)


def possible(place: Place, side: Side, cap: Price) -> list[int]:
    """Return the lots that an order at the place may have, by a plain reading of the rules."""
    assert place.view is not None
    worst = Fraction(cap.numerator, cap.denominator)
    per_tick = Fraction(10**6, 100)
    if side is Side.BUY:
        limit = worst // per_tick * per_tick
        there = sum(u for t, u in place.view.asks if t * per_tick <= worst)
        fee = Fraction(max(0, place.fee.taker_ppm), 10**6)
        return [n for n in range(there + 1) if n * limit * (1 + fee) <= place.quote_free]
    there = sum(u for t, u in place.view.bids if t * per_tick >= worst)
    return list(range(min(there, place.base_free) + 1))


@given(
    parts=small_places,
    side=st.sampled_from([Side.BUY, Side.SELL]),
    units=st.integers(0, 12),
    slippage_ppm=st.sampled_from([0, 500, 2_000, 9_000]),
)
def test_no_other_orders_trade_more_or_at_a_lower_cost(
    parts: list[tuple[list[tuple[int, int]], list[tuple[int, int]], int, int, int]],
    side: Side,
    units: int,
    slippage_ppm: int,
) -> None:
    places = [tiny_place(number, *part) for number, part in enumerate(parts)]
    limits = RouteLimits(slippage_ppm=slippage_ppm, book_age_max=SECOND)

    found = plan_route(places, side, units, limits, now=NOW)

    assert found.units == sum(leg.lots for leg in found.legs) == units - found.residual
    if found.cap is None:
        return
    choices = [
        [(lots, money(one, side, lots)) for lots in possible(one, side, found.cap)]
        for one in places
    ]
    totals = [
        (sum(lots for lots, _ in chosen), sum((part for _, part in chosen), Fraction(0)))
        for chosen in product(*choices)
    ]
    most = max(lots for lots, _ in totals if lots <= units)
    assert found.units == most
    sign = 1 if side is Side.BUY else -1
    best = min(sign * total for lots, total in totals if lots == most)
    ours = sum((money(places[leg.place], side, leg.lots) for leg in found.legs), Fraction(0))
    assert sign * ours == best
    for leg in found.legs:
        exact = money(places[leg.place], side, leg.lots)
        assert 0 <= sign * (leg.expected_cost - exact) < 1


@given(
    parts=small_places,
    side=st.sampled_from([Side.BUY, Side.SELL]),
    units=st.integers(0, 12),
    lots=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    minimums=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    legs_max=st.integers(1, 4),
)
def test_every_leg_keeps_every_limit_whatever_lots_and_minimums_are(
    parts: list[tuple[list[tuple[int, int]], list[tuple[int, int]], int, int, int]],
    side: Side,
    units: int,
    lots: list[int],
    minimums: list[int],
    legs_max: int,
) -> None:
    places = [tiny_place(number, *part) for number, part in enumerate(parts)]
    places = [
        replace(one, instrument=replace(one.instrument, lot=lot, lots_min=least))
        for one, lot, least in zip(places, lots, minimums, strict=False)
    ]
    limits = RouteLimits(slippage_ppm=5_000, book_age_max=SECOND, legs_max=legs_max)

    found = plan_route(places, side, units, limits, now=NOW)

    assert len(found.legs) <= legs_max
    assert 0 <= found.residual == units - sum(leg.units for leg in found.legs)
    for leg in found.legs:
        grid = places[leg.place].instrument
        assert leg.units == leg.lots * grid.lot
        assert grid.lots_min <= leg.lots
        assert found.cap is not None
        assert leg.units in possible(places[leg.place], side, found.cap)
    if found.residual:
        assert (
            RouteViolation(R.TOO_THIN, None, f"{found.residual} units are left")
            in (found.violations)
            or found.mid is None
        )
