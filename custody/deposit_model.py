"""The nouns of what arrives: deposits of clients and receipts of settlement, and their machines.

Both are *arrivals*: value that a block moved to one of our addresses, known for ever by the chain,
the transaction and the position in it, wherever and however often the transaction is mined.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from kernel.states import StateTable

SCHEMA: Final = "custody"

PLAUSIBLE_AMOUNT_MAX: Final = 2**128
"""No real asset has so many smallest units: a larger arrival is a forged or broken token."""

REASON_LENGTH_MAX: Final = 500


class DepositKind(StrEnum):
    """What an arrival turned out to be when it was first seen; it decides what the hold credits."""

    CLIENT = "client"
    DUST = "dust"
    """Below the smallest amount that is worth a client's account."""
    UNATTRIBUTED = "unattributed"
    """To an address of ours that is nobody's to pay in."""
    OWN = "own"
    """Our own coins, back from a venue: an own transfer, never a client's."""
    QUARANTINED = "quarantined"
    """Of a contract that is not registered, or of an impossible amount: nothing is posted."""


class SourceClass(StrEnum):
    """Who sent it, as far as the confirmation policy cares."""

    KNOWN = "known"
    """An address that two people allowed for this party."""
    UNKNOWN = "unknown"


class DepositState(StrEnum):
    """Where a deposit is."""

    INCLUDED = "included"
    """In a block of the chain we follow; a hold says so."""
    ORPHANED = "orphaned"
    """Its block is not on the chain any more; it may be mined again."""
    CONFIRMED = "confirmed"
    """Deep enough by policy."""
    SCREENED = "screened"
    """Nothing speaks against it."""
    CREDITED = "credited"
    HELD = "held"
    """Screening found something: on the client's held account, until two people decide."""
    REFUNDING = "refunding"
    """Two people give it back: a payout at the expense of the held account is on its way."""
    REFUNDED = "refunded"
    DUST = "dust"
    UNATTRIBUTED = "unattributed"
    ATTRIBUTED = "attributed"
    """Two people said whose it is."""
    ARRIVED = "arrived"
    """Our own coins, back from a venue: the end of an own transfer."""
    QUARANTINED = "quarantined"
    """Not to be believed, or nothing arrived: nothing is posted until two people adopt it."""
    DISMISSED = "dismissed"
    """Somebody looked at what is quarantined, and it stays out of the books."""
    REVERSED = "reversed"
    """Its block vanished after it was posted; the posting was reversed."""


_OPEN: Final = (DepositState.INCLUDED, DepositState.CONFIRMED, DepositState.SCREENED)
_POSTED: Final = (
    DepositState.CREDITED,
    DepositState.HELD,
    DepositState.REFUNDING,
    DepositState.REFUNDED,
    DepositState.DUST,
    DepositState.UNATTRIBUTED,
    DepositState.ATTRIBUTED,
    DepositState.ARRIVED,
)
_OUTSIDE: Final = (DepositState.QUARANTINED, DepositState.DISMISSED)

HOLD_OPEN: Final = frozenset(_OPEN)
"""States in which the ledger has an open hold for the deposit."""

POSTED: Final = frozenset(_POSTED)
"""States in which the deposit is posted: an orphaned block reverses it."""

OUTSIDE: Final = frozenset(_OUTSIDE)
"""States in which the books know nothing of the deposit."""

