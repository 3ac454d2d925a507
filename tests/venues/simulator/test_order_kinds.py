"""Orders that wait, change, end by themselves or depend on each other."""

from pathlib import Path
from typing import Any

import pytest

from matching.model import SelfTradePrevention, Side, TimeInForce
from venues.simulator.commands import (
    AmendOrder,
    CancelAll,
    CancelOrder,
    Command,
    LateFill,
    MirrorLevels,
    MirrorTrade,
    OrderUpdated,
    PassTime,
    PlaceOrder,
    PlaceOrderList,
    SetBalance,
    SetDeadMan,
    VenueEvent,
    WithdrawQuotes,
)
from venues.simulator.errors import Refusal, VenueRefusal
from venues.simulator.exchange import Exchange
from venues.simulator.model import (
    Execution,
    FeeIn,
    Order,
    OrderListKind,
    OrderListStatus,
    OrderStatus,
    OrderType,
    Reason,
)
from venues.simulator.settings import VenueSimulatorSettings

AT = 1_700_000_000_000
SYMBOL = "ETHUSDT"
LADDER = tuple(
    (side, 300_000 + sign * step, 10_000)
    for side, sign in ((Side.BUY, -1), (Side.SELL, 1))
    for step in (100, 1_000, 2_000)
)


@pytest.fixture
def exchange() -> Exchange:
    """A book of three levels a side, 10 000 lots each, and a last price of 3001."""
    made = Exchange(VenueSimulatorSettings(data_dir=Path("unused")).genesis(AT))
    run(made, MirrorLevels(AT, SYMBOL, LADDER, whole=True))
    run(made, MirrorTrade(AT, SYMBOL, Side.BUY, 300_100, 1))
    return made


def run(exchange: Exchange, command: Command) -> tuple[VenueEvent, ...]:
    exchange.check(command)
    return exchange.apply(command)


def sent(side: Side, kind: OrderType, lots: int = 1_000, **changes: Any) -> PlaceOrder:
    return PlaceOrder(
        AT,
        "desk",
        SYMBOL,
        changes.pop("name", ""),
        side,
        kind,
        changes.pop("tif", TimeInForce.GTC),
        changes.pop("price", None),
        lots,
        **changes,
    )


def order(exchange: Exchange, number: int = -1) -> Order:
    return exchange.state.all_orders_of("desk")[number]


def trade_at(exchange: Exchange, price_ticks: int) -> tuple[VenueEvent, ...]:
    """Let the last price be this one, off the ladder's prices."""
    side = Side.SELL if price_ticks > 300_000 else Side.BUY
    run(exchange, WithdrawQuotes(AT, SYMBOL))
    run(exchange, MirrorLevels(AT, SYMBOL, ((side, price_ticks, 1),)))
    events = run(exchange, MirrorTrade(AT, SYMBOL, side.opposite, price_ticks, 1))
    run(exchange, MirrorLevels(AT, SYMBOL, LADDER, whole=True))
    return events


@pytest.mark.parametrize(
    ("side", "kind", "trigger", "not_yet", "then"),
    [
        (Side.SELL, OrderType.STOP_LOSS, 299_500, 299_600, 299_400),
        (Side.BUY, OrderType.STOP_LOSS, 300_500, 300_400, 300_600),
        (Side.SELL, OrderType.TAKE_PROFIT, 300_500, 300_400, 300_600),
        (Side.BUY, OrderType.TAKE_PROFIT, 299_500, 299_600, 299_400),
        (Side.SELL, OrderType.STOP_LOSS_LIMIT, 299_500, 299_600, 299_400),
        (Side.BUY, OrderType.TAKE_PROFIT_LIMIT, 299_500, 299_600, 299_400),
    ],
)
def test_an_order_waits_for_its_trigger(
    exchange: Exchange, side: Side, kind: OrderType, trigger: int, not_yet: int, then: int
) -> None:
    price = 295_000 if side is Side.BUY else 305_000
    run(exchange, sent(side, kind, trigger_ticks=trigger, price=price if kind.has_limit else None))
    trade_at(exchange, not_yet)
    assert order(exchange).is_waiting

    events = trade_at(exchange, then)

    told = [e.execution for e in events if isinstance(e, OrderUpdated)]
    assert told[0] is Execution.TRIGGERED
    assert order(exchange).triggered_ms == AT
    assert order(exchange).is_working is kind.has_limit


