"""Allocations that a restored database has made before it was found out, given back.

It may have given a payout a nonce that was spent before, or gave a payout another one than it was signed
with. Nothing of such an allocation was signed: the signer's log says so. The payout is approved again
and gets a nonce when the doors are open.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_store as store
from custody.payout_events import move_attempt, step_payout
from custody.payout_model import AttemptState, NonceState, Payout, PayoutState
from custody.payout_postings import unallocated
from custody.payout_tables import payout as payout_table
from custody.payout_tables import payout_attempt
from custody.restore.signer_log import SignedSince
from custody.restore_gate import BY
from kernel.events import record
from ledger.posting import post, require_applied

WHY: Final = "the database was restored, and allocated it otherwise than it was signed"


async def list_contradicted(conn: AsyncConnection, found: SignedSince) -> list[UUID]:
    """Return payouts whose unsigned attempt the signer's log contradicts."""
    taken: dict[tuple[str, str, int], bytes] = {
        (item.intent.chain, item.intent.sender, item.intent.nonce): item.unsigned
        for payments in found.payments.values()
        for _, item in payments
    }
    # Payouts of other rails have no such attempts: their files and spends say what they are.
    rows = await conn.execute(
        select(payout_table.c.id)
        .join(payout_attempt, payout_attempt.c.payout_id == payout_table.c.id)
        .where(payout_table.c.state == PayoutState.ALLOCATED)
        .where(payout_attempt.c.number == payout_table.c.attempt)
        .order_by(payout_table.c.id)
    )
    return [key for key in rows.scalars() if await _is_contradicted(conn, key, found, taken)]


async def give_back(conn: AsyncConnection, payout_id: UUID, *, now: datetime) -> Payout:
    """Take back the allocation of a payout of which nothing was signed; it is approved again."""
    payout = (await store.lock_payouts(conn, [payout_id]))[payout_id]
    attempt = await store.get_attempt(conn, payout.id, payout.attempt)
    _, event = await move_attempt(conn, attempt, AttemptState.SUPERSEDED, now=now, reason=WHY)
    await store.end_nonce(
        conn, payout.chain, payout.sender, attempt.nonce, NonceState.RELEASED, now
    )
    require_applied(await post(conn, payout.book, list(unallocated(payout)), now=now))
    await record(conn, [event])
    return await step_payout(
        conn,
        payout,
        PayoutState.APPROVED,
        actor=BY,
        now=now,
        reason=WHY,
        nonce=None,
        fee_cap=0,
        hold_epoch=payout.hold_epoch + 1,
        waiting_for="",
    )


async def _is_contradicted(
    conn: AsyncConnection,
    payout_id: UUID,
    found: SignedSince,
    taken: Mapping[tuple[str, str, int], bytes],
) -> bool:
    payout = await store.get_payout(conn, payout_id)
    attempt = await store.get_attempt(conn, payout_id, payout.attempt)
    if attempt.state is not AttemptState.BUILT:
        return False
    signed = {item.unsigned for _, item in found.payments.get(payout_id, ())}
    if attempt.unsigned in signed:
        return False
    spent = taken.get((attempt.chain, attempt.sender, attempt.nonce))
    return bool(signed) or spent is not None
