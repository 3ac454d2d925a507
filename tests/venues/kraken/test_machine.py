"""The machine against the venue's own dialect: books that are true or not shown, and every fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from kernel.clock import to_unix_ns
from kernel.errors import BadInput
from marketdata.checksum import kraken_checksum
from marketdata.events import (
    BestSeen,
    BookUpdate,
    CandleSeen,
    Channel,
    GapReason,
    GapSeen,
    MarketEvent,
    TickerSeen,
    TradeSeen,
    WantCheck,
    WantReconnect,
    WantResubscribe,
)
from marketdata.raw import RawItem, RawKind
from tests.venues.kraken.bench import DEPTH, EVERY, MARKETS, Rig, instrument_of, simulated
from venues.kraken.feed import CLOSED_TO_TRADE, KrakenMachine, KrakenPolicy
from venues.simulator.faults import FaultKind

SYMBOLS = tuple(spec.name for spec in MARKETS)
BOOK_OF = {spec.name: f"book/{spec.base}/{spec.quote}" for spec in MARKETS}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with simulated(tmp_path) as opened:
        yield opened


def trade(rig: Rig, steps: int) -> None:
    for _ in range(steps):
        rig.venue.step()
        rig.go()


def seconds(rig: Rig, count: int) -> None:
    for _ in range(count):
        rig.venue.step()
        rig.go(by=timedelta(seconds=1))


def test_every_book_that_is_shown_is_the_venues(rig: Rig) -> None:
    trade(rig, 60)

    assert {symbol: rig.shown(symbol) for symbol in SYMBOLS} == rig.venue.truth()
    updates = [event for event in rig.events if isinstance(event, BookUpdate)]
    assert len(updates) > 100  # each of them was compared when it came
    assert rig.requests == []


def test_updates_tell_whoever_follows_them_the_same_book(rig: Rig) -> None:
    """What falls out of the depth is told as removed, for the venue does not say when it goes."""
    trade(rig, 60)

    sides: dict[str, list[dict[int, int]]] = {}
    for event in rig.events:
        if isinstance(event, BookUpdate):
            if event.is_snapshot:
                sides[event.symbol] = [{}, {}]
            for levels, rows in zip(sides[event.symbol], (event.bids, event.asks), strict=True):
                levels.update(rows)
    for symbol, (bids, asks) in sides.items():
        found = (
            sorted((row for row in bids.items() if row[1]), reverse=True),
            sorted(row for row in asks.items() if row[1]),
        )
        assert tuple(map(tuple, found)) == rig.shown(symbol)


def test_the_other_channels_tell_what_the_venue_told(rig: Rig) -> None:
    trade(rig, 100)

    market = rig.venue.market("BTCUSD")
    trades = [e for e in rig.events if isinstance(e, TradeSeen) and e.symbol == "BTCUSD"]
    truth = [t for t in market.trades if t.trade_id >= int(trades[0].trade_id)]
    assert [(e.trade_id, e.ticks, e.units, e.buyer_is_maker) for e in trades] == [
        (str(t.trade_id), t.price_ticks, t.quantity_lots, t.buyer_is_maker) for t in truth
    ]
    best = [e for e in rig.events if isinstance(e, BestSeen) and e.symbol == "BTCUSD"][-1]
    bids, asks = rig.venue.truth()["BTCUSD"]
    assert (best.bid_ticks, best.bid_units) == bids[0]
    assert (best.ask_ticks, best.ask_units) == asks[0]
    ticker = [e for e in rig.events if isinstance(e, TickerSeen) and e.symbol == "BTCUSD"][-1]
    assert ticker.low_ticks <= ticker.last_ticks <= ticker.high_ticks
    assert ticker.open_ticks == market.bars[0].open_ticks


def test_a_candle_is_closed_when_the_next_one_begins(rig: Rig) -> None:
    seconds(rig, 70)

    bars = {bar.open_ms * 10**6: bar for bar in rig.venue.market("BTCUSD").bars}
    found = [e for e in rig.events if isinstance(e, CandleSeen) and e.symbol == "BTCUSD"]
    closed = [e for e in found if e.is_closed]
    assert len(closed) == 1
    bar = bars[closed[0].open_ns]
    assert (closed[0].open_ticks, closed[0].high_ticks) == (bar.open_ticks, bar.high_ticks)
    assert (closed[0].low_ticks, closed[0].close_ticks) == (bar.low_ticks, bar.close_ticks)
    assert (closed[0].base_units, closed[0].trades) == (bar.volume_lots, bar.count)


def test_a_gap_is_there_from_the_start_until_the_snapshot(rig: Rig) -> None:
    opened, ended = rig.gaps("ETHUSD")

    assert opened.reason is ended.reason is GapReason.STARTED
    assert opened.until_ns == 0
    assert ended.until_ns >= opened.since_ns == ended.since_ns


FAULTS = [
    (FaultKind.WRONG_CHECKSUM, GapReason.CHECKSUM),
    (FaultKind.WS_DROP, GapReason.CHECKSUM),
    (FaultKind.WS_GAP, GapReason.CHECKSUM),
]


@pytest.mark.parametrize(("kind", "reason"), FAULTS, ids=str)
def test_a_mismatch_costs_nothing_but_its_own_symbols_book(
    rig: Rig, kind: FaultKind, reason: GapReason
) -> None:
    trade(rig, 5)
    rig.forget()
    rig.venue.fault(kind, BOOK_OF["ETHUSD"])
    trade(rig, 4)

    assert rig.requests == [WantResubscribe("ETHUSD", Channel.BOOK)]
    opened, ended = rig.gaps("ETHUSD")
    assert (opened.reason, opened.until_ns) == (reason, 0)
    assert (ended.reason, ended.since_ns) == (reason, opened.since_ns)
    assert ended.until_ns > ended.since_ns
    assert [e for e in rig.events if isinstance(e, GapSeen)] == [opened, ended]
    assert rig.shown("ETHUSD") == rig.venue.truth()["ETHUSD"]


def test_after_a_mismatch_nothing_is_shown_until_the_snapshot(rig: Rig) -> None:
    """The venue does not hear us: its updates go on and build nothing."""
    trade(rig, 3)
    rig.venue.fault(FaultKind.WRONG_CHECKSUM, BOOK_OF["ETHUSD"])
    rig.venue.fault(FaultKind.WS_DROP, BOOK_OF["ETHUSD"], count=1, skip=0)
    rig.venue.step()
    rig.venue.sockets.flush(rig.venue.core.now_ms())
    wire = rig.wire
    data, _ = next(frame for frame in wire.frames if b'"book"' in frame[0] and b"ETH" in frame[0])
    rig.machine.take(RawItem(RawKind.FRAME, rig.venue.clock.now_ns(), rig.connection, "", data))
    rig.machine.take(RawItem(RawKind.FRAME, rig.venue.clock.now_ns(), rig.connection, "", data))

    assert rig.shown("ETHUSD") is None


def test_a_lost_update_is_found_with_the_next_one(rig: Rig) -> None:
    trade(rig, 3)
    rig.venue.fault(FaultKind.WS_DROP, BOOK_OF["ETHUSD"])
    rig.venue.move("ETHUSD", 310_000)
    rig.go()
    before = rig.shown("ETHUSD")

    assert before != rig.venue.truth()["ETHUSD"]  # nobody can know yet
    rig.venue.move("ETHUSD", 311_000)
    rig.go()
    assert rig.shown("ETHUSD") == rig.venue.truth()["ETHUSD"]


def test_one_fault_after_the_other_is_asked_about_ever_more_slowly(rig: Rig) -> None:
    trade(rig, 3)
    rig.forget()
    rig.venue.fault(FaultKind.WRONG_CHECKSUM, BOOK_OF["ETHUSD"], count=10**6)
    seconds(rig, 60)

    asked = [r for r in rig.requests if isinstance(r, WantResubscribe)]
    assert 4 <= len(asked) <= 9
    assert {request.symbol for request in asked} == {"ETHUSD"}
    assert rig.shown("ETHUSD") is None
    rig.venue.faults.clear()
    seconds(rig, 60)
    assert rig.shown("ETHUSD") == rig.venue.truth()["ETHUSD"]


def test_two_updates_that_change_places_are_told_by_their_times(rig: Rig) -> None:
    """The checksum of the late one is right for the book that it leaves, which is an old one."""
    trade(rig, 5)
    rig.forget()
    bids, _ = rig.venue.truth()["BTCUSD"]
    first, second, late = (update_of(rig, bids[3][0], lots) for lots in (7, 8, 7))
    for frame in (first, second):
        rig.take(RawKind.FRAME, frame)
    assert rig.gaps("BTCUSD") == []
    rig.take(RawKind.FRAME, late)

    assert rig.shown("BTCUSD") is None
    assert rig.gaps("BTCUSD")[0].reason is GapReason.SEQUENCE
    rig.pump()
    assert rig.shown("BTCUSD") == rig.venue.truth()["BTCUSD"]


def update_of(rig: Rig, ticks: int, lots: int) -> bytes:
    """Return an update of one bid of BTC/USD, as the venue would write it."""
    bids, asks = rig.shown("BTCUSD") or rig.venue.truth()["BTCUSD"]
    bids = tuple((t, lots if t == ticks else units) for t, units in bids)
    at = f"2026-01-05T09:01:0{lots}.000000Z"
    level = f'{{"price":{ticks // 10}.{ticks % 10},"qty":0.{lots:08}}}'
    return (
        f'{{"channel":"book","type":"update","data":[{{"symbol":"BTC/USD","bids":[{level}],'
        f'"asks":[],"checksum":{kraken_checksum(price_step=1)(bids, asks)},"timestamp":"{at}"}}]}}'
    ).encode()


def test_the_venues_time_that_goes_back_makes_a_new_snapshot_and_no_hang(rig: Rig) -> None:
    rig.venue.core.skew_ms = 60_000
    trade(rig, 5)
    rig.forget()
    rig.venue.core.skew_ms = 0
    trade(rig, 5)

    reasons = {gap.reason for gap in rig.gaps("BTCUSD")}
    assert reasons == {GapReason.SEQUENCE}
    assert rig.shown("BTCUSD") == rig.venue.truth()["BTCUSD"]


def test_a_repeated_update_changes_nothing(rig: Rig) -> None:
    trade(rig, 5)
    rig.forget()
    rig.venue.fault(FaultKind.WS_DUPLICATE, "book", count=30)
    rig.venue.fault(FaultKind.WS_DUPLICATE, "trade", count=30)
    trade(rig, 20)

    assert [e for e in rig.events if isinstance(e, GapSeen)] == []
    ids = [e.trade_id for e in rig.events if isinstance(e, TradeSeen) and e.symbol == "BTCUSD"]
    assert len(set(ids)) == len(ids)


def test_a_frame_of_wrong_types_costs_the_channel_that_it_names(rig: Rig) -> None:
    """It does not say of which symbol it was."""
    trade(rig, 5)
    rig.forget()
    rig.venue.fault(FaultKind.WS_WRONG_TYPES, BOOK_OF["ETHUSD"])
    trade(rig, 4)

    assert set(rig.requests) == {WantResubscribe(symbol, Channel.BOOK) for symbol in SYMBOLS}
    lost = {gap.channel for gap in rig.events if isinstance(gap, GapSeen)}
    assert lost == {Channel.BOOK}
    assert {symbol: rig.shown(symbol) for symbol in SYMBOLS} == rig.venue.truth()


def test_a_frame_that_is_no_json_costs_the_connection(rig: Rig) -> None:
    trade(rig, 5)
    rig.forget()
    rig.venue.fault(FaultKind.WS_BAD_JSON, BOOK_OF["ETHUSD"])
    trade(rig, 4)

    assert [type(request) for request in rig.requests] == [WantReconnect]
    assert {gap.reason for gap in rig.gaps("BTCUSD", Channel.TRADES)} == {GapReason.UNREADABLE}
    assert {symbol: rig.shown(symbol) for symbol in SYMBOLS} == rig.venue.truth()


def test_a_closed_connection_is_a_gap_since_the_last_word(rig: Rig) -> None:
    trade(rig, 5)
    heard_ns = max(item.received_ns for item in rig.items if item.kind is RawKind.FRAME)
    rig.forget()
    rig.venue.clock.advance(timedelta(seconds=2))
    lost_ns = to_unix_ns(rig.venue.clock.now())
    rig.lose()
    shown = [rig.shown(symbol) for symbol in SYMBOLS]
    rig.venue.clock.advance(timedelta(seconds=1))
    rig.connect()
    trade(rig, 1)

    assert shown == [None] * len(SYMBOLS)
    opened, ended = rig.gaps("BTCUSD")
    assert (opened.reason, opened.since_ns, opened.detail) == (
        GapReason.CLOSED,
        heard_ns,
        "by the test",
    )
    assert (opened.received_ns, ended.until_ns) == (lost_ns, lost_ns + 10**9)
    assert {symbol: rig.shown(symbol) for symbol in SYMBOLS} == rig.venue.truth()


def test_trades_of_a_short_absence_come_with_the_snapshot(rig: Rig) -> None:
    trade(rig, 10)
    rig.lose()
    for _ in range(3):
        rig.venue.clock.advance(timedelta(milliseconds=100))
        rig.venue.step()
    rig.connect()
    trade(rig, 5)

    for symbol in SYMBOLS:
        ids = [
            int(e.trade_id) for e in rig.events if isinstance(e, TradeSeen) and e.symbol == symbol
        ]
        assert ids == list(range(ids[0], ids[-1] + 1))


def test_a_missing_trade_is_a_gap_and_is_told_late(rig: Rig) -> None:
    trade(rig, 10)
    rig.forget()
    rig.venue.fault(FaultKind.WS_DROP, "trade/BTC/USD")
    trade(rig, 10)

    opened, ended = rig.gaps("BTCUSD", Channel.TRADES)
    assert (opened.reason, ended.reason) == (GapReason.SEQUENCE, GapReason.SEQUENCE)
    assert "missing" in opened.detail
    assert ended.until_ns > ended.since_ns
    ids = [int(e.trade_id) for e in rig.events if isinstance(e, TradeSeen) and e.symbol == "BTCUSD"]
    assert sorted(ids) == list(range(min(ids), max(ids) + 1))
    assert len(set(ids)) == len(ids)


def test_silence_of_everything_costs_the_connection(rig: Rig) -> None:
    trade(rig, 3)
    rig.forget()
    rig.venue.fault(FaultKind.WS_SILENT, "")
    rig.answers_checks = False
    rig.go(60)

    assert [r.reason for r in rig.requests if isinstance(r, WantReconnect)] == [GapReason.SILENT]
    assert rig.shown("BTCUSD") is None
    rig.venue.faults.clear()
    rig.go(100)
    assert rig.shown("BTCUSD") == rig.venue.truth()["BTCUSD"]


def test_a_deaf_connection_is_given_up(tmp_path: Path) -> None:
    with simulated(tmp_path) as rig:
        rig.lose()
        rig.venue.fault(FaultKind.WS_DEAF, "")
        rig.forget()
        rig.connect()
        rig.go(80)

        assert [r.reason for r in rig.requests if isinstance(r, WantReconnect)] == [
            GapReason.SILENT
        ]
        assert {symbol: rig.shown(symbol) for symbol in SYMBOLS} == rig.venue.truth()


def test_a_quiet_book_is_compared_by_rest_and_said_to_be_what_it_was(rig: Rig) -> None:
    trade(rig, 3)
    sequence = rig.book("BTCUSD").sequence
    rig.forget()
    rig.go(100)

    checks = [r for r in rig.requests if r == WantCheck("BTCUSD")]
    assert len(checks) == 3  # every three seconds of ten
    still = [e for e in rig.events if isinstance(e, BookUpdate) and e.symbol == "BTCUSD"]
    assert {(e.first, e.last, e.bids, e.asks) for e in still} == {(sequence, sequence, (), ())}
    assert rig.gaps("BTCUSD") == []


def test_a_stream_that_dies_alone_is_found_by_rest(rig: Rig) -> None:
    """The venue's heartbeats go on; only the book of one symbol says nothing any more."""
    trade(rig, 3)
    rig.forget()
    rig.venue.fault(FaultKind.WS_SILENT, BOOK_OF["BTCUSD"])
    rig.venue.move("BTCUSD", 610_000)
    rig.go(20)
    wrong = rig.shown("BTCUSD")
    rig.go(70)

    assert wrong is not None  # nobody can know yet
    opened = rig.gaps("BTCUSD")[0]
    assert opened.reason is GapReason.DISAGREES
    assert "there" in opened.detail
    assert rig.shown("BTCUSD") is None
    assert opened.since_ns <= opened.received_ns - 3 * 10**9
    rig.venue.faults.clear()
    seconds(rig, 60)
    assert rig.shown("BTCUSD") == rig.venue.truth()["BTCUSD"]


