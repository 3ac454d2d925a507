"""The machine of what ccxt said, by hand: silence, late answers, streams that are over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import msgspec

from kernel.clock import SystemClock
from marketdata.events import Channel, GapReason, GapSeen, WantCheck, WantResubscribe
from marketdata.raw import RawItem, RawKind
from marketdata.testing import eth_usdt
from venues.ccxt.endpoint import Endpoint
from venues.ccxt.feed import CcxtSocket, CcxtVenue
from venues.ccxt.tap import Reader, Tap
from venues.ccxt.unified import (
    BookSaid,
    Depth,
    Heard,
    Listening,
    Lost,
    Said,
    TickerSaid,
    TradeSaid,
    UnifiedMachine,
    UnifiedPolicy,
)
from venues.records import RECORDS

SECOND = 10**9
ETH = eth_usdt("sim")
BIDS, ASKS = [("2999.50", "1.5"), ("2999.40", "2")], [("3000.50", "1.5")]
POLICY = UnifiedPolicy(quiet_ns=2 * SECOND, unproved_ns=60 * SECOND)


class Told:
    """A machine and everything that it has told."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self.machine = UnifiedMachine([ETH], frozenset(channels), POLICY)
        self.all: list[Any] = []
        self.give(RawKind.CONNECTED, 1)

    def give(self, kind: RawKind, at_ns: int, data: bytes = b"") -> None:
        self.all += self.machine.take(RawItem(kind, at_ns, 1, ETH.symbol, data))

    def say(self, said: Said, at_ns: int) -> None:
        self.give(RawKind.FRAME, at_ns, msgspec.json.encode(Heard("{}", [said])))

    def gaps(self) -> list[GapReason]:
        found = [one for one in self.all if isinstance(one, GapSeen) and not one.until_ns]
        return [one.reason for one in found if one.reason is not GapReason.STARTED]


def whole() -> BookSaid:
    return BookSaid(ETH.symbol, 1, True, BIDS, ASKS)


def test_an_answer_from_before_the_book_began_is_no_disagreement() -> None:
    """It was asked for, then the stream was built anew, with another book; then it came."""
    told = Told([Channel.BOOK])
    told.say(whole(), 2)
    told.give(RawKind.TICK, 10 * SECOND)
    assert WantCheck(ETH.symbol) in told.all
    told.say(Lost(ETH.symbol, Channel.BOOK, GapReason.CLOSED, ""), 11 * SECOND)
    told.say(whole(), 12 * SECOND)
    late = Depth([("2999.50", "7")], [("3000.50", "7")])
    told.give(RawKind.CHECK, 12 * SECOND + 1, msgspec.json.encode(late))
    for half in range(25, 30):
        told.give(RawKind.TICK, half * SECOND // 2)

    assert told.gaps() == [GapReason.CLOSED]
    asked = [one for one in told.all if isinstance(one, WantCheck)]
    told.give(RawKind.CHECK, 15 * SECOND, msgspec.json.encode(late))
    told.give(RawKind.TICK, 16 * SECOND + 1)
    assert len(asked) == 2
    assert told.gaps() == [GapReason.CLOSED, GapReason.DISAGREES]  # asked for since


def test_a_ticker_that_says_nothing_of_the_trades_is_silent_and_built_anew() -> None:
    told = Told([Channel.TRADES, Channel.TICKER])
    for channel in (Channel.TRADES, Channel.TICKER):
        told.say(Listening(ETH.symbol, channel), 2)
    said = TickerSaid(ETH.symbol, "3000", "2990", "3010", "2980", "12.5")
    told.say(said, SECOND)
    for number in range(1, 14):
        told.say(TradeSaid(ETH.symbol, str(number), "3000", "1", "buy"), number * SECOND)
        told.give(RawKind.TICK, number * SECOND)
    assert told.gaps() == []
    told.give(RawKind.TICK, 14 * SECOND)

    assert told.gaps() == [GapReason.SILENT]
    assert told.all[-1] == WantResubscribe(ETH.symbol, Channel.TICKER)


def test_a_market_without_trades_is_not_silent() -> None:
    told = Told([Channel.TRADES, Channel.TICKER, Channel.CANDLES])
    for channel in (Channel.TRADES, Channel.TICKER, Channel.CANDLES):
        told.say(Listening(ETH.symbol, channel), 2)
    for second in range(1, 1_000):
        told.give(RawKind.TICK, second * SECOND)

    assert told.gaps() == []


async def test_a_tap_that_was_ended_tells_nothing_more() -> None:
    """While ccxt closes, frames still come; the stream that takes its place must not hear them."""
    heard: list[object] = []
    client: Any = SimpleNamespace(
        handle_text_or_binary_message=lambda _: client.resolve({"symbol": "ETH/USDT"}, "hash"),
        resolve=lambda result, _: result,
        connected=asyncio.get_running_loop().create_future(),
    )
    exchange = SimpleNamespace(client=lambda _: client)
    tap = Tap(
        exchange,
        Reader(ETH.symbol, "ETH/USDT", Channel.BOOK, 60),
        told=lambda raw, said: heard.append((raw, said)),
        broken=lambda reason, detail: heard.append((reason, detail)),
        connected=lambda: None,
        checks_levels=True,
    )
    exchange.client("ws://venue")
    client.resolve({"symbol": "ETH/USDT", "bids": [["1", "1"]], "asks": []}, "hash")
    assert len(heard) == 1
    tap.end()
    client.handle_text_or_binary_message('{"bids": 5}')
    client.resolve({"symbol": "ETH/USDT", "bids": [["2", "1"]], "asks": []}, "hash")
    assert len(heard) == 1


async def test_an_instance_that_does_not_close_takes_no_other_stream_with_it() -> None:
    class Stubborn:
        id = "stubborn"

        async def close(self) -> None:
            raise TimeoutError

    venue = CcxtVenue(
        capabilities=RECORDS["binanceus"],
        endpoint=Endpoint(),
        instruments=(ETH,),
        timeout=timedelta(seconds=5),
    )
    socket = CcxtSocket(venue, None, SystemClock())
    socket._open.add(Stubborn())
    await socket.close()
    assert not socket._open
