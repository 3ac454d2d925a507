"""The nouns of transfers between our wallets and our accounts at venues, and their machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Final
from uuid import UUID

from custody.model import custody_account, route_account, venue_account
from custody.payout_model import TO_VENUES, VENUE_PREFIX, Quorum
from kernel.errors import BadInput
from kernel.ids import derive_id
from kernel.money import AMOUNT_MAX
from kernel.states import StateTable
from venues.treasury_model import WithdrawalTicket

SCHEMA: Final = "custody"
REASON_LENGTH_MAX: Final = 500
REFERENCE_LENGTH_MAX: Final = 120


@unique
class AddressState(StrEnum):
    """Where the registration of a venue's deposit address is."""

    PROPOSED = "proposed"
    ACTIVE = "active"
    CHANGED = "changed"
    """The venue names another one now: nothing goes there any more, and people must look."""
    REJECTED = "rejected"
    REVOKED = "revoked"


ADDRESS_STATES: Final = StateTable(
    schema=SCHEMA,
    table="venue_address",
    initial=frozenset({AddressState.PROPOSED}),
    edges=frozenset(
        {
            (AddressState.PROPOSED, AddressState.ACTIVE),
            (AddressState.PROPOSED, AddressState.REJECTED),
            (AddressState.ACTIVE, AddressState.CHANGED),
            (AddressState.ACTIVE, AddressState.REVOKED),
            (AddressState.CHANGED, AddressState.REVOKED),
        }
    ),
)


@unique
class VenueDepositState(StrEnum):
    """Where coins for a venue are; the payout that carries them has a machine of its own."""

    OPEN = "open"
    """On their way: in transit from the block that has the payout on."""
    CREDITED = "credited"
    """Our side is final, and the venue has credited them."""
    ENDED = "ended"
    """The payout will not pay: nothing left."""


DEPOSIT_STATES: Final = StateTable(
    schema=SCHEMA,
    table="venue_deposit",
    initial=frozenset({VenueDepositState.OPEN}),
    edges=frozenset(
        {
            (VenueDepositState.OPEN, VenueDepositState.CREDITED),
            (VenueDepositState.OPEN, VenueDepositState.ENDED),
            # A reorganisation has taken the sending away: both sides have to show it anew.
            (VenueDepositState.CREDITED, VenueDepositState.OPEN),
        }
    ),
)


@unique
class WithdrawalState(StrEnum):
    """Where coins from a venue are."""

    REQUESTED = "requested"
    PENDING_APPROVAL = "pending_approval"
    APPROVED = "approved"
    SUBMITTING = "submitting"
    """Being sent: from here on the venue may have the request."""
    ACKED = "acked"
    """The venue has it."""
    REFUSED = "refused"
    """The venue said no."""
    UNKNOWN = "unknown"
    """Sent, without an answer that could be believed."""
    NOT_PLACED = "not_placed"
    """Shown never to have reached the venue."""
    ESCALATED = "escalated"
    """No evidence in time, or evidence that cannot tell: two people decide."""
    DEBITED = "debited"
    """The venue shows that it has taken the coins from the account."""
    SENT = "sent"
    """The venue names the transaction that carries them."""
    ARRIVED = "arrived"
    """They are in our wallet, deep enough by policy."""
    LOST = "lost"
    """Two people have written off what the venue sent and what never came."""
    RETURNED = "returned"
    """The venue did not pay and has given them back to the account."""
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


W = WithdrawalState
_WITHDRAWN: Final = (W.REJECTED, W.CANCELLED, W.EXPIRED)

WITHDRAWAL_STATES: Final = StateTable(
    schema=SCHEMA,
    table="venue_withdrawal",
    initial=frozenset({W.REQUESTED}),
    edges=frozenset(
        {
            (W.REQUESTED, W.PENDING_APPROVAL),
            (W.REQUESTED, W.REJECTED),
            (W.PENDING_APPROVAL, W.APPROVED),
            *((state, end) for state in (W.PENDING_APPROVAL, W.APPROVED) for end in _WITHDRAWN),
            (W.APPROVED, W.SUBMITTING),
            (W.SUBMITTING, W.ACKED),
            (W.SUBMITTING, W.REFUSED),
            (W.SUBMITTING, W.UNKNOWN),
            (W.UNKNOWN, W.ACKED),
            (W.UNKNOWN, W.NOT_PLACED),
            (W.UNKNOWN, W.ESCALATED),
            (W.ESCALATED, W.ACKED),
            (W.ESCALATED, W.NOT_PLACED),
            # Two people say what the venue really moved.
            (W.ESCALATED, W.DEBITED),
            (W.ACKED, W.DEBITED),
            (W.ACKED, W.RETURNED),
            # What the venue lists is not what was asked for, or it never lists it.
            (W.ACKED, W.ESCALATED),
            (W.DEBITED, W.SENT),
            (W.DEBITED, W.RETURNED),
            (W.DEBITED, W.LOST),
            (W.SENT, W.ARRIVED),
            (W.SENT, W.RETURNED),
            (W.SENT, W.LOST),
            # A reorganisation has taken the arrival away.
            (W.ARRIVED, W.SENT),
            # The venue lists what it was shown not to have: a fact is followed, and people told.
            (W.NOT_PLACED, W.ACKED),
            (W.REFUSED, W.ACKED),
        }
    ),
)

