"""A large hedge over time: what may still be open falls in a straight line to nothing.

A time-weighted average price, level-triggered. It does not plan slices and wait for them: at every
look it asks how much may be open at this moment, and what is beyond that is due. So a refused order,
a restart, a deal the other way or a minute without a venue need no plan of their own; they change
what is open, and the next look sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from kernel.errors import BadInput

EARLIER_MAX: Final = 1_000
"""How many durations before now a line may begin; beyond it the difference is no longer seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacePolicy:
    """What is hedged over time, and over how much of it; amounts in smallest units of the asset.

    Attributes:
        paced_from: a need up to this is due at once.
        duration: after it nothing of a need is open any more.
        slice_units: less than this is not due yet, so that orders have a sensible size.
    """

    paced_from: int
    duration: timedelta
    slice_units: int = 0

    def __post_init__(self) -> None:
        if self.paced_from < 0 or not 0 <= self.slice_units <= max(self.paced_from, 1):
            raise BadInput(
                f"slices of {self.slice_units} units of needs beyond {self.paced_from} do not work",
                remedy="A slice is at most what is hedged at once",
            )
        if self.duration <= timedelta(0):
            raise BadInput(f"a hedge cannot take {self.duration}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The line along which a need closes: *units* at *started_at*, nothing at *until*.

    Attributes:
        units: as the need: positive to buy, negative to sell; never 0.
    """

    started_at: datetime
    units: int
    until: datetime

    def open_at(self, now: datetime) -> int:
        """Return how much may still be open, without a sign, rounded down."""
        if now >= self.until:
            return 0
        if now <= self.started_at:
            return abs(self.units)
        left, whole = self.until - now, self.until - self.started_at
        return abs(self.units) * _microseconds(left) // _microseconds(whole)


def due(need: int, pace: Pace | None, policy: PacePolicy, now: datetime) -> int:
    """Return what of *need* is to be hedged now: of its sign, and never more.

    Args:
        need: what has to be bought (positive) or sold (negative).
        pace: what `next_pace` says of the same need at the same moment; None: all of it is due.
        policy: how large a slice is.
        now: from `until` of the pace on everything is due.
    """
    if pace is None:
        return need
    beyond = abs(need) - pace.open_at(now)
    if beyond <= 0 or (beyond < policy.slice_units and now < pace.until):
        return 0
    return beyond if need > 0 else -beyond


def next_pace(need: int, pace: Pace | None, policy: PacePolicy, now: datetime) -> Pace | None:
    """Return the pace from now on, given the last one; None: the need is due at once.

    - A need of at most `paced_from` has none, also when a longer one has shrunk to it.
    - A need the other way begins anew.
    - One that has grown by more than `paced_from` gets a later end: the mean, by amount, of the old
      end for what may still be open and of a whole duration for what came on top. What is overdue
      stays due, so that a need that grows at every look is not put off for ever.
    - One that is as far as it should be, or further, goes on from here to the same end.
    - One that is behind keeps the line that it is behind of.
    """
    if abs(need) <= policy.paced_from:
        return None
    if pace is None or (pace.units > 0) != (need > 0):
        return Pace(started_at=now, units=need, until=now + policy.duration)
    added = abs(need) - abs(pace.units)
    if added > policy.paced_from:
        return _grown(need, added, pace, policy, now)
    if abs(need) <= pace.open_at(now):
        return Pace(started_at=now, units=need, until=pace.until)
    return pace


def _grown(need: int, added: int, pace: Pace, policy: PacePolicy, now: datetime) -> Pace:
    """Return the line on which now as much may be open as before, and *added* on top."""
    still_open = pace.open_at(now)
    to_old_end = _microseconds(max(pace.until - now, timedelta(0)))
    duration = _microseconds(policy.duration)
    left = max(1, (still_open * to_old_end + added * duration) // (still_open + added))
    overdue = abs(need) - still_open - added
    # Drawn back from now to where the whole of the need is open, rounded up: no less is due.
    earlier = -(-left * overdue // (still_open + added))
    return Pace(
        started_at=now - timedelta(microseconds=min(earlier, EARLIER_MAX * duration)),
        units=need,
        until=now + timedelta(microseconds=left),
    )


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
