"""Who trades before whom, and who not at all: icebergs and orders that meet their own account."""

from pathlib import Path
from typing import Any

import pytest

from matching.model import SelfTradePrevention, Side, TimeInForce
from venues.simulator import checkpoint
from venues.simulator.commands import AmendOrder, Command, MirrorLevels, MirrorTrade, PlaceOrder
from venues.simulator.exchange import Exchange
from venues.simulator.model import Order, OrderStatus, OrderType
from venues.simulator.settings import VenueSimulatorSettings

AT = 1_700_000_000_000
SYMBOL = "ETHUSDT"
BEST, OWN, WORSE = 299_960, 299_950, 299_900


@pytest.fixture
def exchange() -> Exchange:
    """1 000 lots are bid at the best price and at a worse one; between them an account's own."""
    made = Exchange(VenueSimulatorSettings(data_dir=Path("unused")).genesis(AT))
    levels = ((Side.BUY, BEST, 1_000), (Side.BUY, WORSE, 1_000), (Side.SELL, 300_100, 1_000))
    run(made, MirrorLevels(AT, SYMBOL, levels, whole=True))
    return made


def run(exchange: Exchange, command: Command) -> None:
    exchange.check(command)
    exchange.apply(command)


def order(exchange: Exchange, side: Side, price: int, lots: int, **changes: Any) -> int:
    """Place a limit order of the desk; answers its id."""
    order_id = exchange.state.markets[SYMBOL].next_order_id
    tif = changes.pop("tif", TimeInForce.GTC)
    command = PlaceOrder(AT, "desk", SYMBOL, "", side, OrderType.LIMIT, tif, price, lots, **changes)
    run(exchange, command)
    return order_id


def found(exchange: Exchange, order_id: int) -> Order:
    placed = exchange.state.order(SYMBOL, order_id)
    assert placed is not None
    return placed


@pytest.mark.parametrize("display", [0, 100])
@pytest.mark.parametrize(
    ("mode", "filled", "status", "own"),
    [
        (
            SelfTradePrevention.EXPIRE_TAKER,
            1_000,
            OrderStatus.EXPIRED_IN_MATCH,
            OrderStatus.NEW,
        ),
        (
            SelfTradePrevention.EXPIRE_BOTH,
            1_000,
            OrderStatus.EXPIRED_IN_MATCH,
            OrderStatus.EXPIRED_IN_MATCH,
        ),
        (
            SelfTradePrevention.EXPIRE_MAKER,
            1_500,
            OrderStatus.FILLED,
            OrderStatus.EXPIRED_IN_MATCH,
        ),
        (
            SelfTradePrevention.DECREMENT,
            1_000,
            OrderStatus.EXPIRED_IN_MATCH,
            OrderStatus.NEW,
        ),
    ],
)
def test_an_order_trades_until_it_meets_its_own_account(
    exchange: Exchange,
    mode: SelfTradePrevention,
    filled: int,
    status: OrderStatus,
    own: OrderStatus,
    display: int,
) -> None:
    resting = order(exchange, Side.BUY, OWN, 2_000, display_lots=display)

    taker = order(
        exchange,
        Side.SELL,
        WORSE,
        1_500,
        tif=TimeInForce.IOC,
        self_trade_prevention=mode,
    )

    assert (found(exchange, taker).filled_lots, found(exchange, taker).status) == (filled, status)
    assert found(exchange, resting).status is own
    assert found(exchange, resting).filled_lots == 0


def test_what_an_iceberg_shows_next_stands_behind_the_others(exchange: Exchange) -> None:
    iceberg = order(exchange, Side.BUY, OWN, 1_000, display_lots=100)
    behind = order(exchange, Side.BUY, OWN, 300)
    run(exchange, MirrorTrade(AT, SYMBOL, Side.SELL, BEST, 1_000))

    run(exchange, MirrorTrade(AT, SYMBOL, Side.SELL, OWN, 350))

    assert found(exchange, iceberg).filled_lots == 100
    assert found(exchange, behind).filled_lots == 250
    fills = exchange.state.fills_of("desk")
    assert [fill.order_id for fill in fills] == [iceberg, behind]
    assert exchange.state.markets[SYMBOL].visible_at(Side.BUY, OWN) == 150


def test_an_image_keeps_what_an_iceberg_hides_and_where_it_stands(exchange: Exchange) -> None:
    iceberg = order(exchange, Side.BUY, BEST + 10, 1_000, display_lots=100)
    run(exchange, MirrorTrade(AT, SYMBOL, Side.SELL, BEST + 10, 30))

    again = checkpoint.exchange_from(
        exchange.state.genesis, checkpoint.image_of(exchange, journal_bytes=0, last_ms=AT)
    )

    for venue in (exchange, again):
        assert venue.state.markets[SYMBOL].visible_at(Side.BUY, BEST + 10) == 70
        late = order(venue, Side.BUY, BEST + 10, 50)
        run(venue, MirrorTrade(AT, SYMBOL, Side.SELL, BEST + 10, 150))
        assert found(venue, iceberg).filled_lots == 130
        assert found(venue, late).filled_lots == 50


def test_an_amended_display_makes_an_iceberg_enter_again(exchange: Exchange) -> None:
    iceberg = order(exchange, Side.BUY, BEST + 10, 1_000, display_lots=100)
    behind = order(exchange, Side.BUY, BEST + 10, 50)
    run(exchange, AmendOrder(AT, "desk", SYMBOL, iceberg, 1_000, display_lots=400))
    assert exchange.state.markets[SYMBOL].visible_at(Side.BUY, BEST + 10) == 450

    run(exchange, MirrorTrade(AT, SYMBOL, Side.SELL, BEST + 10, 60))

    assert found(exchange, behind).filled_lots == 50
    assert found(exchange, iceberg).filled_lots == 10


def test_a_budget_meets_what_icebergs_hide(exchange: Exchange) -> None:
    order(exchange, Side.BUY, BEST + 10, 1_000, display_lots=100)

    wanted = exchange.state.markets[SYMBOL].spec.notional_units(BEST + 10, 800)
    assert exchange.resolve_quantity(SYMBOL, Side.SELL, wanted) == 800