DEPOSIT_STATES: Final = StateTable(
    schema=SCHEMA,
    table="deposit",
    initial=frozenset({DepositState.INCLUDED, DepositState.QUARANTINED}),
    edges=frozenset(
        {
            *((state, DepositState.ORPHANED) for state in _OPEN),
            (DepositState.ORPHANED, DepositState.INCLUDED),
            *((state, DepositState.ORPHANED) for state in _OUTSIDE),
            (DepositState.ORPHANED, DepositState.QUARANTINED),
            (DepositState.QUARANTINED, DepositState.DISMISSED),
            # Its token was registered meanwhile: two people let it in after all.
            *((state, DepositState.INCLUDED) for state in _OUTSIDE),
            # The token's contract said that it came, and the balance says that nothing did.
            (DepositState.CONFIRMED, DepositState.QUARANTINED),
            (DepositState.INCLUDED, DepositState.CONFIRMED),
            (DepositState.CONFIRMED, DepositState.SCREENED),
            (DepositState.CONFIRMED, DepositState.HELD),
            (DepositState.CONFIRMED, DepositState.DUST),
            (DepositState.CONFIRMED, DepositState.UNATTRIBUTED),
            (DepositState.SCREENED, DepositState.CREDITED),
            (DepositState.HELD, DepositState.CREDITED),
            (DepositState.HELD, DepositState.REFUNDING),
            # The payout that gives it back was withdrawn, or failed at depth.
            (DepositState.REFUNDING, DepositState.HELD),
            (DepositState.REFUNDING, DepositState.REFUNDED),
            # A block deeper than policy asked for took the payout away: it is sent again.
            (DepositState.REFUNDED, DepositState.REFUNDING),
            (DepositState.UNATTRIBUTED, DepositState.ATTRIBUTED),
            (DepositState.CONFIRMED, DepositState.ARRIVED),
            # The venue named the transaction after the block had it.
            (DepositState.UNATTRIBUTED, DepositState.ARRIVED),
            *((state, DepositState.REVERSED) for state in _POSTED),
            (DepositState.REVERSED, DepositState.INCLUDED),
            (DepositState.REVERSED, DepositState.QUARANTINED),
        }
    ),
)


class ReceiptState(StrEnum):
    """Where a receipt is."""

    INCLUDED = "included"
    ORPHANED = "orphaned"
    FINAL = "final"
    """Deep enough by policy, posted to suspense: settlement may match it."""
    MATCHED = "matched"
    NOT_RECEIVED = "not_received"
    """The token's contract said that it came, and the balance says that nothing did."""
    REVERSED = "reversed"


