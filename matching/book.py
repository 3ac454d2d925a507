"""The order book: submit, cancel, preview.

Rules: better price first, then earlier arrival; a trade happens at the maker's price; a partial
fill keeps the maker's place; after every command the best bid is below the best ask. A command
either is rejected and changes nothing, or is accepted and its events say all that changed.
"""

from collections.abc import Iterator

from matching.model import (
    Accepted,
    Cancelled,
    Event,
    Expired,
    ExpireReason,
    Level,
    Match,
    NewOrder,
    Rejected,
    RejectReason,
    RestingOrder,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Traded,
)
from matching.side import BookSide


class OrderBook:
    """Bids and asks of one instrument. Mutable, deterministic, single-threaded."""

    def __init__(self) -> None:
        self._sides = {Side.BUY: BookSide(Side.BUY), Side.SELL: BookSide(Side.SELL)}
        self._resting: dict[int, RestingOrder] = {}

    def best_ticks(self, side: Side) -> int | None:
        """The best price of a side, or None when it is empty."""
        return self._sides[side].best_ticks

    def depth(self, side: Side, levels_max: int | None = None) -> tuple[Level, ...]:
        """Aggregated levels of a side from the best outwards."""
        return self._sides[side].depth(levels_max)

    def quantity_at(self, side: Side, price_ticks: int) -> int:
        """Lots resting at one price of a side; 0 when there are none."""
        return self._sides[side].quantity_at(price_ticks)

    def find(self, order_id: int) -> RestingOrder | None:
        """The resting order of this id, or None."""
        return self._resting.get(order_id)

    def orders(self, side: Side) -> tuple[RestingOrder, ...]:
        """Resting orders of a side in priority order."""
        return tuple(self._sides[side].orders())

    def preview(self, order: NewOrder) -> tuple[Match, ...]:
        """The fills `submit` would give this order now, without changing anything.

        For the caller who must know the cost of a market order before it accepts one. Empty for
        an order that would be rejected or that would only rest.
        """
        if self._refusal(order) is not None:
            return ()
        matches = tuple(self._walk(order))
        filled = sum(match.quantity_lots for match in matches)
        if order.time_in_force is TimeInForce.FOK and filled < order.quantity_lots:
            return ()
        return matches

    def submit(self, order: NewOrder, first_trade_id: int) -> tuple[Event, ...]:
        """Match an order and rest what may rest.

        Trades get the ids `first_trade_id`, `first_trade_id + 1`, ... The first event is
        `Accepted` or `Rejected`; a rejected order changed nothing.
        """
        refusal = self._refusal(order)
        if refusal is not None:
            return (Rejected(order.order_id, refusal),)
        accepted = Accepted(order.order_id)
        if order.time_in_force is TimeInForce.FOK and not self._fillable_whole(order):
            killed = Expired(order.order_id, order.quantity_lots, ExpireReason.NOT_FILLABLE_WHOLE)
            return (accepted, killed)
        events, remaining, ended = self._match(order, first_trade_id)
        return (accepted, *events, *self._finish(order, remaining, ended=ended))

    def cancel(self, order_id: int) -> Cancelled | Rejected:
        """Take a resting order off the book."""
        order = self._resting.get(order_id)
        if order is None:
            return Rejected(order_id, RejectReason.ORDER_NOT_RESTING)
        self._remove(order)
        return Cancelled(order_id, order.remaining_lots)

    def _refusal(self, order: NewOrder) -> RejectReason | None:
        if order.order_id in self._resting:
            return RejectReason.ORDER_ID_ALREADY_RESTING
        if order.quantity_lots <= 0:
            return RejectReason.QUANTITY_NOT_POSITIVE
        if order.price_ticks is not None and order.price_ticks <= 0:
            return RejectReason.PRICE_NOT_POSITIVE
        rests = order.time_in_force is TimeInForce.GTC
        if order.post_only and (order.price_ticks is None or not rests):
            return RejectReason.POST_ONLY_MUST_REST
        if order.price_ticks is None and rests:
            return RejectReason.MARKET_ORDER_MUST_NOT_REST
        if order.post_only and self._crosses(order, self.best_ticks(order.side.opposite)):
            return RejectReason.POST_ONLY_WOULD_TRADE
        return None

    @staticmethod
    def _crosses(order: NewOrder, price_ticks: int | None) -> bool:
        if price_ticks is None:
            return False
        if order.price_ticks is None:
            return True
        if order.side is Side.BUY:
            return price_ticks <= order.price_ticks
        return price_ticks >= order.price_ticks

    @staticmethod
    def _is_self_trade(order: NewOrder, maker: RestingOrder) -> bool:
        prevented = order.self_trade_prevention is not SelfTradePrevention.NONE
        return prevented and maker.owner == order.owner

    def _walk(self, order: NewOrder) -> Iterator[Match]:
        remaining = order.quantity_lots
        for maker in self._sides[order.side.opposite].orders():
            if remaining == 0 or not self._crosses(order, maker.price_ticks):
                return
            if self._is_self_trade(order, maker):
                if order.self_trade_prevention is SelfTradePrevention.EXPIRE_MAKER:
                    continue
                return
            quantity = min(remaining, maker.remaining_lots)
            remaining -= quantity
            yield Match(maker.order_id, maker.owner, maker.price_ticks, quantity)

    def _fillable_whole(self, order: NewOrder) -> bool:
        return sum(match.quantity_lots for match in self._walk(order)) == order.quantity_lots

    def _best_maker(self, order: NewOrder) -> RestingOrder | None:
        maker = next(self._sides[order.side.opposite].orders(), None)
        if maker is None or not self._crosses(order, maker.price_ticks):
            return None
        return maker

    def _match(self, order: NewOrder, first_trade_id: int) -> tuple[list[Event], int, bool]:
        """Trade against the other side: events, lots left, and whether a self-trade ended it."""
        events: list[Event] = []
        remaining = order.quantity_lots
        trade_id = first_trade_id
        while remaining and (maker := self._best_maker(order)) is not None:
            if self._is_self_trade(order, maker):
                events += self._prevent_self_trade(order, maker)
                if order.self_trade_prevention is not SelfTradePrevention.EXPIRE_MAKER:
                    return events, remaining, True
                continue
            quantity = min(remaining, maker.remaining_lots)
            remaining -= quantity
            events.append(self._trade(order, maker, trade_id, quantity, remaining))
            trade_id += 1
        return events, remaining, False

    def _prevent_self_trade(self, order: NewOrder, maker: RestingOrder) -> list[Event]:
        if order.self_trade_prevention is SelfTradePrevention.EXPIRE_TAKER:
            return []
        self._remove(maker)
        return [Expired(maker.order_id, maker.remaining_lots, ExpireReason.SELF_TRADE)]

    def _trade(
        self, order: NewOrder, maker: RestingOrder, trade_id: int, quantity: int, remaining: int
    ) -> Traded:
        rest = self._sides[maker.side].reduce(maker, quantity)
        if rest is None:
            del self._resting[maker.order_id]
        else:
            self._resting[maker.order_id] = rest
        return Traded(
            trade_id=trade_id,
            maker_order_id=maker.order_id,
            taker_order_id=order.order_id,
            taker_side=order.side,
            price_ticks=maker.price_ticks,
            quantity_lots=quantity,
            maker_remaining_lots=0 if rest is None else rest.remaining_lots,
            taker_remaining_lots=remaining,
        )

    def _finish(self, order: NewOrder, remaining: int, *, ended: bool) -> tuple[Event, ...]:
        if remaining == 0:
            return ()
        if ended:
            return (Expired(order.order_id, remaining, ExpireReason.SELF_TRADE),)
        if order.price_ticks is None or order.time_in_force is not TimeInForce.GTC:
            return (Expired(order.order_id, remaining, ExpireReason.NOT_FILLED_AT_ONCE),)
        price = order.price_ticks
        rest = RestingOrder(order.order_id, order.owner, order.side, price, remaining)
        self._resting[rest.order_id] = rest
        self._sides[rest.side].append(rest)
        return ()

    def _remove(self, order: RestingOrder) -> None:
        del self._resting[order.order_id]
        self._sides[order.side].remove(order)
