"""Values of valuations: what moved the house's own position, its lots, the lines of a result.

Units are smallest units of an asset; values are smallest units of the functional currency. What the
house has more of is above zero everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum, unique
from typing import Final
from uuid import UUID

from kernel.money import Asset
from trading.pnl.model import Marks


@unique
class Method(StrEnum):
    """Which cost leaves with what is sold."""

    AVERAGE = "average"
    FIFO = "fifo"


@unique
class LineKind(StrEnum):
    """What a line of a result is."""

    REALISED = "realised"
    """What was gained on what was closed: what came in for it less its cost."""
    UNREALISED = "unrealised"
    """By how much the value of what is open, less its cost, has changed."""
    INCOME = "income"
    EXPENSE = "expense"
    CAPITAL = "capital"
    """What owners put in or took out: no part of the result."""


RESULT_KINDS: Final = frozenset(LineKind) - {LineKind.CAPITAL}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One asset against another: a deal, a fill, a venue's fee in kind against its value."""

    base: str
    base_units: int
    quote: str
    quote_units: int


@dataclass(frozen=True, slots=True)
class Single:
    """What came or went without anything in exchange; its value is that of its day's close."""

    kind: LineKind
    account: str
    asset: str
    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """Everything that one deal, fill or other correlation did to the house's own position.

    Attributes:
        sequence: of its first posting.
        day: on which it counts: whose close values what has no price of its own.
    """

    id: UUID
    sequence: int
    day: date
    exchanges: tuple[Exchange, ...] = ()
    singles: tuple[Single, ...] = ()


@dataclass(frozen=True, slots=True)
class Lot:
    """Units that came at one cost; both below zero: sold before they were bought.

    Attributes:
        sequence: of the movement that opened it; of an average, of the first one.
    """

    units: int
    cost: int
    sequence: int
    day: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One asset: its open lots, what was closed so far, and what that gained."""

    lots: tuple[Lot, ...] = ()
    closed: int = 0
    realised: int = 0

    @property
    def units(self) -> int:
        """Return what is open."""
        return sum(lot.units for lot in self.lots)

    @property
    def cost(self) -> int:
        """Return what it cost."""
        return sum(lot.cost for lot in self.lots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The lots of a book at one record of its journal.

    Attributes:
        cash: the functional currency itself.
        holdings: every other asset.
        totals: (kind, account, asset) to (units, value) of what came or went without exchange.
    """

    cash: int = 0
    holdings: Mapping[str, Holding] = field(default_factory=dict)
    totals: Mapping[tuple[LineKind, str, str], tuple[int, int]] = field(default_factory=dict)

    def position(self, currency: str) -> dict[str, int]:
        """Return what the house has of its own by asset; zero is left out."""
        found = {code: holding.units for code, holding in self.holdings.items()}
        return {code: units for code, units in {**found, currency: self.cash}.items() if units}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a result."""

    kind: LineKind
    account: str
    asset: str
    units: int
    value: int


@dataclass(frozen=True, slots=True)
class HoldingLine:
    """What is held at the end: units, cost and fair value."""

    asset: str
    units: int
    cost: int
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A book's journal behind one record, up to another; *until* itself does not belong to it."""

    book: int
    since: datetime
    until: datetime
    after: int
    through: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """The prices that a valuation uses: at both ends, and at the close of single days."""

    start: Marks
    end: Marks
    days: Mapping[date, Marks]


@dataclass(frozen=True, slots=True, kw_only=True)
class Valuation:
    """A result with all that it was made of."""

    id: UUID
    interval: Interval
    currency: Asset
    method: Method
    prices: Prices
    inputs_hash: str
    lines_hash: str
    lines: tuple[Line, ...]
    holdings: tuple[HoldingLine, ...]

    def total(self, *kinds: LineKind) -> int:
        """Return the value of the lines of these kinds."""
        return sum(line.value for line in self.lines if line.kind in kinds)

    @property
    def net(self) -> int:
        """Return the result: realised, unrealised, income and expenses."""
        return self.total(*RESULT_KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuationRecord:
    """A valuation as it was recorded; its prices and lines are rows of their own."""

    id: UUID
    interval: Interval
    currency: Asset
    method: Method
    inputs_hash: str
    lines_hash: str
    realised: int
    unrealised: int
    net: int
    run_by: str
    run_at: datetime
