"""Endpoints that tell an account about itself. Source: binance-spot-api-docs, rest-api.md."""

from collections.abc import Mapping
from typing import Any, Final

from venues.simulator.binance import parameters, reports, symbols, wire
from venues.simulator.binance.calls import Call
from venues.simulator.binance.candles import DAY_MS
from venues.simulator.binance.refusals import ApiError, no_such_order
from venues.simulator.binance.trading import discount, find
from venues.simulator.binance.wallet import fee_texts
from venues.simulator.decimals import text_from_units
from venues.simulator.model import Fill, Order

_ZERO: Final = "0.00000000"
_NO_COMMISSION: Final = {"maker": _ZERO, "taker": _ZERO, "buyer": _ZERO, "seller": _ZERO}


def account(call: Call) -> Any:
    """GET /api/v3/account."""
    wallet, fees = call.account.wallet, call.account.fees
    maker, taker = fee_texts(fees)
    names = sorted({*wallet.assets(), *call.core.state.assets})
    rows = [(name, wallet.free(name), wallet.locked(name)) for name in names]
    if parameters.flag(call.sent, "omitZeroBalances"):
        rows = [row for row in rows if row[1] or row[2]]
    return {
        "makerCommission": fees.maker_ppm // 100,
        "takerCommission": fees.taker_ppm // 100,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {"maker": maker, "taker": taker, "buyer": _ZERO, "seller": _ZERO},
        "canTrade": True,
        "canWithdraw": True,
        "canDeposit": True,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": call.core.now_ms(),
        "accountType": "SPOT",
        "balances": [
            {"asset": name, "free": text_from_units(free), "locked": text_from_units(locked)}
            for name, free, locked in rows
        ],
        "permissions": ["SPOT"],
        "uid": int(call.account.spec.api_key.encode().hex()[:12], 16),
    }


def commission(call: Call) -> Any:
    """GET /api/v3/account/commission."""
    maker, taker = fee_texts(call.account.fees)
    return {
        "symbol": call.market().spec.name,
        "standardCommission": {**_NO_COMMISSION, "maker": maker, "taker": taker},
        "specialCommission": _NO_COMMISSION,
        "taxCommission": _NO_COMMISSION,
        "discount": discount(call),
    }


def order_limits(call: Call) -> Any:
    """GET /api/v3/rateLimit/order."""
    return call.limits.order_status(call.name, call.core.now_ms())


def get_order(call: Call) -> Any:
    """GET /api/v3/order."""
    order = find(call, "orderId", "origClientOrderId")
    if order is None:
        raise no_such_order()
    return reports.order_row(call.market().spec, order)


def open_orders(call: Call) -> Any:
    """GET /api/v3/openOrders, of one symbol if one is named."""
    wanted = call.market().spec.name if "symbol" in call.sent else None
    return [
        _row(call, order)
        for order in call.core.state.open_orders_of(call.name)
        if wanted in (None, order.symbol)
    ]


def all_orders(call: Call) -> Any:
    """GET /api/v3/allOrders of a symbol: from `orderId` on, or the latest; oldest first."""
    market, limit = call.market(), call.limit()
    _require_a_day(call.sent)
    rows = [
        order
        for order in call.core.state.orders_of(call.name)
        if order.symbol == market.spec.name and parameters.within(call.sent, order.created_ms)
    ]
    if "orderId" in call.sent:
        first = parameters.integer(call.sent, "orderId")
        rows = [order for order in rows if order.order_id >= first][:limit]
    elif "startTime" in call.sent:
        rows = rows[:limit]
    return [reports.order_row(market.spec, order) for order in rows[-limit:]]


def amendments(call: Call) -> Any:
    """GET /api/v3/order/amendments of one order, oldest first."""
    order_id = parameters.integer(call.sent, "orderId")
    market, state = call.market(), call.core.state
    order = state.find_order(call.name, market.spec.name, order_id)
    if order is None:
        raise no_such_order()
    first = parameters.optional_integer(call.sent, "fromExecutionId", 0)
    changes = [c for c in state.amendments_of(order.symbol, order_id) if c.number >= first]
    return [reports.amendment_row(market.spec, order, change) for change in changes][: call.limit()]


def my_trades(call: Call) -> Any:
    """GET /api/v3/myTrades of a symbol: from `fromId` on, of one order, or the latest."""
    market, limit, sent = call.market(), call.limit(), call.sent
    timed = "startTime" in sent or "endTime" in sent
    if timed and ("fromId" in sent or "orderId" in sent):
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    _require_a_day(sent)
    order_id = parameters.maybe_integer(sent, "orderId")
    rows = [
        fill
        for fill in call.core.state.fills_of(call.name)
        if fill.symbol == market.spec.name
        and order_id in (None, fill.order_id)
        and parameters.within(sent, fill.at_ms)
    ]
    if "fromId" in sent:
        first = parameters.integer(sent, "fromId")
        rows = [fill for fill in rows if fill.trade_id >= first][:limit]
    elif "startTime" in sent:
        rows = rows[:limit]
    return [_fill(call, fill) for fill in rows[-limit:]]


def prevented_matches(call: Call) -> Any:
    """GET /api/v3/myPreventedMatches, by match or by order."""
    market, sent = call.market(), call.sent
    number = parameters.maybe_integer(sent, "preventedMatchId")
    order_id = parameters.maybe_integer(sent, "orderId")
    if number is None and order_id is None:
        raise ApiError(
            -1102,
            "Param 'preventedMatchId' or 'orderId' must be sent, but both were empty/null!",
        )
    first = parameters.optional_integer(sent, "fromPreventedMatchId", 0)
    rows = [
        reports.prevented_row(market.spec, match)
        for match in call.core.state.prevented_matches_of(call.name)
        if match.symbol == market.spec.name
        and number in (None, match.number)
        and order_id in (None, match.taker_order_id, match.maker_order_id)
        and match.number >= first
    ]
    return rows[: call.limit()]


def my_filters(call: Call) -> Any:
    """GET /api/v3/myFilters: the symbol's; an account has none of its own."""
    spec = call.market().spec
    return {"exchangeFilters": [], "symbolFilters": symbols.filters(spec), "assetFilters": []}


def none_ever(call: Call) -> Any:
    """Lists that are always empty here: allocations, block trades."""
    call.market()
    return []


def _row(call: Call, order: Order) -> wire.Json:
    return reports.order_row(call.core.state.markets[order.symbol].spec, order)


def _fill(call: Call, fill: Fill) -> wire.Json:
    row = wire.fill_row(call.core.state.markets[fill.symbol].spec, fill)
    order = call.core.state.order(fill.symbol, fill.order_id)
    return row | {"orderListId": -1 if order is None else order.order_list_id}


def _require_a_day(sent: Mapping[str, str]) -> None:
    start_ms = parameters.maybe_integer(sent, "startTime")
    end_ms = parameters.maybe_integer(sent, "endTime")
    if start_ms is not None and end_ms is not None and end_ms - start_ms > DAY_MS:
        raise ApiError(-1127, "More than 24 hours between startTime and endTime.")
