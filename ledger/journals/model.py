"""Nouns of manual journals and of the close of periods, and the edges of both machines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.states import StateTable
from ledger.journals.templates import Template
from ledger.model import PeriodEventKind

LIFETIME: Final = timedelta(days=7)
"""A proposal that nobody decided in this time can only be rejected; it has to be made again."""

PERIOD_APPROVALS: Final = 2
"""Operators who sign a close or a reopening, the proposer not counted."""


class JournalState(StrEnum):
    """Where a manual journal is; everything but PROPOSED is final."""

    PROPOSED = "proposed"
    POSTED = "posted"
    REJECTED = "rejected"
    REFUSED = "refused"
    """It was approved, and the ledger said no: the outcome is recorded."""


JOURNAL_STATES: Final = StateTable(
    schema="books",
    table="manual_journal",
    initial=frozenset({JournalState.PROPOSED}),
    edges=frozenset(
        {
            (JournalState.PROPOSED, JournalState.POSTED),
            (JournalState.PROPOSED, JournalState.REJECTED),
            (JournalState.PROPOSED, JournalState.REFUSED),
        }
    ),
)


class PeriodState(StrEnum):
    """Where the proposal to close or reopen a period is."""

    PROPOSED = "proposed"
    RECORDED = "recorded"
    """It has its approvals, and the journal has its record."""
    REJECTED = "rejected"


PERIOD_STATES: Final = StateTable(
    schema="books",
    table="period_proposal",
    initial=frozenset({PeriodState.PROPOSED}),
    edges=frozenset(
        {
            (PeriodState.PROPOSED, PeriodState.RECORDED),
            (PeriodState.PROPOSED, PeriodState.REJECTED),
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRequest:
    """What an operator wants to be posted.

    Attributes:
        reference: the operator's own opaque name for it; one journal for each in a book.
        reason: why, in words; it is kept in the row and signed, and never enters the journal.
        attachment: SHA-256 of the document behind it, in lower-case hexadecimal.
        effective_on: the day (UTC) from which it counts for the accounts.
    """

    reference: str
    template: Template
    reason: str
    attachment: str
    effective_on: date


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualJournal:
    """A manual journal as it stands.

    Attributes:
        decided_by: who approved or rejected it; empty before.
        decision_reason: of a rejection.
        outcome: of the ledger, where it refused; empty otherwise.
        sequence: of its last transfer in the journal, once posted.
    """

    id: UUID
    book: int
    request: JournalRequest
    state: JournalState
    proposed_by: str
    proposed_at: datetime
    decided_by: str = ""
    decided_at: datetime | None = None
    decision_reason: str = ""
    outcome: str = ""
    sequence: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodProposal:
    """Somebody wants the effective days up to *through* closed, or those after it open again."""

    id: UUID
    book: int
    kind: PeriodEventKind
    through: date
    reason: str
    state: PeriodState
    proposed_by: str
    proposed_at: datetime
    approvers: tuple[str, ...] = ()
    decided_at: datetime | None = None
    rejected_by: str = ""
    rejection_reason: str = ""
