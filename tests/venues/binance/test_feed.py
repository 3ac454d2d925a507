"""The Binance machine against everything that a venue does to it: each fault is a gap, none a lie."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from marketdata.book import L2Book
from marketdata.events import (
    BestSeen,
    BookUpdate,
    CandleSeen,
    Channel,
    GapReason,
    GapSeen,
    MarketEvent,
    Request,
    TickerSeen,
    TradeSeen,
    WantCheck,
    WantReconnect,
    WantResubscribe,
    WantSnapshot,
)
from marketdata.raw import RawItem, RawKind
from tests.venues.binance.world import BOTH, ETH, MS, World, live_world
from venues.binance.feed import BinanceFeed, lanes
from venues.binance.policy import StreamWatch
from venues.simulator.faults import FaultKind

SECOND_STEPS = 10


def test_everything_that_streams_becomes_live_and_is_true() -> None:
    world = live_world()
    world.step(30)

    for one in BOTH:
        assert world.shown(one.symbol) == world.true_rows(one.symbol)
        for channel in Channel:
            (started,) = world.gaps(one.symbol, channel)
            assert started.reason is GapReason.STARTED
            assert started.until_ns >= started.since_ns > 0
    kinds = {type(event) for event in world.events}
    assert kinds == {BookUpdate, TradeSeen, BestSeen, TickerSeen, CandleSeen, GapSeen}
    assert world.trade_ids("ETHUSDT") == world.traded["ETHUSDT"]


def test_updates_of_a_book_follow_each_other_without_a_hole() -> None:
    world = live_world()
    world.answer_steps = 5
    world.lose("close code 1006")
    world.step(20)

    updates = world.updates("ETHUSDT")
    previous = updates[0]
    assert previous.is_snapshot
    for update in updates[1:]:
        assert update.is_snapshot or update.first <= previous.last + 1
        assert update.last >= previous.last
        previous = update
    assert sum(update.is_snapshot for update in updates) == 2


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (FaultKind.WS_DROP, "sequence"),
        (FaultKind.WS_WRONG_TYPES, "malformed"),
        (FaultKind.WS_DUPLICATE, None),
    ],
)
def test_a_fault_of_one_book_is_a_gap_of_it_and_of_no_other(
    kind: FaultKind, reason: str | None
) -> None:
    world = live_world()
    world.fault(kind, "ethusdt@depth")
    world.step(6)

    assert world.reasons("ETHUSDT", Channel.BOOK) == ([reason] if reason else [])
    assert world.shown("ETHUSDT") == world.true_rows("ETHUSDT")
    for channel in Channel:
        assert world.reasons("BTCUSDT", channel) == []
    assert all(not isinstance(one, WantReconnect) for one in world.requests)
    for gap in world.gaps("ETHUSDT", Channel.BOOK):
        assert gap.until_ns >= gap.since_ns


def test_updates_that_come_in_the_wrong_order_empty_the_book() -> None:
    world = live_world(instruments=[ETH], channels=[Channel.BOOK])
    world.fault(FaultKind.WS_SWAP, "depth")
    world.step(6)

    assert world.reasons("ETHUSDT", Channel.BOOK) == ["sequence"]
    assert world.shown("ETHUSDT") == world.true_rows("ETHUSDT")


def test_a_frame_that_nobody_can_read_empties_the_books_that_it_may_be_of() -> None:
    """It says that it is of depth, but not of which symbol: prices and trades are not suspected."""
    world = live_world()
    world.answer_steps = 3
    world.fault(FaultKind.WS_BAD_JSON, "ethusdt@depth")
    while not world.reasons("ETHUSDT", Channel.BOOK):
        world.step()

    assert world.shown("ETHUSDT") is None
    assert world.shown("BTCUSDT") is None
    world.step(6)
    for one in BOTH:
        assert world.reasons(one.symbol, Channel.BOOK) == ["unreadable"]
        assert world.reasons(one.symbol, Channel.TRADES) == []
        assert world.shown(one.symbol) == world.true_rows(one.symbol)


@pytest.mark.parametrize(
    ("data", "touched"),
    [
        (b'{"stream":"ethusdt@depth@100ms","data":{"e":"depthUpd', {("ETHUSDT", "book")}),
        (b'{"stream":"ethusdt@trade","data":{"e":"trade","s":5}}', {("ETHUSDT", "trades")}),
        (b'{"e":"kline","E":1,"s":"BTCUSDT","k":{', {("BTCUSDT", "candles")}),
        (b'{"stream":"ethusdt@bookTicker","data":[]}', {("ETHUSDT", "best")}),
        (b'{"stream":"ethusdt@ticker","data":{"s":"BTCUSDT"}}', {("ETHUSDT", "ticker")}),
        (b"\xff\xfe", {(one.symbol, str(channel)) for one in BOTH for channel in Channel}),
        (b"[" * 100_000, {(one.symbol, str(channel)) for one in BOTH for channel in Channel}),
        (b"5", {(one.symbol, str(channel)) for one in BOTH for channel in Channel}),
        (b'{"stream":"dogeusdt@trade","data":{}}', set()),
        (b'{"result":null,"id":77}', set()),
        (b'{"e":"outboundAccountPosition","s":"ETHUSDT"}', set()),
    ],
    ids=lambda value: value[:40].decode(errors="replace") if isinstance(value, bytes) else "",
)
def test_what_cannot_be_read_is_blamed_on_the_streams_that_it_may_be_of(
    data: bytes, touched: set[tuple[str, str]]
) -> None:
    world = live_world()
    found = world.give(RawKind.FRAME, data)

    opened = {(one.symbol, str(one.channel)) for one in found if isinstance(one, GapSeen)}
    assert opened == touched
    world.step(25)
    assert all(world.shown(one.symbol) == world.true_rows(one.symbol) for one in BOTH)


BAD_LEVELS = [
    [["3000.001", "1"]],
    [["-1", "1"]],
    [["0", "1"]],
    [["2999.00", "-1"]],
    [["2999.00", "1e5"]],
    [["2999.00", "1_0"]],
    [["2999.00", " 1"]],
    [["2999.00", "9" * 60]],
    [["2999.00", "\u0663"]],
    [["2999.00", ""]],
    [["9999.00", "1"]],
    [["2999.00"]],
    [[2999.0, 1.0]],
]


@pytest.mark.parametrize("bids", BAD_LEVELS, ids=str)
def test_levels_that_cannot_be_empty_the_book(bids: list[list[object]]) -> None:
    world = live_world()
    world.answer_steps = 2
    sequence = _book(world, "ETHUSDT").sequence
    assert sequence is not None
    frame = {"e": "depthUpdate", "E": 1, "s": "ETHUSDT", "U": sequence + 1, "u": sequence + 2}
    data = {"stream": "ethusdt@depth@100ms", "data": {**frame, "b": bids, "a": []}}
    world.give(RawKind.FRAME, json.dumps(data).encode())

    assert world.shown("ETHUSDT") is None
    assert world.shown("BTCUSDT") is not None
    assert world.reasons("ETHUSDT", Channel.BOOK) in (["malformed"], ["crossed"])


def test_an_answer_over_a_connection_that_is_gone_is_not_taken() -> None:
    world = live_world(instruments=[ETH], channels=[Channel.BOOK])
    body = b'{"lastUpdateId":1,"bids":[],"asks":[]}'
    world.answer_steps = 5
    world.lose("close code 1006")
    world.step()
    late = RawItem(RawKind.SNAPSHOT, world.now_ms * MS, world.connection - 1, "ETHUSDT", body)

    assert world.machine.take(late) == ()
    assert world.shown("ETHUSDT") is None


def test_best_prices_that_cross_are_told_by_nobody() -> None:
    world = live_world()
    frame = {"u": 10**9, "s": "ETHUSDT", "b": "3000.00", "B": "1", "a": "2999.99", "A": "1"}
    data = json.dumps({"stream": "ethusdt@bookTicker", "data": frame}).encode()
    found = world.give(RawKind.FRAME, data)
    assert [one.reason for one in found if isinstance(one, GapSeen)] == [GapReason.CROSSED]
    assert not any(isinstance(one, BestSeen) for one in found)

    frame |= {"u": 10**9 + 1, "a": "3000.01"}
    data = json.dumps({"stream": "ethusdt@bookTicker", "data": frame}).encode()
    ended, seen = world.give(RawKind.FRAME, data)
    assert isinstance(ended, GapSeen)
    assert ended.until_ns
    assert isinstance(seen, BestSeen)


@pytest.mark.parametrize("colon", [b":", b": "])
def test_a_frame_of_another_symbol_than_its_stream_is_not_taken(colon: bytes) -> None:
    world = live_world()
    world.answer_steps = 3
    sequence = _book(world, "ETHUSDT").sequence
    assert sequence is not None
    ids = {"U": sequence + 1, "u": sequence + 1}
    frame = {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", **ids, "b": [], "a": []}
    data = json.dumps({"stream": "ethusdt@depth@100ms", "data": frame}).encode()
    found = world.give(RawKind.FRAME, data.replace(b": ", colon))

    assert [type(one) for one in found] == [GapSeen, WantSnapshot]
    assert world.shown("ETHUSDT") is None


def test_a_lost_socket_is_a_gap_of_each_stream_since_its_last_frame() -> None:
    """Of a stream that says little, too: what came over the same socket came in order."""
    world = live_world()
    world.step(30)
    frames = [one for one in world.items if one.kind is RawKind.FRAME]
    world.step(3, moves=False)
    world.lose("close code 1006")

    lost = [world.gaps(one.symbol, channel)[1] for one in BOTH for channel in Channel]
    assert {gap.since_ns for gap in lost} <= {one.received_ns for one in frames[-30:]}
    assert len({gap.since_ns for gap in lost}) == 1


def test_no_snapshot_is_asked_for_before_the_venue_streams() -> None:
    """Otherwise a change between snapshot and subscription would be seen by nobody."""
    feed = BinanceFeed(BOTH)
    found = feed.take(RawItem(RawKind.CONNECTED, 1, 1, "", b"0 x"))
    assert not [one for one in found if isinstance(one, WantSnapshot)]

    found = feed.take(RawItem(RawKind.FRAME, 2, 1, "", b'{"result":null,"id":1}'))
    assert {one.symbol for one in found if isinstance(one, WantSnapshot)} == {"ETHUSDT", "BTCUSDT"}


@pytest.mark.parametrize("broken", ["lost", "truncated", "malformed", "crossed", "stale"])
def test_an_answer_that_does_not_fit_is_asked_for_again(broken: str) -> None:
    world = live_world(instruments=[ETH])
    world.breaks_answers.extend([broken] * 2)
    world.fault(FaultKind.WS_DROP, "depth")
    world.step(30)

    assert world.shown("ETHUSDT") == world.true_rows("ETHUSDT")
    assert world.reasons("ETHUSDT", Channel.BOOK) == ["sequence"]


def test_a_snapshot_that_is_older_than_what_was_streamed_is_not_shown() -> None:
    """Nothing waits that it would not fit to: only what was known before tells that it is old."""
    world = live_world(instruments=[ETH], channels=[Channel.BOOK])
    world.step(20)
    before = _book(world, "ETHUSDT").sequence
    assert before is not None
    told = len(world.events)
    world.breaks_answers.append("stale")
    world.lose("close code 1006")
    world.step(12, moves=False)

    assert not world.breaks_answers
    assert [one.last for one in world.events[told:] if isinstance(one, BookUpdate)] == [before]
    assert world.reasons("ETHUSDT", Channel.BOOK) == ["closed"]


def test_an_answer_that_was_asked_for_before_the_fault_is_of_no_use() -> None:
    """It does not have what the frame had that nobody could read, and nothing else may come."""
    world = live_world(instruments=[ETH], channels=[Channel.BOOK])
    world.fault(FaultKind.WS_WRONG_TYPES, "depth")
    world.answer_steps = 5
    while world.shown("ETHUSDT"):
        world.step()
    world.fault(FaultKind.WS_WRONG_TYPES, "depth")
    while world.faults.pending():
        world.step()
    asked = [one for one in world.requests if isinstance(one, WantSnapshot)]

    assert len(asked) == 3


def test_a_venue_whose_hosts_are_behind_each_other_proves_nothing() -> None:
    """An older answer of REST than our book was: not wrong, and asked for again in its time."""
    world = live_world(instruments=[ETH], channels=[Channel.BOOK])
    world.step(30, moves=False)
    world.step(5)
    world.breaks_answers.extend(["stale"] * 8)
    world.step(60, moves=False)

    assert not world.breaks_answers
    assert world.reasons("ETHUSDT", Channel.BOOK) == []
    assert world.shown("ETHUSDT") == world.true_rows("ETHUSDT")


def test_the_more_books_the_longer_a_quiet_one_waits_to_be_asked_for() -> None:
    few, many = lanes([ETH])[0], lanes([ETH] * 80)[0]

    assert few.watch.silence_ns == StreamWatch().silence_ns
    assert many.watch.silence_ns == 20 * 10**9


def test_a_snapshot_that_hangs_holds_up_no_other_book() -> None:
    world = live_world()
    world.fault(FaultKind.WS_DROP, "ethusdt@depth")
    world.answer_steps = 10**6
    world.step(30)

    assert world.shown("ETHUSDT") is None
    assert world.shown("BTCUSDT") == world.true_rows("BTCUSDT")


def test_a_book_stream_gone_silent_is_noticed_and_subscribed_to_again() -> None:
    """BTC goes on: one stream's silence is not the socket's."""
    world = live_world()
    world.fault(FaultKind.WS_DROP, "ethusdt@depth", count=40)
    world.step(45)

    assert world.reasons("ETHUSDT", Channel.BOOK)[0] == "silent"
    assert WantResubscribe("ETHUSDT", Channel.BOOK) in world.requests
    world.step(40)
    assert world.shown("ETHUSDT") == world.true_rows("ETHUSDT")
    assert world.reasons("BTCUSDT", Channel.BOOK) == []
    assert not any(isinstance(one, WantReconnect) for one in world.requests)


def test_the_last_update_before_a_quiet_time_is_missed_and_noticed() -> None:
    """No later update tells that one is missing: only the venue's book does."""
    world = live_world(instruments=[ETH], channels=[Channel.BOOK])
    world.fault(FaultKind.WS_DROP, "depth")
    while world.faults.pending():
        world.step()
    assert world.shown("ETHUSDT") != world.true_rows("ETHUSDT")
    world.step(60, moves=False)

    assert world.reasons("ETHUSDT", Channel.BOOK)[0] == "silent"
    assert world.shown("ETHUSDT") == world.true_rows("ETHUSDT")


