"""Values of profit and loss: flows, their matches, the lines of a result, marks, runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, unique
from fractions import Fraction
from typing import Final
from uuid import UUID

from kernel.errors import BadInput
from kernel.money import Asset, Price


@unique
class FlowKind(StrEnum):
    """What moved the account."""

    CLIENT = "client"
    """A deal with a client."""
    HEDGE = "hedge"
    """A deal with a liquidity provider."""
    TRANSFER = "transfer"
    """A deal between the desk and treasury."""
    FILL = "fill"
    """A trade of ours at a venue, less what the venue took in the base asset."""
    FEE = "fee"
    """What a venue took in a third asset, against its value at the fill."""
    OTHER = "other"
    """A posting that is none of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What one deal or fill did to ``conversion:<desk>``; positive: the desk got it.

    Attributes:
        id: of the deal, of the fill, or of the posting's correlation.
        sequence: of its first posting in the journal.
        base_units, quote_units: in smallest units; of `FlowKind.OTHER` there is a base only.
        mid_units: what the desk would have got or paid for the base at the mid, in units of the quote;
            None: it is no client's deal, or none is on record.
        charges: (asset, units) beside the account: a deal's fee above zero, a venue's below.
    """

    id: UUID
    kind: FlowKind
    sequence: int
    base: str
    base_units: int
    quote: str = ""
    quote_units: int = 0
    mid_units: int | None = None
    charges: tuple[tuple[str, int], ...] = ()

    @property
    def is_client(self) -> bool:
        """Return whether it is a deal with a client, which a hedge is for."""
        return self.kind is FlowKind.CLIENT

    @property
    def lacks_mid(self) -> bool:
        """Return whether its spread is not known: a client's deal without a mid."""
        return self.is_client and self.mid_units is None

    @property
    def reference_units(self) -> int:
        """Return the value that matches are measured from: at the mid, else as paid."""
        return self.quote_units if self.mid_units is None else self.mid_units


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a flow: base, reference value and venue's charges, with the signs of the flow's."""

    flow: Flow
    units: int
    value: int
    charges: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """Equal and opposite parts of two flows of one base asset."""

    older: Slice
    newer: Slice


@dataclass(frozen=True, slots=True)
class Allocation:
    """All flows, what of them met, and what is open: oldest first, of one sign for each asset."""

    flows: tuple[Flow, ...]
    matches: tuple[Match, ...]
    open: tuple[Slice, ...]


@unique
class Component(StrEnum):
    """A part of the result; docs/profit-and-loss.md defines each."""

    CLIENT_SPREAD = "client_spread"
    INTERNALISED = "internalised"
    HEDGE_SLIPPAGE = "hedge_slippage"
    UNWIND = "unwind"
    INVENTORY = "inventory"
    REVALUATION = "revaluation"
    OTHER = "other"
    DEAL_FEE = "deal_fee"
    VENUE_FEE = "venue_fee"

    @property
    def is_charge(self) -> bool:
        """Return whether it stands beside the account instead of in it."""
        return self in {Component.DEAL_FEE, Component.VENUE_FEE}


_RANK: Final = {component: rank for rank, component in enumerate(Component)}


@dataclass(frozen=True, slots=True)
class Cause:
    """What a line is of: the component, the deal that owns it, and what it met.

    Attributes:
        deal: None: it belongs to no deal.
        flow: the fill or other deal of a match; without a deal, the flow itself.
        base: the asset that was dealt in.
    """

    component: Component
    deal: UUID | None
    flow: UUID | None
    base: str

    @property
    def key(self) -> tuple[int, str, int, int]:
        """Return what puts lines in their order: by component as declared, asset, deal, flow."""
        return (
            *(_RANK[self.component], self.base),
            *(self.deal.int if self.deal else 0, self.flow.int if self.flow else 0),
        )


@dataclass(frozen=True, slots=True)
class Line:
    """One amount of one asset, in smallest units; positive is gain."""

    cause: Cause
    asset: str
    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What assets are worth in *currency* at one moment.

    Attributes:
        prices: by asset code; of the currency itself there is none.
        price_ids: of the recorded prices.
    """

    currency: Asset
    at: datetime
    prices: Mapping[str, Price] = field(default_factory=dict)
    price_ids: Mapping[str, UUID] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for code, price in self.prices.items():
            if (price.base.code, price.quote) != (code, self.currency):
                raise BadInput(f"a mark of {code} is not a price in {price.quote.code}")

    def of(self, asset: str) -> Fraction:
        """Return units of the currency for one smallest unit of *asset*.

        Raises:
            BadInput: there is no mark of it.
        """
        if asset == self.currency.code:
            return Fraction(1)
        price = self.prices.get(asset)
        if price is None:
            raise BadInput(f"there is no mark of {asset} in {self.currency.code}")
        return Fraction(price.numerator, price.denominator)


@dataclass(frozen=True, slots=True)
class ValuedLine:
    """A line of an interval: its units, at the marks of which end, and its value in the currency."""

    cause: Cause
    asset: str
    units: int
    at_end: bool
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an interval came to.

    Attributes:
        account_value: the change of the account's value, from the balances that the lines add up to.
        without_mid: client deals recorded by the end that have no mid: their spread is shown as 0.
    """

    currency: Asset
    lines: tuple[ValuedLine, ...]
    account_value: Fraction
    without_mid: tuple[UUID, ...]

    @property
    def trading(self) -> int:
        """Return the trading result in smallest units of the currency."""
        return sum(item.value for item in self.lines if not item.cause.component.is_charge)

    @property
    def net(self) -> int:
        """Return the trading result with fees."""
        return sum(item.value for item in self.lines)

    @property
    def by_component(self) -> dict[Component, int]:
        """Return the value of each component, those without any left out."""
        found: dict[Component, int] = {}
        for item in self.lines:
            component = item.cause.component
            found[component] = found.get(component, 0) + item.value
        return found

    @property
    def by_deal(self) -> dict[UUID | None, dict[Component, int]]:
        """Return the same for each deal, and for what belongs to none."""
        found: dict[UUID | None, dict[Component, int]] = {}
        for item in self.lines:
            mine = found.setdefault(item.cause.deal, {})
            mine[item.cause.component] = mine.get(item.cause.component, 0) + item.value
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Of what a result is: a desk's journal behind one sequence number, up to another.

    Attributes:
        since, until: the moments of the two ends; *until* itself does not belong to it.
        after, through: the last sequence number before it, and the last one in it.
    """

    book: int
    desk: str
    since: datetime
    until: datetime
    after: int
    through: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A result with all that it was made of.

    Attributes:
        inputs_hash: SHA-256 over flows and marks of both ends, hexadecimal.
        lines_hash: SHA-256 over the valued lines in their order, hexadecimal.
    """

    id: UUID
    interval: Interval
    start: Marks
    end: Marks
    inputs_hash: str
    lines_hash: str
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as it was recorded; its lines and marks are rows of their own."""

    id: UUID
    interval: Interval
    currency: Asset
    inputs_hash: str
    lines_hash: str
    trading: int
    net: int
    run_by: str
    run_at: datetime
