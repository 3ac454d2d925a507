"""Moving a transfer along an edge: the row, and the event that says who and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.venues import store
from custody.venues.model import (
    DEPOSIT_STATES,
    REASON_LENGTH_MAX,
    RELEASED,
    WITHDRAWAL_STATES,
    VenueDeposit,
    VenueDepositState,
    VenueWithdrawal,
    WithdrawalState,
)
from kernel.events import DomainEvent, next_version, record

DEPOSIT: Final = "venue_deposit"
WITHDRAWAL: Final = "venue_withdrawal"
WORKER: Final = "system:venue-transfers"


async def move_withdrawal(
    conn: AsyncConnection,
    item: VenueWithdrawal,
    to: WithdrawalState,
    *,
    now: datetime,
    actor: str = WORKER,
    reason: str = "",
    name: str = "",
    payload: Mapping[str, Any] | None = None,
    **values: Any,
) -> VenueWithdrawal:
    """Write the withdrawal's new state and *values* under its fence, and tell.

    Raises:
        Refused: the machine has no such edge.
        StaleFence: another worker has claimed it.
    """
    WITHDRAWAL_STATES.require(item.state, to)
    if to in RELEASED and item.released_at is None:
        values["released_at"] = now
    if to is not item.state:
        values.setdefault("waiting_for", "")
    values["updated_at"] = now
    await store.update_withdrawal(conn, item.id, fence=item.fence, state=to, **values)
    moved = replace(
        item, state=to, **{k: v for k, v in values.items() if not k.startswith("lease")}
    )
    await tell_withdrawal(
        conn, moved, item.state, now=now, actor=actor, reason=reason, name=name, payload=payload
    )
    return moved


async def tell_withdrawal(
    conn: AsyncConnection,
    item: VenueWithdrawal,
    before: WithdrawalState | None,
    *,
    now: datetime,
    actor: str = WORKER,
    reason: str = "",
    name: str = "",
    payload: Mapping[str, Any] | None = None,
) -> None:
    """Record what happened to a withdrawal whose row is locked."""
    told = {
        "place": str(item.place),
        "asset": item.asset,
        "amount": str(item.amount),
        "wallet": item.wallet,
        "address": item.address,
        "venue_ref": item.venue_ref,
        "tx_id": item.tx_id,
        **(payload or {}),
    }
    event = DomainEvent(
        entity_type=WITHDRAWAL,
        entity_id=item.id,
        version=await next_version(conn, WITHDRAWAL, item.id),
        name=name or _name("VenueWithdrawal", item.state),
        at=now,
        actor=actor,
        reason=reason[:REASON_LENGTH_MAX],
        from_state=before,
        to_state=item.state,
        payload=told,
    )
    await record(conn, [event])


async def move_deposit(
    conn: AsyncConnection,
    item: VenueDeposit,
    to: VenueDepositState,
    *,
    now: datetime,
    actor: str = WORKER,
    reason: str = "",
    name: str = "",
    payload: Mapping[str, Any] | None = None,
    **values: Any,
) -> VenueDeposit:
    """Write the new state of a locked transfer to a venue, and tell.

    Raises:
        Refused: the machine has no such edge.
    """
    DEPOSIT_STATES.require(item.state, to)
    values["updated_at"] = now
    await store.update_deposit(conn, item.id, state=to, **values)
    moved = replace(item, state=to, **values)
    await tell_deposit(
        conn, moved, item.state, now=now, actor=actor, reason=reason, name=name, payload=payload
    )
    return moved


async def tell_deposit(
    conn: AsyncConnection,
    item: VenueDeposit,
    before: VenueDepositState | None,
    *,
    now: datetime,
    actor: str = WORKER,
    reason: str = "",
    name: str = "",
    payload: Mapping[str, Any] | None = None,
) -> None:
    """Record what happened to a transfer to a venue whose row is locked."""
    event = DomainEvent(
        entity_type=DEPOSIT,
        entity_id=item.id,
        version=await next_version(conn, DEPOSIT, item.id),
        name=name or _name("VenueDeposit", item.state),
        at=now,
        actor=actor,
        reason=reason[:REASON_LENGTH_MAX],
        from_state=before,
        to_state=item.state,
        payload={
            "place": str(item.place),
            "asset": item.asset,
            "amount": str(item.amount),
            "payout_id": str(item.payout_id),
            "venue_ref": item.venue_ref,
            **(payload or {}),
        },
    )
    await record(conn, [event])


def _name(noun: str, state: str) -> str:
    return noun + "".join(word.capitalize() for word in state.split("_"))
