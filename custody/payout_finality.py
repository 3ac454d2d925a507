"""When a mined payout is over: confirmed at depth, or failed at depth and at the chain's finality."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.model import Block
from custody import payout_rows as rows
from custody import payout_store as store
from custody.payout_model import (
    SPENDABLE,
    Attempt,
    AttemptKind,
    AttemptState,
    NonceState,
    Payout,
    PayoutState,
)
from custody.payout_moves import AttemptMove, Move, move_attempts, move_payouts
from custody.payout_postings import confirmed, failed
from custody.policy import Requirement
from kernel.events import DomainEvent, record
from ledger.model import Transfer
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
    if not due:
        return []
    # Those that the ledger refused when they were last asked for come after those that are new.
    due.sort(key=lambda item: bool(item.waiting_for))
    payouts = await store.lock_payouts(conn, {item.id for item in due[:BATCH_MAX]})
    over = [item for item in payouts.values() if _still_over(item, at, requirement)]
    ends = {item.id: confirmed(item) if item.succeeded else failed(item) for item in over}
    refused = await post_ends(conn, book, ends, now=now)
    # A frozen account, say: the others go on, and people see why this one does not.
    fences = {item.id: item.fence for item in over}
    waiting = [{"id": key, "waiting_for": reason} for key, reason in refused.items()]
    await rows.update_payouts(conn, waiting, fences=fences)
    ended = [item for item in over if item.id not in refused]
    finals, events = await _close_attempts(conn, ended, now)
    moves = [
        Move(
            payout=item,
            to=_end(item, finals.get(item.id, AttemptKind.PAY)),
            payload={"height": tip.height, "tx_hash": item.tx_hash},
        )
        for item in ended
    ]
    moved, told = await move_payouts(conn, moves, now=now)
    await record(conn, [*events, *told])
    return list(moved.values())


async def post_ends(
    conn: AsyncConnection,
    book: int,
    ends: Mapping[UUID, Sequence[Transfer]],
    *,
    now: datetime,
    before: Callable[[Collection[UUID]], Awaitable[None]] | None = None,
) -> dict[UUID, str]:
    """Post every end that the ledger takes; return the refusals.

    A refusal that commits spends its id, and the end could never be posted any more. So a batch in
    which one is refused is undone as if it had not been asked, and posted again without it.

    Args:
        ends: what ends each payout, or each transaction of many.
        before: is awaited before each try with those that are in it, and undone with it: behind the
            ledger's head nothing may wait.
    """
    refused: dict[UUID, str] = {}
    for _ in ends:
        async with conn.begin_nested() as savepoint:
            rest = {key: made for key, made in ends.items() if key not in refused}
            if before is not None:
                await before(rest.keys())
            found = await _post_batch(conn, book, rest, now)
            if not found:
                break
            await savepoint.rollback()
        refused |= found
    return refused


async def _post_batch(
    conn: AsyncConnection, book: int, ends: Mapping[UUID, Sequence[Transfer]], now: datetime
) -> dict[UUID, str]:
    batch = [transfer for made in ends.values() for transfer in made]
    owners = [key for key, made in ends.items() for _ in made]
    results = await post(conn, book, batch, now=now) if batch else []
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
    conn: AsyncConnection, payouts: Sequence[Payout], now: datetime
) -> tuple[dict[UUID, AttemptKind], list[DomainEvent]]:
    """Write which attempts the chain has for good; return what each was for, and the events."""
    finals: dict[UUID, Attempt] = {}
    moves: list[AttemptMove] = []
    attempts = await rows.list_all_attempts(conn, [item.id for item in payouts])
    for payout in payouts:
        for attempt in attempts[payout.id]:
            if attempt.tx_hash == payout.tx_hash:
                finals[payout.id] = attempt
                moves.append(AttemptMove(attempt=attempt, to=AttemptState.FINAL))
            elif attempt.state in SPENDABLE or attempt.state is AttemptState.BUILT:
                reason = f"{payout.tx_hash} has the nonce"
                moves.append(
                    AttemptMove(attempt=attempt, to=AttemptState.SUPERSEDED, reason=reason)
                )
    await rows.end_nonces(conn, finals.values(), NonceState.SPENT, now)
    events = await move_attempts(conn, moves, now=now)
    return {key: item.kind for key, item in finals.items()}, events
