"""The worker: takes transfers to and from one account at a venue as far as they go now.

Every step is: look outside, then one short transaction for what was seen. A crash between any two
leaves rows from which the next call goes on; the only act that is not repeated is the request to
withdraw (`custody.venues.sending`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.venues import store
from custody.venues.addresses import verify_address
from custody.venues.deposits import adopt_payouts, settle_deposits
from custody.venues.following import Seen, follow_withdrawals
from custody.venues.model import (
    DEFAULT_POLICY,
    OPEN_WITHDRAWALS,
    AddressState,
    Place,
    RegisteredAddress,
    TransferAlarm,
    TransferPolicy,
    VenueDepositState,
    WithdrawalState,
    WorkReport,
)
from custody.venues.sending import submit
from custody.venues.withdrawals import expire_withdrawals
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import BadInput, OutsideUnavailable, Refused
from venues.treasury_model import DepositRecord
from venues.treasury_ports import VenueTreasury

SUBMITTED_MAX: Final = 50
"""Withdrawals sent in one call, at most."""


async def advance_venue_transfers(
    engine: AsyncEngine,
    treasury: VenueTreasury,
    *,
    book: int,
    holder: str,
    clock: Clock,
    policy: TransferPolicy = DEFAULT_POLICY,
) -> WorkReport:
    """Take every transfer of the treasury's account as far as it goes now; return what was done.

    A venue that does not answer leaves everything where it is, to be looked at again; what is late is
    in the report's alarms, and in the history once.

    Args:
        engine: the database, as the runtime role.
        treasury: the account, with credentials that can withdraw.
        book: the book.
        holder: this worker's name: it holds the leases.
        clock: the time, read anew at each step.
        policy: how patient we are.
    """
    place, report = Place(treasury.venue, treasury.account), WorkReport()
    await transact(engine, partial(_begin, place=place, book=book, now=clock.now()))
    await _verify(engine, treasury, place, book=book, clock=clock, policy=policy, report=report)
    await _submit(engine, treasury, place, book=book, holder=holder, clock=clock, report=report)
    since = await transact(
        engine, partial(_since, place=place, book=book, now=clock.now(), policy=policy)
    )
    if since is None:
        return report
    # Withdrawals that were sent above are looked for below: the lists are newer than they are.
    seen = await _look(treasury, since, report)
    deposits = await _list_deposits(treasury, since, report)
    await follow_withdrawals(
        engine,
        place,
        seen,
        book=book,
        holder=holder,
        now=clock.now(),
        policy=policy,
        report=report,
    )
    await transact(
        engine,
        partial(
            settle_deposits,
            place=place,
            records=deposits,
            book=book,
            now=clock.now(),
            policy=policy,
            report=report,
        ),
    )
    return report


async def _begin(conn: AsyncConnection, *, place: Place, book: int, now: datetime) -> None:
    await adopt_payouts(conn, place, book=book, now=now)
    await expire_withdrawals(conn, place, book=book, now=now)


async def _verify(
    engine: AsyncEngine,
    treasury: VenueTreasury,
    place: Place,
    *,
    book: int,
    clock: Clock,
    policy: TransferPolicy,
    report: WorkReport,
) -> None:
    """Have the venue confirm every address to which something is on its way."""
    due = await transact(
        engine,
        partial(_list_due, place=place, book=book, before=clock.now() - policy.verified_for / 2),
    )
    for item in due:
        try:
            found = await verify_address(engine, treasury, item.id, clock=clock)
        except OutsideUnavailable as error:
            report.waiting[item.id] = error.what
            continue
        except (Refused, BadInput) as error:
            report.alarms.append(TransferAlarm(item.id, error.what))
            continue
        if found.state is AddressState.CHANGED:
            report.alarms.append(TransferAlarm(item.id, found.reason))
        else:
            report.verified.append(item.id)


async def _list_due(
    conn: AsyncConnection, *, place: Place, book: int, before: datetime
) -> list[RegisteredAddress]:
    going = await store.list_deposits(conn, book=book, place=place, states={VenueDepositState.OPEN})
    used = {item.address_id for item in going}
    found = await store.list_addresses(conn, place=place, states={AddressState.ACTIVE})
    return [
        item
        for item in found
        if item.id in used and (item.verified_at is None or item.verified_at <= before)
    ]


async def _submit(
    engine: AsyncEngine,
    treasury: VenueTreasury,
    place: Place,
    *,
    book: int,
    holder: str,
    clock: Clock,
    report: WorkReport,
) -> None:
    approved = await transact(
        engine,
        partial(
            store.list_withdrawals,
            book=book,
            place=place,
            states={WithdrawalState.APPROVED},
            due=clock.now(),
            limit=SUBMITTED_MAX,
        ),
    )
    for item in approved:
        try:
            sent = await submit(engine, treasury, item.id, holder=holder, clock=clock)
        except (Refused, BadInput) as error:
            # Its own row says how far it came; the others are sent all the same.
            report.alarms.append(TransferAlarm(item.id, error.what))
            continue
        if sent.state is WithdrawalState.APPROVED:
            report.waiting[sent.id] = sent.waiting_for
        else:
            report.submitted.append(sent.id)
            report.moved[sent.id] = sent.state


async def _since(
    conn: AsyncConnection, *, place: Place, book: int, now: datetime, policy: TransferPolicy
) -> datetime | None:
    """Return from when on the venue's lists are read; None where nothing is open or lately over."""
    recent = now - policy.look_back
    times = [
        *(
            item.created_at
            for item in await store.list_deposits(
                conn, book=book, place=place, states={VenueDepositState.OPEN}
            )
        ),
        *(
            item.requested_at
            for item in await store.list_withdrawals(
                conn, book=book, place=place, states=OPEN_WITHDRAWALS
            )
        ),
        *(
            item.created_at
            for item in await store.list_deposits(conn, book=book, place=place, since=recent)
        ),
        *(
            item.requested_at
            for item in await store.list_withdrawals(conn, book=book, place=place, since=recent)
        ),
    ]
    return min(times) - LISTING_MARGIN if times else None


LISTING_MARGIN: Final = timedelta(minutes=5)
"""What the venue's clock and ours may differ by when its lists are asked for."""


async def _look(treasury: VenueTreasury, since: datetime, report: WorkReport) -> Seen:
    """Ask for the venue's clock first: what is not listed after the door was shut never will be."""
    try:
        venue_now = await treasury.server_time()
        records = await treasury.list_withdrawals(since)
    except OutsideUnavailable as error:
        report.alarms.append(TransferAlarm(None, f"withdrawals are not listed: {error.what}"))
        return Seen(None, None, treasury.capabilities)
    return Seen(venue_now, records, treasury.capabilities)


async def _list_deposits(
    treasury: VenueTreasury, since: datetime, report: WorkReport
) -> list[DepositRecord] | None:
    try:
        return await treasury.list_deposits(since)
    except OutsideUnavailable as error:
        report.alarms.append(TransferAlarm(None, f"deposits are not listed: {error.what}"))
        return None
