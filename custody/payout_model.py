"""The nouns of payments out, and their machines.

A payout pays one amount of one asset from one wallet to one destination, whatever asked for it: the
*claim* says at whose expense. ``client:<id>`` is a withdrawal, ``client:<id>:held`` gives back what
compliance held, ``payable:<party>:netted`` settles an obligation, ``own:<wallet>`` moves the desk's
coins to another (or the same) wallet of its own, ``own:venue:<venue>/<account>`` to its account at a
venue. An attempt is one signed transaction of a payout;
all attempts of a payout have one nonce, so at most one of them is ever on a branch of the chain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final
from uuid import UUID

from kernel.errors import BadInput
from kernel.money import AMOUNT_MAX
from kernel.states import StateTable

SCHEMA: Final = "custody"
REFERENCE_LENGTH_MAX: Final = 120
REASON_LENGTH_MAX: Final = 500

_CLAIM = re.compile(
    r"client:(?P<client>[A-Za-z0-9][A-Za-z0-9._-]{0,63})"
    r"|client:(?P<held>[A-Za-z0-9][A-Za-z0-9._-]{0,63}):held"
    r"|payable:(?P<payable>[A-Za-z0-9][A-Za-z0-9._-]{0,63}):netted"
    r"|own:(?P<own>[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
    r"|venue:[A-Za-z0-9][A-Za-z0-9._-]{0,31}/[A-Za-z0-9][A-Za-z0-9._-]{0,31})"
)
VENUE_PREFIX: Final = "venue:"
"""How the name of an own claim begins whose receiver is an account at a venue."""
OWN_PARTY: Final = "own"
"""The party of allowed destinations that are ours though their keys are elsewhere."""
BANK_NETWORK_ID: Final = 0
"""What stands where others have the network id of their chain: no network has it."""
CLAIMS_REMEMBERED: Final = 4_096
"""A claim is asked what it means some forty times on its way."""


class PayoutState(StrEnum):
    """Where a payout is."""

    REQUESTED = "requested"
    RESERVED = "reserved"
    PENDING_APPROVAL = "pending_approval"
    APPROVED = "approved"
    ALLOCATED = "allocated"
    """It has a nonce, and an attempt that is being signed."""
    SIGNED = "signed"
    """Signed bytes exist: from here on only the chain decides."""
    CANCELLING = "cancelling"
    """A spend of its nonce that pays nobody competes with its payment: the chain decides."""
    MINED = "mined"
    CONFIRMED = "confirmed"
    FAILED_ON_CHAIN = "failed_on_chain"
    REFUSED = "refused"
    """The bank has said that it will not pay it: the claim has its money back. Of rail bank only."""
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SECURITY_HOLD = "security_hold"
    """Something else spent our nonce, or the node proves our bytes invalid: people must look."""


_BEFORE_ALLOCATION: Final = (
    PayoutState.REQUESTED,
    PayoutState.RESERVED,
    PayoutState.PENDING_APPROVAL,
    PayoutState.APPROVED,
)
_WITHDRAWN: Final = (PayoutState.REJECTED, PayoutState.CANCELLED, PayoutState.EXPIRED)

PAYOUT_STATES: Final = StateTable(
    schema=SCHEMA,
    table="payout",
    initial=frozenset({PayoutState.REQUESTED}),
    edges=frozenset(
        {
            (PayoutState.REQUESTED, PayoutState.RESERVED),
            (PayoutState.RESERVED, PayoutState.PENDING_APPROVAL),
            (PayoutState.PENDING_APPROVAL, PayoutState.APPROVED),
            (PayoutState.APPROVED, PayoutState.ALLOCATED),
            # What only fills a gap pays nobody: nobody has to approve it.
            (PayoutState.REQUESTED, PayoutState.ALLOCATED),
            (PayoutState.ALLOCATED, PayoutState.SIGNED),
            # The signer said no, so no signature exists and the reservation may end.
            (PayoutState.ALLOCATED, PayoutState.REJECTED),
            # It said no, and the payout's time is over: its approvals have lapsed.
            (PayoutState.ALLOCATED, PayoutState.EXPIRED),
            # The transaction that it shared with others was not signed: it goes into another.
            (PayoutState.ALLOCATED, PayoutState.APPROVED),
            (PayoutState.SIGNED, PayoutState.MINED),
            # The block was orphaned: the same bytes go out again.
            (PayoutState.MINED, PayoutState.SIGNED),
            (PayoutState.SIGNED, PayoutState.CANCELLING),
            # The signer will not sign the other spend: the payment goes on.
            (PayoutState.CANCELLING, PayoutState.SIGNED),
            (PayoutState.CANCELLING, PayoutState.MINED),
            (PayoutState.MINED, PayoutState.CANCELLING),
            (PayoutState.MINED, PayoutState.CANCELLED),
            # A block deeper than the policy asked for may still be orphaned.
            (PayoutState.CONFIRMED, PayoutState.SIGNED),
            (PayoutState.CONFIRMED, PayoutState.CANCELLING),
            (PayoutState.FAILED_ON_CHAIN, PayoutState.SECURITY_HOLD),
            (PayoutState.CANCELLED, PayoutState.SECURITY_HOLD),
            (PayoutState.MINED, PayoutState.CONFIRMED),
            (PayoutState.MINED, PayoutState.FAILED_ON_CHAIN),
            (PayoutState.ALLOCATED, PayoutState.SECURITY_HOLD),
            (PayoutState.SIGNED, PayoutState.SECURITY_HOLD),
            (PayoutState.CANCELLING, PayoutState.SECURITY_HOLD),
            # Two people looked: on with the bytes, or with asking for them.
            (PayoutState.SECURITY_HOLD, PayoutState.SIGNED),
            (PayoutState.SECURITY_HOLD, PayoutState.CANCELLING),
            (PayoutState.SECURITY_HOLD, PayoutState.ALLOCATED),
            (PayoutState.SECURITY_HOLD, PayoutState.MINED),
            # A bank has booked it, or says that it will not: there is no block in between.
            (PayoutState.SIGNED, PayoutState.CONFIRMED),
            (PayoutState.SIGNED, PayoutState.REFUSED),
            # The stranger's transaction is final, so ours can never be: the claim is paid back.
            (PayoutState.SECURITY_HOLD, PayoutState.FAILED_ON_CHAIN),
            *((before, after) for before in _BEFORE_ALLOCATION for after in _WITHDRAWN),
        }
    ),
)

RELEASED: Final = frozenset({*_WITHDRAWN, PayoutState.FAILED_ON_CHAIN, PayoutState.REFUSED})
"""It will not pay: from *released_at* on it does not count as reserved."""

CANCELLABLE: Final = frozenset(_BEFORE_ALLOCATION)
"""From allocation on signed bytes may exist, and only the chain can say that they will not pay."""

WORKED_ON: Final = frozenset(
    {PayoutState.APPROVED, PayoutState.ALLOCATED, PayoutState.SIGNED, PayoutState.CANCELLING}
)
"""States in which the worker has something to do."""

SENT: Final = frozenset({PayoutState.SIGNED, PayoutState.CANCELLING})
"""States in which signed bytes wait for a block."""

ON_ITS_WAY: Final = frozenset({PayoutState.ALLOCATED, *SENT, PayoutState.SECURITY_HOLD})
"""States in which coins and fee are held for a transaction that is in no block."""


class AttemptState(StrEnum):
    """Where one signed transaction is."""

    BUILT = "built"
    SIGNED = "signed"
    """Bytes and hash are stored; nothing was sent."""
    BROADCAST = "broadcast"
    AMBIGUOUS = "ambiguous"
    """Sent without a clear answer, or orphaned: the same bytes again, for ever."""
    MINED = "mined"
    FINAL = "final"
    SUPERSEDED = "superseded"
    """Another attempt of the same nonce is final, or the signer refused this one."""


ATTEMPT_STATES: Final = StateTable(
    schema=SCHEMA,
    table="payout_attempt",
    initial=frozenset({AttemptState.BUILT}),
    edges=frozenset(
        {
            (AttemptState.BUILT, AttemptState.SIGNED),
            (AttemptState.BUILT, AttemptState.SUPERSEDED),
            (AttemptState.SIGNED, AttemptState.BROADCAST),
            (AttemptState.SIGNED, AttemptState.AMBIGUOUS),
            (AttemptState.BROADCAST, AttemptState.AMBIGUOUS),
            (AttemptState.AMBIGUOUS, AttemptState.BROADCAST),
            (AttemptState.SIGNED, AttemptState.MINED),
            (AttemptState.BROADCAST, AttemptState.MINED),
            (AttemptState.AMBIGUOUS, AttemptState.MINED),
            (AttemptState.MINED, AttemptState.AMBIGUOUS),
            (AttemptState.MINED, AttemptState.FINAL),
            (AttemptState.FINAL, AttemptState.AMBIGUOUS),
            (AttemptState.SUPERSEDED, AttemptState.MINED),
            (AttemptState.SIGNED, AttemptState.SUPERSEDED),
            (AttemptState.BROADCAST, AttemptState.SUPERSEDED),
            (AttemptState.AMBIGUOUS, AttemptState.SUPERSEDED),
        }
    ),
)

SPENDABLE: Final = frozenset(
    {AttemptState.SIGNED, AttemptState.BROADCAST, AttemptState.AMBIGUOUS, AttemptState.MINED}
)
"""Signed bytes of these attempts may still be, or are, on the chain."""


class AttemptKind(StrEnum):
    """What a transaction of a payout is for."""

    PAY = "pay"
    CANCEL = "cancel"
    """It pays nobody: nothing to ourselves at the same nonce, so that no payment can have it."""


class NonceState(StrEnum):
    """What became of a nonce of a sending address."""

    LIVE = "live"
    SPENT = "spent"
    RELEASED = "released"
    """Given back unsigned; the next payout takes it, so that no gap stays."""


NONCE_STATES: Final = StateTable(
    schema=SCHEMA,
    table="payout_nonce",
    initial=frozenset({NonceState.LIVE}),
    edges=frozenset(
        {
            (NonceState.LIVE, NonceState.SPENT),
            (NonceState.SPENT, NonceState.LIVE),
            (NonceState.LIVE, NonceState.RELEASED),
            (NonceState.RELEASED, NonceState.LIVE),
        }
    ),
)


class ControlState(StrEnum):
    """Where a rule that two people make is: an allowed destination, an approval policy."""

    PROPOSED = "proposed"
    ACTIVE = "active"
    REJECTED = "rejected"
    REVOKED = "revoked"


_CONTROL_EDGES: Final = frozenset(
    {
        (ControlState.PROPOSED, ControlState.ACTIVE),
        (ControlState.PROPOSED, ControlState.REJECTED),
        (ControlState.ACTIVE, ControlState.REVOKED),
    }
)
DESTINATION_STATES: Final = StateTable(
    schema=SCHEMA,
    table="allowed_destination",
    initial=frozenset({ControlState.PROPOSED}),
    edges=_CONTROL_EDGES,
)
POLICY_STATES: Final = StateTable(
    schema=SCHEMA,
    table="payout_policy",
    initial=frozenset({ControlState.PROPOSED}),
    edges=_CONTROL_EDGES,
)


class ForeignState(StrEnum):
    """Whether a spend that we did not make is on the chain."""

    INCLUDED = "included"
    ORPHANED = "orphaned"


FOREIGN_STATES: Final = StateTable(
    schema=SCHEMA,
    table="foreign_spend",
    initial=frozenset({ForeignState.INCLUDED}),
    edges=frozenset(
        {
            (ForeignState.INCLUDED, ForeignState.ORPHANED),
            (ForeignState.ORPHANED, ForeignState.INCLUDED),
        }
    ),
)

MACHINES: Final = (
    PAYOUT_STATES,
    ATTEMPT_STATES,
    NONCE_STATES,
    DESTINATION_STATES,
    POLICY_STATES,
    FOREIGN_STATES,
)


class ClaimKind(StrEnum):
    """At whose expense a payout is."""

    CLIENT = "client"
    HELD = "held"
    """What compliance held back from a client, on its way back to where it came from."""
    PAYABLE = "payable"
    OWN = "own"


TO_VENUES: Final = f"{ClaimKind.OWN}:{VENUE_PREFIX}"
"""How the text of a claim begins whose receiver is an account at a venue."""


class DestinationKind(StrEnum):
    """What is at the receiving address."""

    EOA = "eoa"
    CONTRACT = "contract"
    OWN = "own"
    """An address of ours: only an own transfer goes there."""
    VENUE = "venue"
    """Where a venue takes coins for our account there: only an own transfer goes there."""
    BANK = "bank"
    """An account of somebody else's at a bank."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim that a payout debits; *name* is the party, or the receiving place of our own."""

    kind: ClaimKind
    name: str

    @classmethod
    def parse(cls, text: str) -> Claim:
        """Read ``client:<id>[:held]``, ``payable:<party>:netted`` or what begins with ``own:``."""
        return _parse_claim(text)

    @property
    def venue(self) -> str | None:
        """Return ``<venue>/<account>`` of the receiving account at a venue; None: it is no venue's."""
        if self.kind is ClaimKind.OWN and self.name.startswith(VENUE_PREFIX):
            return self.name.removeprefix(VENUE_PREFIX)
        return None

    @property
    def account(self) -> str | None:
        """Return the path of the debited account; None where coins stay the desk's own."""
        match self.kind:
            case ClaimKind.CLIENT:
                return f"client:{self.name}"
            case ClaimKind.HELD:
                return f"client:{self.name}:held"
            case ClaimKind.PAYABLE:
                return f"payable:{self.name}:netted"
            case ClaimKind.OWN:
                return None


