"""What a size costs at the venues, and what the desk asks for it. Pure.

Of each side that is asked for::

    cost   = the average of the joint book over the size, after what a taker pays the venues;
             never better than the mid, even where venues stand crossed
    price  = cost · (1 + half spread + skew)     the desk sells
             cost · (1 - half spread + skew)     the desk buys
    skew   = - whole skew · position / full position, never more than the whole

never better than the mid either, however far the desk leans: before it sells below, it is cheaper to
trade at the venues. Then on the finest tick of the venues that it was made of: up where the desk
sells, down where it buys, always in the desk's favour and by less than a tick. What changes hands at that price is cut in
the party's favour, by less than a unit. Everything before is exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from kernel.money import Price, Rounding, divide, rescale
from marketdata.consolidated import USABLE
from marketdata.freshness import Freshness
from marketdata.merged import MergedBooks, MergedSweep
from marketdata.price_model import PPM
from matching.model import Side
from risk.model import ControlState
from trading.model import DealSide
from trading.quotes.model import (
    ANY_SIZE,
    NO_SKEW,
    OfferSide,
    QuotePolicy,
    QuoteRequest,
    Reasons,
    RefusalReason,
    SizedIn,
    SkewPolicy,
)
from trading.terms.model import ClientTerms
from trading.terms.spreads import spread_for

TAKES: Final = {DealSide.DESK_SELLS: Side.BUY, DealSide.DESK_BUYS: Side.SELL}
"""What the desk would do at the venues to be flat again: what it sells, it buys there."""

_WHY_UNUSABLE: Final = (
    # The last that applies is told: the nearer a book is to being of use, the more it says.
    (Freshness.MISSING, RefusalReason.BOOK_MISSING),
    (Freshness.STALE, RefusalReason.BOOK_STALE),
    (Freshness.CROSSED, RefusalReason.BOOK_CROSSED),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotePrice:
    """A price that the desk can stand by; a side that was not asked for is None."""

    bid: OfferSide | None
    ask: OfferSide | None
    mid: Price
    why: Reasons


@dataclass(frozen=True, slots=True)
class QuoteRefused:
    """There is no price, and why."""

    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class _Asked:
    request: QuoteRequest
    books: MergedBooks
    policy: QuotePolicy
    mid: Price
    mid_steps_twice: int
    why: Reasons


def price_quote(
    request: QuoteRequest,
    books: MergedBooks,
    terms: ClientTerms,
    policy: QuotePolicy,
    *,
    position: int,
    control: ControlState = ControlState.ACTIVE,
) -> QuotePrice | QuoteRefused:
    """Return what the desk offers, or why it offers nothing.

    Args:
        request: what the party asks for.
        books: of all venues of the pair, with what each charges.
        terms: of the party.
        policy: when a price is made at all.
        position: the desk's, of the base asset.
        control: what the desk may do; reducing, only sides that bring it nearer zero are offered.
    """
    if control is ControlState.HALTED:
        return QuoteRefused(RefusalReason.DESK_HALTED, f"desk {request.desk} is halted")
    market = _look_at(request, books, policy)
    if isinstance(market, QuoteRefused):
        return market
    mid, mid_steps_twice = market
    units_about = _base_units_about(request, mid)
    wrong = _wrong_size(request, policy, units_about)
    if wrong is not None:
        return wrong
    code = request.base.code
    why = Reasons(
        half_spread_ppm=spread_for(terms, code, request.quote.code, units_about),
        skew_ppm=lean(policy.skews.get(code, NO_SKEW), position),
        fee_ppm=terms.fee_ppm,
        position=position,
        venues=books.names,
        left_out={name: str(verdict) for name, verdict in books.evicted.items()},
    )
    return _offer(_Asked(request, books, policy, mid, mid_steps_twice, why), control)


def lean(skew: SkewPolicy, position: int) -> int:
    """Return what is added to both prices, in millionths, rounded to zero.

    Long: below zero, so that the desk sells more readily than it buys; short: the other way round.
    """
    part = divide(abs(position) * skew.ppm_max, skew.full_units, Rounding.DOWN)
    capped = min(part, skew.ppm_max)
    return -capped if position > 0 else capped


def is_reducing(position: int, side: DealSide, base_units: int) -> bool:
    """Tell whether a deal brings the desk's *position* nearer zero without passing it."""
    towards_zero = position > 0 if side is DealSide.DESK_SELLS else position < 0
    return towards_zero and base_units <= abs(position)


