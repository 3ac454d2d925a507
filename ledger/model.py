"""Nouns of the ledger, and the builders of transfers.

Amounts are ints in the asset's smallest unit. Paths are those of `ledger.chart`. Times have a zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import Enum, IntEnum, StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from ledger.outcome import AccountOutcome, Outcome

ALL: Final = -1
"""Instead of an amount: the whole hold (post), everything reversed (reversal), or, with a balancing
flag, as much as is available."""

BATCH_MAX: Final = 8_192
"""Transfers in one call of `ledger.posting.post`, at most."""


class Side(StrEnum):
    """The side on which an account normally stands."""

    DEBIT = "debit"
    CREDIT = "credit"


class Kind(IntEnum):
    """What a transfer does; the number is what the journal stores."""

    SINGLE = 1
    """Moves the amount at once."""
    PENDING = 2
    """Reserves the amount: a hold."""
    POST = 3
    """Resolves a hold: posts all or a part of it and releases the rest."""
    VOID = 4
    """Resolves a hold: releases all of it."""
    EXPIRE = 5
    """Releases a hold whose time is over; only the ledger itself makes these."""
    REVERSAL = 6
    """Undoes a posted transfer in full, once."""


class HoldState(StrEnum):
    """Where a hold is; everything but OPEN is final."""

    OPEN = "open"
    POSTED = "posted"
    VOIDED = "voided"
    EXPIRED = "expired"


class AccountEventKind(Enum):
    """What can happen to an account apart from transfers."""

    OPENED = "opened"
    FROZEN = "frozen"
    UNFROZEN = "unfrozen"
    LIMITED = "limited"
    """Its credit limit was set."""


class PeriodEventKind(Enum):
    """What can happen to the effective days of a book."""

    CLOSED = "closed"
    REOPENED = "reopened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A request to move or reserve one amount of one asset.

    Attributes:
        id: made by the caller, deterministic (`kernel.ids.derive_id`); decided once for ever.
        debit, credit: paths; empty means inherited (POST, VOID, REVERSAL only).
        asset: asset code; may be empty where the paths may.
        amount: smallest units, or `ALL`. A void takes `ALL`, 0 or exactly what is held.
        code: what kind of posting this is: ``deposit.credited``.
        pending_id: the hold that a POST or VOID resolves.
        purpose: of a PENDING: ``deposit``, ``payout``, ``network-fee``.
        timeout: of a PENDING: counted from the time the ledger records it.
        linked: this transfer and the next stand or fall together.
        reverses: the transfer that a REVERSAL undoes.
        effective_at: the time at which it counts for the accounts; None: when recorded.
        reference: an opaque token of the caller (`ledger.opaque`), no personal data.
        correlation: the domain row behind it.
        metadata: tokens, ints, booleans, None, and lists and maps of them; no personal data.
        balancing_debit, balancing_credit: move at most what the flagged side has available.
        closing_debit, closing_credit: (PENDING only) close the account until this hold is voided.
        imported: history from before the cut-over, in the order of its `effective_at`.
        at_original: (REVERSAL only) effective when the reversed transfer was, not now.
    """

    id: UUID
    debit: str = ""
    credit: str = ""
    asset: str = ""
    amount: int = 0
    code: str = ""
    kind: Kind = Kind.SINGLE
    pending_id: UUID | None = None
    purpose: str = ""
    timeout: timedelta | None = None
    linked: bool = False
    reverses: UUID | None = None
    effective_at: datetime | None = None
    reference: str = ""
    correlation: UUID | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    balancing_debit: bool = False
    balancing_credit: bool = False
    closing_debit: bool = False
    closing_credit: bool = False
    imported: bool = False
    at_original: bool = False

    @property
    def flags(self) -> int:
        """Return the flags as the journal stores them, one bit each."""
        return (
            self.balancing_debit
            | self.balancing_credit << 1
            | self.closing_debit << 2
            | self.closing_credit << 3
            | self.imported << 4
            | self.at_original << 5
        )


BALANCING: Final = 0b0011
BALANCING_DEBIT: Final = 0b0001
BALANCING_CREDIT: Final = 0b0010
CLOSING: Final = 0b1100
CLOSING_DEBIT: Final = 0b0100
CLOSING_CREDIT: Final = 0b1000
IMPORTED: Final = 0b0001_0000
AT_ORIGINAL: Final = 0b0010_0000


