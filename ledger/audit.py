"""The pure half of verification: replay the journal record by record and say what does not fit.

The auditor believes the transfers and derives everything else again: balances, holds, the tree.
After a fault it goes on from what is stored, so one changed row is reported once or twice, not for
every row that follows it. Its memory grows with the number of accounts, not of transfers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from ledger.model import CLOSING_CREDIT, CLOSING_DEBIT, AccountSpec, HoldState, Kind
from ledger.state import Columns, TransferRow

FAULTS_MAX: Final = 1_000
"""Faults reported, at most: a journal with more has one cause, not a thousand."""

RESOLVED_AS: Final = {
    Kind.POST: HoldState.POSTED,
    Kind.VOID: HoldState.VOIDED,
    Kind.EXPIRE: HoldState.EXPIRED,
}

ZERO: Final = Columns(0, 0, 0, 0, 0, closed=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong: the table, the row in words (account, transfer, sequence), and why."""

    table: str
    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.table} {self.key}: {self.what}"


@dataclass(slots=True)
class AuditedAccount:
    """An account as replayed so far."""

    number: int
    spec: AccountSpec
    columns: Columns = ZERO
    sequence: int = 0
    frozen: bool = False

    @property
    def name(self) -> str:
        """Return what a fault calls it."""
        return f"{self.spec.path} {self.spec.asset}"


class StoredHold(NamedTuple):
    """A hold as stored beside the transfer that made it."""

    sequence: int
    debit: int
    credit: int
    amount: int
    flags: int
    purpose: str
    correlation: UUID | None
    expires_at: datetime | None
    remaining: int
    state: str
    resolved_sequence: int | None


@dataclass(frozen=True, slots=True)
class TransferEvidence:
    """A transfer and everything that is stored about it elsewhere.

    Attributes:
        held: amount of the pending transfer that this one makes or resolves.
        held_flags: flags of that pending transfer.
        debit_entry, credit_entry: the stored columns after it; None: no such row.
        hold: of a PENDING transfer.
        resolved_by: sequence and kind of the transfer that resolved this PENDING one.
        original: of a REVERSAL: debit, credit and amount of what it reverses.
        metadata_hash: of the stored metadata, "" where there is none.
    """

    row: TransferRow
    held: int | None
    held_flags: int
    debit_entry: Columns | None
    credit_entry: Columns | None
    hold: StoredHold | None
    resolved_by: tuple[int, Kind] | None
    original: tuple[int, int, int] | None
    metadata_hash: str
    refused_too: bool