def test_a_quiet_market_is_asked_and_its_book_stays_fresh() -> None:
    world = live_world()
    before = _book(world, "ETHUSDT").sequence
    since_ms = world.now_ms
    world.step(60, moves=False)

    assert world.reasons("ETHUSDT", Channel.BOOK) == []
    asked = [one for one in world.requests if one == WantCheck("ETHUSDT")]
    assert 2 <= len(asked) <= 4
    confirmed = world.updates("ETHUSDT")[-1]
    assert (confirmed.first, confirmed.last, confirmed.bids) == (before, before, ())
    assert confirmed.received_ns > (since_ms + 2_000) * MS
    assert _book(world, "ETHUSDT").sequence == before


def test_a_silent_book_of_which_nobody_says_anything_is_not_shown() -> None:
    world = live_world(instruments=[ETH], channels=[Channel.BOOK])
    world.breaks_answers.extend(["lost"] * 50)
    world.step(250, moves=False)

    assert "silent" in world.reasons("ETHUSDT", Channel.BOOK)
    assert world.shown("ETHUSDT") is None


def test_a_book_that_the_venue_disagrees_with_is_emptied_and_taken_anew() -> None:
    """A frame that was changed on its way: in order, well formed, and wrong."""
    world = live_world(instruments=[ETH], channels=[Channel.BOOK])
    book = _book(world, "ETHUSDT")
    assert book.sequence is not None
    bid = world.true_rows("ETHUSDT")[0][3]
    book.apply(book.sequence + 1, book.sequence + 1, ((bid[0], bid[1] + 1),), ())
    book.sequence -= 1
    world.compares = False
    for _ in range(40):
        world.step(moves=False)
    (gap,) = world.gaps("ETHUSDT", Channel.BOOK)[1:]

    assert gap.reason is GapReason.DISAGREES
    assert f"bid {bid[0]}" in gap.detail
    assert world.shown("ETHUSDT") == world.true_rows("ETHUSDT")


