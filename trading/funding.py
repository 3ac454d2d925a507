"""What treasury would have to move so that a route could use the best places. A proposal only.

Nothing is moved here and nothing is ordered: the values are shown to treasury and kept with what was
routed instead. A transfer takes longer than a price lasts, so a proposal speaks of the next amount
like this one rather than of this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from kernel.money import AMOUNT_MAX, Asset, Rounding, divide
from marketdata.price_model import PPM
from matching.model import Side
from trading.routing import Place, RouteLeg, RouteLimits, plan_route

_PLENTY: Final = AMOUNT_MAX


@dataclass(frozen=True, slots=True)
class FundingProposal:
    """An amount that is missing at one place.

    Attributes:
        units: smallest units of the asset.
        to_place: its number.
        from_place: where as much is free and not needed; None: at no open place.
    """

    asset: Asset
    units: int
    to_place: int
    from_place: int | None


def propose_funding(
    places: Sequence[Place], side: Side, units: int, limits: RouteLimits, *, now: datetime
) -> tuple[FundingProposal, ...]:
    """Return what is missing where for the route that would be taken if money were everywhere.

    What a place has beyond its own part is offered first, the largest sum first. Empty: money does
    not stand in the way.

    Args:
        places, side, units, limits, now: as for `trading.routing.plan_route`.

    Raises:
        BadInput: as `trading.routing.plan_route`.
    """
    rich = [replace(one, base_free=_PLENTY, quote_free=_PLENTY) for one in places]
    route = plan_route(rich, side, units, limits, now=now)
    wanted = {leg.place: _set_aside(places[leg.place], leg, side) for leg in route.legs}
    spare = {
        number: _free(place, side) - wanted.get(number, 0)
        for number, place in enumerate(places)
        if place.is_open
    }
    proposals: list[FundingProposal] = []
    for number in sorted(wanted):
        missing = max(0, -spare[number])
        for source in sorted(spare, key=lambda one: (-spare[one], one)):
            part = min(missing, spare[source])
            if part <= 0:
                break
            spare[source] -= part
            missing -= part
            proposals.append(FundingProposal(_asset(places[number], side), part, number, source))
        if missing:
            proposals.append(FundingProposal(_asset(places[number], side), missing, number, None))
    return tuple(proposals)


def _set_aside(place: Place, leg: RouteLeg, side: Side) -> int:
    """Return what the venue sets aside for an order: of the base, or at the limit of the quote."""
    if side is Side.SELL:
        return leg.units
    worst = place.instrument.price(leg.limit_ticks)
    parts = PPM + max(0, place.fee.taker_ppm)
    return divide(leg.units * worst.numerator * parts, worst.denominator * PPM, Rounding.UP)


def _free(place: Place, side: Side) -> int:
    return max(0, place.base_free if side is Side.SELL else place.quote_free)


def _asset(place: Place, side: Side) -> Asset:
    return place.instrument.base if side is Side.SELL else place.instrument.quote
