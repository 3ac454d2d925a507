"""The grid of an instrument, the freshness of a book, the cost of taking its depth."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kernel.errors import BadInput, Refused
from kernel.money import Rounding
from marketdata.depth import Sweep, sweep
from marketdata.errors import OffGrid
from marketdata.freshness import Freshness, judge
from marketdata.mid import venue_mid
from marketdata.model import PriceRecord, Quality
from marketdata.testing import ETH, book_view, eth_usdt
from matching.model import Side

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_prices_are_whole_ticks_and_back() -> None:
    grid = replace(eth_usdt(), tick=5)

    assert grid.ticks("2500.05") == 50_001
    assert grid.price_text(50_001) == "2500.05"
    assert grid.quantity_text(12_500) == "1.25"


@pytest.mark.parametrize("text", ["2500.03", "0", "0.00", "-1"])
def test_a_price_off_the_grid_is_refused(text: str) -> None:
    with pytest.raises(OffGrid):
        replace(eth_usdt(), tick=5).ticks(text)


def test_more_decimals_than_the_venue_writes_are_refused() -> None:
    with pytest.raises(BadInput):
        eth_usdt().ticks("2500.001")


def test_notional_is_in_the_quote_assets_smallest_units_and_rounds_as_named() -> None:
    grid = replace(eth_usdt(), lot=10**9)

    assert grid.notional(1, 1, Rounding.UP) == 1
    assert grid.notional(1, 1, Rounding.DOWN) == 0
    assert eth_usdt().notional(250_000, 10_000, Rounding.EXACT) == 2_500_000_000


def test_the_smallest_order_covers_the_minimum_notional() -> None:
    grid = eth_usdt()

    lots = grid.lots_for(250_000)

    assert lots == 20
    assert grid.notional(250_000, lots, Rounding.DOWN) >= grid.min_notional
    assert grid.notional(250_000, lots - 1, Rounding.UP) < grid.min_notional


def test_a_grid_that_cannot_be_is_refused() -> None:
    with pytest.raises(BadInput):
        replace(eth_usdt(), lot=0)


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (timedelta(0), Freshness.FRESH),
        (SECOND, Freshness.FRESH),
        (SECOND * 2, Freshness.STALE),
        (-SECOND * 2, Freshness.STALE),
    ],
)
def test_a_book_is_judged_by_its_age(age: timedelta, expected: Freshness) -> None:
    view = book_view([("99", "1")], [("101", "1")], at=NOW - age)

    assert judge(view, now=NOW, age_max=SECOND) is expected


def test_books_without_shape_are_not_fresh() -> None:
    one_sided = book_view([("99", "1")], [], at=NOW)
    crossed = book_view([("101", "1")], [("101", "1")], at=NOW)

    assert judge(None, now=NOW, age_max=SECOND) is Freshness.MISSING
    assert judge(one_sided, now=NOW, age_max=SECOND) is Freshness.ONE_SIDED
    assert judge(crossed, now=NOW, age_max=SECOND) is Freshness.CROSSED


def test_sweeping_walks_the_side_the_order_would_take() -> None:
    view = book_view([("99", "1"), ("98", "2")], [("101", "1"), ("103", "5")], at=NOW)
    one = 10**18

    assert sweep(view, Side.BUY, one // 2) == Sweep(one // 2, 10_100)
    assert sweep(view, Side.BUY, 2 * one) == Sweep(2 * one, 10_300)
    assert sweep(view, Side.BUY, 2 * one, limit_ticks=10_200) == Sweep(one, 10_100)
    assert sweep(view, Side.SELL, 9 * one) == Sweep(3 * one, 9_800)
    assert sweep(view, Side.SELL, 9 * one, limit_ticks=9_900) == Sweep(one, 9_900)
    assert sweep(view, Side.BUY, one, limit_ticks=10_000) == Sweep(0, None)


def test_the_mid_of_an_odd_spread_is_exact() -> None:
    view = book_view([("2500.00", "1")], [("2500.01", "1")], at=NOW)

    found = venue_mid(eth_usdt(), view, now=NOW, age_max=SECOND)

    assert isinstance(found, PriceRecord)
    assert found.price.format() == "2,500.005 USDT/ETH"
    assert found.price.to_quote(2 * 10**18, Rounding.EXACT) == 5_000_010_000
    assert found.quality is Quality.GOOD
    assert found.constituents[0]["bid"] == "2500"
    assert found.price.base == ETH


def test_there_is_no_mid_of_a_stale_book() -> None:
    view = book_view([("99", "1")], [("101", "1")], at=NOW - SECOND * 5)

    found = venue_mid(eth_usdt(), view, now=NOW, age_max=SECOND)

    assert isinstance(found, Refused)
    assert "stale" in str(found)