def test_a_book_that_the_venue_disagrees_with_is_doubted_since_it_last_agreed() -> None:
    """Updates that came in the meantime prove nothing: the row of the gap has to say so."""
    world = live_world(
        instruments=[ETH], channels=[Channel.BOOK], watch=StreamWatch(check_every_ns=3 * 10**9)
    )
    world.step(5)
    wrong_since_ns = world.now_ms * MS
    book = _book(world, "ETHUSDT")
    assert book.sequence is not None
    book.apply(book.sequence + 1, book.sequence + 1, ((1, 10**15),), ())
    book.sequence -= 1
    world.compares = False
    world.step(60)
    (gap,) = world.gaps("ETHUSDT", Channel.BOOK)[1:]

    assert gap.reason is GapReason.DISAGREES
    assert gap.since_ns <= wrong_since_ns
    assert world.shown("ETHUSDT") == world.true_rows("ETHUSDT")


def test_a_busy_book_is_compared_too_though_both_move_meanwhile() -> None:
    world = live_world(watch=StreamWatch(check_every_ns=3 * 10**9))
    world.answer_steps = 3
    world.step(100)

    asked = [one for one in world.requests if isinstance(one, WantCheck)]
    assert len(asked) >= 4
    confirmed = [one for one in world.updates("ETHUSDT") if one.first == one.last and not one.bids]
    assert confirmed
    assert world.reasons("ETHUSDT", Channel.BOOK) == []