class PostResult(NamedTuple):
    """The answer to one transfer.

    Attributes:
        sequence: of the record that decided the id; None where nothing was recorded.
        amount: what actually moved or was reserved, released or reversed; None unless applied.
        replayed: the id had been decided before; time and amount are the first decision's.
        first: with ``id_already_failed``, the outcome that spent the id.
    """

    outcome: Outcome
    transfer_id: UUID
    sequence: int | None = None
    recorded_at: datetime | None = None
    amount: int | None = None
    replayed: bool = False
    first: Outcome | None = None

    @property
    def applied(self) -> bool:
        """Tell whether the transfer is in the journal (made now, or before by the same request)."""
        return self.outcome.applied


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSpec:
    """What an account is: what the chart says, and what its opener adds.

    Attributes:
        credit_limit: smallest units by which the flagged side may exceed the other; 0: not at all.
            It can be set anew later (`ledger.accounts.set_credit_limit`).
        purpose: an opaque token.
        metadata: as a transfer's.
        effective_at: since when it exists for the accounts, if that is before it was recorded:
            imported transfers must not be earlier.
    """

    path: str
    asset: str
    side: Side
    owner: str = "house"
    debits_must_not_exceed_credits: bool = False
    credits_must_not_exceed_debits: bool = False
    credit_limit: int = 0
    purpose: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    effective_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountResult:
    """The answer to one account that was to be opened.

    Attributes:
        number: of the account in its book; None where there is none.
        sequence: of the record that opened it.
    """

    outcome: AccountOutcome
    path: str
    asset: str
    number: int | None = None
    sequence: int | None = None

    @property
    def opened(self) -> bool:
        """Tell whether the account stands as asked for (opened now, or before)."""
        return self.outcome in {AccountOutcome.CREATED, AccountOutcome.EXISTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The four columns of an account, and the sequence number at which they are true."""

    side: Side
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0
    sequence: int = 0

    @property
    def posted(self) -> int:
        """Return the balance on the account's normal side; negative if it stands on the other."""
        net = self.debits_posted - self.credits_posted
        return net if self.side is Side.DEBIT else -net

    @property
    def available(self) -> int:
        """Return what is posted less what is reserved to leave."""
        leaving = self.credits_pending if self.side is Side.DEBIT else self.debits_pending
        return self.posted - leaving

    @property
    def incoming(self) -> int:
        """Return what is reserved to arrive."""
        return self.debits_pending if self.side is Side.DEBIT else self.credits_pending


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account as it stands in a book."""

    number: int
    spec: AccountSpec
    balance: Balance
    frozen: bool
    closed: bool

    @property
    def path(self) -> str:
        """Return the account's path."""
        return self.spec.path

    @property
    def asset(self) -> str:
        """Return the code of the account's asset."""
        return self.spec.asset


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenHold:
    """A hold that is neither posted, voided nor expired."""

    id: UUID
    debit: str
    credit: str
    asset: str
    amount: int
    purpose: str
    correlation: UUID | None
    expires_at: datetime | None
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a book stands. The tree over its records has as many leaves as the last sequence."""

    book: int
    entity: str
    sequence: int
    height: int
    block_time: datetime
    account_count: int
    root: bytes
    closed_through: date | None = None
    imported_through: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalTransfer:
    """A transfer as recorded."""

    sequence: int
    id: UUID
    kind: Kind
    debit: str
    credit: str
    asset: str
    amount: int
    code: str
    pending_id: UUID | None
    reverses: UUID | None
    purpose: str
    reference: str
    correlation: UUID | None
    effective_at: datetime | None
    recorded_at: datetime
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialBalanceRow:
    """One account of a trial balance; debits equal credits over all rows of an asset."""

    path: str
    asset: str
    side: Side
    owner: str
    debits: int
    credits: int
    debits_pending: int
    credits_pending: int

    @property
    def balance(self) -> int:
        """Return the posted balance on the account's normal side."""
        net = self.debits - self.credits
        return net if self.side is Side.DEBIT else -net


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """One transfer as an account sees it: *change* and *balance* on the account's normal side."""

    sequence: int
    recorded_at: datetime
    transfer_id: UUID
    code: str
    kind: Kind
    counterpart: str
    change: int
    balance: int
    held: int
    reference: str
    correlation: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """An account from *start* (inclusive) to *end* (exclusive)."""

    path: str
    asset: str
    start: datetime
    end: datetime
    opening: int
    closing: int
    lines: tuple[StatementLine, ...]


def transfer(
    id: UUID,  # noqa: A002  the domain's word, and the field's
    debit: str,
    credit: str,
    amount: int,
    asset: str,
    *,
    code: str,
    **more: Any,
) -> Transfer:
    """Return a transfer that moves *amount* at once; *more* are fields of `Transfer`."""
    return Transfer(
        id=id, debit=debit, credit=credit, amount=amount, asset=asset, code=code, **more
    )


def hold(
    id: UUID,  # noqa: A002  the domain's word, and the field's
    debit: str,
    credit: str,
    amount: int,
    asset: str,
    *,
    code: str,
    purpose: str,
    **more: Any,
) -> Transfer:
    """Return a transfer that reserves *amount* until it is posted, voided or timed out."""
    return Transfer(
        id=id,
        debit=debit,
        credit=credit,
        amount=amount,
        asset=asset,
        code=code,
        purpose=purpose,
        kind=Kind.PENDING,
        **more,
    )


def post_hold(
    id: UUID,  # noqa: A002  the domain's word, and the field's
    pending_id: UUID,
    amount: int = ALL,
    *,
    code: str,
    **more: Any,
) -> Transfer:
    """Return the transfer that posts a hold, all or *amount* of it; the rest is released."""
    return Transfer(id=id, pending_id=pending_id, amount=amount, code=code, kind=Kind.POST, **more)


def void_hold(
    id: UUID,  # noqa: A002  the domain's word, and the field's
    pending_id: UUID,
    *,
    code: str,
    **more: Any,
) -> Transfer:
    """Return the transfer that releases a hold."""
    return Transfer(id=id, pending_id=pending_id, amount=ALL, code=code, kind=Kind.VOID, **more)


def reversal(
    id: UUID,  # noqa: A002  the domain's word, and the field's
    reverses: UUID,
    *,
    code: str,
    **more: Any,
) -> Transfer:
    """Return the transfer that undoes a posted one in full; possible once."""
    return Transfer(id=id, reverses=reverses, amount=ALL, code=code, kind=Kind.REVERSAL, **more)


def chain(*transfers: Transfer) -> tuple[Transfer, ...]:
    """Link *transfers* so that all are applied or none."""
    if not transfers:
        return ()
    return (
        *(item if item.linked else replace(item, linked=True) for item in transfers[:-1]),
        replace(transfers[-1], linked=False) if transfers[-1].linked else transfers[-1],
    )
