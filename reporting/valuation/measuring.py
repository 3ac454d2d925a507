"""The lines of a result: the difference of two layers at the marks of two moments. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from kernel.money import Rounding
from reporting.valuation.model import (
    RESULT_KINDS,
    Holding,
    HoldingLine,
    Layer,
    Line,
    LineKind,
)
from trading.pnl.model import Marks

_NOTHING = Holding()


def measure_lines(before: Layer, after: Layer, start: Marks, end: Marks) -> tuple[Line, ...]:
    """Return the lines of what lies between two layers; those without units and value are left out."""
    lines = [*_gains(before, after, start, end), *_totals(before, after)]
    return tuple(line for line in lines if line.units or line.value)


def list_holdings(layer: Layer, marks: Marks) -> tuple[HoldingLine, ...]:
    """Return units, cost and fair value of what is held, by asset; the currency itself first."""
    currency = marks.currency.code
    cash = HoldingLine(currency, layer.cash, layer.cash, layer.cash)
    return (
        *((cash,) if layer.cash else ()),
        *(
            HoldingLine(code, item.units, item.cost, _worth(code, item.units, marks))
            for code, item in sorted(layer.holdings.items())
            if item.units
        ),
    )


def find_untied(
    lines: tuple[Line, ...], before: Layer, after: Layer, start: Marks, end: Marks
) -> int:
    """Return by how much the result is not the change of what the house's own is worth; 0 is right.

    The worth of the positions at both ends knows nothing of lots, costs and days' closes.
    """
    capital = sum(line.value for line in lines if line.kind is LineKind.CAPITAL)
    net = sum(line.value for line in lines if line.kind in RESULT_KINDS)
    return net - (_own_worth(after, end) - _own_worth(before, start) - capital)


def _own_worth(layer: Layer, marks: Marks) -> int:
    position = layer.position(marks.currency.code)
    return sum(_worth(code, units, marks) for code, units in position.items())


def _gains(before: Layer, after: Layer, start: Marks, end: Marks) -> Iterator[Line]:
    for code in sorted({*before.holdings, *after.holdings}):
        old, new = before.holdings.get(code, _NOTHING), after.holdings.get(code, _NOTHING)
        yield Line(
            LineKind.REALISED, "", code, new.closed - old.closed, new.realised - old.realised
        )
        gone = _worth(code, old.units, start) - old.cost
        yield Line(
            LineKind.UNREALISED,
            "",
            code,
            new.units,
            _worth(code, new.units, end) - new.cost - gone,
        )


def _totals(before: Layer, after: Layer) -> Iterator[Line]:
    for key in sorted({*before.totals, *after.totals}):
        kind, account, asset = key
        units, value = after.totals.get(key, (0, 0))
        old_units, old_value = before.totals.get(key, (0, 0))
        yield Line(kind, account, asset, units - old_units, value - old_value)


def _worth(code: str, units: int, marks: Marks) -> int:
    if not units or code == marks.currency.code:
        return units
    # `Marks.of` says by name which mark is missing.
    marks.of(code)
    return marks.prices[code].to_quote(units, Rounding.DOWN)
