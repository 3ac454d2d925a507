"""Send: the same bytes, for as long as nobody knows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.model import BroadcastOutcome, BroadcastReport
from custody.bitcoin import spend_store as store
from custody.bitcoin.spend_model import SENT, Spend, SpendAttempt, SpendState
from custody.bitcoin.spend_moves import (
    Carried,
    SpendMove,
    load_carried,
    move_attempt,
    move_spend,
)
from custody.bitcoin.spend_steps import SpendBench, Stopped
from custody.payout_gates import find_unsendable
from custody.payout_model import AttemptKind, AttemptState
from custody.payout_send import wait_after
from kernel.db import transact
from kernel.events import record

REBROADCAST_AFTER: Final = timedelta(seconds=30)
"""How often accepted bytes are offered again while no block has them: a pool may forget them."""
DETAIL_LENGTH_MAX: Final = 300
UNMINED: Final = frozenset({AttemptState.SIGNED, AttemptState.BROADCAST, AttemptState.AMBIGUOUS})


async def send(bench: SpendBench, spend: Spend) -> Stopped:
    """Hand the stored bytes of the current attempt over and store what was said.

    Raises:
        StaleFence: another worker has claimed the spend.
    """
    async with bench.engine.connect() as conn:
        seen = await load_carried(conn, spend.id)
        stopped = await _find_stop(bench, conn, seen)
    attempt = seen.current
    if stopped or attempt.raw is None or seen.spend.state not in SENT:
        return Stopped(stopped)
    report = await bench.node.broadcast(attempt.raw, attempt.tx_id)
    if report.outcome is BroadcastOutcome.REJECTED and await _other_is_mined(bench, seen):
        report = BroadcastReport(BroadcastOutcome.UNKNOWN, "another attempt of it is mined")
    return await transact(bench.engine, lambda conn: _store(bench, conn, spend, attempt, report))


async def _find_stop(bench: SpendBench, conn: AsyncConnection, seen: Carried) -> str:
    # What pays nobody is never stopped: it is what ends a payment.
    if seen.current.kind is AttemptKind.CANCEL:
        return ""
    found = await find_unsendable(conn, seen.payouts, now=bench.clock.now())
    return "; ".join(f"payout {key}: {reason}" for key, reason in found.items())


async def _other_is_mined(bench: SpendBench, seen: Carried) -> bool:
    for other in seen.signed:
        if other.id != seen.current.id and await bench.node.find_transaction(other.tx_id):
            return True
    return False


async def _store(
    bench: SpendBench,
    conn: AsyncConnection,
    spend: Spend,
    sent: SpendAttempt,
    report: BroadcastReport,
) -> Stopped:
    now = bench.clock.now()
    mine = await load_carried(conn, spend.id, lock=True)
    attempt = next(item for item in mine.attempts if item.number == sent.number)
    counted: dict[str, Any] = {"broadcasts": attempt.broadcasts + 1, "last_broadcast_at": now}
    await store.update_spend(conn, spend.id, fence=spend.fence, waiting_for="")
    # A block may have been followed while the node was asked; then its word counts.
    if mine.spend.state not in SENT or attempt.state not in UNMINED:
        await store.update_attempt(conn, attempt.id, **counted)
        return Stopped("", REBROADCAST_AFTER, sent=True)
    accepted = report.outcome is BroadcastOutcome.ACCEPTED
    detail = report.detail[:DETAIL_LENGTH_MAX]
    to = AttemptState.BROADCAST if accepted else AttemptState.AMBIGUOUS
    events = []
    if to is attempt.state:
        await store.update_attempt(conn, attempt.id, **counted, detail=detail)
    else:
        _, told = await move_attempt(
            conn, attempt, to, now=now, reason=detail, detail=detail, **counted
        )
        events.append(told)
    if report.outcome is BroadcastOutcome.REJECTED:
        reason = f"the node says that the bytes can never be valid: {detail}"[:DETAIL_LENGTH_MAX]
        values = {"waiting_for": reason}
        move = SpendMove(
            carried=mine,
            to=SpendState.SECURITY_HOLD,
            values=values,
            of_payout=lambda _: values,
            reason=reason,
            fence=spend.fence,
        )
        _, held = await move_spend(conn, move, now=now)
        await record(conn, [*events, *held])
        return Stopped(reason)
    await record(conn, events)
    if accepted:
        return Stopped("", REBROADCAST_AFTER, sent=True)
    doubt = detail or "nobody knows whether the bytes arrived"
    return Stopped(doubt, wait_after(attempt.broadcasts))
