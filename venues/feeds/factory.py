"""The machines of a feed from what a recording's header says, and a running feed of a venue.

What a machine is made with is written down as texts, so that the same texts make the same machines
for a recording as they made for the live feed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import msgspec

from kernel.clock import Clock
from kernel.errors import BadInput
from marketdata.book import L2Book
from marketdata.events import Channel, MarketEvent, Request
from marketdata.model import Instrument
from marketdata.ports import FeedMachine
from marketdata.raw import RawItem, RawKind
from marketdata.recording.model import SegmentHeader
from venues.binance import feed as binance
from venues.binance.policy import StreamWatch
from venues.binance.wire import wire as binance_wire
from venues.capabilities import Capabilities, Dialect
from venues.ccxt.endpoint import Endpoint
from venues.ccxt.feed import CcxtVenue, open_ccxt
from venues.ccxt.unified import UnifiedMachine, UnifiedPolicy
from venues.feeds.model import FeedPolicy, VenueWire
from venues.feeds.runner import FeedRunner
from venues.feeds.web import open_transport
from venues.kraken.feed import KrakenMachine, KrakenPolicy
from venues.kraken.wire import wire as kraken_wire
from venues.records import RECORDS

BINANCE: Final = "binance"
KRAKEN: Final = "kraken"
FEEDS: Final = (BINANCE, KRAKEN)
CCXT: Final = "ccxt:"
"""Begins the name of a feed that ccxt.pro reads; the class of ccxt follows."""
UNPROVED: Final = 3
"""A silent book that could not be compared for so many silences is not shown any longer."""
_US: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPlan:
    """What a feed follows, and how it is watched.

    Attributes:
        feed: which machine reads it.
        instruments: all of one venue.
        silence: a stream that says nothing for so long is suspected.
        check: between two comparisons of a book with the venue's REST; zero: none.
    """

    feed: str
    instruments: tuple[Instrument, ...]
    channels: frozenset[Channel]
    candle: timedelta = timedelta(minutes=1)
    silence: timedelta = timedelta(seconds=5)
    check: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        if self.feed not in FEEDS and not self.feed.startswith(CCXT):
            raise BadInput(
                f"there is no feed {self.feed!r}", remedy=f"There are {', '.join(FEEDS)}"
            )
        if not self.instruments or not self.channels:
            raise BadInput("a feed follows at least one channel of one instrument")

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """Return what else a recording of it must say, as texts."""
        return (
            ("candle_us", str(self.candle // _US)),
            ("channels", ",".join(sorted(map(str, self.channels)))),
            ("check_us", str(self.check // _US)),
            ("lanes", str(len(machines_of(self)))),
            ("silence_us", str(self.silence // _US)),
        )


def feed_of(capabilities: Capabilities) -> str:
    """Return which machine reads a venue's streams: one of our own, or any other's through ccxt."""
    found = {Dialect.BINANCE: BINANCE, Dialect.KRAKEN: KRAKEN}.get(capabilities.dialect)
    return CCXT + capabilities.ccxt_id if found is None else found


def plan_of(header: SegmentHeader) -> FeedPlan:
    """Return what the feed of a recording followed.

    Raises:
        BadInput: the header does not say enough.
    """
    options = dict(header.options)
    try:
        return FeedPlan(
            feed=header.feed,
            instruments=header.instruments,
            channels=frozenset(map(Channel, options["channels"].split(","))),
            candle=int(options["candle_us"]) * _US,
            silence=int(options["silence_us"]) * _US,
            check=int(options["check_us"]) * _US,
        )
    except (KeyError, ValueError) as error:
        raise BadInput(f"the recording does not say how it was made: {error}") from error


def machines_of(plan: FeedPlan) -> Sequence[FeedMachine]:
    """Return the machines of a feed, one for each of its sockets."""
    candle_s = plan.candle // timedelta(seconds=1)
    silence_ns, check_ns = plan.silence // _US * 1_000, plan.check // _US * 1_000
    if plan.feed == BINANCE:
        watch = StreamWatch(silence_ns=silence_ns)
        watch = replace(watch, check_every_ns=check_ns) if check_ns else watch
        channels = sorted(plan.channels)
        return binance.lanes(plan.instruments, channels=channels, candles_s=candle_s, watch=watch)
    if plan.feed.startswith(CCXT):
        unified = UnifiedPolicy(
            interval_s=candle_s,
            quiet_ns=silence_ns,
            unproved_ns=UNPROVED * silence_ns,
            check_ns=check_ns,
        )
        return (UnifiedMachine(plan.instruments, plan.channels, unified),)
    policy = KrakenPolicy(interval_s=candle_s, silence_ns=silence_ns, check_ns=check_ns)
    return (KrakenMachine(plan.instruments, plan.channels, policy),)


def machine_of(header: SegmentHeader) -> FeedMachine:
    """Return the machines that a recording's feed had, as one."""
    return LaneRouter(machines_of(plan_of(header)))