def test_an_answer_that_is_ahead_of_the_stream_is_no_disagreement(rig: Rig) -> None:
    """The venue's list has what the stream will say only a moment later."""
    trade(rig, 3)
    rig.go(60)
    rig.forget()
    rig.venue.move("BTCUSD", 610_000)
    rig.take(RawKind.CHECK, rig.venue.rest_book("BTCUSD"), "BTCUSD")
    rig.go(40)

    assert rig.gaps("BTCUSD") == []
    assert rig.shown("BTCUSD") == rig.venue.truth()["BTCUSD"]


def test_a_deep_book_is_compared_below_its_checksum(tmp_path: Path) -> None:
    """A lost update below the tenth level is under no checksum."""
    with simulated(tmp_path, depth=100) as rig:
        trade(rig, 3)
        symbol = "ETHUSD"
        book = rig.machine.book(symbol)
        assert book is not None
        deep = rig.venue.truth()[symbol][0][14]
        assert deep in book.rows(100)[0]
        frame = {
            "channel": "book",
            "type": "update",
            "data": [
                {
                    "symbol": "ETH/USD",
                    "bids": [{"price": deep[0] / 100, "qty": 0}],
                    "asks": [],
                    "checksum": checksum_of(rig, symbol),
                }
            ],
        }
        rig.take(RawKind.FRAME, msgspec.json.encode(frame))
        assert deep not in book.rows(100)[0]
        rig.forget()
        rig.go(120)

        assert rig.gaps(symbol)[0].reason is GapReason.DISAGREES
        assert rig.shown(symbol) == rig.venue.truth()[symbol]


