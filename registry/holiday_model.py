"""A country's bank holidays as they are taken over, and as they are kept. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, NamedTuple

from kernel.errors import BadInput
from registry.calendars import KeptCalendar

YEARS_MAX: Final = 30
DAYS_MAX: Final = 3_000
TEXT_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Holidays:
    """What is taken over: the calendar, how its days are called, and where it is from.

    Attributes:
        names: what each closed day is called there.
        source: ``holidays 0.108 GB/ENG``.
    """

    calendar: KeptCalendar
    names: Mapping[date, str]
    source: str

    def __post_init__(self) -> None:
        kept = self.calendar
        if frozenset(self.names) != kept.closed:
            raise BadInput(f"not every closed day of {kept.code} has a name, or one more has")
        if kept.first_day > kept.last_day or kept.last_day.year - kept.first_day.year > YEARS_MAX:
            raise BadInput(
                f"the calendar of {kept.code} is not for 1 to {YEARS_MAX} years",
                remedy="Take over the years that deals can settle in",
            )
        if len(kept.closed) > DAYS_MAX or not all(
            kept.first_day <= day <= kept.last_day for day in kept.closed
        ):
            raise BadInput(f"{kept.code} has too many holidays, or some outside of its years")
        if any(len(text) > TEXT_MAX for text in (*self.names.values(), self.source)):
            raise BadInput(f"a name in the calendar of {kept.code} is longer than {TEXT_MAX}")

    @property
    def sha256(self) -> str:
        """Return the hash of what it says, whatever version it becomes."""
        kept = self.calendar
        content = {
            "calendar": kept.code,
            "first_day": kept.first_day.isoformat(),
            "last_day": kept.last_day.isoformat(),
            "weekend": sorted(kept.weekend),
            "days": {day.isoformat(): name for day, name in sorted(self.names.items())},
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


class Taken(NamedTuple):
    """A version of a calendar, and from where and by whom it was taken over."""

    calendar: KeptCalendar
    names: Mapping[date, str]
    source: str
    sha256: str
    entered_by: str
    approved_by: str
    at: datetime
