"""The runner against a venue that misbehaves: never a wrong book, never a hang, each gap told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from marketdata.consumers import LosslessQueue, Overflow
from marketdata.events import BookUpdate, Channel, GapSeen, MarketEvent
from marketdata.freshness import Freshness, judge
from marketdata.model import StreamState
from marketdata.raw import RawItem, RawKind
from tests.venues.binance.world import BOTH, BTC, ETH
from tests.venues.feeds.conftest import CLOCK, IMPATIENT, QUICK, streaming, top_of
from venues.binance.feed import BinanceFeed, lanes
from venues.binance.policy import StreamWatch
from venues.binance.wire import wire
from venues.feeds.factory import LaneRouter, running
from venues.feeds.ports import FrameSocket, Transport
from venues.feeds.runner import FeedRunner
from venues.feeds.web import open_transport
from venues.simulator.faults import FaultKind
from venues.simulator.server import VenueSimulator

PATIENCE = timedelta(seconds=20)
DEPTH = "/api/v3/depth"


async def test_a_feed_shows_the_venues_books_and_says_how_it_is_doing(
    venue: VenueSimulator,
) -> None:
    async with streaming(venue) as feed:
        view = await feed.runner.wait_for_book("ETHUSDT", PATIENCE)
        assert view is not None
        assert judge(view, now=CLOCK.now(), age_max=PATIENCE) is Freshness.FRESH
        feed.move("ETHUSDT", 310_000)
        await feed.until_true()
        await feed.until(lambda: all(one.state is StreamState.LIVE for one in feed.runner.status()))

        found = {(one.symbol, one.channel): one for one in feed.runner.status()}
    assert len(found) == 2 * len(Channel)
    book = found["ETHUSDT", Channel.BOOK]
    assert book.messages >= 2
    assert book.sequence
    assert (book.gaps, book.reconnects, book.detail) == (1, 0, "")
    assert book.last_event_at is not None


async def test_a_slot_shows_the_newest_book_and_nothing_from_the_moment_that_it_is_lost(
    venue: VenueSimulator,
) -> None:
    async with streaming(venue) as feed:
        slot = feed.runner.latest("ETHUSDT")
        await slot.wait()
        seen = slot.version
        feed.move("ETHUSDT", 320_000)
        view = await asyncio.wait_for(slot.wait(seen), 20)
        assert top_of(view) == feed.true_top("ETHUSDT")
        feed.fault(FaultKind.HANG_BEFORE_ACCEPT, DEPTH, seconds=30.0, count=2)
        feed.fault(FaultKind.WS_CLOSE, "depth")
        feed.move("ETHUSDT", 321_000)
        await feed.until(lambda: slot.get() is None)
        assert feed.runner.book("ETHUSDT") is None
        await feed.until_true()
        await slot.wait()


@pytest.mark.parametrize(
    "kind",
    [
        FaultKind.WS_DROP,
        FaultKind.WS_BAD_JSON,
        FaultKind.WS_WRONG_TYPES,
        FaultKind.WS_CLOSE,
        FaultKind.WS_DEAF,
    ],
    ids=lambda kind: kind.value,
)
async def test_a_fault_of_frames_is_told_and_the_truth_shown_again(
    venue: VenueSimulator, kind: FaultKind
) -> None:
    watch = IMPATIENT if kind is FaultKind.WS_DEAF else None
    async with streaming(venue, watch=watch) as feed:
        await feed.until_true()
        feed.fault(kind, "ethusdt@depth")
        feed.move("ETHUSDT", 305_000)
        await asyncio.sleep(0.05)
        feed.move("ETHUSDT", 306_000)
        await feed.until(lambda: bool(feed.reasons("ETHUSDT")))
        await feed.until_true()

        ended = [one for one in feed.told() if isinstance(one, GapSeen) and one.until_ns]
    assert {one.channel for one in ended if one.symbol == "ETHUSDT"} >= {Channel.BOOK}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (FaultKind.HANG_BEFORE_ACCEPT, {"seconds": 30.0, "count": 2}),
        (FaultKind.RATE_LIMITED_429, {}),
        (FaultKind.BANNED_418, {}),
        (FaultKind.HTML_502, {"count": 2}),
        (FaultKind.STATUS_503, {"count": 2}),
        (FaultKind.TRUNCATED_200, {"count": 2}),
        (FaultKind.RESET_BEFORE, {"count": 2}),
    ],
    ids=lambda value: value.value if isinstance(value, FaultKind) else "",
)
async def test_a_snapshot_that_does_not_come_is_asked_for_until_it_does(
    venue: VenueSimulator, kind: FaultKind, options: dict[str, float]
) -> None:
    async with streaming(venue, channels=[Channel.BOOK]) as feed:
        feed.fault(kind, DEPTH, **options)
        feed.fault(kind, DEPTH, **options)
        await feed.until_true()

        assert feed.reasons("ETHUSDT") == []


async def test_a_venue_that_says_when_to_come_back_is_not_asked_before(
    venue: VenueSimulator,
) -> None:
    """The simulator's 429 says one second; our own pauses here are a fifth of it at most."""
    async with streaming(venue, channels=[Channel.BOOK], instruments=[ETH]) as feed:
        feed.fault(FaultKind.RATE_LIMITED_429, DEPTH)
        await feed.runner.wait_for_book("ETHUSDT", PATIENCE)
        items = feed.happened()

    connected, snapshot = (
        next(one for one in items if one.kind is kind)
        for kind in (RawKind.CONNECTED, RawKind.SNAPSHOT)
    )
    assert snapshot.received_ns - connected.received_ns >= 900_000_000


