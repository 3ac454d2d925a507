"""On which days money moves: the rules of payment systems, and value dates by them. Pure.

The rules are written out here and not taken from a library, so that no upgrade moves a value date
that was agreed. `CALENDARS_VERSION` names them; whoever keeps a value date keeps the version with it.
Holidays of countries follow no such rules: they are taken over by people, and kept by version
(`registry.kept_calendars`).

Sources:

* TARGET: European Central Bank, "Long-term calendar for TARGET closing days", 14 December 2000,
  from 2002 until further notice; T2 goes by the same days.
* Fedwire: Federal Reserve Board, "Holidays Observed - K.8": a holiday on a Sunday is kept on the
  Monday, one on a Saturday is not made up for: the banks are open on the Friday before. The days
  are those of 5 U.S.C. 6103(a); Juneteenth since 17 June 2021 (Public Law 117-17).
* Easter: the algorithm "of Oudin", as the U.S. Naval Observatory prints it; Gregorian, exact for
  every year of the calendar.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeAlias

from kernel.errors import BadInput

CALENDARS_VERSION: Final = "2026.1"
"""Changes whenever a rule below does; value dates on record keep the version they were made by."""

YEAR_MIN: Final = 2002
"""From here on TARGET has its long-term calendar, and the dollar's holidays are today's."""
YEAR_MAX: Final = 2199
TENOR_DAYS_MAX: Final = 30
"""A settlement later than that many business days is a forward, which the desk does not deal in."""

JUNETEENTH_SINCE: Final = 2021

_MONDAY: Final = 0
_THURSDAY: Final = 3
_SATURDAY: Final = 5
SUNDAY: Final = 6
_DAY: Final = timedelta(days=1)
_CODE: Final = re.compile(r"[a-z]{2}(-[a-z0-9]{1,3})?")


class Calendar(StrEnum):
    """Whose days count."""

    ALWAYS = "always"
    """Every day: chains, books of our own, and what circulates on them."""
    TARGET = "target"
    """The euro."""
    FEDWIRE = "fedwire"
    """The US dollar."""
    WEEKDAYS = "weekdays"
    """Monday to Friday: a currency whose bank holidays are not written down here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCalendar:
    """A country's bank holidays, as two people took them over: one version, never rewritten.

    Attributes:
        code: of the country, in small letters (ISO 3166-1): ``gb``.
        first_day, last_day: outside of them it knows nothing.
        closed: the holidays in between.
        weekend: weekdays on which it is always closed; Monday is 0.
    """

    code: str
    version: int
    first_day: date
    last_day: date
    closed: frozenset[date]
    weekend: frozenset[int] = frozenset({_SATURDAY, SUNDAY})

    def __post_init__(self) -> None:
        if not _CODE.fullmatch(self.code):
            raise BadInput(
                f"{self.code!r} is no code of a calendar",
                remedy="Use that of the country in small letters: gb",
            )

    def __str__(self) -> str:
        """Return its name and version: ``gb@3``."""
        return f"{self.code}@{self.version}"

    def is_open(self, day: date) -> bool:
        """Tell whether banks are open on *day*.

        Raises:
            BadInput: it does not know that day.
        """
        if not self.first_day <= day <= self.last_day:
            raise BadInput(
                f"calendar {self} knows nothing of {day.isoformat()}",
                remedy="Take over the holidays of more years: `causeway registry calendars import`",
            )
        return day.weekday() not in self.weekend and day not in self.closed


AnyCalendar: TypeAlias = Calendar | KeptCalendar


def is_business_day(calendar: AnyCalendar, day: date) -> bool:
    """Tell whether money moves on *day*.

    Raises:
        BadInput: the year is before `YEAR_MIN` or after `YEAR_MAX`, or a kept calendar does not know
            the day.
    """
    _require_year(day)
    if isinstance(calendar, KeptCalendar):
        return calendar.is_open(day)
    match calendar:
        case Calendar.ALWAYS:
            return True
        case Calendar.WEEKDAYS:
            return day.weekday() < _SATURDAY
        case Calendar.TARGET:
            return day.weekday() < _SATURDAY and day not in _target_closed(day.year)
        case Calendar.FEDWIRE:
            return day.weekday() < _SATURDAY and day not in _fedwire_closed(day.year)


def is_joint_business_day(calendars: Collection[AnyCalendar], day: date) -> bool:
    """Tell whether *day* is a business day of every one of *calendars*."""
    return all(is_business_day(calendar, day) for calendar in calendars)


