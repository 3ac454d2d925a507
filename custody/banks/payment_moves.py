"""Moving payment files, their lines and their payouts along their machines: rows and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks import payment_store as store
from custody.banks.payment_model import (
    FILE_STATES,
    LINE_STATES,
    FileState,
    LineState,
    PaymentFile,
    PaymentLine,
)
from custody.payout_events import event_name
from custody.payout_model import Payout, PayoutState
from custody.payout_moves import Move, move_payouts
from kernel.events import DomainEvent, next_version

FILE: Final = "payment_file"
WORKER: Final = "system:bank-payments"


async def move_file(
    conn: AsyncConnection,
    file: PaymentFile,
    to: FileState,
    *,
    by: str,
    now: datetime,
    reason: str = "",
    name: str = "",
    payload: Mapping[str, Any] | None = None,
    **values: Any,
) -> tuple[PaymentFile, DomainEvent]:
    """Write a locked file's new state; return it, and the event to record.

    Raises:
        Refused: the machine has no such edge.
        StaleFence: another worker has claimed the file.
    """
    FILE_STATES.require(file.state, to)
    await store.update_file(conn, file.id, fence=file.fence, state=to, **values)
    event = DomainEvent(
        entity_type=FILE,
        entity_id=file.id,
        version=await next_version(conn, FILE, file.id),
        name=name or event_name("PaymentFile", to),
        at=now,
        actor=by,
        reason=reason,
        from_state=file.state,
        to_state=to,
        payload={"account": file.account, "sha256": file.sha256, **(payload or {})},
    )
    return replace(file, state=to, **values), event


async def move_lines(
    conn: AsyncConnection, lines: Sequence[PaymentLine], to: LineState, **values: Any
) -> list[PaymentLine]:
    """Write the new state of lines whose file is locked; what happened is told by their payouts.

    Raises:
        Refused: the machine has no such edge.
    """
    return await move_each_line(conn, [(line, values) for line in lines], to)


async def move_each_line(
    conn: AsyncConnection, moves: Sequence[tuple[PaymentLine, Mapping[str, Any]]], to: LineState
) -> list[PaymentLine]:
    """Do `move_lines` with values of each line's own, the same columns of all, in one statement."""
    if not moves:
        return []
    for line, _ in moves:
        LINE_STATES.require(line.state, to)
    rows = [
        {"file_id": line.file_id, "number": line.number, "state": to, **values}
        for line, values in moves
    ]
    await store.update_lines(conn, rows)
    return [replace(line, state=to, **values) for line, values in moves]


async def step_payouts(
    conn: AsyncConnection,
    payouts: Sequence[Payout],
    to: PayoutState,
    *,
    by: str,
    now: datetime,
    file_id: UUID,
    reason: str = "",
    waiting_for: str = "",
) -> list[DomainEvent]:
    """Write the new state of locked payouts; return the events."""
    moves = [
        Move(
            payout=item,
            to=to,
            actor=by,
            reason=reason,
            payload={"payment_file": str(file_id)},
            values={"waiting_for": waiting_for},
        )
        for item in payouts
    ]
    _, events = await move_payouts(conn, moves, now=now)
    return events


async def close_if_ended(
    conn: AsyncConnection, file: PaymentFile, *, by: str, now: datetime
) -> list[DomainEvent]:
    """Close a locked file that is out and of which no line is on its way any more."""
    if file.state is FileState.CLOSED or await store.count_open_lines(conn, file.id):
        return []
    _, event = await move_file(conn, file, FileState.CLOSED, by=by, now=now, waiting_for="")
    return [event]
