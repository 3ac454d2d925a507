"""From request parameters to a new order: everything that can be refused without a book. Pure.

The order of the checks is the venue's: parameters first, then the symbol's filters; the exchange
then checks identity, triggers and funds. Source: binance-spot-api-docs, rest-api.md, "New order"
(which parameters each type must have and must not have) and filters.md.
"""

from dataclasses import dataclass
from typing import Final

import msgspec
import orjson

from matching.model import SelfTradePrevention, Side, TimeInForce
from venues.simulator.binance import parameters, symbols
from venues.simulator.binance.parameters import Parameters
from venues.simulator.binance.refusals import ApiError, filter_failure, missing
from venues.simulator.commands import PlaceOrder
from venues.simulator.decimals import units_from_text
from venues.simulator.model import OrderType, SymbolSpec

STRATEGY_TYPE_MIN: Final = 1_000_000
PPM_PER_BIP: Final = 100


@dataclass(frozen=True, slots=True)
class Shape:
    """What an order type needs besides its side."""

    type: OrderType
    has_price: bool = False
    has_time: bool = False
    has_trigger: bool = False
    post_only: bool = False


SHAPES: Final = {
    "LIMIT": Shape(OrderType.LIMIT, has_price=True, has_time=True),
    "LIMIT_MAKER": Shape(OrderType.LIMIT, has_price=True, post_only=True),
    "MARKET": Shape(OrderType.MARKET),
    "STOP_LOSS": Shape(OrderType.STOP_LOSS, has_trigger=True),
    "STOP_LOSS_LIMIT": Shape(
        OrderType.STOP_LOSS_LIMIT, has_price=True, has_time=True, has_trigger=True
    ),
    "TAKE_PROFIT": Shape(OrderType.TAKE_PROFIT, has_trigger=True),
    "TAKE_PROFIT_LIMIT": Shape(
        OrderType.TAKE_PROFIT_LIMIT, has_price=True, has_time=True, has_trigger=True
    ),
}


class Heading(msgspec.Struct, frozen=True):
    """What an order has besides its parameters: whose it is, where, when and under which name."""

    account: str
    spec: SymbolSpec
    at_ms: int
    fallback_id: str


@dataclass(frozen=True, slots=True)
class Leg:
    """Which parameters describe one order: an order of a list has names of its own for them.

    `prefix` is put before a parameter's name (`above` + `Price`); a plain order has none.
    """

    prefix: str = ""
    side: str = "side"
    quantity: str = "quantity"
    client_id: str = "newClientOrderId"

    def name(self, parameter: str) -> str:
        """The request's name of a parameter of this order."""
        if not self.prefix:
            return parameter
        return self.prefix + parameter[0].upper() + parameter[1:]


PLAIN: Final = Leg()


def new_order(heading: Heading, sent: Parameters, leg: Leg = PLAIN) -> PlaceOrder:
    """Read a new order. `quantity_lots` is 0 when a market order is sized in the quote asset.

    Raises:
        ApiError: a parameter is missing, malformed, superfluous or breaks a filter.
        VenueRefusal: a number is malformed.
    """
    spec = heading.spec
    side = parameters.member(sent, leg.side, Side, -1117, "side")
    shape = SHAPES.get(parameters.text(sent, leg.name("type")))
    if shape is None:
        raise ApiError(-1116, "Invalid orderType.")
    client_id = parameters.client_id(sent, leg.client_id, heading.fallback_id)
    time_in_force = _time_in_force(shape, sent, leg)
    price_ticks = _price(spec, sent, leg.name("price"), wanted=shape.has_price)
    trigger_ticks, trailing_ppm = _trigger(spec, shape, sent, leg)
    lots, quote_units = _size(spec, shape, sent, leg)
    display_lots = _display(spec, shape, sent, leg, lots, time_in_force)
    if price_ticks is not None:
        require_notional(spec, price_ticks, lots)
    return PlaceOrder(
        at_ms=heading.at_ms,
        account=heading.account,
        symbol=spec.name,
        client_order_id=client_id,
        side=side,
        type=shape.type,
        time_in_force=time_in_force,
        price_ticks=price_ticks,
        quantity_lots=lots,
        quote_quantity_units=quote_units,
        self_trade_prevention=_prevention(sent),
        post_only=shape.post_only,
        trigger_ticks=trigger_ticks,
        trailing_ppm=trailing_ppm,
        display_lots=display_lots,
        note=_note(sent, leg),
    )


def require_notional(spec: SymbolSpec, price_ticks: int, quantity_lots: int) -> None:
    """Refuse an order below the symbol's smallest notional.

    Raises:
        ApiError: -1013.
    """
    if spec.notional_units(price_ticks, quantity_lots) < spec.min_notional_units:
        raise filter_failure("NOTIONAL")


