"""What a block did to payouts: called by `custody.inclusion` in the transaction of each block.

Rows are locked and written here; the postings are returned and made by the caller, in one batch
with those of the deposits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.model import Block, BlockContents
from custody import payout_rows as rows
from custody import payout_store as store
from custody.errors import NotPossible
from custody.foreign_spends import include_foreign, orphan_foreign
from custody.payout_events import WORKER, move_payout
from custody.payout_matching import AssetView, ForeignMined, OursMined, match_block
from custody.payout_model import (
    SENT,
    Attempt,
    AttemptKind,
    AttemptState,
    NonceState,
    Payout,
    PayoutState,
    Source,
)
from custody.payout_moves import AttemptMove, Move, move_attempts, move_payouts
from custody.payout_postings import (
    failure_orphaned,
    mined,
    orphaned,
)
from custody.plan import Plan
from kernel.events import DomainEvent
from registry.queries import get_asset, list_chain_assets

MAY_BE_HELD: Final = frozenset({PayoutState.ALLOCATED, *SENT})
PAID_BACK: Final = frozenset({PayoutState.FAILED_ON_CHAIN, PayoutState.CANCELLED})
"""Ends at which the claim got its money back."""
NOT_MINED: Final = {
    "fee_paid": None,
    "succeeded": None,
    "tx_hash": None,
    "mined_height": None,
    "mined_block": None,
}


async def payouts_included(
    conn: AsyncConnection, contents: BlockContents, *, book: int, now: datetime
) -> Plan:
    """Write what a block that was included did to our payouts; return what is to be posted.

    An attempt of ours becomes mined. Whatever else took coins or a nonce of ours is posted as a
    foreign spend, the payout whose nonce it took goes to SECURITY_HOLD, and its sender is frozen.
    """
    plan, chain = Plan(), contents.block.chain
    touched = {item.tx_hash for item in contents.outcomes}
    touched |= {item.tx_hash for item in contents.movements}
    texts = {item.sender for item in contents.outcomes}
    texts |= {end for item in contents.movements for end in (item.sender, item.recipient)}
    ours = await store.find_sources(conn, chain, texts)
    senders = {item.sender for item in contents.outcomes}
    senders |= {item.sender for item in contents.movements}
    if senders.isdisjoint(ours):
        return plan
    attempts = await store.find_attempts_by_hash(conn, chain, touched)
    taken = await store.find_nonce_owners(
        conn, chain, {(item.sender, item.nonce) for item in contents.outcomes}
    )
    ids = {item.payout_id for item in attempts.values()} | set(taken.values())
    payouts = await _lock(conn, ids, book)
    # Read again under the locks: the worker may have written them meanwhile.
    attempts = await store.find_attempts_by_hash(conn, chain, touched)
    pairs = {key: (payouts[item.payout_id], item) for key, item in attempts.items()}
    matched = match_block(contents, pairs, ours, await _assets(conn, chain))
    own = [item for item in matched if isinstance(item, OursMined)]
    told = await _write_mined(conn, own, contents.block, now)
    # In the block's order, whosever a transaction is.
    for found in matched:
        if isinstance(found, OursMined):
            moved, events = told[found.payout.id]
            plan.post(*mined(moved, found.outcome.fee, succeeded=found.succeeded))
            plan.tell(*events)
        else:
            owner = found.outcome and taken.get((found.sender, found.outcome.nonce))
            victim = payouts.get(owner) if owner else None
            await _foreign(conn, found, victim, ours, contents.block, plan, now)
    return plan


async def payouts_orphaned(
    conn: AsyncConnection, contents: BlockContents, *, book: int, now: datetime
) -> Plan:
    """Write what follows from a block that is gone; return what is to be posted.

    A mined payout is SIGNED (or CANCELLING) again and the same bytes go out again.
    """
    plan, chain, block = Plan(), contents.block.chain, contents.block
    touched = {item.tx_hash for item in contents.outcomes}
    attempts = await store.find_attempts_by_hash(conn, chain, touched)
    payouts = await _lock(conn, {item.payout_id for item in attempts.values()}, book)
    attempts = await store.find_attempts_by_hash(conn, chain, touched)
    gone = [
        (payouts[item.payout_id], item)
        for item in sorted(attempts.values(), key=lambda item: item.id)
        if payouts[item.payout_id].mined_block == block.hash
        and payouts[item.payout_id].tx_hash == item.tx_hash
    ]
    await _unmined(conn, gone, block, plan, now)
    movers = touched | {item.tx_hash for item in contents.movements}
    await orphan_foreign(conn, plan, block, movers, now=now)
    return plan


async def _lock(conn: AsyncConnection, ids: set[UUID], book: int) -> dict[UUID, Payout]:
    payouts = await store.lock_payouts(conn, ids)
    for payout in payouts.values():
        if payout.book != book:
            raise NotPossible(f"payout {payout.id} is in book {payout.book}, not {book}")
    return payouts


async def _write_mined(
    conn: AsyncConnection, found: Sequence[OursMined], block: Block, now: datetime
) -> dict[UUID, tuple[Payout, list[DomainEvent]]]:
    """Write what is mined; return the payouts as they now are, and what is told of each."""
    attempts = [AttemptMove(attempt=item.attempt, to=AttemptState.MINED) for item in found]
    events = await move_attempts(conn, attempts, now=now)
    moved, told = await move_payouts(conn, [_mined_move(item, block) for item in found], now=now)
    return {
        item.payout.id: (moved[item.payout.id], [of_attempt, of_payout])
        for item, of_attempt, of_payout in zip(found, events, told, strict=True)
    }


def _mined_move(found: OursMined, block: Block) -> Move:
    outcome = found.outcome
    return Move(
        payout=found.payout,
        to=PayoutState.MINED,
        payload={
            "tx_hash": outcome.tx_hash,
            "height": block.height,
            "block": block.hash,
            "fee": str(outcome.fee),
            "succeeded": found.succeeded,
        },
        values={
            "fee_paid": outcome.fee,
            "succeeded": found.succeeded,
            "tx_hash": outcome.tx_hash,
            "mined_height": block.height,
            "mined_block": block.hash,
            "waiting_for": "",
        },
    )


async def _unmined(
    conn: AsyncConnection,
    gone: Sequence[tuple[Payout, Attempt]],
    block: Block,
    plan: Plan,
    now: datetime,
) -> None:
    """Let payouts wait for a block again; of those whose claim was paid back, people decide."""
    orphans = [
        AttemptMove(attempt=item, to=AttemptState.AMBIGUOUS, name="AttemptOrphaned")
        for _, item in gone
    ]
    plan.tell(*await move_attempts(conn, orphans, now=now))
    final = [item for _, item in gone if item.state is AttemptState.FINAL]
    await rows.end_nonces(conn, final, NonceState.LIVE, now)
    newest = await rows.list_current(conn, [payout for payout, _ in gone])
    moves: list[Move] = []
    for payout, orphan in gone:
        if payout.state in PAID_BACK:
            await _failure_unmined(conn, payout, plan, now)
            continue
        plan.post(*orphaned(payout))
        moves.append(_unmined_move(payout, _to_send(newest[payout.id], orphan), block, now))
    _, told = await move_payouts(conn, moves, now=now)
    plan.tell(*told)


def _unmined_move(payout: Payout, newest: Attempt, block: Block, now: datetime) -> Move:
    cancels = newest.kind is AttemptKind.CANCEL and not payout.fills_gap
    return Move(
        payout=payout,
        to=PayoutState.CANCELLING if cancels else PayoutState.SIGNED,
        name="PayoutOrphaned",
        reason=f"block {block.height} {block.hash} is no longer on the chain",
        values={
            "hold_epoch": payout.hold_epoch + 1,
            "attempt": newest.number,
            "run_after": now,
            **NOT_MINED,
        },
    )


def _to_send(newest: Attempt, orphan: Attempt) -> Attempt:
    """Return the attempt with which the payout waits for a block: its newest, if it has bytes.

    One that a final block has ended before it was signed never gets any; then it is the orphan.
    """
    never = newest.state is AttemptState.SUPERSEDED and newest.raw is None
    return orphan if never else newest


async def _failure_unmined(
    conn: AsyncConnection, payout: Payout, plan: Plan, now: datetime
) -> None:
    """Take the fee back of a failure, or cancellation, that was final and whose block is gone.

    The claim has its money back, so nothing is held and nobody may send the bytes again. Should a
    block have them once more, that is a spend like a stranger's (`match_block`).
    """
    reason = "a failure that was final is orphaned: the bytes may pay, the claim is paid back"
    await store.freeze_sender(conn, payout.chain, payout.sender, payout.source_wallet, reason)
    plan.post(*failure_orphaned(payout))
    plan.tell(await _hold(conn, payout, reason, now, claim_returned=True, **NOT_MINED))


async def _foreign(
    conn: AsyncConnection,
    found: ForeignMined,
    victim: Payout | None,
    ours: dict[str, Source],
    block: Block,
    plan: Plan,
    now: datetime,
) -> None:
    await include_foreign(
        conn,
        plan,
        block,
        tx_hash=found.tx_hash,
        sender=found.sender,
        nonce=found.outcome.nonce if found.outcome else None,
        legs=found.legs,
        now=now,
    )
    reason = f"transaction {found.tx_hash} is not ours and spent from {found.sender}"
    wallet = ours[found.sender].wallet
    await store.freeze_sender(conn, block.chain, found.sender, wallet, reason)
    if victim is not None and victim.state in MAY_BE_HELD:
        plan.tell(await _hold(conn, victim, reason, now))


async def _hold(
    conn: AsyncConnection, payout: Payout, reason: str, now: datetime, **values: Any
) -> DomainEvent:
    _, event = await move_payout(
        conn,
        payout,
        PayoutState.SECURITY_HOLD,
        actor=WORKER,
        now=now,
        reason=reason,
        waiting_for=reason,
        **values,
    )
    return event


async def _assets(conn: AsyncConnection, chain: str) -> dict[str | None, AssetView]:
    views: dict[str | None, AssetView] = {}
    for item in await list_chain_assets(conn, chain):
        scale = (await get_asset(conn, item.asset)).scale
        views[item.contract] = AssetView(item.asset, item.decimals, scale)
    return views
