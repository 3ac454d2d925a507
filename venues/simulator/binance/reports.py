"""Orders, order lists and amendments as answers and events show them. Pure.

Fields appear in the order of binance-spot-api-docs (rest-api.md, "Conditional fields in Order
Responses"; user-data-stream.md, "Order Update").
"""

from collections.abc import Sequence
from typing import Final

import orjson

from venues.simulator.binance.wire import Json, price_text, quantity_text
from venues.simulator.commands import OrderListUpdated, OrderUpdated
from venues.simulator.decimals import text_from_units
from venues.simulator.model import (
    Amendment,
    Execution,
    Fill,
    Order,
    OrderList,
    OrderListKind,
    OrderListStatus,
    OrderStatus,
    OrderType,
    PreventedMatch,
    Reason,
    SymbolSpec,
)

NONE: Final = "NONE"
TRADE_GROUP: Final = 1

_EXECUTIONS: Final = {Execution.AMENDED: "REPLACED", Execution.TRIGGERED: "NEW"}
_REJECTIONS: Final = {Reason.NO_FUNDS: "INSUFFICIENT_BALANCES"}
_CONTINGENCIES: Final = {
    OrderListKind.OCO: "OCO",
    OrderListKind.OTO: "OTO",
    OrderListKind.OTOCO: "OTO",
}


def type_name(order: Order) -> str:
    """The order's type in the venue's words."""
    if order.type is OrderType.LIMIT and order.post_only:
        return "LIMIT_MAKER"
    return order.type.name


def order_row(spec: SymbolSpec, order: Order) -> Json:
    """An order as GET order, openOrders and allOrders show it."""
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.order_list_id,
        "clientOrderId": order.client_order_id,
        "price": price_text(spec, order.price_ticks or 0),
        "origQty": quantity_text(spec, order.quantity_lots),
        "executedQty": quantity_text(spec, order.filled_lots),
        "cummulativeQuoteQty": text_from_units(order.filled_quote_units),
        "status": order.status.name,
        "timeInForce": order.time_in_force.name,
        "type": type_name(order),
        "side": order.side.name,
        "stopPrice": price_text(spec, order.trigger_ticks or 0),
        "icebergQty": quantity_text(spec, order.display_lots),
        "time": order.created_ms,
        "updateTime": order.updated_ms,
        "isWorking": bool(order.working_ms),
        "workingTime": order.working_ms or -1,
        "origQuoteOrderQty": text_from_units(order.quote_quantity_units),
        "selfTradePreventionMode": order.self_trade_prevention.name,
        **_conditional(spec, order),
    }


def order_answer(spec: SymbolSpec, order: Order, fills: Sequence[Fill], shape: str) -> Json:
    """The answer to a new order in the shape `ACK`, `RESULT` or `FULL`."""
    answer: Json = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.order_list_id,
        "clientOrderId": order.client_order_id,
        "transactTime": order.created_ms,
    }
    if shape == "ACK":
        return answer
    dropped = {"time", "updateTime", "isWorking"}
    if order.trigger_ticks is None:
        dropped.add("stopPrice")
    if not order.display_lots:
        dropped.add("icebergQty")
    row = order_row(spec, order)
    answer |= {key: value for key, value in row.items() if key not in dropped}
    if shape == "FULL":
        answer["fills"] = [_fill(spec, fill) for fill in fills]
    return answer


def cancel_answer(spec: SymbolSpec, order: Order, request_id: str) -> Json:
    """The answer to a cancel: the order under its old client id, the cancel under its own."""
    answer = order_answer(spec, order, [], "RESULT")
    answer["origClientOrderId"] = order.client_order_id
    answer["clientOrderId"] = request_id
    answer["transactTime"] = order.updated_ms
    del answer["workingTime"]
    return answer


