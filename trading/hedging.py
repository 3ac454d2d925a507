"""What to hedge now: a pure decision, level-triggered.

It asks not "what happened" but "where are we": the position, between the best and the worst that
everything under way may turn it into, against the target. So a lost event, a late fill or a second
hedger cannot make it double; it can only make it wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kernel.money import Rounding, divide
from marketdata.depth import sweep
from marketdata.freshness import Freshness, judge
from marketdata.model import BookView, Instrument
from matching.model import Side
from trading.model import PPM, HedgePolicy, HedgeVerdict
from venues.worst_case import Uncertainty


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgePlan:
    """What a look at a line came to.

    Attributes:
        side, lots, limit_ticks: the order, when the verdict is to place one.
        need: what has to be bought (positive) or sold (negative), in smallest units.
        residual: what of the need the order leaves, in the same units.
    """

    verdict: HedgeVerdict
    detail: str
    need: int
    residual: int
    side: Side | None = None
    lots: int = 0
    limit_ticks: int = 0


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


def plan_hedge(
    *,
    position: int,
    under_way: Uncertainty,
    target: int,
    instrument: Instrument,
    view: BookView | None,
    policy: HedgePolicy,
    now: datetime,
) -> HedgePlan:
    """Return the order that brings *position* towards *target*, or why there is none.

    An order is immediate-or-cancel, limited to the slippage cap around the mid, and no larger than
    what the book shows within it. Lots are rounded down; what is left is the residual.
    """
    need = hedge_needed(position, under_way, target)
    if abs(need) <= policy.band_units:
        open_ended = under_way.low != under_way.high
        verdict = HedgeVerdict.IN_FLIGHT if open_ended else HedgeVerdict.FLAT
        return HedgePlan(verdict=verdict, detail="nothing to place", need=need, residual=need)
    freshness = judge(view, now=now, age_max=policy.book_age_max)
    if freshness is not Freshness.FRESH or view is None:
        return _nothing(HedgeVerdict.BOOK_UNUSABLE, f"the book is {freshness}", need)
    return _size(need, instrument, view, policy)


def limit_ticks(view: BookView, side: Side, slippage_ppm: int) -> int:
    """Return the worst price an order may have: the mid moved by the cap, rounded towards it."""
    top = view.top
    assert top is not None, "a fresh book has two sides"
    twice_the_mid = top.bid.ticks + top.ask.ticks
    if side is Side.BUY:
        return twice_the_mid * (PPM + slippage_ppm) // (2 * PPM)
    return divide(twice_the_mid * (PPM - slippage_ppm), 2 * PPM, Rounding.UP)


def _size(need: int, instrument: Instrument, view: BookView, policy: HedgePolicy) -> HedgePlan:
    side = Side.BUY if need > 0 else Side.SELL
    limit = limit_ticks(view, side, policy.slippage_ppm)
    most = abs(need) if policy.order_units_max is None else policy.order_units_max
    wanted = min(abs(need), most) // instrument.lot
    minimum = instrument.lots_for(limit)
    if wanted < minimum:
        detail = f"less than the smallest order of {instrument.quantity_text(minimum)}"
        return _nothing(HedgeVerdict.BELOW_MINIMUM, detail, need)
    found = sweep(view, side, wanted * instrument.lot, limit_ticks=limit)
    lots = min(found.units // instrument.lot, instrument.lots_max)
    if lots < minimum:
        detail = f"no depth within {policy.slippage_ppm} millionths of the mid"
        return _nothing(HedgeVerdict.TOO_EXPENSIVE, detail, need)
    placed = lots * instrument.lot
    return HedgePlan(
        verdict=HedgeVerdict.ORDER,
        detail=f"{side.value} {instrument.quantity_text(lots)} at {instrument.price_text(limit)}",
        need=need,
        residual=need - placed if need > 0 else need + placed,
        side=side,
        lots=lots,
        limit_ticks=limit,
    )


def _nothing(verdict: HedgeVerdict, detail: str, need: int) -> HedgePlan:
    return HedgePlan(verdict=verdict, detail=detail, need=need, residual=need)
