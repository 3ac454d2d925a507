"""What a feed's machine says: events for consumers, and requests to whoever owns the sockets.

Prices are whole ticks of the instrument, quantities whole smallest units of the base asset, times
nanoseconds since 1970. `exchange_ns` is 0 where the venue does not say when.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import TypeAlias

import msgspec

Row: TypeAlias = tuple[int, int]
"""Ticks and units of a level; 0 units remove it."""

Rows: TypeAlias = tuple[Row, ...]


@unique
class Channel(StrEnum):
    """What a stream is of."""

    BOOK = "book"
    TRADES = "trades"
    BEST = "best"
    TICKER = "ticker"
    CANDLES = "candles"


@unique
class GapReason(StrEnum):
    """Why a stream cannot be relied on for a while."""

    STARTED = "started"
    """We had not been watching before."""
    CLOSED = "closed"
    """The connection was closed, or broke."""
    REFUSED = "refused"
    """The venue would not connect, subscribe or answer."""
    UNREADABLE = "unreadable"
    """A frame was not in the venue's format at all."""
    MALFORMED = "malformed"
    """A frame had values that cannot be: a missing field, a negative size."""
    SEQUENCE = "sequence"
    """Updates are missing."""
    CHECKSUM = "checksum"
    """Our book does not have the venue's checksum."""
    CROSSED = "crossed"
    """The best bid reached the best ask."""
    SILENT = "silent"
    """Nothing came for too long, and the venue did not say that nothing happened."""
    DISAGREES = "disagrees"
    """The book that the venue gives by REST is another one."""
    OVERFLOW = "overflow"
    """There was more than there is room for."""
    RESTARTED = "restarted"
    """The venue counts from a lower number again."""


class BookUpdate(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Absolute quantities of changed levels, or the whole book if `is_snapshot`.

    Attributes:
        first, last: the venue's update ids that it covers; equal for a snapshot. Where a venue
            numbers nothing, updates are counted from the snapshot, which is 1.
        bids, asks: in the order of the frame; of a level named twice the last row counts.
    """

    venue: str
    symbol: str
    first: int
    last: int
    is_snapshot: bool
    bids: Rows
    asks: Rows
    exchange_ns: int
    received_ns: int


class TradeSeen(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A public trade."""

    venue: str
    symbol: str
    trade_id: str
    ticks: int
    units: int
    buyer_is_maker: bool
    exchange_ns: int
    received_ns: int


class BestSeen(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The best level of either side, as the venue's own stream of it says; 0 ticks: empty."""

    venue: str
    symbol: str
    sequence: int
    bid_ticks: int
    bid_units: int
    ask_ticks: int
    ask_units: int
    exchange_ns: int
    received_ns: int


class TickerSeen(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What was traded over the venue's rolling window, 24 hours mostly."""

    venue: str
    symbol: str
    last_ticks: int
    open_ticks: int
    high_ticks: int
    low_ticks: int
    base_units: int
    exchange_ns: int
    received_ns: int


class CandleSeen(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Trades of one interval; said again with each trade until it `is_closed`."""

    venue: str
    symbol: str
    interval_s: int
    open_ns: int
    open_ticks: int
    high_ticks: int
    low_ticks: int
    close_ticks: int
    base_units: int
    trades: int
    is_closed: bool
    exchange_ns: int
    received_ns: int


class GapSeen(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A stream could not be relied on from `since_ns` until `until_ns`; 0: it still cannot.

    A gap is said when it opens and, with the same `since_ns` and `reason`, when it ends.
    """

    venue: str
    symbol: str
    channel: Channel
    reason: GapReason
    since_ns: int
    until_ns: int
    detail: str
    received_ns: int


MarketEvent: TypeAlias = BookUpdate | TradeSeen | BestSeen | TickerSeen | CandleSeen | GapSeen


class WantSnapshot(msgspec.Struct, frozen=True, gc=False):
    """Ask for a book by REST, and give its body to the machine as a SNAPSHOT."""

    symbol: str


class WantResubscribe(msgspec.Struct, frozen=True, gc=False):
    """Leave one stream and subscribe to it again, on the same socket."""

    symbol: str
    channel: Channel


class WantReconnect(msgspec.Struct, frozen=True, gc=False):
    """The socket is of no more use: close it and open another."""

    reason: GapReason
    detail: str


class WantCheck(msgspec.Struct, frozen=True, gc=False):
    """Ask for a book by REST, and give its body to the machine as a CHECK."""

    symbol: str


Request: TypeAlias = WantSnapshot | WantResubscribe | WantReconnect | WantCheck
