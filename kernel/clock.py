"""Time as a value that is passed in."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import Final, Protocol

from kernel.errors import BadInput

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S: Final = 86_400


class Clock(Protocol):
    """Whoever needs the time is given one of these."""

    def now(self) -> datetime:
        """Return the current time, timezone-aware, in UTC."""
        ...

    def now_ns(self) -> int:
        """Return the same time in nanoseconds since 1970."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock: made once, where a process is wired together."""

    def now(self) -> datetime:
        """Return the machine's time in UTC."""
        return datetime.now(tz=UTC)  # noqa: TID251  this is the one clock that may

    def now_ns(self) -> int:
        """Return the machine's time in nanoseconds since 1970."""
        return time_ns()


@dataclass(slots=True)
class ManualClock:
    """A clock that stands still until it is moved; for tests and simulations."""

    at: datetime = field(default=datetime(2026, 1, 5, 9, 0, tzinfo=UTC))

    def now(self) -> datetime:
        """Return the time that was set last."""
        return self.at

    def now_ns(self) -> int:
        """Return the time that was set last, in nanoseconds since 1970."""
        return to_unix_ns(self.now())

    def advance(self, by: timedelta) -> datetime:
        """Move the clock forward (or back, with a negative interval) and return the new time."""
        self.at += by
        return self.at


def to_unix_ms(at: datetime) -> int:
    """Return milliseconds since 1970, refusing times without a zone."""
    if at.tzinfo is None:
        raise BadInput(f"{at.isoformat()} has no time zone")
    since = at - _EPOCH
    milliseconds, rest = divmod(since.microseconds, 1_000)
    milliseconds += (since.days * _DAY_S + since.seconds) * 1_000
    # Towards 1970, also before it.
    return milliseconds + 1 if milliseconds < 0 and rest else milliseconds


def to_unix_ns(at: datetime) -> int:
    """Return nanoseconds since 1970, refusing times without a zone."""
    if at.tzinfo is None:
        raise BadInput(f"{at.isoformat()} has no time zone")
    since = at - _EPOCH
    return ((since.days * _DAY_S + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def from_unix_ns(at_ns: int) -> datetime:
    """Return the time in UTC, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=at_ns // 1_000)


def iso(at: datetime) -> str:
    """Return *at* in ISO 8601, UTC, to the millisecond: ``2026-01-05T09:00:00.000Z``."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
