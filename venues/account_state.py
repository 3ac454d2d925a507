"""What may be ordered for an account at a venue: everything, only less risk, or nothing.

A machine may only make it stricter; a person makes it active again. Cancels pass in every mode.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from venues.errors import AccountNotClear
from venues.model import EPOCH, AccountMode, AccountState, OrderState
from venues.tables import unread_fill, venue_account_state, venue_order

ENTITY: Final = "venue-account"
BY_A_MACHINE: Final = "system:"
STRICTNESS: Final = (AccountMode.ACTIVE, AccountMode.REDUCING, AccountMode.HALTED)
EVENTS: Final = {
    AccountMode.ACTIVE: "VenueAccountReleased",
    AccountMode.REDUCING: "VenueAccountReduceOnly",
    AccountMode.HALTED: "VenueAccountHalted",
}


async def account_state(conn: AsyncConnection, venue: str, account: str) -> AccountState:
    """Return the mode of an account; one that nobody has spoken of is active."""
    return await _state(conn, venue, account, lock=False)


async def is_halted(conn: AsyncConnection, venue: str, account: str) -> bool:
    """Tell whether nothing at all may be ordered for an account."""
    return (await account_state(conn, venue, account)).mode is AccountMode.HALTED


async def reduce_only(
    conn: AsyncConnection, venue: str, account: str, *, reason: str, actor: str, now: datetime
) -> AccountState:
    """Allow only what brings a position nearer to zero; a stricter mode stays as it is."""
    return await _tighten(conn, venue, account, AccountMode.REDUCING, reason, actor, now)


async def halt(
    conn: AsyncConnection, venue: str, account: str, *, reason: str, actor: str, now: datetime
) -> AccountState:
    """Allow no order at all."""
    return await _tighten(conn, venue, account, AccountMode.HALTED, reason, actor, now)


async def release(
    conn: AsyncConnection, venue: str, account: str, *, reason: str, operator: str, now: datetime
) -> AccountState:
    """Make an account active again, as a person who says why.

    Raises:
        BadInput: no reason is given, or it is not a person who releases.
        AccountNotClear: an order is escalated, or was shown alive against all evidence, or there are
            trades that cannot be read.
    """
    if not reason.strip() or not operator or operator.startswith(BY_A_MACHINE):
        raise BadInput("an account is released by a person, who says why")
    before = await _state(conn, venue, account, lock=True)
    if before.mode is AccountMode.ACTIVE:
        return before
    unclear = await conn.scalar(
        select(func.count())
        .select_from(venue_order)
        .where(
            venue_order.c.venue == venue,
            venue_order.c.account == account,
            or_(
                venue_order.c.state == str(OrderState.ESCALATED),
                venue_order.c.revived_at.is_not(None),
            ),
        )
    )
    if unclear:
        raise AccountNotClear(
            f"{unclear} orders at {venue}/{account} are escalated or alive against the evidence",
            remedy="Decide the escalated orders first, two people with evidence",
        )
    unread = await conn.scalar(
        select(func.count())
        .select_from(unread_fill)
        .where(
            unread_fill.c.venue == venue,
            unread_fill.c.account == account,
            unread_fill.c.read_at.is_(None),
        )
    )
    if unread:
        raise AccountNotClear(
            f"{unread} trades at {venue}/{account} cannot be read, so the position is not known",
            remedy="Register what they speak of and collect the fills",
        )
    return await _write(conn, before, AccountMode.ACTIVE, reason, operator, now)


async def _tighten(
    conn: AsyncConnection,
    venue: str,
    account: str,
    mode: AccountMode,
    reason: str,
    actor: str,
    now: datetime,
) -> AccountState:
    before = await _state(conn, venue, account, lock=True)
    if STRICTNESS.index(mode) <= STRICTNESS.index(before.mode):
        return before
    return await _write(conn, before, mode, reason, actor, now)


async def _state(conn: AsyncConnection, venue: str, account: str, *, lock: bool) -> AccountState:
    table = venue_account_state
    if lock:
        nothing_yet = {
            "venue": venue,
            "account": account,
            "state": str(AccountMode.ACTIVE),
            "reason": "",
            "since": EPOCH,
            "by": "",
        }
        await conn.execute(insert(table).values(**nothing_yet).on_conflict_do_nothing())
    query = select(table).where(table.c.venue == venue, table.c.account == account)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        return AccountState(
            venue=venue, account=account, mode=AccountMode.ACTIVE, reason="", since=None, by=""
        )
    return AccountState(
        venue=venue,
        account=account,
        mode=AccountMode(row.state),
        reason=row.reason,
        since=None if row.since == EPOCH else row.since,
        by=row.by,
    )


async def _write(
    conn: AsyncConnection,
    before: AccountState,
    mode: AccountMode,
    reason: str,
    actor: str,
    now: datetime,
) -> AccountState:
    table = venue_account_state
    await conn.execute(
        update(table)
        .where(table.c.venue == before.venue, table.c.account == before.account)
        .values(state=str(mode), reason=reason, since=now, by=actor)
    )
    entity = derive_id(EPOCH, ENTITY, before.venue, before.account)
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=entity,
        version=await next_version(conn, ENTITY, entity),
        name=EVENTS[mode],
        at=now,
        actor=actor,
        reason=reason,
        from_state=str(before.mode),
        to_state=str(mode),
        payload={"venue": before.venue, "account": before.account},
    )
    await record(conn, [event])
    return AccountState(
        venue=before.venue, account=before.account, mode=mode, reason=reason, since=now, by=actor
    )
