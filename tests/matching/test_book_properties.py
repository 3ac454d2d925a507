"""The book against a naive one over random commands, and what must hold after each of them."""

from collections import Counter
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from matching.book import OrderBook
from matching.model import (
    Accepted,
    Cancelled,
    Decremented,
    Event,
    Expired,
    NewOrder,
    Rejected,
    Replaced,
    RestingOrder,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Traded,
)
from matching.testing import Cancel, Command, Replace, apply, count_trades, mixed_tape
from tests.matching.reference import NaiveBook

FORCES = {"ioc": TimeInForce.IOC, "market": TimeInForce.IOC, "fok": TimeInForce.FOK}
DISPLAYED = st.sampled_from([0, 0, 0, 1, 2, 9])


@st.composite
def orders(draw: st.DrawFn) -> NewOrder:
    """An order whose id its place in the list gives; few prices and owners: much collides."""
    kind = draw(st.sampled_from(["limit", "limit", "market", "ioc", "fok", "post"]))
    return NewOrder(
        order_id=0,
        owner=draw(st.sampled_from("abc")),
        side=draw(st.sampled_from(Side)),
        quantity_lots=draw(st.integers(1, 9)),
        price_ticks=None if kind == "market" else draw(st.integers(98, 102)),
        time_in_force=FORCES.get(kind, TimeInForce.GTC),
        post_only=kind == "post",
        self_trade_prevention=draw(st.sampled_from(SelfTradePrevention)),
        display_lots=draw(DISPLAYED),
    )


@st.composite
def any_orders(draw: st.DrawFn) -> NewOrder:
    """An order that may be malformed in any way."""
    return NewOrder(
        order_id=draw(st.integers(0, 3)),
        owner="a",
        side=draw(st.sampled_from(Side)),
        quantity_lots=draw(st.integers(-1, 2)),
        price_ticks=draw(st.sampled_from([None, -1, 0, 1, 2])),
        time_in_force=draw(st.sampled_from(TimeInForce)),
        post_only=draw(st.booleans()),
    )


class Pick(Struct, frozen=True):
    """A command on the nth order that rests when its turn comes; beyond them, on none.

    Without a quantity it cancels; without a price or a display it keeps what the order has.
    """

    nth: int
    quantity: int | None
    price: int | None
    display: int | None


PICKS = st.builds(
    Pick,
    st.integers(0, 5),
    st.one_of(st.none(), st.integers(-1, 9)),
    st.one_of(st.none(), st.just(0), st.integers(98, 102)),
    st.one_of(st.none(), st.none(), DISPLAYED),
)
COMMANDS = st.lists(st.one_of(orders(), orders(), PICKS), max_size=50)
Drawn = list[NewOrder | Pick]


def command_from(drawn: NewOrder | Pick, position: int, book: OrderBook) -> Command:
    if isinstance(drawn, NewOrder):
        return replace(drawn, order_id=position)
    resting = [order for side in Side for order in book.orders(side)]
    order_id, price = -1, drawn.price
    if drawn.nth < len(resting):
        order_id = resting[drawn.nth].order_id
        price = resting[drawn.nth].price_ticks if price is None else price
    if drawn.quantity is None:
        return Cancel(order_id)
    return Replace(order_id, drawn.quantity, price or 0, drawn.display)


def naive_answer(naive: NaiveBook, command: Command, trade_id: int) -> list[Event]:
    if isinstance(command, NewOrder):
        return naive.submit(command, trade_id)
    if isinstance(command, Cancel):
        return [naive.cancel(command.order_id)]
    return naive.replace(
        command.order_id,
        command.quantity_lots,
        command.price_ticks,
        trade_id,
        command.display_lots,
    )


def naive_orders(naive: NaiveBook, side: Side) -> list[RestingOrder]:
    return [
        RestingOrder(
            maker.order.order_id,
            maker.order.owner,
            side,
            maker.price,
            maker.remaining,
            maker.order.post_only,
            maker.order.self_trade_prevention,
            maker.order.display_lots,
            maker.remaining - maker.shown,
        )
        for maker in naive.in_priority(side)
    ]


def played(book: OrderBook, drawn: Drawn) -> Iterator[tuple[Command, tuple[Event, ...]]]:
    trade_id = 1
    for position, one in enumerate(drawn):
        command = command_from(one, position, book)
        events = apply(book, command, trade_id)
        trade_id += count_trades(events)
        yield command, events


@settings(deadline=None)
@given(COMMANDS)
def test_every_command_gives_the_events_and_the_book_of_the_naive_one(
    commands: Drawn,
) -> None:
    book, naive, trade_id = OrderBook(), NaiveBook(), 1
    for command, events in played(book, commands):
        assert list(events) == naive_answer(naive, command, trade_id)
        assert [list(book.orders(s)) for s in Side] == [naive_orders(naive, s) for s in Side]
        trade_id += count_trades(events)


@settings(deadline=None)
@given(st.lists(any_orders(), max_size=8))
def test_a_malformed_order_is_refused_for_the_first_reason_that_holds(
    commands: list[NewOrder],
) -> None:
    book, naive = OrderBook(), NaiveBook()
    for order in commands:
        assert list(book.submit(order, 1)) == naive.submit(order, 1)


