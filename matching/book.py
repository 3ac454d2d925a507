"""The order book: submit, cancel, replace, preview.

Rules: better price first, then earlier arrival; a trade happens at the maker's price; a partial
fill keeps the maker's place, but what an iceberg shows next enters behind all others at its price;
after every command the best bid is below the best ask. A command either is rejected and changes
nothing, or is accepted and its events say all that changed.
"""

from typing import Final

from matching.model import (
    Accepted,
    Cancelled,
    Decremented,
    Event,
    Expired,
    ExpireReason,
    Level,
    Match,
    NewOrder,
    Rejected,
    RejectReason,
    Replaced,
    RestingOrder,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Traded,
)
from matching.side import BookSide, Maker, resting_order

# Members looked up once: reading one through its enum costs as much as making an event.
BUY: Final = Side.BUY
GTC: Final = TimeInForce.GTC
FOK: Final = TimeInForce.FOK
NO_PREVENTION: Final = SelfTradePrevention.NONE
EXPIRE_MAKER: Final = SelfTradePrevention.EXPIRE_MAKER
EXPIRE_TAKER: Final = SelfTradePrevention.EXPIRE_TAKER
EXPIRE_BOTH: Final = SelfTradePrevention.EXPIRE_BOTH
DECREMENT: Final = SelfTradePrevention.DECREMENT


