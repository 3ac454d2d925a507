"""How far the signer believes the machine's clock: no further than time can have passed. Pure.

A cooling-off and a window end when time has passed, so whoever sets the clock forward would end them.
While the signer runs it is held to a second clock that nobody sets: what that one counts since the
start, and a little for the drift of both. At the start nobody has counted, so the machine's clock is
believed up to a day beyond the newest record of the log. What is believed too little is made up for by
people: what two of them have signed at a time was signed at that time or later.

What time only forbids (an approval that ends) goes by the machine's clock as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

DOWNTIME_MAX_MS: Final = 86_400_000
"""How long a signer that is started is believed to have been down."""
SLACK_MS: Final = 60_000
"""By how much the machine's clock may be put right while the signer runs, once."""
DRIFT: Final = 1_000
"""One part in so many: NTP slews a clock by 500 millionths at most."""


@dataclass(slots=True)
class Pace:
    """The latest time that can be believed.

    Attributes:
        steady: milliseconds of a clock that runs on through sleep and is never set.
        base_ms: what was believed when *steady* said *since_ms*.
    """

    steady: Callable[[], int]
    base_ms: int
    since_ms: int

    @classmethod
    def begin(cls, wall_ms: int, *, newest_ms: int, steady: Callable[[], int]) -> Pace:
        """Begin at a start: *newest_ms* is the time of the newest record of the log."""
        return cls(steady, min(wall_ms, newest_ms + DOWNTIME_MAX_MS), steady())

    def believe(self, wall_ms: int) -> int:
        """Return *wall_ms*, or the latest time that can be believed if that is earlier."""
        passed = self.steady() - self.since_ms
        return min(wall_ms, self.base_ms + passed + passed // DRIFT + SLACK_MS)

    def witness(self, at_ms: int, *, wall_ms: int) -> None:
        """Take it from people that it is *at_ms* or later; never later than the machine's clock."""
        behind = min(at_ms, wall_ms) - self.believe(wall_ms)
        if behind > 0:
            self.base_ms += behind
