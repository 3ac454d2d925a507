"""The two limits of Kraken: calls per key, and transactions per account and pair.

Both are counters that a request raises and time lowers. The call counter is one per API key; the
trading engine's counter is one per pair and shared by REST and WebSocket: a new order costs 1, a
cancel or an amend costs more the younger the order is. Levels are counted in
millionths of a point, so that a millisecond's decay is whole. Source: docs.kraken.com, Spot REST rate limits; Spot trading limits.
"""

from dataclasses import dataclass
from enum import Enum, unique
from typing import Final

POINT: Final = 1_000_000


@unique
class Tier(Enum):
    """Verification levels: (calls at most, their decay in 1/1000 per s, transactions, decay, orders)."""

    STARTER = (15, 330, 60, 1_000, 60)
    INTERMEDIATE = (20, 500, 125, 2_340, 80)
    PRO = (20, 1_000, 180, 3_750, 225)

    @property
    def calls_max(self) -> int:
        """Points the call counter may reach."""
        return self.value[0]

    @property
    def calls_decay(self) -> int:
        """Thousandths of a point the call counter loses per second."""
        return self.value[1]

    @property
    def engine_max(self) -> int:
        """Points a pair's counter may reach; `maxratecount` on the executions channel."""
        return self.value[2]

    @property
    def engine_decay(self) -> int:
        """Thousandths of a point a pair's counter loses per second."""
        return self.value[3]

    @property
    def open_orders_max(self) -> int:
        """Open orders per pair."""
        return self.value[4]


@unique
class Transaction(Enum):
    """What raises the engine's counter: fixed points, and points by the order's age in seconds."""

    _value_: tuple[int, tuple[tuple[int, int], ...]]

    ADD = (1, ())
    AMEND = (1, ((5, 3), (10, 2), (15, 1)))
    EDIT = (1, ((5, 6), (10, 5), (15, 4), (45, 2), (90, 1)))
    CANCEL = (0, ((5, 8), (10, 6), (15, 5), (45, 4), (90, 2), (300, 1)))

    def points(self, age_ms: int) -> int:
        """Points for an order of this age."""
        fixed, by_age = self._value_
        return fixed + next((more for below_s, more in by_age if age_ms < below_s * 1000), 0)


@dataclass(slots=True)
class Counter:
    """A counter that time lowers: `level` in millionths of a point, `decay` in thousandths per s."""

    decay: int
    level: int = 0
    at_ms: int = 0

    def lowered(self, now_ms: int) -> int:
        """The level now."""
        elapsed_ms = max(0, now_ms - self.at_ms)
        self.level = max(0, self.level - elapsed_ms * self.decay)
        self.at_ms = now_ms
        return self.level

    def raise_by(self, points: int, now_ms: int) -> int:
        """Add points; answers the level."""
        self.level = self.lowered(now_ms) + points * POINT
        return self.level


class Limits:
    """All counters of a venue. Nothing is refused unless `enforced`; levels are always counted."""

    def __init__(self, tier: Tier, *, enforced: bool) -> None:
        self.tier = tier
        self.enforced = enforced
        self._calls: dict[str, Counter] = {}
        self._engine: dict[tuple[str, str], Counter] = {}

    def call(self, api_key: str, points: int, now_ms: int) -> bool:
        """Count a call; False when the key is over its limit. A call that costs nothing passes."""
        if not points:
            return True
        counter = self._calls.setdefault(api_key, Counter(self.tier.calls_decay))
        level = counter.raise_by(points, now_ms)
        return not self.enforced or level <= self.tier.calls_max * POINT

    def transaction(self, account: str, market: str, points: int, now_ms: int) -> bool:
        """Count a transaction of a pair; False when the account is over its limit there."""
        level = self._of_pair(account, market).raise_by(points, now_ms)
        return not self.enforced or level <= self.tier.engine_max * POINT

    def engine_level(self, account: str, market: str, now_ms: int) -> int:
        """Whole points of a pair's counter."""
        return self._of_pair(account, market).lowered(now_ms) // POINT

    def _of_pair(self, account: str, market: str) -> Counter:
        return self._engine.setdefault((account, market), Counter(self.tier.engine_decay))
