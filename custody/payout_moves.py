"""Moving many payouts and attempts along their machines at once: rows and events, set by set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_rows as rows
from custody.payout_events import ATTEMPT, PAYOUT, WORKER, event_name
from custody.payout_model import (
    ATTEMPT_STATES,
    PAYOUT_STATES,
    RELEASED,
    Attempt,
    AttemptState,
    Payout,
    PayoutState,
)
from kernel.events import DomainEvent, next_versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One payout on its way to another state."""

    payout: Payout
    to: PayoutState
    values: Mapping[str, Any] = field(default_factory=dict)
    payload: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    name: str = ""
    actor: str = WORKER


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptMove:
    """One attempt on its way to another state."""

    attempt: Attempt
    to: AttemptState
    values: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    name: str = ""


async def move_payouts(
    conn: AsyncConnection, moves: Sequence[Move], *, now: datetime
) -> tuple[dict[UUID, Payout], list[DomainEvent]]:
    """Write the new states under the fences of this worker; return the payouts, and the events.

    Raises:
        Refused: the machine has no such edge.
        StaleFence: another worker has claimed one of the payouts.
    """
    if not moves:
        return {}, []
    written: list[dict[str, Any]] = []
    moved: dict[UUID, Payout] = {}
    for move in moves:
        PAYOUT_STATES.require(move.payout.state, move.to)
        values = {**move.values, "state": move.to}
        if move.to in RELEASED:
            values["released_at"] = move.payout.released_at or now
        written.append({"id": move.payout.id, **values})
        moved[move.payout.id] = replace(move.payout, **values)
    fences = {move.payout.id: move.payout.fence for move in moves}
    await rows.update_payouts(conn, written, fences=fences)
    versions = await next_versions(conn, PAYOUT, list(moved))
    return moved, [
        DomainEvent(
            entity_type=PAYOUT,
            entity_id=move.payout.id,
            version=versions[move.payout.id],
            name=move.name or event_name("Payout", move.to),
            at=now,
            actor=move.actor,
            reason=move.reason,
            from_state=move.payout.state,
            to_state=move.to,
            payload=dict(move.payload),
        )
        for move in moves
    ]


async def move_attempts(
    conn: AsyncConnection, moves: Sequence[AttemptMove], *, now: datetime
) -> list[DomainEvent]:
    """Write the attempts' new states; their payouts' rows are locked. Return the events.

    An attempt that stays where it is gets its values and no event.
    """
    if not moves:
        return []
    written = []
    for move in moves:
        ATTEMPT_STATES.require(move.attempt.state, move.to)
        written.append({"id": move.attempt.id, **move.values, "state": move.to})
    await rows.update_attempts(conn, written)
    changed = [move for move in moves if move.to is not move.attempt.state]
    versions = await next_versions(conn, ATTEMPT, [move.attempt.id for move in changed])
    return [
        DomainEvent(
            entity_type=ATTEMPT,
            entity_id=move.attempt.id,
            version=versions[move.attempt.id],
            name=move.name or event_name("Attempt", move.to),
            at=now,
            actor=WORKER,
            reason=move.reason,
            from_state=move.attempt.state,
            to_state=move.to,
            payload={
                "payout_id": str(move.attempt.payout_id),
                "nonce": move.attempt.nonce,
                "tx_hash": move.values.get("tx_hash", move.attempt.tx_hash),
            },
        )
        for move in changed
    ]
