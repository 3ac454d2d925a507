"""Orders against limits, judged purely: the worst case, the switch, every limit by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.money import Price
from matching.model import Side, TimeInForce
from registry.testing import ETH, USDT
from risk.model import (
    Breach,
    Control,
    ControlState,
    DeskBook,
    DeskLimits,
    ProposedOrder,
    Violation,
    WorstCase,
)
from risk.order_limits import (
    DeskUsage,
    count_unsettled,
    judge_orders,
    under_way,
    worst_cases,
)
from risk.worth import Worth
from venues.model import OrderState, VenueOrder
from venues.worst_case import OrderExposure

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ONE = ETH.parse("1")
PRICE = Price.parse("3000", ETH, USDT)
WORTH = Worth("USDT", {"ETH": PRICE})
LIMITS = DeskLimits(
    desk="otc",
    version=1,
    currency="USDT",
    asset_units={"ETH": 10 * ONE},
    notional_units=USDT.parse("30000"),
    order_notional_units=USDT.parse("15000"),
    orders_per_minute=5,
    unknown_orders_max=4,
    book_age_max_ms=500,
    venue_units={"kraken": USDT.parse("18000")},
)


def order(side: Side = Side.BUY, units: int = ONE, **changes: Any) -> ProposedOrder:
    values: dict[str, Any] = {
        "desk": "otc",
        "venue": "kraken",
        "account": "main",
        "asset": "ETH",
        "quote": "USDT",
        "side": side,
        "base_units": units,
        "limit_price": PRICE,
        "book_age_ms": 100,
    }
    return ProposedOrder(**(values | changes))


def usage(low: int = 0, high: int | None = None, **changes: Any) -> DeskUsage:
    values: dict[str, Any] = {
        "control": Control(desk="otc", state=ControlState.ACTIVE),
        "positions": {"ETH": WorstCase(low, low if high is None else high)},
        "under_way": {},
        "unsettled": 0,
        "orders_last_minute": 0,
        "worth": WORTH,
    }
    return DeskUsage(**(values | changes))


def names(breaches: tuple[Breach, ...]) -> list[Violation]:
    return [item.violation for item in breaches]


def exposure(
    side: Side = Side.BUY,
    units: int = ONE,
    *,
    state: OrderState = OrderState.UNKNOWN,
    executed: int = 0,
    filled: int = 0,
    booked: int = 0,
    venue: str = "kraken",
) -> OrderExposure:
    placed = VenueOrder(
        id=UUID(int=1),
        venue=venue,
        account="main",
        symbol="ETH/USDT",
        instrument_version=1,
        side=side,
        base_units=units,
        quantity="1",
        price="3000",
        time_in_force=TimeInForce.IOC,
        reference="hedge:otc:ETH",
        intent="hedge:otc:ETH:1",
        client_order_id="c1",
        venue_order_id=None,
        state=state,
        state_reason="",
        signed_at=NOW,
        recv_window=timedelta(seconds=3),
        executed_units=executed,
        created_at=NOW,
        updated_at=NOW,
        fence=1,
    )
    return OrderExposure(order=placed, filled=filled, booked=booked)


def test_an_order_of_unknown_outcome_counts_as_filled_and_as_not_filled() -> None:
    book = DeskBook(
        positions={"ETH": -4 * ONE},
        under_way={"ETH": [exposure(Side.BUY, 3 * ONE), exposure(Side.SELL, 2 * ONE)]},
    )

    assert worst_cases(book) == {"ETH": WorstCase(-6 * ONE, -ONE)}
    assert under_way(book) == {"kraken": {"ETH": 5 * ONE}}
    assert count_unsettled(book) == 2


def test_what_has_traded_and_is_not_booked_is_certain() -> None:
    partly = exposure(
        Side.BUY, 3 * ONE, state=OrderState.CANCELLED, executed=2 * ONE, filled=ONE, booked=ONE
    )

    book = DeskBook(positions={"ETH": ONE}, under_way={"ETH": [partly]})

    assert worst_cases(book) == {"ETH": WorstCase(2 * ONE, 2 * ONE)}
    assert count_unsettled(book) == 0


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        (OrderState.INTENT, 1),
        (OrderState.SUBMITTING, 1),
        (OrderState.UNKNOWN, 1),
        (OrderState.ESCALATED, 1),
        (OrderState.ACKED, 0),
        (OrderState.FILLED, 0),
    ],
)
def test_what_nobody_knows_the_outcome_of_is_counted_from_the_intent_on(
    state: OrderState, counts: int
) -> None:
    book = DeskBook(positions={}, under_way={"ETH": [exposure(state=state)]})

    assert count_unsettled(book) == counts


def test_within_every_limit_nothing_is_wrong() -> None:
    assert judge_orders(LIMITS, usage(5 * ONE), [order(units=5 * ONE)]) == ()


@pytest.mark.parametrize(
    ("case", "proposed", "violations"),
    [
        (usage(5 * ONE), [order(units=5 * ONE + 1)], "order-notional asset-position total-notional"),
        (usage(6 * ONE), [order(units=4 * ONE + 1)], "asset-position total-notional"),
        (usage(-10 * ONE), [order(Side.SELL, 1)], "asset-position total-notional"),
        # Two buys of four each reach eleven together, though neither does alone.
        (usage(3 * ONE), [order(units=4 * ONE)] * 2, "asset-position total-notional venue-under-way"),
        # A sale under way or proposed does not make room for a buy: it may not fill.
        (usage(7 * ONE), [order(Side.SELL, 5 * ONE), order(units=4 * ONE)],
         "asset-position total-notional venue-under-way"),
        (usage(-5 * ONE, 8 * ONE), [order(units=3 * ONE)], "asset-position total-notional"),
        (usage(), [order(units=5 * ONE, limit_price=Price.parse("3001", ETH, USDT))],
         "order-notional"),
        # A sale with a limit far below the market is worth what the market says.
        (usage(), [order(Side.SELL, 5 * ONE + 1, limit_price=Price.parse("1", ETH, USDT))],
         "order-notional"),
        (usage(orders_last_minute=4), [order()] * 2, "order-rate"),
        (usage(unsettled=3), [order()] * 2, "too-many-unknown"),
        (usage(), [order(book_age_ms=501)], "book-too-old"),
        (usage(), [order(book_age_ms=None)], "book-too-old"),
        (usage(under_way={"kraken": {"ETH": 4 * ONE}}), [order(units=2 * ONE + 1)],
         "venue-under-way"),
        (usage(under_way={"binance": {"ETH": 9 * ONE}}), [order(units=2 * ONE)], ""),
        (usage(tripped=frozenset({("kraken", "main")})), [order()], "venue-tripped"),
        (usage(tripped=frozenset({("kraken", "other")})), [order()], ""),
        (usage(worth=Worth("USDT", {})), [order()], "no-price"),
    ],
)  # fmt: skip
def test_every_limit_is_named_when_it_is_passed(
    case: DeskUsage, proposed: list[ProposedOrder], violations: str
) -> None:
    assert names(judge_orders(LIMITS, case, proposed)) == violations.split()


def test_a_breach_says_what_it_would_come_to_and_what_is_allowed() -> None:
    (breach,) = judge_orders(
        DeskLimits(desk="otc", currency="USDT", asset_units={"ETH": 3}), usage(2), [order(units=2)]
    )

    assert breach == Breach(Violation.ASSET_POSITION, "ETH", 4, 3)
    assert str(breach) == "asset-position of ETH: 4 of 3"


@pytest.mark.parametrize("low", [-15 * ONE, -11 * ONE])
def test_what_brings_a_position_nearer_to_zero_passes_though_it_is_beyond_its_limit(
    low: int,
) -> None:
    assert judge_orders(LIMITS, usage(low), [order(units=5 * ONE)]) == ()


def test_the_currency_of_the_limits_is_no_position_in_money() -> None:
    rich = usage(positions={"USDT": WorstCase(10**15, 10**15)})

    assert judge_orders(LIMITS, rich, [order()]) == ()


def test_a_desk_without_limits_has_only_its_switch_and_the_breakers() -> None:
    tripped = usage(tripped=frozenset({("kraken", "main")}))

    assert judge_orders(None, usage(), [order(units=10**30)]) == ()
    assert names(judge_orders(None, tripped, [order()])) == [Violation.VENUE_TRIPPED]


@pytest.mark.parametrize(
    ("low", "high", "side", "units", "passes"),
    [
        (5, 5, Side.SELL, 5, True),
        (5, 5, Side.SELL, 6, False),
        (5, 5, Side.BUY, 1, False),
        (-5, -5, Side.BUY, 5, True),
        (-5, -5, Side.BUY, 6, False),
        (-5, -5, Side.SELL, 1, False),
        (0, 0, Side.BUY, 1, False),
        # Four may have been sold already: one is left for certain.
        (1, 5, Side.SELL, 1, True),
        (1, 5, Side.SELL, 2, False),
        (-2, 3, Side.BUY, 1, False),
        (-2, 3, Side.SELL, 1, False),
    ],
)
def test_a_desk_that_reduces_never_passes_zero_even_in_the_worst_case(
    low: int, high: int, side: Side, units: int, *, passes: bool
) -> None:
    reducing = Control(desk="otc", state=ControlState.REDUCING)

    found = judge_orders(LIMITS, usage(low, high, control=reducing), [order(side, units)])

    assert names(found) == ([] if passes else [Violation.NOT_REDUCING])


def test_a_halted_desk_writes_no_order_at_all() -> None:
    halted = Control(desk="*", state=ControlState.HALTED)

    found = judge_orders(LIMITS, usage(5, control=halted), [order(Side.SELL, 1)])

    assert found == (Breach(Violation.DESK_HALTED, "*"),)


UNITS = st.integers(1, 8)
ORDERS = st.lists(st.tuples(st.sampled_from(Side), UNITS, st.integers(0, 8)), max_size=6)


@given(
    held=st.integers(-10, 10),
    before=ORDERS,
    proposed=ORDERS,
    state=st.sampled_from(ControlState),
)
def test_however_what_passed_turns_out_no_limit_is_exceeded(
    held: int,
    before: list[tuple[Side, int, int]],
    proposed: list[tuple[Side, int, int]],
    state: ControlState,
) -> None:
    """Every order fills by any part, whatever its fate: a position beyond the limit was so before."""
    limits = DeskLimits(desk="otc", currency="USDT", asset_units={"ETH": 10})
    book = DeskBook(
        positions={"ETH": held},
        under_way={"ETH": [exposure(side, units) for side, units, _ in before]},
    )
    control = Control(desk="otc", state=state)
    orders = [order(side, units) for side, units, _ in proposed]

    case = usage(positions=worst_cases(book), control=control)
    passed = judge_orders(limits, case, orders) == ()

    def turned_out(items: list[tuple[Side, int, int]]) -> int:
        return sum((1 if side is Side.BUY else -1) * min(u, part) for side, u, part in items)

    without = held + turned_out(before)
    then = without + turned_out(proposed)
    if passed:
        assert abs(then) <= max(10, abs(without))
        if state is not ControlState.ACTIVE:
            assert abs(then) <= abs(without)
            assert then * without >= 0
        if state is ControlState.HALTED:
            assert not proposed
