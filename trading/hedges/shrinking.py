"""Less of a plan, where a limit of the desk forbids all of it: some hedge now is better than none for ever.

Legs only ever become smaller, or are left out; what they leave is the next look's. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from risk.model import Breach, Violation
from trading.hedges.decision import HedgePlan, described, signed
from trading.routing import Place, RouteLeg

COUNTED: Final = frozenset({Violation.ORDER_RATE, Violation.TOO_MANY_UNKNOWN})


def shrunk(
    plan: HedgePlan, places: Sequence[Place], breaches: Sequence[Breach], *, is_again: bool
) -> HedgePlan:
    """Return *plan* with its legs cut to what *breaches* leave room for, as far as they tell.

    Where an amount of money is over its limit that is an estimate: orders of before are in it as well.

    Args:
        places: which the legs count.
        is_again: the estimate was too high before, so every amount is at least halved.
    """
    assert plan.side is not None, "a plan with legs has a side"
    legs = _fewest(
        [
            cut
            for leg in plan.legs
            if (
                cut := _cut(leg, places, _room(leg, plan.legs, places, breaches, is_again=is_again))
            )
        ],
        len(plan.legs) - _too_many(breaches),
    )
    side = plan.side
    orders = ", ".join(described(places[leg.place], leg, side) for leg in legs)
    return replace(
        plan,
        detail=f"{orders}; no more because of {'; '.join(map(str, breaches))}",
        legs=tuple(legs),
        residual=plan.need - sum(signed(leg.units, side) for leg in legs),
    )


def _room(
    leg: RouteLeg,
    legs: Sequence[RouteLeg],
    places: Sequence[Place],
    breaches: Sequence[Breach],
    *,
    is_again: bool,
) -> int:
    """Return how much of a leg may stay, in smallest units."""
    rooms = [_room_by(leg, legs, places, breach, is_again=is_again) for breach in breaches]
    return min([leg.units, *rooms])


def _room_by(
    leg: RouteLeg,
    legs: Sequence[RouteLeg],
    places: Sequence[Place],
    breach: Breach,
    *,
    is_again: bool,
) -> int:
    place = places[leg.place]
    match breach.violation:
        case Violation.ORDER_NOTIONAL:
            return _part(max(one.units for one in legs), breach, is_again=is_again)
        case Violation.TOTAL_NOTIONAL:
            return _part(leg.units, breach, is_again=is_again)
        case Violation.ASSET_POSITION:
            total = sum(one.units for one in legs)
            return leg.units * max(0, total - breach.used + breach.allowed) // total
        case Violation.VENUE_UNDER_WAY:
            is_there = place.venue == breach.subject
            return _part(leg.units, breach, is_again=is_again) if is_there else leg.units
        case Violation.VENUE_TRIPPED:
            there = [one for one in legs if _account(places[one.place]) == breach.subject]
            # An account that tripped takes one order as a trial, and none while that is under way.
            is_trial = len(there) > 1 and leg == max(there, key=lambda one: one.units)
            return leg.units if leg not in there or is_trial else 0
        case Violation.BOOK_TOO_OLD:
            return 0 if place.venue == breach.subject else leg.units
        case Violation.ORDER_RATE | Violation.TOO_MANY_UNKNOWN:
            return leg.units
        case Violation.DESK_HALTED | Violation.NOT_REDUCING | Violation.NO_PRICE:
            return 0


def _part(units: int, breach: Breach, *, is_again: bool) -> int:
    part = units * breach.allowed // breach.used
    return min(part, units // 2) if is_again else part


def _cut(leg: RouteLeg, places: Sequence[Place], units: int) -> RouteLeg | None:
    """Return a leg of at most *units*; None: that is less than its venue accepts."""
    grid = places[leg.place].instrument
    lots = min(leg.lots, units // grid.lot)
    if lots < max(1, grid.lots_for(leg.limit_ticks)):
        return None
    cost = leg.expected_cost * lots // leg.lots
    return replace(leg, lots=lots, units=lots * grid.lot, expected_cost=cost)


def _too_many(breaches: Sequence[Breach]) -> int:
    return max((one.used - one.allowed for one in breaches if one.violation in COUNTED), default=0)


def _fewest(legs: Sequence[RouteLeg], count: int) -> list[RouteLeg]:
    """Return the *count* largest legs, in the order that they have."""
    largest = sorted(legs, key=lambda leg: -leg.units)[: max(0, count)]
    return [leg for leg in legs if leg in largest]


def _account(place: Place) -> str:
    return f"{place.venue}/{place.account}"
