"""Values of treasury's reports; amounts are ints in the asset's smallest unit, above zero unless said."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum, unique
from typing import Final


@unique
class FlowSource(StrEnum):
    """Where an expected movement is known from."""

    OBLIGATION = "obligation"
    """Owed by a deal or a file, not calculated into a run yet."""
    INSTRUCTION = "instruction"
    """The net of a sealed run that has not moved in full."""
    PAYOUT = "payout"
    """Asked of custody and reserved: a withdrawal, a settlement's payment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """One amount that is to move; below zero: it leaves."""

    source: FlowSource
    reference: str
    party: str
    asset: str
    units: int
    value_date: date


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastDay:
    """One asset on one day.

    Attributes:
        overdue: of *incoming*, what should have come before the first day: nobody should count on it.
        closing: opening and incoming less outgoing.
        short: what is missing if everything that is expected comes.
        short_without: what is missing if nothing comes before what leaves.
    """

    asset: str
    day: date
    opening: int
    incoming: int
    outgoing: int
    overdue: int
    closing: int
    short: int
    short_without: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Every asset by day, and what is due after the last day.

    Attributes:
        later: asset to (incoming, outgoing) behind the horizon.
    """

    days: tuple[ForecastDay, ...]
    later: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The net item of one party and asset in one run, and what became of it.

    Attributes:
        gross_pay, gross_receive: what was owed each way before netting.
        net: what had to move.
        paid: what has moved.
        final_on: the day on which it was final; None: it is not.
    """

    party: str
    asset: str
    value_date: date
    gross_pay: int
    gross_receive: int
    net: int
    paid: int
    final_on: date | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """One asset over a time.

    Attributes:
        gross: what would have moved without netting, both ways.
        saved_ppm: what netting kept from moving, in millionths of gross, rounded down.
        items: net items with something to move; *on_time* of them were final by their value date,
            *late* after it, *open* are due and not final.
        on_time_ppm: of those that are due, by count, in millionths; 0 where none is.
    """

    asset: str
    gross: int
    net: int
    paid: int
    saved_ppm: int
    items: int
    on_time: int
    late: int
    open: int
    on_time_ppm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What is owed and has not been settled; above zero: to us."""

    reference: str
    party: str
    asset: str
    units: int
    value_date: date
    state: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """Business days past the value date, both ends included; None: without end."""

    name: str
    first: int
    last: int | None


BUCKETS: Final = (
    Bucket("not due", -1, -1),
    Bucket("today", 0, 0),
    Bucket("1", 1, 1),
    Bucket("2-5", 2, 5),
    Bucket("6-20", 6, 20),
    Bucket("over 20", 21, None),
)
"""The named buckets of ageing; a fail is of one business day or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgedItem:
    """What is owed with its age; *days*: business days past the value date, -1: not due yet."""

    due: Due
    days: int
    bucket: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgedTotal:
    """A party's items of one asset, direction and bucket."""

    party: str
    asset: str
    to_us: bool
    bucket: str
    items: int
    units: int
