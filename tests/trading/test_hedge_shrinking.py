"""A plan that the desk's limits do not let pass as a whole: pure, against a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from marketdata.testing import eth_usdt
from matching.model import Side
from risk.model import Breach, Violation
from trading.hedges.decision import HedgePlan
from trading.hedges.model import HedgeVerdict
from trading.hedges.shrinking import shrunk
from trading.routing import Place, RouteLeg

GRID = eth_usdt()
V = Violation
LOTS = (1000, 400, 100)
"""What the legs are for: the first two at one account, the third at another venue."""
PLACES = [
    Place(
        venue=venue,
        account="desk",
        instrument=replace(GRID, symbol=symbol),
        view=None,
        base_free=0,
        quote_free=0,
    )
    for venue, symbol in (("north", "A"), ("north", "B"), ("south", "A"))
]
LEGS = tuple(
    RouteLeg(place=n, lots=lots, limit_ticks=300_000, units=lots * GRID.lot, expected_cost=lots)
    for n, lots in enumerate(LOTS)
)
NEED = sum(leg.units for leg in LEGS)
PLAN = HedgePlan(
    verdict=HedgeVerdict.ORDER, detail="", need=-NEED, residual=0, side=Side.SELL, legs=LEGS
)


@pytest.mark.parametrize(
    ("breaches", "is_again", "lots"),
    [
        ([Breach(V.ORDER_NOTIONAL, "ETH", 10, 5)], False, (500, 400, 100)),
        ([Breach(V.ORDER_NOTIONAL, "ETH", 10, 2), Breach(V.ORDER_NOTIONAL, "ETH", 4, 2)], False, (200, 200, 100)),
        ([Breach(V.ORDER_NOTIONAL, "ETH", 10, 9)], True, (500, 400, 100)),
        ([Breach(V.ORDER_NOTIONAL, "ETH", 10, 0)], False, ()),
        ([Breach(V.TOTAL_NOTIONAL, "otc", 4, 3)], False, (750, 300, 75)),
        ([Breach(V.ASSET_POSITION, "ETH", 2000 * GRID.lot, 1250 * GRID.lot)], False, (500, 200, 50)),
        ([Breach(V.ASSET_POSITION, "ETH", 9000 * GRID.lot, 1)], False, ()),
        ([Breach(V.VENUE_UNDER_WAY, "north", 2, 1)], False, (500, 200, 100)),
        ([Breach(V.VENUE_TRIPPED, "north/desk")], False, (1000, None, 100)),
        ([Breach(V.VENUE_TRIPPED, "south/desk")], False, (1000, 400, None)),
        ([Breach(V.BOOK_TOO_OLD, "north", 9, 5)], False, (None, None, 100)),
        ([Breach(V.ORDER_RATE, "otc", 12, 10)], False, (1000, None, None)),
        ([Breach(V.TOO_MANY_UNKNOWN, "otc", 4, 1), Breach(V.ORDER_RATE, "otc", 4, 3)], False, ()),
        ([Breach(V.ORDER_RATE, "otc", 4, 3), Breach(V.VENUE_TRIPPED, "south/desk")], False, (1000, 400, None)),
        ([Breach(V.NO_PRICE, "ETH")], False, ()),
        ([Breach(V.DESK_HALTED, "otc")], False, ()),
    ],
)  # fmt: skip
def test_legs_are_cut_to_what_the_limits_leave(
    breaches: list[Breach],
    is_again: bool,  # noqa: FBT001  a row of the table
    lots: tuple[int | None, ...],
) -> None:
    plan = shrunk(PLAN, PLACES, breaches, is_again=is_again)

    assert [(leg.place, leg.lots) for leg in plan.legs] == [
        (place, count) for place, count in enumerate(lots) if count is not None
    ]
    assert all(leg.units == leg.lots * GRID.lot for leg in plan.legs)
    assert plan.residual == -NEED + sum(leg.units for leg in plan.legs)
    assert str(breaches[0]) in plan.detail


def test_a_leg_below_what_its_venue_accepts_is_left_out() -> None:
    least = GRID.lots_for(LEGS[0].limit_ticks)

    kept = shrunk(PLAN, PLACES, [Breach(V.ORDER_NOTIONAL, "ETH", 1000, least)], is_again=False)
    gone = shrunk(PLAN, PLACES, [Breach(V.ORDER_NOTIONAL, "ETH", 1000, least - 1)], is_again=False)

    assert least > 1
    assert ([leg.lots for leg in kept.legs][:1], gone.legs) == ([least], ())
