"""What became of withdrawals: from the venue's list, and from the blocks that have the coins.

Nothing here is decided by time: a request is NOT_PLACED once the venue's list has missed it several
times after the venue's own clock showed that it can not accept it any more; what the list can not
tell apart, or contradicts, goes to people.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.venues import store
from custody.venues.arrivals import find_arrival, has_come
from custody.venues.matching import Trace, contradiction, find_doubt, is_door_shut, trace
from custody.venues.model import (
    FOLLOWED,
    GIVEN_UP,
    OPEN_WITHDRAWALS,
    UNSETTLED,
    Place,
    TransferAlarm,
    TransferPolicy,
    VenueWithdrawal,
    WithdrawalState,
    WorkReport,
)
from custody.venues.moves import move_withdrawal, tell_withdrawal
from custody.venues.postings import accounts, debited, released, returned
from custody.venues.sending import find_abandoned, give_back
from kernel.db import transact
from kernel.errors import BadInput, Refused, StaleFence
from ledger.accounts import ensure_accounts
from ledger.posting import post, require_applied
from venues.treasury_model import (
    TreasuryCapabilities,
    WithdrawalRecord,
    WithdrawalStatus,
    same_transaction,
)

W = WithdrawalState
Work = Callable[[AsyncConnection], Awaitable[VenueWithdrawal | None]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the venue said in one look: its clock first, then its list.

    Attributes:
        records: None where it did not answer; then nothing is concluded.
    """

    venue_now: datetime | None
    records: Sequence[WithdrawalRecord] | None
    can: TreasuryCapabilities

    def find(self, item: VenueWithdrawal) -> WithdrawalRecord | None:
        """Return the record of a withdrawal whose id at the venue is known."""
        listed = {record.venue_ref: record for record in self.records or ()}
        return listed.get(item.venue_ref or "")


async def follow_withdrawals(
    engine: AsyncEngine,
    place: Place,
    seen: Seen,
    *,
    book: int,
    holder: str,
    now: datetime,
    policy: TransferPolicy,
    report: WorkReport,
) -> None:
    """Take every open withdrawal of a place as far as the venue's list and the blocks say."""
    for withdrawal_id in await transact(
        engine, partial(store.list_lost_arrivals, place=place, book=book)
    ):
        lose = partial(_lose, withdrawal_id=withdrawal_id, now=now)
        await _note(engine, report, withdrawal_id, lose)
    open_ones = await transact(
        engine,
        partial(store.list_withdrawals, book=book, place=place, states=OPEN_WITHDRAWALS),
    )
    for item in open_ones:
        key: dict[str, Any] = {"withdrawal_id": item.id, "seen": seen, "now": now}
        if item.state in UNSETTLED and item.run_after <= now:
            resolve = partial(_resolve, holder=holder, policy=policy, **key)
            await _note(engine, report, item.id, resolve)
        # What was found just now can be followed at once.
        await _note(engine, report, item.id, partial(_follow, policy=policy, **key))
        await transact(
            engine,
            partial(
                _watch, withdrawal_id=item.id, seen=seen, now=now, policy=policy, report=report
            ),
        )
    if seen.records is not None:
        look = partial(_find_strangers, place=place, seen=seen, now=now, report=report)
        await transact(engine, look)


async def _note(engine: AsyncEngine, report: WorkReport, withdrawal_id: UUID, work: Work) -> None:
    """Do *work* in a transaction of its own, and report where the withdrawal is after it.

    What is refused is told, and holds up no other withdrawal.
    """
    try:
        after = await transact(engine, work)
    except StaleFence:
        return  # another worker has taken it over: its word stands
    except (Refused, BadInput) as error:
        report.alarms.append(TransferAlarm(withdrawal_id, error.what))
        return
    if after is not None:
        report.moved[after.id] = after.state


