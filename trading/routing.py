"""Where to trade an amount: orders for several venues from their books, balances, fees and limits.

Pure and deterministic: the same places, limits and time give the same route. Levels are taken best
first by what is paid or got after fees; each venue's part becomes one immediate-or-cancel order,
limited at the cap that holds for all of them. A limit that was in the way is a named value beside
the route, never an exception: the route is what can be done within all of them.

A router never moves funds between venues. What treasury would have to move is said by
`trading.funding`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum, unique
from itertools import accumulate
from operator import itemgetter
from typing import Final

from kernel.errors import BadInput
from kernel.money import Price, Rounding, divide
from marketdata.consolidated import USABLE, VenueBook
from marketdata.fees import NO_FEE, VenueFee, taker_steps
from marketdata.merged import MergedBooks
from marketdata.model import BookView, Instrument, Level
from marketdata.price_model import PPM
from matching.model import Side
from trading.allotment import Allotment, Room, allot

LEGS_MAX: Final = 16
"""Orders of one route; more of them are sent faster than their books stay true."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A market in which the desk may trade, as it is now.

    Attributes:
        view: the newest book; None: there is none.
        fee: what the account pays there.
        base_free, quote_free: what orders may use, in smallest units. Of the desk alone: what is
            held for clients is not in it.
        is_open: False: nothing may be ordered there, for whatever reason whoever asks has.
        units_max: the most that may be bought or sold there now, of the base; None: no such limit.
    """

    venue: str
    account: str
    instrument: Instrument
    view: BookView | None
    fee: VenueFee = NO_FEE
    base_free: int
    quote_free: int
    is_open: bool = True
    units_max: int | None = None

    @property
    def name(self) -> str:
        """Return ``venue/account:symbol``."""
        return f"{self.venue}/{self.account}:{self.instrument.symbol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteLimits:
    """Within what a route has to stay.

    Attributes:
        slippage_ppm: how far from the middle of the market a price may be, in millionths.
        book_age_max: an older book is not traded on.
        order_units_max: the most one order may be for; None: only the venue's own limit.
        legs_max: the most orders.
        price_cap: a buyer's highest, a seller's lowest price, before fees; None: only the slippage.
        units_max: the most of all orders together; None: no limit.
    """

    slippage_ppm: int
    book_age_max: timedelta
    order_units_max: int | None = None
    legs_max: int = LEGS_MAX
    price_cap: Price | None = None
    units_max: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.slippage_ppm < PPM:
            raise BadInput(f"a slippage of {self.slippage_ppm} millionths is not possible")
        if not 1 <= self.legs_max <= LEGS_MAX:
            raise BadInput(f"a route has 1 to {LEGS_MAX} orders, not {self.legs_max}")


@unique
class RouteRule(StrEnum):
    """What kept a place, or a part of the amount, out of a route."""

    PLACE_CLOSED = "place-closed"
    BOOK_UNUSABLE = "book-unusable"
    """Missing, stale, or crossed within itself."""
    NO_MARKET = "no-market"
    """No two sides of any book: there is no middle to measure slippage by."""
    BEYOND_CAP = "beyond-cap"
    """Nothing of the book is within the slippage and the price cap."""
    NO_FUNDS = "no-funds"
    """What is free there does not reach for more."""
    PLACE_LIMIT = "place-limit"
    ORDER_LIMIT = "order-limit"
    """Ours or the venue's own largest order."""
    BELOW_MINIMUM = "below-minimum"
    """The part it would get is less than the venue accepts."""
    TOO_MANY_LEGS = "too-many-legs"
    ROUTE_LIMIT = "route-limit"
    """More is asked for than one route may trade."""
    TOO_THIN = "too-thin"
    """All that is left within every limit does not make up the amount."""


