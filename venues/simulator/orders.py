"""Decisions on orders: what they need, what they hold, how they enter the book. Pure."""

from collections.abc import Sequence

from msgspec.structs import replace

from matching.model import Match, NewOrder, Side, TimeInForce
from venues.simulator.commands import AmendOrder, PlaceOrder
from venues.simulator.model import (
    PPM,
    FeeIn,
    FeeRates,
    Order,
    OrderStatus,
    SymbolSpec,
)


def new_order(
    command: PlaceOrder, order_id: int, fees: FeeRates, *, list_id: int = -1, pending: bool = False
) -> Order:
    """The record of an order that was just accepted and holds nothing yet."""
    works = not command.type.waits and not pending
    trails = command.trailing_ppm > 0 or command.trailing_ticks > 0
    return Order(
        account=command.account,
        symbol=command.symbol,
        order_id=order_id,
        client_order_id=command.client_order_id,
        side=command.side,
        type=command.type,
        time_in_force=command.time_in_force,
        price_ticks=command.price_ticks,
        quantity_lots=command.quantity_lots,
        quote_quantity_units=command.quote_quantity_units,
        self_trade_prevention=command.self_trade_prevention,
        status=OrderStatus.PENDING_NEW if pending else OrderStatus.NEW,
        filled_lots=0,
        filled_quote_units=0,
        locked_units=0,
        created_ms=command.at_ms,
        updated_ms=command.at_ms,
        post_only=command.post_only,
        trigger_ticks=command.trigger_ticks,
        trailing_ppm=command.trailing_ppm,
        trailing_ticks=command.trailing_ticks,
        limit_offset_ticks=command.limit_offset_ticks,
        stop_ticks=None if trails else command.trigger_ticks,
        expire_ms=command.expire_ms,
        display_lots=command.display_lots,
        fee_in=command.fee_in,
        hold_fee_ppm=_fee_held_ppm(command, fees),
        note=command.note,
        working_ms=command.at_ms if works else 0,
        order_list_id=list_id,
    )


def book_order(order: Order) -> NewOrder:
    """The order as the matching core takes it. A market order never rests."""
    is_market = not order.type.has_limit
    in_force = order.time_in_force
    if is_market and in_force is TimeInForce.GTC:
        in_force = TimeInForce.IOC
    return NewOrder(
        order.order_id,
        order.account,
        order.side,
        order.remaining_lots,
        None if is_market else order.price_ticks,
        in_force,
        order.post_only,
        order.self_trade_prevention,
        order.display_lots,
    )


def amended(order: Order, command: AmendOrder) -> Order:
    """The order as an amendment makes it; funds are the caller's."""
    moved = {} if command.trigger_ticks is None else {"stop_ticks": command.trigger_ticks}
    return replace(
        order,
        quantity_lots=command.quantity_lots,
        price_ticks=order.price_ticks if command.price_ticks is None else command.price_ticks,
        trigger_ticks=order.trigger_ticks
        if command.trigger_ticks is None
        else command.trigger_ticks,
        post_only=order.post_only or command.post_only,
        client_order_id=command.client_order_id or order.client_order_id,
        display_lots=order.display_lots if command.display_lots is None else command.display_lots,
        updated_ms=command.at_ms,
        **moved,
    )


def spent_asset(order: Order, spec: SymbolSpec) -> str:
    """The asset an order spends."""
    return spec.quote if order.side is Side.BUY else spec.base


def held_units(order: Order, spec: SymbolSpec) -> int:
    """What an open order must hold of the asset it spends: all it may still cost.

    A working market order and an order that waits for another one hold nothing. A waiting order
    without a limit price holds its quantity; if it buys, valued at its trigger price, and nothing if
    it has only a trail.
    """
    lots = order.remaining_lots
    if order.status is OrderStatus.PENDING_NEW or not order.status.is_open:
        return 0
    if not order.type.has_limit and not order.is_waiting:
        return 0
    if order.side is Side.SELL:
        units = lots * spec.lot_units
    else:
        price = order.price_ticks or order.trigger_ticks or 0
        units = spec.notional_units(price, lots)
    return units + _fee_up(units, order.hold_fee_ppm)


def units_needed(order: Order, spec: SymbolSpec, matches: Sequence[Match]) -> int:
    """What an order must have free to be accepted; a market order what it would trade for now."""
    if order.type.has_limit or order.is_waiting:
        return held_units(order, spec)
    if order.side is Side.SELL:
        units = order.remaining_lots * spec.lot_units
    else:
        units = sum(spec.notional_units(m.price_ticks, m.quantity_lots) for m in matches)
    return units + _fee_up(units, order.hold_fee_ppm)


def crosses(side: Side, price_ticks: int | None, best_ticks: int | None) -> bool:
    """Whether an order at a price would trade with the best price of the other side."""
    if best_ticks is None:
        return False
    if price_ticks is None:
        return True
    return best_ticks <= price_ticks if side is Side.BUY else best_ticks >= price_ticks


def budget_lots(spec: SymbolSpec, levels: Sequence[Match], quote_units: int) -> int:
    """Whole lots that a number of quote units trades for against these, best first."""
    lots, left = 0, quote_units
    for level in levels:
        whole = spec.notional_units(level.price_ticks, level.quantity_lots)
        if whole <= left:
            lots += level.quantity_lots
            left -= whole
            continue
        return lots + left * level.quantity_lots // whole if whole else lots
    return lots


def _fee_held_ppm(command: PlaceOrder, fees: FeeRates) -> int:
    """The commission rate that is held with the funds: where it is charged in the asset spent."""
    paid = FeeIn.QUOTE if command.side is Side.BUY else FeeIn.BASE
    return max(fees.maker_ppm, fees.taker_ppm) if command.fee_in is paid else 0


def _fee_up(units: int, ppm: int) -> int:
    return -(-units * ppm // PPM)
