"""Which of the venue's records is which of our transfers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from custody.payout_model import Payout
from custody.venues.model import VenueDeposit, VenueWithdrawal
from venues.treasury_model import (
    DepositRecord,
    DepositStatus,
    TreasuryCapabilities,
    WithdrawalRecord,
    bare,
    find_candidates,
    same_address,
    same_transaction,
)


@dataclass(frozen=True, slots=True)
class Credit:
    """What the venue shows of coins that we sent: *record* if it credited them; else *why* not."""

    record: DepositRecord | None
    why: str = ""


def find_credit(
    item: VenueDeposit,
    payout: Payout,
    records: Iterable[DepositRecord],
    *,
    taken: Collection[str],
) -> Credit:
    """Return the venue's credit of what the payout's transaction brought.

    Transaction, network, address, asset and amount have to be those of the payout. One transaction
    may bring several of our transfers: each record is the credit of one of them.

    Args:
        taken: the venue's ids of records that other transfers have.
    """
    near = ""
    for record in records:
        if record.venue_ref in taken or not same_transaction(payout.tx_hash or "", record.tx_id):
            continue
        found = (record.asset, record.network, record.amount)
        if found != (item.asset, item.network, item.amount):
            near = (
                f"the venue shows {record.amount} {record.asset} on {record.network} for"
                f" {record.tx_id}: not the {item.amount} {item.asset} on {item.network} of ours"
            )
        elif not same_address(payout.destination, record.address) or record.tag:
            near = f"the venue shows {record.tx_id} at another address, {record.address}"
        elif record.status is DepositStatus.CREDITED:
            return Credit(record)
        else:
            near = near or f"the venue shows it as {record.status}"
    return Credit(None, near or "the venue does not show it yet")


class Trace(Enum):
    """What the venue's list says about a withdrawal whose outcome is unknown."""

    FOUND = auto()
    AMBIGUOUS = auto()
    """Several records could be it, or one that is another withdrawal's: nothing tells them apart."""
    ABSENT = auto()
    """Not there, and it can not come any more: once more on the way to certainty."""
    SILENT = auto()
    """Not there, which proves nothing yet."""


@dataclass(frozen=True, slots=True)
class Traced:
    """What became of it as far as the list tells; *record* when it was found."""

    trace: Trace
    record: WithdrawalRecord | None = None


def trace(
    item: VenueWithdrawal,
    records: Iterable[WithdrawalRecord],
    *,
    taken: Collection[str],
    by_id: bool,
    door_shut: bool,
) -> Traced:
    """Return what the list says about a withdrawal that was sent without a believable answer.

    Args:
        taken: the venue's ids of records that other withdrawals have.
        by_id: whether the venue lists our ids.
        door_shut: whether, before the list was asked for, the venue's clock showed that it can not
            accept the request any more.
    """
    found = find_candidates(item.ticket, records, taken=taken, by_id=by_id)
    if len(found) == 1 and found[0].venue_ref not in taken:
        return Traced(Trace.FOUND, found[0])
    if found:
        return Traced(Trace.AMBIGUOUS)
    return Traced(Trace.ABSENT if door_shut else Trace.SILENT)


def is_door_shut(item: VenueWithdrawal, venue_now: datetime, can: TreasuryCapabilities) -> bool:
    """Tell whether the venue can no longer accept the request, and would list it if it had.

    Where a request has no end, that is never so, and people decide.
    """
    if can.acceptance is None:
        return False
    ticket = item.ticket
    return venue_now > ticket.signed_at + max(can.acceptance, ticket.window) + can.settling


def contradiction(item: VenueWithdrawal, record: WithdrawalRecord) -> str:
    """Say in what the venue's record is not what was asked for; "" where it is."""
    if record.asset != item.asset:
        return f"the venue withdraws {record.asset}, not {item.asset}"
    if record.network != item.network:
        return f"the venue withdraws on {record.network}, not on {item.network}"
    if not same_address(item.address, record.address) or record.tag:
        return f"the venue pays {record.address}, not our {item.address}"
    if record.sent < 0 or record.fee < 0:
        return f"the venue sends {record.sent} and keeps {record.fee}"
    if item.amount not in {record.sent, record.sent + record.fee}:
        return f"the venue sends {record.sent} and keeps {record.fee} of {item.amount}"
    return ""


def find_doubt(item: VenueWithdrawal, record: WithdrawalRecord) -> str:
    """Say what people must look at in the venue's record of a withdrawal that is posted; "": nothing."""
    if not same_address(item.address, record.address) or record.tag:
        return f"the venue pays {record.address}, not our {item.address}"
    if (record.sent, record.fee) != (item.sent, item.fee):
        return (
            f"the venue shows {record.sent} sent and {record.fee} kept, after {item.sent} and"
            f" {item.fee}"
        )
    if record.fee > item.fee_max:
        return f"the venue keeps {record.fee}, more than the {item.fee_max} allowed"
    return ""


def find_strange(
    records: Iterable[DepositRecord], *, ours: Collection[str], taken: Collection[str]
) -> list[DepositRecord]:
    """Return what the venue credited and no transfer of ours explains, now or soon.

    Args:
        ours: transactions of open transfers, as `bare`.
        taken: the venue's ids of records that transfers have.
    """
    return [
        item
        for item in records
        if item.status is DepositStatus.CREDITED
        and item.venue_ref not in taken
        and bare(item.tx_id) not in ours
    ]
