"""When something is late, by whose days it is counted, and how old it is. Pure."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from kernel.errors import BadInput
from registry.calendars import (
    AnyCalendar,
    Calendar,
    add_business_days,
    count_business_days,
)
from registry.cutoffs import find_cutoff
from trading.terms.model import Rail
from trading.terms.value_dates import NONE_KEPT, Kept, calendars_of

BUCKETS: Final = ((0, "today"), (1, "1 day"), (3, "2-3 days"), (7, "4-7 days"), (30, "8-30 days"))
OLDER: Final = "older"
YEAR_DAYS: Final = 360
"""Money markets count the days as they are over a year of 360 (ISDA 2006 Definitions, 4.16(e))."""
PPM: Final = 1_000_000
_DAY: Final = timedelta(days=1)
_IN_BANKS: Final = frozenset({Rail.BANK, Rail.BOOK})


def calendars_for(asset: str, rail: Rail, kept: Kept = NONE_KEPT) -> frozenset[AnyCalendar]:
    """Return by whose days a payment is counted: its money's, and every day on a chain.

    Args:
        kept: kept calendars by country.
    """
    if rail in _IN_BANKS:
        return calendars_of(asset, kept=kept)
    return frozenset({Calendar.ALWAYS})


def late_from(day: date, calendars: Collection[AnyCalendar]) -> datetime:
    """Return from when on (UTC) what was due on *day* is late: the first cut-off, else midnight."""
    cutoffs = [find_cutoff(calendar, day) for calendar in calendars]
    known = [cutoff for cutoff in cutoffs if cutoff is not None]
    return min(known) if known else datetime.combine(day + _DAY, time(), UTC)


def age_of(due_on: date, today: date, calendars: Collection[AnyCalendar]) -> int:
    """Return the joint business days after *due_on* up to *today*; 0 before the next one."""
    return count_business_days(due_on, today, calendars)


def next_value_date(due_on: date, now: datetime, calendars: Collection[AnyCalendar]) -> date:
    """Return to which day a late payment rolls: the next business day whose cut-off is not over."""
    day = add_business_days(due_on, 1, calendars)
    while late_from(day, calendars) <= now:
        day = add_business_days(day, 1, calendars)
    return day


def bucket_of(age: int) -> str:
    """Return the heading under which an age stands in a report."""
    return next((name for most, name in BUCKETS if age <= most), OLDER)


def late_interest(amount: int, ppm_a_year: int, due_on: date, until: date) -> int:
    """Return simple interest on *amount* (smallest units), rounded down: in favour of who pays it.

    Args:
        ppm_a_year: parts in a million a year.
        due_on, until: calendar days in between count, as they are, over 360.

    Raises:
        BadInput: a negative rate or amount.
    """
    if amount < 0 or ppm_a_year < 0:
        raise BadInput("interest is for what is owed, at a rate that is not below zero")
    days = max(0, (until - due_on).days)
    return amount * ppm_a_year * days // (PPM * YEAR_DAYS)
