"""Cards of the rest of the Binance surface, through unmodified ccxt and ccxt.pro.

Numbers go on where the first cards ended: V for REST, W for WebSocket.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

import ccxt
import ccxt.async_support
import ccxt.pro
import pytest

from venues.simulator.testing import SimulatorProcess

Rest: TypeAlias = ccxt.async_support.binance
Pro: TypeAlias = ccxt.pro.binance
T = TypeVar("T")

ETH: Final = "ETH/USDT"
BTC: Final = "BTC/USDT"
SOON_S: Final = 20.0
LOW: Final = 2_000.0


@pytest.fixture(autouse=True)
async def still_market(rest: Rest, venue: SimulatorProcess) -> None:
    venue.control("POST", "maker", {"paused": True})
    venue.control("POST", "mid", {"symbol": "ETHUSDT", "price": "3000.00"})
    await rest.create_order(ETH, "market", "buy", 0.01)


async def soon(awaited: Awaitable[T]) -> T:
    async with asyncio.timeout(SOON_S):
        return await awaited


@pytest.mark.parametrize(
    ("kind", "side", "price", "params", "told"),
    [
        ("market", "sell", None, {"stopLossPrice": 2_500}, "STOP_LOSS"),
        ("limit", "sell", 2_400, {"stopLossPrice": 2_500}, "STOP_LOSS_LIMIT"),
        ("market", "sell", None, {"takeProfitPrice": 3_500}, "TAKE_PROFIT"),
        ("limit", "sell", 3_600, {"takeProfitPrice": 3_500}, "TAKE_PROFIT_LIMIT"),
        ("market", "buy", None, {"triggerPrice": 3_500}, "STOP_LOSS"),
        (
            "market",
            "sell",
            None,
            {"trailingPercent": 2, "stopLossOrTakeProfit": "stopLoss"},
            "STOP_LOSS",
        ),
        ("limit", "buy", LOW, {"postOnly": True}, "LIMIT_MAKER"),
        ("limit", "buy", LOW, {"icebergQty": 0.1}, "LIMIT"),
    ],
)
async def test_conditional_orders_are_placed_and_cancelled(
    rest: Rest, kind: str, side: str, price: float | None, params: dict[str, Any], told: str
) -> None:
    """V26. Each conditional order ccxt can make. Open under the venue's type; then canceled."""
    order = await rest.create_order(ETH, kind, side, 0.5, price, params)

    found = await rest.fetch_order(order["id"], ETH)
    ended = await rest.cancel_order(order["id"], ETH)

    assert (found["status"], found["info"]["type"]) == ("open", told)
    assert found["triggerPrice"] == next(
        (params[name] for name in params if name.endswith("Price")), None
    )
    assert ended["status"] == "canceled"


async def test_a_trailing_stop_follows_the_price(rest: Rest, venue: SimulatorProcess) -> None:
    """V27. Sell trailing 1 %; up to 3300, back to 3200. Untouched at 3290; filled near 3200."""
    order = await rest.create_order(ETH, "STOP_LOSS", "sell", 0.5, None, {"trailingDelta": 100})

    async def trade_at(price: str) -> str:
        venue.control("POST", "mid", {"symbol": "ETHUSDT", "price": price})
        await rest.create_order(ETH, "market", "buy", 0.01)
        return str((await rest.fetch_order(order["id"], ETH))["status"])

    seen = [await trade_at(price) for price in ("3150", "3300", "3290", "3200")]

    assert seen == ["open", "open", "open", "closed"]
    assert 3_190 < (await rest.fetch_order(order["id"], ETH))["average"] < 3_201


