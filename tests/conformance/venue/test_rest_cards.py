"""Cards of the REST surface: what an unmodified ccxt class must be able to do on a spot venue.

Each test is a card: its docstring has the number, the prerequisite, the action, the expectation.
"""

from typing import TypeAlias

import ccxt
import ccxt.async_support
import pytest

from venues.simulator.testing import SimulatorProcess, ccxt_settings, point_ccxt_at

Binance: TypeAlias = ccxt.async_support.binance
ETH = "ETH/USDT"
FAR_BELOW = 2_000.0


@pytest.fixture(autouse=True)
def still_market(venue: SimulatorProcess) -> None:
    """Nothing moves but by the card itself, and every card finds the same full book."""
    venue.control("POST", "maker", {"paused": True})
    venue.control("POST", "mid", {"symbol": "ETHUSDT", "price": "3000.00"})


@pytest.fixture
def client_id(request: pytest.FixtureRequest) -> str:
    return "".join(c for c in request.node.name if c.isalnum())[-36:]


async def test_markets_load_with_precision_limits_and_networks(rest: Binance) -> None:
    """V01. Given keys. load_markets. Symbols with tick, lot, minimum; coins with networks."""
    markets = await rest.load_markets()

    assert set(markets) == {ETH, "BTC/USDT"}
    assert markets[ETH]["precision"]["price"] == 0.01
    assert markets[ETH]["precision"]["amount"] == 0.0001
    assert markets[ETH]["limits"]["cost"]["min"] == 5.0
    assert markets[ETH]["spot"] is True
    assert rest.currencies["USDT"]["networks"]["ERC20"]["fee"] == 1.0


async def test_time_is_the_machines(rest: Binance) -> None:
    """V02. fetch_time. Within a second of this machine's clock."""
    assert abs(await rest.fetch_time() - rest.milliseconds()) < 1_000


async def test_balances_are_the_venues_true_ones(rest: Binance, venue: SimulatorProcess) -> None:
    """V03. Given keys. fetch_balance. Equal to the true state."""
    balance = await rest.fetch_balance()

    truth = venue.state()["accounts"]["desk"]["balances"]
    assert {a: balance[a]["free"] for a in truth} == {a: float(b["free"]) for a, b in truth.items()}


async def test_limit_order_rests_and_locks_its_cost(rest: Binance, client_id: str) -> None:
    """V04. Given funds. Limit buy below the market. Open; price x quantity moves to locked."""
    before = await rest.fetch_balance()

    order = await rest.create_order(
        ETH, "limit", "buy", 0.5, FAR_BELOW, {"clientOrderId": client_id}
    )

    after = await rest.fetch_balance()
    assert order["status"] == "open"
    assert order["clientOrderId"] == client_id
    assert after["USDT"]["used"] - before["USDT"]["used"] == pytest.approx(1_000)
    assert before["USDT"]["free"] - after["USDT"]["free"] == pytest.approx(1_000)
    await rest.cancel_order(order["id"], ETH)
    assert (await rest.fetch_balance())["USDT"]["used"] == before["USDT"]["used"]


async def test_market_order_fills_and_pays_commission_in_the_received_asset(rest: Binance) -> None:
    """V05. Given liquidity. Market buy and sell. Filled; 0.1 % in base and in quote."""
    bought = await rest.create_order(ETH, "market", "buy", 1)
    sold = await rest.create_order(ETH, "market", "sell", 1)

    assert (bought["status"], bought["filled"]) == ("closed", 1.0)
    assert [(f["currency"], f["cost"]) for f in bought["fees"]] == [("ETH", pytest.approx(0.001))]
    assert [f["currency"] for f in sold["fees"]] == ["USDT"]
    assert sold["fees"][0]["cost"] == pytest.approx(sold["cost"] / 1000, rel=1e-6)
    assert sold["average"] < bought["average"]


async def test_market_order_can_be_sized_in_quote(rest: Binance) -> None:
    """V06. createMarketBuyOrderWithCost. Spends at most the cost, within a lot of it."""
    order = await rest.create_market_buy_order_with_cost(ETH, 10_000)

    assert order["status"] == "closed"
    assert 9_999 < order["cost"] <= 10_000


async def test_immediate_or_cancel_trades_what_it_can(rest: Binance) -> None:
    """V07. IOC at the best ask for more than rests there. Filled in part, the rest expired."""
    ask, lots = (await rest.fetch_order_book(ETH))["asks"][0]

    order = await rest.create_order(ETH, "limit", "buy", lots + 100, ask, {"timeInForce": "IOC"})

    assert order["status"] == "expired"
    assert 0 <= order["filled"] < lots + 100


