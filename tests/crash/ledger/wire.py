"""The wire of `app.faults.postgres_wire`, and the messages of a posting by which tests know where they are."""

from __future__ import annotations

from app.faults.postgres_wire import Step, Watch, Wire, never, wired
from ledger import statements

__all__ = ["Step", "Watch", "Wire", "is_lock", "is_written", "never", "wired"]


def is_lock(step: Step) -> bool:
    """Tell whether a message belongs to the statement that locks the head."""
    return step.sql == " ".join(statements.LOCK_AND_READ.split())


def is_written(step: Step) -> bool:
    """Tell whether a message belongs to the statement that writes the new head."""
    return "UPDATE ledger.head" in step.sql
