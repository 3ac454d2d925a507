"""What a bank's statement says, whatever format it came in: values, no I/O.

Amounts are ints in the currency's smallest unit; what an account gains is positive, what it loses is
negative, also where the bank writes a reversal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

TEXT_LENGTH_MAX: Final = 2_000
"""Longer texts of remittance are cut: a bank allows 140 characters for each of its lines."""
SEQUENCE_MAX: Final = 2**31 - 1


class FileFormat(StrEnum):
    """The formats that are read."""

    CAMT_053_02 = "camt.053.001.02"
    CAMT_053_08 = "camt.053.001.08"
    CAMT_054_08 = "camt.054.001.08"
    MT940 = "mt940"


class StatementKind(StrEnum):
    """What a message claims to be."""

    STATEMENT = "statement"
    """Everything that was booked in a period, between two balances."""
    NOTICE = "notice"
    """Some entries as they happen, without balances."""


class EntryStatus(StrEnum):
    """Whether the bank has booked it (ISO 20022, external entry status codes)."""

    BOOKED = "BOOK"
    PENDING = "PDNG"
    INFORMATION = "INFO"
    FUTURE = "FUTR"


class EntryKind(StrEnum):
    """What an entry is for, as far as the bank's transaction code says."""

    PAYMENT = "payment"
    CHARGE = "charge"
    INTEREST = "interest"


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryLine:
    """One payment inside an entry; a bank may book many of them as one amount.

    Attributes:
        amount: signed as the entry's.
        end_to_end: what the payer wrote to be carried through; "" where there is none.
        name, iban: of the other side.
        return_reason: code with which a payment came back (``AC04``); "" if it did not.
        charge: what the bank says that it has kept inside *amount*, smallest units; 0 where it says nothing.
    """

    amount: int
    end_to_end: str = ""
    name: str = ""
    iban: str = ""
    remittance: str = ""
    return_reason: str = ""
    charge: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One booking on an account.

    Attributes:
        key: what tells it from every other entry of the account (`banks.entry_keys`).
        bank_ref: the bank's own reference for it; "" where it gives none.
        ref: the reference that the statement gives the entry.
        reversal: it undoes an entry before it; the sign of *amount* is its own.
        lines: at least one; their amounts add up to *amount*.
    """

    key: str
    amount: int
    asset: str
    booking_date: date
    value_date: date
    status: EntryStatus
    lines: tuple[EntryLine, ...]
    kind: EntryKind = EntryKind.PAYMENT
    reversal: bool = False
    ref: str = ""
    bank_ref: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement or notice of one account.

    Attributes:
        account: IBAN, or the bank's own number, without blanks, in capitals.
        id: the bank's name for it, unique for the account.
        sequence: its number; None where the bank gives none.
        opening, closing: booked balances; None of a notice.
    """

    account: str
    id: str
    kind: StatementKind
    asset: str
    from_date: date
    to_date: date
    entries: tuple[Entry, ...]
    sequence: int | None = None
    opening: int | None = None
    closing: int | None = None

    @property
    def booked(self) -> tuple[Entry, ...]:
        """Return the entries that the bank has booked."""
        return tuple(item for item in self.entries if item.status is EntryStatus.BOOKED)


def sequence_of(text: str) -> int | None:
    """Return the number of a statement; one that is no count (``20261117000000001``) is none.

    Without numbers balances still say whether statements follow one another.
    """
    number = int(text) if text.isdecimal() else None
    return None if number is None or number > SEQUENCE_MAX else number
