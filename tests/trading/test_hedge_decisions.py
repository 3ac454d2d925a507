"""What to hedge and how fills are posted: pure, against tables and generated cases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.money import Asset
from ledger.model import Transfer
from marketdata.model import BookView
from marketdata.testing import book_view, eth_usdt
from matching.model import Side, TimeInForce
from trading.hedging import hedge_needed, limit_ticks, plan_hedge
from trading.model import HedgePolicy, HedgeVerdict
from trading.postings import fill_chain
from venues.model import OPEN_STATES, OrderState, VenueFill, VenueOrder
from venues.worst_case import OrderExposure, Uncertainty, uncertainty

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ETH, USDT = Asset("ETH", 18), Asset("USDT", 6)
ONE = 10**18
GRID = eth_usdt()
NOTHING = Uncertainty(low=0, high=0)
VIEW = book_view(
    [("2999.00", "5"), ("2998.00", "50")], [("3001.00", "5"), ("3002.00", "50")], at=NOW
)
POLICY = HedgePolicy(slippage_ppm=1_000)
V = HedgeVerdict

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
    order = replace(ORDER, state=state, executed_units=executed, side=side)
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
    plan = plan_hedge(
        position=ETH.parse(position),
        under_way=NOTHING,
        target=0,
        instrument=GRID,
        view=VIEW,
        policy=POLICY,
        now=NOW,
    )

    assert (plan.verdict, plan.lots, plan.residual) == (verdict, lots, ETH.parse(residual))


def test_the_limit_is_the_mid_moved_by_the_cap_and_never_beyond() -> None:
    assert GRID.price_text(limit_ticks(VIEW, Side.BUY, 1_000)) == "3003"
    assert GRID.price_text(limit_ticks(VIEW, Side.SELL, 1_000)) == "2997"
    odd = book_view([("2999.99", "1")], [("3000.00", "1")], at=NOW)
    assert GRID.price_text(limit_ticks(odd, Side.BUY, 0)) == "2999.99"
    assert GRID.price_text(limit_ticks(odd, Side.SELL, 0)) == "3000"


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
    plan = plan_hedge(
        position=-10 * ONE,
        under_way=NOTHING,
        target=0,
        instrument=GRID,
        view=view,
        policy=replace(POLICY, **changes),
        now=NOW,
    )

    assert plan.verdict is verdict
    assert plan.side is None
    assert plan.residual == 10 * ONE


def test_one_order_never_exceeds_its_own_limit() -> None:
    plan = plan_hedge(
        position=-10 * ONE,
        under_way=NOTHING,
        target=0,
        instrument=GRID,
        view=VIEW,
        policy=replace(POLICY, order_units_max=2 * ONE),
        now=NOW,
    )

    assert (plan.lots, plan.residual) == (20_000, 8 * ONE)


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
            order=replace(
                item.order,
                base_units=ONE,
                executed_units=item.order.executed_units * ONE // 10,
            ),
            filled=item.filled * ONE // 10,
        )
        for item in items
    ]
    under_way = uncertainty(scaled)
    plan = plan_hedge(
        position=position,
        under_way=under_way,
        target=target,
        instrument=GRID,
        view=VIEW,
        policy=POLICY,
        now=NOW,
    )
    hedged = 0
    if plan.side is not None:
        hedged = plan.lots * GRID.lot * (1 if plan.side is Side.BUY else -1)
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
