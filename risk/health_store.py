"""Rows of the health of venues, and the breakers they stand for."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import from_unix_ns, to_unix_ms
from risk.breaker import Breaker, BreakerState, Sample
from risk.model import Outcome
from risk.tables import venue_health

NS_PER_MS: Final = 1_000_000


async def find_breaker(conn: AsyncConnection, venue: str, account: str) -> Breaker | None:
    """Return the breaker of an account; None: nothing was ever recorded of it."""
    row = (await conn.execute(_of(venue, account))).one_or_none()
    return None if row is None else _breaker(row)


async def lock_breaker(
    conn: AsyncConnection, venue: str, account: str, *, now: datetime
) -> Breaker:
    """Lock the breaker of an account, made closed if there is none, and return it."""
    query = _of(venue, account).with_for_update()
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        values = _columns(Breaker(state=BreakerState.CLOSED, since=now))
        values |= {"venue": venue, "account": account}
        await conn.execute(insert(venue_health).values(values).on_conflict_do_nothing())
        row = (await conn.execute(query)).one()
    return _breaker(row)


async def lock_not_closed(
    conn: AsyncConnection, accounts: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Breaker]:
    """Lock the breakers of *accounts* that are not closed, in the order of their names."""
    query = select(venue_health).where(
        tuple_(venue_health.c.venue, venue_health.c.account).in_(sorted(accounts)),
        venue_health.c.state != str(BreakerState.CLOSED),
    )
    in_order = query.order_by(venue_health.c.venue, venue_health.c.account)
    rows = await conn.execute(in_order.with_for_update())
    return {(row.venue, row.account): _breaker(row) for row in rows}


async def update_breaker(conn: AsyncConnection, venue: str, account: str, breaker: Breaker) -> None:
    """Write the locked breaker of an account."""
    await conn.execute(
        update(venue_health)
        .where(venue_health.c.venue == venue, venue_health.c.account == account)
        .values(_columns(breaker))
    )


async def list_breakers(conn: AsyncConnection) -> list[tuple[str, str, Breaker]]:
    """Return every account's breaker: venue, account, breaker."""
    rows = await conn.execute(
        select(venue_health).order_by(venue_health.c.venue, venue_health.c.account)
    )
    return [(row.venue, row.account, _breaker(row)) for row in rows]


def _of(venue: str, account: str) -> Any:
    return select(venue_health).where(
        venue_health.c.venue == venue, venue_health.c.account == account
    )


def _columns(breaker: Breaker) -> dict[str, object]:
    return {
        "state": str(breaker.state),
        "since": breaker.since,
        "trips": breaker.trips,
        "trial_at": breaker.trial_at,
        "reason": breaker.reason,
        "samples": [
            [to_unix_ms(item.at), str(item.outcome), item.latency_ms] for item in breaker.samples
        ],
    }


def _breaker(row: Row[Any]) -> Breaker:
    return Breaker(
        state=BreakerState(row.state),
        since=row.since,
        trips=row.trips,
        trial_at=row.trial_at,
        reason=row.reason,
        samples=tuple(
            Sample(from_unix_ns(at * NS_PER_MS), Outcome(outcome), latency)
            for at, outcome, latency in row.samples
        ),
    )