async def test_one_symbols_snapshot_that_hangs_holds_up_no_other(venue: VenueSimulator) -> None:
    """Only BTC is asked for while the fault is there: it hangs for ever."""
    policy = replace(QUICK, answer_timeout=timedelta(seconds=60))
    watch = StreamWatch(silence_ns=60 * 10**9)
    async with streaming(venue, channels=[Channel.BOOK], policy=policy, watch=watch) as feed:
        await feed.until_true()
        feed.fault(FaultKind.HANG_BEFORE_ACCEPT, DEPTH, seconds=60.0)
        feed.fault(FaultKind.WS_DROP, "btcusdt@depth")
        mids = iter(range(6_000_000, 9_000_000, 1_000))

        def is_lost() -> bool:
            feed.move("BTCUSDT", next(mids))
            return bool(feed.reasons("BTCUSDT"))

        await feed.until(is_lost)
        feed.move("ETHUSDT", 311_000)
        await feed.until(lambda: feed.is_true("ETHUSDT"))

        assert feed.runner.book("BTCUSDT") is None
        assert feed.reasons("ETHUSDT") == []


async def test_lanes_are_independent_and_a_recording_tells_them_apart(
    venue: VenueSimulator,
) -> None:
    def machines() -> list[BinanceFeed]:
        return [BinanceFeed([one]) for one in (ETH, BTC)]

    async with streaming(venue, machines=machines()) as feed:
        await feed.until_true()
        feed.fault(FaultKind.WS_CLOSE, "ethusdt@depth")
        feed.move("ETHUSDT", 307_000)
        await feed.until(lambda: bool(feed.reasons("ETHUSDT")))
        await feed.until_true()

        assert feed.reasons("BTCUSDT") == []
    events, items = feed.told(), feed.happened()
    again = LaneRouter(machines())
    found = [event for item in items for event in again.take(item)]
    assert [one for one in found if isinstance(one, BookUpdate | GapSeen)] == [
        one for one in events if isinstance(one, BookUpdate | GapSeen)
    ]


async def test_what_is_recorded_live_tells_the_same_story_again(venue: VenueSimulator) -> None:
    async with streaming(venue) as feed:
        await feed.until_true()
        for kind in (FaultKind.WS_DROP, FaultKind.WS_WRONG_TYPES, FaultKind.WS_CLOSE):
            feed.fault(kind, "depth")
            feed.move()
            feed.move("ETHUSDT", 308_000)
            await asyncio.sleep(0.05)
            feed.move("BTCUSDT", 6_150_000)
            await feed.until_true()

    (machine,) = lanes(BOTH)
    requests_too = [event for item in feed.happened() for event in machine.take(item)]
    told = {type(one) for one in feed.told()}
    assert [one for one in requests_too if type(one) in told] == feed.told()


async def test_a_silent_socket_is_rebuilt_and_never_shown_as_fresh(venue: VenueSimulator) -> None:
    async with streaming(venue, watch=IMPATIENT) as feed:
        await feed.until_true()
        feed.fault(FaultKind.WS_SILENT)
        feed.move("ETHUSDT", 312_000)
        moved_at = CLOCK.now()
        await feed.until(lambda: any(one.reconnects for one in feed.runner.status()))
        shown = feed.runner.book("ETHUSDT")
        assert shown is None or feed.is_true("ETHUSDT") or shown.received_at <= moved_at
        feed.clear_faults()
        await feed.until_true()

        assert "silent" in feed.reasons("ETHUSDT")


