"""How well the accounts at venues work: outcomes recorded, a breaker for each account."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from risk import health_store
from risk.breaker import (
    DEFAULT_BREAKER,
    Breaker,
    BreakerPolicy,
    Sample,
    after,
    may_pass,
    pass_one,
)
from risk.model import Outcome


async def venue_is_open(
    conn: AsyncConnection,
    venue: str,
    account: str,
    now: datetime,
    *,
    policy: BreakerPolicy = DEFAULT_BREAKER,
) -> bool:
    """Tell whether an order may go to this account now: to plan with, it promises nothing.

    `order_checks.check_orders` decides, and lets one order of a tripped account through.
    """
    found = await health_store.find_breaker(conn, venue, account)
    return found is None or may_pass(found, policy, now=now)


async def record_outcome(
    conn: AsyncConnection,
    venue: str,
    account: str,
    outcome: Outcome,
    latency_ms: int,
    now: datetime,
    *,
    policy: BreakerPolicy = DEFAULT_BREAKER,
) -> Breaker:
    """Record how a request to the venue ended and return its breaker.

    Call it in a transaction of its own, or as the last that one locks: the row is short-lived.
    """
    breaker = await health_store.lock_breaker(conn, venue, account, now=now)
    changed = after(breaker, Sample(now, outcome, latency_ms), policy)
    await health_store.update_breaker(conn, venue, account, changed)
    return changed


async def lock_tripped(
    conn: AsyncConnection, accounts: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Breaker]:
    """Lock the breakers of *accounts* that are not closed, in the order of their names; return them."""
    return await health_store.lock_not_closed(conn, accounts)


async def start_trials(
    conn: AsyncConnection,
    breakers: Mapping[tuple[str, str], Breaker],
    *,
    now: datetime,
    policy: BreakerPolicy = DEFAULT_BREAKER,
) -> None:
    """Let one order through to each of these accounts, whose breakers are locked and let it."""
    for (venue, account), breaker in sorted(breakers.items(), key=lambda item: item[0]):
        changed = pass_one(breaker, policy, now=now)
        assert changed is not None, "who checked found that it may pass"
        await health_store.update_breaker(conn, venue, account, changed)


async def list_breakers(conn: AsyncConnection) -> list[tuple[str, str, Breaker]]:
    """Return every account's breaker: venue, account, breaker."""
    return await health_store.list_breakers(conn)
