"""What of a need to hedge is ripe: young flow waits a while for flow the other way.

A client who buys and one who sells within the window meet each other in the desk's position; nothing
of what they share is traded at a venue and no spread is paid for it. The netting is exact and first
in, first out: new flow takes away the oldest that is open on the other side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kernel.errors import BadInput


@dataclass(frozen=True, slots=True)
class Flow:
    """What one deal, or its reversal, added to the need.

    Attributes:
        units: of the asset: positive, a client bought and it has to be bought; negative, sold.
        at: when it was booked.
    """

    units: int
    at: datetime


def ripe(need: int, young: Sequence[Flow], window: timedelta, band: int, now: datetime) -> int:
    """Return what of *need* is to be hedged now; the rest waits for flow the other way.

    It is of the sign of *need* and never more. What is not in *young* is old, whatever brought it
    about; so an order under way, a fill or an amendment needs no entry of its own.

    Args:
        need: what has to be bought (positive) or sold (negative), in smallest units.
        young: flow since ``now - window`` at least; older entries do no harm.
        window: how long flow waits; none waits where it is zero.
        band: a need beyond it, either way, is urgent and ripe as a whole.
        now: an entry of exactly the age of the window is ripe.

    Raises:
        BadInput: a window or a band below zero.
    """
    if window < timedelta(0) or band < 0:
        raise BadInput(f"a window of {window} or a band of {band} is not possible")
    if abs(need) > band:
        return need
    return sum(units for units, at in _open_parts(need, young) if at is None or now - at >= window)


def _open_parts(need: int, young: Sequence[Flow]) -> deque[tuple[int, datetime | None]]:
    """Return what *need* is made of, oldest first, all of its sign; without a time: the old part."""
    old = need - sum(flow.units for flow in young)
    parts: deque[tuple[int, datetime | None]] = deque([(old, None)] if old else [])
    for flow in sorted(young, key=lambda one: one.at):
        left = flow.units
        while parts and left and (parts[0][0] > 0) != (left > 0):
            units, at = parts.popleft()
            left += units
            if (left > 0) == (units > 0) and left:
                # The older part was the larger one: what it has left stays the oldest.
                parts.appendleft((left, at))
                left = 0
        if left:
            parts.append((left, flow.at))
    return parts
