"""The clocks of a cycle: from a window's policy and a business date to moments. Pure.

A cut-off is a time on a wall, so it moves against UTC with summer time; what follows it is counted
in minutes that pass, so no clock is an hour short or long on such a day.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from registry.calendars import is_joint_business_day
from registry.cutoffs import moment_of
from settlement.model import Cycle, CyclePhase, Run, Window

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Clocks:
    """The moments (UTC) of a cycle, in their order."""

    cutoff_at: datetime
    affirm_until: datetime
    top_up_until: datetime
    release_at: datetime


def clocks_of(window: Window, day: date) -> Clocks:
    """Return the clocks of the window's cycle on a business date."""
    return count_from(window, moment_of(day, window.cut_off, window.timezone))


def count_from(window: Window, cutoff_at: datetime) -> Clocks:
    """Return the clocks that follow a cut-off."""
    affirm = cutoff_at + timedelta(minutes=window.affirm_minutes)
    top_up = affirm + timedelta(minutes=window.top_up_minutes)
    return Clocks(cutoff_at, affirm, top_up, top_up + timedelta(minutes=window.release_minutes))


def is_open_on(window: Window, day: date) -> bool:
    """Tell whether the window has a cycle on *day*."""
    return (
        window.active
        and window.effective_from <= day
        and is_joint_business_day(window.calendars, day)
    )


def slots(
    window: Window, after: datetime, until: datetime, *, first: date
) -> Iterator[tuple[date, datetime]]:
    """Yield (business date, cut-off) of each cycle whose cut-off is in (*after*, *until*].

    Args:
        window: one version of the policy.
        after, until: moments; nothing is yielded before *first*.
        first: the first business date that counts.
    """
    # A zone is at most 14 hours ahead of UTC and 12 behind: the date there is a day off at most.
    day = max(first, after.date() - _DAY)
    while day <= until.date() + _DAY:
        if is_open_on(window, day):
            cutoff = moment_of(day, window.cut_off, window.timezone)
            if after < cutoff <= until:
                yield day, cutoff
        day += _DAY


def phase_of(cycle: Cycle, now: datetime) -> CyclePhase:
    """Return what it is time for; each clock's own moment belongs to what comes after it."""
    if now < cycle.affirm_until:
        return CyclePhase.AFFIRM
    if now < cycle.top_up_until:
        return CyclePhase.TOP_UP
    return CyclePhase.SEAL if now < cycle.release_at else CyclePhase.RELEASE


def is_too_late_to_affirm(run: Run, now: datetime) -> bool:
    """Tell whether the run's time to affirm is over; a run of before has no clock."""
    return run.affirm_until is not None and now >= run.affirm_until


def reaffirm_until(run: Run, window: Window, now: datetime) -> datetime | None:
    """Return until when the next version of a disputed run can be affirmed.

    At least the window's minutes for it, but not beyond the time to top up: a dispute never holds
    up the seal of the others, and never shortens what the party had.
    """
    if run.affirm_until is None or run.top_up_until is None:
        return None
    given = min(now + timedelta(minutes=window.reaffirm_minutes), run.top_up_until)
    return max(run.affirm_until, given)
