"""What the reads answer with, beyond the nouns of `ledger.model`.

Amounts are ints in the asset's smallest unit. A page names the cursors that lead on: what to pass
as *after* for the next one, None at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from ledger.model import (
    Account,
    Balance,
    HoldState,
    JournalTransfer,
    Kind,
    OpenHold,
    Side,
    StatementLine,
    TrialBalanceRow,
)

PAGE_MAX: Final = 1_000
"""Items in one page, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPage:
    """Accounts by path and asset, all true at *sequence*; *after*: the cursor of the next page."""

    items: tuple[Account, ...]
    sequence: int
    after: tuple[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPage:
    """Holds open at *sequence*, oldest first; *after*: the cursor of the next page."""

    items: tuple[OpenHold, ...]
    sequence: int
    after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A balance and the holds behind its pending columns, of one instant.

    Attributes:
        holds: oldest first; their amounts sum to the pending columns unless *after* is set.
        after: cursor for `ledger.holds.page_open_holds`, where there are more of them.
    """

    balance: Balance
    holds: tuple[OpenHold, ...]
    after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialBalancePage:
    """Rows by path and asset, all true at *sequence*; *after*: the cursor of the next page."""

    items: tuple[TrialBalanceRow, ...]
    sequence: int
    after: tuple[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetTotals:
    """What the accounts of one asset sum to."""

    asset: str
    accounts: int
    debits: int
    credits: int
    debits_pending: int
    credits_pending: int

    @property
    def is_zero(self) -> bool:
        """Tell whether debits equal credits, posted and pending."""
        return self.debits == self.credits and self.debits_pending == self.credits_pending


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeNode:
    """A path with everything at or below it, in one asset.

    Attributes:
        depth: segments of the path: 1 for ``client``.
        accounts: how many accounts are summed.
        side: the side on which all of them stand, None where they differ.
    """

    path: str
    asset: str
    depth: int
    accounts: int
    side: Side | None
    debits: int
    credits: int
    debits_pending: int
    credits_pending: int

    @property
    def balance(self) -> int:
        """Return the posted balance on the accounts' side; debits less credits where they differ."""
        net = self.debits - self.credits
        return -net if self.side is Side.CREDIT else net


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementPage:
    """A part of a statement; *opening* and *closing* are those of the whole time.

    Attributes:
        sequence: the last record that the statement knows.
        after: cursor of the next page, None at the end.
    """

    path: str
    asset: str
    opening: int
    closing: int
    lines: tuple[StatementLine, ...]
    sequence: int
    after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveLine:
    """A line of a statement by effective date; *balance*: after the line, in that order."""

    effective_on: date
    line: StatementLine


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveCursor:
    """Where a statement by effective date goes on: behind which line, and from which balance."""

    effective_on: date
    sequence: int
    balance: int
    known: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveStatementPage:
    """A part of a statement by effective date, as the book knew it at *sequence*."""

    path: str
    asset: str
    opening: int
    closing: int
    lines: tuple[EffectiveLine, ...]
    sequence: int
    after: EffectiveCursor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferFilter:
    """What transfers are asked for; every field that is set must hold.

    Attributes:
        path: debited or credited, exactly this account.
        asset: of the transfer.
        metadata: contained in the transfer's (`jsonb` containment).
        recorded_from, effective_from: inclusive.
        recorded_to, effective_to: exclusive. What has no effective time of its own is effective
            when it was recorded.
    """

    path: str | None = None
    asset: str | None = None
    code: str | None = None
    kind: Kind | None = None
    correlation: UUID | None = None
    reference: str | None = None
    metadata: Mapping[str, Any] | None = None
    recorded_from: datetime | None = None
    recorded_to: datetime | None = None
    effective_from: datetime | None = None
    effective_to: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPage:
    """Transfers in the journal's order.

    A page may be short, even empty, and still lead on: one call reads a bounded number of records.

    Attributes:
        after: cursor of the page behind this one, None at the end of the journal.
        before: cursor of the page ahead of this one, None at its beginning.
    """

    items: tuple[JournalTransfer, ...]
    after: int | None
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRef:
    """Another transfer that belongs to the one asked for."""

    id: UUID
    sequence: int
    kind: Kind
    code: str
    amount: int
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldFacts:
    """What became of a hold."""

    id: UUID
    state: HoldState
    amount: int
    purpose: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferDetail:
    """A transfer and what belongs to it.

    Attributes:
        height: of the block that recorded it.
        debit_balance, credit_balance: after it.
        hold: the hold that it made, or resolved.
        pending: the transfer that made that hold, of a POST, VOID or EXPIRE.
        resolved_by: what resolved the hold, of a PENDING.
        original: what it reverses.
        reversed_by: what reversed it.
    """

    transfer: JournalTransfer
    flags: int
    metadata_hash: str
    height: int
    debit_balance: Balance
    credit_balance: Balance
    hold: HoldFacts | None
    pending: TransferRef | None
    resolved_by: TransferRef | None
    original: TransferRef | None
    reversed_by: TransferRef | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal that spent an id."""

    id: UUID
    sequence: int
    outcome: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodEvent:
    """A closing of the books up to a day, or its reopening."""

    sequence: int
    kind: str
    through: date
    reason: str
    proposed_by: str
    approved_by: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodPage:
    """Closings and reopenings, oldest first; *after*: the cursor of the next page, or None."""

    items: tuple[PeriodEvent, ...]
    after: int | None
