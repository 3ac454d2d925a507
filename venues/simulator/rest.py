"""The REST endpoints: each a function from a call to a JSON value, and the table of them.

No endpoint waits for anything: what it does between reading the state and answering is one step.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, unique
from typing import Any, Final

from msgspec.structs import replace

from matching.model import Side
from venues.simulator import funding, intake, statistics, wire
from venues.simulator.auth import integer
from venues.simulator.commands import CancelOrder, OrderUpdated, PlaceOrder
from venues.simulator.core import VenueCore
from venues.simulator.decimals import text_from_units
from venues.simulator.errors import VenueRefusal, unknown_order_to_cancel
from venues.simulator.market import MINUTE_MS, Market
from venues.simulator.model import Order, OrderType, PublicTrade, Withdrawal, WithdrawalStatus
from venues.simulator.state import Account, network_of

PAGE_DEFAULT: Final = 500
PAGE_MAX: Final = 1_000
DEPTH_DEFAULT: Final = 100
DEPTH_MAX: Final = 5_000
INTERVALS_MS: Final = {
    "1m": MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "1h": 60 * MINUTE_MS,
    "1d": 24 * 60 * MINUTE_MS,
}

_ORDER_SHAPES: Final = ("ACK", "RESULT", "FULL")
_ADDRESS: Final = re.compile(r"[A-Za-z0-9:._-]{1,128}")


@unique
class Security(Enum):
    """What a request must carry."""

    NONE = "nothing"
    SIGNED = "an API key, a timestamp and a signature"


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose identity and time are already checked."""

    core: VenueCore
    caller: Account | None
    sent: Mapping[str, str]
    weight_limit_1m: int

    @property
    def account(self) -> Account:
        """The caller of a signed endpoint."""
        assert self.caller is not None
        return self.caller

    @property
    def name(self) -> str:
        """The caller's name."""
        return self.account.spec.name

    def market(self) -> Market:
        """The market the request names."""
        return intake.market_of(self.core.state, self.sent)

    def limit(self, default: int, maximum: int) -> int:
        """The page size asked for, within bounds."""
        return min(intake.optional_integer(self.sent, "limit", default), maximum)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A REST endpoint. `weight` counts against the request weight limit."""

    answer: Callable[[Call], Any]
    security: Security
    weight: int
    counts_as_order: bool = False


def ping(_call: Call) -> Any:
    """GET /api/v3/ping."""
    return {}


def time(call: Call) -> Any:
    """GET /api/v3/time."""
    return {"serverTime": call.core.now_ms()}


def exchange_info(call: Call) -> Any:
    """GET /api/v3/exchangeInfo, of one symbol if one is named."""
    markets = call.core.state.markets.values()
    if "symbol" in call.sent:
        markets = {call.market().spec.name: call.market()}.values()
    return {
        "timezone": "UTC",
        "serverTime": call.core.now_ms(),
        "rateLimits": [
            _rate_limit("REQUEST_WEIGHT", "MINUTE", 1, call.weight_limit_1m),
            _rate_limit("ORDERS", "SECOND", 10, 100),
            _rate_limit("ORDERS", "DAY", 1, 200_000),
        ],
        "exchangeFilters": [],
        "symbols": [wire.symbol_info(market.spec) for market in markets],
    }


def depth(call: Call) -> Any:
    """GET /api/v3/depth."""
    market, limit = call.market(), call.limit(DEPTH_DEFAULT, DEPTH_MAX)
    return {
        "lastUpdateId": market.update_id,
        "bids": wire.level_texts(market.spec, market.book.depth(Side.BUY, limit)),
        "asks": wire.level_texts(market.spec, market.book.depth(Side.SELL, limit)),
    }


def trades(call: Call) -> Any:
    """GET /api/v3/trades: the most recent public trades, oldest first."""
    market = call.market()
    recent = list(market.trades)[-call.limit(PAGE_DEFAULT, PAGE_MAX) :]
    return [wire.trade_row(market.spec, trade) for trade in recent]


def aggregate_trades(call: Call) -> Any:
    """GET /api/v3/aggTrades: here every trade is an aggregate of its own."""
    market = call.market()
    recent = list(market.trades)[-call.limit(PAGE_DEFAULT, PAGE_MAX) :]
    return [{"a": t.trade_id, "f": t.trade_id, "l": t.trade_id, **_agg(market, t)} for t in recent]


def klines(call: Call) -> Any:
    """GET /api/v3/klines of the last day."""
    market = call.market()
    interval_ms = INTERVALS_MS.get(intake.text(call.sent, "interval"))
    if interval_ms is None:
        raise VenueRefusal(-1120, "Invalid interval.")
    return statistics.klines(market, interval_ms, call.limit(PAGE_DEFAULT, PAGE_MAX))


def ticker_24hr(call: Call) -> Any:
    """GET /api/v3/ticker/24hr."""
    now_ms = call.core.now_ms()
    return _one_or_all(call, lambda market: statistics.day_ticker(market, now_ms))


def ticker_book(call: Call) -> Any:
    """GET /api/v3/ticker/bookTicker."""
    return _one_or_all(call, statistics.book_ticker)


def ticker_price(call: Call) -> Any:
    """GET /api/v3/ticker/price: the last trade's price, or the mid before the first one."""

    def price(market: Market) -> Any:
        last = market.trades[-1].price_ticks if market.trades else market.mid_ticks
        return {"symbol": market.spec.name, "price": wire.price_text(market.spec, last)}

    return _one_or_all(call, price)


