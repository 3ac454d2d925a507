"""The index price: its gates, its median, its quality, what is recorded of it, against a plain model."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput, Refused
from kernel.money import Asset, Price
from marketdata.index_price import (
    Gate,
    IndexPolicy,
    IndexPrice,
    IndexVenue,
    decide_index,
    fit_for,
    judge_again,
    recompute,
    record_of,
    weighted_median,
)
from marketdata.model import BookView, Instrument, Quality
from marketdata.price_model import PPM, Purpose
from marketdata.testing import ETH, USDT, book_view, eth_usdt

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def policy(weights: tuple[int, ...] = (1, 1, 1), **changes: Any) -> IndexPolicy:
    venues = tuple(IndexVenue(eth_usdt(f"v{n}"), weight) for n, weight in enumerate(weights))
    made = IndexPolicy(base=ETH, quote=USDT, venues=venues, venues_min=min(2, len(weights)))
    return replace(made, **changes) if changes else made


def views(rules: IndexPolicy, *mids: str | None, at: datetime = NOW) -> list[BookView | None]:
    """Books one tick wide to either side of each mid."""
    found: list[BookView | None] = []
    for item, mid in zip(rules.venues, mids, strict=True):
        if mid is None:
            found.append(None)
            continue
        ticks = item.instrument.ticks(mid)
        bid, ask = (item.instrument.price_text(ticks + step) for step in (-1, 1))
        found.append(book_view([(bid, "1")], [(ask, "1")], at=at, instrument=item.instrument))
    return found


def decided(rules: IndexPolicy, *mids: str | None, before: tuple[str, ...] = ()) -> IndexPrice:
    found = decide_index(rules, views(rules, *mids), now=NOW, before=before)
    assert isinstance(found, IndexPrice), found
    return found


def gates(index: IndexPrice) -> list[Gate]:
    return [item.gate for item in index.members]


@pytest.mark.parametrize(
    ("weights", "mids", "expected"),
    [
        ((1, 1, 1), ("100", "101", "100.5"), "100.5"),
        ((1, 1), ("100", "100.5"), "100.25"),
        ((5, 1, 1), ("100", "100.5", "100.6"), "100"),
        ((2, 1, 1), ("100", "100.5", "100.6"), "100.25"),
        ((1, 1, 1, 1), ("100", "100.2", "100.4", "100.6"), "100.3"),
    ],
)
def test_the_price_is_the_weighted_median_of_the_mids(
    weights: tuple[int, ...], mids: tuple[str, ...], expected: str
) -> None:
    assert decided(policy(weights), *mids).price == Price.parse(expected, ETH, USDT)


def test_a_venue_far_from_the_others_is_left_out_and_named() -> None:
    index = decided(policy((1, 1, 1)), "100", "100.2", "110")

    assert gates(index) == [Gate.USED, Gate.USED, Gate.OUTLIER]
    assert index.outliers == {"v2"}
    assert index.price == Price.parse("100.1", ETH, USDT)


def test_a_heavy_venue_that_goes_astray_does_not_take_the_index_with_it() -> None:
    index = decided(policy((100, 1, 1)), "150", "100", "100.2")

    assert index.price == Price.parse("100.1", ETH, USDT)
    assert index.quality is Quality.DEGRADED


def test_one_that_was_out_comes_back_only_within_half_of_the_gate() -> None:
    rules = policy((1, 1, 1), deviation_ppm_max=10_000)

    assert gates(decided(rules, "100", "100", "100.9"))[2] is Gate.USED
    assert gates(decided(rules, "100", "100", "100.9", before=("v2",)))[2] is Gate.OUTLIER
    assert gates(decided(rules, "100", "100", "100.5", before=("v2",)))[2] is Gate.USED


def test_two_that_disagree_make_no_index_at_all() -> None:
    found = decide_index(policy((1, 1)), views(policy((1, 1)), "100", "110"), now=NOW)

    assert isinstance(found, Refused)
    assert "v0 outlier, v1 outlier" in str(found)


@pytest.mark.parametrize(
    ("view", "gate"),
    [
        (None, Gate.MISSING),
        (book_view([("99.99", "1")], [("100.01", "1")], at=NOW - SECOND * 6), Gate.STALE),
        (book_view([("99.99", "1")], [("100.01", "1")], at=NOW + SECOND * 6), Gate.STALE),
        (book_view([("99.99", "1")], [], at=NOW), Gate.ONE_SIDED),
        (book_view([("100.01", "1")], [("100.01", "1")], at=NOW), Gate.CROSSED),
        (book_view([("98", "1")], [("102", "1")], at=NOW), Gate.WIDE),
    ],
)
def test_a_book_that_fails_a_gate_is_left_out(view: BookView | None, gate: Gate) -> None:
    rules = policy((1, 1, 1))
    books = [*views(rules, "100", "100", "100")[:2], view]

    index = decide_index(rules, books, now=NOW)

    assert isinstance(index, IndexPrice)
    assert gates(index) == [Gate.USED, Gate.USED, gate]
    assert index.quality is Quality.GOOD


def test_with_fewer_venues_than_agreed_nothing_settles_on_it() -> None:
    index = decided(policy((1, 1, 1)), "100", None, None)

    refused = fit_for(index, Purpose.SETTLEMENT)

    assert index.quality is Quality.DEGRADED
    assert fit_for(index, Purpose.INDICATIVE) is index
    assert isinstance(refused, Refused)
    assert "1 of 2 venues: v0 used, v1 missing, v2 missing" in str(refused)


def test_without_any_venue_there_is_no_index() -> None:
    rules = policy((1, 1))

    assert isinstance(decide_index(rules, [None, None], now=NOW), Refused)


def test_a_minority_of_the_weight_is_not_good_however_many_they_are() -> None:
    index = decided(policy((10, 1, 1, 1)), None, "100", "100", "100")

    assert index.quality is Quality.DEGRADED


@pytest.mark.parametrize(
    "changes",
    [
        {"venues_min": 4},
        {"venues_min": 0},
        {"deviation_ppm_max": 0},
        {"age_max": timedelta(0)},
        {"venues": (IndexVenue(eth_usdt("a")), IndexVenue(eth_usdt("a")))},
        {"venues": (IndexVenue(eth_usdt("a"), 0), IndexVenue(eth_usdt("b")))},
        {"quote": Asset("USD", 6)},
    ],
)
def test_a_policy_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        replace(policy(), **changes)


def test_what_is_recorded_comes_to_the_same_price_again_and_to_another_when_changed() -> None:
    record = record_of(decided(policy((3, 1, 2)), "100", "100.37", "110"))
    first, *others = record.constituents

    assert recompute(record) == record.price
    assert [item["gate"] for item in record.constituents] == ["used", "used", "outlier"]
    assert first["bid"] == "99.99"
    changed = replace(record, constituents=({**first, "bid": "99.98"}, *others))
    assert recompute(changed) != record.price
    with pytest.raises(BadInput):
        recompute(replace(record, method={"name": "other/1"}))


def test_gates_and_quality_are_judged_again_too() -> None:
    record = record_of(decided(policy((1, 1, 1)), "100", "100.37", "110"))
    first, second, third = record.constituents
    stale = (NOW - SECOND * 6).isoformat()

    assert judge_again(record) == (record.price, Quality.GOOD)
    for forged in (
        (first, second, {**third, "gate": "used"}),
        ({**first, "gate": "outlier"}, second, third),
        (first, second, {**third, "gate": "stale"}),
    ):
        assert recompute(replace(record, constituents=forged)) == record.price
    old = replace(record, constituents=(first, {**second, "received_at": stale}, third))
    with pytest.raises(Refused, match="passes the gates"):
        judge_again(old)
    alone = replace(record, constituents=({**first, "weight": 9}, second, third))
    assert judge_again(alone)[0].format() == "100 USDT/ETH"
    few = replace(record, method={**record.method, "venues_min": 3})
    assert judge_again(few) == (record.price, Quality.DEGRADED)
    crossed = {**first, "bid": "100.05", "ask": "99.95"}
    with pytest.raises(Refused, match="passes the gates"):
        judge_again(replace(record, constituents=(crossed, second, third)))
    back = record_of(decided(policy((1, 1, 3)), "100", "100", "100.8", before=("v2",)))
    assert (back.price.format(), back.quality) == ("100 USDT/ETH", Quality.DEGRADED)
    assert judge_again(back) == (back.price, back.quality)
    nothing = replace(record, constituents=tuple({"gate": "missing", "weight": 1} for _ in "ab"))
    with pytest.raises(Refused, match="passes the gates"):
        judge_again(nothing)


def grid(number: int) -> Instrument:
    """Instruments of different ticks and scales of price and quote."""
    scale, tick = ((2, 1), (1, 5), (3, 25))[number % 3]
    quote = Asset("USDT", (6, 8, 2)[number % 3])
    return replace(eth_usdt(f"v{number}"), price_scale=scale, tick=tick, quote=quote)


books = st.lists(
    st.tuples(st.integers(1, 10**6), st.integers(0, 2_000), st.integers(1, 9), st.booleans()),
    min_size=1,
    max_size=7,
)


def naive_index(
    sides: list[tuple[Fraction, Fraction, int, bool]], deviation: int, spread: int
) -> Fraction | None:
    """The rule told in fractions, with the weighted median by repetition."""
    mids = [
        ((bid + ask) / 2, weight)
        for bid, ask, weight, is_fresh in sides
        if is_fresh and ask > bid and (ask - bid) / ((bid + ask) / 2) <= Fraction(spread, PPM)
    ]
    if not mids:
        return None
    middle = median(mid for mid, _ in mids)
    used = [(m, w) for m, w in mids if abs(m - middle) / middle <= Fraction(deviation, PPM)]
    if not used:
        return None
    return Fraction(median([mid for mid, weight in used for _ in range(weight)]))


@given(books=books, deviation=st.integers(1, 10**6), spread=st.integers(1, 10**6))
def test_any_books_on_any_grids_come_to_what_a_plain_model_says(
    books: list[tuple[int, int, int, bool]], deviation: int, spread: int
) -> None:
    grids = [grid(number) for number in range(len(books))]
    rules = IndexPolicy(
        base=ETH,
        quote=USDT,
        venues=tuple(
            IndexVenue(item, weight) for item, (_, _, weight, _) in zip(grids, books, strict=True)
        ),
        venues_min=1,
        deviation_ppm_max=deviation,
        spread_ppm_max=spread,
    )
    shown, sides = [], []
    for item, (bid, width, weight, is_fresh) in zip(grids, books, strict=True):
        texts = item.price_text(bid), item.price_text(bid + width)
        at = NOW if is_fresh else NOW - SECOND * 60
        shown.append(book_view([(texts[0], "1")], [(texts[1], "1")], at=at, instrument=item))
        sides.append((Fraction(texts[0]), Fraction(texts[1]), weight, is_fresh))

    found = decide_index(rules, shown, now=NOW)

    expected = naive_index(sides, deviation, spread)
    if isinstance(found, Refused):
        assert expected is None
    else:
        told = Fraction(found.price.numerator * 10**18, found.price.denominator * 10**6)
        assert told == expected
        assert judge_again(record_of(found)) == (found.price, found.quality)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 6)), min_size=1, max_size=9))
def test_the_weighted_median_is_the_median_of_everything_repeated_by_weight(
    items: list[tuple[int, int]],
) -> None:
    repeated = [Fraction(value) for value, weight in items for _ in range(weight)]

    assert Fraction(*weighted_median(items)) == median(repeated)