def amended_answer(spec: SymbolSpec, order: Order, change: Amendment) -> Json:
    """The answer to an amendment."""
    amended = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.order_list_id,
        "origClientOrderId": change.client_order_id,
        "clientOrderId": order.client_order_id,
        "price": price_text(spec, order.price_ticks or 0),
        "qty": quantity_text(spec, order.quantity_lots),
        "executedQty": quantity_text(spec, order.filled_lots),
        "preventedQty": quantity_text(spec, order.prevented_lots),
        "quoteOrderQty": text_from_units(order.quote_quantity_units),
        "cumulativeQuoteQty": text_from_units(order.filled_quote_units),
        "status": order.status.name,
        "timeInForce": order.time_in_force.name,
        "type": type_name(order),
        "side": order.side.name,
        "workingTime": order.working_ms or -1,
        "selfTradePreventionMode": order.self_trade_prevention.name,
        **_conditional(spec, order),
    }
    return {
        "transactTime": change.at_ms,
        "executionId": change.number,
        "amendedOrder": amended,
    }


def amendment_row(spec: SymbolSpec, order: Order, change: Amendment) -> Json:
    """One entry of GET order/amendments."""
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "executionId": change.number,
        "origClientOrderId": change.client_order_id,
        "newClientOrderId": change.new_client_order_id,
        "origQty": quantity_text(spec, change.lots),
        "newQty": quantity_text(spec, change.new_lots),
        "time": change.at_ms,
    }


def prevented_row(spec: SymbolSpec, match: PreventedMatch) -> Json:
    """One entry of GET myPreventedMatches."""
    return {
        "symbol": match.symbol,
        "preventedMatchId": match.number,
        "takerOrderId": match.taker_order_id,
        "makerSymbol": match.symbol,
        "makerOrderId": match.maker_order_id,
        "tradeGroupId": TRADE_GROUP,
        "selfTradePreventionMode": match.mode.name,
        "price": price_text(spec, match.price_ticks),
        "makerPreventedQuantity": quantity_text(spec, match.quantity_lots),
        "transactTime": match.at_ms,
    }


def list_row(found: OrderList, orders: Sequence[Order]) -> Json:
    """An order list as queries show it."""
    executing = found.status is OrderListStatus.EXECUTING
    return {
        "orderListId": found.list_id,
        "contingencyType": _CONTINGENCIES[found.kind],
        "listStatusType": "EXEC_STARTED" if executing else "ALL_DONE",
        "listOrderStatus": "EXECUTING" if executing else "ALL_DONE",
        "listClientOrderId": found.client_list_id,
        "transactionTime": found.updated_ms,
        "symbol": found.symbol,
        "orders": [
            {
                "symbol": order.symbol,
                "orderId": order.order_id,
                "clientOrderId": order.client_order_id,
            }
            for order in orders
        ],
    }


def list_frame(event: OrderListUpdated, orders: Sequence[Order], now_ms: int) -> Json:
    """An order list's change as the user data stream sends it."""
    row = list_row(event.order_list, orders)
    return {
        "e": "listStatus",
        "E": now_ms,
        "s": row["symbol"],
        "g": row["orderListId"],
        "c": row["contingencyType"],
        "l": row["listStatusType"],
        "L": row["listOrderStatus"],
        "r": NONE,
        "C": row["listClientOrderId"],
        "T": event.at_ms,
        "O": [
            {"s": leg["symbol"], "i": leg["orderId"], "c": leg["clientOrderId"]}
            for leg in row["orders"]
        ],
    }