def checksum_of(rig: Rig, symbol: str) -> int:
    """Return the checksum of the venue's book, from a snapshot of its own."""
    for item in reversed(rig.items):
        if item.kind is RawKind.FRAME and b'"channel":"book"' in item.data:
            row = msgspec.json.decode(item.data)["data"][0]
            if row["symbol"].replace("/", "") == symbol:
                return int(row["checksum"])
    raise AssertionError(symbol)


def test_an_answer_that_cannot_be_read_proves_nothing(rig: Rig) -> None:
    trade(rig, 3)
    rig.forget()
    for body in (b"", b"{}", b'{"error":["EGeneral:Busy"]}', b"<html>", b'{"result":{}}'):
        rig.take(RawKind.CHECK, body, "BTCUSD")

    assert rig.events == []
    assert rig.shown("BTCUSD") == rig.venue.truth()["BTCUSD"]


def test_a_symbol_that_the_venue_refuses_is_said_so_and_leaves_the_others_alone(
    tmp_path: Path,
) -> None:
    with simulated(tmp_path) as rig:
        rig.lose()
        spec = msgspec.structs.replace(MARKETS[0], name="ETHBTC", base="ETH", quote="BTC")
        items = [instrument_of(one) for one in (*MARKETS, spec)]
        rig.machine = KrakenMachine(items, EVERY, KrakenPolicy(depth=DEPTH))
        rig.forget()
        rig.connect()
        trade(rig, 3)

        for channel in Channel:
            reasons = [(gap.reason, gap.until_ns == 0) for gap in rig.gaps("ETHBTC", channel)]
            assert reasons[0] == (GapReason.STARTED, True)
            assert reasons[-1] == (GapReason.REFUSED, True)
        assert "not supported" in rig.gaps("ETHBTC")[-1].detail
        assert {symbol: rig.shown(symbol) for symbol in SYMBOLS} == rig.venue.truth()


