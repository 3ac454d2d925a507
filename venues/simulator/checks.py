"""Whether the venue takes a command: everything that needs the state but no dialect's words."""

from typing import Final

from matching.model import Side, TimeInForce
from venues.simulator import triggers
from venues.simulator.commands import (
    AmendOrder,
    CancelOrder,
    LateFill,
    MirrorLevels,
    MirrorTrade,
    PlaceOrder,
    PlaceOrderList,
)
from venues.simulator.errors import Refusal, VenueRefusal
from venues.simulator.market import Market
from venues.simulator.model import Order, OrderListKind, OrderStatus
from venues.simulator.orders import (
    amended,
    book_order,
    crosses,
    held_units,
    new_order,
    spent_asset,
    units_needed,
)
from venues.simulator.state import VenueState

_MEMBERS: Final = {OrderListKind.OCO: 2, OrderListKind.OTO: 2, OrderListKind.OTOCO: 3}


def check_order(state: VenueState, command: PlaceOrder) -> None:
    """Refuse an order that contradicts itself, is a duplicate, or is not covered.

    Raises:
        VenueRefusal: OFF_GRID, INVALID_ORDER, DUPLICATE_ORDER, WOULD_TAKE, WOULD_TRIGGER or
            INSUFFICIENT_FUNDS.
    """
    order = _check_alone(state, command)
    market = state.markets[command.symbol]
    _require_free(state, order, _needed(order, market))


def check_list(state: VenueState, command: PlaceOrderList) -> None:
    """Refuse a list whose orders cannot all be accepted.

    Raises:
        VenueRefusal: as `check_order`, or INVALID_ORDER for orders that make no list of the kind.
    """
    orders = command.orders
    _require_list(command)
    market = state.markets[command.symbol]
    records = [_check_alone(state, order) for order in orders]
    if command.kind is OrderListKind.OCO:
        larger = max(records, key=lambda order: held_units(order, market.spec))
        _require_free(state, larger, _needed(larger, market))
    else:
        _require_free(state, records[0], _needed(records[0], market))


def check_cancel(state: VenueState, command: CancelOrder) -> None:
    """Refuse to cancel what is not open.

    Raises:
        VenueRefusal: UNKNOWN_ORDER.
    """
    _open_order(state, command.account, command.symbol, command.order_id)


def check_amend(state: VenueState, command: AmendOrder) -> None:
    """Refuse a change that the order, the book or the account's funds do not allow.

    Raises:
        VenueRefusal: UNKNOWN_ORDER, INVALID_AMENDMENT, DUPLICATE_ORDER, WOULD_TAKE or
            INSUFFICIENT_FUNDS.
    """
    order = _open_order(state, command.account, command.symbol, command.order_id)
    if order.order_list_id >= 0:
        raise VenueRefusal(Refusal.INVALID_AMENDMENT, "an order of a list cannot be changed")
    if command.quantity_lots <= order.filled_lots + order.prevented_lots:
        raise VenueRefusal(Refusal.INVALID_AMENDMENT, "the new quantity has been traded already")
    if command.price_ticks is not None and (order.price_ticks is None or command.price_ticks <= 0):
        raise VenueRefusal(Refusal.INVALID_AMENDMENT, "the order has no such limit price")
    if command.trigger_ticks is not None and not order.is_waiting:
        raise VenueRefusal(Refusal.INVALID_AMENDMENT, "the order does not wait for a trigger")
    _require_new_client_id(state, order, command.client_order_id)
    market, changed = state.markets[command.symbol], amended(order, command)
    best = market.book.best_ticks(order.side.opposite)
    is_moved = changed.price_ticks != order.price_ticks
    if (
        changed.post_only
        and order.is_working
        and is_moved
        and crosses(order.side, changed.price_ticks, best)
    ):
        raise VenueRefusal(Refusal.WOULD_TAKE)
    more = held_units(changed, market.spec) - order.locked_units
    if more > 0:
        _require_free(state, order, more)


def check_late_fill(state: VenueState, command: LateFill) -> None:
    """Refuse to fill what was not cancelled, or what the account cannot pay any more.

    Raises:
        VenueRefusal: UNKNOWN_ORDER, INVALID_ORDER or INSUFFICIENT_FUNDS.
    """
    order = state.order(command.symbol, command.order_id)
    if order is None or order.account != command.account:
        raise VenueRefusal(Refusal.UNKNOWN_ORDER)
    if order.status is not OrderStatus.CANCELED or order.price_ticks is None:
        raise VenueRefusal(Refusal.INVALID_ORDER, "only a cancelled limit order is filled late")
    if not 0 < command.quantity_lots <= order.remaining_lots:
        raise VenueRefusal(Refusal.INVALID_ORDER, "the quantity is not what the order has left")
    spec = state.markets[command.symbol].spec
    units = command.quantity_lots * spec.lot_units
    if order.side is Side.BUY:
        units = spec.notional_units(order.price_ticks, command.quantity_lots)
    _require_free(state, order, units)


