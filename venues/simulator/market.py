"""One symbol: its book, its ids, its public trades and its minute bars."""

from collections import deque
from dataclasses import dataclass
from typing import Final

from matching.book import OrderBook
from matching.model import Accepted, Event, NewOrder, Rejected, Side, Traded
from venues.simulator.commands import LevelChanged
from venues.simulator.model import PublicTrade, SymbolSpec

RECENT_TRADES_MAX: Final = 1_000
BARS_MAX: Final = 24 * 60
MINUTE_MS: Final = 60_000


@dataclass(slots=True)
class Bar:
    """Trades of one minute: prices in ticks, volume in lots, value in quote units."""

    open_ms: int
    open_ticks: int
    high_ticks: int
    low_ticks: int
    close_ticks: int
    volume_lots: int
    quote_units: int
    count: int


class Market:
    """A symbol's mutable state. Order and trade ids count from 1 per symbol, as on Binance."""

    def __init__(self, spec: SymbolSpec) -> None:
        self.spec = spec
        self.book = OrderBook()
        self.mid_ticks = spec.mid_ticks
        self.anchor_ticks = spec.mid_ticks
        self.update_id = 0
        self.next_order_id = 1
        self.next_trade_id = 1
        self.trades: deque[PublicTrade] = deque(maxlen=RECENT_TRADES_MAX)
        self.bars: deque[Bar] = deque(maxlen=BARS_MAX)
        self.quotes: dict[tuple[Side, int], int] = {}

    def take_order_id(self) -> int:
        """The next order id of this symbol."""
        order_id = self.next_order_id
        self.next_order_id += 1
        return order_id

    def submit(self, order: NewOrder, at_ms: int) -> tuple[tuple[Event, ...], list[LevelChanged]]:
        """Match an order; what the book said and which levels changed by it."""
        before = {
            maker_id: (maker.side, maker.price_ticks)
            for maker_id in (match.maker_order_id for match in self.book.preview(order))
            if (maker := self.book.find(maker_id)) is not None
        }
        events = self.book.submit(order, self.next_trade_id)
        touched = dict.fromkeys(before.values())
        for event in events:
            if isinstance(event, Traded):
                self.next_trade_id += 1
                self._record(event, at_ms)
        if self.book.find(order.order_id) is not None and order.price_ticks is not None:
            touched[order.side, order.price_ticks] = None
        return events, self._changes(touched)

    def cancel(self, order_id: int) -> tuple[Event, list[LevelChanged]]:
        """Take an order off the book; what the book said and which level changed."""
        order = self.book.find(order_id)
        event = self.book.cancel(order_id)
        if order is None:
            return event, []
        return event, self._changes({(order.side, order.price_ticks): None})

    def _changes(self, touched: dict[tuple[Side, int], None]) -> list[LevelChanged]:
        changes = []
        for side, price in touched:
            self.update_id += 1
            lots = self.book.quantity_at(side, price)
            changes.append(LevelChanged(self.spec.name, side, price, lots, self.update_id))
        return changes

    def _record(self, event: Traded, at_ms: int) -> None:
        self.trades.append(
            PublicTrade(
                symbol=self.spec.name,
                trade_id=event.trade_id,
                price_ticks=event.price_ticks,
                quantity_lots=event.quantity_lots,
                buyer_is_maker=event.taker_side is Side.SELL,
                at_ms=at_ms,
            )
        )
        open_ms = at_ms - at_ms % MINUTE_MS
        price, lots = event.price_ticks, event.quantity_lots
        if not self.bars or self.bars[-1].open_ms < open_ms:
            self.bars.append(Bar(open_ms, price, price, price, price, 0, 0, 0))
        bar = self.bars[-1]
        bar.high_ticks = max(bar.high_ticks, price)
        bar.low_ticks = min(bar.low_ticks, price)
        bar.close_ticks = price
        bar.volume_lots += lots
        bar.quote_units += self.spec.notional_units(price, lots)
        bar.count += 1


def is_refused(events: tuple[Event, ...]) -> bool:
    """Whether the book refused the order these events answer."""
    assert isinstance(events[0], Accepted | Rejected)
    return isinstance(events[0], Rejected)
