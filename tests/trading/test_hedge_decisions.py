"""What to hedge and how fills are posted: pure, against tables and generated cases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from kernel.errors import BadInput
from kernel.money import Asset, Price, Rounding
from ledger.model import Transfer
from marketdata.model import BookView
from marketdata.testing import book_view, eth_usdt
from matching.model import Side, TimeInForce
from trading.hedges.decision import (
    HedgePlan,
    LeftOut,
    Market,
    Situation,
    client_price,
    hedge_needed,
    plan_hedge,
    reduces,
)
from trading.hedges.model import HedgePolicy, HedgeVerdict
from trading.internalising import Flow
from trading.pacing import Pace, PacePolicy
from trading.postings import fill_chain
from trading.routing import Place
from venues.model import OPEN_STATES, OrderState, VenueFill, VenueOrder
from venues.worst_case import OrderExposure, Uncertainty, uncertainty

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ETH, USDT = Asset("ETH", 18), Asset("USDT", 6)
ONE = 10**18
SECOND = timedelta(seconds=1)
GRID = eth_usdt()
NOTHING = Uncertainty(low=0, high=0)
VIEW = book_view(
    [("2999.00", "5"), ("2998.00", "50")], [("3001.00", "5"), ("3002.00", "50")], at=NOW
)
POLICY = HedgePolicy(slippage_ppm=1_000)
V = HedgeVerdict
MUCH = 10**40


def market(**changes: Any) -> Market:
    place = Place(
        venue="sim", account="desk", instrument=GRID, view=VIEW, base_free=MUCH, quote_free=MUCH
    )
    return Market(place=replace(place, **changes))


def planned(
    position: int,
    *markets: Market,
    policy: HedgePolicy = POLICY,
    now: datetime = NOW,
    **changes: Any,
) -> HedgePlan:
    seen = Situation(
        asset=ETH, position=position, under_way=NOTHING, target=0, markets=markets or [market()]
    )
    return plan_hedge(replace(seen, **changes), policy, now)


ORDER = VenueOrder(
    id=UUID(int=1),
    venue="sim",
    account="desk",
    symbol="ETHUSDT",
    instrument_version=1,
    side=Side.BUY,
    base_units=10,
    quantity="1",
    price="3000",
    time_in_force=TimeInForce.IOC,
    reference="",
    intent="one",
    client_order_id="cw1",
    venue_order_id="1",
    state=OrderState.ACKED,
    state_reason="",
    signed_at=NOW,
    recv_window=timedelta(seconds=3),
    executed_units=0,
    created_at=NOW,
    updated_at=NOW,
    fence=1,
)


def exposure(
    state: OrderState, executed: int, filled: int, booked: int, side: Side = Side.BUY
) -> OrderExposure:
    order = structs.replace(ORDER, state=state, executed_units=executed, side=side)
    return OrderExposure(order=order, filled=filled, booked=booked)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (exposure(OrderState.INTENT, 0, 0, 0), (0, 10)),
        (exposure(OrderState.UNKNOWN, 0, 0, 0), (0, 10)),
        (exposure(OrderState.ESCALATED, 0, 0, 0), (0, 10)),
        (exposure(OrderState.PARTIALLY_FILLED, 4, 3, 1), (3, 9)),
        (exposure(OrderState.PARTIALLY_FILLED, 3, 4, 1), (3, 9)),
        (exposure(OrderState.FILLED, 10, 0, 0), (10, 10)),
        (exposure(OrderState.EXPIRED, 4, 4, 1), (3, 3)),
        (exposure(OrderState.NOT_PLACED, 0, 10, 0), (10, 10)),
        (exposure(OrderState.UNKNOWN, 0, 0, 0, Side.SELL), (-10, 0)),
        (exposure(OrderState.EXPIRED, 4, 4, 1, Side.SELL), (-3, -3)),
    ],
)
def test_what_is_not_booked_is_bounded_from_both_sides(
    item: OrderExposure, expected: tuple[int, int]
) -> None:
    found = uncertainty([item])

    assert (found.low, found.high) == expected


@pytest.mark.parametrize(
    ("position", "low", "high", "expected"),
    [
        (-10, 0, 0, 10),
        (10, 0, 0, -10),
        (0, 0, 0, 0),
        (-10, 0, 10, 0),
        (-10, 0, 4, 6),
        (-10, 4, 10, 0),
        (10, -10, 0, 0),
        (10, -4, 0, -6),
        (-10, 0, 15, 0),
        (-10, 12, 15, -2),
    ],
)
def test_only_what_is_needed_in_every_case_is_hedged(
    position: int, low: int, high: int, expected: int
) -> None:
    assert hedge_needed(position, Uncertainty(low=low, high=high), 0) == expected


@pytest.mark.parametrize(
    ("position", "verdict", "lots", "residual"),
    [
        ("-10", V.ORDER, 100_000, "0"),
        ("10", V.ORDER, 100_000, "0"),
        ("-10.00005", V.ORDER, 100_000, "0.00005"),
        ("10.00005", V.ORDER, 100_000, "-0.00005"),
        ("-100", V.ORDER, 550_000, "45"),
        ("-0.00005", V.BELOW_MINIMUM, 0, "0.00005"),
        ("-0.001", V.BELOW_MINIMUM, 0, "0.001"),
        ("-0.0017", V.ORDER, 17, "0"),
        ("0", V.FLAT, 0, "0"),
    ],
)
def test_an_order_is_sized_by_need_lots_minimum_and_depth(
    position: str, verdict: HedgeVerdict, lots: int, residual: str
) -> None:
    plan = planned(ETH.parse(position))

    placed = sum(leg.lots for leg in plan.legs)
    assert (plan.verdict, placed, plan.residual) == (verdict, lots, ETH.parse(residual))


@pytest.mark.parametrize(
    ("changes", "view", "verdict"),
    [
        ({"slippage_ppm": 100}, VIEW, V.TOO_EXPENSIVE),
        ({}, None, V.BOOK_UNUSABLE),
        ({"book_age_max": timedelta(0)}, replace(VIEW, received_at=NOW - timedelta(seconds=1)), V.BOOK_UNUSABLE),
        ({}, replace(VIEW, bids=()), V.BOOK_UNUSABLE),
        ({}, replace(VIEW, bids=VIEW.asks), V.BOOK_UNUSABLE),
        ({"band_units": 10 * ONE}, VIEW, V.FLAT),
    ],
)  # fmt: skip
def test_no_order_without_a_usable_book_a_fair_price_and_a_reason(
    changes: dict[str, Any], view: BookView | None, verdict: HedgeVerdict
) -> None:
    plan = planned(-10 * ONE, market(view=view), policy=replace(POLICY, **changes))

    assert plan.verdict is verdict
    assert plan.legs == ()
    assert plan.residual == 10 * ONE


def test_one_order_never_exceeds_its_own_limit() -> None:
    plan = planned(-10 * ONE, policy=replace(POLICY, order_units_max=2 * ONE))

    (leg,) = plan.legs
    assert (leg.lots, plan.residual) == (20_000, 8 * ONE)


@pytest.mark.parametrize("ppm", [-1, 1_000_000])
def test_an_impossible_slippage_is_refused(ppm: int) -> None:
    with pytest.raises(BadInput):
        HedgePolicy(slippage_ppm=ppm)


units = st.integers(-50, 50).map(lambda lots: lots * ONE // 10)


@given(
    position=units,
    target=units,
    items=st.lists(
        st.builds(
            exposure,
            st.sampled_from(sorted(OPEN_STATES)),
            st.integers(0, 10),
            st.integers(0, 10),
            st.just(0),
            st.sampled_from(Side),
        ),
        max_size=3,
    ),
    percent=st.integers(0, 100),
)
def test_whatever_becomes_of_orders_under_way_a_hedge_never_goes_past_the_target(
    position: int, target: int, items: list[OrderExposure], percent: int
) -> None:
    """And a second look, with the first order under way, asks for no more than is missing."""
    scaled = [
        replace(
            item,
            order=structs.replace(
                item.order,
                base_units=ONE,
                executed_units=item.order.executed_units * ONE // 10,
            ),
            filled=item.filled * ONE // 10,
        )
        for item in items
    ]
    under_way = uncertainty(scaled)
    plan = planned(position, under_way=under_way, target=target)
    hedged = sum(leg.units for leg in plan.legs) * (1 if plan.side is Side.BUY else -1)
    turned_out = under_way.low + (under_way.high - under_way.low) * percent // 100
    outcome = position + turned_out

    if hedged > 0:
        assert outcome + hedged <= target
    elif hedged < 0:
        assert outcome + hedged >= target
    second = Uncertainty(low=under_way.low + min(hedged, 0), high=under_way.high + max(hedged, 0))
    if hedged:
        assert hedge_needed(position, second, target) == plan.residual


FILL = VenueFill(
    venue="sim",
    account="desk",
    symbol="ETHUSDT",
    trade_id="7",
    venue_order_id="1",
    side=Side.BUY,
    price="59900",
    base="ETH",
    base_units=10 * ONE,
    quote="USDT",
    quote_units=599_000_000_000,
    quote_dust=0,
    fee_asset="ETH",
    fee_units=ONE // 100,
    fee_dust=0,
    is_maker=False,
    executed_at=NOW,
)


def moves(lines: tuple[Transfer, ...]) -> list[tuple[str, str, str, int]]:
    return [(line.debit, line.credit, line.asset, line.amount) for line in lines]


VENUE, DESK, EXPENSE = "venue:sim/desk", "conversion:otc", "expense:venue-fee"
BUY = [
    (VENUE, DESK, "ETH", 10 * ONE),
    (DESK, VENUE, "USDT", 599_000_000_000),
]


@pytest.mark.parametrize(
    ("fill", "value", "expected"),
    [
        (FILL, 599_000_000, [
            *BUY,
            (DESK, VENUE, "ETH", ONE // 100),
            (EXPENSE, DESK, "USDT", 599_000_000),
        ]),
        (replace(FILL, fee_asset="USDT", fee_units=599_000_000), None, [
            *BUY,
            (EXPENSE, VENUE, "USDT", 599_000_000),
        ]),
        (replace(FILL, fee_asset="BNB", fee_units=100), 598_000_000, [
            *BUY,
            (DESK, VENUE, "BNB", 100),
            (EXPENSE, DESK, "USDT", 598_000_000),
        ]),
        (replace(FILL, fee_asset="BNB", fee_units=100), None, [
            *BUY,
            (EXPENSE, VENUE, "BNB", 100),
        ]),
        (replace(FILL, fee_units=0), None, BUY),
        (replace(FILL, fee_asset="USDT", fee_units=-5), None, [
            *BUY,
            (VENUE, EXPENSE, "USDT", 5),
        ]),
        (replace(FILL, side=Side.SELL, fee_asset="USDT", fee_units=599_000_000), None, [
            (VENUE, DESK, "USDT", 599_000_000_000),
            (DESK, VENUE, "ETH", 10 * ONE),
            (EXPENSE, VENUE, "USDT", 599_000_000),
        ]),
        (replace(FILL, quote_units=0, fee_units=0), None, BUY[:1]),
    ],
    ids=["fee in base", "fee in quote", "third asset", "third asset unpriced", "no fee", "rebate",
         "sale", "worth less than a unit"],
)  # fmt: skip
def test_fills_are_posted_by_the_account_book(
    fill: VenueFill, value: int | None, expected: list[tuple[str, str, str, int]]
) -> None:
    lines = fill_chain(fill, "otc", value)

    assert moves(lines) == expected
    assert [line.linked for line in lines] == [True] * (len(lines) - 1) + [False]
    assert len({line.id for line in lines}) == len(lines)


def test_the_same_fill_has_the_same_transfer_ids_whichever_way_it_came() -> None:
    again = replace(FILL, price=FILL.price)

    assert [x.id for x in fill_chain(FILL, "otc", 1)] == [x.id for x in fill_chain(again, "otc", 1)]


@pytest.mark.parametrize("units", [0, -1])
def test_a_limit_of_nothing_is_not_a_limit_of_anything(units: int) -> None:
    """Zero must not read as "no limit"."""
    with pytest.raises(BadInput, match="Halt the line"):
        HedgePolicy(order_units_max=units)


@pytest.mark.parametrize(
    ("position", "side", "expected"),
    [
        (10, Side.SELL, True),
        (10, Side.BUY, False),
        (-10, Side.BUY, True),
        (-10, Side.SELL, False),
        (0, Side.BUY, False),
        (0, Side.SELL, False),
    ],
)
def test_only_an_order_the_other_way_brings_a_position_nearer_to_zero(
    position: int,
    side: Side,
    expected: bool,  # noqa: FBT001  a row of the table
) -> None:
    assert reduces(position, side) is expected


def test_an_account_that_may_only_reduce_brings_its_position_nearer_to_zero_and_not_beyond() -> (
    None
):
    """A target on the other side would take it through zero."""
    through = planned(5 * ONE, market(units_max=5 * ONE), target=-5 * ONE)
    away = planned(-5 * ONE, market(units_max=5 * ONE), target=-10 * ONE)

    assert [leg.units for leg in through.legs] == [5 * ONE]
    assert (away.verdict, away.legs) == (V.HALTED, ())
    assert "only takes risk off" in away.detail


@pytest.mark.parametrize("second", [5 * ONE, None])
def test_accounts_of_which_one_may_only_reduce_pass_zero_together_neither(
    second: int | None,
) -> None:
    thin = book_view([("2999.00", "4")], [("3000.50", "4")], at=NOW)
    other = market(venue="other", instrument=replace(GRID, venue="other"), units_max=second)

    plan = planned(5 * ONE, market(view=thin, units_max=5 * ONE), other, target=-5 * ONE)

    assert sum(leg.units for leg in plan.legs) == 5 * ONE


def test_a_need_is_split_over_places_and_one_that_is_left_out_takes_only_itself_out() -> None:
    thin = book_view([("2999.00", "4")], [("3000.50", "4")], at=NOW)
    other = market(venue="other", view=thin, instrument=replace(GRID, venue="other"))
    stopped = Market(place=other.place, left_out=LeftOut(V.UNSETTLED, "1 order"))

    both = planned(-10 * ONE, market(), other)
    alone = planned(-10 * ONE, market(), stopped)
    none = planned(-10 * ONE, stopped)

    assert [(leg.place, leg.units) for leg in both.legs] == [(0, 6 * ONE), (1, 4 * ONE)]
    assert [(leg.place, leg.units) for leg in alone.legs] == [(0, 10 * ONE)]
    assert (none.verdict, none.detail, none.residual) == (V.UNSETTLED, "1 order", 10 * ONE)


def test_a_line_without_a_place_says_so() -> None:
    plan = planned(-10 * ONE, markets=[])

    assert (plan.verdict, plan.residual) == (V.HALTED, 10 * ONE)


def test_a_place_without_funds_is_said_to_have_none() -> None:
    plan = planned(-10 * ONE, market(quote_free=0))

    assert plan.verdict is V.NO_FUNDS


WINDOW = timedelta(seconds=30)
WAITS = replace(POLICY, internalise=WINDOW)


@pytest.mark.parametrize(
    ("age", "urgent", "verdict", "placed"),
    [
        (0, None, V.INTERNALISING, 0),
        (29, None, V.INTERNALISING, 0),
        (30, None, V.ORDER, 10),
        (0, 9 * ONE, V.ORDER, 10),
        (0, 10 * ONE, V.INTERNALISING, 0),
    ],
)
def test_young_flow_waits_for_flow_the_other_way_unless_the_need_is_urgent(
    age: int, urgent: int | None, verdict: HedgeVerdict, placed: int
) -> None:
    young = [Flow(10 * ONE, NOW - timedelta(seconds=age))]

    plan = planned(-10 * ONE, policy=replace(WAITS, urgent_units=urgent), young=young)

    assert plan.verdict is verdict
    assert sum(leg.units for leg in plan.legs) == placed * ONE
    assert (plan.waiting, plan.residual) == ((10 - placed) * ONE,) * 2


def test_only_what_two_flows_do_not_share_is_hedged() -> None:
    old, new = NOW - 2 * WINDOW, NOW - WINDOW // 2
    young = [Flow(10 * ONE, old), Flow(-4 * ONE, new)]

    plan = planned(-6 * ONE, policy=WAITS, young=young)

    assert [leg.units for leg in plan.legs] == [6 * ONE]


def test_a_large_need_is_stretched_over_time_and_a_small_one_is_not() -> None:
    pace = PacePolicy(paced_from=5 * ONE, duration=timedelta(seconds=100), slice_units=ONE)
    slowly = replace(POLICY, pace=pace)

    first = planned(-20 * ONE, policy=slowly)
    later = planned(-20 * ONE, policy=slowly, pace=first.pace, now=NOW + timedelta(seconds=4))
    small = planned(-5 * ONE, policy=slowly)

    assert (first.verdict, first.waiting, first.legs) == (V.PACED, 20 * ONE, ())
    assert first.pace == Pace(started_at=NOW, units=20 * ONE, until=NOW + timedelta(seconds=100))
    assert later.legs == ()
    assert later.verdict is V.PACED
    assert [leg.units for leg in small.legs] == [5 * ONE]


def test_a_pace_outlives_an_order_whose_outcome_nobody_knows() -> None:
    pace = Pace(started_at=NOW - SECOND, units=ONE, until=NOW)

    waiting = planned(-ONE, under_way=Uncertainty(low=0, high=ONE), pace=pace)
    flat = planned(0, pace=pace)

    assert (waiting.verdict, waiting.pace) == (V.IN_FLIGHT, pace)
    assert (flat.verdict, flat.pace) == (V.FLAT, None)


def test_a_slice_is_placed_once_it_is_due() -> None:
    pace = PacePolicy(paced_from=5 * ONE, duration=timedelta(seconds=4), slice_units=ONE)
    begun = Pace(started_at=NOW - timedelta(seconds=1), units=20 * ONE, until=NOW + 3 * SECOND)

    plan = planned(-20 * ONE, policy=replace(POLICY, pace=pace), pace=begun)

    assert [leg.units for leg in plan.legs] == [5 * ONE]
    assert (plan.need, plan.waiting, plan.residual) == (20 * ONE, 15 * ONE, 15 * ONE)


@pytest.mark.parametrize(
    ("need", "expected"),
    [(2, "3000"), (4, "2997.5"), (99, "2997.5"), (-1, "3050"), (0, None)],
)
def test_the_clients_price_is_the_average_of_the_newest_deals_that_made_the_need(
    need: int, expected: str | None
) -> None:
    """Rows: what each deal added, and at which price; newest first."""
    deals = [(2, "3000"), (-1, "3050"), (2, "2995")]
    rows = [
        (units * ONE, abs(units) * Price.parse(price, ETH, USDT).to_quote(ONE, Rounding.DOWN))
        for units, price in deals
    ]

    found = client_price(rows, need * ONE, ETH, USDT)

    assert found == (None if expected is None else Price.parse(expected, ETH, USDT))


def test_no_order_is_much_worse_than_what_clients_got() -> None:
    """The market has run away by more than the desk is ready to lose: a person has to look."""
    careful = replace(POLICY, client_loss_ppm=100)

    cheap = planned(-ONE, policy=careful, client_price=Price.parse("2990", ETH, USDT))
    fair = planned(-ONE, policy=careful, client_price=Price.parse("3001", ETH, USDT))

    assert (cheap.verdict, cheap.legs) == (V.TOO_EXPENSIVE, ())
    assert [leg.units for leg in fair.legs] == [ONE]


@pytest.mark.parametrize(("limit", "is_told"), [("0.001", False), ("0.0009", True)])
def test_what_no_place_takes_is_told_once_it_is_more_than_may_be_carried(
    limit: str,
    is_told: bool,  # noqa: FBT001  a row of the table
) -> None:
    plan = planned(ETH.parse("-0.001"), policy=replace(POLICY, residual_max=ETH.parse(limit)))

    assert plan.verdict is V.BELOW_MINIMUM
    assert bool(plan.alarm) is is_told
    assert plan.residual == ETH.parse("0.001")
