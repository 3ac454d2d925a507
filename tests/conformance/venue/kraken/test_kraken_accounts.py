"""Cards of markets, balances, histories and funds on Kraken, through unmodified ccxt."""

from typing import Any, TypeAlias

import ccxt
import ccxt.async_support
import pytest

from venues.simulator.testing import SimulatorProcess

Kraken: TypeAlias = ccxt.async_support.kraken
BTC = "BTC/USD"
HOT = "bc1qsaved0address0of0the0house0000000000000"


async def test_markets_load_with_precision_limits_and_fees(rest: Kraken) -> None:
    """K01. load_markets. Symbols with tick, lot, minimums and fees; their ids and names."""
    markets = await rest.load_markets()

    assert set(markets) == {BTC, "ETH/USD"}
    assert (markets[BTC]["id"], markets[BTC]["wsId"]) == ("XXBTZUSD", "XBT/USD")
    assert markets[BTC]["precision"] == {"amount": 0.00001, "price": 0.1}
    assert markets[BTC]["limits"]["cost"]["min"] == 5.0
    assert (markets[BTC]["maker"], markets[BTC]["taker"]) == (0.0025, 0.004)
    assert rest.currencies["BTC"]["id"] == "XXBT"


async def test_time_and_status(rest: Kraken) -> None:
    """K02. fetch_time, fetch_status. Within two seconds of this machine's clock; ok."""
    assert abs(await rest.fetch_time() - rest.milliseconds()) < 2_000
    assert (await rest.fetch_status())["status"] == "ok"


async def test_balances_are_the_venues_true_ones(rest: Kraken, venue: SimulatorProcess) -> None:
    """K03. fetch_balance. Equal to the true state."""
    balance = await rest.fetch_balance()

    truth = venue.state()["accounts"]["desk"]["balances"]
    assert {a: balance[a]["free"] for a in truth} == {a: float(b["free"]) for a, b in truth.items()}


async def test_the_plain_balance_includes_what_is_held(rest: Kraken) -> None:
    """K04. Balance and TradeBalance beside BalanceEx. The same totals; worth more than its USD."""
    await rest.load_markets()
    await rest.create_order(BTC, "limit", "buy", 0.5, 40_000)

    plain = (await rest.privatePostBalance())["result"]
    extended = (await rest.privatePostBalanceEx())["result"]
    worth = (await rest.privatePostTradeBalance())["result"]

    assert plain == {asset: row["balance"] for asset, row in extended.items()}
    assert float(extended["ZUSD"]["hold_trade"]) >= 20_000
    assert float(worth["eb"]) > float(plain["ZUSD"])


async def test_tickers(rest: Kraken) -> None:
    """K05. fetch_ticker, fetch_tickers. An uncrossed best bid and ask, a last price."""
    await rest.create_order(BTC, "market", "buy", 0.1)

    ticker = await rest.fetch_ticker(BTC)
    assert 0 < ticker["bid"] < ticker["ask"]
    assert ticker["low"] <= ticker["last"] <= ticker["high"]
    assert set(await rest.fetch_tickers()) == {BTC, "ETH/USD"}


async def test_the_book_has_the_depth_asked_for(rest: Kraken) -> None:
    """K06. fetch_order_book with a limit. As many levels, best first, uncrossed."""
    book = await rest.fetch_order_book(BTC, 5)

    bids, asks = ([row[0] for row in book[side]] for side in ("bids", "asks"))
    assert (len(bids), len(asks)) == (5, 5)
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0] < asks[0]


async def test_trades_and_their_cursor(rest: Kraken) -> None:
    """K07. Trade twice. From cursor to cursor every trade comes once."""
    before = (await rest.publicGetTrades({"pair": "XBTUSD"}))["result"]["last"]
    for amount in (0.01, 0.02):
        await rest.create_order(BTC, "market", "buy", amount)

    page = (await rest.publicGetTrades({"pair": "XBTUSD", "since": before, "count": 1}))["result"]
    rest_of = (await rest.publicGetTrades({"pair": "XBTUSD", "since": page["last"]}))["result"]
    rows = page["XXBTZUSD"] + rest_of["XXBTZUSD"]
    assert len({row[6] for row in rows}) == len(rows)
    assert sum(float(row[1]) for row in rows) == pytest.approx(0.03)
    latest = (await rest.fetch_trades(BTC))[-1]
    assert (latest["side"], latest["type"]) == ("buy", "market")


