"""The reference's own words: requests, answers, accounts. It shares none with the ledger.

Times are microseconds since 1970, days are whole numbers of them, ids are ints, and what happens is
called by the words of the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ALL: Final = -1
AMOUNT_MAX: Final = 2**256 - 1
DAY_US: Final = 86_400_000_000
TIME_MAX_US: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""

EXPIRIES_MAX: Final = 256

MOVES: Final = ("single", "pending")
INHERITS: Final = ("post", "void", "reversal")

TRANSIENT: Final = frozenset(
    {
        "debit_account_not_found",
        "credit_account_not_found",
        "pending_transfer_not_found",
        "reversed_transfer_not_found",
        "effective_period_closed",
        "debit_account_already_closed",
        "credit_account_already_closed",
        "debit_account_frozen",
        "credit_account_frozen",
        "exceeds_credits",
        "exceeds_debits",
    }
)

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request; its flags are words, such as ``balancing_debit`` and ``imported``."""

    id: int
    kind: str
    debit: str = ""
    credit: str = ""
    asset: str = ""
    amount: int = 0
    code: str = "test"
    pending_id: int | None = None
    reverses: int | None = None
    purpose: str = ""
    timeout: int | None = None
    linked: bool = False
    effective: int | None = None
    reference: str = ""
    correlation: int | None = None
    metadata: tuple[tuple[str, int], ...] = ()
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to a request; *first* with ``id_already_failed`` only."""

    outcome: str
    sequence: int | None = None
    amount: int | None = None
    first: str | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """An account as somebody asks for it; *guard* is ``debits``, ``credits``, ``both`` or nothing."""

    path: str
    asset: str = "X"
    side: str = "credit"
    guard: str = ""
    owner: str = "house"
    purpose: str = ""
    metadata: tuple[tuple[str, int], ...] = ()
    since: int | None = None


@dataclass(slots=True)
class Account:
    """Four columns, and what stands in the way of changing them."""

    spec: Spec
    sequence: int
    opened: int
    limit: int = 0
    frozen: bool = False
    closed: bool = False
    dp: int = 0
    d: int = 0
    cp: int = 0
    c: int = 0
    entries: int = 0

    @property
    def columns(self) -> tuple[int, int, int, int]:
        return self.dp, self.d, self.cp, self.c


@dataclass(frozen=True, slots=True)
class Done:
    """A transfer in the journal; *held* is the hold's amount where it resolved one."""

    ask: Ask
    sequence: int
    amount: int
    debit: Key
    credit: Key
    at: int
    effective: int | None
    held: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold; *state* is ``open``, ``posted``, ``voided`` or ``expired``."""

    id: int
    amount: int
    debit: Key
    credit: Key
    until: int | None
    flags: frozenset[str]
    sequence: int
    state: str = "open"