def test_a_venue_that_counts_anew_after_a_restart_is_followed() -> None:
    world = live_world()
    world.step(200)
    world.restart()
    world.step(30)

    for one in BOTH:
        assert world.reasons(one.symbol, Channel.BOOK) == ["closed", "restarted"]
        assert "restarted" in world.reasons(one.symbol, Channel.TRADES)
        assert world.shown(one.symbol) == world.true_rows(one.symbol)


def test_a_venue_that_counts_anew_in_the_middle_of_a_stream_is_noticed_at_once() -> None:
    world = live_world()
    world.step(200)
    world.renumber()
    world.compares = False
    world.step()
    assert world.shown("ETHUSDT") is None or world.shown("ETHUSDT") == world.true_rows("ETHUSDT")
    world.step(30)

    assert world.reasons("ETHUSDT", Channel.BOOK)[0] == "restarted"
    assert "restarted" in world.reasons("ETHUSDT", Channel.TRADES)
    assert world.shown("ETHUSDT") == world.true_rows("ETHUSDT")


def test_time_of_the_venue_going_back_changes_no_book_and_shows_no_older_ticker() -> None:
    world = live_world(instruments=[ETH])
    world.step(10)
    world.now_ms -= 3_600_000
    world.step(12)
    world.now_ms += 3_600_000 + 60_000
    world.step(20)

    assert world.shown("ETHUSDT") == world.true_rows("ETHUSDT")
    assert world.reasons("ETHUSDT", Channel.BOOK) == []
    times = [one.exchange_ns for one in world.events if isinstance(one, TickerSeen)]
    assert times == sorted(times)
    assert len(times) >= 3


