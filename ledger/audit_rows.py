"""What a replay is about: a transfer's line in its fields, an account as it stands."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from ledger.records import pg_time

NULL: Final = rb"\N"
SINGLE: Final = b"1"
PENDING: Final = b"2"
POST: Final = b"3"
VOID: Final = b"4"
EXPIRE: Final = b"5"
REVERSAL: Final = b"6"

RESOLVED_AS: Final = {POST: "posted", VOID: "voided", EXPIRE: "expired"}
MOVES: Final = frozenset({SINGLE, PENDING, REVERSAL})
"""Kinds that frozen and closed accounts refuse."""

DATE_LENGTH: Final = len("2026-01-31")


class AuditedAccount:
    """An account as replayed so far.

    Attributes:
        key: its number as text, as lines name it.
        prefix: the beginning of its entries' lines: book and number.
        refuses: it is frozen or closed.
        effective_at: since when it exists for imported transfers, as text.
    """

    __slots__ = (
        "asset",
        "closed",
        "credit_limit",
        "credits_capped",
        "credits_pending",
        "credits_posted",
        "debits_capped",
        "debits_pending",
        "debits_posted",
        "effective_at",
        "frozen",
        "key",
        "path",
        "prefix",
        "refuses",
        "sequence",
        "version",
    )

    def __init__(
        self, book: str, key: str, path: str, asset: str, flags: str, effective_at: bytes
    ) -> None:
        self.key = key
        self.prefix = f"{book}\t{key}\t"
        self.path = path
        self.asset = asset
        self.debits_capped = "d" in flags
        self.credits_capped = "c" in flags
        self.credit_limit = 0
        self.effective_at = effective_at
        self.frozen = False
        self.closed = False
        self.refuses = False
        self.debits_pending = 0
        self.debits_posted = 0
        self.credits_pending = 0
        self.credits_posted = 0
        self.version = 0
        self.sequence = 0

    @property
    def name(self) -> str:
        """Return what a fault calls it."""
        return f"{self.path} {self.asset}"

    @property
    def overdrawn(self) -> bool:
        """Tell whether it stands where its flags and limit do not let it."""
        debits = self.debits_pending + self.debits_posted
        credits_ = self.credits_pending + self.credits_posted
        return (self.debits_capped and debits > self.credits_posted + self.credit_limit) or (
            self.credits_capped and credits_ > self.debits_posted + self.credit_limit
        )

    def stand(self, *, frozen: bool | None = None, closed: bool | None = None) -> None:
        """Freeze or close the account, or end that."""
        self.frozen = self.frozen if frozen is None else frozen
        self.closed = self.closed if closed is None else closed
        self.refuses = self.frozen or self.closed


class Row(NamedTuple):
    """The fields of a transfer's line behind its type."""

    book: bytes
    sequence: bytes
    id: bytes
    kind: bytes
    flags: bytes
    debit: bytes
    credit: bytes
    amount: bytes
    code: bytes
    pending_id: bytes
    reverses: bytes
    purpose: bytes
    timeout_us: bytes
    effective_at: bytes
    reference: bytes
    correlation: bytes
    metadata_hash: bytes
    recorded_at: bytes

    @property
    def key(self) -> str:
        """Return what a fault calls it."""
        return f"{self.id.decode()} (sequence {self.sequence.decode()})"

    @property
    def bits(self) -> int:
        """Return the flags."""
        return int(self.flags)


class Links(Protocol):
    """How a replay finds what a transfer refers to: in tables, or in what it has seen."""

    @property
    def watched(self) -> Collection[bytes]:
        """Return ids of plain transfers that `made` is to be told of."""

    def hold(self, row: Row) -> Row | None:
        """Return the pending transfer that a POST, VOID or EXPIRE resolves, if it is not resolved."""

    def original(self, row: Row) -> Row | None:
        """Return the transfer that a REVERSAL undoes, if it is not undone."""

    def made(self, row: Row) -> None:
        """A transfer was replayed that is not plain, or is watched."""


def deadline(hold: Row) -> bytes:
    """Return when a hold is due, as a record has it; empty where it never is."""
    if hold.timeout_us == NULL:
        return b""
    at = datetime.fromisoformat(hold.recorded_at.decode())
    return pg_time(at + timedelta(microseconds=int(hold.timeout_us))).encode()
