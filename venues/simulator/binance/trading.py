"""Endpoints that place, change and cancel orders. Source: binance-spot-api-docs, rest-api.md."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from venues.simulator.binance import parameters, reports
from venues.simulator.binance.calls import Call
from venues.simulator.binance.new_orders import (
    Heading,
    new_order,
    quantity_lots,
    require_notional,
)
from venues.simulator.binance.refusals import ApiError, no_such_order, spelled
from venues.simulator.binance.refusals import unknown_order_to_cancel as unknown_to_cancel
from venues.simulator.binance.symbols import AMENDS_MAX
from venues.simulator.binance.wallet import fee_texts
from venues.simulator.commands import AmendOrder, CancelOrder, OrderUpdated, PlaceOrder
from venues.simulator.errors import VenueRefusal
from venues.simulator.market import Market
from venues.simulator.model import Order, OrderStatus, OrderType

RESTRICTIONS: Final = {
    "ONLY_NEW": OrderStatus.NEW,
    "ONLY_PARTIALLY_FILLED": OrderStatus.PARTIALLY_FILLED,
}

_SHAPES: Final = ("ACK", "RESULT", "FULL")
_NO_COMMISSION: Final = {"maker": "0.00000000", "taker": "0.00000000"}


def place(call: Call) -> Any:
    """POST /api/v3/order."""
    shape = parameters.chosen(call.sent, "newOrderRespType", _SHAPES)
    market, command = command_of(call, call.sent)
    return placed(call, market, command, shape)


def placed(call: Call, market: Market, command: PlaceOrder, shape: str = "") -> Any:
    """Execute a new order and answer it; without a shape as its type is answered by default."""
    order_id = market.next_order_id
    events = call.core.execute(command)
    order = call.core.state.order(command.symbol, order_id)
    assert order is not None
    fills = [
        event.fill
        for event in events
        if isinstance(event, OrderUpdated) and event.fill is not None
        if event.fill.order_id == order_id
    ]
    return reports.order_answer(market.spec, order, fills, shape or _default_shape(command))


def test(call: Call) -> Any:
    """POST /api/v3/order/test: check an order without placing it."""
    _, command = command_of(call, call.sent)
    call.core.exchange.check(command)
    if not parameters.flag(call.sent, "computeCommissionRates"):
        return {}
    maker, taker = fee_texts(call.account.fees)
    return {
        "standardCommissionForOrder": {"maker": maker, "taker": taker},
        "specialCommissionForOrder": _NO_COMMISSION,
        "taxCommissionForOrder": _NO_COMMISSION,
        "discount": discount(call),
    }


def discount(call: Call) -> dict[str, Any]:
    """How commission in a third asset is told of."""
    asset = call.account.fees.asset
    return {
        "enabledForAccount": asset is not None,
        "enabledForSymbol": asset is not None,
        "discountAsset": asset or "BNB",
        "discount": "0.00000000",
    }


def cancel(call: Call) -> Any:
    """DELETE /api/v3/order. An order of a list takes the whole list with it."""
    order = to_cancel(call, "orderId", "origClientOrderId")
    return cancelled(call, order, call.sent.get("newClientOrderId", ""))


def to_cancel(call: Call, id_name: str, client_id_name: str) -> Order:
    """The open order a request wants cancelled.

    Raises:
        ApiError: -1102 when it names none, -2011 when there is none or restrictions forbid it.
    """
    order = find(call, id_name, client_id_name)
    if order is None or not order.status.is_open:
        raise unknown_to_cancel()
    wanted = call.sent.get("cancelRestrictions", "")
    if wanted and wanted not in RESTRICTIONS:
        raise ApiError(
            -1145,
            "`cancelRestrictions` has to be either `ONLY_NEW` or `ONLY_PARTIALLY_FILLED`.",
        )
    if wanted and order.status is not RESTRICTIONS[wanted]:
        raise ApiError(-2011, "Order was not canceled due to cancel restrictions.")
    return order


def cancelled(call: Call, order: Order, request_id: str) -> Any:
    """Cancel an order and answer it; one of a list is answered as the list."""
    core, spec = call.core, call.core.state.markets[order.symbol].spec
    name = request_id or f"sim-cancel-{order.symbol}-{order.order_id}"
    command = CancelOrder(core.accepted_at(), call.name, order.symbol, order.order_id, name)
    core.execute(command)
    ended = core.state.order(order.symbol, order.order_id)
    assert ended is not None
    if ended.order_list_id >= 0:
        return list_answer(call, ended.order_list_id, name)
    return reports.cancel_answer(spec, ended, name)


def list_answer(call: Call, list_id: int, request_id: str) -> Any:
    """A cancelled order list with its orders."""
    state = call.core.state
    found = state.order_list(call.name, list_id)
    assert found is not None
    spec = state.markets[found.symbol].spec
    orders = [state.order(found.symbol, order_id) for order_id in found.order_ids]
    known = [order for order in orders if order is not None]
    answers = [reports.cancel_answer(spec, order, request_id) for order in known]
    return {**reports.list_row(found, known), "orderReports": answers}


def cancel_open(call: Call) -> Any:
    """DELETE /api/v3/openOrders: cancel all open orders of a symbol."""
    name = call.market().spec.name
    state, answers = call.core.state, []
    for order in state.open_orders_of(call.name):
        current = state.order(order.symbol, order.order_id)
        if order.symbol == name and current is not None and current.status.is_open:
            answers.append(cancelled(call, order, ""))
    if not answers:
        raise unknown_to_cancel()
    return answers


def replace_order(call: Call) -> Any:
    """POST /api/v3/order/cancelReplace."""
    modes = ("STOP_ON_FAILURE", "ALLOW_FAILURE")
    parameters.text(call.sent, "cancelReplaceMode")
    mode = parameters.chosen(call.sent, "cancelReplaceMode", modes)
    shape = parameters.chosen(call.sent, "newOrderRespType", _SHAPES)
    market, command = command_of(call, call.sent)
    outcome: dict[str, Any] = {
        "cancelResult": "SUCCESS",
        "newOrderResult": "NOT_ATTEMPTED",
        "cancelResponse": None,
        "newOrderResponse": None,
    }
    try:
        order = to_cancel(call, "cancelOrderId", "cancelOrigClientOrderId")
        name = call.sent.get("cancelNewClientOrderId", "")
        outcome["cancelResponse"] = cancelled(call, order, name)
    except (ApiError, VenueRefusal) as refusal:
        outcome |= {"cancelResult": "FAILURE", "cancelResponse": _error(refusal)}
    if outcome["cancelResult"] == "SUCCESS" or mode == "ALLOW_FAILURE":
        try:
            outcome["newOrderResponse"] = placed(call, market, command, shape)
            outcome["newOrderResult"] = "SUCCESS"
        except VenueRefusal as refusal:
            outcome |= {"newOrderResult": "FAILURE", "newOrderResponse": _error(refusal)}
    return _replaced(outcome)


def amend(call: Call) -> Any:
    """PUT /api/v3/order/amend/keepPriority: make an order smaller where it stands."""
    market, sent, state = call.market(), call.sent, call.core.state
    order = find(call, "orderId", "origClientOrderId")
    if order is None or not order.status.is_open:
        raise no_such_order()
    lots = quantity_lots(market.spec, "newQty", parameters.text(sent, "newQty"))
    if lots > order.quantity_lots:
        raise ApiError(-2038, "Order amend (quantity increase) is not supported.")
    if lots == order.quantity_lots:
        raise ApiError(-2038, "The requested action would change no state; rejecting.")
    if order.price_ticks is not None:
        require_notional(market.spec, order.price_ticks, lots)
    changes = state.amendments_of(order.symbol, order.order_id)
    if len(changes) >= AMENDS_MAX:
        raise ApiError(-1013, "Filter failure: MAX_NUM_ORDER_AMENDS")
    fallback = f"sim-amend-{order.symbol}-{order.order_id}-{len(changes) + 1}"
    call.core.execute(
        AmendOrder(
            at_ms=call.core.accepted_at(),
            account=call.name,
            symbol=order.symbol,
            order_id=order.order_id,
            quantity_lots=lots,
            price_ticks=None,
            client_order_id=parameters.client_id(sent, "newClientOrderId", fallback),
            request_id=order.client_order_id,
        )
    )
    amended = state.order(order.symbol, order.order_id)
    assert amended is not None
    change = state.amendments_of(order.symbol, order.order_id)[-1]
    return reports.amended_answer(market.spec, amended, change)


def find(call: Call, id_name: str, client_id_name: str) -> Order | None:
    """The order a request names by its id or, without one, by its client id.

    Raises:
        ApiError: -1102 when it names none.
    """
    symbol, sent, state = call.market().spec.name, call.sent, call.core.state
    if id_name in sent:
        return state.find_order(call.name, symbol, parameters.integer(sent, id_name))
    if sent.get(client_id_name):
        return state.find_by_client_id(call.name, symbol, sent[client_id_name])
    raise ApiError(
        -1102,
        f"Param '{client_id_name}' or '{id_name}' must be sent, but both were empty/null!",
    )


def command_of(call: Call, sent: Mapping[str, str]) -> tuple[Market, PlaceOrder]:
    """The order a request asks for; one sized in the quote asset is sized by the book.

    Raises:
        ApiError, VenueRefusal: it cannot be placed.
    """
    market, core = call.market(), call.core
    spec = market.spec
    fallback = f"sim-{spec.name}-{market.next_order_id}"
    command = new_order(Heading(call.name, spec, core.accepted_at(), fallback), sent)
    if command.quantity_lots == 0:
        units = command.quote_quantity_units
        lots = core.exchange.resolve_quantity(spec.name, command.side, units)
        command = replace(command, quantity_lots=lots)
    if command.price_ticks is None:
        require_notional(spec, command.trigger_ticks or market.mid_ticks, command.quantity_lots)
    return market, command


def _default_shape(command: PlaceOrder) -> str:
    plain_limit = command.type is OrderType.LIMIT and not command.post_only
    return "FULL" if plain_limit or command.type is OrderType.MARKET else "ACK"


def _error(refusal: ApiError | VenueRefusal) -> dict[str, Any]:
    error = spelled(refusal) if isinstance(refusal, VenueRefusal) else refusal
    return {"code": error.code, "msg": error.text}


def _replaced(outcome: dict[str, Any]) -> Any:
    results = (outcome["cancelResult"], outcome["newOrderResult"])
    if results == ("SUCCESS", "SUCCESS"):
        return outcome
    if "SUCCESS" in results:
        text = "Order cancel-replace partially failed."
        raise ApiError(-2021, text, 409, data=outcome)
    raise ApiError(-2022, "Order cancel-replace failed.", data=outcome)