def test_a_trigger_that_was_passed_already_is_refused(exchange: Exchange) -> None:
    with pytest.raises(VenueRefusal) as refusal:
        run(exchange, sent(Side.SELL, OrderType.STOP_LOSS, trigger_ticks=300_200))

    assert refusal.value.refusal is Refusal.WOULD_TRIGGER


def test_a_trail_follows_the_price_up_and_triggers_on_the_way_back(exchange: Exchange) -> None:
    run(exchange, sent(Side.SELL, OrderType.TRAILING_STOP, trailing_ticks=300))
    assert order(exchange).stop_ticks == 299_800
    trade_at(exchange, 300_700)
    assert order(exchange).stop_ticks == 300_400

    trade_at(exchange, 300_350)

    assert order(exchange).triggered_ms


def test_a_trail_with_a_trigger_price_begins_there(exchange: Exchange) -> None:
    command = sent(Side.SELL, OrderType.TAKE_PROFIT, trigger_ticks=300_500, trailing_ppm=1_000)
    run(exchange, command)
    trade_at(exchange, 299_000)
    assert (order(exchange).trail_ms, order(exchange).is_waiting) == (0, True)

    trade_at(exchange, 300_600)

    assert order(exchange).stop_ticks == 300_600 - 300


def test_a_triggered_order_without_funds_ends(exchange: Exchange) -> None:
    run(
        exchange,
        sent(Side.BUY, OrderType.TRAILING_STOP_LIMIT, trailing_ticks=300, limit_offset_ticks=10),
    )
    run(exchange, SetBalance(AT, "desk", "USDT", 0))

    trade_at(exchange, 300_900)

    ended = order(exchange)
    assert (ended.status, ended.reason) == (OrderStatus.EXPIRED, Reason.NO_FUNDS)


def test_an_order_of_limited_time_ends_by_itself(exchange: Exchange) -> None:
    run(exchange, sent(Side.BUY, OrderType.LIMIT, price=290_000, expire_ms=AT + 5))
    assert not exchange.state.is_due(AT + 4)
    assert exchange.state.is_due(AT + 5)

    run(exchange, PassTime(AT + 5))

    assert (order(exchange).status, order(exchange).reason) == (OrderStatus.EXPIRED, Reason.EXPIRY)
    assert not exchange.state.is_due(AT + 6)


def test_a_dead_mans_switch_ends_all_orders_once_it_is_not_renewed(exchange: Exchange) -> None:
    run(exchange, sent(Side.BUY, OrderType.LIMIT, price=290_000))
    run(exchange, SetDeadMan(AT, "desk", AT + 10))
    run(exchange, SetDeadMan(AT + 9, "desk", AT + 19))
    run(exchange, PassTime(AT + 12))
    assert order(exchange).status.is_open

    run(exchange, PassTime(AT + 19))

    assert order(exchange).reason is Reason.DEAD_MAN
    assert exchange.state.accounts["desk"].dead_man_ms is None


def test_an_amended_order_keeps_its_id_and_loses_its_place_only_when_it_grows(
    exchange: Exchange,
) -> None:
    for name in ("first", "second"):
        run(exchange, sent(Side.BUY, OrderType.LIMIT, price=299_950, name=name))
    first = order(exchange, 0)

    run(exchange, AmendOrder(AT, "desk", SYMBOL, first.order_id, 400, client_order_id="renamed"))
    run(exchange, MirrorTrade(AT, SYMBOL, Side.SELL, 299_950, 100))
    run(exchange, AmendOrder(AT, "desk", SYMBOL, first.order_id, 900))
    run(exchange, MirrorTrade(AT, SYMBOL, Side.SELL, 299_950, 100))

    assert [o.filled_lots for o in exchange.state.all_orders_of("desk")] == [100, 100]
    assert exchange.state.find_by_client_id("desk", SYMBOL, "first") is None
    renamed = exchange.state.find_by_client_id("desk", SYMBOL, "renamed")
    assert renamed is not None
    assert [row.new_lots for row in exchange.state.amendments_of(SYMBOL, renamed.order_id)] == [
        400,
        900,
    ]


