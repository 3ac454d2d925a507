"""One step of a machine: the row moves along an edge, and its event says who and why."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, next_version, record
from settlement import instruction_store, store
from settlement.model import (
    Calculation,
    Instruction,
    InstructionState,
    Obligation,
    ObligationState,
    Run,
    RunState,
)

SYSTEM: Final = "system:settlement"
OBLIGATION: Final = "obligation"
RUN: Final = "settlement-run"
INSTRUCTION: Final = "settlement-instruction"


@dataclass(frozen=True, slots=True)
class Why:
    """Who takes a step (operator id, or ``system:<process>``), for what reason, and when."""

    by: str
    reason: str
    now: datetime


async def record_obligations(
    conn: AsyncConnection, items: Collection[Obligation], why: Why
) -> None:
    """Record that obligations, as they stand now, became open."""
    await record(
        conn,
        [_obligation_event(o, o.version, None, o.state, why) for o in items],
    )


async def step_obligations(
    conn: AsyncConnection,
    items: Collection[Obligation],
    state: ObligationState,
    why: Why,
    *,
    run_id: UUID | None,
) -> None:
    """Move locked obligations along an edge."""
    await store.move_obligations(conn, items, state, run_id=run_id)
    await record(
        conn,
        [_obligation_event(o, o.version + 1, o.state, state, why) for o in items],
    )


async def record_run(
    conn: AsyncConnection,
    run: Run,
    name: str,
    to: RunState,
    why: Why,
    *,
    result: Calculation | None = None,
) -> None:
    """Record what happened to a locked run."""
    payload = {"window": run.window, "value_date": run.value_date.isoformat()}
    if result is not None:
        payload |= {"calculation": str(result.version), "input_hash": result.input_hash}
    version = await next_version(conn, RUN, run.id)
    event = DomainEvent(
        entity_type=RUN,
        entity_id=run.id,
        version=version,
        name=name,
        at=why.now,
        actor=why.by,
        reason=why.reason,
        from_state=run.state if version > 1 else None,
        to_state=to,
        payload=payload,
    )
    await record(conn, [event])


async def record_planned(conn: AsyncConnection, items: Collection[Instruction], why: Why) -> None:
    """Record that a seal has planned instructions."""
    await record(
        conn,
        [
            DomainEvent(
                entity_type=INSTRUCTION,
                entity_id=item.id,
                version=1,
                name="InstructionPlanned",
                at=why.now,
                actor=why.by,
                reason=why.reason,
                to_state=item.state,
                payload=_instruction_payload(item),
            )
            for item in items
        ],
    )


async def step_instruction(
    conn: AsyncConnection,
    item: Instruction,
    state: InstructionState,
    why: Why,
    *,
    name: str | None = None,
    **values: object,
) -> None:
    """Move a locked instruction along an edge; the reason is the evidence of its new state."""
    await instruction_store.move_instruction(conn, item, state, evidence=why.reason, **values)
    event = DomainEvent(
        entity_type=INSTRUCTION,
        entity_id=item.id,
        version=await next_version(conn, INSTRUCTION, item.id),
        name=name or f"Instruction{state.capitalize()}",
        at=why.now,
        actor=why.by,
        reason=why.reason,
        from_state=item.state,
        to_state=state,
        payload=_instruction_payload(item) | {k: str(v) for k, v in values.items()},
    )
    await record(conn, [event])


def _instruction_payload(item: Instruction) -> dict[str, str]:
    return {
        "run": str(item.run_id),
        "party": item.party,
        "asset": item.asset,
        "direction": item.direction,
        "amount": str(item.amount),
        "rail": item.rail,
        "attempt": str(item.attempt),
    }


def _obligation_event(
    item: Obligation,
    version: int,
    before: ObligationState | None,
    after: ObligationState,
    why: Why,
) -> DomainEvent:
    return DomainEvent(
        entity_type=OBLIGATION,
        entity_id=item.id,
        version=version,
        name=f"Obligation{after.capitalize()}",
        at=why.now,
        actor=why.by,
        reason=why.reason,
        from_state=before,
        to_state=after,
        payload={
            "deal": str(item.deal_id),
            "leg": item.leg,
            "party": item.party,
            "asset": item.asset,
            "amount": str(item.amount),
            "direction": item.direction,
        },
    )
