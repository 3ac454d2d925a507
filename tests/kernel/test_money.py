from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.money import AMOUNT_MAX, SCALE_MAX, Asset, Price, Rounding, divide, rescale

BTC, USD = Asset("BTC", 8), Asset("USD", 2)
UNITS = st.integers(-AMOUNT_MAX, AMOUNT_MAX)
SCALES = st.integers(0, SCALE_MAX)
POSITIVE = st.integers(1, 10**30)


@given(UNITS, SCALES)
def test_what_is_printed_reads_back_exactly(units: int, scale: int) -> None:
    asset = Asset("X", scale)
    assert asset.parse(asset.format(units)) == units
    assert asset.parse(asset.format(units, code=False, places=scale)) == units


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("1.5", 150_000_000),
        ("1.5 BTC", 150_000_000),
        ("1,234.5", 123_450_000_000),
        ("-0.00000001", -1),
        ("0", 0),
        ("1.5000000000000", 150_000_000),
        (" 2 BTC ", 200_000_000),
        ("1_000", 100_000_000_000),
        ("-1,234,567", -123_456_700_000_000),
    ],
)
def test_amounts_are_read(text: str, units: int) -> None:
    assert BTC.parse(text) == units


@pytest.mark.parametrize(
    "text",
    [
        "",
        "BTC",
        "1.5 ETH",
        "1.5 btc",
        "1e3",
        "1.",
        ".5",
        "+1",
        "--1",
        "0.000000001",
        "NaN",
        "Infinity",
        "0x10",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "1,5",  # one and a half to half of the world
        "1,50",
        "1,,000",
        "1,0000",
        "12,34",
        "1234,567",
        "1,000_000",
        ",100",
        "1.000,5",
        "1.0,000",
        "1 2",
        "9" * 80,
        str(AMOUNT_MAX),
    ],
)
def test_what_is_not_an_amount_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        BTC.parse(text)


@pytest.mark.parametrize(
    ("units", "places", "text"),
    [
        (0, 0, "0 BTC"),
        (1, 0, "0.00000001 BTC"),
        (-1, 0, "-0.00000001 BTC"),
        (123_456_700_000_000, 0, "1,234,567 BTC"),
        (100_000_000, 2, "1.00 BTC"),
        (150_000_000, 99, "1.50000000 BTC"),
    ],
)
def test_amounts_are_printed_with_their_asset(units: int, places: int, text: str) -> None:
    assert BTC.format(units, places=places) == text


@pytest.mark.parametrize(
    ("code", "scale"), [("btc", 8), ("", 0), ("1INCH", 18), ("A" * 33, 2), ("X", -1), ("X", 37)]
)
def test_impossible_assets_are_refused(code: str, scale: int) -> None:
    with pytest.raises(BadInput):
        Asset(code, scale)


@given(UNITS, POSITIVE)
def test_rounding_is_towards_or_away_from_zero_by_less_than_one(n: int, d: int) -> None:
    exact = Fraction(n, d)
    down, up = divide(n, d, Rounding.DOWN), divide(n, d, Rounding.UP)

    assert abs(down) <= abs(exact) <= abs(up)
    assert abs(exact) - abs(down) < 1
    assert abs(up) - abs(exact) < 1
    assert divide(-n, d, Rounding.UP) == -up


@given(UNITS, POSITIVE)
def test_an_exact_division_has_no_remainder_or_is_refused(n: int, d: int) -> None:
    assert divide(n * d, d, Rounding.EXACT) == n
    assume(n % d)
    with pytest.raises(BadInput, match="multiple"):
        divide(n, d, Rounding.EXACT)


@pytest.mark.parametrize("denominator", [0, -1])
def test_nothing_is_divided_by_less_than_one(denominator: int) -> None:
    with pytest.raises(BadInput):
        divide(1, denominator, Rounding.DOWN)


@given(UNITS, SCALES, SCALES)
def test_a_finer_scale_and_back_loses_nothing(units: int, one: int, other: int) -> None:
    coarse, fine = sorted((one, other))
    assert rescale(rescale(units, coarse, fine), fine, coarse) == units


def test_a_coarser_scale_is_exact_or_refused() -> None:
    assert rescale(1_500, 3, 1) == 15
    with pytest.raises(BadInput):
        rescale(1_501, 3, 1)
    assert rescale(1_501, 3, 1, Rounding.UP) == 16


def test_a_price_converts_and_names_who_keeps_the_rest() -> None:
    price = Price.parse("60000.25", BTC, USD)

    assert price.to_quote(10**8, Rounding.EXACT) == 6_000_025
    assert price.to_quote(1, Rounding.DOWN) == 0
    assert price.to_quote(1, Rounding.UP) == 1
    assert price.to_base(6_000_025, Rounding.EXACT) == 10**8
    assert price.format(2) == "60,000.25 USD/BTC"


@given(POSITIVE, POSITIVE, st.integers(0, 10**30))
def test_a_price_is_the_ratio_it_was_made_of(numerator: int, denominator: int, units: int) -> None:
    price = Price.of(numerator, denominator, BTC, USD)

    down = price.to_quote(units, Rounding.DOWN)
    assert down == units * numerator // denominator
    assert price == Price.of(numerator * 7, denominator * 7, BTC, USD)


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "0.00", "60,0", "1 2"])
def test_a_price_is_positive(text: str) -> None:
    with pytest.raises(BadInput):
        Price.parse(text, BTC, USD)
