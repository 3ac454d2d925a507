"""The unmodified ccxt.pro class on the simulator's user data stream, with every frame fault."""

from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kernel.clock import SystemClock
from venues.simulator.testing import SimulatorProcess
from venues.streams import ccxt_session
from venues.streams.binance import BinanceStream
from venues.streams.ccxt_session import CcxtSession
from venues.streams.errors import StreamLost
from venues.streams.model import BalanceSeen, FillSeen, GapReason, OrderSeen, StreamEvent

CLOCK = SystemClock()
SOON = timedelta(seconds=10)
"""Before any limit of the stream's own is over."""


def report(number: int) -> dict[str, Any]:
    """Return an execution report of a trade of this number."""
    amounts = {"L": "3000.01", "l": "0.1", "Y": "300.001", "z": "0.1", "n": "0.0001", "N": "ETH"}
    words = {"e": "executionReport", "s": "ETHUSDT", "S": "BUY", "x": "TRADE", "X": "FILLED"}
    return {
        **amounts,
        **words,
        "t": number,
        "i": number,
        "c": f"cw{number}",
        "C": "",
        "m": False,
        "T": 1767603600000,
    }


async def buy(desk: Any, times: int = 1) -> None:
    for _ in range(times):
        await desk.create_order("ETH/USDT", "limit", "buy", 0.1, 4000, {"timeInForce": "IOC"})


async def heard(session: CcxtSession, kind: type[StreamEvent], count: int = 1) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += [event for event in await session.next(100) if isinstance(event, kind)]
    return found


async def lost(session: CcxtSession) -> StreamLost:
    async with asyncio.timeout(20):
        while True:
            try:
                await session.next(100)
            except StreamLost as error:
                return error


async def test_what_happens_to_an_order_is_heard_in_order(stream: BinanceStream, desk: Any) -> None:
    async with stream.connect() as session:
        await buy(desk)
        (fill, *_) = await heard(session, FillSeen)

    assert fill.fill.base == "ETH"
    assert ("ETHUSDT", fill.fill.trade_id) in session.seen


async def test_a_connection_that_answers_is_alive(stream: BinanceStream) -> None:
    async with stream.connect() as session:
        await session.probe(SOON)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("ws_bad_json", GapReason.UNREADABLE),
        ("ws_wrong_types", GapReason.UNREADABLE),
        ("ws_close", GapReason.CLOSED),
    ],
)
async def test_a_stream_that_cannot_be_read_or_ends_says_so_at_once(
    stream: BinanceStream, desk: Any, sim: SimulatorProcess, fault: str, reason: GapReason
) -> None:
    """One frame of bad JSON ends ccxt's receiving loop without a word: ccxt #21731, #23214."""
    async with stream.connect() as session:
        sim.fault(fault, "user", count=4)
        await buy(desk)
        trouble = await lost(session)

    assert trouble.reason is reason
    assert trouble.since <= CLOCK.now()


async def test_what_came_before_the_loss_is_still_handed_out(
    stream: BinanceStream, desk: Any, sim: SimulatorProcess
) -> None:
    async with stream.connect() as session:
        await buy(desk)
        await heard(session, FillSeen)
        sim.fault("ws_bad_json", "user", skip=2)
        await buy(desk)
        await asyncio.sleep(0.2)  # both the events and the bad frame have come
        before = await session.next(100)
        trouble = await lost(session)

    assert before
    assert trouble.reason is GapReason.UNREADABLE


async def test_more_than_the_queue_holds_is_a_gap_and_never_a_wait(
    stream: BinanceStream, desk: Any
) -> None:
    async with stream.connect() as session:
        session._queue_max = 2
        await buy(desk, times=3)
        trouble = await lost(session)

    assert trouble.reason is GapReason.OVERFLOW


async def test_a_venue_that_goes_away_ends_the_stream_and_one_that_is_away_refuses_it(
    stream: BinanceStream, sim: SimulatorProcess
) -> None:
    try:
        async with stream.connect() as session:
            await asyncio.to_thread(sim.kill)
            assert (await lost(session)).reason is GapReason.CLOSED
        with pytest.raises(StreamLost):
            async with stream.connect():
                pytest.fail("nobody is there")
    finally:
        await asyncio.to_thread(sim.start)


async def test_a_venue_that_is_away_leaves_no_words_on_standard_error(
    stream: BinanceStream,
) -> None:
    """Futures of ccxt that nobody waits for any more: asyncio would print each of them."""
    told: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    nowhere = replace(stream.wanted.endpoint, ws_url="ws://127.0.0.1:9")
    stream.wanted = replace(stream.wanted, endpoint=nowhere)
    with pytest.raises(StreamLost):
        async with stream.connect():
            pytest.fail("nobody is there")
    gc.collect()
    await asyncio.sleep(0)

    assert told == []


async def test_a_socket_that_goes_deaf_while_it_is_subscribed_is_given_up_in_time(
    stream: BinanceStream, sim: SimulatorProcess
) -> None:
    usual, stream.connect_timeout = stream.connect_timeout, timedelta(milliseconds=300)
    sim.fault("ws_deaf", "")
    async with asyncio.timeout(SOON / timedelta(seconds=1)):
        with pytest.raises(StreamLost) as found:
            async with stream.connect():
                pytest.fail("it is not subscribed")
    stream.connect_timeout = usual
    async with stream.connect() as session:  # the next one hears
        await session.probe(SOON)

    assert found.value.reason is GapReason.CLOSED


async def test_a_socket_that_is_closed_while_it_is_subscribed_is_lost_at_once(
    stream: BinanceStream, sim: SimulatorProcess
) -> None:
    sim.fault("ws_refuse", "")
    async with asyncio.timeout(SOON / timedelta(seconds=1)):
        with pytest.raises(StreamLost) as found:
            async with stream.connect():
                pytest.fail("it is not subscribed")

    assert found.value.reason is GapReason.CLOSED


async def test_a_balance_told_before_its_fill_is_handed_on_first(
    stream: BinanceStream, desk: Any, sim: SimulatorProcess
) -> None:
    async with stream.connect() as session:
        sim.fault("balance_before_fill", "")
        await buy(desk)
        found: list[StreamEvent] = []
        async with asyncio.timeout(20):
            while not any(isinstance(event, FillSeen) for event in found):
                found += await session.next(1)

    assert isinstance(found[0], BalanceSeen)


async def test_of_the_events_of_a_long_life_only_the_latest_trades_are_remembered(
    stream: BinanceStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ccxt_session, "SEEN_MAX", 100)
    async with stream.connect() as session:
        for number in range(1_000):
            session._receive(json.dumps({"subscriptionId": 0, "event": report(number)}))
            await session.next(10)
        futures = len(session._client.futures)

    assert set(session.seen) == {("ETHUSDT", str(number)) for number in range(900, 1_000)}
    assert futures < 10


async def test_duplicates_and_reports_out_of_order_are_handed_on_as_they_come(
    stream: BinanceStream, desk: Any, sim: SimulatorProcess
) -> None:
    async with stream.connect() as session:
        sim.fault("ws_duplicate", "user", count=3)
        await buy(desk)
        found = await heard(session, OrderSeen, 3)

    assert len(found) >= 3
