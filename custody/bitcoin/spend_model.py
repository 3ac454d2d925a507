"""The nouns of payouts on Bitcoin: a spend, which is one transaction and all that may replace it.

A spend carries many payouts of one wallet. Its attempts are the transactions that were signed for it;
each of them spends the *anchor*, so at most one of them is ever on a branch of the chain. The payouts
keep the one machine that all payouts have (`custody.payout_model`) and follow their spend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from chain.bitcoin.fees import KEY_HASH_INPUT_WEIGHT
from chain.bitcoin.transactions import Outpoint
from custody.payout_model import ATTEMPT_STATES, AttemptKind, AttemptState, PayoutState
from kernel.states import StateTable
from ledger.allocation import by_ratio

SCHEMA: Final = "custody"
PAYOUTS_MAX: Final = 100
"""Payouts in one transaction: a reader still sees what it does, and one stop holds up no more."""
INPUTS_MAX: Final = 100
"""Coins in one transaction."""


class SpendState(StrEnum):
    """Where a spend is."""

    ALLOCATED = "allocated"
    """Its coins are locked, and an attempt is being signed."""
    SIGNED = "signed"
    """Signed bytes exist: from here on only the chain decides."""
    CANCELLING = "cancelling"
    """A transaction that returns everything to us competes with its payments."""
    MINED = "mined"
    FINAL = "final"
    """The block of one of its attempts is deep enough."""
    DROPPED = "dropped"
    """Nothing of it was signed, or a stranger's spend of its anchor is final: its coins are free."""
    SECURITY_HOLD = "security_hold"
    """Something else spent a coin of it, or the node proves its bytes invalid: people must look."""


SPEND_STATES: Final = StateTable(
    schema=SCHEMA,
    table="spend",
    initial=frozenset({SpendState.ALLOCATED}),
    edges=frozenset(
        {
            (SpendState.ALLOCATED, SpendState.SIGNED),
            # The signer said no, or a payout of it was stopped before the signer was asked.
            (SpendState.ALLOCATED, SpendState.DROPPED),
            (SpendState.ALLOCATED, SpendState.SECURITY_HOLD),
            (SpendState.SIGNED, SpendState.MINED),
            (SpendState.SIGNED, SpendState.CANCELLING),
            (SpendState.SIGNED, SpendState.SECURITY_HOLD),
            # The signer will not sign what cancels: the payments go on.
            (SpendState.CANCELLING, SpendState.SIGNED),
            (SpendState.CANCELLING, SpendState.MINED),
            (SpendState.CANCELLING, SpendState.SECURITY_HOLD),
            # The block was orphaned: the same bytes go out again.
            (SpendState.MINED, SpendState.SIGNED),
            (SpendState.MINED, SpendState.CANCELLING),
            (SpendState.MINED, SpendState.FINAL),
            # A block deeper than the policy asked for may still be orphaned.
            (SpendState.FINAL, SpendState.SIGNED),
            (SpendState.FINAL, SpendState.CANCELLING),
            # A cancellation that was final is orphaned: the claims have their money back.
            (SpendState.FINAL, SpendState.SECURITY_HOLD),
            # Two people looked: on with the bytes, or with asking for them.
            (SpendState.SECURITY_HOLD, SpendState.SIGNED),
            (SpendState.SECURITY_HOLD, SpendState.CANCELLING),
            (SpendState.SECURITY_HOLD, SpendState.ALLOCATED),
            (SpendState.SECURITY_HOLD, SpendState.MINED),
            # The stranger's transaction is final, so ours can never be: the claims are paid back.
            (SpendState.SECURITY_HOLD, SpendState.DROPPED),
        }
    ),
)

SPEND_ATTEMPT_STATES: Final = StateTable(
    schema=SCHEMA,
    table="spend_attempt",
    initial=frozenset({AttemptState.BUILT}),
    edges=ATTEMPT_STATES.edges,
)
"""An attempt of a spend is one signed transaction, like an attempt of a payout elsewhere."""

MACHINES: Final = (SPEND_STATES, SPEND_ATTEMPT_STATES)

SENT: Final = frozenset({SpendState.SIGNED, SpendState.CANCELLING})
"""States in which signed bytes wait for a block."""

