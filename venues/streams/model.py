"""What a private stream tells, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, unique
from uuid import UUID

from venues.model import OrderReport, VenueBalance, VenueFill


@unique
class GapReason(StrEnum):
    """Why nothing can be said about a stretch of time but by asking."""

    STARTED = "started"
    """Nobody listened before."""
    CLOSED = "closed"
    """The connection ended, or could not be made."""
    REFUSED = "refused"
    """The venue did not accept the subscription, or ended it."""
    UNREADABLE = "unreadable"
    """A frame that is not JSON, or not of the shape that is documented."""
    SEQUENCE = "sequence"
    """The venue's own counter left a number out, or began again."""
    SILENT = "silent"
    """The venue says something every second, and did not."""
    UNANSWERED = "unanswered"
    """The connection is open and did not answer a question."""
    MISSED = "missed"
    """The venue lists a trade that it never streamed."""
    OVERFLOW = "overflow"
    """More came in than could be written down."""


@dataclass(frozen=True, slots=True)
class FillSeen:
    """A trade of ours."""

    fill: VenueFill


@dataclass(frozen=True, slots=True)
class OrderSeen:
    """The venue says where an order stands."""

    symbol: str
    report: OrderReport


@dataclass(frozen=True, slots=True)
class BalanceSeen:
    """What the account holds of some assets, as stated at *at*; others are as they were."""

    balances: tuple[VenueBalance, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class FundsMoved:
    """Something came in or went out other than by trading; *units* are negative when it left."""

    asset: str
    units: int
    at: datetime


@dataclass(frozen=True, slots=True)
class SymbolSeen:
    """Something happened in an instrument that nobody said is traded: it has to be asked about."""

    symbol: str


@dataclass(frozen=True, slots=True)
class StreamGap:
    """From *since* to *until* events may be missing; *until* is None while it lasts."""

    since: datetime
    reason: GapReason
    detail: str = ""
    until: datetime | None = None


StreamEvent = FillSeen | OrderSeen | BalanceSeen | FundsMoved | SymbolSeen | StreamGap


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRow:
    """A gap on record.

    Attributes:
        attempts: connections that failed before the one that ended it.
        filled_at: when everything had been asked for that may have happened meanwhile.
        fills_found: trades that only the asking brought.
        orders_left: open orders that were looked after and are open still.
    """

    id: UUID
    venue: str
    account: str
    since: datetime
    until: datetime | None
    reason: GapReason
    detail: str
    attempts: int
    filled_at: datetime | None
    fills_found: int
    orders_left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPolicy:
    """How a stream is watched and rebuilt.

    Attributes:
        connect_timeout: until a connection that is not subscribed is given up.
        probe_every, probe_timeout: how often the venue is asked something over the stream's own
            connection, and how long it may take to answer.
        audit_every: how often the venue's list of trades is compared with what was streamed.
        audit_grace: how long a trade may be on its way.
        backoff_min, backoff_max: pauses before a connection is made again.
        steady_after: a connection that lived this long was a good one; the pauses begin anew.
    """

    connect_timeout: timedelta = timedelta(seconds=15)
    probe_every: timedelta = timedelta(seconds=5)
    probe_timeout: timedelta = timedelta(seconds=5)
    audit_every: timedelta = timedelta(seconds=30)
    audit_grace: timedelta = timedelta(seconds=3)
    backoff_min: timedelta = timedelta(milliseconds=200)
    backoff_max: timedelta = timedelta(seconds=20)
    steady_after: timedelta = timedelta(seconds=30)