@lru_cache(maxsize=CLAIMS_REMEMBERED)
def _parse_claim(text: str) -> Claim:
    match = _CLAIM.fullmatch(text)
    if match is None:
        raise BadInput(
            f"{text!r} is not a claim that a payout can debit",
            remedy="Write client:<id>[:held], payable:<party>:netted, own:<wallet> or"
            " own:venue:<venue>/<account>",
        )
    kind = ClaimKind(match.lastgroup or "")
    return Claim(kind, match[kind])


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutRequest:
    """Pay *amount* of *asset* from *source_wallet* to *destination*, debiting *claim*.

    Attributes:
        client_ref: the requester's own reference: one payout for each claim and reference.
        claim: see `Claim.parse`.
        amount: in the asset's smallest unit.
        rail: how coins are carried out; "": as the wallet's chain does. ``bank``: *source_wallet*
            is an account of ours at a bank, *destination* as `banks.payee` writes it.
        source_address: which address of the wallet pays; None: its hot address. On Bitcoin the
            wallet's coins are chosen, wherever they are.
        requested_by: operator, who can then not approve it.
        expires_at: when it lapses if it has not been allocated; None: never.
    """

    client_ref: str
    claim: str
    source_wallet: str
    asset: str
    amount: int
    destination: str
    requested_by: str
    reason: str = ""
    rail: str = ""
    source_address: str | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        Claim.parse(self.claim)
        if not 0 < len(self.client_ref) <= REFERENCE_LENGTH_MAX:
            raise BadInput(f"a reference has 1 to {REFERENCE_LENGTH_MAX} characters")
        if len(self.reason) > REASON_LENGTH_MAX:
            raise BadInput(f"a reason has at most {REASON_LENGTH_MAX} characters")
        if not 0 < self.amount <= AMOUNT_MAX:
            raise BadInput(f"a payout of {self.amount} is not possible")
        if not self.requested_by:
            raise BadInput("a payout is requested by somebody")


