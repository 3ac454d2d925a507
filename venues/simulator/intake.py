"""From request parameters to commands: everything that can be refused without looking at a book.

Pure. The order of the checks is the venue's: parameters first, then the symbol's filters; the
exchange then checks identity and funds.
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeVar

from matching.model import Side, TimeInForce
from venues.simulator.auth import integer
from venues.simulator.commands import PlaceOrder, RequestWithdrawal
from venues.simulator.decimals import units_from_text
from venues.simulator.errors import (
    VenueRefusal,
    filter_failure,
    illegal_characters,
    missing,
    no_such_order,
)
from venues.simulator.market import Market
from venues.simulator.model import Order, OrderType, SymbolSpec
from venues.simulator.orders import PREVENTIONS
from venues.simulator.state import VenueState

_CLIENT_ID_LEGAL: Final = r"^[\.A-Z\:/a-z0-9_-]{1,36}$"
_CLIENT_ID: Final = re.compile(_CLIENT_ID_LEGAL)
_PRICE_MAX_TICKS: Final = 10**12

Parameters = Mapping[str, str]
_E = TypeVar("_E", bound=Enum)


def market_of(state: VenueState, sent: Parameters) -> Market:
    """The market a request names.

    Raises:
        VenueRefusal: -1102 or -1121.
    """
    name = text(sent, "symbol")
    market = state.markets.get(name)
    if market is None:
        raise VenueRefusal(-1121, "Invalid symbol.")
    return market


def text(sent: Parameters, name: str) -> str:
    """A mandatory text.

    Raises:
        VenueRefusal: -1102 when it is absent or empty.
    """
    value = sent.get(name, "")
    if not value:
        raise missing(name)
    return value


def optional_integer(sent: Parameters, name: str, default: int) -> int:
    """A whole number, or the default when it is absent."""
    return integer(sent, name) if name in sent else default


def place_order(
    account: str, spec: SymbolSpec, sent: Parameters, *, at_ms: int, fallback_client_id: str
) -> PlaceOrder:
    """Read a new order. `quantity_lots` is 0 when a market order is sized in quote asset.

    Raises:
        VenueRefusal: a parameter is missing, malformed or breaks a filter.
    """
    side = _choice(sent, "side", Side, VenueRefusal(-1117, "Invalid side."))
    kind = _choice(sent, "type", OrderType, VenueRefusal(-1116, "Invalid orderType."))
    client_order_id = sent.get("newClientOrderId", fallback_client_id)
    if _CLIENT_ID.fullmatch(client_order_id) is None:
        raise illegal_characters("newClientOrderId", _CLIENT_ID_LEGAL)
    prevention = sent.get("selfTradePreventionMode", "EXPIRE_MAKER")
    if prevention not in PREVENTIONS:
        raise VenueRefusal(-1013, "This symbol does not support the self-trade prevention mode.")
    price_ticks = None if kind is OrderType.MARKET else _price(spec, sent)
    quantity_lots, quote_units = _size(spec, kind, sent)
    if price_ticks is not None:
        require_notional(spec, price_ticks, quantity_lots)
    return PlaceOrder(
        at_ms=at_ms,
        account=account,
        symbol=spec.name,
        client_order_id=client_order_id,
        side=side,
        type=kind,
        time_in_force=_time_in_force(kind, sent),
        price_ticks=price_ticks,
        quantity_lots=quantity_lots,
        quote_quantity_units=quote_units,
        self_trade_prevention=prevention,
    )


def require_notional(spec: SymbolSpec, price_ticks: int, quantity_lots: int) -> None:
    """Refuse an order below the symbol's smallest notional.

    Raises:
        VenueRefusal: -1013.
    """
    if spec.notional_units(price_ticks, quantity_lots) < spec.min_notional_units:
        raise filter_failure("NOTIONAL")


def order_asked_for(state: VenueState, account: str, market: Market, sent: Parameters) -> Order:
    """The order a request names by `orderId` or, without one, by `origClientOrderId`.

    Raises:
        VenueRefusal: -1102 when it names none, -2013 when there is no such order.
    """
    symbol = market.spec.name
    if "orderId" in sent:
        order = state.find_order(account, symbol, integer(sent, "orderId"))
    elif sent.get("origClientOrderId"):
        order = state.find_by_client_id(account, symbol, sent["origClientOrderId"])
    else:
        raise VenueRefusal(
            -1102,
            "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!",
        )
    if order is None:
        raise no_such_order()
    return order


def withdrawal(account: str, sent: Parameters, *, at_ms: int) -> RequestWithdrawal:
    """Read a withdrawal request.

    Raises:
        VenueRefusal: a parameter is missing or malformed.
    """
    return RequestWithdrawal(
        at_ms=at_ms,
        account=account,
        asset=text(sent, "coin"),
        network=sent.get("network", ""),
        address=text(sent, "address"),
        tag_text=sent.get("addressTag", ""),
        amount_units=units_from_text("amount", text(sent, "amount")),
        client_id=sent.get("withdrawOrderId", ""),
    )


def _choice(sent: Parameters, name: str, kind: type[_E], refusal: VenueRefusal) -> _E:
    value = text(sent, name)
    try:
        return kind[value]
    except KeyError:
        raise refusal from None


def _time_in_force(kind: OrderType, sent: Parameters) -> TimeInForce:
    if kind is not OrderType.LIMIT:
        if "timeInForce" in sent:
            raise VenueRefusal(-1106, "Parameter 'timeInForce' sent when not required.")
        return TimeInForce.GTC
    value = text(sent, "timeInForce")
    if value not in TimeInForce.__members__:
        raise VenueRefusal(-1115, "Invalid timeInForce.")
    return TimeInForce[value]


def _price(spec: SymbolSpec, sent: Parameters) -> int:
    units = units_from_text("price", text(sent, "price"))
    ticks, rest = divmod(units, spec.tick_units)
    if rest or not 0 < ticks <= _PRICE_MAX_TICKS:
        raise filter_failure("PRICE_FILTER")
    return ticks


def _size(spec: SymbolSpec, kind: OrderType, sent: Parameters) -> tuple[int, int]:
    if kind is OrderType.MARKET and "quantity" not in sent:
        if "quoteOrderQty" not in sent:
            raise missing("quantity")
        units = units_from_text("quoteOrderQty", sent["quoteOrderQty"])
        if units < spec.min_notional_units:
            raise filter_failure("NOTIONAL")
        return 0, units
    units = units_from_text("quantity", text(sent, "quantity"))
    lots, rest = divmod(units, spec.lot_units)
    if rest or not 0 < lots <= spec.max_lots:
        raise filter_failure("LOT_SIZE")
    return lots, 0
