"""Scenario tables: one command per line, what the book answers beside it."""

import pytest

from matching.book import OrderBook
from matching.model import (
    Accepted,
    Cancelled,
    Decremented,
    Event,
    Expired,
    Level,
    NewOrder,
    Rejected,
    Replaced,
    SelfTradePrevention,
    Side,
    TimeInForce,
    Traded,
)

SIDES = {"buy": Side.BUY, "sell": Side.SELL}
PREVENTIONS = {
    "stp-maker": SelfTradePrevention.EXPIRE_MAKER,
    "stp-taker": SelfTradePrevention.EXPIRE_TAKER,
    "stp-both": SelfTradePrevention.EXPIRE_BOTH,
    "stp-less": SelfTradePrevention.DECREMENT,
}


def order_from(text: str) -> NewOrder:
    """Reads `1 ann buy 5@100 gtc [post] [stp-...]`; price `mkt` is a market order."""
    order_id, owner, side, size, tif, *flags = text.split()
    quantity, _, price = size.partition("@")
    prevention = [PREVENTIONS[flag] for flag in flags if flag in PREVENTIONS]
    return NewOrder(
        order_id=int(order_id),
        owner=owner,
        side=SIDES[side],
        quantity_lots=int(quantity),
        price_ticks=None if price == "mkt" else int(price),
        time_in_force=TimeInForce[tif.upper()],
        post_only="post" in flags,
        self_trade_prevention=prevention[0] if prevention else SelfTradePrevention.NONE,
    )


def text_of(event: Event) -> str:
    match event:
        case Accepted():
            return f"accepted {event.order_id}"
        case Rejected():
            return f"rejected {event.order_id} {event.reason.name}"
        case Traded():
            return (
                f"trade {event.trade_id} {event.maker_order_id}<{event.taker_order_id} "
                f"{event.quantity_lots}@{event.price_ticks} "
                f"left {event.maker_remaining_lots}/{event.taker_remaining_lots}"
            )
        case Decremented():
            return (
                f"less {event.maker_order_id}<{event.taker_order_id} {event.quantity_lots} "
                f"left {event.maker_remaining_lots}/{event.taker_remaining_lots}"
            )
        case Replaced():
            place = "kept" if event.kept_priority else "anew"
            return f"replaced {event.order_id} {event.remaining_lots}@{event.price_ticks} {place}"
        case Cancelled():
            return f"cancelled {event.order_id} {event.remaining_lots}"
        case Expired():
            return f"expired {event.order_id} {event.remaining_lots} {event.reason.name}"


def play(script: str) -> list[str]:
    """Runs `command -> events` lines and returns the events that came out, for comparison."""
    book = OrderBook()
    trade_id = 1
    out = []
    for line in script.strip().splitlines():
        command = line.split("->")[0].strip()
        if command.startswith("cancel"):
            events: tuple[Event, ...] = (book.cancel(int(command.split()[1])),)
        elif command.startswith("replace"):
            _, order_id, size = command.split()
            quantity, _, price = size.partition("@")
            events = book.replace(int(order_id), int(quantity), int(price), trade_id)
        else:
            events = book.submit(order_from(command), trade_id)
        trade_id += sum(isinstance(event, Traded) for event in events)
        out.append(f"{command} -> {', '.join(text_of(event) for event in events)}")
    return out


