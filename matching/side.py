"""One side of a book: price levels in priority order, orders in arrival order.

    levels:  {price: {order id: resting order, ...}, ...}   dicts keep arrival order
    keys:    sorted list; its last item is always the best price

A bid's key is its price, an ask's key is its negated price, so that the best level of either side
sits at the end of the list, where removing it costs nothing.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import replace

from matching.model import Level, RestingOrder, Side


class BookSide:
    """Resting orders of one side. Mutable; only `OrderBook` writes to it."""

    def __init__(self, side: Side) -> None:
        self._sign = 1 if side is Side.BUY else -1
        self._levels: dict[int, dict[int, RestingOrder]] = {}
        self._quantities: dict[int, int] = {}
        self._keys: list[int] = []

    @property
    def best_ticks(self) -> int | None:
        """The best price, or None when nothing rests."""
        return self._sign * self._keys[-1] if self._keys else None

    def quantity_at(self, price_ticks: int) -> int:
        """Lots resting at a price; 0 when there are none."""
        return self._quantities.get(price_ticks, 0)

    def prices(self) -> Iterator[int]:
        """Prices from the best outwards."""
        return (self._sign * key for key in reversed(self._keys))

    def depth(self, levels_max: int | None = None) -> tuple[Level, ...]:
        """Aggregated levels from the best outwards, all of them when `levels_max` is None."""
        keys = self._keys if levels_max is None else self._keys[-levels_max:] if levels_max else []
        prices = (self._sign * key for key in reversed(keys))
        return tuple(Level(price, self._quantities[price]) for price in prices)

    def orders(self) -> Iterator[RestingOrder]:
        """Orders in priority order: best price first, then earliest arrival."""
        for price in self.prices():
            yield from self._levels[price].values()

    def append(self, order: RestingOrder) -> None:
        """Queue an order behind all others at its price."""
        price = order.price_ticks
        if price not in self._levels:
            insort(self._keys, self._sign * price)
            self._levels[price] = {}
            self._quantities[price] = 0
        self._levels[price][order.order_id] = order
        self._quantities[price] += order.remaining_lots

    def reduce(self, order: RestingOrder, quantity_lots: int) -> RestingOrder | None:
        """Take lots off an order, which keeps its place; None when nothing of it is left."""
        assert 0 < quantity_lots <= order.remaining_lots
        if quantity_lots == order.remaining_lots:
            self.remove(order)
            return None
        rest = replace(order, remaining_lots=order.remaining_lots - quantity_lots)
        self._levels[order.price_ticks][order.order_id] = rest
        self._quantities[order.price_ticks] -= quantity_lots
        return rest

    def remove(self, order: RestingOrder) -> None:
        """Take an order off the book, and its level when it was the last one there."""
        price = order.price_ticks
        level = self._levels[price]
        del level[order.order_id]
        self._quantities[price] -= order.remaining_lots
        if not level:
            del self._levels[price]
            del self._quantities[price]
            del self._keys[bisect_left(self._keys, self._sign * price)]
