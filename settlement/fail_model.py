"""Nouns of what goes wrong after a seal: late instructions, payments that came back, defaults. Frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum, unique
from typing import Any, Final
from uuid import UUID

from kernel.states import StateTable
from settlement.model import Direction, InstructionState
from trading.terms.model import Rail


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """An instruction that was not final at its cut-off. It is cured once it is final.

    Attributes:
        remaining: what is still open, in smallest units.
        due_on: the value date that was agreed; *value_date* the one it was rolled to since.
        calendars: by which days it is counted, with their version.
        age: business days since *due_on*, that day not counted; as of the day that was asked for.
        rolls: how often the value date was rolled.
        cause: what people found; empty until then.
    """

    instruction_id: UUID
    run_id: UUID
    party: str
    asset: str
    direction: Direction
    rail: Rail
    state: InstructionState
    remaining: int
    due_on: date
    value_date: date
    calendars: str
    calendars_version: str
    age: int
    rolls: int
    cause: str
    noticed_at: datetime
    cured_at: datetime | None = None


@unique
class ReturnKind(StrEnum):
    """Which way money went back."""

    RETURNED = "returned"
    """A payment of ours came back: the desk owes again."""
    RECALLED = "recalled"
    """What a party had paid was taken back: the party owes again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentReturn:
    """Money that went back after it was final; history stays, and a new obligation says what is owed.

    Attributes:
        item_id: what it came with: the entry of a statement, or the receipt; once for ever.
        instruction_id: what had been settled with it.
        obligation_id: what is owed since.
    """

    id: UUID
    book: int
    kind: ReturnKind
    item_id: UUID
    instruction_id: UUID
    obligation_id: UUID
    party: str
    asset: str
    amount: int
    by: str
    second: str | None
    reason: str
    at: datetime


@unique
class DefaultState(StrEnum):
    """Whether a party is in default."""

    DECLARED = "declared"
    LIFTED = "lifted"


DEFAULT_STATES: Final = StateTable(
    schema="settlement",
    table="party_default",
    initial=frozenset({DefaultState.DECLARED}),
    edges=frozenset({(DefaultState.DECLARED, DefaultState.LIFTED)}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyDefault:
    """Two people's word that a party does not pay: nothing more is released to it.

    Attributes:
        report: the close-out as it stood then; *report_hash* the SHA-256 of its canonical JSON.
    """

    id: UUID
    book: int
    party: str
    state: DefaultState
    declared_by: str
    second: str
    signature: bytes
    reason: str
    report: Mapping[str, Any]
    report_hash: str
    declared_at: datetime
    lifted_by: str | None = None
    lifted_second: str | None = None
    lifted_reason: str | None = None
    lifted_at: datetime | None = None
