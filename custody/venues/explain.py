"""What there is to tell about a transfer: its row, its life, and what is on its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.errors import UnknownRow
from custody.payout_model import Payout
from custody.payout_store import get_payout
from custody.venues import store
from custody.venues.model import (
    OPEN_WITHDRAWALS,
    Place,
    RegisteredAddress,
    VenueDeposit,
    VenueDepositState,
    VenueWithdrawal,
)
from custody.venues.moves import DEPOSIT, WITHDRAWAL
from kernel.events import DomainEvent, list_history
from registry.queries import list_entities


@dataclass(frozen=True, slots=True)
class TransferStory:
    """A transfer with its life, oldest event first; *payout* of one to a venue."""

    transfer: VenueDeposit | VenueWithdrawal
    events: Sequence[DomainEvent]
    payout: Payout | None
    approvers: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnItsWay:
    """What the venue's balance and our books may differ by, because both sides do not show it yet.

    Attributes:
        amount: smallest units; above zero: on its way to the venue, below: from it.
        posted: whether our books have it in transit.
    """

    id: UUID
    asset: str
    amount: int
    posted: bool
    state: str
    venue_ref: str | None
    tx_id: str | None


async def explain_transfer(conn: AsyncConnection, transfer_id: UUID) -> TransferStory:
    """Return the story of a transfer to or from a venue.

    Raises:
        UnknownRow: there is none with that id.
    """
    try:
        outward = await store.get_deposit(conn, transfer_id)
    except UnknownRow:
        inward = await store.get_withdrawal(conn, transfer_id)
        events = await list_history(conn, WITHDRAWAL, transfer_id)
        approvers = list(await store.list_approvals(conn, transfer_id))
        return TransferStory(inward, events, None, approvers)
    events = await list_history(conn, DEPOSIT, transfer_id)
    payout = await get_payout(conn, outward.payout_id)
    return TransferStory(outward, events, payout, ())


async def get_address(conn: AsyncConnection, address_id: UUID) -> RegisteredAddress:
    """Return a registration of a venue's deposit address.

    Raises:
        UnknownRow: there is none with that id.
    """
    return await store.get_address(conn, address_id)


async def get_withdrawal(conn: AsyncConnection, withdrawal_id: UUID) -> VenueWithdrawal:
    """Return a withdrawal from a venue.

    Raises:
        UnknownRow: there is none with that id.
    """
    return await store.get_withdrawal(conn, withdrawal_id)


async def get_deposit(conn: AsyncConnection, deposit_id: UUID) -> VenueDeposit:
    """Return a transfer to a venue.

    Raises:
        UnknownRow: there is none with that id.
    """
    return await store.get_deposit(conn, deposit_id)


async def list_transfers(
    conn: AsyncConnection, *, book: int, place: Place | None = None
) -> list[VenueDeposit | VenueWithdrawal]:
    """Return transfers in both directions, oldest first."""
    found: list[VenueDeposit | VenueWithdrawal] = [
        *await store.list_deposits(conn, book=book, place=place),
        *await store.list_withdrawals(conn, book=book, place=place),
    ]
    return sorted(found, key=lambda item: item.id)


async def list_addresses(
    conn: AsyncConnection, *, place: Place | None = None
) -> list[RegisteredAddress]:
    """Return every registration of a venue's deposit address, oldest first."""
    return await store.list_addresses(conn, place=place)


async def list_on_their_way(conn: AsyncConnection, place: Place, *, book: int) -> list[OnItsWay]:
    """Return what a reconciliation of the account has to know about open transfers."""
    found = []
    for out in await store.list_deposits(
        conn, book=book, place=place, states={VenueDepositState.OPEN}
    ):
        payout = await get_payout(conn, out.payout_id)
        found.append(
            OnItsWay(
                id=out.id,
                asset=out.asset,
                amount=out.amount,
                posted=payout.tx_hash is not None,
                state=str(payout.state),
                venue_ref=None,
                tx_id=payout.tx_hash,
            )
        )
    return found + [_from_venue(item) for item in await _list_sent(conn, place, book)]


async def list_unsettled(conn: AsyncConnection, venue: str, account: str) -> list[tuple[str, int]]:
    """Return (asset, smallest units) that the venue may show already and our books do not have yet.

    Above zero: deposits whose credit is not posted. Below: withdrawals whose debit is not.
    """
    place = Place(venue, account)
    found: list[tuple[str, int]] = []
    for entity in await list_entities(conn):
        going = await list_on_their_way(conn, place, book=entity.book)
        found += [(item.asset, item.amount) for item in going if item.amount > 0 or not item.posted]
    return found


async def _list_sent(conn: AsyncConnection, place: Place, book: int) -> list[VenueWithdrawal]:
    found = await store.list_withdrawals(conn, book=book, place=place, states=OPEN_WITHDRAWALS)
    return [item for item in found if item.signed_at is not None]


def _from_venue(item: VenueWithdrawal) -> OnItsWay:
    return OnItsWay(
        id=item.id,
        asset=item.asset,
        amount=-(item.amount if item.sent is None else item.sent + (item.fee or 0)),
        posted=item.sent is not None,
        state=str(item.state),
        venue_ref=item.venue_ref,
        tx_id=item.tx_id,
    )