class LaneRouter:
    """Several machines of one venue as one: each item goes to the one whose socket it is of.

    The runner numbers connections so that the remainder is the lane's number.
    """

    def __init__(self, machines: Sequence[FeedMachine]) -> None:
        self.venue = machines[0].venue
        self._machines = tuple(machines)
        self._connections = [0] * len(self._machines)

    def take(self, item: RawItem) -> Sequence[MarketEvent | Request]:
        """Return what follows from *item*; what a recording lacks is missing to all of them."""
        if not item.connection and item.kind is RawKind.LOST:
            return [
                one
                for machine, connection in zip(self._machines, self._connections, strict=True)
                for one in machine.take(msgspec.structs.replace(item, connection=connection))
            ]
        lane = item.connection % len(self._machines)
        self._connections[lane] = item.connection
        return self._machines[lane].take(item)

    def book(self, symbol: str) -> L2Book | None:
        """Return the book of *symbol*; None: none of them keeps one."""
        found = (machine.book(symbol) for machine in self._machines)
        return next((book for book in found if book is not None), None)

    def subscriptions(self) -> Sequence[bytes]:
        """Return nothing: it has no socket."""
        return ()

    def resubscribe(self, symbol: str, channel: Channel) -> Sequence[bytes]:
        """Return nothing: it has no socket."""
        del symbol, channel
        return ()


def wire_of(plan: FeedPlan, *, http_url: str, ws_url: str) -> VenueWire:
    """Return where a feed's venue is; empty: where it really is."""
    if plan.feed == BINANCE:
        return binance_wire(http_url or None, ws_url or None)
    return kraken_wire(http_url or None, ws_url or None)


def _ccxt_venue(plan: FeedPlan, *, http_url: str, ws_url: str) -> CcxtVenue:
    name = plan.feed.removeprefix(CCXT)
    records = [record for record in RECORDS.values() if record.ccxt_id == name]
    if not records:
        raise BadInput(f"there is no record of {name}", remedy="Add one (docs/adding-a-venue.md)")
    endpoint = Endpoint(http_url=http_url or None, ws_url=ws_url or None)
    return CcxtVenue(
        capabilities=records[0], endpoint=endpoint, instruments=tuple(plan.instruments)
    )


@asynccontextmanager
async def opened_feed(
    plan: FeedPlan,
    *,
    http_url: str,
    ws_url: str,
    clock: Clock,
    chance: Callable[[], float],
    policy: FeedPolicy | None = None,
) -> AsyncIterator[FeedRunner]:
    """Have a feed that does not run yet, so that whoever records it misses nothing: see `running`.

    Args:
        plan: what it follows.
        http_url: where the venue is; empty: where it really is.
        ws_url: the same of its WebSocket.
        clock: stamps whatever happens.
        chance: gives numbers in [0, 1) that spread reconnections.
        policy: how patient to be.
    """
    if plan.feed.startswith(CCXT):
        venue = _ccxt_venue(plan, http_url=http_url, ws_url=ws_url)
        async with open_ccxt(venue, clock) as through_ccxt:
            yield FeedRunner(machines_of(plan), through_ccxt, clock, chance=chance, policy=policy)
        return
    async with open_transport(wire_of(plan, http_url=http_url, ws_url=ws_url)) as transport:
        runner = FeedRunner(machines_of(plan), transport, clock, chance=chance, policy=policy)
        transport.heard = runner.gate.heard
        yield runner


@asynccontextmanager
async def running(feed: FeedRunner) -> AsyncIterator[FeedRunner]:
    """Let a feed run while the context is open."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(feed.run())
        try:
            yield feed
        finally:
            task.cancel()
