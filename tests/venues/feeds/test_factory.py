"""What a recording says of its feed makes the machines that the feed had, and finds each its items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kernel.errors import BadInput
from marketdata.events import Channel
from marketdata.raw import RawItem, RawKind
from marketdata.recording.model import SegmentHeader
from marketdata.testing import eth_usdt
from venues.feeds.factory import (
    FeedPlan,
    LaneRouter,
    feed_of,
    machine_of,
    machines_of,
    plan_of,
)
from venues.records import capabilities_of

GRID = eth_usdt("here")
FEEDS = tuple(feed_of(capabilities_of(name)) for name in ("binance", "kraken", "binanceus"))


def plan(**changes: Any) -> FeedPlan:
    usual: dict[str, Any] = {
        "feed": "binance",
        "instruments": (GRID,),
        "channels": frozenset({Channel.BOOK, Channel.CANDLES}),
        "candle": timedelta(minutes=5),
        "silence": timedelta(milliseconds=2_500),
        "check": timedelta(seconds=30),
    }
    return FeedPlan(**(usual | changes))


def header(of: FeedPlan, **changes: Any) -> SegmentHeader:
    usual: dict[str, Any] = {
        "venue": "here",
        "feed": of.feed,
        "session": "1",
        "number": 1,
        "started_ns": 1,
        "instruments": of.instruments,
        "options": of.options,
    }
    return SegmentHeader(**(usual | changes))


@pytest.mark.parametrize("feed", FEEDS)
def test_a_header_gives_back_the_plan_that_it_was_made_of(feed: str) -> None:
    wanted = plan(feed=feed)

    assert plan_of(header(wanted)) == wanted
    assert machine_of(header(wanted)).venue == "here"


@pytest.mark.parametrize("feed", FEEDS)
def test_the_machines_of_a_recording_ask_for_what_the_feed_asked_for(feed: str) -> None:
    wanted = plan(feed=feed)
    (live,) = machines_of(wanted)
    (again,) = machines_of(plan_of(header(wanted)))
    connected = RawItem(RawKind.CONNECTED, 1, 1, "", b"0 ws://here")

    assert [*live.take(connected)] == [*again.take(connected)]
    assert [*live.subscriptions()] == [*again.subscriptions()]


@pytest.mark.parametrize(
    "options", [(), (("channels", "books"),), (("candle_us", "soon"), ("channels", "book"))]
)
def test_a_header_that_does_not_say_how_it_was_made_is_refused(options: tuple[Any, ...]) -> None:
    with pytest.raises(BadInput, match="does not say"):
        plan_of(header(plan(), options=options))


@pytest.mark.parametrize(
    "changes", [{"feed": "okx"}, {"instruments": ()}, {"channels": frozenset()}]
)
def test_a_plan_that_follows_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        plan(**changes)


class Ear:
    """A machine that remembers what it was given."""

    def __init__(self) -> None:
        self.venue = "here"
        self.heard: list[RawItem] = []

    def take(self, item: RawItem) -> Sequence[Any]:
        self.heard.append(item)
        return ()

    def book(self, symbol: str) -> None:
        return None

    def subscriptions(self) -> Sequence[bytes]:
        return ()

    def resubscribe(self, symbol: str, channel: Channel) -> Sequence[bytes]:
        return ()


def test_each_item_goes_to_the_lane_of_its_connection_and_a_loss_to_all() -> None:
    ears = [Ear(), Ear(), Ear()]
    router = LaneRouter(ears)
    frames = [RawItem(RawKind.FRAME, 1, number, "", b"") for number in (3, 4, 5, 7)]
    for frame in frames:
        router.take(frame)
    router.take(RawItem(RawKind.LOST, 2, 0, "", b"overflow: 5 items not recorded"))

    assert [[item.connection for item in ear.heard] for ear in ears] == [[3, 3], [4, 7, 7], [5, 5]]
    assert {ear.heard[-1].kind for ear in ears} == {RawKind.LOST}


def test_many_symbols_need_several_sockets_and_the_header_says_how_many() -> None:
    grids = tuple(replace(GRID, symbol=f"S{number}USDT") for number in range(150))
    wanted = plan(instruments=grids)

    assert len(machines_of(wanted)) == 2
    assert dict(wanted.options)["lanes"] == "2"
    router = machine_of(header(wanted))
    assert router.book("S0USDT") is not None
    assert router.book("S149USDT") is not None
    assert router.book("NONE") is None