def _look_at(
    request: QuoteRequest, books: MergedBooks, policy: QuotePolicy
) -> tuple[Price, int] | QuoteRefused:
    """Return the mid, as a price and twice in steps, if the market can be quoted from."""
    names, evicted = books.names, books.evicted
    told = ", ".join(f"{name} is {verdict}" for name, verdict in evicted.items())
    if not names:
        return QuoteRefused(_why_none(evicted.values()), told or f"nobody watches {_pair(request)}")
    if len(names) < policy.venues_min:
        count = f"{len(names)} of at least {policy.venues_min} venues"
        return QuoteRefused(RefusalReason.TOO_FEW_VENUES, f"{count}: {told or 'no more watched'}")
    bid = books.best(Side.SELL, after_fees=False)
    ask = books.best(Side.BUY, after_fees=False)
    mid = books.mid_price()
    if bid is None or ask is None or mid is None:
        empty = "bids" if bid is None else "asks"
        return QuoteRefused(RefusalReason.BOOK_ONE_SIDED, f"nobody shows {empty}")
    twice = bid.steps + ask.steps
    # Crossed between venues is legal; so far apart that one of them must be wrong is not.
    if 2 * abs(ask.steps - bid.steps) * PPM > policy.width_ppm_max * twice:
        width = f"best bid and ask are more than {policy.width_ppm_max} millionths apart"
        return QuoteRefused(RefusalReason.TOO_WIDE, width)
    return mid, twice


def _why_none(verdicts: Iterable[Freshness]) -> RefusalReason:
    found = set(verdicts)
    reasons = [reason for verdict, reason in _WHY_UNUSABLE if verdict in found]
    return reasons[-1] if reasons else RefusalReason.BOOK_MISSING


def _base_units_about(request: QuoteRequest, mid: Price) -> int:
    """Return the size in the base asset, at the mid where it is one of the quote asset."""
    if request.sized_in is SizedIn.BASE:
        return request.units
    return mid.to_base(request.units, Rounding.DOWN)


def _wrong_size(request: QuoteRequest, policy: QuotePolicy, units: int) -> QuoteRefused | None:
    sizes = policy.sizes.get(request.base.code, ANY_SIZE)
    asked = request.base.format(units)
    if units < max(sizes.units_min, 1):
        least = request.base.format(max(sizes.units_min, 1))
        return QuoteRefused(RefusalReason.TOO_SMALL, f"{asked} is less than {least}")
    if sizes.units_max is not None and units > sizes.units_max:
        most = request.base.format(sizes.units_max)
        return QuoteRefused(RefusalReason.TOO_LARGE, f"{asked} is more than {most}")
    return None


def _offer(asked: _Asked, control: ControlState) -> QuotePrice | QuoteRefused:
    made: dict[DealSide, OfferSide] = {}
    for side in asked.request.sides.sides:
        offered = _side(asked, side)
        if isinstance(offered, QuoteRefused):
            return offered
        position = asked.why.position
        if control is ControlState.ACTIVE or is_reducing(position, side, offered.base_units):
            made[side] = offered
    if not made:
        detail = f"desk {asked.request.desk} only takes what brings its position nearer zero"
        return QuoteRefused(RefusalReason.DESK_REDUCING, detail)
    return QuotePrice(
        bid=made.get(DealSide.DESK_BUYS),
        ask=made.get(DealSide.DESK_SELLS),
        mid=asked.mid,
        why=asked.why,
    )


def _side(asked: _Asked, side: DealSide) -> OfferSide | QuoteRefused:
    request, books, why = asked.request, asked.books, asked.why
    spread = why.half_spread_ppm if side is DealSide.DESK_SELLS else -why.half_spread_ppm
    factor = PPM + spread + why.skew_ppm
    found = _find(asked, side, factor)
    if found is None or found.worst_steps is None:
        return QuoteRefused(
            RefusalReason.TOO_THIN, f"the venues show less than the size for {_does(side)}"
        )
    cost = books.grid.price(found.cost, found.units * PPM)
    if _is_far(cost, asked.mid, asked.policy.slippage_ppm_max):
        far = f"more than {asked.policy.slippage_ppm_max} millionths from the mid"
        return QuoteRefused(RefusalReason.TOO_THIN, f"{_does(side)} would cost {far}")
    price = _on_tick(asked, side, found, factor)
    if price is None:
        return QuoteRefused(RefusalReason.TOO_SMALL, "the price is less than a tick")
    offered = _exchanged(request, side, price, why.fee_ppm)
    if offered is None:
        small = f"{request.base.format(_base_units_about(request, price))} is worth nothing"
        return QuoteRefused(RefusalReason.TOO_SMALL, small)
    return replace(offered, cost=cost, worst=books.price(found.worst_steps))


