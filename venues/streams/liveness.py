"""Decisions about a stream's life: how long to wait before the next one, whether silence is death."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Final, Protocol

from venues.model import VenueFill

DOUBLINGS_MAX: Final = 20


class Pauses(Protocol):
    """The part of a policy that pauses follow from."""

    @property
    def backoff_min(self) -> timedelta:
        """Return the first pause."""
        ...

    @property
    def backoff_max(self) -> timedelta:
        """Return the longest pause."""
        ...


def pause_before(attempt: int, policy: Pauses, chance: float) -> timedelta:
    """Return how long to wait before connection number *attempt* after a loss (from 0).

    Doubles from the smallest pause to the largest; *chance* in [0, 1) takes off up to half of it, so
    that many who lost the same venue do not come back at the same moment.
    """
    doubled: int = 2 ** min(attempt, DOUBLINGS_MAX)
    full = min(policy.backoff_max, policy.backoff_min * doubled)
    return full - (full // 2) * chance


def is_silent(heard_at: datetime, now: datetime, silence_max: timedelta | None) -> bool:
    """Tell whether a venue that speaks by itself has been silent for too long."""
    return silence_max is not None and now - heard_at > silence_max


def first_missed(
    listed: Iterable[VenueFill], seen: Collection[tuple[str, str]]
) -> VenueFill | None:
    """Return the oldest of *listed* that the stream has not brought, if there is one."""
    missed = [item for item in listed if (item.symbol, item.trade_id) not in seen]
    return min(missed, key=lambda item: (item.executed_at, item.trade_id), default=None)