def test_in_maintenance_no_book_is_shown(rig: Rig) -> None:
    trade(rig, 3)
    status = b'{"channel":"status","type":"update","data":[{"system":"%s"}]}'
    rig.forget()
    rig.take(RawKind.FRAME, status % b"maintenance")
    closed = rig.shown("BTCUSD")
    rig.go(3)
    rig.take(RawKind.FRAME, status % b"online")
    rig.pump()
    trade(rig, 2)

    assert closed is None
    opened, ended = rig.gaps("BTCUSD")
    assert (opened.reason, opened.detail) == (GapReason.REFUSED, CLOSED_TO_TRADE)
    assert ended.until_ns > opened.since_ns
    assert rig.shown("BTCUSD") == rig.venue.truth()["BTCUSD"]


def test_a_recording_through_another_machine_tells_the_same(rig: Rig) -> None:
    rig.venue.fault(FaultKind.WRONG_CHECKSUM, BOOK_OF["ETHUSD"], skip=4)
    rig.venue.fault(FaultKind.WS_DROP, "trade", skip=3)
    rig.venue.fault(FaultKind.WS_BAD_JSON, "book", skip=20)
    trade(rig, 60)
    rig.go(60)
    again = KrakenMachine(map(instrument_of, MARKETS), EVERY, KrakenPolicy(depth=DEPTH))
    found = [one for item in rig.items for one in again.take(item)]

    live = Counter(map(repr, (*rig.events, *rig.requests)))
    assert Counter(map(repr, found)) == live
    assert [one for one in found if isinstance(one, GapSeen)] == [
        one for one in rig.events if isinstance(one, GapSeen)
    ]
    for symbol in SYMBOLS:
        book = again.book(symbol)
        assert book is not None
        assert book.rows(DEPTH) == rig.shown(symbol)