@dataclass(frozen=True, slots=True, order=True)
class Quorum:
    """So many distinct people of a named group."""

    group: str
    approvals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Payout:
    """A payout as it stands; what is not said is as it is of one that was just requested.

    Attributes:
        amount: in the asset's unit (what the ledger counts); *chain_amount* in the token's.
        contract: token contract; None for the native coin *native_asset*, which pays the fee.
        sender: the paying address; *sender_path* is where the signer finds its key.
        hold_epoch: counts how often coins and fee were held; it is in the ids of those holds.
        attempt: number of the current attempt, 0 before allocation.
        fee_cap: wei held for the current attempt; *fee_paid* what the block took.
        succeeded: whether the mined transaction moved the coins; None while not mined.
        claim_returned: the claim has its money back, though a block may still have the bytes:
            nothing is held any more, and nobody may send them again.
        waiting_for: why the worker could not go on when it last tried, in words.
        run_after: when the worker looks at it again.
        rule: number of the rule of *policy_version* that decided, from 1.
        required: which groups have to approve it; *approvals_required* is their sum.
        party: whose claim it is; None of an own transfer.
        destination_id: the entry of the allow-list; None of an own transfer.
        requested_expiry: *expires_at* as it was asked for: the policy may have made it earlier.
        released_at: since when it does not count as reserved any more; None while it does.
    """

    id: UUID
    book: int
    client_ref: str
    claim: str
    rail: str
    chain: str
    chain_id: int
    source_wallet: str
    sender: str
    sender_path: str
    asset: str
    amount: int
    contract: str | None
    chain_amount: int
    native_asset: str
    destination: str
    requested_by: str
    reason: str
    policy_version: int
    approvals_required: int = 1
    state: PayoutState = PayoutState.REQUESTED
    hold_epoch: int = 0
    attempt: int = 0
    nonce: int | None = None
    fee_cap: int = 0
    fee_paid: int | None = None
    succeeded: bool | None = None
    tx_hash: str | None = None
    mined_height: int | None = None
    mined_block: str | None = None
    waiting_for: str = ""
    run_after: datetime
    created_at: datetime
    expires_at: datetime | None = None
    fence: int = 0
    claim_returned: bool = False
    rule: int = 0
    required: tuple[Quorum, ...] = ()
    party: str | None = None
    destination_id: UUID | None = None
    requested_expiry: datetime | None = None
    released_at: datetime | None = None

    @property
    def parsed_claim(self) -> Claim:
        """Return the claim as a value."""
        return Claim.parse(self.claim)

    @property
    def signed_client(self) -> str | None:
        """Return for whom it is paid, as approvers sign it; None: to a wallet of our own."""
        claim = self.parsed_claim
        return None if claim.kind is ClaimKind.OWN else claim.name

    @property
    def fills_gap(self) -> bool:
        """Tell whether it pays nobody and only spends a nonce that others wait behind."""
        return self.amount == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One transaction of a payout; *raw* and *tx_hash* are None until it is signed."""

    id: UUID
    payout_id: UUID
    number: int
    chain: str
    sender: str
    nonce: int
    state: AttemptState
    unsigned: bytes
    gas_limit: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    tx_hash: str | None
    raw: bytes | None
    broadcasts: int
    last_broadcast_at: datetime | None
    detail: str
    built_at: datetime
    signed_at: datetime | None
    kind: AttemptKind = AttemptKind.PAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Nonce:
    """One nonce of a sending address; *since* tells when its state last changed."""

    chain: str
    sender: str
    nonce: int
    payout_id: UUID
    state: NonceState
    since: datetime


@dataclass(frozen=True, slots=True)
class Source:
    """One of our addresses, as a place that coins leave from or come to."""

    address: str
    wallet: str
    branch: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """An operator's signature under a payout, as it is handed to the signer.

    *statement_id* is the same for all payouts that were approved under one signature.
    """

    payout_id: UUID
    operator: str
    signature: bytes
    lines: tuple[dict[str, str | int], ...]
    at: datetime
    statement_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedDestination:
    """Where a party's coins may go. Usable from *usable_from* on (a cooling-off time).

    Attributes:
        chain_id: network id of *chain* (EIP-155).
        acknowledged: known addresses that begin and end like it, as its proposer named them.
        code_hash: SHA-256 of the code that was found there; *return_tx* is a transaction in which
            a contract has paid us.
        proposal_signature, signature: of the same bytes, by who proposed and who approved.
    """

    id: UUID
    party: str
    chain: str
    chain_id: int
    address: str
    kind: DestinationKind
    label: str
    state: ControlState
    proposed_by: str
    proposed_at: datetime
    cooling_off_s: int
    acknowledged: tuple[str, ...] = ()
    proposal_signature: bytes = b""
    code_hash: str | None = None
    code_checked_at: datetime | None = None
    return_tx: str | None = None
    returned_at: datetime | None = None
    approved_by: str | None = None
    approved_at: datetime | None = None
    signature: bytes | None = None
    usable_from: datetime | None = None
    revoked_by: str | None = None
    revoke_signature: bytes | None = None


@dataclass(frozen=True, slots=True)
class ForeignLeg:
    """Coins that left one of our wallets without our doing; *account* is debited for them."""

    wallet: str
    account: str
    asset: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignSpend:
    """A transaction that we did not make and that took coins or a nonce of ours.

    Attributes:
        nonce: of the sending address, if it is ours; None when somebody else sent it.
        epoch: counts its inclusions.
    """

    id: UUID
    chain: str
    tx_hash: str
    sender: str
    nonce: int | None
    state: ForeignState
    epoch: int
    block_hash: str
    height: int
    legs: tuple[ForeignLeg, ...]
    seen_at: datetime
