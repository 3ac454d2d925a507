"""What to hedge now: a pure decision, level-triggered.

It asks not "what happened" but "where are we": the position, between the best and the worst that
everything under way may turn it into, against the target. So a lost event, a late fill or a second
hedger cannot make it double; it can only make it wait.

Of what is needed, young flow of clients waits for flow the other way, a large need is stretched over
time, and what is due is routed over the places that are open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from kernel.money import Asset, Price
from marketdata.freshness import judge
from marketdata.price_model import PPM
from matching.model import Side
from trading.funding import propose_funding
from trading.hedges.model import HedgePolicy, HedgeVerdict
from trading.internalising import Flow, ripe
from trading.pacing import Pace, due, next_pace
from trading.routing import Place, Route, RouteLeg, RouteLimits, RouteRule, plan_route
from venues.worst_case import Uncertainty


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why a place takes no part: what the line comes to if every place does so."""

    verdict: HedgeVerdict
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """A place as it is now, and why nothing may be ordered there, if so."""

    place: Place
    left_out: LeftOut | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that a plan is made of, read under the lock of the line.

    Attributes:
        position: as the ledger has it, in smallest units; positive is long.
        under_way: between which bounds what is not booked will move it.
        young: what clients' deals added to the need of late.
        client_price: what clients got on average for what is to be hedged; None: not known.
        pace: of the hedge that is under way.
    """

    asset: Asset
    position: int
    under_way: Uncertainty
    target: int
    markets: Sequence[Market]
    young: Sequence[Flow] = ()
    client_price: Price | None = None
    pace: Pace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgePlan:
    """What a look at a line came to.

    Attributes:
        need: what has to be bought (positive) or sold (negative), in smallest units.
        waiting: the part of the need that is left to opposite flow or to a later slice.
        residual: what of the need the orders leave.
        legs: the orders, when the verdict is to place some; `RouteLeg.place` counts the markets.
        route: what the router said; None: it was not asked.
        pace: to go on with; None: nothing is stretched.
        alarm: why a person should look at the line; empty: nobody has to.
        funding: what treasury would have to move so that money is not in the way, in words.
    """

    verdict: HedgeVerdict
    detail: str
    need: int
    waiting: int = 0
    residual: int
    side: Side | None = None
    legs: tuple[RouteLeg, ...] = ()
    route: Route | None = None
    pace: Pace | None = None
    alarm: str = ""
    funding: tuple[str, ...] = ()

    def instead(self, verdict: HedgeVerdict, detail: str) -> HedgePlan:
        """Return the plan with its orders taken out, and why."""
        return replace(self, verdict=verdict, detail=detail, legs=(), residual=self.need, alarm="")


def hedge_needed(position: int, under_way: Uncertainty, target: int) -> int:
    """Return what has to be bought (positive) or sold (negative) to reach *target* for certain.

    Zero while the target lies between the worst cases: what is under way may be enough.
    """
    low, high = position + under_way.low, position + under_way.high
    if high < target:
        return target - high
    if low > target:
        return target - low
    return 0


def plan_hedge(seen: Situation, policy: HedgePolicy, now: datetime) -> HedgePlan:
    """Return the orders that bring the position towards its target, or why there are none.

    Orders are immediate-or-cancel, limited to the slippage cap around the mid, and no larger than
    what the books show within it. What they leave is the residual.
    """
    need = hedge_needed(seen.position, seen.under_way, seen.target)
    if abs(need) <= policy.band_units:
        open_ended = seen.under_way.low != seen.under_way.high
        verdict = HedgeVerdict.IN_FLIGHT if open_ended else HedgeVerdict.FLAT
        # If what is under way fails, its need goes on where it was, not anew.
        pace = seen.pace if open_ended else None
        return HedgePlan(
            verdict=verdict, detail="nothing to place", need=need, residual=need, pace=pace
        )
    grown = _ripe(need, seen.young, policy, now)
    if not grown:
        detail = f"{_text(need, seen.asset)} waits for flow the other way"
        return _waiting(HedgeVerdict.INTERNALISING, detail, need, seen.pace)
    pace, wanted = _paced(grown, seen.pace, policy, now)
    if not wanted:
        assert pace is not None, "without a pace everything is due"
        detail = f"the rest of {_text(grown, seen.asset)} is due until {pace.until:%H:%M:%S} UTC"
        return _waiting(HedgeVerdict.PACED, detail, need, pace)
    plan = _routed(seen, wanted, policy, now)
    residual = need - sum(signed(leg.units, side_of(wanted)) for leg in plan.legs)
    plan = replace(plan, need=need, waiting=need - wanted, residual=residual, pace=pace)
    return with_alarm(plan, seen.asset, policy)


def reduces(position: int, side: Side) -> bool:
    """Tell whether an order of *side* brings *position* nearer to zero."""
    return position > 0 if side is Side.SELL else position < 0


def client_price(
    deals: Sequence[tuple[int, int]], need: int, base: Asset, quote: Asset
) -> Price | None:
    """Return the average price of the newest deals that together made *need*; None: of none.

    Args:
        deals: newest first: what each added to the need, and what it was dealt for, in smallest units.
        need: what has to be bought (positive) or sold (negative).
    """
    taken = cost = 0
    for units, quote_units in deals:
        if taken >= abs(need):
            break
        if (units > 0) == (need > 0):
            taken, cost = taken + abs(units), cost + quote_units
    return Price.of(cost, taken, base, quote) if taken and cost else None


def _ripe(need: int, young: Sequence[Flow], policy: HedgePolicy, now: datetime) -> int:
    if not policy.internalise:
        return need
    urgent = abs(need) if policy.urgent_units is None else policy.urgent_units
    return ripe(need, young, policy.internalise, urgent, now)


def _paced(
    need: int, pace: Pace | None, policy: HedgePolicy, now: datetime
) -> tuple[Pace | None, int]:
    if policy.pace is None:
        return None, need
    after = next_pace(need, pace, policy.pace, now)
    return after, due(need, after, policy.pace, now)


def _routed(seen: Situation, wanted: int, policy: HedgePolicy, now: datetime) -> HedgePlan:
    """Return the orders for what is due; need, waiting and residual are the caller's to say."""
    side = side_of(wanted)
    if not seen.markets:
        detail = "the line has no open place"
        return HedgePlan(verdict=HedgeVerdict.HALTED, detail=detail, need=wanted, residual=wanted)
    markets = [_only_reducing(item, side, seen.position) for item in seen.markets]
    places = [replace(item.place, is_open=item.left_out is None) for item in markets]
    limits = replace(_limits(policy, seen, side), units_max=_towards_zero(places, seen.position))
    route = plan_route(places, side, abs(wanted), limits, now=now)
    funding = _funding(places, route, abs(wanted), limits, now)
    if not route.legs:
        verdict, detail = _why_nothing(markets, route, policy, now)
        return HedgePlan(
            verdict=verdict,
            detail="; ".join((detail, *funding)),
            need=wanted,
            residual=wanted,
            side=side,
            route=route,
            funding=funding,
        )
    return HedgePlan(
        verdict=HedgeVerdict.ORDER,
        detail=", ".join(described(places[leg.place], leg, side) for leg in route.legs),
        need=wanted,
        residual=wanted,
        side=side,
        legs=route.legs,
        route=route,
        funding=funding,
    )