def test_frames_of_another_connection_are_not_listened_to(rig: Rig) -> None:
    trade(rig, 3)
    old = next(item for item in rig.items if b'"book"' in item.data)
    found = rig.machine.take(msgspec.structs.replace(old, connection=99))

    assert found == ()


@pytest.mark.parametrize("depth", [0, 7, 5_000])
def test_a_depth_that_the_venue_has_not_is_refused(depth: int) -> None:
    with pytest.raises(BadInput):
        KrakenPolicy(depth=depth)


def test_candles_that_the_venue_has_not_are_refused() -> None:
    with pytest.raises(BadInput):
        KrakenPolicy(interval_s=90)


def test_updates_are_counted_from_the_snapshot(rig: Rig) -> None:
    trade(rig, 10)

    numbers = [e.last for e in rig.events if isinstance(e, BookUpdate) and e.symbol == "BTCUSD"]
    assert numbers[0] == 1
    assert all(after == before + 1 for before, after in pairwise(numbers))


def test_nothing_is_asked_for_or_shown_while_maintenance_lasts(rig: Rig) -> None:
    """A book that comes by a subscription in the meantime has prices at which nobody trades."""
    trade(rig, 3)
    status = b'{"channel":"status","type":"update","data":[{"system":"%s"}]}'
    rig.take(RawKind.FRAME, status % b"maintenance")
    rig.forget()
    rig.go(100)
    asked = list(rig.requests)
    for frame in rig.machine.resubscribe("BTCUSD", Channel.BOOK):
        rig.wire.send(frame)
    rig.pump()

    assert asked == []
    assert rig.shown("BTCUSD") is None
    rig.take(RawKind.FRAME, status % b"online")
    rig.pump()
    assert rig.shown("BTCUSD") == rig.venue.truth()["BTCUSD"]


