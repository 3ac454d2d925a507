"""Lots at average and FIFO cost: worked examples, and what holds whatever happens."""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.money import Asset, Price, Rounding
from reporting.valuation.lots import build_layer
from reporting.valuation.measuring import find_untied, measure_lines
from reporting.valuation.model import Exchange, Layer, LineKind, Method, Movement, Single
from reporting.valuation.movements import position_of, rates_needed
from trading.pnl.model import Marks

USD = Asset("USD", 2)
BTC = Asset("BTC", 3)
EUR = Asset("EUR", 2)
DAY = date(2026, 1, 5)
RATES = {"BTC": Price.parse("58000", BTC, USD), "EUR": Price.parse("1.1", EUR, USD)}
AT = datetime(2026, 1, 6, tzinfo=UTC)
MARKS = Marks(currency=USD, at=AT, prices=RATES)


def rate(asset: str, day: date) -> Price:
    assert day == DAY
    return RATES[asset]


def movement(number: int, *what: Exchange | Single) -> Movement:
    return Movement(
        id=UUID(int=number),
        sequence=number,
        day=DAY,
        exchanges=tuple(item for item in what if isinstance(item, Exchange)),
        singles=tuple(item for item in what if isinstance(item, Single)),
    )


def trades(*lines: str) -> list[Movement]:
    """Read ``buy 1 at 100``: BTC against USD."""
    found = []
    for number, line in enumerate(lines, start=1):
        word, amount, _, price = line.split()
        units = BTC.parse(amount) * (1 if word == "buy" else -1)
        value = Price.parse(price, BTC, USD).to_quote(abs(units), Rounding.EXACT)
        found.append(
            movement(number, Exchange("BTC", units, "USD", -value if units > 0 else value))
        )
    return found


STORIES = {
    "bought and held": (("buy 1 at 100",), ("0", "1 for 100"), ("0", "1 for 100")),
    "one sold out of two lots": (
        ("buy 1 at 100", "buy 1 at 200", "sell 1 at 300"),
        ("150", "1 for 150"),
        ("200", "1 for 200"),
    ),
    "a part of the oldest lot": (
        ("buy 2 at 100", "buy 2 at 200", "sell 1 at 150"),
        ("0", "3 for 450"),
        ("50", "3 for 500"),
    ),
    "all sold": (
        ("buy 1 at 100", "buy 1 at 200", "sell 2 at 180"),
        ("60", "0 for 0"),
        ("60", "0 for 0"),
    ),
    "sold before it is bought": (
        ("sell 2 at 300", "buy 1 at 280"),
        ("20", "-1 for -300"),
        ("20", "-1 for -300"),
    ),
    "two shorts closed in part": (
        ("sell 1 at 300", "sell 1 at 200", "buy 1 at 210"),
        ("40", "-1 for -250"),
        ("90", "-1 for -200"),
    ),
    "from long through zero to short": (
        ("buy 1 at 100", "sell 3 at 120"),
        ("20", "-2 for -240"),
        ("20", "-2 for -240"),
    ),
    "the desk sells ten at 60,000 that cost 58,000": (
        ("buy 10 at 58000", "sell 10 at 60000"),
        ("20000", "0 for 0"),
        ("20000", "0 for 0"),
    ),
}


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("name", STORIES)
def test_what_is_realised_and_what_stays(name: str, method: Method) -> None:
    lines, average, fifo = STORIES[name]

    holding = build_layer(trades(*lines), "USD", method, rate).holdings["BTC"]

    held = f"{BTC.format(holding.units, code=False)} for " + USD.format(holding.cost, code=False)
    realised = USD.format(holding.realised, code=False).replace(",", "")
    assert (realised, held) == (average if method is Method.AVERAGE else fifo)


def test_the_last_unit_of_a_lot_takes_all_that_is_left_of_its_cost() -> None:
    parts = [movement(1, Exchange("BTC", 3, "USD", -100))]
    parts += [movement(n, Exchange("BTC", -1, "USD", 40)) for n in (2, 3, 4)]

    realised = [
        build_layer(parts[:count], "USD", Method.FIFO, rate).holdings["BTC"].realised
        for count in (2, 3, 4)
    ]

    assert realised == [40 - 33, 80 - 66, 120 - 100]


