"""Values of client statements; amounts are ints in the asset's smallest unit, on the client's side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from kernel.money import Asset


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Days in UTC, both ends included; a posting belongs to the day on which it was recorded."""

    first: date
    last: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """One posting of an account.

    Attributes:
        sequence: of its record in the journal.
        recorded_at: when it was booked.
        trade_date: when the deal behind it was agreed; else the day on which it was booked.
        value_date: when the deal behind it settles; else the day on which it counts.
        what: the posting's code: ``deposit.credited``.
        reference: the client's own reference of the deal, else the posting's.
        change, balance: what the house owes the client more (below zero: the client owes the house).
    """

    sequence: int
    recorded_at: datetime
    trade_date: date
    value_date: date
    what: str
    reference: str
    change: int
    balance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPart:
    """One account in one asset: opening, every posting, closing."""

    path: str
    asset: Asset
    opening: int
    closing: int
    postings: tuple[Posting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStatement:
    """What a client is told; everything in it is true at *sequence* of the journal.

    Attributes:
        entity: the legal entity that states it.
        accounts: by path and asset; those without a posting and a balance are left out.
    """

    book: int
    entity: str
    party: str
    period: Period
    sequence: int
    accounts: tuple[AccountPart, ...]

    @property
    def line_count(self) -> int:
        """Return how many postings there are."""
        return sum(len(account.postings) for account in self.accounts)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedStatement:
    """A statement on record, without its documents.

    Attributes:
        lines: postings in it.
        pdf_sha256: None: it has not been drawn yet.
    """

    id: UUID
    book: int
    party: str
    period: Period
    sequence: int
    lines: int
    csv_sha256: str
    pdf_sha256: str | None
    issued_by: str
    issued_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementFile(IssuedStatement):
    """A statement on record with its CSV."""

    csv: bytes
