"""Cards of the WebSocket surface, through ccxt.pro."""

import asyncio
from collections.abc import Awaitable
from typing import TypeAlias, TypeVar

import ccxt
import ccxt.async_support
import ccxt.pro
import pytest

from venues.simulator.testing import SimulatorProcess, ccxt_settings, point_ccxt_at

Rest: TypeAlias = ccxt.async_support.binance
Pro: TypeAlias = ccxt.pro.binance
ETH = "ETH/USDT"
T = TypeVar("T")


async def soon(awaited: Awaitable[T], seconds: float = 20.0) -> T:
    async with asyncio.timeout(seconds):
        return await awaited


async def test_the_streamed_book_becomes_the_true_book(
    rest: Rest, pro: Pro, venue: SimulatorProcess
) -> None:
    """W01. Watch the book through twenty moves, then stop the market. Equal to the REST depth."""
    venue.control("POST", "maker", {"paused": True})
    nonces = []
    for _ in range(20):
        venue.control("POST", "step")
        order = await rest.create_order(ETH, "limit", "buy", 1, 2_500)
        await rest.cancel_order(order["id"], ETH)
        nonces.append((await soon(pro.watch_order_book(ETH)))["nonce"])

    truth = await rest.fetch_order_book(ETH)
    while (book := pro.orderbooks[ETH])["nonce"] < truth["nonce"]:
        await soon(pro.watch_order_book(ETH))

    venue.control("POST", "maker", {"paused": False})
    assert nonces == sorted(set(nonces))
    assert [list(level)[:2] for level in book["bids"]] == truth["bids"]
    assert [list(level)[:2] for level in book["asks"]] == truth["asks"]


async def test_trades_are_streamed(rest: Rest, pro: Pro) -> None:
    """W02. Watch trades, trade. The trade arrives with its id and size."""
    async with asyncio.TaskGroup() as tasks:
        watched = tasks.create_task(soon(pro.watch_trades(ETH)))
        while not watched.done():
            await rest.create_order(ETH, "market", "buy", 0.1)
            await asyncio.sleep(0.05)

    ids = {trade["id"] for trade in await rest.fetch_trades(ETH)}
    assert {trade["id"] for trade in watched.result()} <= ids


async def test_tickers_are_streamed(pro: Pro) -> None:
    """W03. watch_ticker, watch_bids_asks. A last price; an uncrossed best bid and ask."""
    ticker = await soon(pro.watch_ticker(ETH))
    best = (await soon(pro.watch_bids_asks([ETH])))[ETH]

    assert ticker["last"] > 0
    assert 0 < best["bid"] < best["ask"]


async def test_the_life_of_an_order_is_streamed(
    rest: Rest, pro: Pro, venue: SimulatorProcess
) -> None:
    """W04. Watch orders, place and cancel. open, then canceled, under the first client id."""
    seen = []
    await rest.load_markets()
    before = venue.user_subscriptions()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(soon(pro.watch_orders(ETH)))
        await venue.wait_for_user_stream(before)
        order = await rest.create_order(ETH, "limit", "buy", 1, 2_000, {"clientOrderId": "life"})
        seen += [(o["clientOrderId"], o["status"]) for o in await first]
        second = tasks.create_task(soon(pro.watch_orders(ETH)))
        await asyncio.sleep(0.05)
        await rest.cancel_order(order["id"], ETH)
        seen += [(o["clientOrderId"], o["status"]) for o in await second]

    assert seen == [("life", "open"), ("life", "canceled")]


async def test_my_trades_and_balances_are_streamed(
    rest: Rest, pro: Pro, venue: SimulatorProcess
) -> None:
    """W05. Watch my trades and balance on one socket, trade. Fill with fee; balance as by REST."""
    await rest.load_markets()
    before = venue.user_subscriptions()
    async with asyncio.TaskGroup() as tasks:
        trades = tasks.create_task(soon(pro.watch_my_trades(ETH)))
        balance = tasks.create_task(soon(pro.watch_balance()))
        await venue.wait_for_user_stream(before)
        order = await rest.create_order(ETH, "market", "buy", 0.5)

    assert {trade["order"] for trade in trades.result()} == {order["id"]}
    assert trades.result()[0]["fee"]["currency"] == "ETH"
    assert balance.result()["ETH"]["free"] == (await rest.fetch_balance())["ETH"]["free"]


async def test_a_wrong_signature_gets_no_user_stream(venue: SimulatorProcess) -> None:
    """W06. Subscribe with a wrong secret. The venue's -1022, which ccxt hides under a KeyError."""
    exchange = Pro(
        {
            **ccxt_settings(venue.ready),
            "secret": "wrong",
            "options": {**ccxt_settings(venue.ready)["options"], "fetchCurrencies": False},
        }
    )
    point_ccxt_at(exchange, venue.url, venue.ws_url)
    try:
        with pytest.raises((ccxt.AuthenticationError, KeyError)) as caught:
            await soon(exchange.watch_orders(ETH))
        assert "-1022" in f"{caught.value} {caught.value.__context__}"
    finally:
        await exchange.close()
