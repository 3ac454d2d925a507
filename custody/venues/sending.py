"""Sending a withdrawal to its venue, once: intent committed, the act, its outcome recorded.

A crash between any two leaves a row that says how far it may have come: SUBMITTING means that the venue
may have the request, and only evidence says whether it has (`custody.venues.following`).
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.venues import store
from custody.venues.model import (
    CANCELLABLE,
    UNSETTLED,
    Place,
    VenueWithdrawal,
    WithdrawalState,
)
from custody.venues.moves import move_withdrawal
from custody.venues.postings import released
from custody.venues.withdrawals import (
    find_frozen,
    find_misplaced,
    find_unapproved,
    find_unrouted,
)
from kernel import tracing
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import OutsideUnavailable, Refused, StaleFence
from ledger.posting import post, require_applied
from venues.model import RefusalKind
from venues.treasury_model import (
    WithdrawalAccepted,
    WithdrawalPlacement,
    WithdrawalRefused,
)
from venues.treasury_ports import VenueTreasury

LEASE: Final = timedelta(seconds=60)
RETRY_AFTER: Final = timedelta(seconds=30)
DOUBT_PAUSE: Final = timedelta(minutes=5)
"""Longer than any venue still takes in what was sent just before the database was lost."""
W = WithdrawalState


async def submit(
    engine: AsyncEngine, treasury: VenueTreasury, withdrawal_id: UUID, *, holder: str, clock: Clock
) -> VenueWithdrawal:
    """Send an approved withdrawal, once, and record what came of it; return it as it is then.

    Of several that submit the same one, one sends it. Whatever stops it now (a freeze, an approval
    that does not hold any more) is written down as what it waits for.
    """
    place = Place(treasury.venue, treasury.account)
    begun = await transact(
        engine,
        partial(
            _begin,
            withdrawal_id=withdrawal_id,
            place=place,
            treasury=treasury,
            holder=holder,
            clock=clock,
        ),
    )
    if begun is None or begun.state is not W.SUBMITTING:
        return await transact(engine, partial(store.get_withdrawal, withdrawal_id=withdrawal_id))
    with tracing.working("venue-withdrawal send", [begun.id]):
        placement = await treasury.withdraw(begun.ticket)
    if isinstance(placement, WithdrawalRefused) and placement.kind is RefusalKind.CLOCK:
        with contextlib.suppress(OutsideUnavailable):
            await treasury.synchronise()
    write = partial(record_placement, item=begun, placement=placement, now=clock.now())
    # Another worker may have taken it over meanwhile: its word stands, and the list will tell.
    with contextlib.suppress(StaleFence):
        return await transact(engine, write)
    return await transact(engine, partial(store.get_withdrawal, withdrawal_id=withdrawal_id))


async def _begin(
    conn: AsyncConnection,
    *,
    withdrawal_id: UUID,
    place: Place,
    treasury: VenueTreasury,
    holder: str,
    clock: Clock,
) -> VenueWithdrawal | None:
    """Write that it is being sent; None where it is not approved, or another worker has it."""
    now = clock.now()
    item = await store.claim_withdrawal(
        conn, withdrawal_id, states={W.APPROVED}, holder=holder, now=now, lease_for=LEASE
    )
    if item is None:
        return None
    why = await _find_stop(conn, item, place, now)
    if why:
        await store.update_withdrawal(
            conn,
            item.id,
            fence=item.fence,
            waiting_for=why,
            run_after=now + RETRY_AFTER,
            lease_holder=None,
            lease_until=None,
        )
        return item
    # To the millisecond, which is all that a request can say.
    venue_now = treasury.venue_time(now)
    signed_at = venue_now.replace(microsecond=venue_now.microsecond // 1000 * 1000)
    return await move_withdrawal(conn, item, W.SUBMITTING, now=now, signed_at=signed_at)


async def _find_stop(
    conn: AsyncConnection, item: VenueWithdrawal, place: Place, now: datetime
) -> str:
    if item.place != place:
        return f"it is of {item.place}, and these credentials are of {place}"
    if item.expires_at <= now:
        return "its time is over"
    try:
        unapproved = await find_unapproved(conn, item)
    except Refused as error:
        unapproved = f"an approval does not hold any more: {error.what}"
    return (
        unapproved
        or await find_misplaced(conn, item)
        or await find_unrouted(conn, item)
        or await find_frozen(conn, item)
    )


async def doubt_withdrawals(
    conn: AsyncConnection, *, reason: str, actor: str, now: datetime
) -> None:
    """Take every withdrawal that is not sent here for sent without an answer: only evidence ends it.

    Those that wait for approvers, too: they may have had them. After the database was restored nobody
    knows when one was sent, but that it was not before it was asked for; so the venue's list is read
    from then on, and `DOUBT_PAUSE` later at the earliest. What was never sent is asked for anew.
    """
    while found := await store.list_ids_in(conn, CANCELLABLE):
        for withdrawal_id in found:
            item = await store.get_withdrawal(conn, withdrawal_id, lock=True)
            if item.state not in CANCELLABLE:
                continue
            asked = item.requested_at
            told: dict[str, Any] = {"reason": reason, "actor": actor, "now": now}
            if item.state is W.PENDING_APPROVAL:
                # Whether it was approved nobody knows; it stands there for as long as this takes.
                name = "VenueWithdrawalDoubted"
                item = await move_withdrawal(conn, item, W.APPROVED, name=name, **told)
            item = await move_withdrawal(
                conn,
                item,
                W.SUBMITTING,
                signed_at=asked.replace(microsecond=asked.microsecond // 1000 * 1000),
                **told,
            )
            await move_withdrawal(conn, item, W.UNKNOWN, run_after=now + DOUBT_PAUSE, **told)


async def record_placement(
    conn: AsyncConnection, *, item: VenueWithdrawal, placement: WithdrawalPlacement, now: datetime
) -> VenueWithdrawal:
    """Write what the venue answered, under the fence with which it was asked.

    Raises:
        StaleFence: another worker has taken it over.
    """
    await store.update_withdrawal(
        conn, item.id, fence=item.fence, lease_holder=None, lease_until=None
    )
    if isinstance(placement, WithdrawalAccepted):
        # The venue's id may be on another row already, if its answer is not what it seems.
        ref = placement.venue_ref
        if await store.list_venue_refs(conn, item.place, [ref], but=item.id):
            reason = f"the venue answers with {placement.venue_ref}, which is another withdrawal's"
            return await move_withdrawal(conn, item, W.UNKNOWN, now=now, reason=reason)
        return await move_withdrawal(
            conn, item, W.ACKED, now=now, venue_ref=placement.venue_ref, run_after=now
        )
    if isinstance(placement, WithdrawalRefused):
        return await give_back(conn, item, W.REFUSED, placement.reason, now)
    return await move_withdrawal(
        conn, item, W.UNKNOWN, now=now, reason=placement.reason, run_after=now
    )


async def give_back(
    conn: AsyncConnection,
    item: VenueWithdrawal,
    to: WithdrawalState,
    reason: str,
    now: datetime,
    *,
    actor: str = "system:venue-transfers",
) -> VenueWithdrawal:
    """End a withdrawal that the venue does not make, and free what is held for it."""
    require_applied(await post(conn, item.book, released(item), now=now))
    return await move_withdrawal(conn, item, to, now=now, reason=reason, actor=actor)


async def find_abandoned(
    conn: AsyncConnection, withdrawal_id: UUID, *, holder: str, now: datetime
) -> VenueWithdrawal | None:
    """Claim a withdrawal whose outcome nobody knows; one whose sender vanished becomes UNKNOWN.

    None: its outcome is known, or the one who sends it is still at it.
    """
    item = await store.claim_withdrawal(
        conn, withdrawal_id, states=UNSETTLED, holder=holder, now=now, lease_for=LEASE
    )
    if item is None or item.state is W.UNKNOWN:
        return item
    return await move_withdrawal(
        conn, item, W.UNKNOWN, now=now, reason="the sender did not say what became of it"
    )