SCENARIOS = {
    "a limit order rests, and a crossing one trades at the maker's price": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob buy 3@105 gtc -> accepted 2, trade 1 1<2 3@100 left 2/0
        3 bob buy 4@100 gtc -> accepted 3, trade 2 1<3 2@100 left 0/2
        4 cat sell 2@99 gtc -> accepted 4, trade 3 3<4 2@100 left 0/0
    """,
    "better price goes first, then earlier arrival, and a partial fill keeps its place": """
        1 ann sell 1@101 gtc -> accepted 1
        2 ann sell 5@100 gtc -> accepted 2
        3 bob sell 5@100 gtc -> accepted 3
        4 cat buy 2@101 ioc -> accepted 4, trade 1 2<4 2@100 left 3/0
        5 cat buy 9@101 ioc -> accepted 5, trade 2 2<5 3@100 left 0/6, trade 3 3<5 5@100 left 0/1, trade 4 1<5 1@101 left 0/0
    """,
    "a market order takes what there is and expires the rest": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob buy 8@mkt ioc -> accepted 2, trade 1 1<2 5@100 left 0/3, expired 2 3 NOT_FILLED_AT_ONCE
        3 bob buy 8@mkt ioc -> accepted 3, expired 3 8 NOT_FILLED_AT_ONCE
    """,
    "immediate-or-cancel respects its limit": """
        1 ann sell 5@100 gtc -> accepted 1
        2 ann sell 5@102 gtc -> accepted 2
        3 bob buy 8@101 ioc -> accepted 3, trade 1 1<3 5@100 left 0/3, expired 3 3 NOT_FILLED_AT_ONCE
    """,
    "fill-or-kill fills whole or not at all": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob buy 6@100 fok -> accepted 2, expired 2 6 NOT_FILLABLE_WHOLE
        3 bob buy 5@100 fok -> accepted 3, trade 1 1<3 5@100 left 0/0
    """,
    "post-only never takes": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob buy 1@100 gtc post -> rejected 2 POST_ONLY_WOULD_TRADE
        3 bob buy 1@99 gtc post -> accepted 3
        4 bob buy 1@98 ioc post -> rejected 4 POST_ONLY_MUST_REST
    """,
    "cancel works once and only on resting orders": """
        1 ann buy 5@100 gtc -> accepted 1
        2 bob sell 2@100 gtc -> accepted 2, trade 1 1<2 2@100 left 3/0
        cancel 1 -> cancelled 1 3
        cancel 1 -> rejected 1 ORDER_NOT_RESTING
        cancel 2 -> rejected 2 ORDER_NOT_RESTING
    """,
    "malformed orders are refused by name": """
        1 ann buy 5@100 gtc -> accepted 1
        1 ann buy 5@100 gtc -> rejected 1 ORDER_ID_ALREADY_RESTING
        2 ann buy 0@100 gtc -> rejected 2 QUANTITY_NOT_POSITIVE
        3 ann buy 5@0 gtc -> rejected 3 PRICE_NOT_POSITIVE
        4 ann buy 5@mkt gtc -> rejected 4 MARKET_ORDER_MUST_NOT_REST
    """,
    "self-trade prevention expires the maker and goes on": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob sell 5@101 gtc -> accepted 2
        3 ann buy 4@101 gtc stp-maker -> accepted 3, expired 1 5 SELF_TRADE, trade 1 2<3 4@101 left 1/0
    """,
    "self-trade prevention expires the taker and leaves the maker": """
        1 bob sell 2@100 gtc -> accepted 1
        2 ann sell 5@101 gtc -> accepted 2
        3 ann buy 4@101 gtc stp-taker -> accepted 3, trade 1 1<3 2@100 left 0/2, expired 3 2 SELF_TRADE
        cancel 2 -> cancelled 2 5
    """,
    "self-trade prevention expires both": """
        1 ann sell 5@101 gtc -> accepted 1
        2 ann buy 4@101 gtc stp-both -> accepted 2, expired 1 5 SELF_TRADE, expired 2 4 SELF_TRADE
        cancel 1 -> rejected 1 ORDER_NOT_RESTING
    """,
    "fill-or-kill does not count what self-trade prevention would remove": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob sell 3@100 gtc -> accepted 2
        3 ann buy 4@100 fok stp-maker -> accepted 3, expired 3 4 NOT_FILLABLE_WHOLE
        4 ann buy 3@100 fok stp-taker -> accepted 4, expired 4 3 NOT_FILLABLE_WHOLE
        5 ann buy 3@100 fok stp-maker -> accepted 5, expired 1 5 SELF_TRADE, trade 1 2<5 3@100 left 0/0
    """,
    "self-trade prevention takes the smaller quantity off both": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob sell 2@101 gtc -> accepted 2
        3 ann buy 4@101 gtc stp-less -> accepted 3, less 1<3 4 left 1/0
        4 ann buy 4@101 gtc stp-less -> accepted 4, less 1<4 1 left 0/3, trade 1 2<4 2@101 left 0/1
        cancel 4 -> cancelled 4 1
        5 ann sell 5@100 gtc -> accepted 5
        6 bob sell 5@100 gtc -> accepted 6
        7 ann buy 7@100 fok stp-less -> accepted 7, expired 7 7 NOT_FILLABLE_WHOLE
        8 ann buy 7@100 gtc stp-less -> accepted 8, less 5<8 5 left 0/2, trade 2 6<8 2@100 left 3/0
    """,
    "the mode of the taker decides, not that of the maker": """
        1 ann sell 5@100 gtc stp-both -> accepted 1
        2 ann buy 2@100 gtc -> accepted 2, trade 1 1<2 2@100 left 3/0
    """,
    "an order replaced by less at its price keeps its place": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob sell 5@100 gtc -> accepted 2
        replace 1 3@100 -> replaced 1 3@100 kept
        replace 1 3@100 -> replaced 1 3@100 kept
        3 cat buy 4@100 gtc -> accepted 3, trade 1 1<3 3@100 left 0/1, trade 2 2<3 1@100 left 4/0
    """,
    "an order replaced by more queues again": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob sell 5@100 gtc -> accepted 2
        replace 1 6@100 -> replaced 1 6@100 anew
        3 cat buy 6@100 gtc -> accepted 3, trade 1 2<3 5@100 left 0/1, trade 2 1<3 1@100 left 5/0
    """,
    "an order that comes back to its price has lost its place": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob sell 5@100 gtc -> accepted 2
        replace 1 5@101 -> replaced 1 5@101 anew
        replace 1 5@100 -> replaced 1 5@100 anew
        3 cat buy 1@100 gtc -> accepted 3, trade 1 2<3 1@100 left 4/0
    """,
    "an order replaced through the other side trades at once": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob buy 5@98 gtc -> accepted 2
        replace 2 7@100 -> replaced 2 7@100 anew, trade 1 1<2 5@100 left 0/2
        cancel 2 -> cancelled 2 2
    """,
    "a refused replacement leaves the order as and where it was": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob buy 5@98 gtc post -> accepted 2
        3 cat buy 5@98 gtc -> accepted 3
        replace 2 1@100 -> rejected 2 POST_ONLY_WOULD_TRADE
        replace 2 0@98 -> rejected 2 QUANTITY_NOT_POSITIVE
        replace 2 1@0 -> rejected 2 PRICE_NOT_POSITIVE
        replace 9 1@98 -> rejected 9 ORDER_NOT_RESTING
        4 dan sell 6@98 ioc -> accepted 4, trade 1 2<4 5@98 left 0/1, trade 2 3<4 1@98 left 4/0
    """,
    "a replaced order prevents self-trades as it was sent": """
        1 ann sell 5@100 gtc -> accepted 1
        2 ann buy 5@98 gtc stp-taker -> accepted 2
        replace 2 5@100 -> replaced 2 5@100 anew, expired 2 5 SELF_TRADE
        cancel 1 -> cancelled 1 5
    """,
    "a partly filled order may be replaced by less than it has left, in place": """
        1 ann sell 5@100 gtc -> accepted 1
        2 bob sell 1@100 gtc -> accepted 2
        3 cat buy 2@100 gtc -> accepted 3, trade 1 1<3 2@100 left 3/0
        replace 1 2@100 -> replaced 1 2@100 kept
        4 cat buy 3@100 gtc -> accepted 4, trade 2 1<4 2@100 left 0/1, trade 3 2<4 1@100 left 0/0
    """,
    "without prevention an owner may trade with itself": """
        1 ann sell 5@100 gtc -> accepted 1
        2 ann buy 5@100 gtc -> accepted 2, trade 1 1<2 5@100 left 0/0
    """,
}


