"""Coins to a venue: a payout of our own, and the venue's credit of it.

The payout goes the way of every payout. Its coins are in transit from the block that has them gone;
they are the venue's to owe once both sides show them: the payout is confirmed, and the venue lists the
deposit as credited.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.errors import NotPossible
from custody.payout_model import RELEASED, Payout, PayoutRequest, PayoutState
from custody.payout_requests import request_payout
from custody.payout_store import lock_payouts
from custody.venues import store
from custody.venues.addresses import find_route, verify_address
from custody.venues.matching import find_credit, find_strange
from custody.venues.model import (
    AddressState,
    Place,
    TransferAlarm,
    TransferPolicy,
    VenueDeposit,
    VenueDepositState,
    WorkReport,
)
from custody.venues.moves import move_deposit, tell_deposit
from custody.venues.postings import credited, deposit_accounts, uncredited
from kernel.clock import Clock
from kernel.db import transact
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import Transfer
from ledger.posting import post, require_applied
from venues.treasury_model import DepositRecord, bare
from venues.treasury_ports import VenueTreasury

D = VenueDepositState


async def send_to_venue(
    engine: AsyncEngine,
    treasury: VenueTreasury,
    *,
    client_ref: str,
    source_wallet: str,
    asset: str,
    amount: int,
    requested_by: str,
    book: int,
    clock: Clock,
    reason: str = "",
    expires_at: datetime | None = None,
) -> tuple[Payout, VenueDeposit]:
    """Ask for a payout to our account at the venue, after the venue has confirmed its address.

    Approved, signed, sent and confirmed like any other; a reference again returns what there is.

    Raises:
        Refused: no address is registered for the asset on the wallet's chain, the venue names another
            one now, or what `custody.payouts.request_payout` refuses.
        VenueUnavailable: the venue does not answer.
    """
    place = Place(treasury.venue, treasury.account)
    found = await transact(
        engine, partial(find_route, place=place, wallet=source_wallet, asset=asset)
    )
    verified = await verify_address(engine, treasury, found.id, clock=clock)
    if verified.state is not AddressState.ACTIVE:
        raise NotPossible(
            f"address {found.id} of {place} is {verified.state}: {verified.reason}",
            remedy="Find out why, and have two people register the new one",
        )
    request = PayoutRequest(
        client_ref=client_ref,
        claim=place.claim,
        source_wallet=source_wallet,
        asset=asset,
        amount=amount,
        destination=verified.address,
        requested_by=requested_by,
        reason=reason,
        expires_at=expires_at,
    )

    payout = await transact(
        engine, partial(request_payout, request=request, book=book, now=clock.now())
    )
    # Behind the ledger's head nothing may wait, so the row is of a second transaction; whoever works
    # on the place makes it as well, should this process end here.
    await transact(engine, partial(adopt_payouts, place=place, book=book, now=clock.now()))
    rows = await transact(engine, partial(store.list_deposits_of, payout_ids=[payout.id]))
    return payout, rows[payout.id]


async def adopt_payouts(
    conn: AsyncConnection, place: Place, *, book: int, now: datetime
) -> list[VenueDeposit]:
    """Give every payout to the place its row here, whoever asked for it; return the new ones."""
    made = []
    missing = await store.list_payouts_without_row(conn, place, book)
    known = await store.list_addresses(conn, place=place) if missing else []
    by_key = {(item.chain, item.asset, item.address): item for item in known}
    for payout_id, chain, asset, destination, amount, wallet in missing:
        address = by_key[chain, asset, destination]
        item = VenueDeposit(
            id=derive_id(now, "venue_deposit", payout_id),
            book=book,
            payout_id=payout_id,
            address_id=address.id,
            venue=place.venue,
            account=place.account,
            source=wallet,
            asset=asset,
            network=address.network,
            amount=amount,
            state=D.OPEN,
            venue_ref=None,
            credited=None,
            epoch=0,
            waiting_for="",
            late_since=None,
            created_at=now,
            updated_at=now,
        )
        if await store.insert_deposit(conn, item):
            await tell_deposit(conn, item, None, now=now)
            made.append(item)
    return made


async def settle_deposits(
    conn: AsyncConnection,
    place: Place,
    records: Sequence[DepositRecord] | None,
    *,
    book: int,
    now: datetime,
    policy: TransferPolicy,
    report: WorkReport,
) -> None:
    """Take the open transfers to a place as far as payouts and the venue's list say.

    Args:
        records: what the venue lists; None: it did not answer, and nothing is credited.
    """
    # Those credited long ago are deeper than any chain reorganises.
    since = now - policy.look_back
    still_open = await store.list_deposits(conn, book=book, place=place, states={D.OPEN})
    undone = await store.list_undone_deposits(conn, place, book=book, since=since)
    ids = undone | {item.payout_id for item in still_open}
    # The block follower locks payouts first, and so does this: nobody waits for the other.
    payouts = await lock_payouts(conn, ids)
    rows = await store.list_deposits_of(conn, ids, lock=True)
    refs = {record.venue_ref for record in records or ()}
    taken = await store.list_credited_refs(conn, place, refs)
    batch: list[Transfer] = []
    moves: list[tuple[VenueDeposit, VenueDepositState, str, DepositRecord | None]] = []
    for payout_id, payout in sorted(payouts.items()):
        item = rows[payout_id]
        if item.state is D.CREDITED and payout.state is not PayoutState.CONFIRMED:
            batch += uncredited(item)
            moves.append((item, D.OPEN, "", None))
        elif item.state is D.OPEN and payout.state in RELEASED:
            moves.append((item, D.ENDED, "", None))
        elif item.state is D.OPEN:
            why, record = _look(item, payout, records, taken)
            if record is not None:
                taken.add(record.venue_ref)
                batch += credited(item, item.amount)
            moves.append((item, D.CREDITED if record else D.OPEN, why, record))
    if batch:
        keys = {key for item in rows.values() for key in deposit_accounts(item)}
        await ensure_accounts(conn, book, keys, now=now)
        require_applied(await post(conn, book, batch, now=now))
    for item, to, why, record in moves:
        await _write(conn, item, to, why, record, now=now, policy=policy, report=report)
    # What came of our own sending, and is not what was sent, is told by its transfer's reason too.
    ours = {
        bare(payouts[item.payout_id].tx_hash or "")
        for item, to, _, record in moves
        if to is D.OPEN and record is None and _may_come(item, payouts[item.payout_id], records)
    }
    for stranger in find_strange(records or (), ours=ours, taken=taken):
        report.alarms.append(TransferAlarm(None, _told(place, stranger)))


def _look(
    item: VenueDeposit,
    payout: Payout,
    records: Sequence[DepositRecord] | None,
    taken: set[str],
) -> tuple[str, DepositRecord | None]:
    """Return why the transfer is not over, or the venue's credit that ends it."""
    if payout.state not in {PayoutState.MINED, PayoutState.CONFIRMED}:
        return f"the payout is {payout.state}", None
    if records is None:
        return "the venue does not answer", None
    found = find_credit(item, payout, records, taken=taken)
    if found.record is not None and payout.state is PayoutState.MINED:
        return "the venue shows it; the payout is not confirmed yet", None
    return found.why, found.record


