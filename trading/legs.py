"""What settlement pulls: the legs of deals that nobody has taken yet.

By a mark on each deal, never by a last position: ids and times are given out before commit, so a
reader that remembers only the last one would skip deals that commit late. Whoever pulls reads,
writes its obligations and marks in one transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ARRAY, Text, any_, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from kernel.leases import wait_for
from trading import store
from trading.model import Deal, DealPurpose, DealState, SettlementLeg
from trading.postings import deal_legs
from trading.tables import deal

PULL_MAX: Final = 500
"""Deals pulled at once, at most."""


async def list_settlement_legs(
    conn: AsyncConnection,
    *,
    book: int,
    value_date_to: date | None = None,
    limit: int = PULL_MAX,
) -> list[SettlementLeg]:
    """Lock booked deals whose legs nobody has taken and return the legs, oldest deal first.

    Waits for whoever takes legs of the book, or changes one of the deals: what was booked before a
    cut-off must not miss it because somebody looked at the same moment. The caller marks what it
    takes with `mark_pulled` before it commits.

    Args:
        conn: the caller's transaction.
        book: whose deals.
        value_date_to: only deals that settle on this day or before.
        limit: deals, not legs.
    """
    await wait_for(conn, f"settlement-legs:{book}")
    query = select(deal).where(
        deal.c.book == book,
        deal.c.state == str(DealState.BOOKED),
        deal.c.pulled_at.is_(None),
        deal.c.purpose != str(DealPurpose.TRANSFER),
    )
    if value_date_to is not None:
        query = query.where(deal.c.value_date <= value_date_to)
    rows = await conn.execute(
        query.order_by(deal.c.value_date, deal.c.id).limit(min(limit, PULL_MAX)).with_for_update()
    )
    return [leg for row in rows for leg in deal_legs(store.deal_of(row))]


async def list_untaken_legs(
    conn: AsyncConnection, *, book: int, parties: Collection[str]
) -> list[SettlementLeg]:
    """Return the legs of the parties' booked deals that nobody has taken, oldest deal first; no locks."""
    rows = await conn.execute(
        select(deal)
        .where(
            deal.c.book == book,
            deal.c.party == any_(literal(sorted(parties), ARRAY(Text))),
            deal.c.state == str(DealState.BOOKED),
            deal.c.pulled_at.is_(None),
            deal.c.purpose != str(DealPurpose.TRANSFER),
        )
        .order_by(deal.c.value_date, deal.c.id)
    )
    return [leg for row in rows for leg in deal_legs(store.deal_of(row))]


async def mark_pulled(conn: AsyncConnection, deal_ids: Sequence[UUID], *, now: datetime) -> None:
    """Mark that settlement has taken the legs: from here on the deal cannot be cancelled.

    Raises:
        Refused: a deal is not booked any more, its legs were taken before, or it is a transfer.
    """
    await _mark(conn, deal_ids, pulled=False, pulled_at=now, updated_at=now)


async def give_back(conn: AsyncConnection, deal_ids: Sequence[UUID], *, now: datetime) -> None:
    """Undo `mark_pulled`: settlement has dropped the obligations, the deal may be cancelled.

    Raises:
        Refused: a deal is settling already, or its legs are not taken.
    """
    await _mark(conn, deal_ids, pulled=True, pulled_at=None, updated_at=now)


async def mark_settling(
    conn: AsyncConnection, deal_ids: Sequence[UUID], *, by: str, reason: str, now: datetime
) -> list[Deal]:
    """Record that the deals' obligations are sealed in a settlement; again: nothing happens.

    Raises:
        Refused: the legs of a deal are not taken, so the deal could be cancelled beside it.
    """
    return await _advance(conn, deal_ids, DealState.SETTLING, by=by, reason=reason, now=now)


async def lock_deals(conn: AsyncConnection, deal_ids: Collection[UUID]) -> None:
    """Wait for whoever changes these deals; until this commits nobody else does."""
    await store.lock_deals(conn, deal_ids)


async def mark_settled(
    conn: AsyncConnection, deal_ids: Sequence[UUID], *, by: str, reason: str, now: datetime
) -> list[Deal]:
    """Record that every obligation of the deals is discharged; again: nothing happens."""
    return await _advance(conn, deal_ids, DealState.SETTLED, by=by, reason=reason, now=now)


async def _mark(
    conn: AsyncConnection, deal_ids: Sequence[UUID], *, pulled: bool, **columns: object
) -> None:
    wanted = set(deal_ids)
    is_pulled = deal.c.pulled_at.is_not(None) if pulled else deal.c.pulled_at.is_(None)
    result = await conn.execute(
        update(deal)
        .where(
            deal.c.id.in_(wanted),
            deal.c.state == str(DealState.BOOKED),
            deal.c.purpose != str(DealPurpose.TRANSFER),
            is_pulled,
        )
        .values(**columns)
    )
    if result.rowcount != len(wanted):
        raise Refused(
            f"{len(wanted) - result.rowcount} of {len(wanted)} deals are not booked any more, or "
            f"their legs are {'not taken' if pulled else 'taken already'}"
        )


async def _advance(
    conn: AsyncConnection,
    deal_ids: Sequence[UUID],
    state: DealState,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> list[Deal]:
    items = await store.lock_deals(conn, deal_ids)
    for item in items:
        if item.pulled_at is None:
            raise Refused(
                f"the legs of deal {item.request.client_ref} are not taken, it cannot be {state}",
                remedy="Take them with mark_pulled first",
            )
    moving = [item for item in items if item.state is not state]
    moved = await store.advance_deals(conn, moving, state, by=by, reason=reason, now=now)
    return [moved.get(item.id, item) for item in items]
