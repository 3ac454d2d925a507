"""Send: the same bytes, for as long as nobody knows; and more for the block when it takes too long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.model import BroadcastOutcome, BroadcastReport
from custody import payout_rows as rows
from custody.payout_allocation import Waiting
from custody.payout_gates import find_unsendable
from custody.payout_model import (
    SENT,
    Attempt,
    AttemptKind,
    AttemptState,
    Payout,
    PayoutState,
)
from custody.payout_moves import AttemptMove, Move, move_attempts, move_payouts
from custody.payout_steps import Bench, Result, Results, Sent, lock_mine
from kernel.db import transact
from kernel.events import record

REBROADCAST_AFTER: Final = timedelta(seconds=30)
"""How often accepted bytes are offered again while no block has them: a pool may forget them."""
AMBIGUOUS_RETRY_AFTER: Final = timedelta(seconds=1)
AMBIGUOUS_RETRY_MAX: Final = timedelta(minutes=1)
"""Bytes of which nobody knows are offered again after 1, 2, 4 … seconds, and for ever this often."""
DETAIL_LENGTH_MAX: Final = 300


async def send(bench: Bench, payouts: Sequence[Payout]) -> Results:
    """Hand the stored bytes of the current attempts over and store what was said of each."""
    results: dict[UUID, Result] = {}
    async with bench.engine.connect() as conn:
        attempts = await rows.list_current(conn, payouts)
        # What pays nobody is never stopped: it is what ends a payment.
        paying = [item for item in payouts if attempts[item.id].kind is AttemptKind.PAY]
        stopped = await find_unsendable(conn, paying, now=bench.clock.now())
        results |= {key: Waiting(reason) for key, reason in stopped.items()}
        due = [item for item in payouts if item.id not in stopped and attempts[item.id].raw]
        others = await rows.list_all_attempts(
            conn, [item.id for item in due if attempts[item.id].number > 1]
        )
    # In the order of their nonces: a node may refuse what comes before its turn.
    due.sort(key=lambda item: (item.sender, attempts[item.id].nonce))
    reports = dict(
        zip(
            (item.id for item in due),
            await bench.rail.send([attempts[item.id] for item in due]),
            strict=True,
        )
    )
    for key, report in reports.items():
        if report.outcome is BroadcastOutcome.REJECTED and await _other_is_mined(
            bench, attempts[key], others.get(key, ())
        ):
            reports[key] = BroadcastReport(
                BroadcastOutcome.UNKNOWN, "another attempt of the payout is mined"
            )
    if not due:
        return results
    return results | await transact(
        bench.engine, lambda conn: _store_sent(bench, conn, due, attempts, reports)
    )


async def _other_is_mined(bench: Bench, attempt: Attempt, others: Sequence[Attempt]) -> bool:
    for other in others:
        if other.tx_hash is None or other.id == attempt.id:
            continue
        if await bench.rail.is_mined(other.tx_hash):
            return True
    return False


async def _store_sent(
    bench: Bench,
    conn: AsyncConnection,
    payouts: Sequence[Payout],
    attempts: Mapping[UUID, Attempt],
    reports: Mapping[UUID, BroadcastReport],
) -> dict[UUID, Result]:
    now = bench.clock.now()
    mine, results = await lock_mine(conn, payouts)
    numbered = {
        (item.payout_id, item.number): item
        for found in (await rows.list_all_attempts(conn, list(mine))).values()
        for item in found
    }
    told: list[AttemptMove] = []
    held: list[Move] = []
    for key, payout in mine.items():
        report, current = reports[key], numbered[key, attempts[key].number]
        counted = {"broadcasts": current.broadcasts + 1, "last_broadcast_at": now}
        # A block may have been followed while the node was asked; then its word counts.
        if payout.state not in SENT or current.state not in _UNMINED:
            told.append(_keep(current, counted))
            results[key] = Sent(REBROADCAST_AFTER)
            continue
        told.append(_tell(current, report, counted))
        if report.outcome is BroadcastOutcome.REJECTED:
            reason = f"the node says that the bytes can never be valid: {report.detail}"
            reason = reason[:DETAIL_LENGTH_MAX]
            values = {"waiting_for": reason}
            held.append(
                Move(payout=payout, to=PayoutState.SECURITY_HOLD, reason=reason, values=values)
            )
            continue
        results[key] = _sent(report, current)
    events = await move_attempts(conn, told, now=now) if told else []
    if held:
        moved, more = await move_payouts(conn, held, now=now)
        results |= moved
        events += more
    await record(conn, events)
    return results


_UNMINED: Final = frozenset({AttemptState.SIGNED, AttemptState.BROADCAST, AttemptState.AMBIGUOUS})


def _keep(attempt: Attempt, counted: Mapping[str, Any]) -> AttemptMove:
    values = {**counted, "detail": attempt.detail}
    return AttemptMove(attempt=attempt, to=attempt.state, values=values)


def _tell(attempt: Attempt, report: BroadcastReport, counted: Mapping[str, Any]) -> AttemptMove:
    accepted = report.outcome is BroadcastOutcome.ACCEPTED
    detail = report.detail[:DETAIL_LENGTH_MAX]
    return AttemptMove(
        attempt=attempt,
        to=AttemptState.BROADCAST if accepted else AttemptState.AMBIGUOUS,
        values={**counted, "detail": detail},
        reason=detail,
    )


def _sent(report: BroadcastReport, attempt: Attempt) -> Sent:
    if report.outcome is BroadcastOutcome.ACCEPTED:
        return Sent(REBROADCAST_AFTER)
    detail = report.detail or "nobody knows whether the bytes arrived"
    return Sent(wait_after(attempt.broadcasts), detail)


def wait_after(broadcasts: int) -> timedelta:
    """Return how long to wait after a broadcast without an answer, the *broadcasts* + first one."""
    return min(AMBIGUOUS_RETRY_AFTER * (1 << min(broadcasts, 16)), AMBIGUOUS_RETRY_MAX)
