"""Bank holidays of a country as the library `holidays` has them, to be looked at and taken over.

What it says changes with its version and is never used as it is: people sign it, and from then on only
what is kept counts (`registry.kept_calendars`). It comes with the extra ``calendars``.
"""

from __future__ import annotations

from datetime import date
from importlib.metadata import version
from typing import Final

from kernel.errors import BadInput, OutsideUnavailable
from registry.calendars import KeptCalendar
from registry.holiday_model import YEARS_MAX, Holidays

try:
    import holidays
except ImportError:  # The extra is not installed.
    HAS_LISTS = False
else:
    HAS_LISTS = True

BANK: Final = "bank"


def read_holidays(code: str, first: int, last: int, *, subdivision: str = "") -> Holidays:
    """Return the bank holidays of a country (ISO 3166-1, small letters) in the years from *first* on.

    Public holidays, and those that are of banks alone where the library tells them apart.

    Raises:
        OutsideUnavailable: the library is not installed.
        BadInput: it does not know the country or its part, or the years cannot be.
    """
    if not HAS_LISTS:
        raise OutsideUnavailable(
            "there is no list of holidays here", remedy="Install causeway[calendars]"
        )
    if not 0 <= last - first <= YEARS_MAX:
        raise BadInput(
            f"{first} to {last} are no years of a calendar", remedy=f"Name 1 to {YEARS_MAX} years"
        )
    country = code.upper()
    try:
        plain = holidays.country_holidays(country, subdiv=subdivision or None, years=first)
        kinds = {"public", BANK} & set(plain.supported_categories)
        found = holidays.country_holidays(
            country,
            subdiv=subdivision or None,
            years=range(first, last + 1),
            categories=tuple(sorted(kinds)),
        )
    except (NotImplementedError, ValueError) as error:
        raise BadInput(
            f"the list knows no holidays of {code} {subdivision}".rstrip(), remedy=str(error)
        ) from error
    names = {day: name for day, name in found.items() if first <= day.year <= last}
    part = f"/{subdivision}" if subdivision else ""
    calendar = KeptCalendar(
        code=code,
        version=1,
        first_day=date(first, 1, 1),
        last_day=date(last, 12, 31),
        closed=frozenset(names),
        weekend=frozenset(found.weekend),
    )
    return Holidays(calendar, names, f"holidays {version('holidays')} {country}{part}")
