"""The book against a naive one: a list of orders, scanned from the start for every trade."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from matching.book import OrderBook
from matching.model import (
    Accepted,
    Cancelled,
    Event,
    Expired,
    ExpireReason,
    NewOrder,
    Rejected,
    RejectReason,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Traded,
)


@dataclass
class NaiveOrder:
    order: NewOrder
    arrival: int
    remaining: int


@dataclass
class NaiveBook:
    """The specification, as slowly and plainly as it can be said."""

    resting: list[NaiveOrder] = field(default_factory=list)
    arrivals: int = 0

    def makers(self, order: NewOrder) -> list[NaiveOrder]:
        def price(maker: NaiveOrder) -> int:
            assert maker.order.price_ticks is not None
            return maker.order.price_ticks

        sign = 1 if order.side is Side.BUY else -1
        crossing = [
            maker
            for maker in self.resting
            if maker.order.side is not order.side
            and (order.price_ticks is None or sign * price(maker) <= sign * order.price_ticks)
        ]
        return sorted(crossing, key=lambda maker: (sign * price(maker), maker.arrival))

    def submit(  # noqa: C901  the specification reads best in one piece
        self, order: NewOrder, trade_id: int
    ) -> list[Event]:
        makers = self.makers(order)
        if order.post_only and makers:
            return [Rejected(order.order_id, RejectReason.POST_ONLY_WOULD_TRADE)]
        mode = order.self_trade_prevention
        events: list[Event] = [Accepted(order.order_id)]
        if order.time_in_force is TimeInForce.FOK:
            available = 0
            for maker in makers:
                if mode is not SelfTradePrevention.NONE and maker.order.owner == order.owner:
                    if mode is SelfTradePrevention.EXPIRE_MAKER:
                        continue
                    break
                available += maker.remaining
            if available < order.quantity_lots:
                reason = ExpireReason.NOT_FILLABLE_WHOLE
                return [*events, Expired(order.order_id, order.quantity_lots, reason)]
        left = order.quantity_lots
        for maker in makers:
            if left == 0:
                break
            own = mode is not SelfTradePrevention.NONE and maker.order.owner == order.owner
            if own and mode is not SelfTradePrevention.EXPIRE_TAKER:
                self.resting.remove(maker)
                maker_id = maker.order.order_id
                events.append(Expired(maker_id, maker.remaining, ExpireReason.SELF_TRADE))
            if own and mode is not SelfTradePrevention.EXPIRE_MAKER:
                return [*events, Expired(order.order_id, left, ExpireReason.SELF_TRADE)]
            if own:
                continue
            quantity = min(left, maker.remaining)
            left -= quantity
            maker.remaining -= quantity
            if maker.remaining == 0:
                self.resting.remove(maker)
            assert maker.order.price_ticks is not None
            events.append(
                Traded(
                    trade_id=trade_id,
                    maker_order_id=maker.order.order_id,
                    taker_order_id=order.order_id,
                    taker_side=order.side,
                    price_ticks=maker.order.price_ticks,
                    quantity_lots=quantity,
                    maker_remaining_lots=maker.remaining,
                    taker_remaining_lots=left,
                )
            )
            trade_id += 1
        if left and order.time_in_force is TimeInForce.GTC:
            self.arrivals += 1
            self.resting.append(NaiveOrder(order, self.arrivals, left))
        elif left:
            events.append(Expired(order.order_id, left, ExpireReason.NOT_FILLED_AT_ONCE))
        return events

    def cancel(self, order_id: int) -> Event:
        for maker in self.resting:
            if maker.order.order_id == order_id:
                self.resting.remove(maker)
                return Cancelled(order_id, maker.remaining)
        return Rejected(order_id, RejectReason.ORDER_NOT_RESTING)


@dataclass(frozen=True)
class Cancel:
    nth: int


@st.composite
def orders(draw: st.DrawFn) -> NewOrder:
    """A valid order without an id; few prices and owners, so that much collides."""
    kind = draw(st.sampled_from(["limit", "market", "ioc", "fok", "post"]))
    tif = {"ioc": TimeInForce.IOC, "market": TimeInForce.IOC, "fok": TimeInForce.FOK}
    return NewOrder(
        order_id=0,
        owner=draw(st.sampled_from("abc")),
        side=draw(st.sampled_from(Side)),
        quantity_lots=draw(st.integers(1, 9)),
        price_ticks=None if kind == "market" else draw(st.integers(98, 102)),
        time_in_force=tif.get(kind, TimeInForce.GTC),
        post_only=kind == "post",
        self_trade_prevention=draw(st.sampled_from(SelfTradePrevention)),
    )


COMMANDS = st.lists(st.one_of(orders(), st.builds(Cancel, st.integers(0, 40))), max_size=40)


def with_id(order: NewOrder, order_id: int) -> NewOrder:
    return NewOrder(
        order_id=order_id,
        owner=order.owner,
        side=order.side,
        quantity_lots=order.quantity_lots,
        price_ticks=order.price_ticks,
        time_in_force=order.time_in_force,
        post_only=order.post_only,
        self_trade_prevention=order.self_trade_prevention,
    )


@settings(deadline=None)
@given(COMMANDS)
def test_every_command_gives_the_events_of_the_naive_book(
    commands: list[NewOrder | Cancel],
) -> None:
    book, naive, trade_id = OrderBook(), NaiveBook(), 1
    for position, command in enumerate(commands):
        if isinstance(command, Cancel):
            assert book.cancel(command.nth) == naive.cancel(command.nth)
            continue
        order = with_id(command, position)
        expected = naive.submit(order, trade_id)
        previewed = [
            (match.maker_order_id, match.price_ticks, match.quantity_lots)
            for match in book.preview(order)
        ]

        events = book.submit(order, trade_id)

        assert list(events) == expected
        trades = [event for event in events if isinstance(event, Traded)]
        assert previewed == [(t.maker_order_id, t.price_ticks, t.quantity_lots) for t in trades]
        trade_id += len(trades)


@settings(deadline=None)
@given(COMMANDS)
def test_quantity_is_conserved_and_the_book_is_never_crossed(
    commands: list[NewOrder | Cancel],
) -> None:
    book, trade_id = OrderBook(), 1
    accepted: dict[int, int] = {}
    gone: dict[int, int] = {}
    for position, command in enumerate(commands):
        if isinstance(command, Cancel):
            events: tuple[Event, ...] = (book.cancel(command.nth),)
        else:
            order = with_id(command, position)
            events = book.submit(order, trade_id)
            if isinstance(events[0], Accepted):
                accepted[position] = order.quantity_lots
        for event in events:
            if isinstance(event, Traded):
                trade_id += 1
                for order_id in (event.maker_order_id, event.taker_order_id):
                    gone[order_id] = gone.get(order_id, 0) + event.quantity_lots
            elif isinstance(event, Cancelled | Expired):
                gone[event.order_id] = gone.get(event.order_id, 0) + event.remaining_lots

        bid, ask = book.best_ticks(Side.BUY), book.best_ticks(Side.SELL)
        assert bid is None or ask is None or bid < ask
        resting = {o.order_id: o.remaining_lots for side in Side for o in book.orders(side)}
        assert accepted == {
            order_id: gone.get(order_id, 0) + resting.get(order_id, 0) for order_id in accepted
        }
        for side in Side:
            lots = sum(order.remaining_lots for order in book.orders(side))
            assert lots == sum(level.quantity_lots for level in book.depth(side))
            assert all(order.remaining_lots > 0 for order in book.orders(side))
