"""Which version of a standing instruction is in force. Pure.

A change of where somebody is paid is how settlement fraud works. So a change cools off, and does
not count before the party, called back at a number that was known before, has confirmed it. Until
then the version before stays in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from trading.terms.model import StandingInstruction, StandingState

COOLING_OFF_DAYS: Final = 2
"""A change is in force from the second UTC day after its approval: no less than 24 hours later."""


def earliest_start(version: int, today: date) -> date:
    """Return the first day on which a version that is approved *today* may be in force.

    The first version changes nothing and does not cool off: nobody was paid elsewhere before.
    """
    return today if version == 1 else today + timedelta(days=COOLING_OFF_DAYS)


def in_force(versions: Sequence[StandingInstruction], on: date) -> StandingInstruction | None:
    """Return which of *versions*, all of one (party, asset, rail), is in force on a day.

    The newest that has started by then. A version that was still waiting when a later one was
    approved never starts, unless that later one is denied.
    """
    started = [item for item in versions if _has_started(item, versions, on)]
    return max(started, key=lambda item: item.version, default=None)


def state_of(
    item: StandingInstruction, versions: Sequence[StandingInstruction], on: date
) -> StandingState:
    """Return what *item*, one of *versions*, is on a day."""
    if is_denied(item):
        return StandingState.DENIED
    if in_force(versions, on) == item:
        return StandingState.IN_FORCE
    start = _start(item)
    if _is_overtaken(item, versions, start) or (start is not None and start.date() <= on):
        return StandingState.REPLACED
    return StandingState.AWAITING_CALL_BACK if start is None else StandingState.COOLING_OFF


def _has_started(
    item: StandingInstruction, versions: Sequence[StandingInstruction], on: date
) -> bool:
    start = _start(item)
    return start is not None and start.date() <= on and not _is_overtaken(item, versions, start)


def _start(item: StandingInstruction) -> datetime | None:
    """Return from which moment on *item* may count; None: not yet, or never."""
    begins = datetime.combine(item.effective_from, time.min, UTC)
    if is_denied(item):
        return None
    if not item.needs_call_back:
        return begins
    if item.call_back is None:
        return None
    return max(begins, item.call_back.at)


def _is_overtaken(
    item: StandingInstruction, versions: Sequence[StandingInstruction], start: datetime | None
) -> bool:
    return any(
        later.version > item.version
        and not is_denied(later)
        and (start is None or later.at < start)
        for later in versions
    )


def is_denied(item: StandingInstruction) -> bool:
    """Tell whether the party said that it did not ask for *item*."""
    return item.call_back is not None and not item.call_back.confirmed
