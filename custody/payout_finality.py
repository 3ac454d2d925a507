"""When a mined payout is over: confirmed at depth, or failed at depth and at the chain's finality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.model import Block
from custody import payout_store as store
from custody.payout_events import WORKER, move_attempt, move_payout
from custody.payout_model import (
    SPENDABLE,
    AttemptKind,
    AttemptState,
    NonceState,
    Payout,
    PayoutState,
)
from custody.payout_postings import confirmed, failed
from custody.policy import Requirement
from kernel.events import DomainEvent, record
from ledger.outcome import Outcome
from ledger.posting import post

BATCH_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Depth:
    """Where the books stand on the chain: the block they are exact at, and what is final."""

    tip: Block
    finalized: int


def is_over(payout: Payout, at: Depth, requirement: Requirement) -> bool:
    """Tell whether nothing can change the payout any more, as far as policy goes.

    A failure waits for the chain's own finality too: the claim gets its money back, so the same
    bytes must never succeed on another branch.
    """
    if payout.mined_height is None:
        return False
    needed = requirement if payout.succeeded else Requirement(requirement.depth, finalized=True)
    return needed.is_met(
        height=payout.mined_height, tip=at.tip.height, finalized_height=at.finalized
    )


async def confirm_payouts(
    conn: AsyncConnection,
    chain: str,
    *,
    book: int,
    tip: Block,
    finalized: int,
    requirement: Requirement,
    now: datetime,
) -> list[Payout]:
    """Confirm, or fail, the mined payouts that are deep enough; return them as they now are.

    Args:
        conn: the caller's transaction.
        chain: the chain's code.
        book: the book.
        tip: the cursor's block (`chain.follow.get_cursor`), at which the books are exact.
        finalized: the height that the chain itself calls final.
        requirement: what policy asks of the block that a payout was mined in.
        now: the time of the events.
    """
    at = Depth(tip, finalized)
    mined = store.every_payout(conn, book=book, chain=chain, states={PayoutState.MINED})
    due = [item async for item in mined if is_over(item, at, requirement)]
    # Those that the ledger refused when they were last asked for come after those that are new.
    due.sort(key=lambda item: bool(item.waiting_for))
    payouts = await store.lock_payouts(conn, {item.id for item in due[:BATCH_MAX]})
    over = [item for item in payouts.values() if _still_over(item, at, requirement)]
    refused = await _post_each(conn, over, book, now)
    events: list[DomainEvent] = []
    done: list[Payout] = []
    for payout in over:
        if payout.id in refused:
            # A frozen account, say: the others go on, and people see why this one does not.
            await store.update_payout(conn, payout.id, waiting_for=refused[payout.id])
            continue
        final, closed = await _close_attempts(conn, payout, now)
        events += closed
        state = _end(payout, final)
        ended, event = await move_payout(
            conn,
            payout,
            state,
            actor=WORKER,
            now=now,
            payload={"height": tip.height, "tx_hash": payout.tx_hash},
        )
        done.append(ended)
        events.append(event)
    await record(conn, events)
    return done


async def _post_each(
    conn: AsyncConnection, over: Sequence[Payout], book: int, now: datetime
) -> dict[UUID, str]:
    """Post the end of every payout that the ledger takes; return the refusals by payout.

    A refusal that commits spends its id, and the end could never be posted any more. So a batch in
    which one is refused is undone as if it had not been asked, and posted again without it.
    """
    refused: dict[UUID, str] = {}
    for _ in over:
        async with conn.begin_nested() as savepoint:
            rest = [item for item in over if item.id not in refused]
            found = await _post_batch(conn, rest, book, now)
            if not found:
                break
            await savepoint.rollback()
        refused |= found
    return refused


async def _post_batch(
    conn: AsyncConnection, over: Sequence[Payout], book: int, now: datetime
) -> dict[UUID, str]:
    chains = [confirmed(item) if item.succeeded else failed(item) for item in over]
    batch = [transfer for chain in chains for transfer in chain]
    owners = [item.id for item, chain in zip(over, chains, strict=True) for _ in chain]
    results = await post(conn, book, batch, now=now)
    return {
        owner: f"the ledger refused: {result.outcome}"
        for owner, result in zip(owners, results, strict=True)
        if not result.applied and result.outcome is not Outcome.LINKED_EVENT_FAILED
    }


def _still_over(payout: Payout, at: Depth, requirement: Requirement) -> bool:
    return payout.state is PayoutState.MINED and is_over(payout, at, requirement)


def _end(payout: Payout, final: AttemptKind) -> PayoutState:
    if payout.succeeded:
        return PayoutState.CONFIRMED
    # Its nonce is spent for good by what pays nobody, so no payment of it can ever be mined.
    cancelled = final is AttemptKind.CANCEL
    return PayoutState.CANCELLED if cancelled else PayoutState.FAILED_ON_CHAIN


async def _close_attempts(
    conn: AsyncConnection, payout: Payout, now: datetime
) -> tuple[AttemptKind, list[DomainEvent]]:
    """Write which attempt the chain has for good; return what it was for, and the events."""
    events, final = [], AttemptKind.PAY
    for attempt in await store.list_attempts(conn, payout.id):
        if attempt.tx_hash == payout.tx_hash:
            final = attempt.kind
            _, event = await move_attempt(conn, attempt, AttemptState.FINAL, now=now)
            await store.end_nonce(
                conn, attempt.chain, attempt.sender, attempt.nonce, NonceState.SPENT, now
            )
        elif attempt.state in SPENDABLE or attempt.state is AttemptState.BUILT:
            _, event = await move_attempt(
                conn,
                attempt,
                AttemptState.SUPERSEDED,
                now=now,
                reason=f"{payout.tx_hash} has the nonce",
            )
        else:
            continue
        events.append(event)
    return final, events
