"""When a waiting order's trigger is reached, and how a trailing one follows the price. Pure.

The reference is the last trade's price. A stop triggers on the bad side of the price, a take-profit
on the good one. A trail keeps a distance to the best price since it began and triggers when the
price comes back to it; with a trigger price too, it begins when that price is reached.
"""

from msgspec.structs import replace

from matching.model import Side
from venues.simulator.commands import PlaceOrder
from venues.simulator.model import PPM, Order


def trails(order: Order | PlaceOrder) -> bool:
    """Whether the trigger follows the price."""
    return order.trailing_ppm > 0 or order.trailing_ticks > 0


def would_fire(command: PlaceOrder, last_ticks: int) -> bool:
    """Whether a new order's trigger has been passed already."""
    if command.trigger_ticks is None or trails(command):
        return False
    return _reached(command, command.trigger_ticks, last_ticks)


def fires(order: Order, last_ticks: int) -> bool:
    """Whether the order's trigger is reached; a trail that has not begun does not fire."""
    if order.stop_ticks is None:
        return False
    if trails(order):
        if order.side is Side.SELL:
            return last_ticks <= order.stop_ticks
        return last_ticks >= order.stop_ticks
    return _reached(order, order.stop_ticks, last_ticks)


def follow(order: Order, last_ticks: int, at_ms: int) -> Order:
    """The order after the price has moved: the same one unless it trails."""
    if not trails(order):
        return order
    extreme, began_ms = order.extreme_ticks, order.trail_ms
    if not began_ms:
        if order.trigger_ticks is not None and not _reached(order, order.trigger_ticks, last_ticks):
            return order
        extreme, began_ms = last_ticks, at_ms
    sells = order.side is Side.SELL
    extreme = max(extreme, last_ticks) if sells else min(extreme, last_ticks)
    if extreme == order.extreme_ticks and began_ms == order.trail_ms:
        return order
    distance = order.trailing_ticks or extreme * order.trailing_ppm // PPM
    stop = max(1, extreme - distance if sells else extreme + distance)
    return replace(order, extreme_ticks=extreme, trail_ms=began_ms, stop_ticks=stop)


def limit_when_fired(order: Order) -> int | None:
    """The limit price of an order that has fired; None for a market order."""
    if not order.type.has_limit:
        return None
    if order.limit_offset_ticks is None or order.stop_ticks is None:
        return order.price_ticks
    sign = -1 if order.side is Side.SELL else 1
    return max(1, order.stop_ticks + sign * order.limit_offset_ticks)


def _reached(order: Order | PlaceOrder, trigger_ticks: int, last_ticks: int) -> bool:
    falls = order.type.takes_profit is (order.side is Side.BUY)
    return last_ticks <= trigger_ticks if falls else last_ticks >= trigger_ticks
