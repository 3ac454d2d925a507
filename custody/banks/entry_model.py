"""What custody makes of a bank's entries: files, statements, receipts, and their machines. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.states import StateTable

SCHEMA: Final = "custody"
REASON_LENGTH_MAX: Final = 500


class BankFileState(StrEnum):
    """Where a file from a bank is; its bytes are kept in every state."""

    IMPORTED = "imported"
    QUARANTINED = "quarantined"
    """It cannot be read, or does not add up: nothing of it is in the books."""
    DISMISSED = "dismissed"
    """Somebody looked at what is quarantined, and it stays out of the books."""


BANK_FILE_STATES: Final = StateTable(
    schema=SCHEMA,
    table="bank_file",
    initial=frozenset({BankFileState.IMPORTED, BankFileState.QUARANTINED}),
    edges=frozenset(
        {
            (BankFileState.QUARANTINED, BankFileState.IMPORTED),
            (BankFileState.QUARANTINED, BankFileState.DISMISSED),
        }
    ),
)


class BankReceiptState(StrEnum):
    """Where an item of ``suspense:bank`` is."""

    UNMATCHED = "unmatched"
    MATCHED = "matched"
    RETURNED = "returned"
    """The bank took it back before it was matched: nothing of it is left."""


BANK_RECEIPT_STATES: Final = StateTable(
    schema=SCHEMA,
    table="bank_receipt",
    initial=frozenset({BankReceiptState.UNMATCHED}),
    edges=frozenset(
        {
            (BankReceiptState.UNMATCHED, BankReceiptState.MATCHED),
            (BankReceiptState.UNMATCHED, BankReceiptState.RETURNED),
            (BankReceiptState.MATCHED, BankReceiptState.UNMATCHED),
        }
    ),
)


class BankReceiptKind(StrEnum):
    """Why an item is in suspense."""

    RECEIPT = "receipt"
    """A credit: Dr bank / Cr suspense:bank."""
    RECALL = "recall"
    """The bank took back a credit that was matched already: Dr suspense:bank / Cr bank."""
    DEBIT = "debit"
    """A debit that no payment of ours explains: Dr suspense:bank / Cr bank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BankReceipt:
    """One item of ``suspense:bank``: what came to, or left, a bank account without a known reason.

    Attributes:
        account: code of the bank account (`registry.model.BankAccount`).
        value: smallest units, above 0 whatever the direction; *kind* says which it is.
        entry_id, line: the entry of the statement, and the payment inside it, from 0.
        return_reason: why it came back to us, where it is a payment that came back and is none of those
            that left from here: a person has to look.
        party: whose it is, once somebody has said so.
        matched_to: what it pays, opaque.
        recalls: of a recall: the receipt that it takes back, if that is known.
        version: counts its events.
    """

    id: UUID
    book: int
    account: str
    asset: str
    value: int
    kind: BankReceiptKind
    entry_id: UUID
    line: int
    end_to_end: str
    name: str
    iban: str
    remittance: str
    return_reason: str
    booking_date: date
    value_date: date
    state: BankReceiptState
    first_seen_at: datetime
    party: str | None = None
    matched_to: str = ""
    recalls: UUID | None = None
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedEntry:
    """One payment of a booked entry, as it is offered to whoever made our payments.

    Attributes:
        id: of the line, for ever the same (`custody.banks.booking.line_id`).
        amount: signed: what the account gained.
        charge: what the bank says that it has kept inside *amount*; 0 where it says nothing.
    """

    id: UUID
    entry_id: UUID
    line: int
    book: int
    account: str
    asset: str
    amount: int
    end_to_end: str
    bank_ref: str
    booking_date: date
    value_date: date
    return_reason: str = ""
    reversal: bool = False
    charge: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BankFile:
    """A file as it came; *sha256* of its bytes in hexadecimal."""

    id: UUID
    name: str
    sha256: str
    size: int
    format: str
    state: BankFileState
    reason: str
    received_by: str
    received_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStatement:
    """A statement that was taken in.

    Attributes:
        account: code of the bank account.
        name: the bank's id for it.
        entries: how many were booked; pending ones are not kept.
    """

    id: UUID
    file_id: UUID
    book: int
    account: str
    kind: str
    name: str
    sequence: int | None
    asset: str
    opening: int | None
    closing: int | None
    from_date: date
    to_date: date
    entries: int
    imported_at: datetime
