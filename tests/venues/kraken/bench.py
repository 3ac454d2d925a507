"""Kraken in this process and by hand: the venue's own dialect without sockets, and the machine on it.

Every frame that the venue sends is kept with the books as they truly were at that moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import orjson
from aiohttp import web

from kernel.clock import ManualClock, to_unix_ns
from kernel.money import Asset
from marketdata.book import L2Book
from marketdata.events import (
    BookUpdate,
    Channel,
    GapSeen,
    MarketEvent,
    Request,
    Rows,
    WantCheck,
    WantReconnect,
    WantResubscribe,
)
from marketdata.model import Instrument
from marketdata.raw import RawItem, RawKind
from matching.model import Side
from venues.kraken.feed import KrakenMachine, KrakenPolicy
from venues.simulator.commands import MoveMid, StepMaker
from venues.simulator.connections import Connection
from venues.simulator.core import VenueCore
from venues.simulator.dialect import Venue
from venues.simulator.faults import Fault, FaultKind, FaultSchedule
from venues.simulator.kraken import numbers
from venues.simulator.kraken.context import Kraken
from venues.simulator.kraken.rest import Incoming, answer
from venues.simulator.kraken.sockets import Sockets
from venues.simulator.market import Market
from venues.simulator.model import MakerSpec, SymbolSpec
from venues.simulator.settings import DialectName, VenueSimulatorSettings, symbol_from_text

SCALES = {"BTC": 8, "ETH": 18, "USDT": 6, "USD": 2}
MARKETS = (
    symbol_from_text("BTC/USD:tick=0.1:lot=0.00000001:min=0.5:mid=60000"),
    symbol_from_text("ETH/USD:tick=0.01:lot=0.0001:min=0.5:mid=3000"),
    symbol_from_text("USDT/USD:tick=0.0001:lot=0.00000001:min=0.5:mid=1"),
)
STEP = timedelta(milliseconds=100)
DEPTH = 10
EVERY = frozenset(Channel)

Books = dict[str, tuple[Rows, Rows]]


def instrument_of(spec: SymbolSpec, venue: str = "kraken") -> Instrument:
    base, quote = (Asset(code, SCALES[code]) for code in (spec.base, spec.quote))
    price_scale = numbers.decimals_of(spec.tick_units)
    return Instrument(
        venue=venue,
        symbol=spec.name,
        base=base,
        quote=quote,
        price_scale=price_scale,
        tick=spec.tick_units // 10 ** (8 - price_scale),
        lot=max(1, in_units(spec.lot_units, base)),
        lots_min=1,
        lots_max=10**18,
        min_notional=1,
    )


def in_units(amount: int, asset: Asset) -> int:
    """Return an amount of 1e-8 in smallest units of *asset*, what is less cut off."""
    if asset.scale >= 8:
        return amount * int(10 ** (asset.scale - 8))
    return amount // int(10 ** (8 - asset.scale))


class Wire(Connection):
    """A connection whose frames are kept instead of sent."""

    def __init__(self, venue: SimulatedKraken) -> None:
        super().__init__(web.WebSocketResponse(), venue.faults, venue.core.settled)
        self.frames: deque[tuple[bytes, Books]] = deque()
        self.is_closed = False
        self._late: dict[str, Books] = {}
        self._venue = venue

    def _put(self, text: str) -> None:
        if not (self._is_deaf or self.is_closed):
            truth = self._late.pop(text, None) or self._venue.truth()
            self.frames.append((text.encode(), truth))

    def _offer_badly(self, kind: FaultKind, text: str) -> None:
        if kind is FaultKind.WS_SWAP:  # it will be sent later, and says what is true now
            self._late[text] = self._venue.truth()
        super()._offer_badly(kind, text)

    def close(self, code: int = 1001) -> None:
        del code
        self.is_closed = True

    def send(self, text: bytes) -> None:
        self._receive(self._venue.sockets.receive, text.decode())


class SimulatedKraken:
    """The venue, its clock in our hand."""

    def __init__(
        self, core: VenueCore, settings: VenueSimulatorSettings, clock: ManualClock, depth: int
    ) -> None:
        self.core, self.clock, self.depth = core, clock, depth
        self.faults = FaultSchedule()
        self.kraken = Kraken.of(Venue(core, settings, self.faults))
        self.sockets = Sockets(self.kraken)

    def step(self) -> None:
        self.core.execute(StepMaker(self.core.accepted_at()))

    def move(self, symbol: str, ticks: int) -> None:
        self.core.execute(MoveMid(self.core.accepted_at(), symbol, ticks))

    def market(self, symbol: str) -> Market:
        return self.core.state.markets[symbol]

    def fault(self, kind: FaultKind, path: str, count: int = 1, skip: int = 0) -> None:
        self.faults.add(Fault(kind, path, count=count, skip=skip))

    def truth(self) -> Books:
        return {spec.name: self.book(spec) for spec in self.core.state.genesis.symbols}

    def book(self, spec: SymbolSpec) -> tuple[Rows, Rows]:
        base = Asset(spec.base, SCALES[spec.base])

        def side(of: Side) -> Rows:
            levels = self.market(spec.name).depth(of, self.depth)
            rows = [
                (level.price_ticks, in_units(level.quantity_lots * spec.lot_units, base))
                for level in levels
            ]
            return tuple(row for row in rows if row[1])

        return side(Side.BUY), side(Side.SELL)

    def rest_book(self, symbol: str) -> bytes:
        spec = self.market(symbol).spec
        query = f"pair={spec.base}/{spec.quote}&count={self.depth}"
        asked = Incoming("GET", "/0/public/Depth", query, "", "", "", "")
        return orjson.dumps(answer(self.kraken, asked))


@dataclass
class Rig:
    """The machine on the venue: what the runner would do, in one thread and without waiting."""

    venue: SimulatedKraken
    machine: KrakenMachine
    wire: Wire
    connection: int = 0
    items: list[RawItem] = field(default_factory=list)
    events: list[MarketEvent] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    answers_checks: bool = True

    def connect(self) -> None:
        self.wire = Wire(self.venue)
        self.connection += 1
        self.venue.sockets.join(self.wire, is_private=False)
        self.take(RawKind.CONNECTED, b"here")
        for frame in self.machine.subscriptions():
            self.wire.send(frame)
        self.pump()

    def lose(self, why: str = "closed: by the test") -> None:
        self.venue.sockets.leave(self.wire)
        self.take(RawKind.LOST, why.encode())

    def pump(self) -> None:
        """Hand over every frame that waits; each book shown is what the venue's then was."""
        while self.wire.frames:
            data, truth = self.wire.frames.popleft()
            for event in self.take(RawKind.FRAME, data):
                if isinstance(event, BookUpdate):
                    assert self.shown(event.symbol) == truth[event.symbol]
        if self.wire.is_closed:
            self.lose()
            self.connect()

    def go(self, steps: int = 1, by: timedelta = STEP) -> None:
        """Let time pass: the venue sends what is due, the machine is given the time."""
        for _ in range(steps):
            self.venue.clock.advance(by)
            self.venue.sockets.flush(self.venue.core.now_ms())
            self.pump()
            self.take(RawKind.TICK)
            self.pump()

    def take(self, kind: RawKind, data: bytes = b"", symbol: str = "") -> Sequence[object]:
        now_ns = to_unix_ns(self.venue.clock.now())
        item = RawItem(kind, now_ns, self.connection, symbol, data)
        found = self.machine.take(item)
        if found or kind is not RawKind.TICK:
            self.items.append(item)
        for one in found:
            if isinstance(one, Request):
                self.requests.append(one)
                self._do(one)
            else:
                self.events.append(one)
        return found

    def _do(self, request: Request) -> None:
        match request:
            case WantResubscribe(symbol, channel):
                for frame in self.machine.resubscribe(symbol, channel):
                    self.wire.send(frame)
            case WantReconnect():
                self.wire.close()
                self.wire.frames.clear()
            case WantCheck(symbol) if self.answers_checks:
                body = self.venue.rest_book(symbol)
                self.take(RawKind.CHECK, body, symbol)
            case _:
                pass

    def shown(self, symbol: str) -> tuple[Rows, Rows] | None:
        book = self.book(symbol)
        return book.rows(self.venue.depth) if book.is_live else None

    def book(self, symbol: str) -> L2Book:
        book = self.machine.book(symbol)
        assert book is not None
        return book

    def gaps(self, symbol: str, channel: Channel = Channel.BOOK) -> list[GapSeen]:
        return [
            event
            for event in self.events
            if isinstance(event, GapSeen) and (event.symbol, event.channel) == (symbol, channel)
        ]

    def forget(self) -> None:
        self.events.clear()
        self.requests.clear()


@contextmanager
def simulated(
    folder: Path,
    *,
    depth: int = DEPTH,
    markets: tuple[SymbolSpec, ...] = MARKETS,
    channels: frozenset[Channel] = EVERY,
    seed: int = 1,
    policy: KrakenPolicy | None = None,
) -> Iterator[Rig]:
    """Open the venue and connect a machine to it."""
    clock = ManualClock()
    settings = VenueSimulatorSettings(
        data_dir=folder,
        dialect=DialectName.KRAKEN,
        symbols=markets,
        seed=seed,
        maker=MakerSpec(lively=True),
        step_interval_ms=0,
        fsync=False,
    )
    venue: SimulatedKraken | None = None

    def publish(events: object) -> None:
        if venue is not None:
            venue.sockets.publish(events, core.now_ms())

    def failed(error: Exception) -> None:
        raise error

    core = VenueCore(settings, clock, publish=publish, failed=failed)
    try:
        venue = SimulatedKraken(core, settings, clock, depth)
        policy = replace(policy or KrakenPolicy(), depth=depth)
        machine = KrakenMachine(map(instrument_of, markets), channels, policy)
        rig = Rig(venue, machine, Wire(venue))
        rig.connect()
        yield rig
    finally:
        core.close()