def test_an_answer_from_before_the_snapshot_is_no_disagreement(rig: Rig) -> None:
    """It was asked for, then updates were lost and the book was begun anew; then it came."""
    trade(rig, 3)
    rig.go(70)
    late = rig.venue.rest_book("ETHUSD")
    rig.answers_checks = False
    rig.venue.fault(FaultKind.WS_DROP, BOOK_OF["ETHUSD"])
    rig.venue.move("ETHUSD", 310_000)
    rig.go()
    trade(rig, 3)
    assert [gap.until_ns > 0 for gap in rig.gaps("ETHUSD")][-2:] == [False, True]
    rig.forget()
    rig.take(RawKind.CHECK, late, "ETHUSD")
    rig.go(30)

    assert rig.gaps("ETHUSD") == []
    assert rig.shown("ETHUSD") == rig.venue.truth()["ETHUSD"]


def trades_frame(ids: range, kind: str) -> bytes:
    row = (
        '{"symbol":"ETH/USD","side":"buy","price":3000.00,"qty":1.0,"trade_id":%d,'
        '"timestamp":"2026-01-05T09:00:00.000000Z"}'
    )
    rows = ",".join(row % number for number in ids)
    return f'{{"channel":"trade","type":"{kind}","data":[{rows}]}}'.encode()