def test_a_missing_trade_is_a_gap_with_its_id() -> None:
    world = live_world()
    world.fault(FaultKind.WS_DROP, "ethusdt@trade")
    while not (found := world.gaps("ETHUSDT", Channel.TRADES)[1:]):
        world.step()
    (gap,) = found

    told, traded = world.trade_ids("ETHUSDT"), world.traded["ETHUSDT"]
    (missing,) = sorted({*traded} - {*told})
    assert gap.reason is GapReason.SEQUENCE
    assert gap.detail == f"trades {missing} to {missing} are missing"
    assert 0 < gap.since_ns <= gap.until_ns


def test_a_trade_with_an_id_that_cannot_be_is_not_told_and_begins_no_other_count() -> None:
    world = live_world()
    world.give(
        RawKind.FRAME,
        b'{"stream":"ethusdt@trade","data":{"e":"trade","s":"ETHUSDT","t":-7,"p":"3000.00",'
        b'"q":"1.0","T":1,"m":true}}',
    )
    world.step(10)

    assert world.trade_ids("ETHUSDT") == world.traded["ETHUSDT"]
    assert world.reasons("ETHUSDT", Channel.TRADES) == ["malformed"]


def test_a_trade_that_comes_late_is_told_and_the_gap_says_so() -> None:
    world = live_world()
    world.fault(FaultKind.WS_SWAP, "ethusdt@trade")
    world.step(20)

    assert sorted(world.trade_ids("ETHUSDT")) == world.traded["ETHUSDT"]
    (gap,) = world.gaps("ETHUSDT", Channel.TRADES)[1:]
    assert gap.detail.endswith("they came late")