async def test_a_quiet_market_stays_fresh_over_the_same_socket(venue: VenueSimulator) -> None:
    watch = replace(StreamWatch(), silence_ns=IMPATIENT.silence_ns)
    async with streaming(venue, watch=watch) as feed:
        first = await feed.runner.wait_for_book("ETHUSDT", PATIENCE)
        assert first is not None

        def is_fresher() -> bool:
            view = feed.runner.book("ETHUSDT")
            return view is not None and view.received_at > first.received_at + timedelta(seconds=1)

        await feed.until(is_fresher)
        view = feed.runner.book("ETHUSDT")
        assert view is not None
        assert view.sequence == first.sequence
        assert {one.reconnects for one in feed.runner.status()} == {0}


async def test_a_socket_is_given_up_before_the_venue_ends_it(venue: VenueSimulator) -> None:
    policy = replace(QUICK, session_max=timedelta(milliseconds=300))
    async with streaming(venue, policy=policy, channels=[Channel.BOOK]) as feed:
        await feed.until(lambda: len(feed.reasons("ETHUSDT")) >= 2)
        items = feed.happened()

    lost = [one.data for one in items if one.kind is RawKind.LOST]
    assert lost[0] == b"closed: the connection is old"


async def test_a_venue_that_is_not_there_is_waited_for(venue: VenueSimulator) -> None:
    at = wire("http://127.0.0.1:9", "ws://127.0.0.1:9")
    async with streaming(venue, at=at) as feed:
        await feed.until(lambda: sum(one.kind is RawKind.LOST for one in feed.happened()) >= 3)

        assert feed.runner.book("ETHUSDT") is None
        assert {one.state for one in feed.runner.status()} == {StreamState.DOWN}
        assert await feed.runner.wait_for_book("ETHUSDT", timedelta(milliseconds=20)) is None


async def test_a_consumer_that_does_not_read_is_told_what_it_missed_and_slows_nobody(
    venue: VenueSimulator,
) -> None:
    slow: LosslessQueue[MarketEvent] = LosslessQueue(4)
    raw: LosslessQueue[RawItem] = LosslessQueue(4)
    async with streaming(venue) as feed:
        with feed.runner.events(slow), feed.runner.raw(raw):
            for mid in range(300_000, 302_000, 100):
                feed.move("ETHUSDT", mid)
                await asyncio.sleep(0.005)
            await feed.until_true()
            await feed.until(lambda: slow.dropped > 0 < raw.dropped)

        assert len(slow) <= 5
        assert any(isinstance(one, Overflow) for one in slow.take_nowait(100))
    slow.take_nowait(100)
    assert not len(slow), "it is told nothing any more"


async def test_the_order_of_what_is_recorded_is_the_order_in_which_it_was_told(
    venue: VenueSimulator,
) -> None:
    async with streaming(venue) as feed:
        await feed.until_true()
        feed.move("ETHUSDT", 309_000)
        await feed.until_true()
    items = feed.happened()

    assert items[0].kind is RawKind.CONNECTED
    assert items[-1].kind is RawKind.LOST
    times = [one.received_ns for one in items]
    assert times == sorted(times)
    assert all(one.symbol for one in items if one.kind in (RawKind.SNAPSHOT, RawKind.CHECK))


class SlowToClose:
    """A way to the venue whose sockets take long to close: the other end does not answer."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.address, self.limits = inner.address, inner.limits
        self.book, self.check = inner.book, inner.check
        self.closing = asyncio.Event()
        self.may_close = asyncio.Event()

    @asynccontextmanager
    async def connect(self, lane: int) -> AsyncIterator[FrameSocket]:
        async with self._inner.connect(lane) as socket:
            try:
                yield socket
            finally:
                self.closing.set()
                await self.may_close.wait()


async def test_a_book_is_not_shown_while_its_socket_takes_long_to_close(
    venue: VenueSimulator,
) -> None:
    """Nobody reads it any longer, so nobody knows what the book is."""
    async with open_transport(wire(venue.url, venue.ws_url)) as inner:
        transport = SlowToClose(inner)
        policy = replace(QUICK, session_max=timedelta(seconds=1))
        runner = FeedRunner(lanes(BOTH), transport, CLOCK, chance=lambda: 0.0, policy=policy)
        async with running(runner):
            assert await runner.wait_for_book("ETHUSDT", PATIENCE) is not None
            slot = runner.latest("ETHUSDT")
            async with asyncio.timeout(20):
                await transport.closing.wait()
            shown = runner.book("ETHUSDT"), slot.get()
            transport.may_close.set()

    assert shown == (None, None)
