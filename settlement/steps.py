"""One step of a machine: the row moves along an edge, and its event says who and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, next_version, next_versions, record
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
CYCLE: Final = "settlement-cycle"
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
        [_obligation_event(o, o.version, None, o.state, why, None) for o in items],
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
        [_obligation_event(o, o.version + 1, o.state, state, why, run_id) for o in items],
    )


async def step_members(
    conn: AsyncConnection,
    items: Collection[tuple[Obligation, UUID | None]],
    state: ObligationState,
    why: Why,
) -> None:
    """Move locked obligations along an edge, each to the run it is in from then on."""
    await store.move_members(conn, items, state)
    await record(
        conn,
        [_obligation_event(o, o.version + 1, o.state, state, why, run_id) for o, run_id in items],
    )


@dataclass(frozen=True, slots=True)
class RunStep:
    """What happened to a locked run: the event's name, the state it is in then, its calculation."""

    run: Run
    name: str
    to: RunState
    result: Calculation | None = None


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
    await record_runs(conn, [RunStep(run, name, to, result)], why)


async def record_runs(conn: AsyncConnection, steps: Sequence[RunStep], why: Why) -> None:
    """Record what happened to locked runs, one step each, in a fixed number of statements."""
    versions = await next_versions(conn, RUN, {step.run.id for step in steps})
    await record(conn, [_run_event(step, versions[step.run.id], why) for step in steps])


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
                payload=instruction_payload(item),
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
        payload=instruction_payload(item) | {k: str(v) for k, v in values.items()},
    )
    await record(conn, [event])


@dataclass(frozen=True, slots=True)
class Applied:
    """What was applied to a locked instruction: how it stood before, how it stands then, and why."""

    before: Instruction
    after: Instruction
    why: Why


async def step_applied(conn: AsyncConnection, steps: Sequence[Applied], *, name: str) -> None:
    """Write what was applied, in a fixed number of statements; one event for each step.

    Args:
        steps: in order; a later step of an instruction begins where the one before has ended.
        name: of the events.
    """
    if not steps:
        return
    first: dict[UUID, Instruction] = {}
    last: dict[UUID, Instruction] = {}
    for step in steps:
        first.setdefault(step.before.id, step.before)
        last[step.before.id] = replace(step.after, evidence=step.why.reason)
    await instruction_store.apply_to_instructions(conn, [(first[key], last[key]) for key in last])
    versions = await next_versions(conn, INSTRUCTION, first)
    events: list[DomainEvent] = []
    for step in steps:
        key = step.before.id
        events.append(_applied_event(step, name, versions[key]))
        versions[key] += 1
    await record(conn, events)


def _applied_event(step: Applied, name: str, version: int) -> DomainEvent:
    return DomainEvent(
        entity_type=INSTRUCTION,
        entity_id=step.before.id,
        version=version,
        name=name,
        at=step.why.now,
        actor=step.why.by,
        reason=step.why.reason,
        from_state=step.before.state,
        to_state=step.after.state,
        payload=instruction_payload(step.before) | {"applied": str(step.after.applied)},
    )


def instruction_payload(item: Instruction) -> dict[str, str]:
    """Return what the events of an instruction say of it."""
    return {
        "run": str(item.run_id),
        "party": item.party,
        "asset": item.asset,
        "direction": item.direction,
        "amount": str(item.amount),
        "rail": item.rail,
        "attempt": str(item.attempt),
    }


def _run_event(step: RunStep, version: int, why: Why) -> DomainEvent:
    run = step.run
    payload = {"window": run.window, "value_date": run.value_date.isoformat()}
    if run.cycle_id is not None:
        payload |= {
            "cycle": str(run.cycle_id),
            "party": run.party,
            "netting_set": run.netting_set,
        }
    if step.result is not None:
        payload |= {
            "calculation": str(step.result.version),
            "input_hash": step.result.input_hash,
        }
    return DomainEvent(
        entity_type=RUN,
        entity_id=run.id,
        version=version,
        name=step.name,
        at=why.now,
        actor=why.by,
        reason=why.reason,
        from_state=run.state if version > 1 else None,
        to_state=step.to,
        payload=payload,
    )


def _obligation_event(
    item: Obligation,
    version: int,
    before: ObligationState | None,
    after: ObligationState,
    why: Why,
    run_id: UUID | None,
) -> DomainEvent:
    payload = {
        "deal": str(item.deal_id),
        "leg": item.leg,
        "party": item.party,
        "asset": item.asset,
        "amount": str(item.amount),
        "direction": item.direction,
    }
    if run_id is not None:
        payload["run"] = str(run_id)
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
        payload=payload,
    )
