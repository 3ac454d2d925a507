"""Until when money still moves the same day: cut-offs of payment systems, in UTC. Pure.

A cut-off is a time on a wall somewhere, so it moves against UTC twice a year, and for some weeks
Europe and the United States are not as far apart as usual. The rules of summer time are written out
here like the holidays of `registry.calendars`, under the same version.

Sources:

* TARGET: customer payments until 17:00 in Frankfurt (ECB, "TARGET2 business day"; T2 kept it).
* Fedwire: transfers for third parties until 18:45 Eastern Time (Federal Reserve Financial Services,
  "Fedwire Funds Service Operating Hours"), since 8 March 2021. Until then it was 18:00, which is not
  told apart here: no deal of ours was made then.
* Summer time in the European Union: Directive 2000/84/EC, from the last Sunday of March to the last
  Sunday of October.
* Daylight saving time in the United States: 15 U.S.C. 260a as of 2007, from the second Sunday of
  March to the first Sunday of November.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kernel.errors import BadInput
from registry.calendars import (
    SUNDAY,
    AnyCalendar,
    Calendar,
    KeptCalendar,
    is_joint_business_day,
    last_weekday,
    nth_weekday,
)

CUTOFF_YEAR_MIN: Final = 2007
"""Before, daylight saving time of the United States had other rules."""

TARGET_LOCAL: Final = time(17)
FEDWIRE_LOCAL: Final = time(18, 45)

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)
_FRANKFURT: Final = 1 * _HOUR
_NEW_YORK: Final = -5 * _HOUR


def moment_of(day: date, local: time, zone: str) -> datetime:
    """Return the moment (UTC) at which the clocks of *zone* show *local* on *day*.

    Where the clocks go back and show it twice, the first time counts: a cut-off is rather early
    than late. Where they leap over it, the moment of the leap counts.

    Raises:
        BadInput: no zone of that name is known (IANA: ``Europe/Berlin``).
    """
    try:
        there = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise BadInput(
            f"no time zone {zone!r} is known", remedy="Name it as IANA does: Europe/Berlin"
        ) from error
    wall = datetime.combine(day, local.replace(tzinfo=None), there)
    found = wall.astimezone(UTC)
    if found.astimezone(there).replace(tzinfo=None) == wall.replace(tzinfo=None):
        return found
    return _leap(found - _DAY, found + _DAY, there)


def _leap(low: datetime, high: datetime, there: ZoneInfo) -> datetime:
    """Return when the offset of a zone changes between two moments; to the second."""
    before = low.astimezone(there).utcoffset()
    while high - low > _SECOND:
        middle = (low + (high - low) // 2).replace(microsecond=0)
        if middle.astimezone(there).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


def find_cutoff(calendar: AnyCalendar, day: date) -> datetime | None:
    """Return until when (UTC) a payment still has value on *day*; None: no cut-off is known.

    Whether *day* is a business day at all is not asked here.

    Raises:
        BadInput: the year is before `CUTOFF_YEAR_MIN`.
    """
    if day.year < CUTOFF_YEAR_MIN:
        raise BadInput(f"no cut-off here is known for {day.isoformat()}")
    match calendar:
        case Calendar.ALWAYS | Calendar.WEEKDAYS | KeptCalendar():
            return None
        case Calendar.TARGET:
            return _in_utc(day, TARGET_LOCAL, _FRANKFURT, summer=_is_summer_in_europe(day))
        case Calendar.FEDWIRE:
            return _in_utc(day, FEDWIRE_LOCAL, _NEW_YORK, summer=_is_summer_in_america(day))


def earliest_value_date(at: datetime, calendars: Collection[AnyCalendar]) -> date:
    """Return the first day on which all of *calendars* can still move money at *at* (with a zone).

    At the very moment of a cut-off it is too late.
    """
    now = at.astimezone(UTC)
    day = now.date()
    while not is_joint_business_day(calendars, day) or _is_over(now, day, calendars):
        day += _DAY
    return day


def _is_over(now: datetime, day: date, calendars: Collection[AnyCalendar]) -> bool:
    cutoffs = [find_cutoff(calendar, day) for calendar in calendars]
    return any(cutoff is not None and cutoff <= now for cutoff in cutoffs)


def _in_utc(day: date, local: time, offset: timedelta, *, summer: bool) -> datetime:
    # The clocks change in the small hours of a Sunday, never between a cut-off and its day.
    return datetime.combine(day, local, UTC) - offset - (_HOUR if summer else timedelta(0))


def _is_summer_in_europe(day: date) -> bool:
    return last_weekday(day.year, 3, SUNDAY) <= day < last_weekday(day.year, 10, SUNDAY)


def _is_summer_in_america(day: date) -> bool:
    return nth_weekday(day.year, 3, SUNDAY, 2) <= day < nth_weekday(day.year, 11, SUNDAY, 1)
