"""Nouns of reconciliation, frozen, and the edges of a break."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.states import StateTable

AGE_MAX: Final = timedelta(hours=36)
"""An older word about a chain or a venue says nothing about today."""
BANK_DAYS_MAX: Final = 1
"""Business days that a bank's newest statement may be behind."""
TEXT_LENGTH_MAX: Final = 500


class PlaceKind(StrEnum):
    """Who says what is there."""

    CHAIN = "chain"
    VENUE = "venue"
    BANK = "bank"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One asset at one place; amounts in smallest units.

    Attributes:
        place: wallet, ``venue/account``, or bank account.
        books: what the ledger says now.
        books_then: what it said when the outside was read; None: the outside has said nothing.
        outside: what the outside said; None: nothing, or nothing that can be relied on.
        explained: what of the difference is accounted for: trades not posted, transfers under way.
        as_of: when the outside was read.
        evidence: where its word is kept: a run, a statement.
        note: why it is not known, in words.
    """

    kind: PlaceKind
    place: str
    asset: str
    books: int
    books_then: int | None = None
    outside: int | None = None
    explained: int = 0
    as_of: datetime | None = None
    evidence: str = ""
    note: str = ""

    @property
    def moved(self) -> int:
        """Return what moved in the books since the outside was read."""
        return 0 if self.books_then is None else self.books - self.books_then

    @property
    def difference(self) -> int | None:
        """Return what the outside has more and nobody explains; None: it is not known."""
        if self.outside is None or self.books_then is None:
            return None
        return self.outside - self.books_then - self.explained


class BreakKind(StrEnum):
    """What does not fit."""

    DIFFERENCE = "difference"
    """The outside has more or less than the books."""
    ITEM = "item"
    """One thing of many that differs: an address, an order, a trade."""
    UNKNOWN = "unknown"
    """The books hold something there, and the outside has said nothing, or too long ago."""
    GAP = "gap"
    """Something the outside has said is missing, or cannot be read."""


class BreakState(StrEnum):
    """Where a break is."""

    OPEN = "open"
    ASSIGNED = "assigned"
    RESOLVED = "resolved"
    """Two people know why, and what is done about it; it opens again when the figure changes."""
    CLEARED = "cleared"
    """A later run does not find it any more."""


BREAK_STATES: Final = StateTable(
    schema="reporting",
    table="recon_break",
    initial=frozenset({BreakState.OPEN}),
    edges=frozenset(
        {
            (BreakState.OPEN, BreakState.ASSIGNED),
            (BreakState.OPEN, BreakState.RESOLVED),
            (BreakState.OPEN, BreakState.CLEARED),
            (BreakState.ASSIGNED, BreakState.RESOLVED),
            (BreakState.ASSIGNED, BreakState.CLEARED),
            (BreakState.RESOLVED, BreakState.OPEN),
            (BreakState.RESOLVED, BreakState.CLEARED),
        }
    ),
)
STANDING: Final = (BreakState.OPEN, BreakState.ASSIGNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Something that a run found; *key* tells it apart for as long as it lasts.

    *amount* is what the outside has more, in smallest units; None where it is no figure.
    """

    key: str
    kind: BreakKind
    place_kind: PlaceKind
    place: str
    asset: str
    amount: int | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """Something found that lasts.

    Attributes:
        opened_at, seen_at: of the first and of the newest run that found it.
        assigned_to: who looks after it.
        resolution: the reason that two people signed; *resolved_amount* the figure it is for.
    """

    id: UUID
    book: int
    found: Found
    state: BreakState
    opened_at: datetime
    seen_at: datetime
    assigned_to: str | None = None
    resolution: str = ""
    resolved_by: tuple[str, str] | None = None
    resolved_amount: int | None = None
    resolved_at: datetime | None = None
    cleared_at: datetime | None = None


class Result(StrEnum):
    """How a run ended."""

    CLEAN = "clean"
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    """Nothing differs of what could be compared, and not everything could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One reconciliation of the house.

    Attributes:
        slot: the day whose daily run it is; None: somebody asked for it.
        sequence: journal position of the books that were read.
        sha256: over everything that was compared, in hexadecimal.
        found: what differs, or is not known; kept with the run as it was.
    """

    id: UUID
    book: int
    at: datetime
    slot: date | None
    sequence: int
    lines: tuple[Line, ...]
    found: tuple[Found, ...]
    sha256: str

    @property
    def result(self) -> Result:
        """Return how it ended: what differs is worse than what is not known."""
        if any(item.kind is not BreakKind.UNKNOWN for item in self.found):
            return Result.DIFFERENT
        return Result.UNKNOWN if self.found else Result.CLEAN