def test_a_snapshot_that_begins_before_we_listened_is_no_restart() -> None:
    """The first snapshot could not be read, then a trade came, then the snapshot asked for again."""
    machine = KrakenMachine([instrument_of(MARKETS[1])], frozenset({Channel.TRADES}))
    machine.take(RawItem(RawKind.CONNECTED, 1, 1))
    told: list[object] = []
    for number, (ids, kind) in enumerate(
        [
            (range(101, 102), "update"),
            (range(52, 102), "snapshot"),
            (range(55, 105), "snapshot"),
            (range(105, 106), "update"),
        ],
        start=2,
    ):
        told += machine.take(RawItem(RawKind.FRAME, number, 1, "", trades_frame(ids, kind)))

    found = [int(one.trade_id) for one in told if isinstance(one, TradeSeen)]
    assert found == [101, 102, 103, 104, 105]
    assert {one.reason for one in told if isinstance(one, GapSeen)} == {GapReason.STARTED}


def test_a_snapshot_of_lower_ids_is_a_venue_that_counts_anew() -> None:
    machine = KrakenMachine([instrument_of(MARKETS[1])], frozenset({Channel.TRADES}))
    machine.take(RawItem(RawKind.CONNECTED, 1, 1))
    told: list[object] = []
    for number, (ids, kind) in enumerate(
        [(range(900, 950), "snapshot"), (range(950, 951), "update"), (range(1, 31), "snapshot")],
        start=2,
    ):
        told += machine.take(RawItem(RawKind.FRAME, number, 1, "", trades_frame(ids, kind)))

    assert GapReason.RESTARTED in {one.reason for one in told if isinstance(one, GapSeen)}
    found = [int(one.trade_id) for one in told if isinstance(one, TradeSeen)]
    assert found == [950, *range(1, 31)]