@pytest.mark.parametrize("script", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_book_answers_as_written(script: str) -> None:
    assert play(script) == [line.strip() for line in script.strip().splitlines()]


def test_depth_aggregates_orders_from_the_best_price_outwards() -> None:
    book = OrderBook()
    for text in ("1 a buy 5@99 gtc", "2 a buy 1@98 gtc", "3 b buy 2@99 gtc", "4 a sell 7@101 gtc"):
        book.submit(order_from(text), 1)

    assert book.depth(Side.BUY) == (Level(99, 7), Level(98, 1))
    assert book.depth(Side.BUY, 1) == (Level(99, 7),)
    assert book.depth(Side.BUY, 0) == ()
    assert book.depth(Side.SELL) == (Level(101, 7),)
    assert book.best_ticks(Side.BUY) == 99
    assert book.quantity_at(Side.SELL, 101) == 7
    assert book.quantity_at(Side.SELL, 102) == 0


def test_preview_changes_nothing() -> None:
    book = OrderBook()
    book.submit(order_from("1 a sell 5@100 gtc"), 1)
    taker = order_from("2 b buy 3@100 gtc")

    matches = book.preview(taker)

    assert [(match.maker_order_id, match.quantity_lots) for match in matches] == [(1, 3)]
    assert book.depth(Side.SELL) == (Level(100, 5),)


def test_an_order_that_shrinks_in_place_takes_its_lots_off_the_level() -> None:
    book = OrderBook()
    for text in ("1 a buy 5@99 gtc", "2 b buy 2@99 gtc"):
        book.submit(order_from(text), 1)
    book.replace(1, 3, 99, 1)

    assert book.depth(Side.BUY) == (Level(99, 5),)
    assert book.quantity_at(Side.BUY, 99) == 5


@pytest.mark.parametrize(
    ("prevention", "makers"),
    [("stp-maker", [2]), ("stp-taker", []), ("stp-both", []), ("stp-less", [2])],
)
def test_a_preview_knows_what_prevention_of_self_trades_leaves(
    prevention: str, makers: list[int]
) -> None:
    book = OrderBook()
    for text in ("1 a sell 5@99 gtc", "2 b sell 5@100 gtc"):
        book.submit(order_from(text), 1)

    matches = book.preview(order_from(f"3 a buy 7@100 gtc {prevention}"))

    assert [match.maker_order_id for match in matches] == makers