async def test_fill_or_kill_is_whole_or_nothing(rest: Binance) -> None:
    """V08. FOK for more than the book holds at the limit, then for little. Nothing; all."""
    ask, lots = (await rest.fetch_order_book(ETH))["asks"][0]

    killed = await rest.create_order(ETH, "limit", "buy", lots + 200, ask, {"timeInForce": "FOK"})
    filled = await rest.create_order(
        ETH, "limit", "buy", 0.1, round(ask * 1.01, 2), {"timeInForce": "FOK"}
    )

    assert (killed["status"], killed["filled"]) == ("expired", 0.0)
    assert (filled["status"], filled["filled"]) == ("closed", 0.1)


async def test_post_only_rests_or_is_refused(rest: Binance) -> None:
    """V09. LIMIT_MAKER through the ask, then below the bid. OrderImmediatelyFillable; open."""
    ask = (await rest.fetch_order_book(ETH))["asks"][0][0]

    with pytest.raises(ccxt.OrderImmediatelyFillable):
        await rest.create_order(ETH, "limit", "buy", 1, round(ask * 1.01, 2), {"postOnly": True})
    order = await rest.create_order(ETH, "limit", "buy", 1, FAR_BELOW, {"postOnly": True})

    assert (await rest.fetch_order(order["id"], ETH))["status"] == "open"
    await rest.cancel_order(order["id"], ETH)


async def test_an_order_is_found_by_its_client_id(rest: Binance, client_id: str) -> None:
    """V10. Given an order. fetch_order with clientOrderId only. The same order."""
    placed = await rest.create_order(ETH, "market", "buy", 0.2, None, {"clientOrderId": client_id})

    found = await rest.fetch_order("", ETH, {"clientOrderId": client_id})

    assert (found["id"], found["status"], found["filled"]) == (placed["id"], "closed", 0.2)


async def test_an_unknown_order_is_not_found(rest: Binance) -> None:
    """V11. fetch and cancel of ids never used. OrderNotFound (-2013, -2011)."""
    with pytest.raises(ccxt.OrderNotFound, match="-2013"):
        await rest.fetch_order("", ETH, {"clientOrderId": "never"})
    with pytest.raises(ccxt.OrderNotFound, match="-2011"):
        await rest.cancel_order("999999999", ETH)


async def test_cancel_works_once_by_id_or_client_id(rest: Binance, client_id: str) -> None:
    """V12. Given an open order. Cancel twice. Canceled; then OrderNotFound."""
    await rest.create_order(ETH, "limit", "buy", 1, FAR_BELOW, {"clientOrderId": client_id})

    cancelled = await rest.cancel_order("", ETH, {"clientOrderId": client_id})

    assert cancelled["status"] == "canceled"
    with pytest.raises(ccxt.OrderNotFound):
        await rest.cancel_order("", ETH, {"clientOrderId": client_id})


async def test_open_and_all_orders_are_listed(rest: Binance, client_id: str) -> None:
    """V13. Given an open and a filled order. List open, list all. One; both, oldest first."""
    filled = await rest.create_order(ETH, "market", "buy", 0.2)
    resting = await rest.create_order(
        ETH, "limit", "buy", 1, FAR_BELOW, {"clientOrderId": client_id}
    )

    listed = [order["id"] for order in await rest.fetch_open_orders(ETH)]
    everything = [order["id"] for order in await rest.fetch_orders(ETH)]

    assert resting["id"] in listed
    assert filled["id"] not in listed
    assert everything.index(filled["id"]) < everything.index(resting["id"])
    await rest.cancel_order(resting["id"], ETH)


async def test_my_trades_are_the_fills_of_my_orders(rest: Binance) -> None:
    """V14. Given a filled order. fetch_my_trades of it. Its fills, adding up to it."""
    order = await rest.create_order(ETH, "market", "sell", 30)

    trades = await rest.fetch_my_trades(ETH, None, None, {"orderId": order["id"]})

    assert sum(trade["amount"] for trade in trades) == pytest.approx(30)
    assert {trade["order"] for trade in trades} == {order["id"]}
    assert len({trade["id"] for trade in trades}) == len(trades)
    assert {trade["takerOrMaker"] for trade in trades} == {"taker"}


async def test_a_resting_order_is_filled_by_the_market(
    rest: Binance, venue: SimulatorProcess
) -> None:
    """V15. Given a bid below the market. The price falls through it. Filled as maker at its price."""
    order = await rest.create_order("BTC/USDT", "limit", "buy", 0.01, 55_000)

    venue.control("POST", "mid", {"symbol": "BTCUSDT", "price": "54000.00"})

    found = await rest.fetch_order(order["id"], "BTC/USDT")
    trades = await rest.fetch_my_trades("BTC/USDT", None, None, {"orderId": order["id"]})
    assert (found["status"], found["average"]) == ("closed", 55_000)
    assert {trade["takerOrMaker"] for trade in trades} == {"maker"}
    venue.control("POST", "mid", {"symbol": "BTCUSDT", "price": "60000.00"})


