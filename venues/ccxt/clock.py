"""How far a venue's clock is ahead of ours: a measurement with its error, kept and judged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from venues.errors import VenueUnavailable

NONE: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockPolicy:
    """When a measurement is too old, too rough or not to be believed.

    Attributes:
        age_max: after which the difference is measured again.
        error_max: a measurement is repeated, `samples_max` times at most, until it is this exact.
        jump_max: a change beyond this (and both errors) is warned of.
        ahead_max: a difference beyond this, either way, is not believed.
        rough_max: an error beyond this, and beyond what the venue's statement leaves out, is no
            measurement.
    """

    age_max: timedelta = timedelta(minutes=5)
    error_max: timedelta = timedelta(milliseconds=100)
    samples_max: int = 3
    jump_max: timedelta = timedelta(milliseconds=500)
    ahead_max: timedelta = timedelta(minutes=10)
    rough_max: timedelta = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """The venue's clock is `ahead` of ours, give or take `error`, measured at our `at`."""

    ahead: timedelta
    error: timedelta
    at: datetime


UNMEASURED: Final = ClockOffset(NONE, NONE, datetime(1970, 1, 1, tzinfo=UTC))
"""What is signed with before anything was measured: our own time."""


def measured(
    before: datetime, theirs: datetime, after: datetime, resolution: timedelta
) -> ClockOffset:
    """Return the difference from one question: their answer was true halfway, more or less.

    Half a round trip is the error, and half of what the venue's statement leaves out: it states
    its time cut to *resolution*.
    """
    half = (after - before) // 2
    middle = theirs + resolution // 2
    return ClockOffset(middle - (before + half), half + resolution // 2, after)


def better(one: ClockOffset | None, other: ClockOffset) -> ClockOffset:
    """Return the more exact measurement."""
    return other if one is None or other.error <= one.error else one


def is_due(offset: ClockOffset | None, now: datetime, policy: ClockPolicy) -> bool:
    """Tell whether it is time to measure; also when our own clock was turned back."""
    return offset is None or abs(now - offset.at) >= policy.age_max


def jumped(before: ClockOffset | None, after: ClockOffset, policy: ClockPolicy) -> bool:
    """Tell whether the difference changed by more than both errors and the policy explain."""
    if before is None:
        return False
    return abs(after.ahead - before.ahead) > policy.jump_max + before.error + after.error


def require_believable(offset: ClockOffset, policy: ClockPolicy, *, where: str) -> ClockOffset:
    """Return *offset*.

    Raises:
        VenueUnavailable: the clocks differ by more than anybody would believe, or nobody can tell.
    """
    if offset.error > policy.rough_max:
        raise VenueUnavailable(f"its clock is only known to {offset.error}", where=where)
    if abs(offset.ahead) > policy.ahead_max:
        raise VenueUnavailable(f"its clock is {offset.ahead} ahead of ours", where=where)
    return offset
