"""Values of a venue's treasury: addresses to pay in to, withdrawals, what the venue lists of both.

Units: amounts are smallest units of the asset. Coins change hands with venues through a chain, so each
value names the venue's own word for the network; which chain of ours that is, is reference data of
custody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Final
from uuid import UUID

from venues.model import RefusalKind


@dataclass(frozen=True, slots=True, kw_only=True)
class TreasuryCapabilities:
    """What a venue's treasury can do, so that nobody asks for its name.

    Attributes:
        takes_client_id: whether a withdrawal can be given an id of ours, which the venue lists again.
        acceptance: how long after it was signed a request may still be accepted; None: silence never
            proves anything.
        settling: how much later than its acceptance a withdrawal may appear in the list.
        names_addresses: whether a withdrawal names an address saved at the venue by its key.
    """

    takes_client_id: bool
    acceptance: timedelta | None
    settling: timedelta
    names_addresses: bool


@dataclass(frozen=True, slots=True)
class VenueAddress:
    """Where the venue wants coins for the account; *tag* is "" where the network has none."""

    address: str
    tag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueNetwork:
    """One network of an asset, as the venue states it now.

    Attributes:
        fee: what a withdrawal costs, on top of or out of what is asked for.
        least: smallest withdrawal.
        step: withdrawals are multiples of this.
    """

    asset: str
    network: str
    fee: int
    least: int
    step: int
    withdraws: bool
    deposits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalTicket:
    """A withdrawal to be asked for, once.

    Attributes:
        withdrawal_id: ours, deterministic; sent where the venue takes one.
        amount: what the venue is asked for, its fee included where the venue takes it out of that.
        text: the same as the decimal text that is sent.
        signed_at: venue time that is written into the request.
        window: how long after *signed_at* the venue accepts it.
    """

    id: UUID
    withdrawal_id: str
    asset: str
    network: str
    address: str
    amount: int
    text: str
    signed_at: datetime
    window: timedelta


@dataclass(frozen=True, slots=True)
class WithdrawalAccepted:
    """The venue has the request; *venue_ref* is its own id of it."""

    venue_ref: str


@dataclass(frozen=True, slots=True)
class WithdrawalRefused:
    """The venue said no: nothing was and nothing will be withdrawn."""

    reason: str
    kind: RefusalKind = RefusalKind.FINAL


@dataclass(frozen=True, slots=True)
class WithdrawalUnknown:
    """The venue may or may not have accepted it."""

    reason: str


WithdrawalPlacement = WithdrawalAccepted | WithdrawalRefused | WithdrawalUnknown


@unique
class WithdrawalStatus(StrEnum):
    """What a venue says about a withdrawal."""

    PROCESSING = "processing"
    """Debited, not necessarily on its way."""
    COMPLETED = "completed"
    FAILED = "failed"
    """Not paid: given back to the account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRecord:
    """A withdrawal as the venue lists it.

    Attributes:
        venue_ref: the venue's id.
        withdrawal_id: ours; "" where the venue knows none.
        sent: what the payee gets; *fee*: what the venue keeps. Both together leave the account.
        tx_id: of the transaction on the chain; "" as long as the venue does not say.
    """

    venue_ref: str
    withdrawal_id: str
    asset: str
    network: str
    address: str
    tag: str
    sent: int
    fee: int
    status: WithdrawalStatus
    tx_id: str
    at: datetime


@unique
class DepositStatus(StrEnum):
    """What a venue says about a deposit."""

    PENDING = "pending"
    CREDITED = "credited"
    """The account has it, whether or not it may be withdrawn again yet."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositRecord:
    """A deposit as the venue lists it; *venue_ref* is the venue's id of it."""

    venue_ref: str
    asset: str
    network: str
    address: str
    tag: str
    amount: int
    tx_id: str
    status: DepositStatus
    at: datetime


def same_transaction(ours: str, theirs: str) -> bool:
    """Tell whether two spellings of a transaction id are the same id; "" is none."""
    return bool(ours) and bare(ours) == bare(theirs)


def same_address(ours: str, theirs: str) -> bool:
    """Tell whether two spellings are one address: of hexadecimal ones only the checksum is case."""
    if ours.startswith(("0x", "0X")):
        return ours.lower() == theirs.lower()
    return ours == theirs


def bare(tx_id: str) -> str:
    """Return a transaction id in the one spelling in which ids are compared."""
    return tx_id.lower().removeprefix("0x")


CLOCKS_APART_MAX: Final = timedelta(minutes=5)
"""How much earlier than it was signed, by the venue's clock, a withdrawal may be listed to be it."""


def find_candidates(
    ticket: WithdrawalTicket,
    records: Iterable[WithdrawalRecord],
    *,
    taken: Collection[str],
    by_id: bool,
) -> list[WithdrawalRecord]:
    """Return the records that are, or may be, what came of the ticket.

    Where the venue lists our ids, only the id counts: one without is somebody else's, however equal.
    Where it knows none: asset, address and amount have to be the ticket's (the venue may or may not
    count its fee in), it may not be older than the request, and no other withdrawal of ours may have
    it. More than one means that the records cannot tell.

    Args:
        taken: venue ids that other withdrawals of ours have.
        by_id: whether the venue lists our ids.
    """
    if by_id:
        return [item for item in records if item.withdrawal_id == ticket.withdrawal_id]
    found = []
    for item in records:
        amounts = {item.sent, item.sent + item.fee}
        if (
            item.venue_ref not in taken
            and item.at >= ticket.signed_at - CLOCKS_APART_MAX
            and item.asset == ticket.asset
            and same_address(ticket.address, item.address)
            and ticket.amount in amounts
        ):
            found.append(item)
    return found
