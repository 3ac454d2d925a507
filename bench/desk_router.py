"""A route over ten venues with a thousand levels a side each: how long does the plan take?

Ten venues on three grids with different fees. The amounts differ: the smallest takes a hundredth of
the levels of a side, the largest a quarter. Fees, balances, lots, minimums and the slippage cap all
count. The peer is the obvious way: the whole joint book after fees, and the amount taken from its
best levels; it knows neither balances nor lots nor minimums.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from bench.measure import Measured, Shared, versions
from bench.ten_venues import BTC, NOW, USD, VENUES, compared, instrument, times_ms, view
from marketdata.consolidated import VenueBook, consolidate, sweep_joint
from marketdata.fees import VenueFee
from matching.model import Side
from trading.routing import Place, RouteLimits, plan_route

LEVELS: Final = 1_000
PLANS: Final = 1_000
PEER_PLANS: Final = 100
WARM_UP: Final = 20
GOAL_MS: Final = 10
STEP_LEVELS: Final = VENUES * LEVELS // 100
AMOUNTS: Final = 25
"""Every plan is for one of so many amounts: a hundredth of the levels of a side, two, and so on."""

AGE_MAX: Final = timedelta(seconds=5)
LEVEL_UNITS: Final = 1_000_000
LIMITS: Final = RouteLimits(slippage_ppm=20_000, book_age_max=AGE_MAX)


def measure(shared: Shared) -> Measured:  # noqa: ARG001  the shape of a benchmark
    """Time single plans, and the peer's on the same books."""
    places = [_place(number) for number in range(VENUES)]
    books = [VenueBook(one.instrument, one.view, one.fee) for one in places]
    ours = times_ms(lambda n: _plan(places, n), warm_up=WARM_UP, count=PLANS)
    peers = times_ms(lambda n: _greedy(books, n), warm_up=WARM_UP, count=PEER_PLANS)
    return Measured(
        results=compared(
            "desk_router",
            ours,
            peers,
            "the amount taken from the whole joint book",
            goal_ms=GOAL_MS,
        ),
        conditions={
            "venues": str(VENUES),
            "levels": f"{LEVELS:,}",
            "taken": f"{STEP_LEVELS:,} to {STEP_LEVELS * AMOUNTS:,} levels",
            "plans": f"{PLANS:,}",
        },
        versions=versions(),
    )


def _plan(places: Sequence[Place], number: int) -> None:
    side, units = _wanted(number)
    _require_all(plan_route(places, side, units, LIMITS, now=NOW).units, units)


def _greedy(books: Sequence[VenueBook], number: int) -> None:
    side, units = _wanted(number)
    whole = consolidate(books, BTC, USD, now=NOW, age_max=AGE_MAX, after_fees=True)
    _require_all(sweep_joint(whole, side, units).units, units)


def _wanted(number: int) -> tuple[Side, int]:
    return (Side.BUY, Side.SELL)[number % 2], LEVEL_UNITS * STEP_LEVELS * (1 + number % AMOUNTS)


def _require_all(found: int, units: int) -> None:
    if found != units:
        raise ValueError(f"{units - found} of {units} units found no place")


def _place(number: int) -> Place:
    traded = instrument(number, min_notional=500)
    age = timedelta(milliseconds=100 * number)
    return Place(
        venue=traded.venue,
        account="desk",
        instrument=traded,
        view=view(traded, number, levels=LEVELS, units=LEVEL_UNITS, age=age),
        fee=VenueFee(1_000 + 10 * number),
        base_free=10**15,
        quote_free=10**15,
    )
