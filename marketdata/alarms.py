"""When the state of a stream needs somebody's attention; pure.

The limits are values: who pages people, and later rules that stop trading, bring their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Final

from marketdata.model import StreamState, StreamStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What is still no reason for an alarm.

    Attributes:
        down_max: how long a stream may be anything but live.
        age_max: how old the newest message of a live stream may be. Quiet markets are quiet for
            longer than a book may be traded on: this is for people, `freshness` is for orders.
        told_max: how old what is known of a stream may be: whoever wrote it may have ended.
        queue_ppm: how full a queue may be, in millionths of its room.
    """

    down_max: timedelta = timedelta(seconds=15)
    age_max: timedelta = timedelta(minutes=2)
    told_max: timedelta = timedelta(seconds=30)
    queue_ppm: int = 800_000


THRESHOLDS: Final = Thresholds()
PPM: Final = 1_000_000


@unique
class Alarm(StrEnum):
    """What is the matter with a stream or a queue, the first that applies."""

    UNTOLD = "nobody has told of it for too long"
    DOWN = "not live for too long"
    SILENT = "no message for too long"
    FULL = "nearly full"
    DROPPED = "items were dropped"


def stream_alarm(
    status: StreamStatus,
    *,
    now: datetime,
    told_at: datetime,
    thresholds: Thresholds = THRESHOLDS,
) -> Alarm | None:
    """Return what is the matter with a stream; None: nothing.

    Args:
        status: the stream as it was told last.
        now: the time of the look.
        told_at: when it was told.
        thresholds: what is no reason yet.
    """
    if now - told_at > thresholds.told_max:
        return Alarm.UNTOLD
    if status.state is not StreamState.LIVE:
        return Alarm.DOWN if now - status.since > thresholds.down_max else None
    seen_at = status.last_event_at or status.since
    return Alarm.SILENT if now - seen_at > thresholds.age_max else None


def queue_alarm(
    depth: int, room: int, dropped: int, *, thresholds: Thresholds = THRESHOLDS
) -> Alarm | None:
    """Return what is the matter with a queue of *room* items that holds *depth*; None: nothing."""
    if dropped:
        return Alarm.DROPPED
    return Alarm.FULL if depth * PPM > room * thresholds.queue_ppm else None