def add_business_days(day: date, count: int, calendars: Collection[AnyCalendar]) -> date:
    """Return the day that is *count* joint business days after *day*.

    Only days on which all of *calendars* are open count; *day* itself never does, business day or
    not. With a *count* of zero: *day* if it is a joint business day, else the next one.

    Raises:
        BadInput: the count is below zero or above `TENOR_DAYS_MAX`, or the way leaves the calendars.
    """
    if not 0 <= count <= TENOR_DAYS_MAX:
        raise BadInput(
            f"{count} business days cannot be added", remedy=f"Ask for 0 to {TENOR_DAYS_MAX}"
        )
    reached = day
    if count == 0:
        while not is_joint_business_day(calendars, reached):
            reached += _DAY
        return reached
    for _ in range(count):
        reached += _DAY
        while not is_joint_business_day(calendars, reached):
            reached += _DAY
    return reached


def count_business_days(after: date, until: date, calendars: Collection[AnyCalendar]) -> int:
    """Return how many joint business days lie after *after*, up to and with *until*."""
    days = range(1, (until - after).days + 1)
    return sum(is_joint_business_day(calendars, after + _DAY * number) for number in days)


def value_date(trade_date: date, tenor: int, calendars: Collection[AnyCalendar]) -> date:
    """Return when a deal of *trade_date* settles: *tenor* joint business days after it (T+n).

    A deal of a Saturday that settles T+1 settles on the Monday, if both sides' systems are open:
    days are counted from the trade date itself, whatever day it is.
    """
    return add_business_days(trade_date, tenor, calendars)


def easter_sunday(year: int) -> date:
    """Return Easter Sunday of the Gregorian calendar.

    Source: J.-M. Oudin (1940), reprinted in the Explanatory Supplement to the Astronomical Almanac,
    ed. P. K. Seidelmann (1992), section 12.9.
    """
    century = year // 100
    golden = year % 19
    correction = (century - 17) // 25
    moon = (century - century // 4 - (century - correction) // 3 + 19 * golden + 15) % 30
    moon -= (moon // 28) * (1 - (moon // 28) * (29 // (moon + 1)) * ((21 - golden) // 11))
    weekday = (year + year // 4 + moon + 2 - century + century // 4) % 7
    offset = moon - weekday
    month = 3 + (offset + 40) // 44
    return date(year, month, offset + 28 - 31 * (month // 4))


def nth_weekday(year: int, month: int, weekday: int, number: int) -> date:
    """Return the *number*-th Monday (0) … Sunday (6) of a month, counted from 1."""
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (number - 1))


def last_weekday(year: int, month: int, weekday: int) -> date:
    """Return the last Monday (0) … Sunday (6) of a month that is not December."""
    end = date(year, month + 1, 1) - _DAY
    return end - timedelta(days=(end.weekday() - weekday) % 7)


@lru_cache(maxsize=YEAR_MAX - YEAR_MIN + 1)
def _target_closed(year: int) -> frozenset[date]:
    easter = easter_sunday(year)
    return frozenset(
        {
            date(year, 1, 1),
            easter - 2 * _DAY,
            easter + _DAY,
            date(year, 5, 1),
            date(year, 12, 25),
            date(year, 12, 26),
        }
    )


@lru_cache(maxsize=YEAR_MAX - YEAR_MIN + 1)
def _fedwire_closed(year: int) -> frozenset[date]:
    fixed = [date(year, 1, 1), date(year, 7, 4), date(year, 11, 11), date(year, 12, 25)]
    if year >= JUNETEENTH_SINCE:
        fixed.append(date(year, 6, 19))
    return frozenset(
        {
            *(_kept_on(day) for day in fixed),
            nth_weekday(year, 1, _MONDAY, 3),
            nth_weekday(year, 2, _MONDAY, 3),
            last_weekday(year, 5, _MONDAY),
            nth_weekday(year, 9, _MONDAY, 1),
            nth_weekday(year, 10, _MONDAY, 2),
            nth_weekday(year, 11, _THURSDAY, 4),
        }
    )


def _kept_on(holiday: date) -> date:
    # From a Saturday it is not moved to the Friday: that day the banks are open. No holiday that
    # could be a Sunday is the last of its year, so its Monday is in the same year.
    return holiday + _DAY if holiday.weekday() == SUNDAY else holiday


def _require_year(day: date) -> None:
    if not YEAR_MIN <= day.year <= YEAR_MAX:
        raise BadInput(
            f"no calendar here knows {day.isoformat()}",
            remedy=f"They are written for the years {YEAR_MIN} to {YEAR_MAX}",
        )
