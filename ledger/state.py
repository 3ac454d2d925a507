"""What a decision is made from and what it comes to; rows of the ledger without their book."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from ledger.model import HoldState, Kind, PostResult, Transfer
from ledger.outcome import Outcome


class Standing:
    """An account and its balance while a batch is decided, changed in place.

    Attributes:
        version: how many entries the account has.
        sequence: of its last entry.
        debits_capped: debits must not exceed credits and the limit.
        credits_capped: credits must not exceed debits and the limit.
    """

    __slots__ = (
        "_opened_at",
        "asset",
        "closed",
        "credit_limit",
        "credits_capped",
        "credits_pending",
        "credits_posted",
        "debits_capped",
        "debits_pending",
        "debits_posted",
        "frozen",
        "number",
        "path",
        "sequence",
        "version",
    )

    def __init__(
        self,
        number: int,
        path: str,
        asset: str,
        opened_at: str,
        *,
        debits_capped: bool = False,
        credits_capped: bool = False,
    ) -> None:
        self.number = number
        self.path = path
        self.asset = asset
        # Asked for by imports only, so left as PostgreSQL prints it.
        self._opened_at = opened_at
        self.debits_capped = debits_capped
        self.credits_capped = credits_capped
        self.credit_limit = 0
        self.frozen = False
        self.closed = False
        self.version = 0
        self.sequence = 0
        self.debits_pending = 0
        self.debits_posted = 0
        self.credits_pending = 0
        self.credits_posted = 0

    @property
    def opened_at(self) -> datetime:
        """Return since when the account exists for the accounts."""
        return datetime.fromisoformat(self._opened_at)

    def mark(self) -> Mark:
        """Return what `restore` needs to take back what happens from now on."""
        return Mark(
            self.debits_pending,
            self.debits_posted,
            self.credits_pending,
            self.credits_posted,
            self.version,
            self.sequence,
            self.closed,
        )

    def restore(self, mark: Mark) -> None:
        """Take back everything since *mark*."""
        (
            self.debits_pending,
            self.debits_posted,
            self.credits_pending,
            self.credits_posted,
            self.version,
            self.sequence,
            self.closed,
        ) = mark


class Mark(NamedTuple):
    """The part of a standing that transfers change."""

    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int
    version: int
    sequence: int
    closed: bool


class HoldRow(NamedTuple):
    """A hold as stored."""

    id: UUID
    sequence: int
    debit: int
    credit: int
    amount: int
    state: HoldState
    purpose: str
    correlation: UUID | None
    expires_at: datetime | None
    resolved_sequence: int | None = None
    flags: int = 0


class TransferRow(NamedTuple):
    """A transfer as stored; *held* is the amount of the hold it made or resolved."""

    sequence: int
    id: UUID
    kind: Kind
    flags: int
    debit: int
    credit: int
    amount: int
    code: str
    pending_id: UUID | None
    reverses: UUID | None
    purpose: str
    timeout_us: int | None
    effective_at: datetime | None
    reference: str
    correlation: UUID | None
    metadata_hash: str
    recorded_at: datetime
    held: int | None = None


class EffectiveRow(NamedTuple):
    """A posted movement whose effective day is not the day on which it was recorded."""

    account: int
    effective_on: date
    sequence: int
    debits: int
    credits: int


class RefusalRow(NamedTuple):
    """An id that a transient refusal has spent."""

    sequence: int
    id: UUID
    outcome: Outcome
    recorded_at: datetime


class Request(NamedTuple):
    """A transfer, checked for form, with what of its record follows from it alone.

    Attributes:
        is_simple: it moves an amount at once and asks for nothing else.
        id_text: the id as the record has it.
        debit_key, credit_key: (path, asset) of the accounts.
        flags: of the transfer, computed once.
        fault: what is wrong with it whatever the book holds; None where it is well formed.
        metadata: canonical text.
        metadata_hash: of that text.
        tail: the record's fields from the code to the purpose and the timeout.
        user_data: the record's fields behind the effective time.
    """

    transfer: Transfer
    is_simple: bool
    id_text: str
    debit_key: tuple[str, str]
    credit_key: tuple[str, str]
    flags: int
    fault: Outcome | None
    metadata: str
    metadata_hash: str
    tail: str
    user_data: str


@dataclass(slots=True)
class Snapshot:
    """The part of a book that a batch touches, read under the head's lock.

    A decision changes the standings in place: a snapshot is used once, unless what was decided on
    it has been committed.

    Attributes:
        sequence: of the last record.
        block_time: of the last block.
        accounts: by number: every account that the batch, a hold or a reversal names.
        by_key: the same by path and asset.
        transfers: by id: those of the batch's ids, pending ids and reversed ids that exist.
        holds: by id: those that the batch resolves or replays, and those due.
        reversed_ids: transfers among *transfers* that have been reversed.
        due: ids of due holds, in (deadline, sequence) order.
        closed_through: the last effective day that is closed.
        imported_through: effective time of the last imported transfer.
    """

    book: int
    sequence: int
    block_time: datetime
    accounts: dict[int, Standing] = field(default_factory=dict)
    by_key: dict[tuple[str, str], Standing] = field(default_factory=dict)
    transfers: dict[UUID, TransferRow] = field(default_factory=dict)
    refusals: dict[UUID, RefusalRow] = field(default_factory=dict)
    holds: dict[UUID, HoldRow] = field(default_factory=dict)
    reversed_ids: set[UUID] = field(default_factory=set)
    due: tuple[UUID, ...] = ()
    closed_through: date | None = None
    imported_through: datetime | None = None

    def add(self, accounts: Iterable[Standing]) -> None:
        """Let the snapshot know *accounts*."""
        for account in accounts:
            self.accounts[account.number] = account
            self.by_key[account.path, account.asset] = account


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a batch comes to: answers in the batch's order, records in the journal's order.

    Attributes:
        lines: records, each without its last field, the time (`ledger.records`).
        entries: rows of ``ledger.entry``, fields separated by tabs.
        balances: of every account with new entries, after the batch, as the arrays of the part of
            a block's statement that is named (`ledger.statements.PARTS`).
    """

    results: list[PostResult]
    sequence: int
    lines: list[str]
    entries: list[str]
    balances: dict[str, Sequence[str]]
    new_holds: list[HoldRow]
    resolved_holds: list[HoldRow]
    metadata: list[tuple[int, str]]
    effective: list[EffectiveRow]
    imported_through: datetime | None