def test_an_order_amended_through_the_spread_trades(exchange: Exchange) -> None:
    run(exchange, sent(Side.BUY, OrderType.LIMIT, price=290_000))
    events = run(exchange, AmendOrder(AT, "desk", SYMBOL, order(exchange).order_id, 1_000, 300_100))

    told = [e.execution for e in events if isinstance(e, OrderUpdated)]
    assert told == [Execution.AMENDED, Execution.TRADE]
    assert order(exchange).status is OrderStatus.FILLED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quantity_lots": 0}, Refusal.INVALID_AMENDMENT),
        ({"quantity_lots": 10**9}, Refusal.INSUFFICIENT_FUNDS),
        ({"quantity_lots": 1_000, "price_ticks": 300_200, "post_only": True}, Refusal.WOULD_TAKE),
        ({"quantity_lots": 1_000, "trigger_ticks": 1}, Refusal.INVALID_AMENDMENT),
        ({"quantity_lots": 1_000, "order_id": 10**9}, Refusal.UNKNOWN_ORDER),
    ],
)
def test_amendments_that_cannot_be_are_refused(
    exchange: Exchange, changes: dict[str, Any], reason: Refusal
) -> None:
    run(exchange, sent(Side.BUY, OrderType.LIMIT, price=290_000))
    target = {"order_id": order(exchange).order_id} | changes

    with pytest.raises(VenueRefusal) as refusal:
        exchange.check(AmendOrder(at_ms=AT, account="desk", symbol=SYMBOL, **target))

    assert refusal.value.refusal is reason


def bracket(**changes: Any) -> PlaceOrderList:
    above = sent(Side.SELL, OrderType.LIMIT, price=301_500, post_only=True, name="above")
    below = sent(
        Side.SELL, OrderType.STOP_LOSS_LIMIT, price=298_000, trigger_ticks=298_500, name="below"
    )
    return PlaceOrderList(AT, "desk", SYMBOL, OrderListKind.OCO, "pair", (above, below))


def test_the_first_of_two_to_trade_ends_the_other_and_funds_are_held_once(
    exchange: Exchange,
) -> None:
    run(exchange, bracket())
    assert exchange.state.accounts["desk"].wallet.locked("ETH") == 1_000 * 10_000

    run(exchange, MirrorTrade(AT, SYMBOL, Side.BUY, 301_500, 30_000))

    above, below = exchange.state.all_orders_of("desk")
    assert (above.filled_lots, below.status) == (1_000, OrderStatus.EXPIRED)
    assert below.reason is Reason.ORDER_LIST
    assert exchange.state.order_lists_of("desk")[0].status is OrderListStatus.ALL_DONE


def test_a_part_of_a_trade_is_enough_to_end_the_other(exchange: Exchange) -> None:
    run(exchange, bracket())

    run(exchange, MirrorTrade(AT, SYMBOL, Side.BUY, 301_500, 20_399))

    above, below = exchange.state.all_orders_of("desk")
    assert (above.filled_lots, above.is_working) == (400, True)
    assert below.status is OrderStatus.EXPIRED
    assert exchange.state.accounts["desk"].wallet.locked("ETH") == 600 * 10_000


def test_the_first_of_two_to_trigger_ends_the_other(exchange: Exchange) -> None:
    run(exchange, bracket())

    trade_at(exchange, 298_400)

    above, below = exchange.state.all_orders_of("desk")
    assert above.status is OrderStatus.EXPIRED
    assert (below.triggered_ms, below.filled_lots) == (AT, 1_000)


def test_cancelling_one_of_two_cancels_both(exchange: Exchange) -> None:
    run(exchange, bracket())

    run(exchange, CancelOrder(AT, "desk", SYMBOL, order(exchange).order_id))

    assert [o.status for o in exchange.state.all_orders_of("desk")] == [OrderStatus.CANCELED] * 2
    assert exchange.state.accounts["desk"].wallet.locked("ETH") == 0


