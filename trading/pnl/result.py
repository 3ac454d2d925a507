"""What an allocation came to: lines that add up to the account, then their value. Pure.

The definitions are those of docs/profit-and-loss.md, sections 3 and 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, lcm
from uuid import UUID

from trading.pnl.model import (
    Allocation,
    Cause,
    Component,
    Flow,
    FlowKind,
    Line,
    Marks,
    Match,
    Result,
    Slice,
    ValuedLine,
)


def held(flows: Iterable[Flow]) -> dict[str, int]:
    """Return what the flows left in the account, by asset, in smallest units; zero is left out."""
    found: Counter[str] = Counter()
    for flow in flows:
        found[flow.base] += flow.base_units
        found[flow.quote] += flow.quote_units
    return {asset: units for asset, units in found.items() if units}


def lines_of(allocation: Allocation) -> tuple[Line, ...]:
    """Return the lines of everything up to the end of *allocation*, in no order.

    Without those of charges they add up, asset by asset, to `held` of its flows.
    """
    found: Counter[tuple[Cause, str]] = Counter()
    for line in _every_line(allocation):
        found[line.cause, line.asset] += line.units
    lines = tuple(Line(cause, asset, units) for (cause, asset), units in found.items() if units)
    assert _account_of(lines) == held(allocation.flows), "every unit has one cause"
    return lines


@dataclass(frozen=True, slots=True)
class Weighed:
    """A line, and at the marks of which end it counts."""

    line: Line
    at_end: bool

    def key(self) -> tuple[object, ...]:
        """Return what puts weighed lines in their order."""
        return self.line.cause.key, self.line.asset, self.at_end


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """What happened between two allocations, before any mark is looked at.

    Attributes:
        weighed: in their order.
        held_before, held_after: the account at both ends, by asset, in smallest units.
    """

    weighed: tuple[Weighed, ...]
    held_before: Mapping[str, int]
    held_after: Mapping[str, int]
    without_mid: tuple[UUID, ...]

    def assets(self, *, at_end: bool) -> set[str]:
        """Return the assets whose marks of one end `measure` asks for: no more than weigh in."""
        return {item.line.asset for item in self.weighed if item.at_end is at_end}


def movement(before: Allocation, after: Allocation, currency: str) -> Movement:
    """Return what happened from the end of *before* to the end of *after*, counted in *currency*.

    Args:
        before: of the flows up to the start; without any where the desk began.
        after: of the flows up to the end: those of before, less what was taken back, and more.
    """
    earlier, later = lines_of(before), lines_of(after)
    weighed = [*_realised(earlier, later), *_carried(earlier, later, currency)]
    return Movement(
        weighed=tuple(sorted(weighed, key=Weighed.key)),
        held_before=held(before.flows),
        held_after=held(after.flows),
        without_mid=tuple(flow.id for flow in after.flows if flow.lacks_mid),
    )


def measure(moved: Movement, start: Marks, end: Marks) -> Result:
    """Return the result of a movement at the marks of its ends, in the currency it is counted in.

    Raises:
        BadInput: an asset has no mark.
    """
    result = Result(
        currency=end.currency,
        lines=tuple(_valued(moved.weighed, start, end)),
        account_value=worth(moved.held_after, end) - worth(moved.held_before, start),
        without_mid=moved.without_mid,
    )
    assert result.trading == floor(result.account_value), "the lines are the account"
    return result


def worth(units: Mapping[str, int], marks: Marks) -> Fraction:
    """Return the exact value of holdings in the currency of *marks*.

    Raises:
        BadInput: an asset that is held has no mark.
    """
    return sum(
        (held_units * marks.of(asset) for asset, held_units in units.items() if held_units),
        start=Fraction(0),
    )


def _realised(before: Iterable[Line], after: Iterable[Line]) -> Iterator[Weighed]:
    """Yield what came and went of everything that is not open, at the marks of the end."""
    change: Counter[tuple[Cause, str]] = Counter()
    for lines, sign in ((after, 1), (before, -1)):
        for line in lines:
            if line.cause.component is not Component.INVENTORY:
                change[line.cause, line.asset] += sign * line.units
    for (cause, asset), units in change.items():
        if units:
            yield Weighed(Line(cause, asset, units), at_end=True)


def _carried(before: Iterable[Line], after: Iterable[Line], currency: str) -> Iterator[Weighed]:
    """Yield what is open at both ends, and what the marks made of all that was there before."""
    closed: Counter[str] = Counter()
    for line in after:
        if line.cause.component is Component.INVENTORY:
            yield Weighed(line, at_end=True)
    for line in before:
        if line.cause.component is Component.INVENTORY:
            yield Weighed(Line(line.cause, line.asset, -line.units), at_end=False)
        elif not line.cause.component.is_charge and line.asset != currency:
            closed[line.asset] += line.units
    for asset, units in closed.items():
        if units:
            cause = Cause(Component.REVALUATION, None, None, asset)
            yield Weighed(Line(cause, asset, units), at_end=True)
            yield Weighed(Line(cause, asset, -units), at_end=False)


def _valued(items: Sequence[Weighed], start: Marks, end: Marks) -> Iterator[ValuedLine]:
    """Yield the lines with their values: how far the floor of the exact sum moves with each."""
    weights = {
        (item.line.asset, item.at_end): (end if item.at_end else start).of(item.line.asset)
        for item in items
    }
    # One denominator for all: then the sum is one of integers.
    common = lcm(*(weight.denominator for weight in weights.values()))
    exact = 0
    for item in items:
        line, weight = item.line, weights[item.line.asset, item.at_end]
        floor_before = exact // common
        exact += line.units * weight.numerator * (common // weight.denominator)
        value = exact // common - floor_before
        yield ValuedLine(line.cause, line.asset, line.units, item.at_end, value)


def _every_line(allocation: Allocation) -> Iterator[Line]:
    for flow in allocation.flows:
        yield from _of_flow(flow)
    for match in allocation.matches:
        yield from _of_match(match)
    for part in allocation.open:
        yield from _of_open(part)


def _of_flow(flow: Flow) -> Iterator[Line]:
    """Yield what a flow comes to by itself."""
    if flow.kind is FlowKind.OTHER:
        yield Line(Cause(Component.OTHER, None, flow.id, flow.base), flow.base, flow.base_units)
    elif flow.is_client:
        spread = Cause(Component.CLIENT_SPREAD, flow.id, None, flow.base)
        yield Line(spread, flow.quote, flow.quote_units - flow.reference_units)
        fee = Cause(Component.DEAL_FEE, flow.id, None, flow.base)
        yield from _amounts(fee, flow.charges)
    elif not flow.base_units:
        # A fee as large as its fill: nothing to match, the money went all the same.
        yield Line(Cause(Component.UNWIND, None, flow.id, flow.base), flow.quote, flow.quote_units)
        yield from _amounts(Cause(Component.VENUE_FEE, None, flow.id, flow.base), flow.charges)


def _of_match(match: Match) -> Iterator[Line]:
    """Yield the two reference values of a match, and the venues' fees of both parts."""
    older, newer = match.older, match.newer
    cause = _cause(older.flow, newer.flow)
    for part in (older, newer):
        yield Line(cause, part.flow.quote, part.value)
        fee = Cause(Component.VENUE_FEE, cause.deal, part.flow.id, cause.base)
        yield from _amounts(fee, part.charges)


