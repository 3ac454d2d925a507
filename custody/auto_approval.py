"""Payouts that a rule allows: approved by a service, under its own key, a batch at a time.

An *allow* is not the absence of an approval: it is one, by a program whose key is pinned as a service
in the policy and in the signer. The service signs the same lines that a person would. What it can do at
worst, with this database and its key both stolen, is bounded by the limits that the signer itself holds
for services, for one payment and for each asset and window; above them people are needed. A service
counts for nothing else: no rule that asks for people, no destination, no policy. Where no service runs,
any approver may complete an allowed payout by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_store as store
from custody.payout_approvals import LINES_MAX, approval_bytes
from custody.payout_model import Payout, PayoutState, Quorum
from custody.payout_tables import payout as payout_table
from custody.payout_tables import payout_policy
from custody.payouts import approval_line, approve_payouts
from custody.policy_documents import quorums_to_document
from custody.policy_model import SERVICES
from registry.model import Operator

ALLOWED: Final = quorums_to_document([Quorum(SERVICES, 1)])


async def find_allowed_payouts(
    conn: AsyncConnection, *, book: int, by: str, now: datetime, limit: int = LINES_MAX
) -> list[Payout]:
    """Return payouts that wait for the service *by* and were not asked for by it, oldest first."""
    # What was requested under a policy that does not know the service is left to people.
    knows = payout_policy.c.document["services"].contains([by])
    versions = select(payout_policy.c.version).where(knows)
    rows = await conn.execute(
        select(payout_table)
        .where(
            payout_table.c.book == book,
            payout_table.c.state == PayoutState.PENDING_APPROVAL,
            payout_table.c.required == ALLOWED,
            payout_table.c.policy_version.in_(versions),
            payout_table.c.requested_by != by,
            payout_table.c.expires_at.is_(None) | (payout_table.c.expires_at > now),
        )
        .order_by(payout_table.c.created_at, payout_table.c.id)
        .limit(min(limit, LINES_MAX))
        .with_for_update(skip_locked=True)
    )
    return [store.to_payout(row) for row in rows]


async def approve_allowed(
    conn: AsyncConnection,
    *,
    by: Operator,
    sign: Callable[[bytes], bytes],
    book: int,
    now: datetime,
    limit: int = LINES_MAX,
) -> list[Payout]:
    """Approve, as the service *by*, what the rules allow; return those that are approved now.

    Args:
        conn: the caller's transaction.
        by: a service.
        sign: its key; a computation, not a question to somebody outside.
        book: the book.
        now: the time.
        limit: payouts under one signature.
    """
    waiting = await find_allowed_payouts(conn, book=book, by=by.code, now=now, limit=limit)
    if not waiting:
        return []
    return await approve_payouts(
        conn,
        [payout.id for payout in waiting],
        by=by,
        signature=sign(approval_bytes([approval_line(payout) for payout in waiting])),
        book=book,
        now=now,
    )