async def _resolve(
    conn: AsyncConnection,
    *,
    withdrawal_id: UUID,
    seen: Seen,
    holder: str,
    now: datetime,
    policy: TransferPolicy,
) -> VenueWithdrawal | None:
    """Look once for a withdrawal whose outcome is not known."""
    item = await find_abandoned(conn, withdrawal_id, holder=holder, now=now)
    if item is None:
        return None
    free = {"lease_holder": None, "lease_until": None}
    if seen.records is None or seen.venue_now is None:
        await store.update_withdrawal(
            conn, item.id, fence=item.fence, run_after=now + policy.pause, **free
        )
        return await _escalate_late(conn, item, "the venue does not answer", now, policy)
    refs = {record.venue_ref for record in seen.records}
    taken = await store.list_venue_refs(conn, item.place, refs, but=item.id)
    shut = is_door_shut(item, seen.venue_now, seen.can)
    by_id = seen.can.takes_client_id
    found = trace(item, seen.records, taken=taken, by_id=by_id, door_shut=shut)
    await store.update_withdrawal(
        conn, item.id, fence=item.fence, run_after=now + policy.pause, **free
    )
    if found.record is not None:
        return await move_withdrawal(
            conn,
            item,
            W.ACKED,
            now=now,
            reason="the venue lists it",
            venue_ref=found.record.venue_ref,
            not_found=0,
            run_after=now,
        )
    if found.trace is Trace.AMBIGUOUS:
        reason = "what the venue lists does not tell which withdrawal it is"
        return await move_withdrawal(conn, item, W.ESCALATED, now=now, reason=reason)
    missed = item.not_found + 1 if found.trace is Trace.ABSENT else 0
    if missed >= policy.not_founds:
        reason = f"not listed {missed} times after the venue could no longer accept it"
        return await give_back(conn, item, W.NOT_PLACED, reason, now)
    why = "the venue does not list it"
    await store.update_withdrawal(
        conn, item.id, fence=item.fence, not_found=missed, waiting_for=why
    )
    if found.trace is Trace.ABSENT:
        return item  # the next looks make it certain: nobody has to be asked
    return await _escalate_late(conn, item, why, now, policy)


async def _escalate_late(
    conn: AsyncConnection, item: VenueWithdrawal, why: str, now: datetime, policy: TransferPolicy
) -> VenueWithdrawal:
    since = item.signed_at or item.requested_at
    if now - since < policy.escalate_after:
        return item
    reason = f"no evidence for {now - since}: {why}"
    return await move_withdrawal(conn, item, W.ESCALATED, now=now, reason=reason)


async def _follow(
    conn: AsyncConnection,
    *,
    withdrawal_id: UUID,
    seen: Seen,
    now: datetime,
    policy: TransferPolicy,
) -> VenueWithdrawal | None:
    """Write what the venue says of a withdrawal that it has, then what blocks say of its coins."""
    item = await store.get_withdrawal(conn, withdrawal_id, lock=True)
    if item.state not in FOLLOWED:
        return None
    record = seen.find(item)
    if record is not None and item.state is not W.SENT:
        item = await _follow_venue(conn, item, record, now)
    elif item.state is W.ACKED and seen.records is not None:
        return await _escalate_late(conn, item, "the venue does not list it", now, policy)
    elif record is not None and record.status is WithdrawalStatus.FAILED:
        item = await _return_sent(conn, item, now)
    elif record is not None:
        item = await _follow_replacement(conn, item, record, now)
    if item.state is W.SENT:
        arrival = await find_arrival(conn, item, now=now)
        if arrival is not None:
            item = await move_withdrawal(conn, item, W.ARRIVED, now=now, arrival_id=arrival)
    return item


