"""What a decision reads and what it returns: values between `store` and `decide`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from ledger.model import HoldState, Kind, PostResult, Transfer
from ledger.outcome import Outcome


class Columns(NamedTuple):
    """The four columns of a balance, the account's entry count, and whether it is closed."""

    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int
    version: int
    closed: bool

    def debited(self, amount: int) -> Columns:
        """Return the columns after one more entry, a posted debit."""
        dp, d, cp, c, version, closed = self
        return Columns(dp, d + amount, cp, c, version + 1, closed)

    def credited(self, amount: int) -> Columns:
        """Return the columns after one more entry, a posted credit."""
        dp, d, cp, c, version, closed = self
        return Columns(dp, d, cp, c + amount, version + 1, closed)

    def moved(
        self,
        *,
        closed: bool,
        pending_debits: int = 0,
        debits: int = 0,
        pending_credits: int = 0,
        credits_: int = 0,
    ) -> Columns:
        """Return the columns after one more entry."""
        dp, d, cp, c, version, _ = self
        return Columns(
            dp + pending_debits,
            d + debits,
            cp + pending_credits,
            c + credits_,
            version + 1,
            closed,
        )


class AccountState(NamedTuple):
    """An account and its balance as read under the head's lock."""

    number: int
    path: str
    asset: str
    debits_capped: bool
    """Debits must not exceed credits."""
    credits_capped: bool
    """Credits must not exceed debits."""
    frozen: bool
    columns: Columns


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


class EntryRow(NamedTuple):
    """One side of a transfer: the account's columns after it."""

    account: int
    sequence: int
    version: int
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int


class RefusalRow(NamedTuple):
    """An id that a transient refusal has spent."""

    sequence: int
    id: UUID
    outcome: Outcome
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The part of a book that a batch touches, read under the head's lock.

    Attributes:
        sequence: of the last record.
        accounts: by number: every account that the batch, a hold or a reversal names.
        transfers: by id: those of the batch's ids, pending ids and reversed ids that exist.
        holds: by id: those that the batch resolves or replays, and those due.
        reversed_ids: transfers among *transfers* that have been reversed.
        due: ids of due holds, in (deadline, sequence) order.
    """

    sequence: int
    accounts: Mapping[int, AccountState] = field(default_factory=dict)
    transfers: Mapping[UUID, TransferRow] = field(default_factory=dict)
    refusals: Mapping[UUID, RefusalRow] = field(default_factory=dict)
    holds: Mapping[UUID, HoldRow] = field(default_factory=dict)
    reversed_ids: frozenset[UUID] = frozenset()
    due: tuple[UUID, ...] = ()


class Request(NamedTuple):
    """A transfer with the canonical text of its metadata and that text's hash."""

    transfer: Transfer
    metadata: str
    metadata_hash: str


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a batch comes to: answers in the batch's order, records in the journal's order."""

    results: list[PostResult]
    sequence: int
    records: list[TransferRow | RefusalRow]
    entries: list[EntryRow]
    balances: Mapping[int, Columns]
    new_holds: list[HoldRow]
    resolved_holds: list[HoldRow]
    metadata: list[tuple[int, str]]
