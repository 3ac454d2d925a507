"""Where market data comes from: implemented by `venues`, used by whoever needs it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Protocol

from marketdata.book import L2Book
from marketdata.consumers import LatestSlot, LosslessQueue
from marketdata.events import CandleSeen, Channel, MarketEvent, Request, TradeSeen
from marketdata.model import BookView, Page, StreamStatus
from marketdata.raw import RawItem


class Feed(Protocol):
    """The latest book of each symbol of one venue.

    Latest value wins: a reader that is slow misses updates, never sees old ones, never slows the
    socket. For lossless recording this is the wrong port.
    """

    def book(self, symbol: str) -> BookView | None:
        """Return the newest usable book; None before the first and after a fault or silence."""
        ...

    async def wait_for_book(self, symbol: str, timeout: timedelta) -> BookView | None:  # noqa: ASYNC109  the caller's patience is part of the question
        """Return the newest usable book, waiting for one at most *timeout*."""
        ...


class MarketFeed(Feed, Protocol):
    """All that one venue's feed gives."""

    def latest(self, symbol: str) -> LatestSlot[BookView]:
        """Return the slot that shows the symbol's newest usable book."""
        ...

    def events(self, queue: LosslessQueue[MarketEvent]) -> AbstractContextManager[object]:
        """Put every event into *queue* while the context is open."""
        ...

    def raw(self, queue: LosslessQueue[RawItem]) -> AbstractContextManager[object]:
        """Put everything that happens, as bytes, into *queue* while the context is open."""
        ...

    def status(self) -> Sequence[StreamStatus]:
        """Return how each stream is doing now."""
        ...


class FeedMachine(Protocol):
    """A venue's protocol, without sockets or clocks: the same items in give the same out.

    Everything that is decided about market data is decided here: decoding, validation, stitching,
    gaps, checksums. A runner opens sockets, asks by REST and hands over what happened.
    """

    @property
    def venue(self) -> str:
        """Return the venue's name."""
        ...

    def take(self, item: RawItem) -> Sequence[MarketEvent | Request]:
        """Return what follows from *item*, in order. Never raises for what a venue sent."""
        ...

    def book(self, symbol: str) -> L2Book | None:
        """Return the machine's own book of *symbol*; None if it keeps none."""
        ...

    def subscriptions(self) -> Sequence[bytes]:
        """Return the frames to send after connecting."""
        ...

    def resubscribe(self, symbol: str, channel: Channel) -> Sequence[bytes]:
        """Return the frames that leave one stream and subscribe to it again."""
        ...


class History(Protocol):
    """What a venue tells of its past by REST. Times are half-open: since <= time < until."""

    @property
    def venue(self) -> str:
        """Return the venue's name."""
        ...

    async def trades(
        self, symbol: str, *, since: datetime, until: datetime, cursor: str = ""
    ) -> Page[TradeSeen]:
        """Return a page of public trades; *cursor* is that of the page before."""
        ...

    async def candles(
        self,
        symbol: str,
        interval_s: int,
        *,
        since: datetime,
        until: datetime,
        cursor: str = "",
    ) -> Page[CandleSeen]:
        """Return a page of closed candles, by their time of opening."""
        ...
