"""The nouns of the simulated bank. Amounts are ints in the currency's smallest coin."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final

COINS: Final = 100
"""Smallest coins of one unit: the bank keeps currencies with two places only."""


class SimulatorError(Exception):
    """The simulator cannot start, or cannot use what it was told."""


class FaultKind(StrEnum):
    """What goes wrong: with money, with what is sent, with requests."""

    SHORT = "short"
    """The next credit arrives without a fee that a bank on the way has kept."""
    LATE = "late"
    """The next credit is booked days later."""
    WRONG_REFERENCE = "wrong_reference"
    DUPLICATE = "duplicate"
    """The next credit is booked twice, under two references of the bank."""
    RETURNED = "returned"
    """The next payment out is booked, and comes back the day after."""
    REFUSED = "refused"
    """The next payment out is refused by its line."""
    REVERSED_CREDIT = "reversed_credit"
    """The next credit is booked, and reversed the day after."""
    GAP = "gap"
    """The next statement is not sent."""
    DUPLICATE_STATEMENT = "duplicate_statement"
    """The next statement is sent twice, under two names."""
    TRUNCATED_STATEMENT = "truncated_statement"
    BAD_XML = "bad_xml"
    """The next statement has an entity in it that wants a file of ours."""

    HANG_BEFORE_ACCEPT = "hang_before_accept"
    HANG_AFTER_ACCEPT = "hang_after_accept"
    STATUS_503 = "status_503"
    STATUS_503_AFTER_ACCEPT = "status_503_after_accept"

    @property
    def is_for_requests(self) -> bool:
        """Tell whether it happens to a request, and not to what the bank does."""
        return self.startswith(("hang", "status"))

    @property
    def is_for_credits(self) -> bool:
        """Tell whether it happens to what comes in."""
        return self in {self.SHORT, self.LATE, self.WRONG_REFERENCE, self.DUPLICATE} or (
            self is self.REVERSED_CREDIT
        )

    @property
    def is_for_statements(self) -> bool:
        """Tell whether it happens to a statement."""
        return self in {self.GAP, self.DUPLICATE_STATEMENT, self.TRUNCATED_STATEMENT, self.BAD_XML}


@dataclass(slots=True)
class Fault:
    """A fault that waits: the first *skip* that it fits pass unharmed, then *count* do not.

    Attributes:
        units: of a short credit: what is kept.
        days: of a late one: how many.
        seconds: how long a request hangs.
    """

    kind: FaultKind
    count: int = 1
    skip: int = 0
    units: int = 2_500
    days: int = 2
    seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One booking of an account; *family* and *sub_family* of ISO 20022's transaction codes."""

    bank_ref: str
    amount: int
    booking_date: date
    value_date: date
    end_to_end: str = ""
    name: str = ""
    iban: str = ""
    remittance: str = ""
    return_reason: str = ""
    reversal: bool = False
    domain: tuple[str, str, str] = ("PMNT", "RCDT", "ESCT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment out, as pain.001 has it."""

    message: str
    end_to_end: str
    account: str
    amount: int
    currency: str
    day: date
    name: str
    iban: str
    remittance: str = ""
    reason: str = ""
    """Code with which it is refused; "" while it is not."""


@dataclass(slots=True)
class Account:
    """An account of the bank.

    Attributes:
        balance: booked, this moment.
        opening: at the beginning of the day.
        today: what was booked since then.
        later: (day, movement) of what will be booked.
    """

    iban: str
    currency: str
    owner: str
    format: str
    balance: int = 0
    opening: int = 0
    sequence: int = 0
    today: list[Movement] = field(default_factory=list)
    later: list[tuple[date, Movement]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayEnd:
    """What a statement says."""

    iban: str
    currency: str
    owner: str
    sequence: int
    day: date
    opening: int
    closing: int
    movements: tuple[Movement, ...]