def test_a_trade_that_comes_twice_is_told_once() -> None:
    world = live_world()
    world.fault(FaultKind.WS_DUPLICATE, "ethusdt@trade", count=3)
    world.step(20)

    assert world.trade_ids("ETHUSDT") == world.traded["ETHUSDT"]
    assert world.reasons("ETHUSDT", Channel.TRADES) == []


def test_what_was_missed_while_the_socket_was_gone_is_told_with_the_first_trade_after_it() -> None:
    world = live_world()
    world.fault(FaultKind.WS_SILENT, "")
    world.step(3)
    world.faults.clear()
    world.lose("close code 1006")
    world.step(20)

    lost = world.gaps("ETHUSDT", Channel.TRADES)[1]
    missing = sorted({*world.traded["ETHUSDT"]} - {*world.trade_ids("ETHUSDT")})
    assert lost.reason is GapReason.CLOSED
    assert missing
    assert f"trades {missing[0]} to {missing[-1]} are missing" in lost.detail


@pytest.mark.parametrize(
    ("stream", "channel"),
    [("trade", Channel.TRADES), ("bookTicker", Channel.BEST), ("ticker", Channel.TICKER),
     ("kline", Channel.CANDLES)],
)  # fmt: skip
def test_a_stream_without_numbers_gone_silent_is_noticed_by_what_the_others_show(
    stream: str, channel: Channel
) -> None:
    world = live_world()
    world.fault(FaultKind.WS_SILENT, f"ethusdt@{stream}")
    world.step(80)

    assert "silent" in world.reasons("ETHUSDT", channel)
    assert WantResubscribe("ETHUSDT", channel) in world.requests
    world.faults.clear()
    world.step(40)
    assert world.gaps("ETHUSDT", channel)[-1].until_ns
    assert world.reasons("ETHUSDT", Channel.BOOK) == []


