"""Cards of Kraken's WebSocket v2, through the unmodified ccxt.pro class.

Its traps are the venue's own: an executions frame is routed by its first report, a cancellation names
no symbol, and orders and trades share one subscription.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeAlias, TypeVar

import ccxt
import ccxt.async_support
import ccxt.pro
import pytest

from venues.simulator.testing import SimulatorProcess

Rest: TypeAlias = ccxt.async_support.kraken
Pro: TypeAlias = ccxt.pro.kraken
BTC = "BTC/USD"
T = TypeVar("T")


async def soon(awaited: Awaitable[T], seconds: float = 20.0) -> T:
    async with asyncio.timeout(seconds):
        return await awaited


@pytest.mark.parametrize("depth", [10, 25])
async def test_the_streamed_book_becomes_the_true_book(
    rest: Rest, pro: Pro, venue: SimulatorProcess, depth: int
) -> None:
    """X01. Watch a book through moves and orders. Equal to the REST depth at the end."""
    await soon(pro.watch_order_book(BTC, depth))
    for move in range(5):
        mid = {"symbol": "BTCUSD", "price": f"{60_000 + 50 * move}.0"}
        venue.control("POST", "mid", mid)
        await rest.create_order(BTC, "limit", "buy", 0.5 + move, 59_980.5)
        await soon(pro.watch_order_book(BTC, depth))

    truth = await rest.fetch_order_book(BTC, depth)

    def shown(book: Any) -> list[list[list[float]]]:
        return [[list(row[:2]) for row in book[side][:depth]] for side in ("bids", "asks")]

    async with asyncio.timeout(20):
        while shown(pro.orderbooks[BTC]) != shown(truth):  # noqa: ASYNC110  another task reads
            await asyncio.sleep(0.02)


async def test_trades_are_streamed(rest: Rest, pro: Pro) -> None:
    """X02. Watch trades, trade. The trade arrives with its id and size."""
    async with asyncio.TaskGroup() as tasks:
        watched = tasks.create_task(soon(pro.watch_trades(BTC)))
        while not watched.done():
            await rest.create_order(BTC, "market", "buy", 0.1)
            await asyncio.sleep(0.05)

    known = (await rest.publicGetTrades({"pair": "XBTUSD"}))["result"]["XXBTZUSD"]
    assert {trade["id"] for trade in watched.result()} <= {str(row[6]) for row in known}


async def test_tickers_are_streamed(pro: Pro) -> None:
    """X03. watch_ticker, watch_bids_asks. A last price; an uncrossed best bid and ask."""
    ticker = await soon(pro.watch_ticker(BTC))
    best = (await soon(pro.watch_bids_asks(["ETH/USD"])))["ETH/USD"]

    assert ticker["last"] > 0
    assert 0 < best["bid"] < best["ask"]


async def test_candles_are_streamed(rest: Rest, pro: Pro) -> None:
    """X04. Trade, watch_ohlcv. The current candle is among them."""
    await rest.create_order(BTC, "market", "buy", 0.1)

    candles = await soon(pro.watch_ohlcv(BTC, "1m"))

    assert candles[-1][0] % 60_000 == 0
    assert candles[-1][5] > 0


async def test_the_life_of_an_order_is_streamed(
    rest: Rest, pro: Pro, venue: SimulatorProcess
) -> None:
    """X05. Watch orders, place, cancel. open, then canceled, of the same order."""
    placed: list[str] = []

    async def first() -> list[Any]:
        return list(await pro.watch_orders())

    async with asyncio.TaskGroup() as tasks:
        await pro.load_markets()
        before = venue.user_subscriptions()
        opened = tasks.create_task(soon(first()))
        await venue.wait_for_user_stream(before)
        placed.append((await rest.create_order(BTC, "limit", "buy", 0.5, 40_000))["id"])

    async with asyncio.timeout(20):
        while pro.orders.hashmap[BTC][placed[0]]["status"] != "open":
            await pro.watch_orders()
        await rest.cancel_order(placed[0])
        while not any(o["status"] == "canceled" and o["id"] == placed[0] for o in pro.orders):
            await pro.watch_orders()
    assert [o["id"] for o in opened.result()] == placed


async def test_fills_are_streamed_with_their_fees(
    rest: Rest, pro: Pro, venue: SimulatorProcess
) -> None:
    """X06. Watch my trades, trade. The fill arrives under the id REST gives it, fee in USD."""
    async with asyncio.TaskGroup() as tasks:
        await pro.load_markets()
        before = venue.user_subscriptions()
        watched = tasks.create_task(soon(pro.watch_my_trades(BTC)))
        await venue.wait_for_user_stream(before)
        order = await rest.create_order(BTC, "market", "buy", 0.1)

    async with asyncio.timeout(20):
        while not (mine := [t for t in pro.myTrades if t["order"] == order["id"]]):
            await pro.watch_my_trades(BTC)
    known = {trade["id"]: trade for trade in await rest.fetch_my_trades(BTC)}
    assert watched.result()
    assert mine[0]["fee"] == {
        "cost": known[mine[0]["id"]]["fee"]["cost"],
        "currency": "USD",
    }
    assert mine[0]["takerOrMaker"] == "taker"


async def test_balances_are_streamed(rest: Rest, pro: Pro, venue: SimulatorProcess) -> None:
    """X07. Watch the balance, trade. A snapshot, then what the trade left."""
    first = (await soon(pro.watch_balance()))["BTC"]["total"]
    async with asyncio.TaskGroup() as tasks:
        watched = tasks.create_task(soon(pro.watch_balance()))
        await rest.create_order(BTC, "market", "buy", 0.1)

    assert watched.result()["BTC"]["total"] == pytest.approx(first + 0.1)
    truth = venue.state()["accounts"]["desk"]["balances"]["BTC"]
    assert watched.result()["BTC"]["total"] == float(truth["free"]) + float(truth["locked"])


async def test_orders_are_placed_changed_and_cancelled_over_the_socket(
    rest: Rest, pro: Pro
) -> None:
    """X08. create, edit, cancel over the socket. Each is answered; REST shows the same."""
    placed = await soon(pro.create_order_ws(BTC, "limit", "buy", 0.5, 40_000))
    edited = await soon(pro.edit_order_ws(placed["id"], BTC, "limit", "buy", 0.4, 41_000))
    shown = await rest.fetch_order(placed["id"])
    await soon(pro.cancel_order_ws(placed["id"]))

    assert edited["info"]["order_id"] == placed["id"]
    assert (shown["amount"], shown["price"]) == (0.4, 41_000)
    assert (await rest.fetch_order(placed["id"]))["status"] == "canceled"


async def test_all_orders_are_cancelled_over_the_socket(rest: Rest, pro: Pro) -> None:
    """X09. Two orders over the socket, cancel_all. Both are gone."""
    for _ in range(2):
        await soon(pro.create_order_ws(BTC, "limit", "buy", 0.5, 40_000))

    answer: Any = await soon(pro.cancel_all_orders_ws())

    assert answer["result"] == {"count": 2}
    assert await rest.fetch_open_orders() == []


async def test_a_refused_order_is_refused_over_the_socket(pro: Pro) -> None:
    """X10. A buy beyond the balance over the socket. InsufficientFunds or an exchange's error."""
    with pytest.raises(ccxt.ExchangeError, match="Insufficient funds"):
        await soon(pro.create_order_ws(BTC, "limit", "buy", 1_000, 59_000))


async def test_a_quiet_socket_beats(pro: Pro) -> None:
    """X11. Subscribe and wait. A heartbeat within two seconds of quiet."""
    await soon(pro.watch_ticker(BTC))
    url = pro.urls["api"]["ws"]["publicV2"]
    client = pro.client(url)
    seen = asyncio.Event()
    handle = pro.handle_message

    def tap(of: Any, message: Any) -> None:
        if message.get("channel") == "heartbeat":
            seen.set()
        handle(of, message)

    client.on_message_callback = tap
    await soon(seen.wait())