async def test_ticker_book_and_trades_agree(rest: Binance) -> None:
    """V16. Given a still market. Ticker, depth, trades, candles. Same best prices; uncrossed."""
    await rest.create_order(ETH, "market", "buy", 0.3)

    ticker = await rest.fetch_ticker(ETH)
    book = await rest.fetch_order_book(ETH)
    trades = await rest.fetch_trades(ETH)
    candles = await rest.fetch_ohlcv(ETH, "1m")

    assert (ticker["bid"], ticker["ask"]) == (book["bids"][0][0], book["asks"][0][0])
    assert book["bids"][0][0] < book["asks"][0][0]
    assert [bid[0] for bid in book["bids"]] == sorted((b[0] for b in book["bids"]), reverse=True)
    assert len(book["asks"]) >= 10
    assert trades[-1]["amount"] == 0.3
    assert ticker["last"] == trades[-1]["price"] == candles[-1][4]


async def test_client_ids_are_unique_among_open_orders_only(rest: Binance, client_id: str) -> None:
    """V17. Given an open order. Same client id twice, then after cancel. InvalidOrder; accepted.

    The second acceptance is why a client id is no idempotency key on such a venue.
    """
    params = {"clientOrderId": client_id}
    first = await rest.create_order(ETH, "limit", "buy", 1, FAR_BELOW, params)

    with pytest.raises(ccxt.InvalidOrder, match="Duplicate order sent"):
        await rest.create_order(ETH, "limit", "buy", 1, FAR_BELOW, params)
    await rest.cancel_order(first["id"], ETH)
    second = await rest.create_order(ETH, "limit", "buy", 1, FAR_BELOW, params)

    assert second["id"] != first["id"]
    assert (await rest.fetch_order("", ETH, params))["id"] == second["id"]
    await rest.cancel_order(second["id"], ETH)


@pytest.mark.parametrize(("kind", "price"), [("limit", FAR_BELOW), ("market", None)])
async def test_an_order_without_cover_is_refused(
    rest: Binance, kind: str, price: float | None
) -> None:
    """V18. Order for more than the balance. InsufficientFunds, nothing changed."""
    before = await rest.fetch_balance()

    with pytest.raises(ccxt.InsufficientFunds):
        await rest.create_order(ETH, kind, "sell", 1_000_000, price)

    assert (await rest.fetch_balance())["free"] == before["free"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"secret": "not the secret"}, "-1022"),
        ({"apiKey": "0" * 64}, "-2015"),
        ({"apiKey": "short"}, "-2014"),
    ],
)
async def test_a_wrong_identity_is_refused(
    venue: SimulatorProcess, change: dict[str, str], code: str
) -> None:
    """V19. Wrong secret, unknown key, malformed key. AuthenticationError."""
    exchange = Binance({**ccxt_settings(venue.ready), **change})
    point_ccxt_at(exchange, venue.url, venue.ws_url)
    try:
        with pytest.raises(ccxt.AuthenticationError, match=code):
            await exchange.privateGetAccount()
    finally:
        await exchange.close()


@pytest.mark.parametrize("skew_ms", [120_000, -120_000])
async def test_a_clock_that_is_off_is_refused(
    rest: Binance, venue: SimulatorProcess, skew_ms: int
) -> None:
    """V20. Given the venue's clock is two minutes off. Order. InvalidNonce (-1021), not placed."""
    await rest.load_markets()
    venue.control("POST", "clock", {"skew_ms": skew_ms})

    with pytest.raises(ccxt.InvalidNonce):
        await rest.create_order(ETH, "market", "buy", 1, None, {"clientOrderId": "too-late"})

    venue.control("POST", "clock", {"skew_ms": 0})
    with pytest.raises(ccxt.OrderNotFound):
        await rest.fetch_order("", ETH, {"clientOrderId": "too-late"})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"price": "2000.001"}, "PRICE_FILTER"),
        ({"quantity": "1.00001"}, "LOT_SIZE"),
        ({"quantity": "0.0001"}, "NOTIONAL"),
        ({"quantity": "1.000000001"}, "-1111"),
        ({"quantity": "-1"}, "-1100"),
        ({"symbol": "NOPE"}, "-1121"),
        ({"side": "HOLD"}, "-1117"),
        ({"type": "LOTTERY"}, "-1116"),
        ({"timeInForce": "GTD"}, "-1115"),
        ({"price": ""}, "-1102"),
        ({"newClientOrderId": "no spaces"}, "-1100"),
        ({"recvWindow": "60001"}, "-1131"),
    ],
)
async def test_a_malformed_order_is_refused_by_code(
    rest: Binance, change: dict[str, str], code: str
) -> None:
    """V21. An order that breaks one rule. The venue's code for that rule."""
    order = {
        "symbol": "ETHUSDT",
        "side": "BUY",
        "type": "LIMIT",
        "timeInForce": "GTC",
        "quantity": "1",
        "price": "2000",
    }

    with pytest.raises(ccxt.BaseError, match=code):
        await rest.privatePostOrder({**order, **change})