def test_a_socket_that_says_nothing_at_all_is_given_up() -> None:
    world = live_world()
    world.fault(FaultKind.WS_SILENT, "")
    world.step(60)

    given_up = [one for one in world.requests if isinstance(one, WantReconnect)]
    assert given_up
    assert given_up[0].reason is GapReason.SILENT


def test_a_venue_that_does_not_acknowledge_is_connected_to_again() -> None:
    feed = BinanceFeed(BOTH)
    feed.take(RawItem(RawKind.CONNECTED, 0, 1, "", b"0 x"))
    found = feed.take(RawItem(RawKind.TICK, 9 * 10**9, 1))

    assert [(type(one), one.reason) for one in found if isinstance(one, WantReconnect)] == [
        (WantReconnect, GapReason.REFUSED)
    ]
    assert feed.take(RawItem(RawKind.TICK, 10 * 10**9, 1)) == ()


def test_a_stream_that_the_venue_refuses_leaves_the_others_alone() -> None:
    """The venue refuses the whole request, so each is asked for alone: only one is refused then."""
    feed = BinanceFeed(BOTH, channels=[Channel.TRADES])
    second = 10**9
    feed.take(RawItem(RawKind.CONNECTED, 0, 1, "", b"0 x"))
    refusal = b'{"error":{"code":2,"msg":"unknown stream"},"id":%d}'
    again = feed.take(RawItem(RawKind.FRAME, 1, 1, "", refusal % 1))
    assert set(again) == {WantResubscribe(one.symbol, Channel.TRADES) for one in BOTH}

    ids = {one.symbol: _id_of(feed.resubscribe(one.symbol, Channel.TRADES)) for one in BOTH}
    refused = feed.take(RawItem(RawKind.FRAME, 2, 1, "", refusal % ids["ETHUSDT"]))
    accepted = feed.take(
        RawItem(RawKind.FRAME, 3, 1, "", b'{"result":null,"id":%d}' % ids["BTCUSDT"])
    )

    assert [one.reason for one in refused if isinstance(one, GapSeen)][-1] is GapReason.REFUSED
    assert [one.symbol for one in accepted if isinstance(one, GapSeen)] == ["BTCUSDT"]
    assert feed.take(RawItem(RawKind.TICK, 5 * second, 1)) == []
    later = feed.take(RawItem(RawKind.TICK, 70 * second, 1))
    assert later == [WantResubscribe("ETHUSDT", Channel.TRADES)]


def test_many_streams_that_are_asked_for_one_by_one_are_each_given_the_time() -> None:
    """One name of a full socket is refused: two frames for each of 200, four frames in a second."""
    items = [replace(ETH, symbol=f"S{n}USDT") for n in range(40)]
    feed = BinanceFeed(items)
    feed.take(RawItem(RawKind.CONNECTED, 0, 1, "", b"0 x"))
    again = feed.take(RawItem(RawKind.FRAME, 1, 1, "", b'{"error":{"code":2},"id":1}'))
    ids = [
        _id_of(feed.resubscribe(r.symbol, r.channel))
        for r in again
        if isinstance(r, WantResubscribe)
    ]
    assert len(ids) == 200
    told: list[MarketEvent | Request] = []
    for number, one in enumerate(ids, start=1):
        now_ns = number * 10**9 // 2
        told += feed.take(RawItem(RawKind.TICK, now_ns, 1))
        told += feed.take(RawItem(RawKind.FRAME, now_ns, 1, "", b'{"result":null,"id":%d}' % one))

    assert not any(isinstance(one, WantReconnect) for one in told)
    assert sum(isinstance(one, GapSeen) for one in told) == 160  # books wait for their snapshots