def _funding(
    places: Sequence[Place], route: Route, units: int, limits: RouteLimits, now: datetime
) -> tuple[str, ...]:
    """Say what treasury would have to move, where money is what is missing. Nothing is moved."""
    if all(item.rule is not RouteRule.NO_FUNDS for item in route.violations):
        return ()
    return tuple(
        f"treasury could move {item.asset.format(item.units)} to {_account(places[item.to_place])}"
        + ("" if item.from_place is None else f" from {_account(places[item.from_place])}")
        for item in propose_funding(places, route.side, units, limits, now=now)
    )


def _account(place: Place) -> str:
    return f"{place.venue}/{place.account}"


def _only_reducing(market: Market, side: Side, position: int) -> Market:
    """Close a place that may only take risk off to an order that would not, or would pass zero."""
    if market.place.units_max is None or market.left_out is not None or reduces(position, side):
        return market
    why = LeftOut(HedgeVerdict.HALTED, "the account only takes risk off")
    return replace(market, left_out=why)


def _towards_zero(places: Sequence[Place], position: int) -> int | None:
    """Return the most of all orders together where an account in use may only take risk off.

    Two such accounts, or one beside another, must not pass zero together. What is left beyond zero the
    next look orders, where it may be ordered.
    """
    is_bound = any(place.is_open and place.units_max is not None for place in places)
    return abs(position) if is_bound else None


