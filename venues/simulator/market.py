"""One symbol: its book, its ids, its public trades and its minute bars."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from matching.book import OrderBook
from matching.model import Decremented, Event, Expired, Level, NewOrder, Side, Traded
from venues.simulator.commands import LevelChanged
from venues.simulator.model import PublicTrade, SymbolSpec

RECENT_TRADES_MAX: Final = 1_000
BARS_MAX: Final = 7 * 24 * 60
MINUTE_MS: Final = 60_000

Outcome = tuple[tuple[Event, ...], list[PublicTrade], list[LevelChanged]]
PriceOf = Callable[[int], int]


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
    taker_buy_lots: int = 0
    taker_buy_quote_units: int = 0


class Market:
    """A symbol's mutable state. Order and trade ids count from 1 per symbol, as on some venues."""

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
        self.waiting: dict[int, None] = {}
        self.last_ticks: int | None = None

    @property
    def reference_ticks(self) -> int:
        """The last trade's price, or the mid before the first trade."""
        return self.mid_ticks if self.last_ticks is None else self.last_ticks

    def take_order_id(self) -> int:
        """The next order id of this symbol."""
        order_id = self.next_order_id
        self.next_order_id += 1
        return order_id

    def submit(self, order: NewOrder, at_ms: int, price_of: PriceOf) -> Outcome:
        """Match an order; what the book said and which levels changed by it."""
        events = self.book.submit(order, self.next_trade_id)
        return self._outcome(events, order, at_ms, price_of, {})

    def amend(
        self, order: NewOrder, old_price_ticks: int, at_ms: int, price_of: PriceOf
    ) -> Outcome:
        """Give a resting order the price and the remaining quantity that `order` has."""
        assert order.price_ticks is not None
        events = self.book.replace(
            order.order_id,
            order.quantity_lots,
            order.price_ticks,
            self.next_trade_id,
            order.display_lots,
        )
        touched = {(order.side, old_price_ticks): None}
        return self._outcome(events, order, at_ms, price_of, touched)

    def cancel(self, order_id: int) -> Outcome:
        """Take an order off the book; what the book said and which level changed."""
        order = self.book.find(order_id)
        event = self.book.cancel(order_id)
        if order is None:
            return (event,), [], []
        return (event,), [], self._changes({(order.side, order.price_ticks): None})

    def trade(self, traded: Traded, at_ms: int) -> PublicTrade:
        """Record a trade that no book made."""
        self.next_trade_id += 1
        return self._record(traded, at_ms, is_market=False)

    def depth(self, side: Side, levels_max: int | None = None) -> tuple[Level, ...]:
        """Levels of a side as everybody sees them: without the hidden part of icebergs."""
        return self.book.depth(side, levels_max)

    def visible_at(self, side: Side, price_ticks: int) -> int:
        """Lots at a price as everybody sees them."""
        return self.book.quantity_at(side, price_ticks)

    def _outcome(
        self,
        events: tuple[Event, ...],
        order: NewOrder,
        at_ms: int,
        price_of: PriceOf,
        touched: dict[tuple[Side, int], None],
    ) -> Outcome:
        trades: list[PublicTrade] = []
        for event in events:
            match event:
                case Traded():
                    self.next_trade_id += 1
                    is_market = order.price_ticks is None
                    trades.append(self._record(event, at_ms, is_market=is_market))
                    touched[order.side.opposite, event.price_ticks] = None
                case Expired() if event.order_id != order.order_id:
                    touched[order.side.opposite, price_of(event.order_id)] = None
                case Decremented():
                    touched[order.side.opposite, price_of(event.maker_order_id)] = None
                case _:
                    pass
        if order.price_ticks is not None and self.book.find(order.order_id) is not None:
            touched[order.side, order.price_ticks] = None
        return events, trades, self._changes(touched)

    def _changes(self, touched: dict[tuple[Side, int], None]) -> list[LevelChanged]:
        changes = []
        for side, price in touched:
            self.update_id += 1
            lots = self.visible_at(side, price)
            changes.append(LevelChanged(self.spec.name, side, price, lots, self.update_id))
        return changes

    def _record(self, event: Traded, at_ms: int, *, is_market: bool) -> PublicTrade:
        self.last_ticks = event.price_ticks
        trade = PublicTrade(
            symbol=self.spec.name,
            trade_id=event.trade_id,
            price_ticks=event.price_ticks,
            quantity_lots=event.quantity_lots,
            buyer_is_maker=event.taker_side is Side.SELL,
            at_ms=at_ms,
            taker_order_id=event.taker_order_id,
            taker_is_market=is_market,
        )
        self.trades.append(trade)
        open_ms = at_ms - at_ms % MINUTE_MS
        price, lots = event.price_ticks, event.quantity_lots
        if not self.bars or self.bars[-1].open_ms < open_ms:
            self.bars.append(Bar(open_ms, price, price, price, price, 0, 0, 0))
        bar = self.bars[-1]
        bar.high_ticks = max(bar.high_ticks, price)
        bar.low_ticks = min(bar.low_ticks, price)
        bar.close_ticks = price
        bar.volume_lots += lots
        quote_units = self.spec.notional_units(price, lots)
        bar.quote_units += quote_units
        bar.count += 1
        if event.taker_side is Side.BUY:
            bar.taker_buy_lots += lots
            bar.taker_buy_quote_units += quote_units
        return trade