@dataclass(frozen=True, slots=True)
class RouteViolation:
    """A rule that was in the way: at a place by its number, or for the route as a whole (None)."""

    rule: RouteRule
    place: int | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteLeg:
    """One order: immediate or cancel.

    Attributes:
        place: its number.
        lots, limit_ticks: as the instrument counts them.
        units: of the base: what the lots are.
        expected_cost: in smallest units of the quote asset, after fees, by the book as it is: paid,
            rounded up, or received, rounded down.
    """

    place: int
    lots: int
    limit_ticks: int
    units: int
    expected_cost: int


@dataclass(frozen=True, slots=True)
class Route:
    """What to do about an amount.

    Attributes:
        legs: in the order of the places.
        units: of the base, of all legs.
        residual: what of the amount they leave.
        mid: the middle of the market that slippage is measured by; None: there is none.
        cap: the worst price of any leg, before fees and before rounding to a venue's ticks.
    """

    side: Side
    legs: tuple[RouteLeg, ...]
    units: int
    residual: int
    mid: Price | None
    cap: Price | None
    violations: tuple[RouteViolation, ...]

    @property
    def expected_cost(self) -> int:
        """Return the sum of the legs', in smallest units of the quote asset."""
        return sum(leg.expected_cost for leg in self.legs)


def plan_route(
    places: Sequence[Place], side: Side, units: int, limits: RouteLimits, *, now: datetime
) -> Route:
    """Return the orders that trade *units* of the base at the least cost within *limits*.

    A place whose part comes to less than the venue accepts is left out and its part goes elsewhere;
    if it can go nowhere else, the place is asked for its smallest order and others for less. Lots are
    rounded down. Where neither lots nor minimums bind, nothing cheaper exists.

    Args:
        places: of one pair, with the same two assets.
        side: what the desk does.
        units: smallest units of the base; not below zero.
        limits: within what to stay.
        now: by which the age of books is judged.

    Raises:
        BadInput: no place, places of different assets, the same place twice, a price cap in others,
            or an amount below zero.
    """
    if units < 0:
        raise BadInput(f"{units} units cannot be traded")
    found: list[RouteViolation] = []
    books = _merge(places, limits, now)
    market = _market(books, side, limits)
    if market is None:
        found.append(RouteViolation(RouteRule.NO_MARKET, None, "no book has two sides"))
        return Route(side, (), 0, units, None, None, tuple(found))
    mid, cap = market
    wanted = units
    if limits.units_max is not None and units > limits.units_max:
        wanted = limits.units_max
        found.append(RouteViolation(RouteRule.ROUTE_LIMIT, None, f"at most {wanted} units"))
    openings = _openings(places, books, side, limits, cap, found)
    # Of equal prices, and of a book that accounts share, who pays the lower fee comes first.
    order = sorted(openings, key=lambda number: (places[number].fee.taker_ppm, number))
    rooms = {number: openings[number].room for number in order}
    shared = allot(rooms, wanted, markets_max=limits.legs_max)
    legs = _legs(places, openings, shared, side)
    routed = sum(leg.units for leg in legs)
    found.extend(_left_out(openings, shared))
    if routed < wanted:
        found.append(RouteViolation(RouteRule.TOO_THIN, None, f"{wanted - routed} units are left"))
    return Route(side, legs, routed, units - routed, mid, cap, tuple(found))


@dataclass(frozen=True, slots=True)
class _Opening:
    """A place where an order is possible: its room and limit, and which rule makes it no larger."""

    room: Room
    limit_ticks: int
    bound_by: RouteRule


def _merge(places: Sequence[Place], limits: RouteLimits, now: datetime) -> MergedBooks:
    if not places:
        raise BadInput("a route needs a place")
    if len({place.name for place in places}) != len(places):
        raise BadInput("a place is named twice")
    base, quote = places[0].instrument.base, places[0].instrument.quote
    if any((one.instrument.base, one.instrument.quote) != (base, quote) for one in places):
        raise BadInput(f"places of a route are all of {base.code}/{quote.code}, in the same units")
    books = [
        # Two accounts at a venue see one book twice, each with the fee that it pays.
        VenueBook(replace(one.instrument, venue=f"{one.venue}/{one.account}"), one.view, one.fee)
        for one in places
    ]
    return MergedBooks(base, quote, books, now=now, age_max=limits.book_age_max)


