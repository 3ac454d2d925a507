"""The table of all that can be asked, over REST and over the WebSocket API, with its weight.

No endpoint waits for anything: what it does between reading the state and answering is one step.
Weights: binance-spot-api-docs, rest-api.md.
"""

from collections.abc import Mapping
from typing import Final

from venues.simulator.binance import account, market_data, order_lists, trading, wallet
from venues.simulator.binance.calls import Endpoint, Needs

_TICKERS_MAX: Final = 200
_DEPTH_WEIGHTS: Final = ((100, 5), (500, 25), (1_000, 50))
_DAY_WEIGHTS: Final = ((20, 2), (100, 40))


def _depth_weight(sent: Mapping[str, str]) -> int:
    limit = sent.get("limit", "100")
    wanted = int(limit) if limit.isdecimal() else 0
    return next((weight for top, weight in _DEPTH_WEIGHTS if wanted <= top), 250)


def _symbols(sent: Mapping[str, str]) -> int | None:
    if "symbol" in sent:
        return 1
    return sent["symbols"].count(",") + 1 if "symbols" in sent else None


def _day_weight(sent: Mapping[str, str]) -> int:
    count = _symbols(sent)
    if count is None:
        return 80
    return next((weight for top, weight in _DAY_WEIGHTS if count <= top), 80)


def _price_weight(sent: Mapping[str, str]) -> int:
    return 2 if "symbol" in sent else 4


def _window_weight(sent: Mapping[str, str]) -> int:
    return min(4 * (_symbols(sent) or 1), _TICKERS_MAX)


def _open_weight(sent: Mapping[str, str]) -> int:
    return 6 if "symbol" in sent else 80


def _trades_weight(sent: Mapping[str, str]) -> int:
    return 5 if "orderId" in sent else 20


def _prevented_weight(sent: Mapping[str, str]) -> int:
    return 2 if "preventedMatchId" in sent else 20


_READ: Final = Needs.READ
_TRADE: Final = Needs.TRADE
_OPEN: Final = Needs.NOTHING

