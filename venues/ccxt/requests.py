"""What goes to the venue with an order, literally: texts and times as they stand in the row."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from kernel.clock import iso, to_unix_ms
from matching.model import TimeInForce
from venues.capabilities import Capabilities, Stamp
from venues.model import OrderKind, VenueOrder

TIMES_IN_FORCE: Final = {
    TimeInForce.GTC: "GTC",
    TimeInForce.IOC: "IOC",
    TimeInForce.FOK: "FOK",
}

TYPES: Final = {
    OrderKind.LIMIT: "limit",
    OrderKind.POST_ONLY: "limit",
    OrderKind.MARKET: "market",
}

_MILLISECOND: Final = timedelta(milliseconds=1)


def unsupported(order: VenueOrder, capabilities: Capabilities) -> str | None:
    """Return why the venue cannot take such an order; None: it can."""
    if order.kind not in capabilities.order_kinds:
        return f"the venue has no {order.kind} orders"
    if order.kind is OrderKind.LIMIT and order.time_in_force not in capabilities.times_in_force:
        return f"the venue has no {order.time_in_force.value} orders"
    if capabilities.wire.expiry_fields and order.signed_at is None:
        return "the order says nothing about when it was signed"
    return None


def placement(order: VenueOrder, capabilities: Capabilities) -> dict[str, Any]:
    """Return the parameters of a placement."""
    wire = capabilities.wire
    parameters: dict[str, Any] = {"clientOrderId": order.client_order_id, **wire.place_fields}
    if wire.quantity_field:
        parameters[wire.quantity_field] = order.quantity
    if wire.price_field and order.price is not None:
        parameters[wire.price_field] = order.price
    if order.kind is OrderKind.POST_ONLY:
        parameters["postOnly"] = True
    if order.kind is OrderKind.LIMIT:
        parameters["timeInForce"] = TIMES_IN_FORCE[order.time_in_force]
    for name, stamp in wire.expiry_fields.items():
        parameters[name] = _stamped(order, stamp)
    return parameters


def _stamped(order: VenueOrder, stamp: Stamp) -> int | str:
    assert order.signed_at is not None
    match stamp:
        case Stamp.SIGNED_AT_MS:
            return to_unix_ms(order.signed_at)
        case Stamp.WINDOW_MS:
            return order.recv_window // _MILLISECOND
        case Stamp.DEADLINE:
            return iso(order.signed_at + order.recv_window)
