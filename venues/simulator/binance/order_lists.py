"""Endpoints of order lists: OCO, OTO, OTOCO. Source: binance-spot-api-docs, rest-api.md."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from venues.simulator.binance import parameters, reports
from venues.simulator.binance.calls import Call
from venues.simulator.binance.new_orders import Heading, Leg, new_order
from venues.simulator.binance.refusals import ApiError, no_such_order
from venues.simulator.binance.trading import cancelled
from venues.simulator.commands import PlaceOrder, PlaceOrderList
from venues.simulator.market import Market
from venues.simulator.model import Order, OrderList, OrderListKind, OrderListStatus, OrderType

_SHAPES: Final = ("ACK", "RESULT", "FULL")
_ABOVE: Final = Leg("above", client_id="aboveClientOrderId")
_BELOW: Final = Leg("below", client_id="belowClientOrderId")
_WORKING: Final = Leg("working", "workingSide", "workingQuantity", "workingClientOrderId")
_PENDING: Final = Leg("pending", "pendingSide", "pendingQuantity", "pendingClientOrderId")
_PENDING_ABOVE: Final = Leg(
    "pendingAbove", "pendingSide", "pendingQuantity", "pendingAboveClientOrderId"
)
_PENDING_BELOW: Final = Leg(
    "pendingBelow", "pendingSide", "pendingQuantity", "pendingBelowClientOrderId"
)
_CONTINGENT: Final = (
    "STOP_LOSS",
    "STOP_LOSS_LIMIT",
    "TAKE_PROFIT",
    "TAKE_PROFIT_LIMIT",
    "LIMIT_MAKER",
)
# The old OCO's parameters of its limit leg and of its stop leg, by the name a leg has now.
_OLD_LIMIT: Final = {
    "limitClientOrderId": "ClientOrderId",
    "price": "Price",
    "limitIcebergQty": "IcebergQty",
    "limitStrategyId": "StrategyId",
    "limitStrategyType": "StrategyType",
}
_OLD_STOP: Final = {
    "stopClientOrderId": "ClientOrderId",
    "stopPrice": "StopPrice",
    "trailingDelta": "TrailingDelta",
    "stopLimitPrice": "Price",
    "stopIcebergQty": "IcebergQty",
    "stopLimitTimeInForce": "TimeInForce",
    "stopStrategyId": "StrategyId",
    "stopStrategyType": "StrategyType",
}


def oco(call: Call) -> Any:
    """POST /api/v3/orderList/oco."""
    return _placed(call, OrderListKind.OCO, (_ABOVE, _BELOW), call.sent)


def old_oco(call: Call) -> Any:
    """POST /api/v3/order/oco: the deprecated form, a limit order and a stop."""
    sent = dict(call.sent)
    for name in ("price", "stopPrice"):
        parameters.text(sent, name)
    sells = parameters.text(sent, "side") == "SELL"
    limit, stop = ("above", "below") if sells else ("below", "above")
    sent[f"{limit}Type"] = "LIMIT_MAKER"
    sent[f"{stop}Type"] = "STOP_LOSS_LIMIT" if "stopLimitPrice" in sent else "STOP_LOSS"
    for prefix, table in ((limit, _OLD_LIMIT), (stop, _OLD_STOP)):
        for old, new in table.items():
            if old in call.sent:
                sent[prefix + new] = sent.pop(old)
    return _placed(call, OrderListKind.OCO, (_ABOVE, _BELOW), sent)


def oto(call: Call) -> Any:
    """POST /api/v3/orderList/oto."""
    return _placed(call, OrderListKind.OTO, (_WORKING, _PENDING), call.sent)


def otoco(call: Call) -> Any:
    """POST /api/v3/orderList/otoco."""
    legs = (_WORKING, _PENDING_ABOVE, _PENDING_BELOW)
    return _placed(call, OrderListKind.OTOCO, legs, call.sent)


def cancel(call: Call) -> Any:
    """DELETE /api/v3/orderList: cancel a whole list."""
    call.market()
    found = _asked_for(call, "listClientOrderId")
    if found is None or found.status is not OrderListStatus.EXECUTING:
        raise ApiError(-2011, "Unknown order list sent.")
    order = next(order for order in _orders(call, found) if order.status.is_open)
    return cancelled(call, order, call.sent.get("newClientOrderId", ""))


def query(call: Call) -> Any:
    """GET /api/v3/orderList."""
    found = _asked_for(call, "origClientOrderId")
    if found is None:
        raise no_such_order()
    return reports.list_row(found, _orders(call, found))


def query_open(call: Call) -> Any:
    """GET /api/v3/openOrderList."""
    rows = call.core.state.order_lists_of(call.name)
    open_rows = [row for row in rows if row.status is OrderListStatus.EXECUTING]
    return [reports.list_row(row, _orders(call, row)) for row in open_rows]


def query_all(call: Call) -> Any:
    """GET /api/v3/allOrderList: from `fromId` on, or between two times, or the latest."""
    sent, rows = call.sent, list(call.core.state.order_lists_of(call.name))
    if "fromId" in sent:
        if "startTime" in sent or "endTime" in sent:
            raise ApiError(-1128, "Combination of optional parameters invalid.")
        first = parameters.integer(sent, "fromId")
        rows = [row for row in rows if row.list_id >= first][: call.limit()]
    else:
        rows = [row for row in rows if parameters.within(sent, row.created_ms)][-call.limit() :]
    return [reports.list_row(row, _orders(call, row)) for row in rows]


def _placed(call: Call, kind: OrderListKind, legs: Sequence[Leg], sent: Mapping[str, str]) -> Any:
    market, core = call.market(), call.core
    shape = parameters.chosen(sent, "newOrderRespType", _SHAPES, "RESULT")
    at_ms = core.accepted_at()
    orders = tuple(_leg(call, market, leg, sent, at_ms, number) for number, leg in enumerate(legs))
    _require_sense(market, kind, orders, legs, sent)
    fallback = f"sim-list-{market.spec.name}-{market.next_order_id}"
    name = parameters.client_id(sent, "listClientOrderId", fallback)
    core.execute(PlaceOrderList(at_ms, call.name, market.spec.name, kind, name, orders))
    found = core.state.order_lists_of(call.name)[-1]
    rows = _orders(call, found)
    answers = [reports.order_answer(market.spec, order, [], shape) for order in rows]
    return {**reports.list_row(found, rows), "orderReports": answers}


def _leg(
    call: Call, market: Market, leg: Leg, sent: Mapping[str, str], at_ms: int, number: int
) -> PlaceOrder:
    fallback = f"sim-{market.spec.name}-{market.next_order_id + number}"
    return new_order(Heading(call.name, market.spec, at_ms, fallback), sent, leg)


def _require_sense(
    market: Market,
    kind: OrderListKind,
    orders: Sequence[PlaceOrder],
    legs: Sequence[Leg],
    sent: Mapping[str, str],
) -> None:
    """Refuse lists of orders that cannot stand together."""
    if kind is not OrderListKind.OCO and orders[0].type is not OrderType.LIMIT:
        raise ApiError(-1158, "Working order must be LIMIT or LIMIT_MAKER.")
    pair = orders if kind is OrderListKind.OCO else orders[1:]
    if len(pair) != 2:
        return
    if any(sent[leg.name("type")] not in _CONTINGENT for leg in legs[-2:]):
        raise ApiError(-1158, "Order type not supported in OCO.")
    above, below = (_level(order) for order in pair)
    last = market.reference_ticks if kind is OrderListKind.OCO else None
    upside_down = above is not None and below is not None and above <= below
    outside = last is not None and (
        (above is not None and above <= last) or (below is not None and below >= last)
    )
    if upside_down or outside:
        raise ApiError(-2010, "The relationship of the prices for the orders is not correct.")


def _level(order: PlaceOrder) -> int | None:
    """Where an order begins to act: its trigger or its price."""
    return order.price_ticks if order.trigger_ticks is None else order.trigger_ticks


def _asked_for(call: Call, client_id_name: str) -> OrderList | None:
    sent, state = call.sent, call.core.state
    if "orderListId" in sent:
        return state.order_list(call.name, parameters.integer(sent, "orderListId"))
    if sent.get(client_id_name):
        return state.find_order_list(call.name, sent[client_id_name])
    raise ApiError(
        -1102,
        f"Param '{client_id_name}' or 'orderListId' must be sent, but both were empty/null!",
    )


def _orders(call: Call, found: OrderList) -> list[Order]:
    state = call.core.state
    orders = (state.order(found.symbol, order_id) for order_id in found.order_ids)
    return [order for order in orders if order is not None]