class OrderBook:
    """Bids and asks of one instrument. Mutable, deterministic, single-threaded."""

    __slots__ = ("_asks", "_bids", "_resting")

    def __init__(self) -> None:
        self._bids = BookSide(Side.BUY)
        self._asks = BookSide(Side.SELL)
        self._resting: dict[int, Maker] = {}

    def best_ticks(self, side: Side) -> int | None:
        """The best price of a side, or None when it is empty."""
        return self._side(side).best_ticks

    def depth(self, side: Side, levels_max: int | None = None) -> tuple[Level, ...]:
        """Aggregated levels of a side from the best outwards, without what icebergs hide."""
        return self._side(side).depth(levels_max)

    def quantity_at(self, side: Side, price_ticks: int) -> int:
        """Lots resting in sight at one price of a side; 0 when there are none."""
        return self._side(side).quantity_at(price_ticks)

    def find(self, order_id: int) -> RestingOrder | None:
        """The resting order of this id, or None."""
        maker = self._resting.get(order_id)
        return None if maker is None else resting_order(maker)

    def orders(self, side: Side) -> tuple[RestingOrder, ...]:
        """Resting orders of a side in priority order."""
        return tuple([resting_order(maker) for maker in self._side(side).makers()])

    def preview(self, order: NewOrder) -> tuple[Match, ...]:
        """The fills `submit` would give this order now, without changing anything.

        For the caller who must know the cost of a market order before it accepts one. Empty for
        an order that would be rejected or that would only rest.
        """
        if order.order_id in self._resting or self._refusal(order) is not None:
            return ()
        matches = self._matches(order)
        if order.time_in_force is FOK and not _fills_whole(order, matches):
            return ()
        return tuple(matches)

    def submit(self, order: NewOrder, first_trade_id: int) -> tuple[Event, ...]:
        """Match an order and rest what may rest.

        Trades get the ids `first_trade_id`, `first_trade_id + 1`, ... The first event is
        `Accepted` or `Rejected`; a rejected order changed nothing.
        """
        order_id = order.order_id
        if order_id in self._resting:
            return (Rejected(order_id, RejectReason.ORDER_ID_ALREADY_RESTING),)
        refusal = self._refusal(order)
        if refusal is not None:
            return (Rejected(order_id, refusal),)
        if self._rests_at_once(order):
            return (Accepted(order_id),)
        events: list[Event] = [Accepted(order_id)]
        self._enter(order, first_trade_id, events)
        return tuple(events)

    def cancel(self, order_id: int) -> Cancelled | Rejected:
        """Take a resting order off the book."""
        maker = self._resting.pop(order_id, None)
        if maker is None:
            return Rejected(order_id, RejectReason.ORDER_NOT_RESTING)
        side = self._bids if maker.order.side is BUY else self._asks
        side.remove(maker)
        return Cancelled(order_id, maker.shown_lots + maker.hidden_lots)

    def restore(self, order: RestingOrder) -> None:
        """Put an order back as `orders` told of it; those of a book in the order it told them."""
        sent = NewOrder(
            order.order_id,
            order.owner,
            order.side,
            order.remaining_lots,
            order.price_ticks,
            GTC,
            order.post_only,
            order.self_trade_prevention,
            order.display_lots,
        )
        shown = order.remaining_lots - order.hidden_lots
        maker = self._side(order.side).append(sent, order.price_ticks, shown)
        maker.hidden_lots = order.hidden_lots
        self._resting[order.order_id] = maker

    def replace(
        self,
        order_id: int,
        quantity_lots: int,
        price_ticks: int,
        first_trade_id: int,
        display_lots: int | None = None,
    ) -> tuple[Event, ...]:
        """Give a resting order another price, another quantity, or both.

        It keeps its place in the queue when only the quantity shrinks, or nothing changes; what an
        iceberg hides is taken first. Else it leaves the book and enters again as a new arrival, which may trade, with the post-only flag
        and the prevention of self-trades it was sent with. The first event is `Replaced` or
        `Rejected`; a rejected command left the order as and where it was.

        Args:
            order_id: of the resting order; it stays its id.
            quantity_lots: what shall be left of the order now; what it has traded is not counted.
            price_ticks: its new price, or the one it has.
            first_trade_id: as in `submit`.
            display_lots: what it shows at a time, or None for what it has; another one makes it
                enter again.
        """
        maker = self._resting.get(order_id)
        if maker is None:
            return (Rejected(order_id, RejectReason.ORDER_NOT_RESTING),)
        order = maker.order
        display = order.display_lots if display_lots is None else display_lots
        less = maker.shown_lots + maker.hidden_lots - quantity_lots
        is_same = price_ticks == order.price_ticks and display == order.display_lots
        if is_same and less >= 0 and quantity_lots > 0:
            _shrink(maker, less)
            return (Replaced(order_id, price_ticks, quantity_lots, kept_priority=True),)
        renewed = _renewed(order, quantity_lots, price_ticks, display)
        refusal = self._refusal(renewed)
        if refusal is not None:
            return (Rejected(order_id, refusal),)
        self._remove(maker)
        events: list[Event] = [Replaced(order_id, price_ticks, quantity_lots, kept_priority=False)]
        self._enter(renewed, first_trade_id, events)
        return tuple(events)

    def _side(self, side: Side) -> BookSide:
        return self._bids if side is BUY else self._asks

    def _opposite(self, side: Side) -> BookSide:
        return self._asks if side is BUY else self._bids

    def _refusal(self, order: NewOrder) -> RejectReason | None:
        """Why an order is refused, but for its id: a replaced order keeps the one it has."""
        price = order.price_ticks
        if order.quantity_lots <= 0:
            return RejectReason.QUANTITY_NOT_POSITIVE
        if price is None:
            return _refusal_of_market_order(order)
        if price <= 0:
            return RejectReason.PRICE_NOT_POSITIVE
        if order.post_only:
            if order.time_in_force is not GTC:
                return RejectReason.POST_ONLY_MUST_REST
            if self._crosses(order.side, price):
                return RejectReason.POST_ONLY_WOULD_TRADE
        return None

    def _crosses(self, side: Side, price_ticks: int) -> bool:
        makers = self._opposite(side)
        best = makers.best
        return best is not None and best.key >= makers.worst_key_for(price_ticks)

    def _rests_at_once(self, order: NewOrder) -> bool:
        """Rest an order that meets nobody; the short way, since most orders are such."""
        price = order.price_ticks
        if price is None or order.time_in_force is not GTC:
            return False
        if order.side is BUY:
            side, makers = self._bids, self._asks
        else:
            side, makers = self._asks, self._bids
        best = makers.best
        if best is not None and best.key >= price * makers.sign:
            return False
        self._resting[order.order_id] = side.append(order, price, order.quantity_lots)
        return True

    def _enter(self, order: NewOrder, first_trade_id: int, events: list[Event]) -> None:
        """Match an accepted order; what is left of it rests or expires."""
        force = order.time_in_force
        if force is FOK and not _fills_whole(order, self._matches(order)):
            killed = ExpireReason.NOT_FILLABLE_WHOLE
            events.append(Expired(order.order_id, order.quantity_lots, killed))
            return
        left = self._match(order, first_trade_id, events)
        if not left:
            return
        if force is GTC:
            price = order.price_ticks
            assert price is not None, "a market order must not rest"
            self._resting[order.order_id] = self._side(order.side).append(order, price, left)
        else:
            events.append(Expired(order.order_id, left, ExpireReason.NOT_FILLED_AT_ONCE))

    def _match(self, order: NewOrder, trade_id: int, events: list[Event]) -> int:
        """Trade against the other side; return the lots left that may go on living."""
        order_id, side, left = order.order_id, order.side, order.quantity_lots
        prevents = order.self_trade_prevention is not NO_PREVENTION
        makers = self._asks if side is BUY else self._bids
        worst_key = makers.worst_key_for(order.price_ticks)
        while left:
            queue = makers.best
            if queue is None or queue.key < worst_key:
                break
            maker = queue.first
            assert maker is not None, "a level without orders was left in the book"
            if prevents and maker.order.owner == order.owner:
                left = self._prevent(order, maker, left, events)
                continue
            quantity = maker.shown_lots
            if quantity > left:  # noqa: PLR1730  a call of min() costs more than all of this line
                quantity = left
            left -= quantity
            rest = self._reduce(maker, quantity)
            maker_id, price = maker.order.order_id, queue.price_ticks
            events.append(Traded(trade_id, maker_id, order_id, side, price, quantity, rest, left))
            trade_id += 1
        return left

    def _prevent(self, order: NewOrder, maker: Maker, left: int, events: list[Event]) -> int:
        """End a self-trade before it happens; return what is left of the taker."""
        mode = order.self_trade_prevention
        maker_id = maker.order.order_id
        if mode is DECREMENT:
            quantity = min(left, maker.shown_lots)
            left -= quantity
            rest = self._reduce(maker, quantity)
            events.append(Decremented(maker_id, order.order_id, quantity, rest, left))
            return left
        if mode is EXPIRE_MAKER or mode is EXPIRE_BOTH:
            self._remove(maker)
            gone = maker.shown_lots + maker.hidden_lots
            events.append(Expired(maker_id, gone, ExpireReason.SELF_TRADE))
        if mode is EXPIRE_TAKER or mode is EXPIRE_BOTH:
            events.append(Expired(order.order_id, left, ExpireReason.SELF_TRADE))
            return 0
        return left

    def _matches(self, order: NewOrder) -> list[Match]:
        """The fills an order would get if all of it may be traded."""
        found: list[Match] = []
        makers = self._opposite(order.side)
        worst_key = makers.worst_key_for(order.price_ticks)
        left, mode = order.quantity_lots, order.self_trade_prevention
        for maker, shown in makers.slices():
            if not left or maker.queue.key < worst_key:
                break
            quantity = min(left, shown)
            if mode is not NO_PREVENTION and maker.order.owner == order.owner:
                if mode is EXPIRE_MAKER:
                    continue
                if mode is not DECREMENT:
                    break
            else:
                found.append(_match_of(maker, quantity))
            left -= quantity
        return found

    def _reduce(self, maker: Maker, quantity_lots: int) -> int:
        """Take shown lots off a resting order; return what it has left."""
        rest = maker.shown_lots - quantity_lots
        hidden = maker.hidden_lots
        if rest:
            maker.shown_lots = rest
            maker.queue.quantity_lots -= quantity_lots
        elif hidden:
            self._side(maker.order.side).refill(maker)
        else:
            self._remove(maker)
        return rest + hidden

    def _remove(self, maker: Maker) -> None:
        order = maker.order
        del self._resting[order.order_id]
        side = self._bids if order.side is BUY else self._asks
        side.remove(maker)


def _refusal_of_market_order(order: NewOrder) -> RejectReason | None:
    if order.post_only:
        return RejectReason.POST_ONLY_MUST_REST
    if order.time_in_force is GTC:
        return RejectReason.MARKET_ORDER_MUST_NOT_REST
    return None


def _fills_whole(order: NewOrder, matches: list[Match]) -> bool:
    return sum([match.quantity_lots for match in matches]) == order.quantity_lots


def _shrink(maker: Maker, less_lots: int) -> None:
    """Take lots off a resting order that keeps its place, the hidden ones first."""
    hidden = min(less_lots, maker.hidden_lots)
    maker.hidden_lots -= hidden
    maker.shown_lots -= less_lots - hidden
    maker.queue.quantity_lots -= less_lots - hidden


def _renewed(order: NewOrder, quantity_lots: int, price_ticks: int, display: int) -> NewOrder:
    return NewOrder(
        order.order_id,
        order.owner,
        order.side,
        quantity_lots,
        price_ticks,
        order.time_in_force,
        order.post_only,
        order.self_trade_prevention,
        display,
    )


def _match_of(maker: Maker, quantity_lots: int) -> Match:
    order = maker.order
    return Match(order.order_id, order.owner, maker.queue.price_ticks, quantity_lots)