async def test_withdrawal_debits_and_is_listed(treasury: Binance, client_id: str) -> None:
    """V22. Given funds. withdraw. Debited in full; history has amount + fee = debit, and a tx."""
    before = (await treasury.fetch_balance())["ETH"]["free"]
    address = "0x" + "ab" * 20

    answer = await treasury.withdraw(
        "ETH", 2, address, {"network": "ERC20", "withdrawOrderId": client_id}
    )

    rows = await treasury.fetch_withdrawals("ETH", None, None, {"withdrawOrderId": client_id})
    assert [row["id"] for row in rows] == [answer["id"]]
    assert rows[0]["status"] == "ok"
    assert rows[0]["address"] == address
    assert rows[0]["txid"].startswith("0x")
    assert rows[0]["amount"] + rows[0]["fee"]["cost"] == pytest.approx(2)
    assert before - (await treasury.fetch_balance())["ETH"]["free"] == pytest.approx(2)


async def test_withdrawal_without_cover_is_refused(treasury: Binance) -> None:
    """V23. withdraw more than the balance. InsufficientFunds."""
    with pytest.raises(ccxt.InsufficientFunds):
        await treasury.withdraw("ETH", 10_000_000, "0x" + "ab" * 20)


async def test_a_trading_key_cannot_withdraw_and_says_so(rest: Binance, treasury: Binance) -> None:
    """V23b. apiRestrictions of both keys; withdraw with the trading key. Told apart; refused."""
    trading = await rest.sapiGetAccountApiRestrictions()
    withdrawing = await treasury.sapiGetAccountApiRestrictions()

    assert (trading["enableWithdrawals"], trading["enableSpotAndMarginTrading"]) == (False, True)
    assert (withdrawing["enableWithdrawals"], withdrawing["enableReading"]) == (True, True)
    assert withdrawing["enableSpotAndMarginTrading"] is False
    with pytest.raises(ccxt.AuthenticationError, match="-2015"):
        await rest.withdraw("ETH", 1, "0x" + "ab" * 20)
    with pytest.raises(ccxt.AuthenticationError, match="-2015"):
        await treasury.create_order(ETH, "market", "buy", 1)


async def test_deposits_have_an_address_and_are_listed(
    rest: Binance, venue: SimulatorProcess, client_id: str
) -> None:
    """V24. fetch_deposit_address, a deposit arrives. Stable address; credited and listed."""
    address = (await rest.fetch_deposit_address("ETH"))["address"]
    before = (await rest.fetch_balance())["ETH"]["free"]

    venue.control(
        "POST", "deposit", {"asset": "ETH", "amount": "3", "address": address, "tx_id": client_id}
    )

    rows = [row for row in await rest.fetch_deposits("ETH") if row["txid"] == client_id]
    assert (await rest.fetch_deposit_address("ETH"))["address"] == address
    assert [(row["amount"], row["status"], row["address"]) for row in rows] == [(3, "ok", address)]
    assert (await rest.fetch_balance())["ETH"]["free"] - before == pytest.approx(3)


async def test_commission_can_be_charged_in_a_third_asset(
    rest: Binance, venue: SimulatorProcess
) -> None:
    """V25. Given fees in BNB. Market buy. The fee is in BNB, the base arrives whole."""
    venue.control("POST", "fees", {"asset": "BNB"})
    before = (await rest.fetch_balance())["ETH"]["free"]

    order = await rest.create_order(ETH, "market", "buy", 1)

    venue.control("POST", "fees", {"asset": None})
    assert {fee["currency"] for fee in order["fees"]} == {"BNB"}
    assert (await rest.fetch_balance())["ETH"]["free"] - before == pytest.approx(1)


async def test_request_weight_is_reported(rest: Binance) -> None:
    """V26. Any order. The used-weight and order-count headers."""
    await rest.create_order(ETH, "market", "buy", 0.1)

    headers = {name.lower(): value for name, value in rest.last_response_headers.items()}
    assert int(headers["x-mbx-used-weight-1m"]) > 0
    assert int(headers["x-mbx-order-count-10s"]) > 0
