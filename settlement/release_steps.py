"""Steps of many instructions at once: the rows move along an edge, each event says who and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, next_versions, record
from settlement import release_store
from settlement.model import INSTRUCTION_STATES, Instruction, InstructionState
from settlement.steps import INSTRUCTION, Why, instruction_payload


@dataclass(frozen=True, slots=True, kw_only=False)
class Step:
    """Where one locked instruction goes, and what of it changes besides.

    Attributes:
        words: why it of all goes there; "": as all the others do.
    """

    item: Instruction
    state: InstructionState
    words: str = ""
    hold_id: UUID | None = None
    payout_id: UUID | None = None
    standing_version: int | None = None
    attempt: int | None = None
    applied: int | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """Return the columns that change besides the state."""
        names = ("hold_id", "payout_id", "standing_version", "attempt", "applied")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


async def step_instructions(conn: AsyncConnection, steps: Sequence[Step], why: Why) -> None:
    """Move locked instructions, with one statement for all that change the same columns."""
    if not steps:
        return
    groups: dict[tuple[str, ...], list[Step]] = {}
    for step in steps:
        INSTRUCTION_STATES.require(step.item.state, step.state)
        groups.setdefault(tuple(step.changes), []).append(step)
    for group in groups.values():
        await release_store.update_instructions(
            conn,
            [
                {
                    "id": step.item.id,
                    "state": str(step.state),
                    "evidence": step.words or why.reason,
                    **step.changes,
                }
                for step in group
            ],
        )
    versions = await next_versions(conn, INSTRUCTION, [step.item.id for step in steps])
    await record(conn, [_event(step, versions[step.item.id], why) for step in steps])


def _event(step: Step, version: int, why: Why) -> DomainEvent:
    return DomainEvent(
        entity_type=INSTRUCTION,
        entity_id=step.item.id,
        version=version,
        name=f"Instruction{step.state.capitalize()}",
        at=why.now,
        actor=why.by,
        reason=step.words or why.reason,
        from_state=step.item.state,
        to_state=step.state,
        payload=instruction_payload(step.item) | {k: str(v) for k, v in step.changes.items()},
    )
