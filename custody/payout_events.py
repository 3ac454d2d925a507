"""Moving a payout or an attempt along an edge: the row, and the event that says who and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.payout_model import (
    ATTEMPT_STATES,
    PAYOUT_STATES,
    RELEASED,
    Attempt,
    AttemptState,
    Payout,
    PayoutState,
)
from custody.payout_store import update_attempt, update_payout
from kernel.events import DomainEvent, next_version, record

PAYOUT: Final = "payout"
ATTEMPT: Final = "payout_attempt"
WORKER: Final = "system:payouts"


async def move_payout(
    conn: AsyncConnection,
    payout: Payout,
    to: PayoutState,
    *,
    actor: str,
    now: datetime,
    reason: str = "",
    name: str = "",
    fence: int | None = None,
    payload: Mapping[str, Any] | None = None,
    **values: Any,
) -> tuple[Payout, DomainEvent]:
    """Write the payout's new state and *values*; return it, and the event to record.

    The caller has locked the row, or repeats the *fence* under which it claimed it.

    Raises:
        Refused: the machine has no such edge.
        StaleFence: another worker has claimed the payout.
    """
    PAYOUT_STATES.require(payout.state, to)
    if to in RELEASED and payout.released_at is None:
        values["released_at"] = now
    await update_payout(conn, payout.id, fence=fence, state=to, **values)
    event = DomainEvent(
        entity_type=PAYOUT,
        entity_id=payout.id,
        version=await next_version(conn, PAYOUT, payout.id),
        name=name or event_name("Payout", to),
        at=now,
        actor=actor,
        reason=reason,
        from_state=payout.state,
        to_state=to,
        payload=dict(payload or {}),
    )
    return replace(payout, state=to, **values), event


async def step_payout(conn: AsyncConnection, payout: Payout, to: PayoutState, **how: Any) -> Payout:
    """Do `move_payout` and record its event."""
    moved, event = await move_payout(conn, payout, to, **how)
    await record(conn, [event])
    return moved


async def move_attempt(
    conn: AsyncConnection,
    attempt: Attempt,
    to: AttemptState,
    *,
    now: datetime,
    reason: str = "",
    name: str = "",
    **values: Any,
) -> tuple[Attempt, DomainEvent]:
    """Write the attempt's new state; the payout's row is locked, or was written under its fence."""
    ATTEMPT_STATES.require(attempt.state, to)
    await update_attempt(conn, attempt.id, state=to, **values)
    event = DomainEvent(
        entity_type=ATTEMPT,
        entity_id=attempt.id,
        version=await next_version(conn, ATTEMPT, attempt.id),
        name=name or event_name("Attempt", to),
        at=now,
        actor=WORKER,
        reason=reason,
        from_state=attempt.state,
        to_state=to,
        payload={
            "payout_id": str(attempt.payout_id),
            "nonce": attempt.nonce,
            "tx_hash": values.get("tx_hash", attempt.tx_hash),
        },
    )
    return replace(attempt, state=to, **values), event


def event_name(noun: str, state: str) -> str:
    """Return ``PayoutFailedOnChain`` for a payout that becomes ``failed_on_chain``."""
    return noun + "".join(word.capitalize() for word in state.split("_"))
