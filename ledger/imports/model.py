"""Nouns of an import: the rows of its files, what is wrong in them, and the machine of an import."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.states import StateTable
from ledger.model import AccountSpec, Transfer

FAULTS_MAX: Final = 100
"""Faults that are told at once, at most."""

ROWS_MAX: Final = 1_000_000
"""Rows of one file, at most."""

FILE_BYTES_MAX: Final = 256 * 1024 * 1024


class FileKind(StrEnum):
    """The files of an import; each is called by its kind and ``.csv``."""

    ACCOUNTS = "accounts"
    BALANCES = "balances"
    TRANSFERS = "transfers"
    HOLDS = "holds"
    OBLIGATIONS = "obligations"
    TOTALS = "totals"


COUNTED: Final = (FileKind.BALANCES, FileKind.TRANSFERS, FileKind.HOLDS, FileKind.OBLIGATIONS)
"""Files with amounts, for which totals are declared."""


class Direction(StrEnum):
    """Who owes whom: we have to pay, or to receive."""

    PAY = "pay"
    RECEIVE = "receive"


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """Something wrong in a file; line 1 is the header, *column* is empty where it is the line."""

    file: str
    line: int
    column: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        """Return it as one line: ``balances.csv:12 amount: '1,5' is not an amount. Write …``."""
        where = f"{self.file}:{self.line}" + (f" {self.column}" if self.column else "")
        return f"{where}: {self.what}" + (f". {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """An account to open; *effective_at* None: since the first event of the import."""

    line: int
    spec: AccountSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceRow:
    """What stands on an account at the beginning, on its normal side; below zero on the other."""

    line: int
    path: str
    asset: str
    amount: int
    effective_at: datetime
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MovementRow:
    """A transfer of the past, or with a *purpose* a hold that is still open."""

    line: int
    effective_at: datetime
    debit: str
    credit: str
    asset: str
    amount: int
    code: str
    purpose: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObligationRow:
    """Something that is owed and not settled yet; *key* is its identity: file hash and line."""

    line: int
    key: str
    reference: str
    party: str
    direction: Direction
    asset: str
    amount: int
    value_date: date


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalRow:
    """A control total: so many rows of this asset in that file, so many smallest units in all."""

    line: int
    file: FileKind
    asset: str
    rows: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFiles:
    """The files of an import as read; *hashes* is SHA-256 by kind, for those that there are."""

    hashes: Mapping[FileKind, str]
    accounts: tuple[AccountRow, ...] = ()
    balances: tuple[BalanceRow, ...] = ()
    transfers: tuple[MovementRow, ...] = ()
    holds: tuple[MovementRow, ...] = ()
    obligations: tuple[ObligationRow, ...] = ()
    totals: tuple[TotalRow, ...] = ()

    @property
    def digest(self) -> str:
        """Return the SHA-256 over names and hashes of all files: what an approver signs."""
        lines = "".join(f"{kind}.csv {self.hashes[kind]}\n" for kind in sorted(self.hashes))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Planned:
    """A transfer and the line that it comes from."""

    transfer: Transfer
    file: FileKind
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an import will do, in order.

    Attributes:
        transfers: in the order of effective time; of one time, balances, then history, then holds.
        totals: (rows, sum of the amounts as written) by file and asset: the declared totals.
        posted: the same of what is moved, where every amount is above zero.
    """

    digest: str
    hashes: Mapping[FileKind, str]
    accounts: tuple[AccountSpec, ...]
    transfers: tuple[Planned, ...]
    obligations: tuple[ObligationRow, ...]
    totals: Mapping[tuple[FileKind, str], tuple[int, int]]
    posted: Mapping[tuple[FileKind, str], tuple[int, int]]

    @property
    def rows(self) -> int:
        """Return how many lines it has."""
        return len(self.accounts) + len(self.transfers) + len(self.obligations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An account that is open already: its properties, its columns, and since when it exists."""

    spec: AccountSpec
    opened_at: datetime
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a book and the registry know when an import is checked.

    Attributes:
        known: the open accounts that the import touches.
        done: ids of its transfers that are in the journal already.
        begun: whether an import of these very files has begun.
        imported_through: effective time of the book's last imported event.
    """

    now: datetime
    known: Mapping[tuple[str, str], Known] = field(default_factory=dict)
    done: frozenset[UUID] = frozenset()
    begun: bool = False
    parties: frozenset[str] = frozenset()
    imported_through: datetime | None = None
    closed_through: date | None = None


class ImportState(StrEnum):
    """Where an import is."""

    BEGUN = "begun"
    COMPLETED = "completed"


IMPORT_STATES: Final = StateTable(
    schema="books",
    table="import_set",
    initial=frozenset({ImportState.BEGUN}),
    edges=frozenset({(ImportState.BEGUN, ImportState.COMPLETED)}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRun:
    """An import as it stands; *name* is unique in its book and bound to the files' digest."""

    id: UUID
    book: int
    name: str
    digest: str
    state: ImportState
    reason: str
    imported_by: str
    approved_by: str
    begun_at: datetime
    completed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import has done: how many lines were new, and how many the book had already."""

    run: ImportRun
    accounts_created: int = 0
    accounts_existing: int = 0
    transfers_created: int = 0
    transfers_existing: int = 0
    obligations: int = 0