def quantity_lots(spec: SymbolSpec, name: str, value: str) -> int:
    """A quantity in lots.

    Raises:
        ApiError: -1013 off the grid or out of bounds.
        VenueRefusal: malformed.
    """
    lots, rest = divmod(units_from_text(name, value), spec.lot_units)
    if rest or not 0 < lots <= spec.max_lots:
        raise filter_failure("LOT_SIZE")
    return lots


def _time_in_force(shape: Shape, sent: Parameters, leg: Leg) -> TimeInForce:
    name = leg.name("timeInForce")
    if not shape.has_time:
        if name in sent:
            raise ApiError(-1106, f"Parameter '{name}' sent when not required.")
        return TimeInForce.GTC
    return parameters.member(sent, name, TimeInForce, -1115, "timeInForce")


def _price(spec: SymbolSpec, sent: Parameters, name: str, *, wanted: bool) -> int | None:
    if not wanted:
        if name in sent:
            raise ApiError(-1106, f"Parameter '{name}' sent when not required.")
        return None
    ticks, rest = divmod(units_from_text(name, parameters.text(sent, name)), spec.tick_units)
    if rest or not 0 < ticks <= symbols.PRICE_MAX_TICKS:
        raise filter_failure("PRICE_FILTER")
    return ticks


def _trigger(spec: SymbolSpec, shape: Shape, sent: Parameters, leg: Leg) -> tuple[int | None, int]:
    stop, delta = leg.name("stopPrice"), leg.name("trailingDelta")
    if not shape.has_trigger:
        for name in (stop, delta):
            if name in sent:
                raise ApiError(-1106, f"Parameter '{name}' sent when not required.")
        return None, 0
    if stop not in sent and delta not in sent:
        raise ApiError(
            -1102, f"Param '{stop}' or '{delta}' must be sent, but both were empty/null!"
        )
    bips = parameters.optional_integer(sent, delta, 0)
    if delta in sent and not symbols.TRAILING_DELTA_MIN <= bips <= symbols.TRAILING_DELTA_MAX:
        raise filter_failure("TRAILING_DELTA")
    return _price(spec, sent, stop, wanted=True) if stop in sent else None, bips * PPM_PER_BIP


def _size(spec: SymbolSpec, shape: Shape, sent: Parameters, leg: Leg) -> tuple[int, int]:
    in_quote = leg.name("quoteOrderQty")
    if shape.type is not OrderType.MARKET or in_quote not in sent:
        if in_quote in sent:
            raise ApiError(-1106, f"Parameter '{in_quote}' sent when not required.")
        return quantity_lots(spec, leg.quantity, parameters.text(sent, leg.quantity)), 0
    if leg.quantity in sent:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    if not sent[in_quote]:
        raise missing(in_quote)
    units = units_from_text(in_quote, sent[in_quote])
    if units < spec.min_notional_units:
        raise filter_failure("NOTIONAL")
    return 0, units


def _display(
    spec: SymbolSpec, shape: Shape, sent: Parameters, leg: Leg, lots: int, time: TimeInForce
) -> int:
    name = leg.name("icebergQty")
    if name not in sent:
        return 0
    if not shape.has_price or (time is not TimeInForce.GTC and not shape.post_only):
        raise ApiError(-1014, "Unsupported order combination.")
    display = quantity_lots(spec, name, sent[name])
    if display >= lots:
        raise ApiError(-2010, "IcebergQty exceeds QTY.")
    if -(-lots // display) > symbols.ICEBERG_PARTS_MAX:
        raise filter_failure("ICEBERG_PARTS")
    return display


def _prevention(sent: Parameters) -> SelfTradePrevention:
    mode = sent.get("selfTradePreventionMode", symbols.PREVENTION_DEFAULT)
    if mode not in symbols.PREVENTION_MODES:
        raise ApiError(-1013, "This symbol does not support the self-trade prevention mode.")
    return SelfTradePrevention[mode]


def _note(sent: Parameters, leg: Leg) -> str:
    """What the venue keeps with an order and only gives back: strategy id and type, as JSON."""
    kept: dict[str, int] = {}
    for parameter in ("strategyId", "strategyType"):
        name = leg.name(parameter)
        if name in sent:
            kept[parameter] = parameters.integer(sent, name)
    if kept.get("strategyType", STRATEGY_TYPE_MIN) < STRATEGY_TYPE_MIN:
        raise ApiError(-1134, f"`strategyType` was less than {STRATEGY_TYPE_MIN}.")
    return orjson.dumps(kept).decode() if kept else ""
