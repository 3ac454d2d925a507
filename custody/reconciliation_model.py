"""The nouns of reconciliation: figures, items, runs, open differences, and stops of signing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from chain.model import Block
from kernel.states import StateTable

SCHEMA: Final = "custody"
NO_ADDRESS: Final = ""
"""In place of an address: what the books have and no arrival, payout or spend brought there."""


class Reason(StrEnum):
    """What the code found that may explain a difference; a difference stays one all the same."""

    UNREGISTERED_TOKEN = "unregistered_token"  # noqa: S105  the name of a reason
    QUARANTINED = "quarantined"
    DUST = "dust"
    INTERNAL_TRANSFER = "internal_transfer"
    """Native coins more than known, and the node shows no internal transfers."""
    SILENT_TOKEN = "silent_token"  # noqa: S105  the name of a reason
    """A token's balance moved without an event: it rebases, charges or was minted."""
    ORPHANED = "orphaned"
    FOREIGN_SPEND = "foreign_spend"
    OPEN_HOLD = "open_hold"
    POSTED_WITHOUT_COINS = "posted_without_coins"
    BOOKED_TWICE = "booked_twice"
    """A surplus was booked, and the transfer behind it has been found since."""
    REMAINDER = "remainder"
    """Less than one unit of the asset, where the chain counts finer than the books."""
    UNPROVEN = "unproven"
    """A token logged that it came, and the balances were not asked yet how much did: it may be less."""
    UNREADABLE_TOKEN = "unreadable_token"  # noqa: S105  the name of a reason
    """The token's contract does not tell balances: what the wallet holds of it is not known."""
    MISSING_COIN = "missing_coin"
    """Our table has an unspent output that the node has not (Bitcoin)."""
    FOREIGN_COIN = "foreign_coin"
    """The node has an unspent output to an address of ours that our table has not."""
    COIN_AMOUNT = "coin_amount"
    COINS_NOT_POSTED = "coins_not_posted"
    """Our table of coins has more than the ledger."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One finding; *amount* in the asset's units (a token's own, if it is not registered)."""

    reason: Reason
    amount: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """One wallet and asset at one block; amounts in smallest units of the asset.

    *chain* is None where the token does not tell: nothing was compared then, which is not "equal".
    """

    wallet: str
    asset: str
    ledger: int
    chain: int | None
    block: Block

    @property
    def difference(self) -> int | None:
        """Return what the chain has more than the ledger; 0 where all is right, None: not known."""
        return None if self.chain is None else self.chain - self.ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One address and asset where books and chain differ, or that is worth a line.

    Attributes:
        asset: "" where the amounts count as the token *contract* does: it is not registered, or they
            are pieces of less than one unit of its asset.
        address: of ours, on Bitcoin the outpoint of a coin; `NO_ADDRESS` for what the books have and
            no row explains, and for a whole wallet.
        books: what arrivals, payouts and spends say that the address holds.
        chain: what the node says; None where the token does not tell.
    """

    wallet: str
    asset: str
    contract: str | None
    address: str
    books: int
    chain: int | None
    explanations: tuple[Explanation, ...] = ()

    @property
    def difference(self) -> int:
        """Return what the chain has more; 0 for a line that only informs, or where it is not known."""
        return 0 if self.chain is None else self.chain - self.books

    @property
    def awaits_proof(self) -> bool:
        """Tell whether it is no more than what was logged and is not proven: it closes by itself."""
        return any(found.reason is Reason.UNPROVEN for found in self.explanations)


class Result(StrEnum):
    """How a run ended."""

    CLEAN = "clean"
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    """Nothing differs of what could be compared, and a token did not tell what is held of it, or what
    it logged is not proven yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A recorded reconciliation.

    Attributes:
        figures: every wallet and asset.
        items: what could not be compared, pieces of a unit, every difference, quarantined tokens.
        addresses: how many of our addresses were asked about.
    """

    id: UUID
    book: int
    chain: str
    block: Block
    figures: tuple[Reconciled, ...]
    items: tuple[Item, ...]
    addresses: int
    at: datetime

    @property
    def is_clean(self) -> bool:
        """Tell whether nothing differs, by wallet and by address, and everything was compared."""
        return self.result is Result.CLEAN

    @property
    def result(self) -> Result:
        """Return how the run ended: what differs is worse than what is not known."""
        awaited = self._awaited()
        if any(f.difference != awaited.get((f.wallet, f.asset), 0) for f in self._compared()):
            return Result.DIFFERENT
        if any(item.difference and not item.awaits_proof for item in self.items):
            return Result.DIFFERENT
        return Result.UNKNOWN if self.unknown or awaited else Result.CLEAN

    def _compared(self) -> list[Reconciled]:
        return [figure for figure in self.figures if figure.chain is not None]

    def _awaited(self) -> dict[tuple[str, str], int]:
        """Return by (wallet, asset) what is missing for no other reason than that it is unproven."""
        found: dict[tuple[str, str], int] = {}
        for item in self.items:
            if item.awaits_proof:
                key = item.wallet, item.asset
                found[key] = found.get(key, 0) + item.difference
        return found

    @property
    def unknown(self) -> frozenset[tuple[str, str]]:
        """Return (wallet, asset) of what could not be compared."""
        return frozenset((f.wallet, f.asset) for f in self.figures if f.chain is None)

    @property
    def differences(self) -> tuple[Item, ...]:
        """Return the items that differ by a unit of an asset or more, and wait for no proof."""
        return tuple(
            item for item in self.items if item.difference and item.asset and not item.awaits_proof
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run as a list shows it."""

    id: UUID
    book: int
    chain: str
    height: int
    block_hash: str
    result: str
    addresses: int
    figures: tuple[Mapping[str, Any], ...]
    at: datetime


class DifferenceState(StrEnum):
    """Whether a difference still stands."""

    OPEN = "open"
    CLOSED = "closed"
    """A later run does not show it any more, or it was booked."""


DIFFERENCE_STATES: Final = StateTable(
    schema=SCHEMA,
    table="difference",
    initial=frozenset({DifferenceState.OPEN}),
    edges=frozenset({(DifferenceState.OPEN, DifferenceState.CLOSED)}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A difference that stood in one run or more.

    Attributes:
        amount: what the chain has more; negative: what is missing.
        opened_at, opened_height: of the first run that showed any difference there.
        first_height, first_block: of the first run that showed exactly *amount*.
        last_height, last_block: of the newest.
    """

    id: UUID
    book: int
    chain: str
    wallet: str
    asset: str
    address: str
    amount: int
    state: DifferenceState
    opened_at: datetime
    opened_height: int
    first_height: int
    first_block: str
    last_height: int
    last_block: str
    seen_at: datetime
    detail: str = ""


class StopState(StrEnum):
    """Whether the signing of an asset from a wallet is stopped."""

    OPEN = "open"
    LIFTED = "lifted"


STOP_STATES: Final = StateTable(
    schema=SCHEMA,
    table="signing_stop",
    initial=frozenset({StopState.OPEN}),
    edges=frozenset({(StopState.OPEN, StopState.LIFTED)}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningStop:
    """A hot wallet above its cap for an asset: nothing is signed that leaves to others."""

    id: UUID
    wallet: str
    asset: str
    state: StopState
    reason: str
    since: datetime