WORKED_ON: Final = frozenset({SpendState.ALLOCATED, *SENT})
"""States in which the worker has something to do."""

LIVE: Final = frozenset({*WORKED_ON, SpendState.MINED, SpendState.SECURITY_HOLD})
"""States in which its coins are locked and its payouts are in no other spend."""

PAYABLE_IN: Final = frozenset({*SENT, SpendState.SECURITY_HOLD})
"""States in which a block may have one of its attempts."""

PAYOUT_STATE: Final = {
    SpendState.ALLOCATED: PayoutState.ALLOCATED,
    SpendState.SIGNED: PayoutState.SIGNED,
    SpendState.CANCELLING: PayoutState.CANCELLING,
    SpendState.MINED: PayoutState.MINED,
    SpendState.SECURITY_HOLD: PayoutState.SECURITY_HOLD,
}
"""Where the payouts of a spend are while it is there."""


@dataclass(frozen=True, slots=True)
class SpentCoin:
    """A coin of ours as an attempt spends it.

    Attributes:
        path: of its key, ``m/84'/0'/0'/0/3``.
        weight: of an input that spends it, at most.
    """

    outpoint: Outpoint
    amount: int
    address: str
    path: str
    weight: int = KEY_HASH_INPUT_WEIGHT


@dataclass(frozen=True, slots=True)
class Change:
    """What comes back: *amount* satoshi to an address of ours on the branch for own use."""

    address: str
    path: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """A spend as it stands.

    Attributes:
        anchor: the coin that every attempt spends.
        attempt: number of the current attempt.
        fee_cap: satoshi held for it: the most that any of its attempts costs.
        change_address, change_path: where change of every attempt goes; None while none has any.
        tx_id, mined_height, mined_block, fee_paid, succeeded: what a block has; *succeeded* tells
            that it paid, and not that it returned everything.
        claims_returned: the claims have their money back, though a block may still have the bytes:
            nothing is held any more, and nobody may send them again.
        waiting_for: why the worker could not go on when it last tried, in words.
        run_after: when the worker looks at it again.
    """

    id: UUID
    book: int
    chain: str
    chain_id: int
    wallet: str
    state: SpendState
    anchor: Outpoint
    attempt: int
    fee_cap: int
    change_address: str | None
    change_path: str | None
    created_at: datetime
    run_after: datetime
    tx_id: str | None = None
    mined_height: int | None = None
    mined_block: str | None = None
    fee_paid: int | None = None
    succeeded: bool | None = None
    claims_returned: bool = False
    waiting_for: str = ""
    fence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendAttempt:
    """One transaction of a spend; *raw* is None until it is signed.

    Attributes:
        tx_id: known before it is signed, because only witness programs are spent.
        unsigned: the transaction without proofs.
        coins: what its inputs spend, in their order.
        change: satoshi that come back; 0: no such output.
        fee, weight: satoshi, and what the signed bytes weigh at most.
        asked_at: when the signer was first asked: from then on a signature may exist.
    """

    id: UUID
    spend_id: UUID
    number: int
    chain: str
    kind: AttemptKind
    state: AttemptState
    tx_id: str
    unsigned: bytes
    coins: tuple[SpentCoin, ...]
    change: int
    fee: int
    weight: int
    raw: bytes | None
    broadcasts: int
    last_broadcast_at: datetime | None
    detail: str
    built_at: datetime
    asked_at: datetime | None = None
    signed_at: datetime | None = None

    @property
    def rate(self) -> int:
        """Return satoshi for 1,000 virtual bytes, rounded down."""
        return self.fee * 4_000 // self.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendPayout:
    """A payout in a spend.

    Attributes:
        weight: of its output, by which the fee is shared.
        output: which output of the current attempt pays it; None of one that cancels.
        live: the payout is in this spend now; one that was dropped stays as history.
    """

    spend_id: UUID
    payout_id: UUID
    weight: int
    output: int | None
    live: bool = True


def share_fee(fee: int, payouts: Sequence[SpendPayout]) -> dict[UUID, int]:
    """Return each payout's part of a fee, by what its output weighs; the parts sum exactly."""
    shares = by_ratio(fee, [(str(item.payout_id), item.weight) for item in payouts])
    return {UUID(share.name): share.amount for share in shares}
