"""Nouns of reporting."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.states import StateTable


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


class ClientMoneyState(StrEnum):
    """Whether what is held for clients covers what they are owed, in one asset of one book."""

    COVERED = "covered"
    SHORT = "short"


CLIENT_MONEY_STATES: Final = StateTable(
    schema="reporting",
    table="client_money",
    # Nothing held and nothing owed is covered: so begins every asset.
    initial=frozenset({ClientMoneyState.COVERED}),
    edges=frozenset(
        {
            (ClientMoneyState.COVERED, ClientMoneyState.SHORT),
            (ClientMoneyState.SHORT, ClientMoneyState.COVERED),
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientMoney:
    """One asset at the end of a block that moved it; amounts in smallest units.

    Attributes:
        height, sequence: the block, and its last record.
        recorded_at: when the block was recorded.
    """

    asset: str
    height: int
    sequence: int
    recorded_at: datetime
    holdings: int
    liabilities: int

    @property
    def shortfall(self) -> int:
        """Return what is missing, 0 where clients are covered."""
        return max(0, self.liabilities - self.holdings)

    @property
    def state(self) -> ClientMoneyState:
        """Return what the figures say."""
        return ClientMoneyState.SHORT if self.shortfall else ClientMoneyState.COVERED


@dataclass(frozen=True, slots=True)
class WatchedPage:
    """What one step of the watch did.

    Attributes:
        height: the block up to which the journal has been watched.
        changes: where clients became short of an asset, or covered again, in the order of blocks.
        is_last: the journal had no more when the step began.
    """

    height: int
    changes: tuple[ClientMoney, ...]
    is_last: bool
