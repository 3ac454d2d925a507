"""Values of market data.

Units: a price is a whole number of the instrument's ticks; a quantity in a book is a whole number
of the base asset's smallest units; an order's quantity is a whole number of lots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import orjson

from kernel.errors import BadInput
from kernel.ids import derive_id
from kernel.money import Asset, Price, Rounding, divide
from marketdata.errors import OffGrid
from marketdata.events import Channel

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """A tradable pair at one venue, as it was at one version.

    Attributes:
        symbol: the venue's own spelling: ``ETHUSDT``.
        price_scale: decimal places in which the venue writes prices.
        tick: size of a tick in units of ``10 ** -price_scale`` quote per whole base.
        lot: size of a lot in smallest units of the base asset.
        lots_min, lots_max: the sizes one order may have.
        min_notional: the least an order must be worth, in smallest units of the quote asset.
        version: counts the recorded versions from 1; 0 before it is recorded.
    """

    venue: str
    symbol: str
    base: Asset
    quote: Asset
    price_scale: int
    tick: int
    lot: int
    lots_min: int
    lots_max: int
    min_notional: int
    version: int = 0

    def __post_init__(self) -> None:
        if min(self.tick, self.lot, self.lots_min) <= 0 or self.lots_max < self.lots_min:
            raise BadInput(f"{self.symbol} at {self.venue} has an impossible grid")
        if self.min_notional < 0 or self.price_scale < 0:
            raise BadInput(f"{self.symbol} at {self.venue} has a negative minimum or scale")

    def ticks(self, text: str) -> int:
        """Return a decimal price in ticks.

        Raises:
            OffGrid: not positive, or not a whole number of ticks.
        """
        units = Asset(self.quote.code, self.price_scale).parse(text)
        if units <= 0 or units % self.tick:
            raise OffGrid(f"{text} is not a price of {self.symbol} at {self.venue}")
        return units // self.tick

    def price(self, ticks: int) -> Price:
        """Return the exact ratio of a price in ticks."""
        return Price.of(
            ticks * self.tick * int(10**self.quote.scale),
            int(10 ** (self.price_scale + self.base.scale)),
            self.base,
            self.quote,
        )

    def price_text(self, ticks: int) -> str:
        """Return a price as the venue writes it: ``"2500.01"``."""
        return (
            Asset(self.quote.code, self.price_scale)
            .format(ticks * self.tick, code=False)
            .replace(",", "")
        )

    def quantity_text(self, lots: int) -> str:
        """Return a quantity as the venue writes it: ``"1.25"``."""
        return self.base.format(lots * self.lot, code=False).replace(",", "")

    def notional(self, ticks: int, lots: int, rounding: Rounding) -> int:
        """Return what *lots* cost at *ticks*, in smallest units of the quote asset."""
        return self.price(ticks).to_quote(lots * self.lot, rounding)

    def lots_for(self, ticks: int) -> int:
        """Return the smallest order that the venue accepts at a price, in lots."""
        one = self.price(ticks)
        units = one.to_base(self.min_notional, Rounding.UP)
        return max(self.lots_min, divide(units, self.lot, Rounding.UP))


class Level(NamedTuple):
    """A price level of a book: `units` of the base asset rest at `ticks`."""

    ticks: int
    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BookView:
    """A book as it was after update `sequence`: levels from the best outwards, never changed.

    `received_at` is our own time of arrival, by which its age is judged.
    """

    venue: str
    symbol: str
    sequence: int
    received_at: datetime
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]

    @property
    def top(self) -> TopOfBook | None:
        """The best level of both sides; None while one of them is empty."""
        if not self.bids or not self.asks:
            return None
        return TopOfBook(bid=self.bids[0], ask=self.asks[0], sequence=self.sequence)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopOfBook:
    """The best level of either side."""

    bid: Level
    ask: Level
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """A public trade: `units` of the base asset changed hands at `ticks`."""

    venue: str
    symbol: str
    trade_id: str
    ticks: int
    units: int
    buyer_is_maker: bool
    at: datetime


class StreamState(StrEnum):
    """How a stream is doing."""

    CONNECTING = "connecting"
    SYNCING = "syncing"
    """Connected and subscribed; there is no book, or no first message, yet."""
    LIVE = "live"
    STALE = "stale"
    """Nothing came for too long; the venue is being asked."""
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatus:
    """One stream at one moment.

    Attributes:
        since: when it came into this state.
        last_event_at: when its last message came, by our own clock; None: none came yet.
        sequence: the venue's number of its last message; 0 where there is none.
        gaps, reconnects, messages: counted since the process began.
        detail: in words, for a person: why it is down.
    """

    venue: str
    symbol: str
    channel: Channel
    state: StreamState
    since: datetime
    last_event_at: datetime | None
    sequence: int
    gaps: int
    reconnects: int
    messages: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A piece of a venue's past, oldest first.

    Attributes:
        cursor: asks for the next piece; empty at the end.
        untold_until_ns: of the time that was asked for, the venue does not tell what was before
            this any more; 0: it tells all.
    """

    items: tuple[T, ...]
    cursor: str = ""
    untold_until_ns: int = 0


class Quality(StrEnum):
    """How far a recorded price may be relied on."""

    GOOD = "good"
    """From fresh, uncrossed books."""
    DEGRADED = "degraded"
    """From fewer or older sources than wished for: not for margin or liquidation."""
    MANUAL = "manual"
    """Typed in by a named person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRecord:
    """A price about to be recorded: what it is, how it came about, how good it is.

    Attributes:
        kind: how it was made: ``venue-mid``, ``manual``, …
        constituents: what it was computed from, reproducibly; JSON values only.
        method: how: the name of the rule and its parameters; JSON values only.
        observed_at: the moment it speaks of.
    """

    price: Price
    kind: str
    quality: Quality
    constituents: tuple[Mapping[str, Any], ...] = field(default=())
    method: Mapping[str, Any] = field(default_factory=dict)
    observed_at: datetime

    @property
    def id(self) -> UUID:
        """Return the id by which it is recorded: of everything that makes it what it is."""
        ratio, constituents = self.price, [dict(item) for item in self.constituents]
        return derive_id(
            self.observed_at,
            "price",
            ratio.base.code,
            ratio.quote.code,
            ratio.numerator,
            ratio.denominator,
            self.kind,
            str(self.quality),
            orjson.dumps([constituents, dict(self.method)], option=orjson.OPT_SORT_KEYS),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedPrice:
    """A price on record; `id` is what deals, fills and reports refer to."""

    id: UUID
    record: PriceRecord
    recorded_at: datetime