@pytest.mark.parametrize(
    ("wire", "channel"),
    [("trade", Channel.TRADES), ("ticker", Channel.BEST), ("ticker", Channel.TICKER),
     ("ohlc", Channel.CANDLES)],
)  # fmt: skip
def test_a_stream_that_dies_alone_is_found_by_what_the_others_show(
    rig: Rig, wire: str, channel: Channel
) -> None:
    trade(rig, 20)
    rig.forget()
    rig.venue.fault(FaultKind.WS_SILENT, f"{wire}/BTC/USD")
    trade(rig, 200)

    reasons = [gap.reason for gap in rig.gaps("BTCUSD", channel)]
    assert GapReason.SILENT in reasons
    assert WantResubscribe("BTCUSD", channel) in rig.requests
    assert not any(isinstance(one, WantReconnect) for one in rig.requests)
    rig.venue.faults.clear()
    trade(rig, 300)
    assert rig.gaps("BTCUSD", channel)[-1].until_ns
    assert rig.gaps("ETHUSD", channel) == []
    if channel is Channel.TRADES:
        told = [e for e in rig.events if isinstance(e, TradeSeen) and e.symbol == "BTCUSD"]
        assert len({e.trade_id for e in told}) == len(told)
    assert again_of(rig)[-len(rig.events) :] == rig.events


def again_of(rig: Rig) -> list[MarketEvent]:
    """Return what another machine tells of what was recorded: of looks, those that mattered."""
    policy = KrakenPolicy(depth=DEPTH)
    machine = KrakenMachine(map(instrument_of, MARKETS), EVERY, policy)
    found = [one for item in rig.items for one in machine.take(item)]
    return [one for one in found if isinstance(one, MarketEvent)]


def test_in_a_market_where_nothing_happens_nothing_is_silent(rig: Rig) -> None:
    trade(rig, 20)
    rig.forget()
    rig.go(1_000)

    assert [e for e in rig.events if isinstance(e, GapSeen)] == []
    assert not any(isinstance(one, WantResubscribe) for one in rig.requests)


def test_a_silent_book_of_which_rest_says_nothing_is_asked_for_again(rig: Rig) -> None:
    """Heartbeats go on, so the connection lives; of this book nobody says that it is still so."""
    trade(rig, 3)
    rig.answers_checks = False
    rig.venue.fault(FaultKind.WS_SILENT, BOOK_OF["BTCUSD"])
    rig.venue.move("BTCUSD", 610_000)
    rig.forget()
    rig.go(320)

    assert rig.gaps("BTCUSD")[0].reason is GapReason.SILENT
    assert rig.shown("BTCUSD") is None
    rig.venue.faults.clear()
    seconds(rig, 60)
    assert rig.shown("BTCUSD") == rig.venue.truth()["BTCUSD"]


def test_a_ticker_that_is_older_than_the_one_before_it_is_not_shown() -> None:
    """A late frame; but where the venue's clock was set back, its time is followed in the end."""
    machine = KrakenMachine([instrument_of(MARKETS[1])], frozenset({Channel.BEST}))
    machine.take(RawItem(RawKind.CONNECTED, 1, 1))

    def said(bid: int, second: int) -> list[int]:
        row = (
            '{"symbol":"ETH/USD","bid":%d.00,"bid_qty":1,"ask":4000.00,"ask_qty":1,"last":1,'
            '"volume":1,"low":1,"high":1,"change":0,"timestamp":"2026-01-05T09:00:%02d.000000Z"}'
        )
        data = f'{{"channel":"ticker","type":"update","data":[{row % (bid, second)}]}}'.encode()
        found = machine.take(RawItem(RawKind.FRAME, 2, 1, "", data))
        return [one.bid_ticks for one in found if isinstance(one, BestSeen)]

    assert said(3000, 10) == [300_000]
    assert said(2999, 11) == [299_900]
    assert said(3000, 10) == []
    assert said(2998, 11) == [299_800]
    assert [said(2997, 5) for _ in range(21)][-1] == [299_700]