RECEIPT_STATES: Final = StateTable(
    schema=SCHEMA,
    table="receipt",
    initial=frozenset({ReceiptState.INCLUDED}),
    edges=frozenset(
        {
            (ReceiptState.INCLUDED, ReceiptState.ORPHANED),
            (ReceiptState.ORPHANED, ReceiptState.INCLUDED),
            (ReceiptState.INCLUDED, ReceiptState.FINAL),
            (ReceiptState.INCLUDED, ReceiptState.NOT_RECEIVED),
            (ReceiptState.NOT_RECEIVED, ReceiptState.ORPHANED),
            (ReceiptState.FINAL, ReceiptState.MATCHED),
            (ReceiptState.FINAL, ReceiptState.REVERSED),
            (ReceiptState.MATCHED, ReceiptState.REVERSED),
            # Two people found that it pays something else.
            (ReceiptState.MATCHED, ReceiptState.FINAL),
            (ReceiptState.REVERSED, ReceiptState.INCLUDED),
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Value that arrived at one of our addresses.

    ``(chain, tx_hash, position)`` is its identity.

    Attributes:
        id: derived from the identity and *first_seen_at*; never changes.
        contract: of the token; None for the chain's own coin.
        asset: asset code; empty where the contract is not registered.
        amount: smallest units of the asset (of the token, where it is not registered).
        address, wallet, party: where it arrived, and whose address that is.
        credit: the account that the hold credits; empty where nothing is posted.
        epoch: how often it was included, from 1; each inclusion has a hold of its own.
        block_hash, height: of the newest inclusion.
        postings: transfers of this epoch that are posted, oldest first.
        version: number of events so far.
        first_seen_at: time of the first block that held it.
        depth_required, finality_required: what policy asked for when it was last looked at, or
            earlier if that was more; depth 0: not looked at yet.
        remainder: of the chain's amount, what is less than one unit of the asset, as the chain
            counts.
        received, received_rest: what the balances say arrived, in units and in pieces as *remainder*;
            None: they were not asked. That is posted, whatever the token's contract said.
        waiting_for: why it waits although it is deep enough, in words; empty otherwise.
        policy_version, policy_rule: which version and rule of it asked last; 0: none yet.
    """

    id: UUID
    chain: str
    tx_hash: str
    position: str
    contract: str | None
    asset: str
    amount: int
    sender: str
    address: str
    wallet: str
    party: str | None
    credit: str
    epoch: int
    block_hash: str
    height: int
    postings: tuple[UUID, ...]
    version: int
    first_seen_at: datetime
    depth_required: int = 0
    finality_required: bool = False
    policy_version: int = 0
    policy_rule: int = 0
    remainder: int = 0
    received: int | None = None
    received_rest: int = 0
    waiting_for: str = ""

    @property
    def value(self) -> int:
        """Return what is in the books for it once it is posted, in units."""
        return self.amount if self.received is None else self.received

    @property
    def rest(self) -> int:
        """Return what of it is less than one unit, as the chain counts."""
        return self.remainder if self.received is None else self.received_rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposit(Arrival):
    """Something that arrived at a client's deposit address, or at an address of nobody's.

    Attributes:
        shortfall: what the client had already spent when the deposit vanished after its credit;
            it is owed to us until the deposit is credited again.
        reason: why it is quarantined, held or attributed.
        refund: the payout that gives it back.
    """

    state: DepositState
    kind: DepositKind
    source: SourceClass
    shortfall: int = 0
    reason: str = ""
    refund: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Arrival):
    """Something that arrived at a settlement address.

    Attributes:
        reference: what the address was handed out for, opaque.
        matched_to: what settlement matched it to, opaque; empty until then.
    """

    state: ReceiptState
    reference: str
    matched_to: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """One inclusion of an arrival: which block held it in which epoch."""

    arrival_id: UUID
    epoch: int
    block_hash: str
    height: int
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class Attribution:
    """Two people's statement of whose an unattributed deposit is.

    Attributes:
        credit: the account it belongs to: a client's, or the house's capital.
        first, second: codes of two operators; both signed the same bytes.
    """

    deposit_id: UUID
    epoch: int
    credit: str
    reason: str
    first: str
    first_signature: bytes
    second: str
    second_signature: bytes
    at: datetime


class PendingState(StrEnum):
    """What is known of a transaction that was seen in a pool and would pay one of our addresses."""

    SEEN = "seen"
    """Shown to people, never posted: it may be replaced, dropped, or fail."""
    INCLUDED = "included"
    """Its transaction is in a block: what arrived is a deposit or a receipt now."""
    REPLACED = "replaced"
    """Its sender's nonce, or an output that it spends, was spent by another transaction."""
    DROPPED = "dropped"
    """No pool has shown it for a while."""


PENDING_STATES: Final = StateTable(
    schema=SCHEMA,
    table="pending_arrival",
    initial=frozenset({PendingState.SEEN}),
    edges=frozenset(
        {
            (PendingState.SEEN, PendingState.INCLUDED),
            (PendingState.SEEN, PendingState.REPLACED),
            (PendingState.SEEN, PendingState.DROPPED),
            # A reorganisation gives it another chance, and a pool that forgot it may hear it again.
            (PendingState.INCLUDED, PendingState.SEEN),
            (PendingState.REPLACED, PendingState.SEEN),
            (PendingState.DROPPED, PendingState.SEEN),
            (PendingState.REPLACED, PendingState.INCLUDED),
            (PendingState.DROPPED, PendingState.INCLUDED),
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingArrival:
    """Value that would arrive if a transaction in a pool were mined as it stands.

    ``(chain, tx_hash, recipient, contract)`` is its identity: where the log of a token's transfer
    stands in the receipt is not known before there is a receipt.

    Attributes:
        contract: of the token; None for the chain's own coin.
        amount: in the chain's smallest unit of it.
        last_seen_at: when a pool showed it last.
        version: number of events so far.
        inputs: the outpoints that it spends (Bitcoin); none where *sender* and *nonce* say it.
    """

    id: UUID
    chain: str
    tx_hash: str
    recipient: str
    contract: str | None
    sender: str
    nonce: int
    amount: int
    party: str | None
    state: PendingState
    first_seen_at: datetime
    last_seen_at: datetime
    version: int = 1
    inputs: tuple[tuple[str, int], ...] = ()
