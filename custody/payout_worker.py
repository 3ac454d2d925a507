"""The worker: takes approved payouts to the chain, one committed step after the other.

allocate (nonce, transaction and holds are rows) -> sign (the exact bytes are a row) -> send (and
again, the same bytes, for as long as nobody knows). Each step is: look outside, then one
transaction that repeats the fence. A crash between any two leaves a row from which the next worker
goes on; what was done outside meanwhile is done again to no effect, because a signer gives the same
bytes for the same request and a node knows a transaction by its hash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import case
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import require_running
from chain.ports import ChainGateway
from custody import payout_store as store
from custody.payout_allocation import Waiting
from custody.payout_model import WORKED_ON, Payout, PayoutState
from custody.payout_steps import Bench, Sent, allocate, send, sign
from custody.payout_tables import payout as payout_table
from custody.ports import PayoutSigner
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import CausewayError, StaleFence
from kernel.leases import claim

LEASE: Final = timedelta(seconds=60)
BATCH_MAX: Final = 50
STEPS_MAX: Final = 4
"""Allocate, sign, send; a replacement signs once more."""
RETRY_AFTER: Final = timedelta(seconds=1)
TEXT_LENGTH_MAX: Final = 500
STATES: Final = [str(state) for state in WORKED_ON]


@dataclass(slots=True)
class WorkReport:
    """What one call did: payout ids by the state they reached, and why others wait."""

    allocated: list[UUID] = field(default_factory=list)
    signed: list[UUID] = field(default_factory=list)
    sent: list[UUID] = field(default_factory=list)
    rejected: list[UUID] = field(default_factory=list)
    waiting: dict[UUID, str] = field(default_factory=dict)


async def advance_payouts(
    engine: AsyncEngine,
    gateway: ChainGateway,
    signer: PayoutSigner,
    *,
    chain: str,
    book: int,
    holder: str,
    clock: Clock,
    limit: int = BATCH_MAX,
) -> WorkReport:
    """Take every payout that is due as far as it goes now; return what was done.

    A signer or a node that does not answer leaves the payout where it is, to be tried again.

    Args:
        engine: the database, as the runtime role.
        gateway: the node of *chain*.
        signer: who holds the keys.
        chain: the chain's code.
        book: the book.
        holder: this worker's name: it holds the leases.
        clock: the time, read anew at each step.
        limit: payouts claimed at once.

    Raises:
        ChainHalted: nothing is sent on a chain that is halted.
    """
    bench = Bench(engine, gateway, signer, clock)
    report = WorkReport()

    async def claim_due(conn: AsyncConnection) -> list[Payout]:
        await require_running(conn, chain)
        return await _claim(conn, chain, book, holder, clock.now(), limit)

    for payout in await transact(engine, claim_due):
        await _work_on(bench, payout, report)
    return report


async def _claim(
    conn: AsyncConnection, chain: str, book: int, holder: str, now: datetime, limit: int
) -> list[Payout]:
    rows = await claim(
        conn,
        payout_table,
        where=(payout_table.c.chain == chain)
        & (payout_table.c.book == book)
        & payout_table.c.state.in_(STATES)
        & (payout_table.c.run_after <= now),
        order_by=(payout_table.c.created_at, payout_table.c.id),
        holder=holder,
        now=now,
        lease_for=LEASE,
        limit=min(limit, BATCH_MAX),
    )
    return [store.to_payout(row) for row in rows]


async def _work_on(bench: Bench, payout: Payout, report: WorkReport) -> None:
    """Take one claimed payout from step to step until it waits or is sent, and give it back."""
    try:
        await _take_steps(bench, payout, report)
    except StaleFence as error:
        # Somebody else has it, and does with it what this worker would have done.
        report.waiting[payout.id] = error.what


async def _take_steps(bench: Bench, payout: Payout, report: WorkReport) -> None:
    pause, reason = RETRY_AFTER, ""
    try:
        for _ in range(STEPS_MAX):
            result = await _step(bench, payout)
            if isinstance(result, Payout):
                payout = result
                _note(report, payout)
                continue
            if isinstance(result, Sent):
                pause, reason = result.look_again, result.detail
                if not result.detail:
                    report.sent.append(payout.id)
            elif isinstance(result, Waiting):
                reason = result.reason
            break
    except StaleFence:
        raise
    except CausewayError as error:
        # One payout that cannot go on does not stop the others; it is tried again.
        reason = error.render()
    if reason:
        report.waiting[payout.id] = reason
    await _give_back(bench, payout, reason, pause)


async def _step(bench: Bench, payout: Payout) -> Payout | Waiting | Sent | None:
    match payout.state:
        case PayoutState.APPROVED:
            return await allocate(bench, payout)
        case PayoutState.ALLOCATED:
            return await sign(bench, payout)
        case PayoutState.SIGNED:
            return await send(bench, payout)
        case _:
            return None


def _note(report: WorkReport, payout: Payout) -> None:
    reached = {
        PayoutState.ALLOCATED: report.allocated,
        PayoutState.SIGNED: report.signed,
        PayoutState.REJECTED: report.rejected,
    }
    if payout.state in reached:
        reached[payout.state].append(payout.id)


async def _give_back(bench: Bench, payout: Payout, reason: str, pause: timedelta) -> None:
    async def write(conn: AsyncConnection) -> None:
        await store.update_payout(
            conn,
            payout.id,
            fence=payout.fence,
            # A block may have put it on hold meanwhile: the reason for that stays.
            waiting_for=case(
                (payout_table.c.state.in_(STATES), reason[:TEXT_LENGTH_MAX]),
                else_=payout_table.c.waiting_for,
            ),
            run_after=bench.clock.now() + pause,
            lease_holder=None,
            lease_until=None,
        )

    await transact(bench.engine, write)
