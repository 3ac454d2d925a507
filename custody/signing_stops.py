"""May anything be signed that spends from a wallet? The hot float's cap, and wallets that lack coins.

A deficit (the chain has less than the books) stops the whole wallet until two people lift it. A hot
wallet above its cap pays nobody else until coins were moved away: transfers to wallets of our own go
on, since they are what brings it below the cap.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.errors import NotPossible
from custody.model import custody_account
from custody.rebalance.store import find_active_rules
from custody.reconciliation_model import (
    STOP_STATES,
    WHOLE_WALLET,
    SigningStop,
    StopCause,
    StopState,
)
from custody.reconciliation_tables import signing_stop
from kernel.errors import BadInput
from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from ledger.queries import list_accounts
from registry.authority import require_role, signing_bytes, verify_signature
from registry.errors import NotAuthorised
from registry.model import Role
from registry.queries import get_operator, get_wallet, list_entities

ENTITY: Final = "signing_stop"
LIFT_VERB: Final = "signing_stop.lift"
LIFTERS: Final = (Role.TREASURER, Role.APPROVER, Role.ADMIN)
REASON_LENGTH_MAX: Final = 500


async def signing_allowed(
    conn: AsyncConnection, wallet: str, asset: str, *, own: bool = False, book: int | None = None
) -> bool:
    """Tell whether a payment of *asset* from *wallet* may be signed now; see `find_signing_stop`."""
    return not await find_signing_stop(conn, wallet, asset, own=own, book=book)


async def find_signing_stop(
    conn: AsyncConnection, wallet: str, asset: str, *, own: bool = False, book: int | None = None
) -> str:
    """Return why nothing may be signed, in words; "" when it may.

    Args:
        conn: any transaction; nothing is locked.
        wallet: the wallet that pays.
        asset: what is paid.
        own: it goes to a wallet of our own, which the hot float's cap does not stop.
        book: whose coins count against the cap; None: those of every book.
    """
    table = signing_stop
    where = (
        (table.c.wallet == wallet)
        & table.c.asset.in_([WHOLE_WALLET, asset])
        & (table.c.state == StopState.OPEN)
        & (table.c.cause == StopCause.DEFICIT)
    )
    reason = await conn.scalar(select(table.c.reason).where(where).limit(1))
    if reason is not None:
        return str(reason)
    return "" if own else await find_float_excess(conn, wallet, asset, book=book)


async def find_float_excess(
    conn: AsyncConnection, wallet: str, asset: str, *, book: int | None = None
) -> str:
    """Return by how much a hot wallet is above its cap, in words; "" when it is not."""
    rules = await find_active_rules(conn)
    band = None if rules is None else rules.find_band(wallet, asset)
    if band is None or band.cap is None:
        return ""
    held = await _count_held(conn, wallet, asset, book)
    if held <= band.cap:
        return ""
    return f"hot wallet {wallet} holds {held} {asset} (smallest units), its cap is {band.cap}"


async def stop_signing(
    conn: AsyncConnection,
    wallet: str,
    asset: str,
    cause: StopCause,
    *,
    reason: str,
    by: str,
    now: datetime,
) -> SigningStop | None:
    """Stop a wallet's signing; return the stop if it is new."""
    table = signing_stop
    reason = reason[:REASON_LENGTH_MAX]
    if await _find_open(conn, wallet, asset, cause) is not None:
        return None
    stop_id = derive_id(now, ENTITY, wallet, asset, cause)
    await conn.execute(
        insert(table).values(
            id=stop_id,
            wallet=wallet,
            asset=asset,
            cause=cause,
            state=StopState.OPEN,
            reason=reason,
            since=now,
        )
    )
    stop = SigningStop(
        id=stop_id,
        wallet=wallet,
        asset=asset,
        cause=cause,
        state=StopState.OPEN,
        reason=reason,
        since=now,
    )
    await record(conn, [await _event(conn, stop, None, by, reason, now)])
    return stop


async def end_float_stop(
    conn: AsyncConnection, wallet: str, asset: str, *, by: str, now: datetime
) -> bool:
    """End the alarm of a hot wallet that is below its cap again; tell whether there was one."""
    stop = await _find_open(conn, wallet, asset, StopCause.FLOAT, lock=True)
    if stop is None:
        return False
    await _lift(conn, stop, by, "below its cap again", now)
    return True


def lift_bytes(stop: SigningStop, reason: str) -> bytes:
    """Return what both operators sign."""
    return signing_bytes(
        LIFT_VERB,
        {"id": stop.id, "wallet": stop.wallet, "asset": stop.asset, "reason": reason},
    )


