"""Transactions that we did not make and that took coins or a nonce of ours: written, posted, told.

Whoever finds one in a block has locked what it touches, freezes what is to be frozen, and posts the
plan with everything else that the block did.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.model import Block
from custody import payout_store as store
from custody.model import custody_account
from custody.payout_events import WORKER
from custody.payout_model import FOREIGN_STATES, ForeignLeg, ForeignSpend, ForeignState
from custody.payout_postings import foreign_included, foreign_orphaned
from custody.plan import Plan
from kernel.events import DomainEvent, next_version
from kernel.ids import derive_id
from registry.queries import list_wallets

FOREIGN: Final = "foreign_spend"


async def include_foreign(
    conn: AsyncConnection,
    plan: Plan,
    block: Block,
    *,
    tx_hash: str,
    sender: str,
    nonce: int | None,
    legs: Sequence[ForeignLeg],
    now: datetime,
) -> None:
    """Write a foreign spend that a block holds, and add to *plan* what it took from our wallets.

    Args:
        sender: of our addresses the one that it spent from, or who sent it.
        nonce: of ours that it used up; None where it used none.
        legs: what it took, fee included.
    """
    known = (await store.lock_foreign(conn, block.chain, [tx_hash])).get(tx_hash)
    spend = ForeignSpend(
        id=known.id if known else derive_id(now, FOREIGN, block.chain, tx_hash),
        chain=block.chain,
        tx_hash=tx_hash,
        sender=sender,
        nonce=nonce,
        state=ForeignState.INCLUDED,
        epoch=known.epoch + 1 if known else 1,
        block_hash=block.hash,
        height=block.height,
        legs=tuple(legs),
        seen_at=known.seen_at if known else now,
    )
    if known:
        FOREIGN_STATES.require(known.state, spend.state)
    await store.save_foreign(conn, spend, known=known is not None)
    owners = {item.code: item.owner for item in await list_wallets(conn, block.chain)}
    for leg in spend.legs:
        plan.need(custody_account(leg.wallet), leg.asset, owner=owners[leg.wallet])
    plan.post(*foreign_included(spend))
    plan.tell(await _event(conn, known, spend, now))


async def orphan_foreign(
    conn: AsyncConnection, plan: Plan, block: Block, tx_hashes: Collection[str], *, now: datetime
) -> None:
    """Take back those of *tx_hashes* that are foreign spends of a block that is gone."""
    for spend in (await store.lock_foreign(conn, block.chain, sorted(tx_hashes))).values():
        if spend.state is ForeignState.INCLUDED and spend.block_hash == block.hash:
            gone = replace(spend, state=ForeignState.ORPHANED)
            await store.save_foreign(conn, gone, known=True)
            plan.post(*foreign_orphaned(spend))
            plan.tell(await _event(conn, spend, gone, now))


async def _event(
    conn: AsyncConnection, before: ForeignSpend | None, after: ForeignSpend, now: datetime
) -> DomainEvent:
    return DomainEvent(
        entity_type=FOREIGN,
        entity_id=after.id,
        version=await next_version(conn, FOREIGN, after.id),
        name=f"ForeignSpend{after.state.capitalize()}",
        at=now,
        actor=WORKER,
        reason="coins or a nonce of ours were spent by a transaction that we did not make",
        from_state=before.state if before else None,
        to_state=after.state,
        payload={
            "chain": after.chain,
            "tx_hash": after.tx_hash,
            "sender": after.sender,
            "nonce": after.nonce,
            "legs": [
                {"account": x.account, "asset": x.asset, "amount": str(x.amount)}
                for x in after.legs
            ],
        },
    )
