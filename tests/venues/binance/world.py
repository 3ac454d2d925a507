"""The simulated venue and one machine without a socket, a clock or a disk: one step at a time.

The venue's own exchange, streams and faults; only what carries frames is replaced by a list. Of every
update id that frames or answers end at, the true book is remembered, to hold what is shown against.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from kernel.money import Asset
from marketdata.events import (
    BookUpdate,
    Channel,
    GapReason,
    GapSeen,
    MarketEvent,
    Request,
    Rows,
    TradeSeen,
    WantCheck,
    WantReconnect,
    WantResubscribe,
    WantSnapshot,
)
from marketdata.model import Instrument
from marketdata.raw import RawItem, RawKind
from marketdata.testing import USDT, eth_usdt
from matching.model import Side
from venues.binance.books import CHECK_LEVELS, SNAPSHOT_LEVELS
from venues.binance.feed import CHANNELS, BinanceFeed
from venues.binance.policy import StreamWatch
from venues.simulator.binance import frames
from venues.simulator.binance.market_streams import MarketStreams
from venues.simulator.commands import StepMaker
from venues.simulator.connections import Connection
from venues.simulator.exchange import Exchange
from venues.simulator.faults import Fault, FaultKind, FaultSchedule
from venues.simulator.model import PublicTrade
from venues.simulator.settings import VenueSimulatorSettings

ETH = eth_usdt("sim")
BTC = Instrument(
    venue="sim",
    symbol="BTCUSDT",
    base=Asset("BTC", 8),
    quote=USDT,
    price_scale=2,
    tick=1,
    lot=1_000,
    lots_min=1,
    lots_max=10**9,
    min_notional=5_000_000,
)
BOTH = (ETH, BTC)
START_MS = 1_790_000_000_000
MS = 1_000_000
STEP_MS = 100

NOTHING: Any = None
Out = MarketEvent | Request
REQUESTS = (WantSnapshot, WantCheck, WantResubscribe, WantReconnect)


class Wire(Connection):
    """The venue's end of a socket, of which what was sent is read from a queue."""

    def __init__(self, faults: FaultSchedule) -> None:
        super().__init__(NOTHING, faults, self._at_once)
        self.is_closed = False

    async def _at_once(self) -> None:
        return

    def close(self, code: int = 1001) -> None:
        self.is_closed = True

    def receive(self, venue: MarketStreams, text: str) -> None:
        self._receive(venue.receive, text)

    def sent(self) -> list[bytes]:
        found = []
        while not self._queue.empty():
            text = self._queue.get_nowait()
            assert text is not None
            found.append(text.encode())
        return found