def _market(books: MergedBooks, side: Side, limits: RouteLimits) -> tuple[Price, Price] | None:
    """Return the middle of the market, and the worst price that an order may have.

    Slippage is measured from the middle, but never from beyond the best price that there is: where
    the books of two venues cross, one of them may be wrong, and the middle is then far from both.
    """
    bid, ask = books.best(Side.SELL, after_fees=False), books.best(Side.BUY, after_fees=False)
    if bid is None or ask is None:
        return None
    twice = bid.steps + ask.steps
    if side is Side.BUY:
        cap = books.grid.price(min(twice, 2 * ask.steps) * (PPM + limits.slippage_ppm), 2 * PPM)
    else:
        cap = books.grid.price(max(twice, 2 * bid.steps) * (PPM - limits.slippage_ppm), 2 * PPM)
    return books.grid.price(twice, 2), _tighter(cap, limits.price_cap, side)


def _tighter(cap: Price, other: Price | None, side: Side) -> Price:
    if other is None:
        return cap
    if (other.base, other.quote) != (cap.base, cap.quote):
        raise BadInput(f"the price cap is not one of {cap.base.code}/{cap.quote.code}")
    is_lower = other.numerator * cap.denominator < cap.numerator * other.denominator
    return other if is_lower == (side is Side.BUY) else cap


def _openings(
    places: Sequence[Place],
    books: MergedBooks,
    side: Side,
    limits: RouteLimits,
    cap: Price,
    found: list[RouteViolation],
) -> dict[int, _Opening]:
    openings: dict[int, _Opening] = {}
    for number, (place, verdict) in enumerate(zip(places, books.verdicts, strict=True)):
        if not place.is_open:
            found.append(RouteViolation(RouteRule.PLACE_CLOSED, number, "it is closed"))
        elif verdict not in USABLE:
            detail = f"the book is {verdict}"
            found.append(RouteViolation(RouteRule.BOOK_UNUSABLE, number, detail))
        else:
            per_tick = books.grid.tick_factors[number]
            opening = _opening(place, number, side, limits, cap, per_tick)
            if isinstance(opening, RouteViolation):
                found.append(opening)
            else:
                openings[number] = opening
    return openings


def _opening(
    place: Place, number: int, side: Side, limits: RouteLimits, cap: Price, steps_per_tick: int
) -> _Opening | RouteViolation:
    """Return the room at a place whose book is usable, or why there is none."""
    instrument = place.instrument
    limit_ticks = _in_ticks(cap, instrument, side)
    rows = _within(place, side, limit_ticks)
    if not rows:
        return RouteViolation(RouteRule.BEYOND_CAP, number, "nothing is within the cap")
    lots_min = instrument.lots_for(limit_ticks)
    lots_max, bound_by = _most(place, side, limit_ticks, limits)
    if lots_max < lots_min:
        least = instrument.quantity_text(lots_min)
        return RouteViolation(bound_by, number, f"not enough for the smallest order of {least}")
    per_tick = taker_steps(steps_per_tick, side, place.fee)
    if side is Side.SELL:
        # What is got falls from level to level; less of it is worse.
        per_tick = -per_tick
    room = Room(
        lot=instrument.lot,
        lots_min=lots_min,
        lots_max=lots_max,
        prices=[ticks * per_tick for ticks, _ in rows],
        sums=list(accumulate(map(itemgetter(1), rows))),
        depth=f"{place.venue}:{instrument.symbol}",
    )
    return _Opening(room, limit_ticks, bound_by)


