"""Nouns of the exports. Amounts are ints in the asset's smallest unit; days are UTC days."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from kernel.errors import Refused
from kernel.money import Asset
from ledger.model import (
    AT_ORIGINAL,
    BALANCING_CREDIT,
    BALANCING_DEBIT,
    CLOSING_CREDIT,
    CLOSING_DEBIT,
    IMPORTED,
    Kind,
    Side,
)

_FLAG_WORDS: Final = (
    (BALANCING_DEBIT, "balancing-debit"),
    (BALANCING_CREDIT, "balancing-credit"),
    (CLOSING_DEBIT, "closing-debit"),
    (CLOSING_CREDIT, "closing-credit"),
    (IMPORTED, "imported"),
    (AT_ORIGINAL, "at-original"),
)


class Format(StrEnum):
    """What a journal can be written as."""

    BEANCOUNT = "beancount"
    HLEDGER = "hledger"
    CSV = "csv"
    PARQUET = "parquet"


class By(StrEnum):
    """Which of its two days a transfer is written under."""

    EFFECTIVE = "effective"
    """The day on which it counts for the accounts."""
    RECORDED = "recorded"
    """The day on which the ledger took it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportAccount:
    """An account of the book; *opened_on* is the day it was recorded."""

    number: int
    path: str
    asset: str
    side: Side
    owner: str
    purpose: str
    opened_on: date


class Totals(NamedTuple):
    """The four columns of an account."""

    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0

    @property
    def net(self) -> int:
        """Return what is posted, debits counted up."""
        return self.debits_posted - self.credits_posted


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is exported: one book up to one sequence number.

    Attributes:
        sequence: the watermark: the last journal record that counts.
        root: of the tree over the records up to it; 32 zero bytes before the first.
        accounts: those opened up to the watermark, by number.
        assets: those of the accounts, by code.
        totals: the trial balance at the watermark, by account number.
        by: the day that transfers are written under.
    """

    book: int
    entity: str
    sequence: int
    root: bytes
    by: By
    accounts: Mapping[int, ExportAccount]
    assets: Mapping[str, Asset]
    totals: Mapping[int, Totals]

    def turnover(self, asset: str) -> int:
        """Return everything that was ever posted in an asset: no balance can be larger."""
        return sum(
            self.totals[number].debits_posted
            for number, account in self.accounts.items()
            if account.asset == asset
        )


class ExportTransfer(NamedTuple):
    """A transfer of the journal, with what its hold reserved where it resolves one (*held*)."""

    sequence: int
    id: UUID
    kind: Kind
    flags: int
    debit: ExportAccount
    credit: ExportAccount
    amount: int
    held: int
    code: str
    pending_id: UUID | None
    reverses: UUID | None
    purpose: str
    timeout_us: int | None
    effective_at: datetime | None
    reference: str
    correlation: UUID | None
    recorded_at: datetime
    metadata: str

    @property
    def asset(self) -> str:
        """Return the code of the asset."""
        return self.debit.asset

    @property
    def posted(self) -> int:
        """Return what it adds to the posted debits of one side and credits of the other."""
        match self.kind:
            case Kind.SINGLE | Kind.POST | Kind.REVERSAL:
                return self.amount
            case Kind.PENDING | Kind.VOID | Kind.EXPIRE:
                return 0

    @property
    def reserved(self) -> int:
        """Return what it adds to the pending columns; negative where it releases a hold."""
        match self.kind:
            case Kind.PENDING:
                return self.amount
            case Kind.POST | Kind.VOID | Kind.EXPIRE:
                return -self.held
            case Kind.SINGLE | Kind.REVERSAL:
                return 0

    @property
    def flag_words(self) -> str:
        """Return the flags as words with spaces between them."""
        return " ".join(word for bit, word in _FLAG_WORDS if self.flags & bit)

    def at(self, by: By) -> datetime:
        """Return the time it is written under."""
        if by is By.EFFECTIVE and self.effective_at is not None:
            return self.effective_at
        return self.recorded_at


class ExportEvent(NamedTuple):
    """What is no transfer: an account frozen, unfrozen or limited; a period closed or reopened.

    *detail* says what the kind alone does not: the new limit, the last day of the period.
    """

    sequence: int
    kind: str
    account: ExportAccount | None
    detail: str
    reason: str
    recorded_at: datetime


class Renderer(Protocol):
    """Text of one format: pure, called in this order, transfers in the order of the journal."""

    def head(self) -> Iterable[str]:
        """Return what stands before the first record."""
        ...

    def transfer(self, item: ExportTransfer) -> str:
        """Return the text of a transfer."""
        ...

    def event(self, item: ExportEvent) -> str:
        """Return the text of an event; empty where the format has no place for it."""
        ...

    def tail(self) -> Iterable[str]:
        """Return what stands after the last record."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What an export wrote; *sha256* is of the file's bytes, in hex."""

    book: int
    entity: str
    format: Format
    by: By
    sequence: int
    root: str
    transfers: int
    accounts: int
    bytes: int
    sha256: str


class ExportRefused(Refused):
    """The journal cannot be written so that the result would be right."""


class Days:
    """The first day of each account and the last day of all, as the records pass by."""

    def __init__(self, by: By) -> None:
        self._by = by
        self._first: dict[int, date] = {}
        self.last: date | None = None

    def note(self, item: ExportTransfer) -> date:
        """Take the day of a transfer into account, and return it."""
        day = item.at(self._by).date()
        for number in (item.debit.number, item.credit.number):
            if day < self._first.setdefault(number, day):
                self._first[number] = day
        if self.last is None or day > self.last:
            self.last = day
        return day

    def first(self, account: ExportAccount) -> date:
        """Return the day from which an account has to exist."""
        return min(account.opened_on, self._first.get(account.number, account.opened_on))

    def after(self) -> date:
        """Return the day after the last one, on which closing balances hold.

        Raises:
            ExportRefused: there is no day after it.
        """
        last = self.last or date.min
        if last == date.max:
            raise ExportRefused(
                "a transfer is effective on the last day there is, 9999-12-31",
                remedy="Export with --by recorded, or reverse it",
            )
        return date.fromordinal(last.toordinal() + 1)


def exact(units: int, scale: int) -> str:
    """Return *units* as a plain decimal with all its *scale* places: ``-0.10``."""
    if not scale:
        return str(units)
    digits = str(abs(units)).rjust(scale + 1, "0")
    return f"{'-' if units < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"


def stamp(at: datetime) -> str:
    """Return a time to the microsecond, in UTC: ``2026-01-05T09:00:00.000000Z``."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