def new_order(call: Call) -> Any:
    """POST /api/v3/order."""
    shape, core = call.sent.get("newOrderRespType", ""), call.core
    if shape not in ("", *_ORDER_SHAPES):
        raise VenueRefusal(-1130, "Data sent for parameter 'newOrderRespType' is not valid.")
    market, command = _order_command(call)
    order_id = market.next_order_id
    events = core.execute(command)
    order = core.state.order(command.symbol, order_id)
    assert order is not None
    fills = [
        event.fill
        for event in events
        if isinstance(event, OrderUpdated) and event.fill is not None
        if event.fill.order_id == order_id
    ]
    default = "ACK" if command.type is OrderType.LIMIT_MAKER else "FULL"
    return wire.order_answer(market.spec, order, fills, shape or default)


def test_order(call: Call) -> Any:
    """POST /api/v3/order/test: check an order without placing it."""
    _, command = _order_command(call)
    call.core.exchange.check(command)
    return {}


def get_order(call: Call) -> Any:
    """GET /api/v3/order."""
    market = call.market()
    order = intake.order_asked_for(call.core.state, call.name, market, call.sent)
    return wire.order_row(market.spec, order)


def cancel_order(call: Call) -> Any:
    """DELETE /api/v3/order."""
    market = call.market()
    try:
        order = intake.order_asked_for(call.core.state, call.name, market, call.sent)
    except VenueRefusal as refusal:
        if refusal.code == -2013:
            raise unknown_order_to_cancel() from refusal
        raise
    return _cancel(call, order, call.sent.get("newClientOrderId", ""))


def cancel_open_orders(call: Call) -> Any:
    """DELETE /api/v3/openOrders: cancel all open orders of a symbol."""
    market = call.market()
    open_orders = [o for o in _open_orders(call) if o.symbol == market.spec.name]
    if not open_orders:
        raise unknown_order_to_cancel()
    return [_cancel(call, order, "") for order in open_orders]


def open_orders(call: Call) -> Any:
    """GET /api/v3/openOrders, of one symbol if one is named."""
    wanted = call.market().spec.name if "symbol" in call.sent else None
    return [
        wire.order_row(call.core.state.markets[order.symbol].spec, order)
        for order in _open_orders(call)
        if wanted in (None, order.symbol)
    ]


def all_orders(call: Call) -> Any:
    """GET /api/v3/allOrders of a symbol: from `orderId` on, or the latest; oldest first."""
    market, limit = call.market(), call.limit(PAGE_DEFAULT, PAGE_MAX)
    rows = [
        order
        for order in call.core.state.orders_of(call.name)
        if order.symbol == market.spec.name and _within(call.sent, order.created_ms)
    ]
    if "orderId" in call.sent:
        first = integer(call.sent, "orderId")
        rows = [order for order in rows if order.order_id >= first][:limit]
    elif "startTime" in call.sent:
        rows = rows[:limit]
    return [wire.order_row(market.spec, order) for order in rows[-limit:]]


def my_trades(call: Call) -> Any:
    """GET /api/v3/myTrades of a symbol: from `fromId` on, of one order, or the latest."""
    market, limit, sent = call.market(), call.limit(PAGE_DEFAULT, PAGE_MAX), call.sent
    order_id = integer(sent, "orderId") if "orderId" in sent else None
    rows = [
        fill
        for fill in call.account.fills
        if fill.symbol == market.spec.name
        and order_id in (None, fill.order_id)
        and _within(sent, fill.at_ms)
    ]
    if "fromId" in sent:
        first = integer(sent, "fromId")
        rows = [fill for fill in rows if fill.trade_id >= first][:limit]
    elif "startTime" in sent:
        rows = rows[:limit]
    return [wire.fill_row(market.spec, fill) for fill in rows[-limit:]]


