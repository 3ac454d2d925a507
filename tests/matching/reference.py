"""The specification of the book, as slowly and plainly as it can be said.

One list of resting orders; every command looks at all of it. It shares nothing with the book but
the vocabulary of commands and events.
"""

from dataclasses import dataclass, field, replace

from matching.model import (
    Accepted,
    Cancelled,
    Decremented,
    Event,
    Expired,
    ExpireReason,
    NewOrder,
    Rejected,
    RejectReason,
    Replaced,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Traded,
)


@dataclass
class Resting:
    """An order as it was sent, with its price of now; of an iceberg `shown` is what others see."""

    order: NewOrder
    price: int
    remaining: int
    arrival: int
    shown: int


@dataclass
class NaiveBook:
    """The resting orders in no particular order, and how many have arrived."""

    resting: list[Resting] = field(default_factory=list)
    arrivals: int = 0

    def in_priority(self, side: Side) -> list[Resting]:
        sign = -1 if side is Side.BUY else 1
        mine = [maker for maker in self.resting if maker.order.side is side]
        return sorted(mine, key=lambda maker: (sign * maker.price, maker.arrival))

    def find(self, order_id: int) -> Resting | None:
        return next((maker for maker in self.resting if maker.order.order_id == order_id), None)

    def submit(self, order: NewOrder, trade_id: int) -> list[Event]:
        reason = RejectReason.ORDER_ID_ALREADY_RESTING
        if self.find(order.order_id) is None:
            malformed = refusal_of(order)
            if malformed is None:
                if order.post_only and self.crossing(order):
                    malformed = RejectReason.POST_ONLY_WOULD_TRADE
                else:
                    return [Accepted(order.order_id), *self.enter(order, trade_id)]
            reason = malformed
        return [Rejected(order.order_id, reason)]

    def cancel(self, order_id: int) -> Event:
        maker = self.find(order_id)
        if maker is None:
            return Rejected(order_id, RejectReason.ORDER_NOT_RESTING)
        self.resting.remove(maker)
        return Cancelled(order_id, maker.remaining)

    def replace(
        self, order_id: int, quantity: int, price: int, trade_id: int, display: int | None = None
    ) -> list[Event]:
        maker = self.find(order_id)
        if maker is None:
            return [Rejected(order_id, RejectReason.ORDER_NOT_RESTING)]
        if quantity <= 0:
            return [Rejected(order_id, RejectReason.QUANTITY_NOT_POSITIVE)]
        if price <= 0:
            return [Rejected(order_id, RejectReason.PRICE_NOT_POSITIVE)]
        display = maker.order.display_lots if display is None else display
        is_same = (price, display) == (maker.price, maker.order.display_lots)
        if is_same and quantity <= maker.remaining:
            maker.remaining = quantity
            maker.shown = min(maker.shown, quantity)
            return [Replaced(order_id, price, quantity, kept_priority=True)]
        order = NewOrder(
            order_id=order_id,
            owner=maker.order.owner,
            side=maker.order.side,
            quantity_lots=quantity,
            price_ticks=price,
            post_only=maker.order.post_only,
            self_trade_prevention=maker.order.self_trade_prevention,
            display_lots=display,
        )
        if order.post_only and self.crossing(order):
            return [Rejected(order_id, RejectReason.POST_ONLY_WOULD_TRADE)]
        self.resting.remove(maker)
        answer = Replaced(order_id, price, quantity, kept_priority=False)
        return [answer, *self.enter(order, trade_id)]

    def crossing(self, order: NewOrder) -> list[Resting]:
        makers = self.in_priority(Side.SELL if order.side is Side.BUY else Side.BUY)
        limit = order.price_ticks
        if limit is None:
            return makers
        if order.side is Side.BUY:
            return [maker for maker in makers if maker.price <= limit]
        return [maker for maker in makers if maker.price >= limit]

    def enter(self, order: NewOrder, trade_id: int) -> list[Event]:
        if order.time_in_force is TimeInForce.FOK:
            # Play it on a copy: killed when that copy does not trade all of it.
            copy = NaiveBook([replace(maker) for maker in self.resting], self.arrivals)
            traded = sum(
                e.quantity_lots for e in copy.trade(order, trade_id)[0] if isinstance(e, Traded)
            )
            if traded < order.quantity_lots:
                reason = ExpireReason.NOT_FILLABLE_WHOLE
                return [Expired(order.order_id, order.quantity_lots, reason)]
        events, left = self.trade(order, trade_id)
        if left and order.time_in_force is TimeInForce.GTC:
            assert order.price_ticks is not None
            self.arrivals += 1
            shown = min(left, order.display_lots) if order.display_lots else left
            self.resting.append(Resting(order, order.price_ticks, left, self.arrivals, shown))
        elif left:
            events.append(Expired(order.order_id, left, ExpireReason.NOT_FILLED_AT_ONCE))
        return events

    def trade(self, order: NewOrder, trade_id: int) -> tuple[list[Event], int]:
        events: list[Event] = []
        left = order.quantity_lots
        while left and (makers := self.crossing(order)):
            maker = makers[0]
            is_own = maker.order.owner == order.owner
            if is_own and order.self_trade_prevention is not SelfTradePrevention.NONE:
                left = self.prevent(order, maker, left, events)
                continue
            quantity = min(left, maker.shown)
            left -= quantity
            self.take(maker, quantity)
            events.append(
                Traded(
                    trade_id=trade_id,
                    maker_order_id=maker.order.order_id,
                    taker_order_id=order.order_id,
                    taker_side=order.side,
                    price_ticks=maker.price,
                    quantity_lots=quantity,
                    maker_remaining_lots=maker.remaining,
                    taker_remaining_lots=left,
                )
            )
            trade_id += 1
        return events, left

    def prevent(self, order: NewOrder, maker: Resting, left: int, events: list[Event]) -> int:
        maker_id, taker_id = maker.order.order_id, order.order_id
        maker_gone = Expired(maker_id, maker.remaining, ExpireReason.SELF_TRADE)
        taker_gone = Expired(taker_id, left, ExpireReason.SELF_TRADE)
        match order.self_trade_prevention:
            case SelfTradePrevention.EXPIRE_MAKER:
                self.resting.remove(maker)
                events.append(maker_gone)
                return left
            case SelfTradePrevention.EXPIRE_TAKER:
                events.append(taker_gone)
                return 0
            case SelfTradePrevention.EXPIRE_BOTH:
                self.resting.remove(maker)
                events += [maker_gone, taker_gone]
                return 0
            case _:
                quantity = min(left, maker.shown)
                self.take(maker, quantity)
                left -= quantity
                events.append(Decremented(maker_id, taker_id, quantity, maker.remaining, left))
                return left

    def take(self, maker: Resting, quantity: int) -> None:
        maker.remaining -= quantity
        maker.shown -= quantity
        if maker.remaining == 0:
            self.resting.remove(maker)
        elif maker.shown == 0:
            maker.shown = min(maker.order.display_lots, maker.remaining)
            self.arrivals += 1
            maker.arrival = self.arrivals


def refusal_of(order: NewOrder) -> RejectReason | None:
    """Why an order makes no sense whatever rests, the first of the reasons in their order."""
    is_market, rests = order.price_ticks is None, order.time_in_force is TimeInForce.GTC
    reasons = {
        RejectReason.QUANTITY_NOT_POSITIVE: order.quantity_lots <= 0,
        RejectReason.PRICE_NOT_POSITIVE: not is_market and (order.price_ticks or 0) <= 0,
        RejectReason.POST_ONLY_MUST_REST: order.post_only and (is_market or not rests),
        RejectReason.MARKET_ORDER_MUST_NOT_REST: is_market and rests,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