@settings(deadline=None)
@given(COMMANDS, orders())
def test_a_preview_names_the_trades_that_follow_and_changes_nothing(
    commands: Drawn, order: NewOrder
) -> None:
    book = OrderBook()
    for _ in played(book, commands):
        pass
    order = replace(order, order_id=len(commands))
    before = [book.orders(side) for side in Side]

    matches = book.preview(order)

    assert [book.orders(side) for side in Side] == before
    owners = {resting.order_id: resting.owner for side in before for resting in side}
    trades = [event for event in book.submit(order, 1) if isinstance(event, Traded)]
    assert [(m.maker_order_id, m.maker_owner, m.price_ticks, m.quantity_lots) for m in matches] == [
        (t.maker_order_id, owners[t.maker_order_id], t.price_ticks, t.quantity_lots) for t in trades
    ]


@settings(deadline=None)
@given(COMMANDS)
def test_no_command_leaves_the_book_crossed_or_its_levels_unlike_their_orders(
    commands: Drawn,
) -> None:
    book = OrderBook()
    for _ in played(book, commands):
        bid, ask = book.best_ticks(Side.BUY), book.best_ticks(Side.SELL)
        assert bid is None or ask is None or bid < ask
        for side in Side:
            lots: Counter[int] = Counter()
            for order in book.orders(side):
                assert order.remaining_lots > 0
                lots[order.price_ticks] += order.remaining_lots - order.hidden_lots
                assert book.find(order.order_id) == order
            outwards = sorted(lots, reverse=side is Side.BUY)
            assert [(x.price_ticks, x.quantity_lots) for x in book.depth(side)] == [
                (price, lots[price]) for price in outwards
            ]
            assert book.best_ticks(side) == (outwards[0] if outwards else None)
            assert all(book.quantity_at(side, price) == lots[price] for price in range(97, 104))


class Account(Struct):
    """What one order was given and what became of it, in lots."""

    given: int = 0
    gone: int = 0


@settings(deadline=None)
@given(COMMANDS)
def test_every_lot_given_is_traded_or_ended_or_still_rests(commands: Drawn) -> None:
    book = OrderBook()
    accounts: dict[int, Account] = {}
    for command, events in played(book, commands):
        for event in events:
            match event:
                case Accepted():
                    assert isinstance(command, NewOrder)
                    accounts[event.order_id] = Account(given=command.quantity_lots)
                case Replaced():
                    account = accounts[event.order_id]
                    account.given = account.gone + event.remaining_lots
                case Traded() | Decremented():
                    accounts[event.maker_order_id].gone += event.quantity_lots
                    accounts[event.taker_order_id].gone += event.quantity_lots
                case Cancelled() | Expired():
                    accounts[event.order_id].gone += event.remaining_lots
                case Rejected():
                    assert events == (event,)
        resting = {order.order_id: order.remaining_lots for s in Side for order in book.orders(s)}
        assert resting == {
            order_id: account.given - account.gone
            for order_id, account in accounts.items()
            if account.given != account.gone
        }


@settings(deadline=None)
@given(COMMANDS)
def test_nobody_trades_before_those_who_stood_before_them(commands: Drawn) -> None:
    book = OrderBook()
    queues: dict[Side, list[int]] = {side: [] for side in Side}
    shown: dict[int, int] = {}
    for _, events in played(book, commands):
        ended = {event.order_id for event in events if isinstance(event, Expired)}
        ended |= {e.maker_order_id for e in events if isinstance(e, Decremented)}
        for event in events:
            if isinstance(event, Traded):
                queue = queues[event.taker_side.opposite]
                ahead = queue[: queue.index(event.maker_order_id)]
                assert set(ahead) <= ended
                left = shown[event.maker_order_id] = (
                    shown[event.maker_order_id] - event.quantity_lots
                )
                if left <= 0:
                    ended.add(event.maker_order_id)
        queues = {side: [order.order_id for order in book.orders(side)] for side in Side}
        shown = {o.order_id: o.remaining_lots - o.hidden_lots for s in Side for o in book.orders(s)}


@settings(deadline=None)
@given(COMMANDS)
def test_a_restored_book_is_the_book(commands: Drawn) -> None:
    book, again = OrderBook(), OrderBook()
    for _ in played(book, commands):
        pass
    for side in Side:
        for order in book.orders(side):
            again.restore(order)

    assert [again.orders(side) for side in Side] == [book.orders(side) for side in Side]
    assert [again.depth(side) for side in Side] == [book.depth(side) for side in Side]
    for side in Side:
        taker = NewOrder(-1, "z", side, 10**6, None, TimeInForce.IOC)
        assert again.submit(taker, 1) == book.submit(taker, 1)


def test_a_long_tape_with_a_deep_book_gives_the_events_of_the_naive_one() -> None:
    book, naive, trade_id = OrderBook(), NaiveBook(), 1
    for command in mixed_tape(11, 800):
        events = apply(book, command, trade_id)
        assert list(events) == naive_answer(naive, command, trade_id)
        trade_id += count_trades(events)
    assert [list(book.orders(s)) for s in Side] == [naive_orders(naive, s) for s in Side]