def _find(asked: _Asked, side: DealSide, factor: int) -> MergedSweep | None:
    """Return what the joint book has for the size; None: it has less.

    An amount of the quote asset is found once what it buys or brings at the final price reaches it.
    """
    request, books = asked.request, asked.books
    if request.sized_in is SizedIn.BASE:
        scale = books.grid.base_scale
        units = rescale(request.units, request.base.scale, scale, Rounding.UP)
        swept = books.average(TAKES[side], units)
        return swept if swept.units == units else None
    cost = _cost_of_size(asked, factor)
    swept = books.average_worth(TAKES[side], cost)
    return swept if swept.cost >= cost else None


def _cost_of_size(asked: _Asked, factor: int) -> int:
    """Return what the venues would have an amount of the quote asset for, in steps times units.

    `factor` millionths of that is what the party pays or gets.
    """
    request, grid = asked.request, asked.books.grid
    # One unit of the quote asset, in steps after fees times joint units times the factor.
    one = PPM * PPM * int(10 ** (grid.price_scale + grid.base_scale))
    return divide(request.units * one, factor * int(10**request.quote.scale), Rounding.UP)


def _is_far(cost: Price, mid: Price, ppm_max: int) -> bool:
    return abs(moved_parts(mid, cost)) > ppm_max * mid.numerator * cost.denominator


def moved_parts(before: Price, after: Price) -> int:
    """Return ``(after - before) · PPM`` over the common denominator: above zero is up."""
    return (after.numerator * before.denominator - before.numerator * after.denominator) * PPM


def _on_tick(asked: _Asked, side: DealSide, found: MergedSweep, factor: int) -> Price | None:
    """Return the price on the finest tick of the books that take part; None: there is none."""
    grid = asked.books.grid
    tick = min(
        factor_of
        for factor_of, verdict in zip(grid.tick_factors, asked.books.verdicts, strict=True)
        if verdict in USABLE
    )
    steps, parts = _not_beyond_mid(asked, side, found.cost, found.units * PPM)
    steps, parts = _not_beyond_mid(asked, side, steps * factor, parts * PPM)
    rounding = Rounding.UP if side is DealSide.DESK_SELLS else Rounding.DOWN
    ticks = divide(steps, parts * tick, rounding)
    return grid.price(ticks * tick) if ticks > 0 else None


def _not_beyond_mid(asked: _Asked, side: DealSide, steps: int, parts: int) -> tuple[int, int]:
    """Return a price as steps in parts of one, or the mid where that is the worse for the party."""
    is_better = (2 * steps < asked.mid_steps_twice * parts) is (side is DealSide.DESK_SELLS)
    return (asked.mid_steps_twice, 2) if is_better else (steps, parts)


def _exchanged(
    request: QuoteRequest, side: DealSide, price: Price, fee_ppm: int
) -> OfferSide | None:
    """Return what changes hands at a price; None: nothing would.

    A party that names an amount of the quote asset never pays more than it, nor gets less.
    """
    rounding = Rounding.DOWN if side is DealSide.DESK_SELLS else Rounding.UP
    is_in_base = request.sized_in is SizedIn.BASE
    base_units = request.units if is_in_base else price.to_base(request.units, rounding)
    quote_units = price.to_quote(base_units, rounding)
    if base_units <= 0 or quote_units <= 0:
        return None
    fee_units = divide(quote_units * fee_ppm, PPM, Rounding.DOWN)
    return OfferSide(
        price=price,
        base_units=base_units,
        quote_units=quote_units,
        fee_units=fee_units,
        cost=price,
        worst=price,
    )


def _does(side: DealSide) -> str:
    return "selling" if side is DealSide.DESK_SELLS else "buying"


def _pair(request: QuoteRequest) -> str:
    return f"{request.base.code}/{request.quote.code}"
