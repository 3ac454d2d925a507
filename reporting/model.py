"""Nouns of reporting."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Proof:
    """A check of the books: *held* or not, and what it looked at or what is wrong."""

    name: str
    held: bool
    detail: str


@dataclass(frozen=True, slots=True, order=True)
class ExpectedHold:
    """A hold that a live row of a state machine keeps open; *amount* in smallest units."""

    correlation: UUID
    purpose: str
    asset: str
    amount: int


@dataclass(frozen=True, slots=True)
class Compared:
    """One line of the reconciliation: the books beside the outside, in smallest units."""

    place: str
    asset: str
    ledger: int
    outside: int
    evidence: str
    """Where the outside figure is from: a chain block, a venue snapshot."""

    @property
    def difference(self) -> int:
        """Return what the books have more than the outside."""
        return self.ledger - self.outside