def execution_report(
    spec: SymbolSpec, event: OrderUpdated, now_ms: int, prevented: PreventedMatch | None = None
) -> Json:
    """An order update as the user data stream sends it; `prevented` is why an order was expired."""
    order, fill = event.order, event.fill
    client_id, original_id = _ids(event)
    report: Json = {
        "e": "executionReport",
        "E": now_ms,
        "s": order.symbol,
        "c": client_id,
        "S": order.side.name,
        "o": type_name(order),
        "f": order.time_in_force.name,
        "q": quantity_text(spec, order.quantity_lots),
        "p": price_text(spec, order.price_ticks or 0),
        "P": price_text(spec, order.trigger_ticks or 0),
        "F": quantity_text(spec, order.display_lots),
        "g": order.order_list_id,
        "C": original_id,
        "x": _EXECUTIONS.get(event.execution, event.execution.name),
        "X": order.status.name,
        "r": _rejection(order),
        "i": order.order_id,
        "l": quantity_text(spec, fill.quantity_lots if fill else 0),
        "z": quantity_text(spec, order.filled_lots),
        "L": price_text(spec, fill.price_ticks if fill else 0),
        "n": text_from_units(fill.fee_units) if fill else "0",
        "N": fill.fee_asset if fill else None,
        "T": event.at_ms,
        "t": fill.trade_id if fill else -1,
        "I": order.order_id,
        "w": order.status.is_open and bool(order.working_ms),
        "m": fill.is_maker if fill else False,
        "M": fill is not None,
        "O": order.created_ms,
        "Z": text_from_units(order.filled_quote_units),
        "Y": text_from_units(fill.quote_units if fill else 0),
        "Q": text_from_units(order.quote_quantity_units),
        "V": order.self_trade_prevention.name,
    }
    if prevented is not None:
        report |= _prevention(spec, order, prevented)
    return report | _report_extras(spec, order)


def _prevention(spec: SymbolSpec, order: Order, match: PreventedMatch) -> Json:
    """The trade with its own account that an order did not make."""
    lots, is_taker = match.quantity_lots, order.order_id == match.taker_order_id
    quantity = quantity_text(spec, lots)
    return {
        "v": match.number,
        "A": quantity,
        "B": quantity,
        "u": TRADE_GROUP,
        "U": match.maker_order_id if is_taker else match.taker_order_id,
        "Cs": match.symbol,
        "pl": quantity,
        "pL": price_text(spec, match.price_ticks),
        "pY": text_from_units(spec.notional_units(match.price_ticks, lots)),
    }


def _ids(event: OrderUpdated) -> tuple[str, str]:
    """A cancel is reported under its own id, with the order's as the original one."""
    order = event.order
    if event.execution is Execution.CANCELED and event.request_id:
        return event.request_id, order.client_order_id
    if event.execution is Execution.AMENDED:
        return order.client_order_id, event.request_id
    return order.client_order_id, ""


def _rejection(order: Order) -> str:
    if order.status is not OrderStatus.REJECTED:
        return NONE
    return _REJECTIONS.get(order.reason, "UNKNOWN")


def _report_extras(spec: SymbolSpec, order: Order) -> Json:
    found: Json = {}
    if order.working_ms:
        found["W"] = order.working_ms
    if order.trailing_ppm:
        found |= {"d": order.trailing_ppm // 100, "D": order.trail_ms or -1}
    note = _note(order)
    if "strategyId" in note:
        found["j"] = note["strategyId"]
    if "strategyType" in note:
        found["J"] = note["strategyType"]
    if order.prevented_lots:
        found["A"] = quantity_text(spec, order.prevented_lots)
    return found


def _conditional(spec: SymbolSpec, order: Order) -> Json:
    """Fields that only orders with the feature have."""
    found: Json = dict(_note(order))
    if order.trailing_ppm:
        found |= {"trailingDelta": order.trailing_ppm // 100, "trailingTime": order.trail_ms or -1}
    if order.prevented_lots:
        found["preventedQuantity"] = quantity_text(spec, order.prevented_lots)
    return found


def _note(order: Order) -> Json:
    kept = orjson.loads(order.note) if order.note else {}
    assert isinstance(kept, dict)
    return kept


def _fill(spec: SymbolSpec, fill: Fill) -> Json:
    return {
        "price": price_text(spec, fill.price_ticks),
        "qty": quantity_text(spec, fill.quantity_lots),
        "commission": text_from_units(fill.fee_units),
        "commissionAsset": fill.fee_asset,
        "tradeId": fill.trade_id,
    }