def _limits(policy: HedgePolicy, seen: Situation, side: Side) -> RouteLimits:
    cap = None
    if policy.client_loss_ppm is not None and seen.client_price is not None:
        away = policy.client_loss_ppm if side is Side.BUY else -policy.client_loss_ppm
        price = seen.client_price
        cap = Price.of(
            price.numerator * (PPM + away), price.denominator * PPM, price.base, price.quote
        )
    return RouteLimits(
        slippage_ppm=policy.slippage_ppm,
        book_age_max=policy.book_age_max,
        order_units_max=policy.order_units_max,
        legs_max=policy.legs_max,
        price_cap=cap,
    )


_RULES = {
    RouteRule.BELOW_MINIMUM: HedgeVerdict.BELOW_MINIMUM,
    RouteRule.NO_FUNDS: HedgeVerdict.NO_FUNDS,
    RouteRule.BEYOND_CAP: HedgeVerdict.TOO_EXPENSIVE,
    RouteRule.BOOK_UNUSABLE: HedgeVerdict.BOOK_UNUSABLE,
}
"""What a line comes to when the router finds nothing, the rule that is nearest to an order first."""


def _why_nothing(
    markets: Sequence[Market], route: Route, policy: HedgePolicy, now: datetime
) -> tuple[HedgeVerdict, str]:
    """Say why no order is placed: by the place that came nearest to one."""
    if route.mid is None and any(item.left_out is None for item in markets):
        views = [item.place.view for item in markets]
        verdicts = [judge(view, now=now, age_max=policy.book_age_max) for view in views]
        return HedgeVerdict.BOOK_UNUSABLE, f"the book is {', '.join(map(str, verdicts))}"
    for rule, verdict in _RULES.items():
        details = [
            item.detail
            for item in route.violations
            if item.rule is rule and item.place is not None and markets[item.place].left_out is None
        ]
        if details:
            return verdict, "; ".join(dict.fromkeys(details))
    closed = [item.left_out for item in markets if item.left_out is not None]
    if closed:
        return closed[0].verdict, "; ".join(dict.fromkeys(item.detail for item in closed))
    return HedgeVerdict.BELOW_MINIMUM, "less than any place takes"


def with_alarm(plan: HedgePlan, asset: Asset, policy: HedgePolicy) -> HedgePlan:
    """Say that what nothing is ordered for has become too much to carry."""
    limit = policy.residual_max
    left = plan.residual - plan.waiting
    if limit is None or plan.alarm or plan.legs or abs(left) <= limit:
        return plan
    if plan.verdict is HedgeVerdict.IN_FLIGHT:
        return plan
    alarm = f"{_text(left, asset)} cannot be hedged: more than {asset.format(limit)}"
    return replace(plan, alarm=alarm, detail=f"{plan.detail}; {alarm}")


def _waiting(verdict: HedgeVerdict, detail: str, need: int, pace: Pace | None) -> HedgePlan:
    return HedgePlan(
        verdict=verdict, detail=detail, need=need, waiting=need, residual=need, pace=pace
    )


def described(place: Place, leg: RouteLeg, side: Side) -> str:
    """Return an order as people read it."""
    grid = place.instrument
    amount, price = grid.quantity_text(leg.lots), grid.price_text(leg.limit_ticks)
    return f"{side.value} {amount} at {price} with {_account(place)}"


def side_of(need: int) -> Side:
    """Return which order a need calls for."""
    return Side.BUY if need > 0 else Side.SELL


def signed(units: int, side: Side) -> int:
    """Return what an order of that many units takes off a need."""
    return units if side is Side.BUY else -units


def _text(units: int, asset: Asset) -> str:
    return asset.format(abs(units))
