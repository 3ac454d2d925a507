"""The nouns of payments through banks, and their machines. Pure.

A payment file holds payouts of one account of ours as lines. Its bytes are written once, before
anybody sees them, and never again; two people approve their hash; from its release on the bank may
have them, whatever is heard. A line is what an attempt is on a chain: a payout has at most one that
was not discarded, so at most one can ever be paid.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.states import StateTable

SCHEMA: Final = "custody"
LINES_MAX: Final = 500
CONTENT_BYTES_MAX: Final = 2_000_000
APPROVALS_MIN: Final = 2
"""People over the hash of a file, whoever had it made not counted."""


class FileState(StrEnum):
    """Where a payment file is."""

    DRAFTED = "drafted"
    """Its bytes are stored; nobody outside has them."""
    APPROVED = "approved"
    RELEASED = "released"
    """The claims are debited: from here on the bank may have it."""
    UNKNOWN = "unknown"
    """Handed over without a clear answer: the same bytes again, for ever."""
    SUBMITTED = "submitted"
    """The bank's door has taken it."""
    HELD = "held"
    """The door says that it does not take it: people must look, and nothing is given back."""
    CLOSED = "closed"
    """Every line has ended."""
    DISCARDED = "discarded"
    """Never released: its payouts go into another."""


FILE_STATES: Final = StateTable(
    schema=SCHEMA,
    table="payment_file",
    initial=frozenset({FileState.DRAFTED}),
    edges=frozenset(
        {
            (FileState.DRAFTED, FileState.APPROVED),
            (FileState.DRAFTED, FileState.DISCARDED),
            (FileState.APPROVED, FileState.DISCARDED),
            (FileState.APPROVED, FileState.RELEASED),
            (FileState.RELEASED, FileState.SUBMITTED),
            (FileState.RELEASED, FileState.UNKNOWN),
            (FileState.RELEASED, FileState.HELD),
            (FileState.UNKNOWN, FileState.SUBMITTED),
            (FileState.UNKNOWN, FileState.HELD),
            # The bank says two things of it, or somebody wants it stopped.
            (FileState.SUBMITTED, FileState.HELD),
            # Two people looked: the same bytes once more.
            (FileState.HELD, FileState.RELEASED),
            # The bank spoke of it, so it has it, whatever its door had said.
            (FileState.HELD, FileState.SUBMITTED),
            (FileState.RELEASED, FileState.CLOSED),
            (FileState.UNKNOWN, FileState.CLOSED),
            (FileState.SUBMITTED, FileState.CLOSED),
            (FileState.HELD, FileState.CLOSED),
        }
    ),
)

UNRELEASED: Final = frozenset({FileState.DRAFTED, FileState.APPROVED})
"""Nobody outside can have it, so it may be discarded."""
OUT: Final = frozenset(
    {FileState.RELEASED, FileState.UNKNOWN, FileState.SUBMITTED, FileState.HELD, FileState.CLOSED}
)
HANDED_OVER: Final = frozenset({FileState.RELEASED, FileState.UNKNOWN})
"""Released, and nobody knows whether the bank has it: the worker hands copies over."""
WORKED_ON: Final = frozenset({FileState.APPROVED, FileState.RELEASED, FileState.UNKNOWN})
"""States in which the worker has something to do."""


class LineState(StrEnum):
    """Where one payment of a file is."""

    WRITTEN = "written"
    DISCARDED = "discarded"
    RELEASED = "released"
    ACCEPTED = "accepted"
    """The bank says that it will pay it; that is no finality."""
    REFUSED = "refused"
    """The bank says that it will not."""
    BOOKED = "booked"
    """A statement has it: final."""
    RETURNED = "returned"
    """It was booked and came back: an entry of its own."""


LINE_STATES: Final = StateTable(
    schema=SCHEMA,
    table="payment_line",
    initial=frozenset({LineState.WRITTEN}),
    edges=frozenset(
        {
            (LineState.WRITTEN, LineState.DISCARDED),
            (LineState.WRITTEN, LineState.RELEASED),
            (LineState.RELEASED, LineState.ACCEPTED),
            (LineState.RELEASED, LineState.REFUSED),
            (LineState.RELEASED, LineState.BOOKED),
            (LineState.ACCEPTED, LineState.REFUSED),
            (LineState.ACCEPTED, LineState.BOOKED),
            (LineState.BOOKED, LineState.RETURNED),
        }
    ),
)

PROMISED: Final = frozenset({LineState.WRITTEN, LineState.RELEASED, LineState.ACCEPTED})
"""What will still leave the account."""
ON_ITS_WAY: Final = frozenset({LineState.RELEASED, LineState.ACCEPTED})
ENDED: Final = frozenset(
    {LineState.DISCARDED, LineState.REFUSED, LineState.BOOKED, LineState.RETURNED}
)


class ReportState(StrEnum):
    """What became of a status report (pain.002) of a bank; its bytes are kept in every state."""

    APPLIED = "applied"
    QUARANTINED = "quarantined"
    """It cannot be read, or speaks of no file of ours: nothing was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentFile:
    """One file of payments, as the bank gets it.

    Attributes:
        account: code of the paying account.
        message_id: what the bank knows it by (MsgId); also the name of the file.
        execution_date: the day on which the bank shall pay.
        sha256: of *content*, in hexadecimal: what people approve.
        line_count, total: so many payments of so many smallest units together.
        drafted_by: the operator or process that had it made; never one of its approvers.
        submissions: copies that may have left the house, each counted before it did.
        waiting_for: why it does not go on, in words.
        bank_status: what the bank said of the whole file last (GrpSts).
    """

    id: UUID
    book: int
    account: str
    asset: str
    message_id: str
    execution_date: date
    content: bytes
    sha256: str
    line_count: int
    total: int
    state: FileState
    drafted_by: str
    drafted_at: datetime
    submissions: int
    waiting_for: str
    bank_status: str
    run_after: datetime
    released_at: datetime | None
    fence: int

    @property
    def name(self) -> str:
        """Return the name of the file on its way."""
        return f"{self.message_id}.xml"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentLine:
    """One payment of a file; *end_to_end* is the same in every file that its payout was ever in.

    Attributes:
        bank_status, bank_reason: what the bank said of it last (TxSts, reason code and words).
        booked_entry: id of the statement's entry that has it; *returned_entry* of its return.
    """

    file_id: UUID
    number: int
    payout_id: UUID
    end_to_end: str
    amount: int
    destination: str
    state: LineState
    bank_status: str = ""
    bank_reason: str = ""
    booked_entry: UUID | None = None
    returned_entry: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileApproval:
    """An operator's signature over the hash of a file."""

    file_id: UUID
    operator: str
    signature: bytes
    at: datetime