def _of_open(part: Slice) -> Iterator[Line]:
    """Yield what is open: the base, against its reference value."""
    flow = part.flow
    deal, met = (flow.id, None) if flow.is_client else (None, flow.id)
    cause = Cause(Component.INVENTORY, deal, met, flow.base)
    yield Line(cause, flow.base, part.units)
    yield Line(cause, flow.quote, part.value)
    yield from _amounts(Cause(Component.VENUE_FEE, deal, met, flow.base), part.charges)


def _cause(older: Flow, newer: Flow) -> Cause:
    """Return what a match is: it belongs to the client's deal in it, of two to the older."""
    if older.is_client and newer.is_client:
        return Cause(Component.INTERNALISED, older.id, newer.id, older.base)
    if older.is_client:
        return Cause(Component.HEDGE_SLIPPAGE, older.id, newer.id, older.base)
    if newer.is_client:
        return Cause(Component.HEDGE_SLIPPAGE, newer.id, older.id, older.base)
    return Cause(Component.UNWIND, None, newer.id, older.base)


def _amounts(cause: Cause, amounts: Iterable[tuple[str, int]]) -> Iterator[Line]:
    for asset, units in amounts:
        yield Line(cause, asset, units)


def _account_of(lines: Iterable[Line]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for line in lines:
        if not line.cause.component.is_charge:
            found[line.asset] += line.units
    return {asset: units for asset, units in found.items() if units}