def account(call: Call) -> Any:
    """GET /api/v3/account."""
    wallet, fees = call.account.wallet, call.account.fees
    rates = {
        "maker": text_from_units(fees.maker_ppm * 100),
        "taker": text_from_units(fees.taker_ppm * 100),
        "buyer": "0.00000000",
        "seller": "0.00000000",
    }
    names = sorted({*wallet.assets(), *call.core.state.assets})
    rows = [(name, wallet.free(name), wallet.locked(name)) for name in names]
    if call.sent.get("omitZeroBalances") == "true":
        rows = [row for row in rows if row[1] or row[2]]
    return {
        "makerCommission": fees.maker_ppm // 100,
        "takerCommission": fees.taker_ppm // 100,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": rates,
        "canTrade": True,
        "canWithdraw": True,
        "canDeposit": True,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": call.core.now_ms(),
        "accountType": "SPOT",
        "balances": [
            {
                "asset": name,
                "free": text_from_units(free),
                "locked": text_from_units(locked),
            }
            for name, free, locked in rows
        ],
        "permissions": ["SPOT"],
        "uid": int(call.account.spec.api_key.encode().hex()[:12], 16),
    }


def coins(call: Call) -> Any:
    """GET /sapi/v1/capital/config/getall."""
    withdrawing: dict[str, int] = {}
    for row in _withdrawals(call):
        if row.status is WithdrawalStatus.PROCESSING:
            units = row.amount_units + row.fee_units
            withdrawing[row.asset] = withdrawing.get(row.asset, 0) + units
    return [
        wire.coin_info(asset, call.account, withdrawing.get(asset.name, 0))
        for asset in call.core.state.assets.values()
    ]


def withdraw(call: Call) -> Any:
    """POST /sapi/v1/capital/withdraw/apply."""
    command = intake.withdrawal(call.name, call.sent, at_ms=call.core.accepted_at())
    if _ADDRESS.fullmatch(command.address) is None:
        raise VenueRefusal(-4033, "Illegal address.")
    call.core.execute(command)
    return {"id": next(reversed(call.account.withdrawals))}


def withdrawal_history(call: Call) -> Any:
    """GET /sapi/v1/capital/withdraw/history, newest first."""
    sent = call.sent
    rows = [
        row
        for row in _withdrawals(call)
        if sent.get("coin", row.asset) == row.asset
        and sent.get("withdrawOrderId", row.client_id) == row.client_id
        and sent.get("status", str(row.status.value)) == str(row.status.value)
        and _within(sent, row.at_ms)
    ]
    return _page(call, [wire.withdrawal_row(row) for row in reversed(rows)])


def deposit_history(call: Call) -> Any:
    """GET /sapi/v1/capital/deposit/hisrec, newest first."""
    sent = call.sent
    rows = [
        row
        for row in call.account.deposits
        if sent.get("coin", row.asset) == row.asset
        and sent.get("txId", row.tx_id) == row.tx_id
        and _within(sent, row.at_ms)
    ]
    return _page(call, [wire.deposit_row(row) for row in reversed(rows)])


def deposit_address(call: Call) -> Any:
    """GET /sapi/v1/capital/deposit/address."""
    state, coin = call.core.state, intake.text(call.sent, "coin")
    asset = state.assets.get(coin)
    network = None if asset is None else network_of(asset, call.sent.get("network", ""))
    if network is None:
        raise VenueRefusal(-4018, "We don't have this asset.")
    address = funding.deposit_address(state, call.name, coin, network)
    return {"coin": coin, "address": address, "tag": "", "url": ""}


def _order_command(call: Call) -> tuple[Market, PlaceOrder]:
    market, core = call.market(), call.core
    command = intake.place_order(
        call.name,
        market.spec,
        call.sent,
        at_ms=core.accepted_at(),
        fallback_client_id=f"sim-{market.spec.name}-{market.next_order_id}",
    )
    if command.quantity_lots == 0:
        lots = core.exchange.resolve_quantity(
            market.spec.name, command.side, command.quote_quantity_units
        )
        command = replace(command, quantity_lots=lots)
    if command.price_ticks is None:
        intake.require_notional(market.spec, market.mid_ticks, command.quantity_lots)
    return market, command