ENDPOINTS: Final[dict[tuple[str, str], Endpoint]] = {
    ("GET", "/api/v3/ping"): Endpoint(market_data.ping, _OPEN, 1, 0, "ping"),
    ("GET", "/api/v3/time"): Endpoint(market_data.time, _OPEN, 1, 0, "time"),
    ("GET", "/api/v3/exchangeInfo"): Endpoint(
        market_data.exchange_info, _OPEN, 20, 0, "exchangeInfo"
    ),
    ("GET", "/api/v3/depth"): Endpoint(market_data.depth, _OPEN, _depth_weight, 0, "depth"),
    ("GET", "/api/v3/trades"): Endpoint(market_data.trades, _OPEN, 25, 0, "trades.recent"),
    ("GET", "/api/v3/historicalTrades"): Endpoint(
        market_data.historical_trades, _OPEN, 25, 0, "trades.historical"
    ),
    ("GET", "/api/v3/aggTrades"): Endpoint(
        market_data.aggregate_trades, _OPEN, 4, 0, "trades.aggregate"
    ),
    ("GET", "/api/v3/klines"): Endpoint(market_data.klines, _OPEN, 2, 0, "klines"),
    ("GET", "/api/v3/uiKlines"): Endpoint(market_data.klines, _OPEN, 2, 0, "uiKlines"),
    ("GET", "/api/v3/avgPrice"): Endpoint(market_data.average_price, _OPEN, 2, 0, "avgPrice"),
    ("GET", "/api/v3/ticker/24hr"): Endpoint(
        market_data.ticker_24hr, _OPEN, _day_weight, 0, "ticker.24hr"
    ),
    ("GET", "/api/v3/ticker/tradingDay"): Endpoint(
        market_data.ticker_trading_day, _OPEN, _window_weight, 0, "ticker.tradingDay"
    ),
    ("GET", "/api/v3/ticker"): Endpoint(
        market_data.ticker_rolling, _OPEN, _window_weight, 0, "ticker"
    ),
    ("GET", "/api/v3/ticker/bookTicker"): Endpoint(
        market_data.ticker_book, _OPEN, _price_weight, 0, "ticker.book"
    ),
    ("GET", "/api/v3/ticker/price"): Endpoint(
        market_data.ticker_price, _OPEN, _price_weight, 0, "ticker.price"
    ),
    ("GET", "/api/v3/historicalBlockTrades"): Endpoint(
        account.none_ever, _OPEN, 25, 0, "blockTrades.historical"
    ),
    ("POST", "/api/v3/order"): Endpoint(trading.place, _TRADE, 1, 1, "order.place"),
    ("POST", "/api/v3/order/test"): Endpoint(trading.test, _TRADE, 1, 0, "order.test"),
    ("GET", "/api/v3/order"): Endpoint(account.get_order, _READ, 4, 0, "order.status"),
    ("DELETE", "/api/v3/order"): Endpoint(trading.cancel, _TRADE, 1, 0, "order.cancel"),
    ("POST", "/api/v3/order/cancelReplace"): Endpoint(
        trading.replace_order, _TRADE, 1, 1, "order.cancelReplace"
    ),
    ("PUT", "/api/v3/order/amend/keepPriority"): Endpoint(
        trading.amend, _TRADE, 4, 0, "order.amend.keepPriority"
    ),
    ("GET", "/api/v3/order/amendments"): Endpoint(
        account.amendments, _READ, 4, 0, "order.amendments"
    ),
    ("GET", "/api/v3/openOrders"): Endpoint(
        account.open_orders, _READ, _open_weight, 0, "openOrders.status"
    ),
    ("DELETE", "/api/v3/openOrders"): Endpoint(
        trading.cancel_open, _TRADE, 1, 0, "openOrders.cancelAll"
    ),
    ("GET", "/api/v3/allOrders"): Endpoint(account.all_orders, _READ, 20, 0, "allOrders"),
    ("GET", "/api/v3/myTrades"): Endpoint(account.my_trades, _READ, _trades_weight, 0, "myTrades"),
    ("POST", "/api/v3/orderList/oco"): Endpoint(
        order_lists.oco, _TRADE, 1, 2, "orderList.place.oco"
    ),
    ("POST", "/api/v3/order/oco"): Endpoint(order_lists.old_oco, _TRADE, 1, 2, "orderList.place"),
    ("POST", "/api/v3/orderList/oto"): Endpoint(
        order_lists.oto, _TRADE, 1, 2, "orderList.place.oto"
    ),
    ("POST", "/api/v3/orderList/otoco"): Endpoint(
        order_lists.otoco, _TRADE, 1, 3, "orderList.place.otoco"
    ),
    ("DELETE", "/api/v3/orderList"): Endpoint(order_lists.cancel, _TRADE, 1, 0, "orderList.cancel"),
    ("GET", "/api/v3/orderList"): Endpoint(order_lists.query, _READ, 4, 0, "orderList.status"),
    ("GET", "/api/v3/openOrderList"): Endpoint(
        order_lists.query_open, _READ, 6, 0, "openOrderLists.status"
    ),
    ("GET", "/api/v3/allOrderList"): Endpoint(order_lists.query_all, _READ, 20, 0, "allOrderLists"),
    ("GET", "/api/v3/account"): Endpoint(account.account, _READ, 20, 0, "account.status"),
    ("GET", "/api/v3/account/commission"): Endpoint(
        account.commission, _READ, 20, 0, "account.commission"
    ),
    ("GET", "/api/v3/rateLimit/order"): Endpoint(
        account.order_limits, _READ, 40, 0, "account.rateLimits.orders"
    ),
    ("GET", "/api/v3/myPreventedMatches"): Endpoint(
        account.prevented_matches, _READ, _prevented_weight, 0, "myPreventedMatches"
    ),
    ("GET", "/api/v3/myAllocations"): Endpoint(account.none_ever, _READ, 20, 0, "myAllocations"),
    ("GET", "/api/v3/myFilters"): Endpoint(account.my_filters, _READ, 40, 0, "myFilters"),
    ("GET", "/sapi/v1/account/apiRestrictions"): Endpoint(wallet.restrictions, _READ, 1),
    ("GET", "/sapi/v1/asset/tradeFee"): Endpoint(wallet.trade_fees, _READ, 1),
    ("GET", "/sapi/v1/capital/config/getall"): Endpoint(wallet.coins, _READ, 10),
    ("POST", "/sapi/v1/capital/withdraw/apply"): Endpoint(wallet.withdraw, Needs.WITHDRAW, 10),
    ("GET", "/sapi/v1/capital/withdraw/history"): Endpoint(wallet.withdrawal_history, _READ, 10),
    ("GET", "/sapi/v1/capital/deposit/hisrec"): Endpoint(wallet.deposit_history, _READ, 1),
    ("GET", "/sapi/v1/capital/deposit/address"): Endpoint(wallet.deposit_address, _READ, 10),
}

METHODS: Final[dict[str, Endpoint]] = {
    endpoint.socket: endpoint for endpoint in ENDPOINTS.values() if endpoint.socket
}
