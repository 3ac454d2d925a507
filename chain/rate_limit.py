"""How many requests a provider is asked per second: a token bucket. Pure; the time is passed in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from kernel.errors import BadInput

PER_SECOND_MAX: Final = 10_000
MILLI: Final = 1_000
"""Tokens are counted in thousandths, so that no fraction is ever lost or invented."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a provider's contract allows: requests per second, and how many at once.

    A batch counts as many requests as it has members, as providers count it.
    """

    per_second: int
    burst: int

    def __post_init__(self) -> None:
        if not 0 < self.per_second <= PER_SECOND_MAX or not 0 < self.burst <= PER_SECOND_MAX:
            raise BadInput(f"a rate limit lies between 1 and {PER_SECOND_MAX} requests")


@dataclass(slots=True)
class TokenBucket:
    """What is left of a rate limit. It may go below zero: whoever takes it there waits."""

    limit: RateLimit
    _millitokens: int = field(init=False)
    _at_ms: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._millitokens = self.limit.burst * MILLI

    def take(self, count: int, now_s: float) -> int:
        """Take *count* requests at *now_s* (monotonic seconds); return how many ms to wait.

        The tokens are taken at once: requests leave in the order in which they asked.
        """
        now_ms = round(now_s * 1_000)
        if self._at_ms is not None and now_ms > self._at_ms:
            # A request per second is a millitoken per millisecond.
            grown = (now_ms - self._at_ms) * self.limit.per_second
            self._millitokens = min(self.limit.burst * MILLI, self._millitokens + grown)
        self._at_ms = now_ms if self._at_ms is None else max(self._at_ms, now_ms)
        self._millitokens -= count * MILLI
        return -(min(0, self._millitokens) // self.limit.per_second)