MACHINES: Final = (ADDRESS_STATES, DEPOSIT_STATES, WITHDRAWAL_STATES)

CANCELLABLE: Final = frozenset({W.PENDING_APPROVAL, W.APPROVED})
"""Nothing was sent to the venue."""
UNSETTLED: Final = frozenset({W.SUBMITTING, W.UNKNOWN})
"""Nobody knows yet whether the venue has the request; the worker finds out."""
FOLLOWED: Final = frozenset({W.ACKED, W.DEBITED, W.SENT})
"""The venue has it, and it is not over."""
MAY_ARRIVE: Final = frozenset({*UNSETTLED, W.ESCALATED, *FOLLOWED, W.ARRIVED})
"""What comes in with its transaction id is its arrival."""
GIVEN_UP: Final = frozenset({W.REFUSED, W.NOT_PLACED})
"""Over, unless the venue lists it all the same."""
OPEN_WITHDRAWALS: Final = frozenset(
    {W.PENDING_APPROVAL, W.APPROVED, *UNSETTLED, W.ESCALATED, *FOLLOWED}
)
RELEASED: Final = frozenset({*_WITHDRAWN, *GIVEN_UP})
"""Ends at which nothing is held at the venue any more."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Our account at a venue."""

    venue: str
    account: str

    def __str__(self) -> str:
        return f"{self.venue}/{self.account}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read ``<venue>/<account>``."""
        venue, _, account = text.partition("/")
        if not venue or not account or "/" in account:
            raise BadInput(f"{text!r} is no account at a venue", remedy="Write <venue>/<account>")
        return cls(venue, account)

    @property
    def claim(self) -> str:
        """Return the claim of payouts that go there."""
        return f"{TO_VENUES}{self}"

    @property
    def wallet(self) -> str:
        """Return what stands for a wallet in policies when it pays."""
        return f"{VENUE_PREFIX}{self}"

    @property
    def path(self) -> str:
        """Return its account in the books."""
        return venue_account(str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredAddress:
    """Where a venue takes *asset* for our account, as two people registered it.

    Attributes:
        network: the venue's word for *chain*.
        destination_id: the allowed destination of the party ``own``, which the signer was told of.
        verified_at: when the venue last named this very address.
        reason: why it is not in force any more.
        proposal_signature, signature: of the same bytes, by who proposed and who approved.
    """

    id: UUID
    venue: str
    account: str
    asset: str
    network: str
    chain: str
    address: str
    tag: str
    destination_id: UUID
    state: AddressState
    proposed_by: str
    proposed_at: datetime
    proposal_signature: bytes
    approved_by: str | None = None
    approved_at: datetime | None = None
    signature: bytes | None = None
    verified_at: datetime | None = None
    reason: str = ""

    @property
    def place(self) -> Place:
        """Return whose address it is."""
        return Place(self.venue, self.account)


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueDeposit:
    """Coins that a payout takes to a venue.

    Attributes:
        payout_id: what carries them; *address_id*: the registered address that it pays.
        source: the wallet that they come from.
        venue_ref: the venue's id of the deposit that it credited; *credited*: how much of the amount.
        epoch: counts how often the credit was posted; it is in the ids of the postings.
        waiting_for: why it is not over, in words.
        late_since: when people were told that it is late; None: it is not.
    """

    id: UUID
    book: int
    payout_id: UUID
    address_id: UUID
    venue: str
    account: str
    source: str
    asset: str
    network: str
    amount: int
    state: VenueDepositState
    venue_ref: str | None
    credited: int | None
    epoch: int
    waiting_for: str
    late_since: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def place(self) -> Place:
        """Return where they go."""
        return Place(self.venue, self.account)

    @property
    def route(self) -> str:
        """Return the account of what is on its way."""
        return route_account(self.source, str(self.place))


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRequest:
    """Take *amount* of *asset* from an account at a venue to a hot address of *wallet*.

    Attributes:
        client_ref: the requester's own reference: one withdrawal for each place and reference.
        amount: what the venue is asked for, in the asset's smallest unit.
        fee_max: the most that the venue may keep beside or out of it; what it states when None.
        address: which hot address of the wallet; None: its first.
    """

    client_ref: str
    place: Place
    wallet: str
    asset: str
    amount: int
    requested_by: str
    reason: str = ""
    fee_max: int | None = None
    address: str | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.client_ref) <= REFERENCE_LENGTH_MAX:
            raise BadInput(f"a reference has 1 to {REFERENCE_LENGTH_MAX} characters")
        if len(self.reason) > REASON_LENGTH_MAX:
            raise BadInput(f"a reason has at most {REASON_LENGTH_MAX} characters")
        if not 0 < self.amount <= AMOUNT_MAX or (self.fee_max or 0) < 0:
            raise BadInput(f"a withdrawal of {self.amount} with a fee of {self.fee_max}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueWithdrawal:
    """A withdrawal as it stands.

    Attributes:
        network: the venue's word for *chain*.
        withdrawal_id: ours, derived from what makes it this one; the venue is told it where it
            takes one.
        text: *amount* as it is sent.
        requested_at: with *id*, the time that the ids of its postings begin with.
        signed_at: venue time written into the request; *window*: how long after it is accepted.
        venue_ref: the venue's id.
        sent, fee: what the payee gets, and what the venue keeps.
        arrival_id: the deposit row of what arrived.
        not_found: looks in a row, after the door was shut, at which the venue did not have it.
        released_at: since when nothing of it is held any more; None while it is.
        late_since: when people were told that it is late; None: it is not.
        fence: the claim under which the row was read.
    """

    id: UUID
    book: int
    client_ref: str
    venue: str
    account: str
    asset: str
    network: str
    chain: str
    chain_id: int
    wallet: str
    address: str
    amount: int
    text: str
    fee_max: int
    requested_by: str
    reason: str
    policy_version: int
    rule: int
    required: tuple[Quorum, ...]
    withdrawal_id: str
    state: WithdrawalState
    signed_at: datetime | None
    window: timedelta
    venue_ref: str | None
    sent: int | None
    fee: int | None
    tx_id: str | None
    arrival_id: UUID | None
    not_found: int
    waiting_for: str
    run_after: datetime
    requested_at: datetime
    updated_at: datetime
    expires_at: datetime
    released_at: datetime | None
    late_since: datetime | None
    fence: int

    @property
    def place(self) -> Place:
        """Return where the coins come from."""
        return Place(self.venue, self.account)

    @property
    def route(self) -> str:
        """Return the account of what is on its way."""
        return route_account(str(self.place), self.wallet)

    @property
    def target(self) -> str:
        """Return the account where they arrive."""
        return custody_account(self.wallet)

    @property
    def ticket(self) -> WithdrawalTicket:
        """Return what the venue is asked; the row says when it was signed."""
        assert self.signed_at is not None
        return WithdrawalTicket(
            id=self.id,
            withdrawal_id=self.withdrawal_id,
            asset=self.asset,
            network=self.network,
            address=self.address,
            amount=self.amount,
            text=self.text,
            signed_at=self.signed_at,
            window=self.window,
        )


def withdrawal_id_of(place: Place, client_ref: str, book: int) -> str:
    """Return the id that the venue is told: 32 hexadecimal digits, the same for ever."""
    return derive_id(EPOCH, "venue-withdrawal", book, str(place), client_ref).hex


EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPolicy:
    """How patient we are with venues. What is late is told; nothing is closed by time.

    Attributes:
        verified_for: how long the venue's word on a deposit address holds.
        window: how long a request to withdraw may be accepted after it was signed.
        pause: between two looks at a request that is unknown.
        not_founds: looks that have to miss it after the door was shut.
        escalate_after: without evidence, or without being listed, for so long, two people decide.
        deposit_within, withdrawal_within: after so long an open transfer is late.
        look_back: how far back the venue's lists are read beyond the oldest open transfer.
    """

    verified_for: timedelta = timedelta(minutes=15)
    window: timedelta = timedelta(seconds=5)
    pause: timedelta = timedelta(seconds=5)
    not_founds: int = 3
    escalate_after: timedelta = timedelta(minutes=30)
    deposit_within: timedelta = timedelta(hours=2)
    withdrawal_within: timedelta = timedelta(hours=6)
    look_back: timedelta = timedelta(hours=24)


DEFAULT_POLICY: Final = TransferPolicy()


@dataclass(frozen=True, slots=True)
class TransferAlarm:
    """Something that people must look at; *subject* is the id of the transfer or address, if any."""

    subject: UUID | None
    reason: str


@dataclass(slots=True)
class WorkReport:
    """What one call did: ids by what became of them, and why others wait."""

    verified: list[UUID] = field(default_factory=list)
    credited: list[UUID] = field(default_factory=list)
    reopened: list[UUID] = field(default_factory=list)
    ended: list[UUID] = field(default_factory=list)
    submitted: list[UUID] = field(default_factory=list)
    moved: dict[UUID, WithdrawalState] = field(default_factory=dict)
    waiting: dict[UUID, str] = field(default_factory=dict)
    alarms: list[TransferAlarm] = field(default_factory=list)