def _cancel(call: Call, order: Order, cancel_client_id: str) -> Any:
    core, spec = call.core, call.core.state.markets[order.symbol].spec
    at_ms = core.accepted_at()
    client_id = cancel_client_id or f"sim-cancel-{order.symbol}-{order.order_id}"
    core.execute(CancelOrder(at_ms, call.name, order.symbol, order.order_id, client_id))
    cancelled = core.state.order(order.symbol, order.order_id)
    assert cancelled is not None
    return wire.cancel_answer(spec, cancelled, client_id)


def _open_orders(call: Call) -> list[Order]:
    return call.core.state.open_orders_of(call.name)


def _withdrawals(call: Call) -> list[Withdrawal]:
    state, now_ms = call.core.state, call.core.now_ms()
    rows = call.account.withdrawals.values()
    return [funding.withdrawal_as_of(state, row, now_ms) for row in rows]


def _page(call: Call, rows: list[Any]) -> list[Any]:
    offset = intake.optional_integer(call.sent, "offset", 0)
    return rows[offset : offset + call.limit(PAGE_MAX, PAGE_MAX)]


def _within(sent: Mapping[str, str], at_ms: int) -> bool:
    start_ms = intake.optional_integer(sent, "startTime", 0)
    return start_ms <= at_ms <= intake.optional_integer(sent, "endTime", at_ms)


def _one_or_all(call: Call, row: Callable[[Market], Any]) -> Any:
    if "symbol" in call.sent:
        return row(call.market())
    return [row(market) for market in call.core.state.markets.values()]


def _agg(market: Market, trade: PublicTrade) -> wire.Json:
    frame = wire.trade_frame(market.spec, trade, trade.at_ms)
    return {key: frame[key] for key in ("p", "q", "T", "m", "M")}


def _rate_limit(kind: str, interval: str, count: int, limit: int) -> wire.Json:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": count, "limit": limit}


_PUBLIC: Final = Security.NONE
_SIGNED: Final = Security.SIGNED

ENDPOINTS: Final[dict[tuple[str, str], Endpoint]] = {
    ("GET", "/api/v3/ping"): Endpoint(ping, _PUBLIC, 1),
    ("GET", "/api/v3/time"): Endpoint(time, _PUBLIC, 1),
    ("GET", "/api/v3/exchangeInfo"): Endpoint(exchange_info, _PUBLIC, 20),
    ("GET", "/api/v3/depth"): Endpoint(depth, _PUBLIC, 25),
    ("GET", "/api/v3/trades"): Endpoint(trades, _PUBLIC, 25),
    ("GET", "/api/v3/aggTrades"): Endpoint(aggregate_trades, _PUBLIC, 4),
    ("GET", "/api/v3/klines"): Endpoint(klines, _PUBLIC, 2),
    ("GET", "/api/v3/ticker/24hr"): Endpoint(ticker_24hr, _PUBLIC, 2),
    ("GET", "/api/v3/ticker/bookTicker"): Endpoint(ticker_book, _PUBLIC, 2),
    ("GET", "/api/v3/ticker/price"): Endpoint(ticker_price, _PUBLIC, 2),
    ("POST", "/api/v3/order"): Endpoint(new_order, _SIGNED, 1, counts_as_order=True),
    ("POST", "/api/v3/order/test"): Endpoint(test_order, _SIGNED, 1),
    ("GET", "/api/v3/order"): Endpoint(get_order, _SIGNED, 4),
    ("DELETE", "/api/v3/order"): Endpoint(cancel_order, _SIGNED, 1),
    ("GET", "/api/v3/openOrders"): Endpoint(open_orders, _SIGNED, 6),
    ("DELETE", "/api/v3/openOrders"): Endpoint(cancel_open_orders, _SIGNED, 1),
    ("GET", "/api/v3/allOrders"): Endpoint(all_orders, _SIGNED, 20),
    ("GET", "/api/v3/myTrades"): Endpoint(my_trades, _SIGNED, 20),
    ("GET", "/api/v3/account"): Endpoint(account, _SIGNED, 20),
    ("GET", "/sapi/v1/capital/config/getall"): Endpoint(coins, _SIGNED, 10),
    ("POST", "/sapi/v1/capital/withdraw/apply"): Endpoint(withdraw, _SIGNED, 10),
    ("GET", "/sapi/v1/capital/withdraw/history"): Endpoint(withdrawal_history, _SIGNED, 10),
    ("GET", "/sapi/v1/capital/deposit/hisrec"): Endpoint(deposit_history, _SIGNED, 1),
    ("GET", "/sapi/v1/capital/deposit/address"): Endpoint(deposit_address, _SIGNED, 10),
}
