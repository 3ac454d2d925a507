"""Whatever a frame or an answer is made into on its way, a machine says what it is and goes on.

An exception would end the task that reads the socket, and with it every stream of the venue.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.events import Channel, MarketEvent, Request
from marketdata.ports import FeedMachine
from marketdata.raw import RawItem, RawKind
from marketdata.testing import eth_usdt
from tests.venues.binance.world import BOTH, live_world
from tests.venues.kraken.bench import EVERY, MARKETS, instrument_of, simulated
from venues.binance.feed import BinanceFeed
from venues.ccxt.unified import (
    BookSaid,
    Depth,
    Heard,
    Said,
    TickerSaid,
    TradeSaid,
    UnifiedMachine,
)
from venues.kraken.feed import KrakenMachine

HEARD = frozenset((RawKind.FRAME, RawKind.SNAPSHOT, RawKind.CHECK))
HEAD = 40
"""By so many bytes a frame tells of what kind it is."""
VALUES = re.compile(rb'"[^"]*"|[-0-9.]+|true|false|null')
PIECES = st.sampled_from(
    [
        b'"\xff"',
        '"é"'.encode(),
        b'"\\ud800"',
        b'"-1"',
        b'"NaN"',
        b'""',
        b"-1",
        b"1e400",
        b"9" * 30,
        b"null",
        b"[]",
        b"{}",
        b"[" * 5_000,
        b"\xff",
    ]
)


@cache
def binance_items() -> tuple[RawItem, ...]:
    world = live_world()
    world.step(20)
    return tuple(world.items)


@cache
def kraken_items() -> tuple[RawItem, ...]:
    with TemporaryDirectory() as folder, simulated(Path(folder)) as rig:
        for _ in range(10):
            rig.venue.step()
            rig.go()
        rig.take(RawKind.CHECK, rig.venue.rest_book("ETHUSD"), "ETHUSD")
        return tuple(rig.items)


@cache
def ccxt_items() -> tuple[RawItem, ...]:
    levels = [("2999.50", "1.5"), ("2999.40", "2")], [("3000.50", "1.5")]
    said: tuple[Said, ...] = (
        BookSaid("ETHUSDT", 1, True, *levels, ms=5),
        TradeSaid("ETHUSDT", "7", "3000", "1", "buy", ms=5),
        TickerSaid("ETHUSDT", "3000", "2990", "3010", "2980", "12.5", ms=5),
        BookSaid("ETHUSDT", 2, False, [("2999.40", "0")], [], ms=6),
    )
    frames = [
        RawItem(RawKind.FRAME, number, 1, "", msgspec.json.encode(Heard("{}", [one])))
        for number, one in enumerate(said, start=2)
    ]
    check = msgspec.json.encode(Depth(*levels))
    connected = RawItem(RawKind.CONNECTED, 1, 1)
    return (connected, *frames, RawItem(RawKind.CHECK, 9, 1, "ETHUSDT", check))


MACHINES: dict[str, tuple[Callable[[], FeedMachine], Callable[[], Sequence[RawItem]]]] = {
    "binance": (lambda: BinanceFeed(BOTH), binance_items),
    "kraken": (lambda: KrakenMachine(map(instrument_of, MARKETS), EVERY), kraken_items),
    "ccxt": (lambda: UnifiedMachine([eth_usdt("sim")], frozenset(Channel)), ccxt_items),
}


def mutilated(items: Sequence[RawItem], data: st.DataObject) -> Iterator[RawItem]:
    """Yield *items* with one of them spoilt: a value put in another's place, or an end torn off."""
    heard = [number for number, one in enumerate(items) if one.kind in HEARD and one.data]
    spoilt = data.draw(st.sampled_from(heard))
    for number, one in enumerate(items):
        if number != spoilt:
            yield one
            continue
        body = one.data
        spans = [found.span() for found in VALUES.finditer(body)]
        begin, end = data.draw(st.sampled_from([*spans, (0, 1), (len(body) // 2, len(body))]))
        piece = data.draw(PIECES)
        yield msgspec.structs.replace(one, data=body[:begin] + piece + body[end:])


@pytest.mark.parametrize("name", MACHINES)
@given(data=st.data())
def test_no_machine_raises_for_what_a_venue_sent(name: str, data: st.DataObject) -> None:
    make, items = MACHINES[name]
    machine = make()
    for item in mutilated(items(), data):
        for one in machine.take(item):
            assert isinstance(one, MarketEvent | Request)


@pytest.mark.parametrize("name", MACHINES)
def test_no_machine_raises_for_bytes_that_are_no_text_or_endlessly_nested_in_any_place(
    name: str,
) -> None:
    make, items = MACHINES[name]
    machine = make()
    connected, *rest = items()
    kinds = {one.data[:HEAD]: one for one in rest if one.kind is RawKind.FRAME}
    for number, item in enumerate(kinds.values()):
        for found in VALUES.finditer(item.data):
            for piece in (b'"\xff"', b"[" * 5_000):
                # A machine that has given its connection up hears no more of it.
                machine.take(msgspec.structs.replace(connected, connection=number + 1))
                body = item.data[: found.start()] + piece + item.data[found.end() :]
                bad = msgspec.structs.replace(item, connection=number + 1, data=body)
                for one in machine.take(bad):
                    assert isinstance(one, MarketEvent | Request)


BROKEN = [b'{"bids":"\xff"}', b'{"bids":' + b"[" * 100_000, b"\xff", b'{"lastUpdateId":"\xff"}']


@pytest.mark.parametrize("body", BROKEN, ids=["utf-8", "nested", "no text", "id"])
def test_an_answer_by_rest_that_is_no_text_or_endlessly_nested_is_asked_for_again(
    body: bytes,
) -> None:
    for name, (make, items) in MACHINES.items():
        machine = make()
        for item in items():
            machine.take(item)
        (last,) = items()[-1:]
        symbol = {"binance": "ETHUSDT", "kraken": "ETHUSD", "ccxt": "ETHUSDT"}[name]
        for kind in (RawKind.SNAPSHOT, RawKind.CHECK):
            answer = RawItem(kind, last.received_ns, last.connection, symbol, body)
            assert list(machine.take(answer)) == []


MISSHAPEN = [
    b'{"channel":"trade","type":"update","data":[{"symbol":"ETH/USD","side":5},{"symbol":"\xff"}]}',
    b'{"channel":"trade","type":"update","data":[{"symbol":' + b"[" * 100_000,
    b'{"channel":"book","type":"update","data":[%s]}'
    % b'{"symbol":"ETH/USD","asks":[],"checksum":1,"bids":[{"price":"\xc3\xa9","qty":1}]}',
    b'{"channel":"\xff","type":5}',
]


@pytest.mark.parametrize("frame", MISSHAPEN, ids=["utf-8", "nested", "price", "channel"])
def test_a_misshapen_frame_of_kraken_is_a_gap_and_no_exception(frame: bytes) -> None:
    machine = KrakenMachine(map(instrument_of, MARKETS), EVERY)
    for item in kraken_items():
        machine.take(item)
    (last,) = kraken_items()[-1:]
    told = machine.take(RawItem(RawKind.FRAME, last.received_ns, last.connection, "", frame))
    assert told
