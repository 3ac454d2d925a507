"""Allocations that a restored database has made before it was found out, given back.

It may have given a payout a nonce that was spent before, or gave a payout another one than it was signed
with. Nothing of such an allocation was signed: the signer's log says so. The payout is approved again
and gets a nonce when the doors are open.

One that was asked for again, under the reference of a payout that was sent and is for people now, is
never sent (`custody.payout_gates`): so it gives back its nonce, or its place in a spend, and people can
cancel it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody import payout_store as store
from custody.bitcoin import spend_store
from custody.bitcoin.spend_sign import drop_unsigned
from custody.lost_payouts import find_lost, reference_of
from custody.payout_events import move_attempt, step_payout
from custody.payout_model import AttemptState, NonceState, Payout, PayoutState
from custody.payout_postings import unallocated
from custody.payout_tables import payout as payout_table
from custody.payout_tables import payout_attempt
from custody.restore.signer_log import SignedSince
from custody.restore_gate import BY
from kernel.clock import Clock
from kernel.db import transact
from kernel.events import record
from ledger.posting import post, require_applied

WHY: Final = "the database was restored, and allocated it otherwise than it was signed"
ASKED_AGAIN: Final = "the database was restored, and it was asked for again: it was sent before"


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


async def give_back_asked_again(engine: AsyncEngine, *, clock: Clock) -> None:
    """Take back what was allocated to payouts under whose reference another one was sent."""
    async with engine.connect() as conn:
        rows = await conn.execute(
            select(payout_table).where(payout_table.c.state == PayoutState.ALLOCATED)
        )
        asked = {item.id: reference_of(item) for item in map(store.to_payout, rows)}
        lost = await find_lost(conn, set(asked.values()))
        again = sorted(key for key, reference in asked.items() if reference in lost)
        attempts = {key: await store.list_attempts(conn, key) for key in again}
        carried = await spend_store.find_spends_of(conn, again)
    told: dict[str, Any] = {"reason": ASKED_AGAIN, "now": clock.now()}
    for spend_id in sorted({parts[-1].spend_id for parts in carried.values() if parts}):
        await transact(engine, partial(drop_unsigned, spend_id=spend_id, actor=BY, **told))
    for payout_id in again:
        if attempts[payout_id] and attempts[payout_id][-1].state is AttemptState.BUILT:
            await transact(engine, partial(give_back, payout_id=payout_id, **told))


async def give_back(
    conn: AsyncConnection, payout_id: UUID, *, now: datetime, reason: str = WHY
) -> Payout:
    """Take back the allocation of a payout of which nothing was signed; it is approved again."""
    payout = (await store.lock_payouts(conn, [payout_id]))[payout_id]
    attempt = await store.get_attempt(conn, payout.id, payout.attempt)
    _, event = await move_attempt(conn, attempt, AttemptState.SUPERSEDED, now=now, reason=reason)
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
        reason=reason,
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
