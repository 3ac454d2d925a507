"""Which cycles are due: the slots of windows, by every version of their policies. Pure.

A slot is (window, business date). It is due at its cut-off, told by the clocks of the window's zone, so
that a day on which they change has exactly one. What passed while nothing ran is due still, oldest
first; a clock that goes back finds nothing that it did not find before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from settlement.clocks import slots
from settlement.model import Window

JOB: Final = "settlement.cycle"
SLOTS_MAX: Final = 400
"""Slots of one window found at once: more than a year of days. The rest is found next time."""
_NOON: Final = time(12)
_TWO_DAYS: Final = timedelta(days=2)


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """One cycle that is due: the moment first, so that slots sort in the order of their cut-offs."""

    cutoff_at: datetime
    window: str
    business_date: date

    @property
    def job(self) -> str:
        """Return the name of the slot's job row; with its moment, the row is unique."""
        return job_of(self.window)


def job_of(window: str) -> str:
    """Return the name of a window's jobs."""
    return f"{JOB}/{window}"


def due_slots(versions: Sequence[Window], *, after: datetime | None, until: datetime) -> list[Slot]:
    """Return the slots of one window with a cut-off in (*after*, *until*], oldest first.

    Args:
        versions: every version of the window's policy; the newest that may hold on a day, does.
        after: the cut-off of the newest slot that is known; None: there was none yet.
    """
    found: dict[date, Slot] = {}
    for version in sorted(versions, key=lambda v: v.version):
        start = _floor(version) if after is None else max(after, _floor(version))
        for day, cutoff in slots(version, start, until, first=version.effective_from):
            if _in_force(versions, day) is version:
                found[day] = Slot(cutoff, version.name, day)
            if len(found) > SLOTS_MAX:
                break
    return sorted(found.values())[:SLOTS_MAX]


def find_slot(versions: Sequence[Window], day: date) -> Slot | None:
    """Return the window's slot on *day*; None: it has no cycle then."""
    version = _in_force(versions, day)
    if version is None:
        return None
    low, high = _around(day)
    for found, cutoff in slots(version, low, high, first=version.effective_from):
        if found == day:
            return Slot(cutoff, version.name, day)
    return None


def _in_force(versions: Sequence[Window], day: date) -> Window | None:
    holding = [version for version in versions if version.effective_from <= day]
    return max(holding, key=lambda v: v.version, default=None)


def _floor(version: Window) -> datetime:
    low, _ = _around(version.effective_from)
    return low


def _around(day: date) -> tuple[datetime, datetime]:
    """Return moments before and after any that is on *day* somewhere on earth."""
    noon = datetime.combine(day, _NOON, UTC)
    return noon - _TWO_DAYS, noon + _TWO_DAYS
