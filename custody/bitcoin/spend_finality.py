"""When a mined spend is over: its payouts confirmed at depth, or cancelled at the chain's finality."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.model import Block
from custody import payout_store
from custody.bitcoin import coins
from custody.bitcoin import spend_store as store
from custody.bitcoin.spend_model import Spend, SpendState
from custody.bitcoin.spend_moves import (
    Carried,
    SpendMove,
    load_carried,
    move_attempt,
    move_spend,
)
from custody.payout_finality import post_ends
from custody.payout_model import SPENDABLE, AttemptState, Payout, PayoutState
from custody.payout_postings import confirmed, failed
from custody.policy import Requirement
from kernel.events import DomainEvent, record
from ledger.model import Transfer

BATCH_MAX: Final = 20
"""Spends that are ended in one transaction."""


async def confirm_spends(
    conn: AsyncConnection,
    chain: str,
    *,
    book: int,
    tip: Block,
    finalized: int,
    requirement: Requirement,
    now: datetime,
) -> list[Payout]:
    """Confirm, or cancel, the payouts of mined spends that are deep enough; return them.

    What returned everything to us waits for the chain's own finality too: the claims get their
    money back, so a payment must never be mined on another branch.

    Args:
        conn: the caller's transaction.
        chain: the chain's code.
        book: the book.
        tip: the cursor's block (`chain.follow.get_cursor`), at which the books are exact.
        finalized: the height that the chain itself calls final.
        requirement: what policy asks of the block that a spend was mined in.
        now: the time of the events.
    """
    found = await store.list_spends(conn, chain, book=book, states={SpendState.MINED})
    due = [item for item in found if is_over(item, tip, finalized, requirement)]
    # Those that the ledger refused when they were last asked for come after those that are new.
    due.sort(key=lambda item: bool(item.waiting_for))
    await store.lock_spends(conn, [item.id for item in due[:BATCH_MAX]])
    done: list[Payout] = []
    events: list[DomainEvent] = []
    locked = [await load_carried(conn, item.id, lock=True) for item in due[:BATCH_MAX]]
    over = [
        item
        for item in locked
        if item.spend.state is SpendState.MINED and is_over(item.spend, tip, finalized, requirement)
    ]

    async def unlock(spends: Collection[UUID]) -> None:
        for key in spends:
            await coins.unlock(conn, key)

    ends = {item.spend.id: _closing(item) for item in over}
    refused = await post_ends(conn, book, ends, now=now, before=unlock)
    for carried in over:
        reason = refused.get(carried.spend.id, "")
        if reason:
            # A frozen account, say: the others go on, and people see why this one does not.
            await store.update_spend(conn, carried.spend.id, waiting_for=reason)
            for item in carried.payouts:
                await payout_store.update_payout(conn, item.id, waiting_for=reason)
            continue
        ended, told = await _end(conn, carried, tip, now)
        done += ended.payouts
        events += told
    await record(conn, events)
    return done


def is_over(spend: Spend, tip: Block, finalized: int, requirement: Requirement) -> bool:
    """Tell whether nothing can change the spend any more, as far as policy goes."""
    if spend.mined_height is None:
        return False
    needed = requirement if spend.succeeded else Requirement(requirement.depth, finalized=True)
    return needed.is_met(height=spend.mined_height, tip=tip.height, finalized_height=finalized)


def _closing(carried: Carried) -> list[Transfer]:
    how = confirmed if carried.spend.succeeded else failed
    return [transfer for payout in carried.payouts for transfer in how(payout)]


async def _end(
    conn: AsyncConnection, carried: Carried, tip: Block, now: datetime
) -> tuple[Carried, list[DomainEvent]]:
    events = []
    for attempt in carried.attempts:
        if attempt.tx_id == carried.spend.tx_id and attempt.raw is not None:
            to, reason = AttemptState.FINAL, ""
        elif attempt.state in SPENDABLE or attempt.state is AttemptState.BUILT:
            to, reason = AttemptState.SUPERSEDED, f"{carried.spend.tx_id} spends the anchor"
        else:
            continue
        _, told = await move_attempt(conn, attempt, to, now=now, reason=reason)
        events.append(told)
    paid = carried.spend.succeeded
    ended, moved = await move_spend(
        conn,
        SpendMove(
            carried=carried,
            to=SpendState.FINAL,
            payouts_to=PayoutState.CONFIRMED if paid else PayoutState.CANCELLED,
            values={"waiting_for": ""},
            of_payout=lambda _: {"waiting_for": ""},
            payload={"height": tip.height, "tx_id": carried.spend.tx_id},
        ),
        now=now,
    )
    return ended, [*events, *moved]