async def test_an_order_is_edited_by_cancel_and_replace(rest: Rest) -> None:
    """V28. edit_order, cancel_all_orders, fetch_canceled_orders. A new order; none; both listed."""
    first = await rest.create_order(ETH, "limit", "buy", 0.5, LOW)

    second = await rest.edit_order(first["id"], ETH, "limit", "buy", 0.4, 2_100)
    await rest.cancel_all_orders(ETH)

    ended = {row["id"] for row in await rest.fetch_canceled_orders(ETH)}
    assert await rest.fetch_open_orders(ETH) == []
    assert {first["id"], second["id"]} <= ended
    assert second["amount"] == 0.4


async def test_every_timeframe_of_ccxt_has_candles(rest: Rest) -> None:
    """V29. fetch_ohlcv of every timeframe. The last close is the last price everywhere."""
    last = (await rest.fetch_ticker(ETH))["last"]

    for timeframe in rest.timeframes:
        candle = (await rest.fetch_ohlcv(ETH, timeframe))[-1]
        assert candle[4] == last, timeframe
        assert candle[3] <= candle[4] <= candle[2]


async def test_all_tickers_and_fees_are_told(rest: Rest) -> None:
    """V30. fetch_tickers, bids_asks, last_prices, trading_fees. Both symbols; 0.1 %."""
    tickers = await rest.fetch_tickers()
    best = await rest.fetch_bids_asks()
    prices = await rest.fetch_last_prices()
    fees = await rest.fetch_trading_fees()
    one = await rest.fetch_trading_fee(ETH)

    assert set(tickers) == set(best) == set(prices) == set(fees) == {ETH, BTC}
    assert best[ETH]["bid"] < best[ETH]["ask"]
    assert (fees[ETH]["maker"], one["taker"]) == (0.001, 0.001)


async def test_trades_are_paged(rest: Rest) -> None:
    """V31. Public trades by time and by id; order trades. From there on; only its own."""
    order = await rest.create_order(ETH, "market", "buy", 0.3)
    last = (await rest.fetch_trades(ETH))[-1]

    since = await rest.fetch_trades(ETH, last["timestamp"])
    mine = await rest.fetch_order_trades(order["id"], ETH)
    later = await rest.fetch_my_trades(ETH, None, None, {"fromId": mine[0]["id"]})

    assert since[-1]["price"] == last["price"]
    assert {trade["order"] for trade in mine} == {order["id"]}
    assert later[0]["id"] == mine[0]["id"]


async def test_an_account_gives_way_to_itself_by_the_smaller_order(
    rest: Rest, venue: SimulatorProcess
) -> None:
    """V32. Own orders of 0.5 and 0.2 cross with DECREMENT. 0.2 prevented of both, none traded."""
    venue.control("POST", "withdraw-quotes", {"symbol": "ETHUSDT"})
    resting = await rest.create_order(ETH, "limit", "buy", 0.5, 3_000)

    taking = await rest.create_order(
        ETH, "limit", "sell", 0.2, 3_000, {"selfTradePreventionMode": "DECREMENT"}
    )

    left = await rest.fetch_order(resting["id"], ETH)
    gone = await rest.fetch_order(taking["id"], ETH)
    assert left["info"]["preventedQuantity"] == gone["info"]["preventedQuantity"] == "0.20000000"
    assert (left["filled"], gone["filled"]) == (0.0, 0.0)
    assert (left["status"], gone["info"]["status"]) == ("open", "EXPIRED_IN_MATCH")
    await rest.cancel_order(resting["id"], ETH)


WS_QUERIES: Final[dict[str, Callable[[Pro], Awaitable[Any]]]] = {
    "candles": lambda pro: pro.fetch_ohlcv_ws(ETH, "1m"),
    "trades": lambda pro: pro.fetch_trades_ws(ETH),
    "balance": lambda pro: pro.fetch_balance_ws(),
    "mine": lambda pro: pro.fetch_my_trades_ws(ETH),
    "orders": lambda pro: pro.fetch_orders_ws(ETH),
}


