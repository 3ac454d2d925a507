"""The runner of one venue's feed: it owns sockets, requests, pauses and the watchdog's clock.

A venue may need several sockets (Binance carries at most so many streams on one): each is a *lane*
with a machine of its own, so what is wrong with one touches no other. Of a lane, one task reads the
socket and hands every frame to the machine; another gives it the time; each request for a book is a
task of its own, so one that hangs holds up nobody. All run in one thread, and a machine never waits:
what it is told is in one order, and that order is what recordings hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import structlog

from kernel.clock import Clock, from_unix_ns
from marketdata.consumers import LatestSlot, LosslessQueue
from marketdata.events import (
    BookUpdate,
    Channel,
    GapReason,
    GapSeen,
    MarketEvent,
    Request,
    WantCheck,
    WantReconnect,
    WantResubscribe,
    WantSnapshot,
)
from marketdata.model import BookView, StreamStatus
from marketdata.ports import FeedMachine
from marketdata.raw import RawItem, RawKind
from venues.capabilities import CallClass
from venues.errors import VenueBusy
from venues.feeds.errors import AskedTooMuch, NoAnswer, SocketLost
from venues.feeds.model import FeedPolicy
from venues.feeds.ports import FrameSocket, Transport
from venues.feeds.status import StatusBoard
from venues.rate_limits import Priority, RateGate
from venues.streams.liveness import pause_before

log = structlog.get_logger()

_SECOND: Final = timedelta(seconds=1)
FRAMES_MAX: Final = 1_000
"""Frames that may wait to be sent; a machine asks for a few for each stream."""

_REQUESTS: Final = (WantSnapshot, WantCheck, WantResubscribe, WantReconnect)
_KINDS: Final = {RawKind.SNAPSHOT: CallClass.BOOK, RawKind.CHECK: CallClass.BOOK_CHECK}


class FeedRunner:
    """See `marketdata.ports.MarketFeed`; `run` keeps it going until it is cancelled."""

    def __init__(
        self,
        machines: Sequence[FeedMachine],
        transport: Transport,
        clock: Clock,
        *,
        chance: Callable[[], float],
        policy: FeedPolicy | None = None,
    ) -> None:
        """Run *machines*, one socket each, all of one venue.

        Args:
            machines: the first is lane 0.
            transport: how the venue is reached.
            clock: stamps whatever happens.
            chance: gives numbers in [0, 1) that spread reconnections.
            policy: how patient to be.
        """
        self.venue = machines[0].venue
        self.policy = policy or FeedPolicy()
        self._transport = transport
        self._clock = clock
        self._chance = chance
        self._board = StatusBoard(self.venue)
        self._gate = RateGate(transport.limits, clock, in_flight_max=self.policy.asking_max)
        self._event_queues: tuple[LosslessQueue[MarketEvent], ...] = ()
        self._raw_queues: tuple[LosslessQueue[RawItem], ...] = ()
        self._gap_queues: tuple[LosslessQueue[GapSeen], ...] = ()
        self._slots: dict[str, LatestSlot[BookView]] = {}
        self._seen_ns: dict[str, int] = {}
        self._changed: set[str] = set()
        self._lanes = tuple(_Lane(number, machine) for number, machine in enumerate(machines))

    @property
    def gate(self) -> RateGate:
        """Return what paces the requests; transports tell it what the venue's headers say."""
        return self._gate

    # What consumers see.

    def book(self, symbol: str) -> BookView | None:
        """Return the newest usable book; None before the first and after a fault or silence."""
        for lane in self._lanes:
            book = lane.machine.book(symbol)
            if book is not None:
                seen_ns = self._seen_ns.get(symbol, 0)
                return book.view(from_unix_ns(seen_ns), self.policy.view_levels)
        return None

    async def wait_for_book(self, symbol: str, timeout: timedelta) -> BookView | None:  # noqa: ASYNC109  the shape of the port
        """Return the newest usable book, waiting for one at most *timeout*."""
        try:
            async with asyncio.timeout(timeout / _SECOND):
                return await self.latest(symbol).wait()
        except TimeoutError:
            return None

    def latest(self, symbol: str) -> LatestSlot[BookView]:
        """Return the slot that shows the symbol's newest usable book."""
        found = self._slots.get(symbol)
        if found is None:
            found = self._slots[symbol] = LatestSlot()
            found.put(self.book(symbol))
        return found

    @contextmanager
    def events(self, queue: LosslessQueue[MarketEvent]) -> Iterator[None]:
        """Put every event into *queue* while the context is open."""
        self._event_queues = (*self._event_queues, queue)
        try:
            yield
        finally:
            self._event_queues = tuple(q for q in self._event_queues if q is not queue)

    @contextmanager
    def raw(self, queue: LosslessQueue[RawItem]) -> Iterator[None]:
        """Put everything that happens, as bytes, into *queue* while the context is open."""
        self._raw_queues = (*self._raw_queues, queue)
        try:
            yield
        finally:
            self._raw_queues = tuple(q for q in self._raw_queues if q is not queue)

    @contextmanager
    def gaps(self, queue: LosslessQueue[GapSeen]) -> Iterator[None]:
        """Put every gap, when it opens and when it ends, into *queue* while the context is open."""
        self._gap_queues = (*self._gap_queues, queue)
        try:
            yield
        finally:
            self._gap_queues = tuple(q for q in self._gap_queues if q is not queue)

    def status(self) -> Sequence[StreamStatus]:
        """Return how each stream is doing now."""
        return self._board.statuses()

    # What keeps it going.

    async def run(self) -> None:
        """Listen until cancelled; each lane heals by itself."""
        try:
            async with asyncio.TaskGroup() as group:
                for lane in self._lanes:
                    group.create_task(self._keep(lane))
        finally:
            self._gate.close()

    async def _keep(self, lane: _Lane) -> None:
        failures, said = 0, ""
        while True:
            began = self._clock.now()
            lost = await self._session(lane)
            if str(lost) != said:
                said = str(lost)
                log.warning("market data lost", venue=self.venue, lane=lane.number, reason=said)
            self._board.reconnects += 1
            if self._clock.now() - began >= self.policy.steady_after:
                failures, said = 0, ""
            pause = pause_before(failures, self.policy, self._chance())
            failures += 1
            await asyncio.sleep(pause / _SECOND)

    async def _session(self, lane: _Lane) -> SocketLost:
        """Connect and listen until the socket is of no more use; return why."""
        # Recordings tell lanes apart by the remainder (`venues.feeds.factory.LaneRouter`).
        lane.begin(lane.connection + len(self._lanes))
        lost = SocketLost(GapReason.CLOSED, "stopped")
        try:
            async with asyncio.timeout(self.policy.connect_timeout / _SECOND) as patience:
                async with self._transport.connect(lane.number) as socket:
                    patience.reschedule(None)
                    await self._listen(lane, socket)
        except* SocketLost as found:
            lost = _first(found)
        except* TimeoutError:
            lost = SocketLost(GapReason.REFUSED, "no connection in time")
        finally:
            self._lose(lane, lost)
        return lost

    async def _listen(self, lane: _Lane, socket: FrameSocket) -> None:
        address = f"{lane.number} {self._transport.address}"
        self._take(lane, RawKind.CONNECTED, address.encode())
        lost = SocketLost(GapReason.CLOSED, "stopped")
        try:
            async with asyncio.TaskGroup() as group:
                lane.group = group
                for frame in lane.machine.subscriptions():
                    lane.send(frame)
                group.create_task(lane.until_given_up())
                group.create_task(self._end_in_time())
                group.create_task(self._look(lane))
                group.create_task(_send(lane, socket))
                await self._read(lane, socket)
        except* SocketLost as found:
            lost = _first(found)
            raise
        finally:
            lane.group = None
            # To close a socket may take long, and nobody reads it any more.
            self._lose(lane, lost)

    def _lose(self, lane: _Lane, lost: SocketLost) -> None:
        """Tell the machine that the connection is lost, once."""
        if not lane.is_over:
            lane.is_over = True
            self._take(lane, RawKind.LOST, str(lost).encode())

    async def _read(self, lane: _Lane, socket: FrameSocket) -> None:
        while True:
            frame = await socket.receive()
            self._take(lane, RawKind.FRAME, frame)

    async def _look(self, lane: _Lane) -> None:
        every = self.policy.look_every / _SECOND
        while True:
            await asyncio.sleep(every)
            self._take(lane, RawKind.TICK)

    async def _end_in_time(self) -> None:
        early = 1 - self._chance() / 10
        await asyncio.sleep(self.policy.session_max / _SECOND * early)
        raise SocketLost(GapReason.CLOSED, "the connection is old")

    def _take(self, lane: _Lane, kind: RawKind, data: bytes = b"", symbol: str = "") -> None:
        """Hand the machine what happened, and see to what follows from it."""
        item = RawItem(kind, self._clock.now_ns(), lane.connection, symbol, data)
        found = lane.machine.take(item)
        if found or kind is not RawKind.TICK:
            for raw in self._raw_queues:
                raw.put_nowait(item)
        for one in found:
            if isinstance(one, _REQUESTS):
                self._ask(lane, one)
            else:
                self._tell(lane, one)

    def _tell(self, lane: _Lane, event: MarketEvent) -> None:
        self._board.note(event)
        for queue in self._event_queues:
            queue.put_nowait(event)
        if type(event) is BookUpdate:
            self._seen_ns[event.symbol] = event.received_ns
            if event.symbol in self._slots:
                self._show_soon(event.symbol)
        elif type(event) is GapSeen:
            self._note_gap(lane, event)

    def _note_gap(self, lane: _Lane, gap: GapSeen) -> None:
        for queue in self._gap_queues:
            queue.put_nowait(gap)
        if gap.channel is not Channel.BOOK:
            return
        slot = self._slots.get(gap.symbol)
        if gap.until_ns:
            lane.attempts.pop(gap.symbol, None)
        elif slot is not None:
            slot.put(None)

    def _show_soon(self, symbol: str) -> None:
        """Show a book once what has arrived by now is read: nobody wants those in between."""
        if not self._changed:
            asyncio.get_running_loop().call_soon(self._show)
        self._changed.add(symbol)

    def _show(self) -> None:
        changed, self._changed = self._changed, set()
        for symbol in changed:
            self._slots[symbol].put(self.book(symbol))

    def _ask(self, lane: _Lane, request: Request) -> None:
        match request:
            case WantSnapshot(symbol):
                self._ask_for(lane, symbol, RawKind.SNAPSHOT)
            case WantCheck(symbol):
                self._ask_for(lane, symbol, RawKind.CHECK)
            case WantResubscribe(symbol, channel):
                for frame in lane.machine.resubscribe(symbol, channel):
                    lane.send(frame)
            case WantReconnect(reason, detail):
                lane.give_up(SocketLost(reason, detail))

    def _ask_for(self, lane: _Lane, symbol: str, kind: RawKind) -> None:
        if lane.group is None:
            return
        if (symbol, kind) in lane.asking:
            lane.outdated.add((symbol, kind))
            return
        lane.asking.add((symbol, kind))
        lane.group.create_task(self._fetch(lane, symbol, kind))

    async def _fetch(self, lane: _Lane, symbol: str, kind: RawKind) -> None:
        """Ask for a book; a snapshot until there is one, for without it nothing can be shown."""
        body = None
        while body is None:
            if kind is RawKind.SNAPSHOT:
                await self._pause_before(lane, symbol)
            lane.outdated.discard((symbol, kind))
            body = await self._answer(symbol, kind)
            if kind is RawKind.CHECK:
                break
            if (symbol, kind) in lane.outdated:
                body = None  # what it is wanted for happened after it was asked for
        lane.asking.discard((symbol, kind))
        if body is not None:
            self._take(lane, kind, body, symbol)

    async def _pause_before(self, lane: _Lane, symbol: str) -> None:
        """Wait longer before each attempt that follows one without a usable book."""
        attempts = lane.attempts.get(symbol, 0)
        lane.attempts[symbol] = attempts + 1
        if attempts:
            pause = pause_before(attempts - 1, self.policy, self._chance())
            await asyncio.sleep(pause / _SECOND)

    async def _answer(self, symbol: str, kind: RawKind) -> bytes | None:
        if kind is RawKind.SNAPSHOT:
            ask, patience, priority = self._transport.book, None, Priority.EVIDENCE
        else:
            ask, patience, priority = (
                self._transport.check,
                self.policy.answer_timeout,
                Priority.READ,
            )
        try:
            async with self._gate.turn(_KINDS[kind], patience=patience, priority=priority):
                async with asyncio.timeout(self.policy.answer_timeout / _SECOND):
                    return await ask(symbol)
        except AskedTooMuch as error:
            self._gate.back_off(error.headers)
            fault = str(error)
        except (NoAnswer, VenueBusy) as error:
            fault = str(error)
        except TimeoutError:
            fault = "no answer in time"
        log.warning("book not got", venue=self.venue, symbol=symbol, kind=kind.name, fault=fault)
        return None