async def lift_stop(
    conn: AsyncConnection,
    stop_id: UUID,
    *,
    signatures: Mapping[str, bytes],
    reason: str,
    now: datetime,
) -> SigningStop:
    """Let a wallet sign again, as two people say who know where the coins are.

    Args:
        conn: the caller's transaction.
        stop_id: the stop.
        signatures: by operator code, over `lift_bytes`; two different people.
        reason: what was found.
        now: the time.

    Raises:
        NotPossible: there is no such open stop, or it ends by itself.
        NotAuthorised: fewer than two people, a missing role, or a signature that does not hold.
    """
    if not reason.strip():
        raise BadInput("lifting a stop needs a reason", remedy="Say where the coins are")
    row = (
        await conn.execute(
            select(signing_stop).where(signing_stop.c.id == stop_id).with_for_update()
        )
    ).one_or_none()
    if row is None or row.state != StopState.OPEN or row.cause != StopCause.DEFICIT:
        raise NotPossible(f"there is no stop {stop_id} that people can lift")
    stop = _to_stop(row)
    operators = [await get_operator(conn, code) for code in sorted(signatures)]
    for operator in operators:
        require_role(operator, *LIFTERS)
        verify_signature(operator, lift_bytes(stop, reason), signatures[operator.code])
    if len({operator.public_key for operator in operators}) < 2:
        raise NotAuthorised("one person cannot lift a stop", remedy="Have a second one sign")
    first, second = operators[0].code, operators[1].code
    return await _lift(
        conn,
        stop,
        first,
        reason,
        now,
        first=first,
        first_signature=signatures[first],
        second=second,
        second_signature=signatures[second],
    )


async def list_stops(conn: AsyncConnection, *, wallet: str | None = None) -> list[SigningStop]:
    """Return the open stops, oldest first."""
    query = select(signing_stop).where(signing_stop.c.state == StopState.OPEN)
    if wallet is not None:
        query = query.where(signing_stop.c.wallet == wallet)
    return [_to_stop(row) for row in await conn.execute(query.order_by(signing_stop.c.since))]


async def _count_held(conn: AsyncConnection, wallet: str, asset: str, book: int | None) -> int:
    await get_wallet(conn, wallet)
    books = [item.book for item in await list_entities(conn)] if book is None else [book]
    path, held = custody_account(wallet), 0
    for number in books:
        for account in await list_accounts(conn, number, path):
            if (account.path, account.asset) == (path, asset):
                held += account.balance.posted
    return held


async def _find_open(
    conn: AsyncConnection, wallet: str, asset: str, cause: StopCause, *, lock: bool = False
) -> SigningStop | None:
    query = select(signing_stop).where(
        signing_stop.c.wallet == wallet,
        signing_stop.c.asset == asset,
        signing_stop.c.cause == cause,
        signing_stop.c.state == StopState.OPEN,
    )
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else _to_stop(row)


async def _lift(
    conn: AsyncConnection,
    stop: SigningStop,
    by: str,
    reason: str,
    now: datetime,
    **values: Any,
) -> SigningStop:
    STOP_STATES.require(stop.state, StopState.LIFTED)
    await conn.execute(
        update(signing_stop)
        .where(signing_stop.c.id == stop.id)
        .values(state=StopState.LIFTED, lifted_at=now, **values)
    )
    row = (await conn.execute(select(signing_stop).where(signing_stop.c.id == stop.id))).one()
    lifted = _to_stop(row)
    await record(conn, [await _event(conn, lifted, stop, by, reason, now)])
    return lifted


async def _event(
    conn: AsyncConnection,
    stop: SigningStop,
    before: SigningStop | None,
    by: str,
    reason: str,
    now: datetime,
) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=stop.id,
        version=await next_version(conn, ENTITY, stop.id),
        name="SigningStopped" if before is None else "SigningStopLifted",
        at=now,
        actor=by,
        reason=reason,
        from_state=None if before is None else before.state,
        to_state=stop.state,
        payload={"wallet": stop.wallet, "asset": stop.asset, "cause": str(stop.cause)},
    )


def _to_stop(row: Row[Any]) -> SigningStop:
    return SigningStop(
        id=row.id,
        wallet=row.wallet,
        asset=row.asset,
        cause=StopCause(row.cause),
        state=StopState(row.state),
        reason=row.reason,
        since=row.since,
    )