async def test_candles(rest: Kraken) -> None:
    """K08. Trade, fetch_ohlcv. The current minute's candle holds the trade's price."""
    await rest.create_order(BTC, "market", "buy", 0.1)

    at_ms, opened, high, low, closed, volume = (await rest.fetch_ohlcv(BTC, "1m"))[-1]
    assert at_ms % 60_000 == 0
    assert low <= min(opened, closed) <= max(opened, closed) <= high
    assert volume >= 0.1


async def test_spreads_and_fees(rest: Kraken) -> None:
    """K09. Spread, fetch_trading_fee. Best bid below best ask; the account's rates."""
    await rest.load_markets()
    rows = (await rest.publicGetSpread({"pair": "XBTUSD"}))["result"]["XXBTZUSD"]
    fee = await rest.fetch_trading_fee(BTC)

    assert float(rows[-1][1]) < float(rows[-1][2])
    assert (fee["maker"], fee["taker"]) == (0.0025, 0.004)


async def test_my_trades_name_their_orders(rest: Kraken) -> None:
    """K40. Two market orders. fetch_my_trades and fetch_order_trades agree on ids and fees."""
    orders = [await rest.create_order(BTC, "market", "buy", 0.1) for _ in range(2)]

    mine = {trade["order"]: trade for trade in await rest.fetch_my_trades(BTC)}
    for order in orders:
        found = await rest.fetch_order(order["id"])
        trades = await rest.fetch_order_trades(order["id"], BTC, params=found)
        assert [t["id"] for t in trades] == [mine[order["id"]]["id"]]
        assert mine[order["id"]]["fee"]["currency"] == "USD"
        assert mine[order["id"]]["takerOrMaker"] == "taker"


async def test_histories_are_paged(rest: Kraken) -> None:
    """K41. More than fifty trades. Pages by offset are disjoint and complete; bounds exclude."""
    for _ in range(55):
        await rest.create_order(BTC, "market", "buy", 0.001)

    first = (await rest.privatePostTradesHistory({"ofs": 0}))["result"]
    seen: list[str] = list(first["trades"])
    while len(seen) < int(first["count"]):
        page = (await rest.privatePostTradesHistory({"ofs": len(seen)}))["result"]["trades"]
        seen += page
    oldest_of_first = list(first["trades"])[-1]
    later = (await rest.privatePostTradesHistory({"start": oldest_of_first}))["result"]
    closed = (await rest.privatePostClosedOrders({"ofs": 50}))["result"]

    assert len(first["trades"]) == 50
    assert len(set(seen)) == int(first["count"])
    assert oldest_of_first not in later["trades"]
    assert int(closed["count"]) >= 55
    assert len(closed["closed"]) >= 5


async def test_the_ledger_explains_the_balance(rest: Kraken) -> None:
    """K42. Market buy. One entry in each asset; the last balances are the account's."""
    await rest.create_order(BTC, "market", "buy", 0.25)

    entries = await rest.fetch_ledger()
    by_asset = {entry["currency"]: entry for entry in entries}
    balance = await rest.fetch_balance()
    assert by_asset["BTC"]["amount"] == 0.25
    assert by_asset["USD"]["direction"] == "out"
    assert {a: by_asset[a]["after"] for a in ("BTC", "USD")} == {
        a: balance[a]["total"] for a in ("BTC", "USD")
    }
    again = await rest.fetch_ledger_entry(by_asset["BTC"]["id"])
    assert again["referenceId"] == by_asset["BTC"]["referenceId"]


