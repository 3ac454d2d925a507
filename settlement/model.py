"""Nouns of settlement, frozen, and the edges of its three machines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.states import StateTable


class Direction(StrEnum):
    """Who owes whom."""

    PAY = "pay"
    """The desk owes the party."""
    RECEIVE = "receive"
    """The party owes the desk."""


class Rail(StrEnum):
    """How value moves."""

    EVM = "evm"
    BOOK = "book"


class ObligationState(StrEnum):
    """Where an obligation is."""

    OPEN = "open"
    CALCULATED = "calculated"
    AFFIRMED = "affirmed"
    DISPUTED = "disputed"
    SEALED = "sealed"
    DISCHARGED = "discharged"
    WITHDRAWN = "withdrawn"
    """Given back to trading, which may cancel or amend the deal."""


class RunState(StrEnum):
    """Where a settlement run is."""

    CALCULATED = "calculated"
    AFFIRMED = "affirmed"
    SEALED = "sealed"
    RELEASED = "released"
    FINAL = "final"
    EMPTY = "empty"
    """Every obligation of it was disputed: nothing is left to settle."""


class InstructionState(StrEnum):
    """Where one movement of net value is."""

    PLANNED = "planned"
    FUNDED = "funded"
    RELEASED = "released"
    FINAL = "final"
    FAILED = "failed"
    RESCHEDULED = "rescheduled"


OBLIGATION_STATES: Final = StateTable(
    schema="settlement",
    table="obligation",
    initial=frozenset({ObligationState.OPEN}),
    edges=frozenset(
        {
            (ObligationState.OPEN, ObligationState.CALCULATED),
            (ObligationState.CALCULATED, ObligationState.AFFIRMED),
            (ObligationState.CALCULATED, ObligationState.DISPUTED),
            (ObligationState.AFFIRMED, ObligationState.DISPUTED),
            # A dispute about one obligation takes back the affirmation of the others of its party.
            (ObligationState.AFFIRMED, ObligationState.CALCULATED),
            (ObligationState.DISPUTED, ObligationState.OPEN),
            (ObligationState.OPEN, ObligationState.WITHDRAWN),
            (ObligationState.DISPUTED, ObligationState.WITHDRAWN),
            # Trading did not cancel the deal after all.
            (ObligationState.WITHDRAWN, ObligationState.OPEN),
            (ObligationState.AFFIRMED, ObligationState.SEALED),
            (ObligationState.SEALED, ObligationState.DISCHARGED),
        }
    ),
)

RUN_STATES: Final = StateTable(
    schema="settlement",
    table="run",
    initial=frozenset({RunState.CALCULATED}),
    edges=frozenset(
        {
            (RunState.CALCULATED, RunState.AFFIRMED),
            (RunState.AFFIRMED, RunState.CALCULATED),
            (RunState.CALCULATED, RunState.EMPTY),
            (RunState.AFFIRMED, RunState.EMPTY),
            (RunState.AFFIRMED, RunState.SEALED),
            (RunState.SEALED, RunState.RELEASED),
            (RunState.RELEASED, RunState.FINAL),
            # A block deeper than the policy asked for vanished, and with it a receipt or a payment.
            (RunState.FINAL, RunState.RELEASED),
        }
    ),
)

INSTRUCTION_STATES: Final = StateTable(
    schema="settlement",
    table="instruction",
    initial=frozenset({InstructionState.PLANNED}),
    edges=frozenset(
        {
            (InstructionState.PLANNED, InstructionState.FUNDED),
            # What the desk is to receive needs no funding, and a book transfer is funded by its
            # holds: release means to await the one, and to hold the other.
            (InstructionState.PLANNED, InstructionState.RELEASED),
            (InstructionState.FUNDED, InstructionState.RELEASED),
            (InstructionState.RELEASED, InstructionState.FINAL),
            (InstructionState.RELEASED, InstructionState.FAILED),
            # The receipt or the payment vanished with its block.
            (InstructionState.FINAL, InstructionState.RELEASED),
            (InstructionState.FAILED, InstructionState.RESCHEDULED),
            (InstructionState.RESCHEDULED, InstructionState.FUNDED),
            (InstructionState.RESCHEDULED, InstructionState.RELEASED),
        }
    ),
)


IMPORTED_LEG: Final = "imported"
"""The leg of an obligation that no deal of ours made: it came with the cut-over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """One leg of one deal that is owed: *amount* (smallest units, > 0) of *asset*."""

    id: UUID
    deal_id: UUID
    leg: str
    party: str
    asset: str
    amount: int
    direction: Direction
    value_date: date
    created_at: datetime
    state: ObligationState = ObligationState.OPEN
    version: int = 1
    """Number of events so far."""

    @property
    def has_deal(self) -> bool:
        """Tell whether a deal of ours is behind it, which settlement keeps up to date."""
        return self.leg != IMPORTED_LEG


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A netting agreement: from *effective_from* on, the party's obligations net across trades."""

    party: str
    effective_from: date
    prefunded: bool
    """The party settles by book transfer, from funds it holds here."""

    def covers(self, day: date) -> bool:
        """Tell whether the agreement is in force on *day*."""
        return self.effective_from <= day


@dataclass(frozen=True, slots=True, kw_only=True)
class NetItem:
    """What remains between the desk and one party in one asset, and what it discharges.

    ``amount`` may be zero: then the obligations cancel out and nothing moves.
    """

    party: str
    asset: str
    direction: Direction
    amount: int
    gross_pay: int
    gross_receive: int
    obligations: tuple[UUID, ...]
    rail: Rail


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculation:
    """One immutable version of a run: inputs, result, and the hash that seals both."""

    version: int
    method: str
    items: tuple[NetItem, ...]
    input_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A settlement run: unique by (book, value date, window)."""

    id: UUID
    book: int
    value_date: date
    window: str
    state: RunState
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One net item on its way: a payout, an awaited receipt, or a side of a book transfer.

    Attributes:
        applied: what was received or paid so far, at most *amount*.
        attempt: counts from 1; each rescheduling begins the next one.
        payout_id: of the newest attempt that made one.
        standing_version: of the standing instruction that the payout was made from.
        evidence: what the newest state rests on.
    """

    id: UUID
    run_id: UUID
    party: str
    asset: str
    direction: Direction
    amount: int
    applied: int
    rail: Rail
    state: InstructionState
    attempt: int
    payout_id: UUID | None
    standing_version: int | None
    evidence: str
    created_at: datetime

    @property
    def remaining(self) -> int:
        """Return what has not been received or paid yet."""
        return self.amount - self.applied


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptMatch:
    """What a receipt paid: *applied* of an instruction, *excess* beyond it.

    ``(receipt_id, epoch)`` is its identity: a receipt that vanished and was mined again is matched
    again.
    """

    receipt_id: UUID
    epoch: int
    instruction_id: UUID
    applied: int
    excess: int
    first_seen_at: datetime
    """Of the receipt: the ids of the postings follow from it."""


class BreakKind(StrEnum):
    """What does not fit together."""

    RECEIPT_GONE = "receipt_gone"
    """The block of a matched receipt vanished, and the match still stands."""
    PAYOUT_GONE = "payout_gone"
    """An instruction is final whose payout is not confirmed any more."""
    PAYOUT_HELD = "payout_held"
    """The payout of a released instruction is in security hold: people must look."""
    EXPOSED = "exposed"
    """The desk has paid a party whose own payment, once final, vanished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One mismatch between settlement and what it rests on."""

    kind: BreakKind
    instruction_id: UUID
    party: str
    asset: str
    amount: int
    detail: str