def test_neither_side_is_the_currency_so_the_day_s_close_values_both() -> None:
    deal = movement(1, Exchange("BTC", 1_000, "EUR", -5_000_000))

    layer = build_layer([deal], "USD", Method.FIFO, rate)

    assert layer.holdings["BTC"].cost == 5_500_000
    assert layer.holdings["EUR"].cost == -5_500_000
    assert layer.cash == 0
    assert rates_needed([deal], "USD") == {DAY: {"EUR"}}


def test_a_fee_in_kind_is_an_expense_at_its_value_and_leaves_no_gain_behind() -> None:
    bought = movement(1, Exchange("BTC", 1_000, "USD", -5_800_000))
    fee = movement(2, Single(LineKind.EXPENSE, "expense:network-fee", "BTC", -10))

    layer = build_layer([bought, fee], "USD", Method.FIFO, rate)

    assert layer.totals == {(LineKind.EXPENSE, "expense:network-fee", "BTC"): (-10, -58_000)}
    assert (layer.holdings["BTC"].units, layer.holdings["BTC"].realised) == (990, 0)


def test_capital_is_no_result_and_an_unknown_interval_starts_from_nothing() -> None:
    given_ = movement(1, Single(LineKind.CAPITAL, "equity:capital", "BTC", 1_000))

    after = build_layer([given_], "USD", Method.AVERAGE, rate)
    lines = measure_lines(Layer(), after, MARKS, MARKS)

    assert [(line.kind, line.value) for line in lines] == [
        (LineKind.UNREALISED, 0),
        (LineKind.CAPITAL, 5_800_000),
    ]
    assert find_untied(lines, Layer(), after, MARKS, MARKS) == 0


UNITS = st.integers(-(10**24), 10**24).filter(bool)
EXCHANGES = st.builds(
    Exchange,
    st.sampled_from(["BTC", "ETH"]),
    UNITS,
    st.sampled_from(["USD", "EUR"]),
    st.integers(-(10**12), 10**12),
)
SINGLES = st.builds(
    Single,
    st.sampled_from(list(LineKind)[2:]),
    st.sampled_from(["income:fee", "expense:loss", "equity:capital"]),
    st.sampled_from(["BTC", "EUR", "USD"]),
    UNITS,
)
ETH = Asset("ETH", 18)
ALL = {**RATES, "ETH": Price.parse("3000.17", ETH, USD)}


@given(
    st.lists(st.lists(EXCHANGES | SINGLES, min_size=1, max_size=3), max_size=12),
    st.integers(0, 12),
    st.sampled_from(Method),
)
def test_cash_and_cost_are_capital_income_and_gains_whatever_was_rounded(
    stories: list[list[Exchange | Single]], split: int, method: Method
) -> None:
    moves = [movement(number, *what) for number, what in enumerate(stories, start=1)]
    marks = Marks(currency=USD, at=AT, prices=ALL)
    before, after = [
        build_layer(part, "USD", method, lambda asset, _: ALL[asset])
        for part in (moves[:split], moves)
    ]

    costs = sum(holding.cost for holding in after.holdings.values())
    gains = sum(holding.realised for holding in after.holdings.values())
    assert after.cash + costs == gains + sum(value for _, value in after.totals.values())
    assert after.position("USD") == position_of(moves)
    assert find_untied(measure_lines(before, after, marks, marks), before, after, marks, marks) == 0
    for holding in after.holdings.values():
        assert len({lot.units > 0 for lot in holding.lots}) <= 1, "never long and short at once"
        assert all(lot.units for lot in holding.lots)


@given(st.lists(st.tuples(UNITS, UNITS), max_size=20))
def test_both_methods_gain_the_same_once_all_is_closed(legs: list[tuple[int, int]]) -> None:
    moves = [
        movement(n, Exchange("BTC", units, "USD", cash)) for n, (units, cash) in enumerate(legs, 1)
    ]
    open_ = sum(units for units, _ in legs)
    moves.append(movement(len(moves) + 1, Exchange("BTC", -open_, "USD", 12_345)))

    gained = {build_layer(moves, "USD", method, rate).holdings["BTC"].realised for method in Method}

    assert gained == {sum(cash for _, cash in legs) + 12_345}
