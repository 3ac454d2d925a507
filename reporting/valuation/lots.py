"""Lots at average or FIFO cost, exact in integers. Pure.

One rule for both methods: what comes on the side of what is open makes a lot; what comes against it
closes the oldest lots first, each with its cost in proportion, the last unit with all that is left. At
average cost there is one lot, into which each new one is merged. Positions may be short: then lots have
units and cost below zero, and the same formulas hold.

Must be preserved, in the functional currency: cash and cost of the lots are capital, income, expenses and
realised gains, exactly, whatever was rounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from datetime import date

from kernel.money import Price, Rounding, divide
from reporting.valuation.model import Exchange, Holding, Layer, LineKind, Lot, Method, Movement

Rate = Callable[[str, date], Price]
"""The price of an asset in the functional currency at a day's close."""


def build_layer(movements: Iterable[Movement], currency: str, method: Method, rate: Rate) -> Layer:
    """Return the lots after all *movements*, which are in the journal's order."""
    books = _Books(currency, method, rate)
    for movement in movements:
        books.apply(movement)
    return books.layer()


class _Holding:
    """The lots of one asset while they are being built."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.lots: deque[Lot] = deque()
        self.closed = 0
        self.realised = 0

    def take(self, units: int, value: int, sequence: int, day: date) -> None:
        """Take *units* at *value*, both of one sign: above zero they come, below zero they go."""
        while units and self.lots and (self.lots[0].units > 0) is not (units > 0):
            lot = self.lots[0]
            count = min(abs(units), abs(lot.units))
            part = units if abs(units) == count else (count if units > 0 else -count)
            value_part = divide(value * count, abs(units), Rounding.DOWN)
            cost_part = divide(lot.cost * count, abs(lot.units), Rounding.DOWN)
            self._leave(lot, part, cost_part)
            self.closed += count
            self.realised -= value_part + cost_part
            units, value = units - part, value - value_part
        if units:
            self._add(Lot(units, value, sequence, day))
        elif value:
            # A value without units is a gain or a loss of what is held, whatever it is.
            self.realised -= value

    def _leave(self, lot: Lot, part: int, cost_part: int) -> None:
        self.lots.popleft()
        rest = lot.units + part
        if rest:
            self.lots.appendleft(Lot(rest, lot.cost - cost_part, lot.sequence, lot.day))

    def _add(self, lot: Lot) -> None:
        if self.method is Method.AVERAGE and self.lots:
            known = self.lots.pop()
            lot = Lot(known.units + lot.units, known.cost + lot.cost, known.sequence, known.day)
        self.lots.append(lot)


class _Books:
    """A layer while it is being built."""

    def __init__(self, currency: str, method: Method, rate: Rate) -> None:
        self.currency = currency
        self.method = method
        self.rate = rate
        self.cash = 0
        self.holdings: dict[str, _Holding] = {}
        self.totals: dict[tuple[LineKind, str, str], tuple[int, int]] = {}

    def layer(self) -> Layer:
        """Return what was built."""
        return Layer(
            cash=self.cash,
            holdings={
                code: Holding(lots=tuple(item.lots), closed=item.closed, realised=item.realised)
                for code, item in self.holdings.items()
            },
            totals=dict(self.totals),
        )

    def apply(self, movement: Movement) -> None:
        """Apply one movement."""
        for exchange in movement.exchanges:
            self._exchange(exchange, movement)
        for asset in sorted({single.asset for single in movement.singles}):
            self._single(asset, movement)

    def _exchange(self, exchange: Exchange, movement: Movement) -> None:
        value = self._value(exchange, movement.day)
        self._take(exchange.base, exchange.base_units, value, movement)
        self._take(exchange.quote, exchange.quote_units, -value, movement)

    def _value(self, exchange: Exchange, day: date) -> int:
        """Return what the base came for, in the functional currency."""
        if exchange.quote == self.currency:
            return -exchange.quote_units
        if exchange.base == self.currency:
            return exchange.base_units
        price = self.rate(exchange.quote, day)
        return -price.to_quote(exchange.quote_units, Rounding.DOWN)

    def _single(self, asset: str, movement: Movement) -> None:
        """Value what came or went of one asset: together as one amount, so that nothing is lost."""
        mine = [single for single in movement.singles if single.asset == asset]
        net = sum(single.units for single in mine)
        value = self._worth(asset, net, movement.day)
        rest = value
        for number, single in enumerate(mine, start=1):
            last = number == len(mine)
            part = rest if last else self._worth(asset, single.units, movement.day)
            rest -= part
            key = (single.kind, single.account, asset)
            units_before, value_before = self.totals.get(key, (0, 0))
            self.totals[key] = (units_before + single.units, value_before + part)
        self._take(asset, net, value, movement)

    def _worth(self, asset: str, units: int, day: date) -> int:
        if asset == self.currency:
            return units
        return self.rate(asset, day).to_quote(units, Rounding.DOWN)

    def _take(self, asset: str, units: int, value: int, movement: Movement) -> None:
        if asset == self.currency:
            self.cash += units
            return
        holding = self.holdings.setdefault(asset, _Holding(self.method))
        holding.take(units, value, movement.sequence, movement.day)
