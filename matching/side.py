"""One side of a book: price levels in priority order, orders in arrival order.

    levels:  {key: level}    best: the level with the greatest key
    keys:    sorted list; its last item is always the best
    level:   first <-> order <-> order <-> last, the earliest arrival first

A bid's key is its price, an ask's key is its negated price: greater is better on either side, and
the best level sits at the end of the list, where adding and removing cost nothing. The list is
touched only when a level appears or disappears. The orders of a level are linked to each other, so
that any of them leaves in constant time; a dict would keep the holes of those that left and walk
over them again and again to find its first.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from typing import Final

from matching.model import Level, NewOrder, RestingOrder, Side


class Queue:
    """The orders at one price. Never empty as long as it is in a book."""

    __slots__ = ("first", "key", "last", "price_ticks", "quantity_lots")

    def __init__(self, key: int, price_ticks: int) -> None:
        self.key = key
        self.price_ticks = price_ticks
        self.quantity_lots = 0
        self.first: Maker | None = None
        self.last: Maker | None = None


class Maker:
    """A resting order and its place. `order` is the command as it was sent.

    `shown_lots` stand in the queue, positive as long as the order rests; `hidden_lots` wait for
    them to trade.
    """

    __slots__ = ("after", "before", "hidden_lots", "order", "queue", "shown_lots")

    order: NewOrder
    shown_lots: int
    hidden_lots: int
    queue: Queue
    before: "Maker | None"
    after: "Maker | None"


class BookSide:
    """Resting orders of one side. Mutable; only `OrderBook` writes to it."""

    __slots__ = ("_keys", "_queues", "best", "sign")

    def __init__(self, side: Side) -> None:
        self.sign: Final = 1 if side is Side.BUY else -1
        self._queues: dict[int, Queue] = {}
        self._keys: list[int] = []
        self.best: Queue | None = None

    @property
    def best_ticks(self) -> int | None:
        """The best price, or None when nothing rests."""
        return None if self.best is None else self.best.price_ticks

    def quantity_at(self, price_ticks: int) -> int:
        """Lots resting in sight at a price; 0 when there are none."""
        queue = self._queues.get(self.sign * price_ticks)
        return 0 if queue is None else queue.quantity_lots

    def depth(self, levels_max: int | None = None) -> tuple[Level, ...]:
        """Aggregated levels from the best outwards, all of them when `levels_max` is None."""
        keys = self._keys if levels_max is None else self._keys[-levels_max:] if levels_max else []
        queues = [self._queues[key] for key in reversed(keys)]
        return tuple([Level(queue.price_ticks, queue.quantity_lots) for queue in queues])

    def makers(self) -> Iterator[Maker]:
        """Resting orders in priority order: best price first, then earliest arrival."""
        for key in reversed(self._keys):
            maker = self._queues[key].first
            while maker is not None:
                yield maker
                maker = maker.after

    def slices(self) -> Iterator[tuple[Maker, int]]:
        """Orders and lots as a taker of all of them would meet them; one order may come again."""
        for key in reversed(self._keys):
            icebergs: deque[tuple[Maker, int]] = deque()
            maker = self._queues[key].first
            while maker is not None:
                yield maker, maker.shown_lots
                if maker.hidden_lots:
                    icebergs.append((maker, maker.hidden_lots))
                maker = maker.after
            while icebergs:
                maker, hidden = icebergs.popleft()
                shown = min(maker.order.display_lots, hidden)
                yield maker, shown
                if hidden > shown:
                    icebergs.append((maker, hidden - shown))

    def worst_key_for(self, price_ticks: int | None) -> int:
        """The worst key that an order from the other side trades with: the last, without a price."""
        if price_ticks is not None:
            return self.sign * price_ticks
        return self._keys[0] if self._keys else 0

    def append(self, order: NewOrder, price_ticks: int, remaining_lots: int) -> Maker:
        """Queue an order behind all others at its price, of an iceberg what it shows."""
        hidden = 0
        if 0 < order.display_lots < remaining_lots:
            hidden = remaining_lots - order.display_lots
            remaining_lots = order.display_lots
        key = self.sign * price_ticks
        queue = self._queues.get(key)
        if queue is None:
            queue = self._opened(key, price_ticks)
        # Without __init__: in Python 3.11 that call costs more than the rest of this function.
        maker = Maker()
        maker.order = order
        maker.shown_lots = remaining_lots
        maker.hidden_lots = hidden
        maker.queue = queue
        maker.after = None
        maker.before = last = queue.last
        if last is None:
            queue.first = maker
        else:
            last.after = maker
        queue.last = maker
        queue.quantity_lots += remaining_lots
        return maker

    def refill(self, maker: Maker) -> None:
        """Show the next lots of an iceberg whose shown ones have traded, behind all others."""
        queue, last = maker.queue, maker.queue.last
        queue.quantity_lots -= maker.shown_lots
        maker.shown_lots = min(maker.order.display_lots, maker.hidden_lots)
        maker.hidden_lots -= maker.shown_lots
        queue.quantity_lots += maker.shown_lots
        if last is None or last is maker:
            return
        before, after = maker.before, maker.after
        assert after is not None, "only the last order of a level has nobody behind it"
        if before is None:
            queue.first = after
        else:
            before.after = after
        after.before = before
        maker.before, maker.after = last, None
        queue.last = last.after = maker

    def remove(self, maker: Maker) -> None:
        """Take an order off the book with what it has left, and its level if it was the last."""
        queue, before, after = maker.queue, maker.before, maker.after
        queue.quantity_lots -= maker.shown_lots
        if before is None:
            queue.first = after
        else:
            before.after = after
        if after is None:
            queue.last = before
        else:
            after.before = before
        if queue.first is None:
            self._close(queue)

    def _opened(self, key: int, price_ticks: int) -> Queue:
        queue = self._queues[key] = Queue(key, price_ticks)
        best = self.best
        if best is None or key > best.key:
            self.best = queue
            self._keys.append(key)
        else:
            insort(self._keys, key)
        return queue

    def _close(self, queue: Queue) -> None:
        keys, queues = self._keys, self._queues
        del queues[queue.key]
        if queue is self.best:
            keys.pop()
            self.best = queues[keys[-1]] if keys else None
        else:
            del keys[bisect_left(keys, queue.key)]


def resting_order(maker: Maker) -> RestingOrder:
    """What is told of a resting order."""
    order = maker.order
    return RestingOrder(
        order.order_id,
        order.owner,
        order.side,
        maker.queue.price_ticks,
        maker.shown_lots + maker.hidden_lots,
        order.post_only,
        order.self_trade_prevention,
        order.display_lots,
        maker.hidden_lots,
    )
