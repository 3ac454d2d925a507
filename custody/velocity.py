"""What is reserved in a window, counted so that no two requests can both have the last of it.

A payout counts from its request until it is given back, whether or not it was ever sent: what is
reserved will leave. Whoever counts holds the asset's lane until its own payouts are written, so the
next one counts them too. Without a rule or limit that adds up, no lane is taken.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import control_store
from custody.payout_policy import OWN_CLAIMS
from custody.policy_model import ANY, RequestFacts, Window


@dataclass(slots=True)
class Reserved:
    """What was reserved before each request of a batch: `take` adds one that passes."""

    sums: dict[Window, int] = field(default_factory=dict)

    def of(self, windows: Collection[Window]) -> dict[Window, int]:
        """Return the sums of these windows."""
        return {window: self.sums[window] for window in windows}

    def take(self, facts: RequestFacts) -> None:
        """Count a request that will be reserved."""
        for window in self.sums:
            if counts_in(window, facts):
                self.sums[window] += facts.amount


def counts_in(window: Window, facts: RequestFacts) -> bool:
    """Tell whether a request is one of those that the window adds up."""
    kind = facts.claim not in OWN_CLAIMS if window.claim == ANY else facts.claim == window.claim
    party = window.party is None or window.party == facts.party
    return kind and party and window.asset == facts.asset


async def count_reserved(
    conn: AsyncConnection, book: int, windows: Collection[Window], *, now: datetime
) -> Reserved:
    """Return what is reserved in the windows that end now; holds their lanes."""
    if not windows:
        return Reserved()
    await control_store.lock_lanes(conn, book, {window.asset for window in windows})
    return Reserved(
        {
            window: await control_store.sum_reserved(conn, book, window, now=now)
            for window in sorted(windows, key=str)
        }
    )