class _Lane:
    """A machine, and the connection that it has at the moment."""

    def __init__(self, number: int, machine: FeedMachine) -> None:
        self.number = number
        self.machine = machine
        self.begin(number)

    def begin(self, connection: int) -> None:
        """Forget the connection before."""
        self.connection = connection
        self.is_over = False
        """Whether the machine was told that the connection is lost."""
        self.group: asyncio.TaskGroup | None = None
        self.frames: asyncio.Queue[bytes] = asyncio.Queue(FRAMES_MAX)
        self.asking: set[tuple[str, RawKind]] = set()
        self.outdated: set[tuple[str, RawKind]] = set()
        self.attempts: dict[str, int] = {}
        """Times that a symbol's snapshot was asked for without a usable book since."""
        self._lost: SocketLost | None = None
        self._is_lost = asyncio.Event()

    def send(self, frame: bytes) -> None:
        """Send a frame when it is its turn."""
        try:
            self.frames.put_nowait(frame)
        except asyncio.QueueFull:
            self.give_up(SocketLost(GapReason.OVERFLOW, "too many frames wait to be sent"))

    def give_up(self, lost: SocketLost) -> None:
        """End the connection; the first reason counts."""
        if self._lost is None:
            self._lost = lost
            self._is_lost.set()

    async def until_given_up(self) -> None:
        """Wait for `give_up`.

        Raises:
            SocketLost: always, in the end.
        """
        await self._is_lost.wait()
        assert self._lost is not None
        raise self._lost


async def _send(lane: _Lane, socket: FrameSocket) -> None:
    while True:
        await socket.send(await lane.frames.get())


def _first(found: BaseExceptionGroup[SocketLost]) -> SocketLost:
    error: BaseException = found
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, SocketLost)
    return error