async def test_withdrawals_go_to_saved_addresses_only(
    rest: Kraken, venue: SimulatorProcess
) -> None:
    """K43. Withdraw by an unknown key, then by a saved one. Refused; listed with its fee."""
    with pytest.raises(ccxt.InvalidAddress):
        await withdrawer(venue, rest, "nobody", 1)
    save(venue)

    done = await withdrawer(venue, rest, "hot", 1)

    rows = {row["id"]: row for row in await rest.fetch_withdrawals("BTC")}
    row = rows[done["id"]]
    assert (row["address"], row["status"]) == (HOT, "ok")
    assert row["amount"] + row["fee"]["cost"] == pytest.approx(1)
    addresses = (await rest.privatePostWithdrawAddresses({"asset": "XBT"}))["result"]
    assert [(a["key"], a["address"]) for a in addresses] == [("hot", HOT)]


async def test_a_withdrawal_to_another_address_than_the_saved_one_is_refused(
    rest: Kraken, venue: SimulatorProcess
) -> None:
    """K44. The right key with a wrong address. Refused, nothing debited."""
    save(venue)
    before = await rest.fetch_balance()

    with pytest.raises(ccxt.ExchangeError, match="Invalid address"):
        await withdrawer(venue, rest, "hot", 1, "bc1qsomebody0else0000000000000000000000000")
    assert (await rest.fetch_balance())["BTC"] == before["BTC"]


async def test_what_a_withdrawal_costs_is_told_before(
    rest: Kraken, venue: SimulatorProcess
) -> None:
    """K45. WithdrawInfo and WithdrawMethods. Net amount and fee add up to what is asked."""
    save(venue)

    info = (await rest.privatePostWithdrawInfo({"asset": "XXBT", "key": "hot", "amount": "1"}))[
        "result"
    ]
    methods = (await rest.privatePostWithdrawMethods({"asset": "XXBT"}))["result"]

    assert float(info["amount"]) + float(info["fee"]) == pytest.approx(1)
    assert [m["method"] for m in methods] == ["Bitcoin"]


async def test_the_trading_key_cannot_withdraw(rest: Kraken, venue: SimulatorProcess) -> None:
    """K46. Withdraw with the trading key. PermissionDenied; GetApiKeyInfo says so beforehand."""
    save(venue)
    permissions = (await rest.privatePostGetApiKeyInfo())["result"]["permissions"]

    assert "withdraw-funds" not in permissions
    assert {"query-funds", "modify-trades", "close-trades"} <= set(permissions)
    with pytest.raises(ccxt.PermissionDenied):
        await rest.withdraw("BTC", 1, "", {"key": "hot"})


async def test_deposits_arrive_at_the_accounts_address(
    rest: Kraken, venue: SimulatorProcess
) -> None:
    """K47. fetch_deposit_address, deposit, fetch_deposits. Listed with amount, id and address."""
    address = await rest.fetch_deposit_address("BTC")
    venue.control(
        "POST",
        "deposit",
        {"asset": "BTC", "amount": "2.5", "address": address["address"], "tx_id": "ab" * 32},
    )

    row = (await rest.fetch_deposits("BTC"))[-1]
    assert (row["txid"], row["amount"], row["address"]) == ("ab" * 32, 2.5, address["address"])
    assert row["status"] == "ok"
    assert [m["method"] for m in await rest.fetch_deposit_methods("ETH")] == ["Ether (Hex)"]


def save(venue: SimulatorProcess) -> None:
    saved = {"account": "desk", "name": "hot", "asset": "BTC", "network": "BTC", "address": HOT}
    venue.control("POST", "withdrawal-address", saved)


async def withdrawer(
    venue: SimulatorProcess, rest: Kraken, key: str, amount: float, address: str = ""
) -> Any:
    """Withdraw with the key that may."""
    trading = rest.apiKey, rest.secret
    rest.apiKey, rest.secret = venue.ready["withdraw_api_key"], venue.ready["withdraw_secret"]
    try:
        return await rest.withdraw("BTC", amount, address, {"key": key})
    finally:
        rest.apiKey, rest.secret = trading