def _within(place: Place, side: Side, limit_ticks: int) -> Sequence[Level]:
    """Return the levels that an order of *side* may trade at, within its limit."""
    assert place.view is not None, "a usable book is there"
    if side is Side.BUY:
        asks = place.view.asks
        return asks[: bisect_right(asks, limit_ticks, key=itemgetter(0))]
    bids = place.view.bids
    return bids[: bisect_right(bids, -limit_ticks, key=lambda level: -level.ticks)]


def _in_ticks(cap: Price, instrument: Instrument, side: Side) -> int:
    """Return a price in ticks of an instrument, rounded to the side of the cap that is allowed."""
    tick = instrument.price(1)
    numerator, denominator = cap.numerator * tick.denominator, cap.denominator * tick.numerator
    return divide(numerator, denominator, Rounding.DOWN if side is Side.BUY else Rounding.UP)


def _most(place: Place, side: Side, limit_ticks: int, limits: RouteLimits) -> tuple[int, RouteRule]:
    """Return the most lots of one order there, and the rule that says so."""
    instrument = place.instrument
    lot = instrument.lot
    rooms = [(instrument.lots_max, RouteRule.ORDER_LIMIT)]
    if limits.order_units_max is not None:
        rooms.append((limits.order_units_max // lot, RouteRule.ORDER_LIMIT))
    if place.units_max is not None:
        rooms.append((place.units_max // lot, RouteRule.PLACE_LIMIT))
    if side is Side.SELL:
        rooms.append((place.base_free // lot, RouteRule.NO_FUNDS))
    else:
        rooms.append((_affordable(place, limit_ticks), RouteRule.NO_FUNDS))
    return min(rooms, key=itemgetter(0))


def _affordable(place: Place, limit_ticks: int) -> int:
    """Return the lots that the free quote asset pays at the limit, with the fee on top.

    At the limit, as that is what a venue sets aside for an order, whatever it trades at in the end.
    """
    worst = place.instrument.price(limit_ticks)
    parts = PPM + max(0, place.fee.taker_ppm)
    free = max(0, place.quote_free)
    return free * worst.denominator * PPM // (worst.numerator * parts * place.instrument.lot)


def _legs(
    places: Sequence[Place], openings: Mapping[int, _Opening], shared: Allotment, side: Side
) -> tuple[RouteLeg, ...]:
    legs: dict[int, RouteLeg] = {}
    walked: dict[str, int] = {}
    for number, lots in shared.lots.items():
        room = openings[number].room
        units = lots * room.lot
        before = walked.get(room.depth, 0)
        walked[room.depth] = before + units
        legs[number] = RouteLeg(
            place=number,
            lots=lots,
            limit_ticks=openings[number].limit_ticks,
            units=units,
            expected_cost=_cost(places[number], side, before, units),
        )
    return tuple(legs[number] for number in sorted(legs))


def _cost(place: Place, side: Side, before: int, units: int) -> int:
    """Return what *units* cost after fees that lie behind the first *before* of the book."""
    assert place.view is not None, "a usable book is there"
    total, skip, left = 0, before, units
    for ticks, there in place.view.asks if side is Side.BUY else place.view.bids:
        part = min(max(0, there - skip), left)
        skip = max(0, skip - there)
        total += part * ticks
        left -= part
        if not left:
            break
    tick = place.instrument.price(1)
    return divide(
        taker_steps(total, side, place.fee) * tick.numerator,
        tick.denominator * PPM,
        Rounding.UP if side is Side.BUY else Rounding.DOWN,
    )


def _left_out(openings: Mapping[int, _Opening], shared: Allotment) -> Iterator[RouteViolation]:
    for number in sorted(shared.full):
        bound_by = openings[number].bound_by
        yield RouteViolation(bound_by, number, "there is no room for more")
    for number in shared.below_minimum:
        detail = "its part is less than the smallest order"
        yield RouteViolation(RouteRule.BELOW_MINIMUM, number, detail)
    for number in shared.surplus:
        yield RouteViolation(RouteRule.TOO_MANY_LEGS, number, "its part is the smallest")