def _may_come(item: VenueDeposit, payout: Payout, records: Sequence[DepositRecord] | None) -> bool:
    """Tell whether what the venue lists of the payout's transaction only waits for our own side."""
    return find_credit(item, payout, records or (), taken=()).record is not None


def _told(place: Place, record: DepositRecord) -> str:
    return (
        f"{place} credits {record.amount} {record.asset} as {record.venue_ref} under"
        f" {record.tx_id}, which is no transfer of ours"
    )


async def _write(
    conn: AsyncConnection,
    item: VenueDeposit,
    to: VenueDepositState,
    why: str,
    record: DepositRecord | None,
    *,
    now: datetime,
    policy: TransferPolicy,
    report: WorkReport,
) -> None:
    if to is D.CREDITED and record is not None:
        await move_deposit(
            conn,
            item,
            to,
            now=now,
            venue_ref=record.venue_ref,
            credited=item.amount,
            epoch=item.epoch + 1,
            waiting_for="",
        )
        report.credited.append(item.id)
    elif item.state is D.CREDITED:
        reason = "the sending is not confirmed any more: both sides have to show it anew"
        name = "VenueDepositReopened"
        await move_deposit(
            conn,
            item,
            to,
            now=now,
            name=name,
            reason=reason,
            venue_ref=None,
            credited=None,
            waiting_for=reason,
        )
        report.reopened.append(item.id)
        report.alarms.append(TransferAlarm(item.id, reason))
    elif to is D.ENDED:
        await move_deposit(conn, item, to, now=now, waiting_for="")
        report.ended.append(item.id)
    else:
        report.waiting[item.id] = why
        if why != item.waiting_for:
            await store.update_deposit(conn, item.id, waiting_for=why)
        await _watch(conn, item, why, now=now, policy=policy, report=report)


async def _watch(
    conn: AsyncConnection,
    item: VenueDeposit,
    why: str,
    *,
    now: datetime,
    policy: TransferPolicy,
    report: WorkReport,
) -> None:
    """Tell people once that a transfer is late, and every caller as long as it is: it stays open."""
    if now - item.created_at < policy.deposit_within:
        return
    reason = f"open for {now - item.created_at}: {why}"
    report.alarms.append(TransferAlarm(item.id, reason))
    if item.late_since is None:
        await store.update_deposit(conn, item.id, late_since=now)
        await tell_deposit(conn, item, item.state, now=now, name="VenueDepositLate", reason=reason)