async def test_ccxt_asks_and_trades_over_the_socket(pro: Pro) -> None:
    """W10. Every *_ws call of ccxt.pro. Answered; an order placed, changed and cancelled."""
    await pro.load_markets()
    for name, query in WS_QUERIES.items():
        assert await soon(query(pro)), name

    placed = await soon(pro.create_order_ws(ETH, "limit", "buy", 0.5, LOW))
    found = await soon(pro.fetch_order_ws(placed["id"], ETH))
    edited = await soon(pro.edit_order_ws(placed["id"], ETH, "limit", "buy", 0.4, LOW))
    listed = await soon(pro.fetch_open_orders_ws(ETH))
    ended = await soon(pro.cancel_order_ws(edited["id"], ETH))
    await soon(pro.create_order_ws(ETH, "limit", "buy", 0.5, LOW))
    cleared = await soon(pro.cancel_all_orders_ws(ETH))

    assert found["status"] == "open"
    assert [order["id"] for order in listed] == [edited["id"]]
    assert ended["status"] == "canceled"
    assert [order["status"] for order in cleared] == ["canceled"]


async def test_a_refusal_over_the_socket_raises_the_same_error(pro: Pro) -> None:
    """W11. create_order_ws without cover. InsufficientFunds, as over REST."""
    await pro.load_markets()

    with pytest.raises(ccxt.InsufficientFunds):
        await soon(pro.create_order_ws(ETH, "limit", "sell", 1_000_000, 3_000))


async def test_all_public_streams_of_ccxt_are_fed(pro: Pro, venue: SimulatorProcess) -> None:
    """W12. A lively market. Every public watch method. A value of the right symbol each."""
    venue.control("POST", "maker", {"paused": False})
    await pro.load_markets()

    async with asyncio.TaskGroup() as tasks:
        watched = [
            tasks.create_task(soon(awaited))
            for awaited in (
                pro.watch_order_book(ETH),
                pro.watch_order_book_for_symbols([ETH, BTC]),
                pro.watch_trades_for_symbols([ETH, BTC]),
                pro.watch_ticker(ETH),
                pro.watch_tickers([ETH, BTC]),
                pro.watch_bids_asks([ETH, BTC]),
                pro.watch_ohlcv(ETH, "1s"),
                pro.watch_ohlcv_for_symbols([[ETH, "1m"], [BTC, "5m"]]),
            )
        ]

    venue.control("POST", "maker", {"paused": True})
    assert all(task.result() for task in watched)


async def test_a_stream_can_be_left(pro: Pro, venue: SimulatorProcess) -> None:
    """W13. Watch, un-watch, watch again. No frame in between; then they come again."""
    venue.control("POST", "maker", {"paused": False})
    first = await soon(pro.watch_ticker(ETH))
    await soon(pro.un_watch_ticker(ETH))

    again = await soon(pro.watch_ticker(ETH))

    venue.control("POST", "maker", {"paused": True})
    assert again["timestamp"] > first["timestamp"]


async def test_a_triggered_stop_is_streamed(rest: Rest, pro: Pro, venue: SimulatorProcess) -> None:
    """W14. Watch orders; a stop waits, triggers, fills. open, open, closed under one id."""
    await pro.load_markets()
    before = venue.user_subscriptions()
    name = "a-stop-that-is-watched"
    seen: list[str] = []

    async def watch() -> None:
        while "closed" not in seen:
            heard = await pro.watch_orders(ETH)
            seen.extend(order["status"] for order in heard if order["clientOrderId"] == name)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(soon(watch()))
        await venue.wait_for_user_stream(before)
        params = {"stopLossPrice": 2_900, "clientOrderId": name}
        await rest.create_order(ETH, "market", "sell", 0.5, None, params)
        venue.control("POST", "mid", {"symbol": "ETHUSDT", "price": "2800.00"})
        await rest.create_order(ETH, "limit", "buy", 0.01, 2_801, {"timeInForce": "IOC"})

    assert seen[0] == "open"
    assert seen[-1] == "closed"