@dataclass(slots=True)
class Auditor:
    """What the journal comes to, up to the last record it was shown."""

    accounts: dict[int, AuditedAccount] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def report(self, table: str, key: object, what: str) -> None:
        """Add a fault, up to the limit."""
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(Fault(table, str(key), what))

    def name(self, number: int) -> str:
        """Return the path and asset of an account."""
        account = self.accounts.get(number)
        return account.name if account else f"account {number}"

    def opened(self, number: int, spec: AccountSpec, sequence: int) -> None:
        """An account was opened."""
        if number in self.accounts:
            self.report("account_event", f"sequence {sequence}", f"{number} was opened before")
        if number != len(self.accounts) + 1:
            self.report("account_event", f"sequence {sequence}", f"{number} is out of turn")
        self.accounts[number] = AuditedAccount(number, spec, sequence=sequence)

    def frozen(self, number: int, sequence: int, *, frozen: bool) -> None:
        """An account was frozen, or that was ended."""
        account = self.accounts.get(number)
        if account is None:
            self.report("account_event", f"sequence {sequence}", f"there is no account {number}")
        else:
            account.frozen = frozen

    def transfer(self, seen: TransferEvidence) -> None:
        """A transfer was recorded: derive both entries again and compare."""
        row = seen.row
        key = f"{row.id} (sequence {row.sequence})"
        self._check_links(seen, key)
        debit, credit = effects(seen)
        for number, change, stored in (
            (row.debit, debit, seen.debit_entry),
            (row.credit, credit, seen.credit_entry),
        ):
            account = self.accounts.get(number)
            if account is None:
                self.report("transfer", key, f"there is no account {number}")
                continue
            self._entry(account, row, change, stored)
        if seen.metadata_hash != row.metadata_hash:
            self.report("transfer_metadata", key, "is not what the transfer's hash says")
        if seen.refused_too:
            self.report("refusal", key, "the id was spent by a transfer too")
        self._follow_closing(seen)

    def _entry(
        self, account: AuditedAccount, row: TransferRow, change: Columns, stored: Columns | None
    ) -> None:
        before = account.columns
        derived = Columns(
            before.debits_pending + change.debits_pending,
            before.debits_posted + change.debits_posted,
            before.credits_pending + change.credits_pending,
            before.credits_posted + change.credits_posted,
            before.version + 1,
            before.closed,
        )
        key = f"{account.name}, transfer {row.id} (sequence {row.sequence})"
        account.sequence = row.sequence
        account.columns = derived
        if stored is None:
            self.report("entry", key, "is missing")
            return
        if stored[:5] != derived[:5]:
            self.report(
                "entry", key, f"says {_show(stored)}, the transfer makes it {_show(derived)}"
            )
            account.columns = stored._replace(closed=before.closed)
        if min(stored[:4]) < 0:
            self.report("entry", key, "has a negative column")
        spec, (dp, d, cp, c) = account.spec, stored[:4]
        if (spec.debits_must_not_exceed_credits and dp + d > c) or (
            spec.credits_must_not_exceed_debits and cp + c > d
        ):
            self.report("entry", key, "is overdrawn")

    def _check_links(self, seen: TransferEvidence, key: str) -> None:
        row = seen.row
        if row.kind is Kind.PENDING:
            self._check_hold(seen, key)
        if row.kind in RESOLVED_AS and seen.held is None:
            self.report("transfer", key, f"resolves {row.pending_id}, which is not there")
        if row.kind is Kind.POST and seen.held is not None and row.amount > seen.held:
            self.report("transfer", key, "posts more than was held")
        if row.kind in {Kind.VOID, Kind.EXPIRE} and row.amount != seen.held:
            self.report("transfer", key, f"releases {row.amount}, held were {seen.held}")
        if row.kind is Kind.REVERSAL and seen.original != (row.credit, row.debit, row.amount):
            self.report("transfer", key, f"is not the reverse of {row.reverses}")

    def _check_hold(self, seen: TransferEvidence, key: str) -> None:
        hold = seen.hold
        if hold is None:
            self.report("hold", key, "is missing")
            return
        if hold[:8] != hold_of(seen.row):
            self.report("hold", key, "is not what the transfer says")
        if seen.resolved_by is None:
            expected: tuple[str, int | None, int] = (HoldState.OPEN, None, seen.row.amount)
        else:
            sequence, kind = seen.resolved_by
            expected = (RESOLVED_AS[kind], sequence, 0)
        found = (hold.state, hold.resolved_sequence, hold.remaining)
        if found != expected:
            self.report("hold", key, f"is {_hold(found)}, the journal makes it {_hold(expected)}")

    def _follow_closing(self, seen: TransferEvidence) -> None:
        """Follow which accounts are closed."""
        if seen.row.kind is Kind.POST:
            return
        opens = seen.row.kind in {Kind.VOID, Kind.EXPIRE}
        for number, bit in ((seen.row.debit, CLOSING_DEBIT), (seen.row.credit, CLOSING_CREDIT)):
            account = self.accounts.get(number)
            if account is not None and seen.held_flags & bit:
                account.columns = account.columns._replace(closed=not opens)

    def check_sums(self) -> None:
        """Debits equal credits, posted and pending, for each asset."""
        sums: dict[str, list[int]] = {}
        for account in self.accounts.values():
            dp, d, cp, c = account.columns[:4]
            total = sums.setdefault(account.spec.asset, [0, 0])
            total[0] += d - c
            total[1] += dp - cp
        for asset, (posted, pending) in sorted(sums.items()):
            if posted or pending:
                self.report(
                    "balance", asset, f"sums to {posted} posted and {pending} pending, not 0"
                )


def effects(seen: TransferEvidence) -> tuple[Columns, Columns]:
    """Return what a transfer adds to the debited and to the credited account."""
    pending, posted = _movement(seen)
    return (
        Columns(pending, posted, 0, 0, 1, closed=False),
        Columns(0, 0, pending, posted, 1, closed=False),
    )


def _movement(seen: TransferEvidence) -> tuple[int, int]:
    """Return what a transfer adds to the pending and the posted column of either side."""
    row, held = seen.row, seen.held or 0
    match row.kind:
        case Kind.SINGLE | Kind.REVERSAL:
            return 0, row.amount
        case Kind.PENDING:
            return row.amount, 0
        case Kind.POST:
            return -held, row.amount
        case Kind.VOID | Kind.EXPIRE:
            return -held, 0


def hold_of(row: TransferRow) -> tuple[object, ...]:
    """Return the first eight columns of the hold that a PENDING transfer makes."""
    expires_at = (
        None if row.timeout_us is None else row.recorded_at + timedelta(microseconds=row.timeout_us)
    )
    return (
        row.sequence,
        row.debit,
        row.credit,
        row.amount,
        row.flags,
        row.purpose,
        row.correlation,
        expires_at,
    )


def _show(columns: Columns) -> str:
    dp, d, cp, c, version = columns[:5]
    return f"debits {d} (+{dp} pending), credits {c} (+{cp} pending), version {version}"


def _hold(found: tuple[str, int | None, int]) -> str:
    state, sequence, remaining = found
    return f"{state} with {remaining}" + (f" by sequence {sequence}" if sequence else "")