class World:
    """A venue with its true books, a machine, and between them what a runner does."""

    def __init__(
        self,
        *,
        instruments: Sequence[Instrument] = BOTH,
        channels: Collection[Channel] = CHANNELS,
        seed: int = 1,
        watch: StreamWatch | None = None,
    ) -> None:
        settings = VenueSimulatorSettings(data_dir=Path("nowhere"), seed=seed)
        self.now_ms = START_MS
        self.faults = FaultSchedule()
        self.exchange = Exchange(settings.genesis(START_MS))
        self.machine = BinanceFeed(instruments, channels=channels, watch=watch)
        self.instruments = {one.symbol: one for one in instruments}
        self.items: list[RawItem] = []
        self.events: list[MarketEvent] = []
        self.requests: list[Request] = []
        self.traded: dict[str, list[int]] = {}
        self.truth: dict[tuple[str, int], tuple[Rows, Rows]] = {}
        self.answers: deque[tuple[int, RawKind, str, int]] = deque()
        self._answered: dict[str, bytes | None] = {}
        """What the venue had to say when it was asked to compare: by when it comes, more has happened."""
        self.answer_steps = 0
        """Steps that an answer by REST takes."""
        self.breaks_answers: deque[str] = deque()
        """What is wrong with the next answers: ``lost``, ``malformed``, ``truncated``, ``crossed``."""
        self._stale: dict[str, bytes] = {}
        self._held: list[int | None] = []
        self.compares = True
        """False while the venue or the wire lies on purpose, and the books with it."""
        self.connection = 0
        self.streams = MarketStreams()
        self.wire: Wire | None = None
        self._remember()
        self.connect()

    # The venue.

    def restart(self) -> None:
        """Begin anew: the venue counts from low numbers, and its sockets are gone."""
        settings = VenueSimulatorSettings(data_dir=Path("nowhere"), seed=99)
        self.exchange = Exchange(settings.genesis(self.now_ms))
        self.truth.clear()
        self.traded.clear()
        # Whoever serves old answers has none of before: its numbers would fit those of now by chance.
        self._stale.clear()
        self._remember()
        self.lose("close code 1001")

    def renumber(self) -> None:
        """Count from low numbers again and keep the sockets, as no venue should."""
        settings = VenueSimulatorSettings(data_dir=Path("nowhere"), seed=98)
        self.exchange = Exchange(settings.genesis(self.now_ms))
        self.truth.clear()
        self._stale.clear()
        self._remember()

    def step(self, count: int = 1, *, moves: bool = True) -> None:
        """Let the market move, the streams send, answers arrive and the watchdog look."""
        for _ in range(count):
            self.now_ms += STEP_MS
            if moves:
                events = self.exchange.apply(StepMaker(self.now_ms))
                for event in events:
                    if isinstance(event, PublicTrade):
                        self.traded.setdefault(event.symbol, []).append(event.trade_id)
                self.streams.publish(self.exchange.state, events, self.now_ms)
            self._remember()
            self.streams.flush(self.exchange.state, self.now_ms)
            self.carry()
            self._answer()
            self.give(RawKind.TICK)
            self.hold_against_the_truth()

    def fault(self, kind: FaultKind, path: str = "", *, count: int = 1, skip: int = 0) -> None:
        """Have something go wrong with the next frames."""
        self.faults.add(Fault(kind, path, count=count, skip=skip))

    def true_rows(self, symbol: str, levels: int = 5_000) -> tuple[Rows, Rows]:
        """The venue's book of now."""
        market, grid = self.exchange.state.markets[symbol], self.instruments[symbol]
        bids, asks = (
            tuple(
                (one.price_ticks, one.quantity_lots * grid.lot)
                for one in market.depth(side, levels)
            )
            for side in (Side.BUY, Side.SELL)
        )
        return bids, asks

    def _remember(self) -> None:
        for symbol in self.instruments:
            update_id = self.exchange.state.markets[symbol].update_id
            self.truth[symbol, update_id] = self.true_rows(symbol)

    # Between venue and machine.

    def connect(self) -> None:
        """Open a socket and subscribe."""
        self.connection += 1
        self.wire = Wire(self.faults)
        self.streams.join(self.wire, [], combined=True)
        self.give(RawKind.CONNECTED, b"0 ws://venue/stream")
        for frame in self.machine.subscriptions():
            self.send(frame)
        self.carry()

    def send(self, frame: bytes) -> None:
        """Send a frame to the venue."""
        if self.wire is not None:
            self.wire.receive(self.streams, frame.decode())

    def lose(self, detail: str, reason: GapReason = GapReason.CLOSED) -> None:
        """Lose the socket and connect again."""
        if self.wire is not None:
            self.streams.leave(self.wire)
        self.wire = None
        self.answers.clear()
        self.give(RawKind.LOST, f"{reason}: {detail}".encode())
        self.connect()

    def carry(self) -> None:
        """Bring what the venue has sent to the machine."""
        wire = self.wire
        while wire is not None and wire is self.wire and (sent := wire.sent()):
            for frame in sent:
                self.give(RawKind.FRAME, frame)
                if wire is not self.wire:
                    return
        if wire is not None and wire is self.wire and wire.is_closed:
            self.lose("close code 1001")

    def give(self, kind: RawKind, data: bytes = b"", symbol: str = "") -> list[Out]:
        """Give the machine an item, hold what is shown against the truth, and do what is wanted."""
        item = RawItem(kind, self.now_ms * MS, self.connection, symbol, data)
        found = list(self.machine.take(item))
        if found or kind is not RawKind.TICK:
            self.items.append(item)
        self._hold_what_changed(found)
        wanted = [one for one in found if isinstance(one, REQUESTS)]
        self.events += [one for one in found if not isinstance(one, REQUESTS)]
        self.requests += wanted
        for one in wanted:
            self._do(one)
        return found

    def _do(self, request: Request) -> None:
        match request:
            case WantSnapshot(symbol):
                self._ask(RawKind.SNAPSHOT, symbol)
            case WantCheck(symbol):
                self._ask(RawKind.CHECK, symbol)
            case WantResubscribe(symbol, channel):
                for frame in self.machine.resubscribe(symbol, channel):
                    self.send(frame)
            case WantReconnect(reason, detail):
                self.lose(detail, reason)

    def _ask(self, kind: RawKind, symbol: str) -> None:
        waiting = [one for one in self.answers if (one[1], one[2]) == (kind, symbol)]
        if not waiting or kind is RawKind.SNAPSHOT:
            # As the runner does it: an answer that was asked for before is of no use any more.
            self.answers = deque(one for one in self.answers if one not in waiting)
            self.answers.append((self.answer_steps, kind, symbol, self.connection))
            if kind is RawKind.CHECK:
                self._answered[symbol] = self._body(kind, symbol)

    def _answer(self) -> None:
        waiting, self.answers = self.answers, deque()
        for steps, kind, symbol, connection in waiting:
            if connection != self.connection:
                continue
            if steps > 0:
                self.answers.append((steps - 1, kind, symbol, connection))
                continue
            body = self._answered.get(symbol)
            if kind is RawKind.SNAPSHOT:
                body = self._body(kind, symbol)
            if body is not None:
                self.give(kind, body, symbol)
            elif kind is RawKind.SNAPSHOT:
                self.answers.append((2, kind, symbol, connection))

    def _body(self, kind: RawKind, symbol: str) -> bytes | None:
        limit = SNAPSHOT_LEVELS if kind is RawKind.SNAPSHOT else CHECK_LEVELS
        whole: dict[str, Any] = frames.depth(self.exchange.state.markets[symbol], limit)
        broken = self.breaks_answers.popleft() if self.breaks_answers else ""
        body = json.dumps(whole).encode()
        stale = self._stale.get(symbol, body)
        if broken != "stale":
            self._stale[symbol] = body
        match broken:
            case "lost":
                return None
            case "truncated":
                return body[: len(body) // 2]
            case "malformed":
                return json.dumps({**whole, "bids": 5}).encode()
            case "crossed":
                return json.dumps({**whole, "bids": whole["asks"], "asks": whole["bids"]}).encode()
            case "stale":
                return stale
            case _:
                return body

    # What must hold.

    def _hold_what_changed(self, found: Sequence[Out]) -> None:
        sequences = [self._sequence(symbol) for symbol in self.instruments]
        if sequences != self._held:
            self._held = sequences
            self.hold_against_the_truth(found)

    def _sequence(self, symbol: str) -> int | None:
        book = self.machine.book(symbol)
        return None if book is None else book.sequence

    def hold_against_the_truth(self, found: Sequence[Out] = ()) -> None:
        """Compare every book that is shown with the venue's at the same update."""
        if not self.compares:
            return
        for symbol in self.instruments:
            book = self.machine.book(symbol)
            if book is None or book.sequence is None:
                continue
            truth = self.truth.get((symbol, book.sequence))
            assert truth is not None, f"{symbol} is shown at {book.sequence}, where it never was"
            bids, asks = book.rows(5_000)
            assert (bids, asks) == truth, f"{symbol} at {book.sequence}, after {found}"

    def shown(self, symbol: str) -> tuple[Rows, Rows] | None:
        """The machine's book of now; None: it shows none."""
        book = self.machine.book(symbol)
        return None if book is None or not book.is_live else book.rows(5_000)

    def gaps(self, symbol: str, channel: Channel) -> list[GapSeen]:
        """The gaps of a stream, each as it was told last."""
        found = {
            (one.reason, one.since_ns): one
            for one in self.events
            if isinstance(one, GapSeen) and (one.symbol, one.channel) == (symbol, channel)
        }
        return list(found.values())

    def reasons(self, symbol: str, channel: Channel) -> list[str]:
        """Why a stream could not be relied on, but for the beginning."""
        return [str(gap.reason) for gap in self.gaps(symbol, channel)][1:]

    def trade_ids(self, symbol: str) -> list[int]:
        """Ids of the trades that were told."""
        return [
            int(one.trade_id)
            for one in self.events
            if isinstance(one, TradeSeen) and one.symbol == symbol
        ]

    def updates(self, symbol: str) -> list[BookUpdate]:
        """Updates of a book that were told."""
        return [one for one in self.events if isinstance(one, BookUpdate) and one.symbol == symbol]


def live_world(**settings: Any) -> World:
    """A world in which everything streams."""
    world = World(**settings)
    world.step(12)
    assert all(world.shown(symbol) for symbol in world.instruments)
    return world