async def _follow_venue(
    conn: AsyncConnection, item: VenueWithdrawal, record: WithdrawalRecord, now: datetime
) -> VenueWithdrawal:
    if item.state is W.ACKED:
        wrong = contradiction(item, record)
        if wrong:
            return await move_withdrawal(conn, item, W.ESCALATED, now=now, reason=wrong)
        if record.status is WithdrawalStatus.FAILED:
            return await _return(conn, item, now)
        item = await _debit(conn, item, record, now)
    if record.status is WithdrawalStatus.FAILED:
        return await _return(conn, item, now)
    if record.tx_id:
        item = await move_withdrawal(conn, item, W.SENT, now=now, tx_id=record.tx_id)
    return item


async def _return_sent(
    conn: AsyncConnection, item: VenueWithdrawal, now: datetime
) -> VenueWithdrawal:
    """Follow a venue that takes its word back, unless a block of ours has the coins all the same."""
    if not await has_come(conn, item):
        return await _return(conn, item, now)
    why = "the venue says that it did not pay, and a block has the coins"
    await store.update_withdrawal(conn, item.id, fence=item.fence, waiting_for=why)
    return replace(item, waiting_for=why)


async def _follow_replacement(
    conn: AsyncConnection, item: VenueWithdrawal, record: WithdrawalRecord, now: datetime
) -> VenueWithdrawal:
    """Follow a venue that has replaced its transaction by another one, unless a block has the first."""
    if not record.tx_id or same_transaction(item.tx_id or "", record.tx_id):
        return item
    if await has_come(conn, item):
        why = f"the venue names {record.tx_id} now, and a block has the coins of {item.tx_id}"
        await store.update_withdrawal(conn, item.id, fence=item.fence, waiting_for=why)
        return replace(item, waiting_for=why)
    return await move_withdrawal(
        conn, item, W.SENT, now=now, name="VenueWithdrawalReplaced", tx_id=record.tx_id
    )


async def _debit(
    conn: AsyncConnection, item: VenueWithdrawal, record: WithdrawalRecord, now: datetime
) -> VenueWithdrawal:
    await ensure_accounts(conn, item.book, accounts(item), now=now)
    lines = debited(item, record.sent, record.fee)
    require_applied(await post(conn, item.book, lines, now=now))
    return await move_withdrawal(
        conn,
        item,
        W.DEBITED,
        now=now,
        payload={"sent": str(record.sent), "fee": str(record.fee)},
        sent=record.sent,
        fee=record.fee,
    )


async def _return(conn: AsyncConnection, item: VenueWithdrawal, now: datetime) -> VenueWithdrawal:
    """Follow the venue, which did not pay: what was posted is reversed, what was held is free."""
    if item.state is W.ACKED:
        lines = released(item) if item.released_at is None else ()
    else:
        lines = returned(item)
    if lines:
        require_applied(await post(conn, item.book, lines, now=now))
    reason = "the venue did not pay, and has given it back"
    return await move_withdrawal(conn, item, W.RETURNED, now=now, reason=reason)


async def _lose(conn: AsyncConnection, *, withdrawal_id: UUID, now: datetime) -> VenueWithdrawal:
    """Wait again for coins whose block is gone."""
    item = await store.get_withdrawal(conn, withdrawal_id, lock=True)
    if item.state is not W.ARRIVED:
        return item
    reason = "the block that had it is no longer on the chain"
    return await move_withdrawal(
        conn,
        item,
        W.SENT,
        now=now,
        name="VenueWithdrawalArrivalLost",
        reason=reason,
        arrival_id=None,
        waiting_for=reason,
    )