def test_the_last_of_many_that_is_not_acknowledged_is_noticed_all_the_same() -> None:
    feed = BinanceFeed(BOTH, channels=[Channel.TRADES])
    feed.take(RawItem(RawKind.CONNECTED, 0, 1, "", b"0 x"))
    feed.take(RawItem(RawKind.FRAME, 1, 1, "", b'{"error":{"code":2},"id":1}'))
    found = feed.take(RawItem(RawKind.TICK, 11 * 10**9, 1))

    assert [one.reason for one in found if isinstance(one, WantReconnect)] == [GapReason.REFUSED]


def test_a_stream_that_stays_dead_costs_the_others_ever_less() -> None:
    """The venue answers and acknowledges, but streams nothing of one book."""
    world = live_world()
    world.compares = False
    world.fault(FaultKind.WS_SILENT, "ethusdt@depth")
    world.step(1_800)

    reconnects = [one for one in world.requests if isinstance(one, WantReconnect)]
    again = [one for one in world.requests if one == WantResubscribe("ETHUSDT", Channel.BOOK)]
    assert len(reconnects) == 1
    assert 4 <= len(again) <= 10
    assert len(world.reasons("BTCUSDT", Channel.BOOK)) == 1
    world.faults.clear()
    world.step(700)
    assert world.shown("ETHUSDT") == world.true_rows("ETHUSDT")


def test_what_was_recorded_tells_the_same_story_again() -> None:
    """Also through a machine of which nobody asks what to send."""
    world = live_world()
    for kind in (FaultKind.WS_DROP, FaultKind.WS_SWAP, FaultKind.WS_WRONG_TYPES):
        world.fault(kind, "depth")
    world.fault(FaultKind.WS_SILENT, "ethusdt@trade")
    world.step(60)
    world.faults.clear()
    world.lose("close code 1006")
    world.step(60, moves=False)

    again = BinanceFeed(BOTH)
    found: list[MarketEvent | Request] = []
    for item in world.items:
        found += again.take(item)
    assert _only_events(found) == world.events


def test_frames_of_a_single_stream_are_read_too() -> None:
    world = live_world(instruments=[ETH], channels=[Channel.BOOK, Channel.BEST])
    sequence = _book(world, "ETHUSDT").sequence
    assert sequence is not None
    ticks, units = world.true_rows("ETHUSDT")[0][0]
    bare = {
        "e": "depthUpdate",
        "E": 1,
        "s": "ETHUSDT",
        "U": sequence + 1,
        "u": sequence + 1,
        "b": [[ETH.price_text(ticks), ETH.quantity_text(units // ETH.lot)]],
        "a": [],
    }
    world.truth["ETHUSDT", sequence + 1] = world.truth["ETHUSDT", sequence]
    (update,) = world.give(RawKind.FRAME, json.dumps(bare).encode())
    best = {"u": 10**9, "s": "ETHUSDT", "b": "1.00", "B": "1", "a": "0.00000000", "A": "0"}
    (seen,) = world.give(RawKind.FRAME, json.dumps(best).encode())

    assert isinstance(update, BookUpdate)
    assert update.bids == ((ticks, units),)
    assert isinstance(seen, BestSeen)
    assert (seen.bid_ticks, seen.ask_ticks) == (100, 0)


def test_many_symbols_are_spread_over_sockets() -> None:
    many = [ETH] * 81
    found = lanes(many)

    assert [len(one.subscriptions()[0]) > 0 for one in found] == [True, True, True]


def _book(world: World, symbol: str) -> L2Book:
    book = world.machine.book(symbol)
    assert book is not None
    return book


def _id_of(sent: Sequence[bytes]) -> int:
    return int(json.loads(sent[-1])["id"])


def _only_events(found: Sequence[MarketEvent | Request]) -> list[MarketEvent]:
    requests = (WantSnapshot, WantCheck, WantResubscribe, WantReconnect)
    return [one for one in found if not isinstance(one, requests)]
