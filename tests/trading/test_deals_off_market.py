"""How far from the market a price is: exact, both ways, never shown as less than it is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.money import Price
from marketdata.price_model import PPM
from registry.testing import ETH, USDT
from trading.model import DealSide
from trading.off_market import OffMarket, judge

SELLS, BUYS = DealSide.DESK_SELLS, DealSide.DESK_BUYS
PRICES = st.builds(
    lambda numerator, denominator: Price(ETH, USDT, numerator, denominator),
    st.integers(1, 10**30),
    st.integers(1, 10**30),
)


def price(text: str) -> Price:
    return Price.parse(text, ETH, USDT)


@pytest.mark.parametrize(
    ("agreed", "side", "expected"),
    [
        ("3000", SELLS, None),
        ("3030", SELLS, None),  # one per cent: the bound is allowed
        ("2970", BUYS, None),
        ("3030.000001", SELLS, (10_001, True)),
        ("3031", BUYS, (10_334, False)),
        ("2969.999999", SELLS, (-10_001, False)),
        ("2900", BUYS, (-33_334, True)),
        ("30000", SELLS, (9_000_000, True)),  # a digit too many
    ],
)
def test_a_price_is_off_the_market_beyond_the_tolerance(
    agreed: str, side: DealSide, expected: tuple[int, bool] | None
) -> None:
    off = judge(price(agreed), price("3000"), side, 10_000)

    if expected is None:
        assert off is None
    else:
        ppm, favours_desk = expected
        assert off == OffMarket(ppm=ppm, tolerance_ppm=10_000, favours_desk=favours_desk)


@given(PRICES, PRICES, st.sampled_from(DealSide), st.integers(0, PPM - 1))
def test_it_is_the_exact_ratio_that_decides(
    agreed: Price, market: Price, side: DealSide, tolerance: int
) -> None:
    ours = Fraction(agreed.numerator, agreed.denominator)
    theirs = Fraction(market.numerator, market.denominator)
    deviation = (ours - theirs) / theirs * PPM

    off = judge(agreed, market, side, tolerance)

    assert (off is None) is (abs(deviation) <= tolerance)
    if off is not None:
        assert abs(off.ppm) > tolerance
        assert 0 <= abs(off.ppm) - abs(deviation) < 1
        assert (off.ppm > 0) is (deviation > 0)
        assert off.favours_desk is ((deviation > 0) is (side is SELLS))