async def _watch(
    conn: AsyncConnection,
    *,
    withdrawal_id: UUID,
    seen: Seen,
    now: datetime,
    policy: TransferPolicy,
    report: WorkReport,
) -> None:
    """Say why an open withdrawal waits; tell people once that it is late, and never close it."""
    item = await store.get_withdrawal(conn, withdrawal_id, lock=True)
    if item.state not in OPEN_WITHDRAWALS or item.signed_at is None:
        return
    why = item.waiting_for or f"it is {item.state}"
    report.waiting[item.id] = why
    record = seen.find(item)
    doubt = "" if record is None or item.sent is None else find_doubt(item, record)
    if doubt:
        report.alarms.append(TransferAlarm(item.id, doubt))
    open_for = now - item.requested_at
    if item.state is W.ESCALATED:
        report.alarms.append(TransferAlarm(item.id, "people have to say what became of it"))
    elif open_for >= policy.withdrawal_within:
        report.alarms.append(TransferAlarm(item.id, f"open for {open_for}: {why}"))
    else:
        return
    if item.late_since is None:
        await store.update_withdrawal(conn, item.id, fence=item.fence, late_since=now)
        reason = f"open for {open_for}: {why}"
        await tell_withdrawal(
            conn, item, item.state, now=now, name="VenueWithdrawalLate", reason=reason
        )


async def _find_strangers(
    conn: AsyncConnection,
    *,
    place: Place,
    seen: Seen,
    now: datetime,
    report: WorkReport,
) -> None:
    """Alarm about withdrawals that the venue lists and that none of ours is.

    One that carries an id of ours which was given up is followed all the same: it is a fact.
    """
    records = seen.records or ()
    for record, mine in await list_strange(conn, place, records, can=seen.can):
        if mine is not None and mine.state in GIVEN_UP:
            await reopen(conn, mine.id, record, now)
            reason = f"the venue lists {record.venue_ref}, which was {mine.state}"
            report.alarms.append(TransferAlarm(mine.id, reason))
        else:
            subject = None if mine is None else mine.id
            report.alarms.append(TransferAlarm(subject, _stranger(place, record)))


async def list_strange(
    conn: AsyncConnection,
    place: Place,
    records: Sequence[WithdrawalRecord],
    *,
    can: TreasuryCapabilities,
) -> list[tuple[WithdrawalRecord, VenueWithdrawal | None]]:
    """Return what the venue lists and no withdrawal of ours, in whatever book, has or waits for.

    Beside each is ours whose id it carries, if one does: it was given up, or has another record.
    """
    known = await store.list_venue_refs(conn, place, {i.venue_ref for i in records}, but=None)
    strange = [item for item in records if item.venue_ref not in known]
    if not strange:
        return []
    ours = await store.list_by_own_id(conn, place, {i.withdrawal_id for i in strange} - {""})
    waiting = await store.list_withdrawals(
        conn, book=None, place=place, states={*UNSETTLED, W.ESCALATED}
    )
    found = []
    for record in strange:
        mine = ours.get(record.withdrawal_id)
        is_over = mine is not None and mine.state in GIVEN_UP
        if is_over or not _may_be(record, mine, waiting, can):
            found.append((record, mine))
    return found


def _may_be(
    record: WithdrawalRecord,
    mine: VenueWithdrawal | None,
    waiting: Sequence[VenueWithdrawal],
    can: TreasuryCapabilities,
) -> bool:
    """Tell whether the record could be one of those that nobody knows the outcome of yet.

    Args:
        mine: ours whose id the record carries. One that has another record already was made twice.
    """
    if can.takes_client_id:
        return mine is not None and mine in waiting and mine.venue_ref is None
    return any(not contradiction(item, record) for item in waiting)


def _stranger(place: Place, record: WithdrawalRecord) -> str:
    return (
        f"{place} lists withdrawal {record.venue_ref} of {record.sent} {record.asset} to"
        f" {record.address}, which is none of ours"
    )


async def reopen(
    conn: AsyncConnection, withdrawal_id: UUID, record: WithdrawalRecord, now: datetime
) -> None:
    """Follow a withdrawal that was given up, and that the venue lists all the same."""
    item = await store.get_withdrawal(conn, withdrawal_id, lock=True)
    if item.state not in GIVEN_UP:
        return
    await move_withdrawal(
        conn,
        item,
        W.ACKED,
        now=now,
        name="VenueWithdrawalFoundLate",
        reason=f"the venue lists it, though it was {item.state}",
        venue_ref=record.venue_ref,
        run_after=now,
    )
