"""The nouns of rebalancing: bands, rules of sweeps and consolidations, what is seen, what is proposed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from chain.bitcoin.fees import RATE_MAX
from custody.bitcoin.spend_model import INPUTS_MAX
from custody.payout_model import ControlState
from kernel.errors import BadInput
from kernel.money import AMOUNT_MAX
from kernel.states import StateTable

SCHEMA: Final = "custody"
BANDS_MAX: Final = 500
SWEEPS_MAX: Final = 500
CONSOLIDATIONS_MAX: Final = 500
TRANSFERS_MAX: Final = 500
"""Transfers that one window may propose, at most."""
WINDOW: Final = timedelta(hours=1)
LIFETIME: Final = timedelta(hours=12)
COINS_MIN: Final = 10
"""Fewer small coins than these are not worth a transaction, unless a rule says otherwise."""
TRANSFERS: Final = 100
WINDOW_MIN: Final = timedelta(minutes=1)
WINDOW_MAX: Final = timedelta(days=7)


class Tier(StrEnum):
    """How far the keys of a wallet are from the world."""

    HOT = "hot"
    """Payouts leave from here."""
    WARM = "warm"
    """The signer has its keys, and pays only to wallets of ours."""
    COLD = "cold"
    """No process has its keys: out of it people pay by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """How much of an asset a wallet should hold, in the asset's smallest units.

    Attributes:
        minimum: below it the wallet is filled up to *target*.
        maximum: above it the wallet is emptied down to *target*.
        cap: above it nothing is signed that leaves the wallet to others; None: no cap.
    """

    wallet: str
    asset: str
    tier: Tier
    minimum: int
    target: int
    maximum: int
    cap: int | None = None

    def __post_init__(self) -> None:
        where = f"band of {self.asset} in {self.wallet}"
        if not 0 <= self.minimum <= self.target <= self.maximum <= AMOUNT_MAX:
            raise BadInput(
                "a band has 0 ≤ minimum ≤ target ≤ maximum", where=where, remedy="Order them"
            )
        if self.cap is not None and (self.tier is not Tier.HOT or self.cap < self.maximum):
            raise BadInput(
                "a cap is of a hot wallet and not below the band's maximum",
                where=where,
                remedy="Above the maximum coins are moved away; above the cap signing stops",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRule:
    """When an address of a wallet is emptied into the wallet's hot address.

    Attributes:
        minimum: less than this stays where it is, in the asset's smallest units.
        fee_max: the most that one sweep may cost, in the native coin's smallest units; of the
            native coin itself as much stays behind at the address, to pay for it.
    """

    wallet: str
    asset: str
    minimum: int
    fee_max: int

    def __post_init__(self) -> None:
        if not (0 < self.minimum <= AMOUNT_MAX and 0 < self.fee_max <= AMOUNT_MAX):
            raise BadInput(
                "a sweep has a minimum and a highest fee above zero",
                where=f"sweep of {self.asset} in {self.wallet}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidationRule:
    """When many small coins of a wallet become one, on a chain of Bitcoin.

    Attributes:
        below: coins of less than this are small, in the asset's smallest units.
        rate_max: satoshi for 1,000 virtual bytes: where blocks ask for more, it waits.
        coins_min: so many small coins are worth a transaction.
        inputs_max: so many are spent by one, at most.
    """

    wallet: str
    asset: str
    below: int
    rate_max: int
    coins_min: int = COINS_MIN
    inputs_max: int = INPUTS_MAX

    def __post_init__(self) -> None:
        where = f"consolidation of {self.asset} in {self.wallet}"
        if not (0 < self.below <= AMOUNT_MAX and 0 < self.rate_max <= RATE_MAX):
            raise BadInput(
                f"a consolidation is of coins above zero, at a rate of 1 to {RATE_MAX}", where=where
            )
        if not 2 <= self.coins_min <= self.inputs_max <= INPUTS_MAX:
            raise BadInput(
                f"a consolidation spends 2 to {INPUTS_MAX} coins", where=where, remedy="Order them"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RebalanceRules:
    """Bands, sweeps and consolidations in force from one approval to the next, under a version from 1.

    Attributes:
        window: how long one plan stands; each window is planned once.
        lifetime: what nobody has approved after this time lapses.
        transfers_max: transfers proposed in one window.
    """

    version: int
    bands: tuple[Band, ...]
    sweeps: tuple[SweepRule, ...] = ()
    consolidations: tuple[ConsolidationRule, ...] = ()
    window: timedelta = WINDOW
    lifetime: timedelta = LIFETIME
    transfers_max: int = TRANSFERS

    def __post_init__(self) -> None:
        if self.version < 1:
            raise BadInput(f"rules have version {self.version}; versions count from 1")
        if len(self.bands) > BANDS_MAX or len(self.sweeps) > SWEEPS_MAX:
            raise BadInput(f"rules have at most {BANDS_MAX} bands and {SWEEPS_MAX} sweeps")
        if len(self.consolidations) > CONSOLIDATIONS_MAX:
            raise BadInput(f"rules have at most {CONSOLIDATIONS_MAX} consolidations")
        if not self.bands and not self.sweeps and not self.consolidations:
            raise BadInput("rules have a band, a sweep or a consolidation")
        if not WINDOW_MIN <= self.window <= WINDOW_MAX:
            raise BadInput(f"a window is {WINDOW_MIN} to {WINDOW_MAX} long")
        if self.window.total_seconds() % 1 or self.lifetime < self.window:
            raise BadInput(
                "a window is of whole seconds, and what it proposes lives at least as long"
            )
        if not 0 < self.transfers_max <= TRANSFERS_MAX:
            raise BadInput(f"a window proposes 1 to {TRANSFERS_MAX} transfers")
        for what, keys in (
            ("band", [(band.wallet, band.asset) for band in self.bands]),
            ("sweep", [(rule.wallet, rule.asset) for rule in self.sweeps]),
            ("consolidation", [(rule.wallet, rule.asset) for rule in self.consolidations]),
        ):
            if len(set(keys)) != len(keys):
                raise BadInput(f"two rules of kind {what} are of one wallet and asset")

    def find_band(self, wallet: str, asset: str) -> Band | None:
        """Return the band of a wallet and asset; None where there is none."""
        for band in self.bands:
            if (band.wallet, band.asset) == (wallet, asset):
                return band
        return None

    def find_consolidation(self, wallet: str, asset: str) -> ConsolidationRule | None:
        """Return the consolidation of a wallet and asset; None where there is none."""
        for rule in self.consolidations:
            if (rule.wallet, rule.asset) == (wallet, asset):
                return rule
        return None

    def window_start(self, now: datetime) -> datetime:
        """Return when the window that *now* is in began: windows are counted from 1970."""
        length = int(self.window.total_seconds())
        return now - timedelta(seconds=int(now.timestamp()) % length, microseconds=now.microsecond)


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesRow:
    """A version of the rules, and who made it."""

    rules: RebalanceRules
    state: ControlState
    proposed_by: str
    proposed_at: datetime
    approved_by: str | None


class TransferKind(StrEnum):
    """Why coins are to move."""

    SWEEP = "sweep"
    """From an address where they arrived to the hot address of the same wallet."""
    TOP_UP = "top_up"
    """Native coins from the hot address to one that holds tokens and cannot pay for their sweep."""
    FILL = "fill"
    """To a wallet below its band."""
    DRAIN = "drain"
    """Out of a wallet above its band."""
    CONSOLIDATE = "consolidate"
    """Many small coins of a wallet become one of the same wallet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTransfer:
    """Coins that should move between addresses of ours; *amount* in the asset's smallest units.

    Attributes:
        to_address: "" in a plan where it is a fresh one, assigned when the plan is written.
        by_hand: the coins lie in a cold wallet: people carry it out.
    """

    kind: TransferKind
    wallet: str
    address: str
    to_wallet: str
    to_address: str
    asset: str
    amount: int
    reason: str
    by_hand: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something that no transfer can put right, or that people should know at once."""

    name: str
    wallet: str
    asset: str
    reason: str


# What is seen.


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletView:
    """A wallet as rebalancing sees it.

    Attributes:
        owner: coins move between wallets of one owner class only.
        hot_address: where its coins are gathered and leave from; None: it has none.
    """

    code: str
    chain: str
    owner: str
    hot_address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressView:
    """What an address holds at the block that was looked at, as far as it may be moved.

    Attributes:
        amount: of *asset*, in its smallest units; no more than the books know of.
        native: of the chain's native coin, all of it.
    """

    wallet: str
    address: str
    asset: str
    amount: int
    native: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransfer:
    """An own transfer that is under way, whoever asked for it.

    Attributes:
        reserved: the books hold its coins already; a proposal that people carry out has no hold.
        taken: a transaction has its coins already, so nothing counts them as movable.
    """

    wallet: str
    address: str
    to_wallet: str
    to_address: str
    asset: str
    amount: int
    reserved: bool = True
    taken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fees:
    """What a transfer would cost now at most, in the native coin's smallest units."""

    native: int
    token: int


@dataclass(frozen=True, slots=True)
class CoinStock:
    """The coins of a wallet that may be spent, and what an input that spends one weighs."""

    amounts: tuple[int, ...]
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TreasuryView:
    """Everything a plan is made from, of one chain at one block.

    On a chain of coins (Bitcoin) a wallet's coins are spent wherever they lie: nothing is swept, the
    native coin needs no top-up, and a cold wallet's payments are payouts whose transaction people sign.

    Attributes:
        available: by wallet and asset: in the books, and promised to nobody.
        held: by wallet and asset: all that the books have there.
        hot: by wallet and asset: what lies at the wallet's hot address; of coins, what one
            transaction can bring.
        sweepable: addresses with coins that may be swept.
        open_transfers: own transfers under way.
        smallest: what is less than this is not moved.
        of_coins: whether it is a chain of coins.
        coins: by wallet: the coins that may be spent.
        rate: what blocks ask for, in satoshi for 1,000 virtual bytes; None: nobody knows.
    """

    native_asset: str
    wallets: Mapping[str, WalletView]
    available: Mapping[tuple[str, str], int]
    held: Mapping[tuple[str, str], int]
    hot: Mapping[tuple[str, str], int]
    fees: Fees
    sweepable: tuple[AddressView, ...] = ()
    open_transfers: tuple[OpenTransfer, ...] = ()
    smallest: int = 1
    of_coins: bool = False
    coins: Mapping[str, CoinStock] = field(default_factory=dict)
    rate: int | None = None


@dataclass(frozen=True, slots=True)
class TreasuryPlan:
    """What should be done, in order, and what people should know."""

    transfers: tuple[OwnTransfer, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    left_over: int = 0
    """Transfers that this window has no room for; the next one proposes them."""


# What is written.


class ProposalState(StrEnum):
    """Where a proposed transfer is."""

    PROPOSED = "proposed"
    """Written down; nothing is reserved. From a cold wallet it stays here until people say."""
    REQUESTED = "requested"
    """It is a payout now, whose own machine tells the rest."""
    REFUSED = "refused"
    LAPSED = "lapsed"
    CARRIED_OUT = "carried_out"
    """By hand, with the transaction that did it."""
    DISMISSED = "dismissed"


PROPOSAL_STATES: Final = StateTable(
    schema=SCHEMA,
    table="rebalance_proposal",
    initial=frozenset({ProposalState.PROPOSED}),
    edges=frozenset(
        (ProposalState.PROPOSED, after)
        for after in ProposalState
        if after is not ProposalState.PROPOSED
    ),
)

RULES_STATES: Final = StateTable(
    schema=SCHEMA,
    table="rebalance_rules",
    initial=frozenset({ControlState.PROPOSED}),
    edges=frozenset(
        {
            (ControlState.PROPOSED, ControlState.ACTIVE),
            (ControlState.PROPOSED, ControlState.REJECTED),
            (ControlState.ACTIVE, ControlState.REVOKED),
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A transfer that a window proposed.

    Attributes:
        window: when the window began.
        payout_id: the payout that it became.
        detail: why it was refused, or the transaction that carried it out.
    """

    id: UUID
    book: int
    chain: str
    rules_version: int
    window: datetime
    transfer: OwnTransfer
    state: ProposalState
    expires_at: datetime
    payout_id: UUID | None = None
    detail: str = ""


@dataclass(slots=True)
class RebalanceReport:
    """What one call of `worker.advance_rebalance` did; ids of proposals."""

    window: datetime | None = None
    planned: bool = False
    proposed: list[UUID] = field(default_factory=list)
    requested: list[UUID] = field(default_factory=list)
    refused: dict[UUID, str] = field(default_factory=dict)
    lapsed: list[UUID] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    left_over: int = 0
    waiting: str = ""
    """Why nothing could be planned, in words."""