def test_an_order_begins_when_the_one_before_it_is_filled_in_whole(exchange: Exchange) -> None:
    first = sent(Side.BUY, OrderType.LIMIT, price=299_950)
    pair = bracket().orders
    run(exchange, PlaceOrderList(AT, "desk", SYMBOL, OrderListKind.OTOCO, "", (first, *pair)))
    run(exchange, MirrorTrade(AT, SYMBOL, Side.SELL, 299_950, 999))
    assert [o.status for o in exchange.state.all_orders_of("desk")][1:] == [
        OrderStatus.PENDING_NEW
    ] * 2

    run(exchange, MirrorTrade(AT, SYMBOL, Side.SELL, 299_950, 1))

    _, above, below = exchange.state.all_orders_of("desk")
    assert (above.is_working, below.is_waiting) == (True, True)


def test_an_order_that_waits_for_another_ends_with_it(exchange: Exchange) -> None:
    legs = (
        sent(Side.BUY, OrderType.LIMIT, price=299_950),
        sent(Side.SELL, OrderType.LIMIT, price=301_000),
    )
    run(exchange, PlaceOrderList(AT, "desk", SYMBOL, OrderListKind.OTO, "", legs))

    run(exchange, CancelAll(AT, "desk"))

    assert all(not o.status.is_open for o in exchange.state.all_orders_of("desk"))
    assert exchange.state.order_lists_of("desk")[0].status is OrderListStatus.ALL_DONE


def test_an_iceberg_shows_its_tip_and_trades_in_whole(exchange: Exchange) -> None:
    run(exchange, sent(Side.BUY, OrderType.LIMIT, price=299_950, display_lots=100))
    market = exchange.state.markets[SYMBOL]
    assert market.depth(Side.BUY, 1)[0].quantity_lots == 100

    run(exchange, MirrorTrade(AT, SYMBOL, Side.SELL, 299_950, 950))

    assert market.depth(Side.BUY, 1)[0].quantity_lots == 50
    assert order(exchange).filled_lots == 950


def test_a_commission_in_the_quote_asset_is_held_with_the_funds(exchange: Exchange) -> None:
    wallet = exchange.state.accounts["desk"].wallet
    before = wallet.free("USDT") + wallet.locked("USDT")
    run(exchange, sent(Side.BUY, OrderType.LIMIT, price=299_950, fee_in=FeeIn.QUOTE))
    assert wallet.locked("USDT") == 29_995_000_000 + 29_995_000

    run(exchange, MirrorTrade(AT, SYMBOL, Side.SELL, 299_950, 1_000))

    assert wallet.free("USDT") == before - 29_995_000_000 - 29_995_000
    assert exchange.state.accounts["desk"].fills[0].fee_asset == "USDT"


def test_only_a_cancelled_order_is_filled_late_and_no_more_than_it_had_left(
    exchange: Exchange,
) -> None:
    run(exchange, sent(Side.BUY, OrderType.LIMIT, price=290_000))
    key = ("desk", SYMBOL, order(exchange).order_id)
    with pytest.raises(VenueRefusal):
        exchange.check(LateFill(AT, *key, 1))
    run(exchange, CancelOrder(AT, *key))
    with pytest.raises(VenueRefusal):
        exchange.check(LateFill(AT, *key, 1_001))

    run(exchange, LateFill(AT, *key, 400))

    late = order(exchange)
    assert (late.status, late.filled_lots) == (OrderStatus.CANCELED, 400)


@pytest.mark.parametrize(
    "mode",
    [
        SelfTradePrevention.EXPIRE_MAKER,
        SelfTradePrevention.EXPIRE_TAKER,
        SelfTradePrevention.EXPIRE_BOTH,
        SelfTradePrevention.DECREMENT,
    ],
)
def test_a_trade_with_oneself_is_prevented_and_recorded_once(
    exchange: Exchange, mode: SelfTradePrevention
) -> None:
    run(exchange, sent(Side.SELL, OrderType.LIMIT, price=300_050, lots=600))
    run(
        exchange,
        sent(Side.BUY, OrderType.LIMIT, price=300_050, lots=1_000, self_trade_prevention=mode),
    )

    assert exchange.state.fills_of("desk") == []
    rows = exchange.state.prevented_matches_of("desk")
    assert [(row.quantity_lots, row.mode) for row in rows] == [(600, mode)]
