"""What was signed lately, per asset and per chain: rolling sums. Pure.

Counted is what a signature allows to leave, when it is first signed for a nonce, by the signer's own
clock; what never reaches a block counts all the same.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from custody.control_messages import AssetRule, LimitsInForce

MS: Final = 1_000

AssetKey = tuple[int, str, str | None]
"""(network id, asset, contract)."""


@dataclass(slots=True)
class RollingSum:
    """A sum over the last *window_ms* milliseconds."""

    window_ms: int
    entries: deque[tuple[int, int]] = field(default_factory=deque)
    total: int = 0

    def add(self, at_ms: int, amount: int) -> None:
        """Count *amount* at *at_ms*, which is never before what was counted last."""
        self.entries.append((at_ms, amount))
        self.total += amount

    def sum(self, now_ms: int) -> int:
        """Return what falls into the window that ends now."""
        while self.entries and self.entries[0][0] <= now_ms - self.window_ms:
            self.total -= self.entries.popleft()[1]
        return self.total


@dataclass(frozen=True, slots=True)
class Spent:
    """What one signature added.

    Attributes:
        leaves: it goes to somebody else, not to an address of our own.
        auto: a service approved it, and not enough people.
        cancels: it pays nobody, and nobody approved it.
    """

    asset: AssetKey
    amount: int
    fee: int
    leaves: bool
    auto: bool
    cancels: bool = False


@dataclass(slots=True)
class Windows:
    """The sums that the limits speak of."""

    paid: dict[AssetKey, RollingSum]
    auto: dict[AssetKey, RollingSum]
    fees: dict[int, RollingSum]
    cancelled: dict[int, RollingSum]
    """Fees of cancellations alone."""

    @classmethod
    def of(cls, limits: LimitsInForce) -> Windows:
        """Return empty windows for these limits."""
        return cls(
            paid={asset_key(rule): RollingSum(rule.window_s * MS) for rule in limits.assets},
            auto={asset_key(rule): RollingSum(rule.window_s * MS) for rule in limits.assets},
            fees={chain: RollingSum(limits.fee_window_s * MS) for chain in limits.chains.values()},
            cancelled={
                chain: RollingSum(limits.fee_window_s * MS) for chain in limits.chains.values()
            },
        )

    @staticmethod
    def longest_ms(limits: LimitsInForce) -> int:
        """Return how far back anything is counted."""
        seconds = (limits.fee_window_s, *(rule.window_s for rule in limits.assets))
        return max(seconds) * MS

    def add(self, spent: Spent, at_ms: int) -> None:
        """Count a signature."""
        sums = [(self.fees.get(spent.asset[0]), spent.fee)]
        if spent.leaves:
            sums.append((self.paid.get(spent.asset), spent.amount))
        if spent.cancels:
            sums.append((self.cancelled.get(spent.asset[0]), spent.fee))
        if spent.auto:
            sums.append((self.auto.get(spent.asset), spent.amount))
        for rolling, amount in sums:
            # An asset that has no rule any more is not signed, so nothing is asked of its sum.
            if rolling is not None and amount:
                rolling.add(at_ms, amount)


def asset_key(rule: AssetRule) -> AssetKey:
    """Return what the sums of the rule's asset are kept by."""
    return (rule.chain_id, rule.asset, rule.contract)
