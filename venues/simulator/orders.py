"""Decisions on new orders: what they need, how they enter the book. Pure."""

from collections.abc import Sequence
from typing import Final

from matching.model import (
    Level,
    Match,
    NewOrder,
    SelfTradePrevention,
    Side,
    TimeInForce,
)
from venues.simulator.commands import PlaceOrder
from venues.simulator.model import OrderType, SymbolSpec

PREVENTIONS: Final = {
    "NONE": SelfTradePrevention.NONE,
    "EXPIRE_MAKER": SelfTradePrevention.EXPIRE_MAKER,
    "EXPIRE_TAKER": SelfTradePrevention.EXPIRE_TAKER,
    "EXPIRE_BOTH": SelfTradePrevention.EXPIRE_BOTH,
}


def book_order(command: PlaceOrder, order_id: int) -> NewOrder:
    """The order as the matching core takes it. A market order never rests."""
    is_market = command.type is OrderType.MARKET
    return NewOrder(
        order_id=order_id,
        owner=command.account,
        side=command.side,
        quantity_lots=command.quantity_lots,
        price_ticks=command.price_ticks,
        time_in_force=TimeInForce.IOC if is_market else command.time_in_force,
        post_only=command.type is OrderType.LIMIT_MAKER,
        self_trade_prevention=PREVENTIONS[command.self_trade_prevention],
    )


def funds_needed(
    command: PlaceOrder, spec: SymbolSpec, matches: Sequence[Match]
) -> tuple[str, int]:
    """The asset and units an order must have free: all it may spend, commission excluded.

    A limit order needs its full price times quantity, a market order what it would trade for now.
    """
    if command.side is Side.SELL:
        return spec.base, command.quantity_lots * spec.lot_units
    if command.price_ticks is not None:
        return spec.quote, spec.notional_units(command.price_ticks, command.quantity_lots)
    cost = sum(spec.notional_units(match.price_ticks, match.quantity_lots) for match in matches)
    return spec.quote, cost


def budget_lots(spec: SymbolSpec, levels: Sequence[Level], quote_units: int) -> int:
    """Whole lots that a number of quote units trades for against these levels."""
    lots, left = 0, quote_units
    for level in levels:
        taken = min(level.quantity_lots, left // spec.notional_units(level.price_ticks, 1))
        lots += taken
        left -= spec.notional_units(level.price_ticks, taken)
        if taken < level.quantity_lots:
            break
    return lots