def check_mirror(state: VenueState, command: MirrorLevels | MirrorTrade) -> None:
    """Refuse what no book can hold.

    Raises:
        VenueRefusal: UNKNOWN_SYMBOL or OFF_GRID.
    """
    if command.symbol not in state.markets:
        raise VenueRefusal(Refusal.UNKNOWN_SYMBOL, f"no symbol {command.symbol}")
    levels = command.levels if isinstance(command, MirrorLevels) else ()
    sizes = [(price, lots) for _, price, lots in levels]
    if isinstance(command, MirrorTrade):
        sizes = [(command.price_ticks, command.quantity_lots - 1)]
    if any(price <= 0 or lots < 0 for price, lots in sizes):
        raise VenueRefusal(Refusal.OFF_GRID, "prices and quantities must be positive")


def _check_alone(state: VenueState, command: PlaceOrder) -> Order:
    market, account = state.markets[command.symbol], state.accounts[command.account]
    _require_consistent(command)
    if command.client_order_id and state.open_order_id(
        command.account, command.symbol, command.client_order_id
    ):
        raise VenueRefusal(Refusal.DUPLICATE_ORDER)
    best = market.book.best_ticks(command.side.opposite)
    if command.post_only and crosses(command.side, command.price_ticks, best):
        raise VenueRefusal(Refusal.WOULD_TAKE)
    if command.type.waits and triggers.would_fire(command, market.reference_ticks):
        raise VenueRefusal(Refusal.WOULD_TRIGGER)
    return new_order(command, market.next_order_id, account.fees)


def _require_consistent(command: PlaceOrder) -> None:
    if command.quantity_lots <= 0 or (command.price_ticks is not None and command.price_ticks <= 0):
        raise VenueRefusal(Refusal.OFF_GRID)
    no_price = command.price_ticks is None and command.limit_offset_ticks is None
    if command.type.has_limit and no_price:
        raise VenueRefusal(Refusal.INVALID_ORDER, "a limit order needs a price")
    trails = command.trailing_ppm > 0 or command.trailing_ticks > 0
    if command.type.waits and command.trigger_ticks is None and not trails:
        raise VenueRefusal(Refusal.INVALID_ORDER, "the order needs a trigger price or a trail")
    if command.post_only and (
        not command.type.has_limit or command.time_in_force is not TimeInForce.GTC
    ):
        raise VenueRefusal(Refusal.INVALID_ORDER, "a post-only order must be a resting limit order")
    if not 0 <= command.display_lots <= command.quantity_lots:
        raise VenueRefusal(Refusal.INVALID_ORDER, "more is displayed than there is")


def _require_list(command: PlaceOrderList) -> None:
    orders = command.orders
    if len(orders) != _MEMBERS[command.kind]:
        raise VenueRefusal(Refusal.INVALID_ORDER, f"{command.kind.value} has another length")
    if any((o.account, o.symbol) != (command.account, command.symbol) for o in orders):
        raise VenueRefusal(Refusal.INVALID_ORDER, "orders of a list share account and symbol")
    names = [order.client_order_id for order in orders if order.client_order_id]
    if len(set(names)) < len(names):
        raise VenueRefusal(Refusal.DUPLICATE_ORDER)
    pair = orders[-2:] if command.kind is not OrderListKind.OTO else ()
    if pair and (
        pair[0].side is not pair[1].side
        or pair[0].quantity_lots != pair[1].quantity_lots
        or not any(order.type.waits for order in pair)
    ):
        raise VenueRefusal(
            Refusal.INVALID_ORDER,
            "two orders that end each other share side and size, and one waits",
        )


def _open_order(state: VenueState, account: str, symbol: str, order_id: int) -> Order:
    order = state.order(symbol, order_id)
    if order is None or order.account != account or not order.status.is_open:
        raise VenueRefusal(Refusal.UNKNOWN_ORDER)
    return order


def _require_new_client_id(state: VenueState, order: Order, client_order_id: str) -> None:
    if not client_order_id or client_order_id == order.client_order_id:
        return
    if state.open_order_id(order.account, order.symbol, client_order_id):
        raise VenueRefusal(Refusal.DUPLICATE_ORDER)


def _needed(order: Order, market: Market) -> int:
    is_limit = order.type.has_limit or order.is_waiting
    matches = () if is_limit else market.book.preview(book_order(order))
    return units_needed(order, market.spec, matches)


def _require_free(state: VenueState, order: Order, units: int) -> None:
    asset = spent_asset(order, state.markets[order.symbol].spec)
    if units > state.accounts[order.account].wallet.free(asset):
        raise VenueRefusal(Refusal.INSUFFICIENT_FUNDS)
