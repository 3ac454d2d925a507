"""One book: exact digits, the venue's checksum, depth, grids; random books of the venue's own making."""

from __future__ import annotations

import json
from typing import Any
from zlib import crc32

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput
from kernel.money import Asset
from marketdata.events import BookUpdate, Channel, GapReason, GapSeen, MarketEvent, Request
from marketdata.model import Instrument
from marketdata.raw import RawItem, RawKind
from matching.model import NewOrder, Side
from tests.venues.kraken.bench import EVERY, in_units, instrument_of
from venues.kraken.books import BookFault, BookFollower
from venues.kraken.feed import KrakenMachine, KrakenPolicy
from venues.kraken.frames import BookFrame, decode_frame
from venues.kraken.numbers import decimals_of, steps_of, text_of, units_of
from venues.simulator.decimals import UNIT
from venues.simulator.kraken.market_frames import book_snapshot, book_update, view_of
from venues.simulator.kraken.names import Pair
from venues.simulator.kraken.numbers import decimals_of as decimals_of_step
from venues.simulator.market import Market
from venues.simulator.model import SymbolSpec

BTC = SymbolSpec("BTCUSD", "BTC", "USD", UNIT // 10, UNIT // 100_000, 5 * UNIT, 100)
ETH = SymbolSpec("ETHUSD", "ETH", "USD", UNIT // 100, UNIT // 10_000, 5 * UNIT, 100)
USDT = SymbolSpec("USDTUSD", "USDT", "USD", UNIT // 10_000, 1, 1, 100)
DEPTH = 10

# Kraken, guide "Spot WebSockets (v2) book checksum": the book of the example.
DOCUMENTED_ASKS = (
    ("45285.2", "0.00100000"),
    ("45286.4", "1.54571953"),
    ("45286.6", "1.54571109"),
    ("45289.6", "1.54560911"),
    ("45290.2", "0.15890660"),
    ("45291.8", "1.54553491"),
    ("45294.7", "0.04454749"),
    ("45296.1", "0.35380000"),
    ("45297.5", "0.09945542"),
    ("45299.5", "0.18772827"),
)
DOCUMENTED_BIDS = (
    ("45283.5", "0.10000000"),
    ("45283.4", "1.54582015"),
    ("45282.1", "0.10000000"),
    ("45281.0", "0.10000000"),
    ("45280.3", "1.54592586"),
    ("45279.0", "0.07990000"),
    ("45277.6", "0.03310103"),
    ("45277.5", "0.30000000"),
    ("45277.3", "1.54602737"),
    ("45276.6", "0.15445238"),
)
DOCUMENTED_CHECKSUM = 3310070434


def frame(
    bids: Any, asks: Any, checksum: int, kind: str = "snapshot", symbol: str = "BTC/USD"
) -> bytes:
    def side(levels: Any) -> str:
        return ",".join(f'{{"price":{price},"qty":{quantity}}}' for price, quantity in levels)

    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{symbol}",'
        f'"bids":[{side(bids)}],"asks":[{side(asks)}],"checksum":{checksum}}}]}}'
    ).encode()


def taken(follower: BookFollower, data: bytes) -> BookUpdate | BookFault:
    decoded = decode_frame(data)
    assert isinstance(decoded, BookFrame)
    return follower.take(decoded.data[0], 7, is_snapshot=decoded.type == "snapshot")


def follower_of(spec: SymbolSpec = BTC, depth: int = DEPTH) -> BookFollower:
    return BookFollower(instrument_of(spec), depth)


def test_the_example_of_the_documentation_has_its_checksum() -> None:
    follower = follower_of()
    told = taken(follower, frame(DOCUMENTED_BIDS, DOCUMENTED_ASKS, DOCUMENTED_CHECKSUM))

    assert isinstance(told, BookUpdate)
    assert told.bids[0] == (452_835, 10_000_000)
    assert told.asks[0] == (452_852, 100_000)
    assert follower.book.rows(1) == (told.bids[:1], told.asks[:1])


def test_another_checksum_shows_nothing() -> None:
    follower = follower_of()
    told = taken(follower, frame(DOCUMENTED_BIDS, DOCUMENTED_ASKS, DOCUMENTED_CHECKSUM + 1))

    assert isinstance(told, BookFault)
    assert told.reason is GapReason.CHECKSUM
    assert not follower.book.is_live


def test_a_parser_of_floats_would_lose_what_the_checksum_is_made_of() -> None:
    """Why numbers are kept as they were written."""
    data = frame(DOCUMENTED_BIDS, DOCUMENTED_ASKS, DOCUMENTED_CHECKSUM)
    rewritten = json.dumps(json.loads(data), separators=(",", ":")).encode()

    assert b"0.10000000" in data
    assert b"0.10000000" not in rewritten
    follower = follower_of()
    follower.tell_decimals(1, 8)
    assert isinstance(taken(follower, rewritten), BookUpdate)  # known decimals make up for it
    assert isinstance(taken(follower_of(), data), BookUpdate)  # as do the texts by themselves


def test_several_updates_of_one_level_in_a_message_count_in_their_order() -> None:
    follower = follower_of()
    taken(follower, frame(DOCUMENTED_BIDS, DOCUMENTED_ASKS, DOCUMENTED_CHECKSUM))
    again = frame(
        [("45283.5", "9.00000000"), ("45283.5", "0.00000000"), ("45283.5", "0.10000000")],
        [],
        DOCUMENTED_CHECKSUM,
        "update",
    )

    assert isinstance(taken(follower, again), BookUpdate)
    assert follower.book.rows(1)[0] == ((452_835, 10_000_000),)


@pytest.mark.parametrize(
    ("bids", "reason"),
    [
        ([("45283.55", "1.0")], GapReason.MALFORMED),  # not on the grid
        ([("45283.5", "-1.0")], GapReason.MALFORMED),
        ([("-45283.5", "1.0")], GapReason.MALFORMED),
        ([("0.0", "1.0")], GapReason.MALFORMED),
        ([('"45283.5"', "1.0")], GapReason.MALFORMED),  # a text, not a number
        ([("true", "1.0")], GapReason.MALFORMED),
        ([("[]", "1.0")], GapReason.MALFORMED),
        ([("1" * 60, "1.0")], GapReason.MALFORMED),
        ([("45283.5", "1e999")], GapReason.MALFORMED),
        ([("45290.0", "1.0")], GapReason.CROSSED),
        ([("45000.0", "1.00000000")], None),  # falls out of the depth: the best ten are the same
    ],
    ids=str,
)
def test_levels_that_cannot_be_empty_the_book(bids: Any, reason: GapReason | None) -> None:
    follower = follower_of()
    taken(follower, frame(DOCUMENTED_BIDS, DOCUMENTED_ASKS, DOCUMENTED_CHECKSUM))
    told = taken(follower, frame(bids, [], DOCUMENTED_CHECKSUM, "update"))

    assert (told.reason if isinstance(told, BookFault) else None) is reason
    assert follower.book.is_live is (reason is None)


def test_what_falls_out_of_the_depth_is_told_as_removed() -> None:
    follower = follower_of()
    taken(follower, frame(DOCUMENTED_BIDS, DOCUMENTED_ASKS, DOCUMENTED_CHECKSUM))
    told = taken(follower, frame([("45000.0", "1.00000000")], [], DOCUMENTED_CHECKSUM, "update"))

    assert isinstance(told, BookUpdate)
    assert told.bids == ((450_000, 100_000_000), (450_000, 0))


def test_an_update_before_the_snapshot_builds_nothing() -> None:
    follower = follower_of()
    told = taken(follower, frame(DOCUMENTED_BIDS, DOCUMENTED_ASKS, DOCUMENTED_CHECKSUM, "update"))

    assert isinstance(told, BookFault)
    assert not follower.book.is_live


def test_a_tick_of_several_last_decimals_makes_the_same_checksum() -> None:
    """Prices with two decimals on a grid of 0.05, which is one of 0.5 in the instrument's eyes."""
    spec = msgspec.structs.replace(BTC, tick_units=5 * UNIT // 10)
    bids, asks = [("100.50", "1.00000000")], [("101.00", "2.00000000")]
    checksum = crc([*asks, *bids])
    follower = follower_of(spec)
    told = taken(follower, frame(bids, asks, checksum))

    assert isinstance(told, BookUpdate)
    assert (told.bids, told.asks) == (((201, 10**8),), ((202, 2 * 10**8),))


def crc(levels: Any) -> int:

    return crc32(
        "".join(text.replace(".", "").lstrip("0") for row in levels for text in row).encode()
    )


def test_finer_quantities_than_our_units_are_summed_in_the_venues_and_shown_in_ours() -> None:
    """A stablecoin of six decimals that the venue writes with eight."""
    bids = [("0.9998", "1.23456789"), ("0.9997", "0.00000099")]
    asks = [("1.0001", "5.00000001")]
    follower = follower_of(USDT)
    told = taken(follower, frame(bids, asks, crc([*asks, *bids]), symbol="USDT/USD"))

    assert isinstance(told, BookUpdate)
    assert follower.book.rows(9) == (((9998, 1_234_567),), ((10_001, 5_000_000),))


orders = st.tuples(
    st.sampled_from(Side),
    st.integers(85, 115),
    st.integers(1, 50),
    st.booleans(),
    st.integers(0, 5),
)


@pytest.mark.parametrize("spec", [BTC, ETH, USDT], ids=lambda spec: spec.name)
@given(moves=st.lists(orders, min_size=1, max_size=80))
def test_our_checksum_agrees_with_random_books_of_the_venue(
    spec: SymbolSpec, moves: list[tuple[Side, int, int, bool, int]]
) -> None:
    market, pair = Market(spec), Pair(0, spec)
    before = view_of(market, DEPTH)
    follower = follower_of(spec)
    follower.tell_decimals(*decimals(spec))
    assert isinstance(told_by(follower, book_snapshot(pair, before, 0)), BookUpdate)
    prices: dict[int, int] = {}
    for number, (side, price, lots, is_cancel, pause) in enumerate(moves, start=1):
        resting = market.book.orders(side)
        if is_cancel and resting:
            market.cancel(resting[price % len(resting)].order_id)
        else:
            prices[number] = price
            order = NewOrder(number, f"owner-{number}", side, lots, price)
            market.submit(order, 0, prices.__getitem__)
        if pause:
            continue
        after = view_of(market, DEPTH)
        update = book_update(pair, before, after, market, 0)
        before = after
        if update is not None:
            assert isinstance(told_by(follower, update), BookUpdate)
            assert follower.book.rows(DEPTH) == truth(spec, after)


def told_by(follower: BookFollower, frame_of_venue: Any) -> BookUpdate | BookFault:
    return taken(follower, orjson.dumps(frame_of_venue))


def decimals(spec: SymbolSpec) -> tuple[int, int]:
    return decimals_of_step(spec.tick_units), decimals_of_step(spec.lot_units)


def truth(spec: SymbolSpec, view: Any) -> Any:
    base = instrument_of(spec).base

    def side(of: Side) -> Any:
        rows = [(t, in_units(lots * spec.lot_units, base)) for t, lots in view[of].items()]
        return tuple(row for row in rows if row[1])

    return side(Side.BUY), side(Side.SELL)


@pytest.mark.parametrize(
    ("written", "ticks", "units", "decimals"),
    [
        ("45283.5", 452_835, 4_528_350_000_000, 1),
        ("0.10000000", 1, 10_000_000, 8),
        ("100", 1_000, 10_000_000_000, 0),
        ("1e-05", 0, 1_000, 5),
        ("1.5E+3", 15_000, 150_000_000_000, 0),
        ("-12.5", -125, -1_250_000_000, 1),
        ("-0.0", 0, 0, 1),
        ("123456789012.12345678", 1_234_567_890_121, 12_345_678_901_212_345_678, 8),
    ],
)
def test_numbers_are_read_digit_by_digit(
    written: str, ticks: int, units: int, decimals: int
) -> None:
    number, item = msgspec.Raw(written.encode()), instrument_of(BTC)

    assert steps_of(number, item) == ticks
    assert units_of(number, item) == units
    assert decimals_of(number) == decimals


@pytest.mark.parametrize("written", ['"1"', "null", "[1]", "1" * 50, "1e99", "", "0x10", "1_0"])
def test_what_is_no_number_is_refused(written: str) -> None:
    with pytest.raises(BadInput):
        text_of(msgspec.Raw(written.encode()))


def machine() -> KrakenMachine:
    return KrakenMachine([instrument_of(BTC), instrument_of(ETH)], EVERY, KrakenPolicy(depth=10))


NUMBERS = st.one_of(
    st.integers(-5, 10**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none(),
    st.booleans(),
    st.text(max_size=3),
)
JSON = st.recursive(
    NUMBERS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["channel", "data", "type", "symbol", "bids", "asks", "price", "qty"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
CHANNELS = st.sampled_from(
    ["book", "trade", "ticker", "ohlc", "instrument", "status", "heartbeat", "other", 5]
)


@given(
    frames=st.lists(
        st.one_of(
            st.binary(max_size=40),
            JSON.map(json.dumps).map(str.encode),
            st.builds(
                lambda channel, data, kind: json.dumps(
                    {"channel": channel, "type": kind, "data": data}
                ).encode(),
                CHANNELS,
                JSON,
                st.sampled_from(["snapshot", "update", "x"]),
            ),
            st.just(frame(DOCUMENTED_BIDS, DOCUMENTED_ASKS, DOCUMENTED_CHECKSUM)),
            st.just(b"[" * 100_000),
        ),
        max_size=6,
    )
)
def test_no_frame_whatever_raises_or_makes_a_book_without_its_checksum(frames: list[bytes]) -> None:
    tested = machine()
    tested.take(RawItem(RawKind.CONNECTED, 1, 1))
    for number, data in enumerate(frames, start=2):
        for one in tested.take(RawItem(RawKind.FRAME, number, 1, "", data)):
            assert isinstance(one, MarketEvent | Request)
    book = tested.book("BTCUSD")
    assert book is not None
    if book.is_live:
        assert book.rows(1) == (((452_835, 10_000_000),), ((452_852, 100_000),))


def test_a_machine_without_instruments_or_of_two_venues_is_refused() -> None:
    with pytest.raises(BadInput):
        KrakenMachine([], EVERY)
    with pytest.raises(BadInput):
        KrakenMachine([instrument_of(BTC), instrument_of(ETH, "other")], EVERY)


def test_two_instruments_of_one_name_are_refused() -> None:
    one = instrument_of(BTC)
    other = Instrument(
        venue="kraken",
        symbol="XXBTZUSD",
        base=Asset("BTC", 8),
        quote=Asset("USD", 2),
        price_scale=1,
        tick=1,
        lot=1,
        lots_min=1,
        lots_max=9,
        min_notional=0,
    )
    with pytest.raises(BadInput):
        KrakenMachine([one, other], EVERY)


def test_the_start_is_a_gap_even_if_the_venue_does_not_open_its_door() -> None:
    tested = machine()
    found = tested.take(RawItem(RawKind.LOST, 5, 1, "", b"refused: no route"))

    assert {(one.symbol, one.channel) for one in found if isinstance(one, GapSeen)} == {
        (symbol, channel) for symbol in ("BTCUSD", "ETHUSD") for channel in Channel
    }
