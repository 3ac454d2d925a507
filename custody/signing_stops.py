"""The hot float's cap: a hot wallet above it pays nobody else until coins were moved away.

Transfers to wallets of our own go on, since they are what brings the wallet below its cap. Whoever
signs asks `signing_allowed`, which looks at the books as they are; the stops that are written down
are the alarm: one when a wallet rises above its cap, ended when it is below it again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.model import custody_account
from custody.rebalance.store import find_active_rules
from custody.reconciliation_model import STOP_STATES, SigningStop, StopState
from custody.reconciliation_tables import signing_stop
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from ledger.queries import list_accounts
from registry.queries import list_entities

ENTITY: Final = "signing_stop"
WATCH: Final = "system:rebalance"
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
        own: it goes to a wallet of our own, which the cap does not stop.
        book: whose coins count against the cap; None: those of every book.
    """
    if own:
        return ""
    rules = await find_active_rules(conn)
    band = None if rules is None else rules.find_band(wallet, asset)
    if band is None or band.cap is None:
        return ""
    held = await _count_held(conn, wallet, asset, book)
    if held <= band.cap:
        return ""
    return f"hot wallet {wallet} holds {held} {asset} (smallest units), its cap is {band.cap}"


async def watch_float(
    conn: AsyncConnection, wallet: str, asset: str, *, book: int | None = None, now: datetime
) -> SigningStop | None:
    """Write the alarm of a wallet above its cap, or end it; return the stop that changed."""
    reason = await find_signing_stop(conn, wallet, asset, book=book)
    stop = await _find_open(conn, wallet, asset)
    if (stop is None) == (not reason):
        return None
    if stop is not None:
        return await _lift(conn, stop, now)
    stop = SigningStop(
        id=derive_id(now, ENTITY, wallet, asset),
        wallet=wallet,
        asset=asset,
        state=StopState.OPEN,
        reason=reason[:REASON_LENGTH_MAX],
        since=now,
    )
    await conn.execute(
        insert(signing_stop).values(
            id=stop.id,
            wallet=wallet,
            asset=asset,
            state=stop.state,
            reason=stop.reason,
            since=now,
        )
    )
    await record(conn, [_event(stop, None, 1, "HotFloatAboveCap", stop.reason, now)])
    return stop


async def list_stops(conn: AsyncConnection, *, wallet: str | None = None) -> list[SigningStop]:
    """Return the open stops, oldest first."""
    query = select(signing_stop).where(signing_stop.c.state == StopState.OPEN)
    if wallet is not None:
        query = query.where(signing_stop.c.wallet == wallet)
    return [_to_stop(row) for row in await conn.execute(query.order_by(signing_stop.c.since))]


async def _count_held(conn: AsyncConnection, wallet: str, asset: str, book: int | None) -> int:
    books = [item.book for item in await list_entities(conn)] if book is None else [book]
    path, held = custody_account(wallet), 0
    for number in books:
        for account in await list_accounts(conn, number, path):
            if (account.path, account.asset) == (path, asset):
                held += account.balance.posted
    return held


async def _find_open(conn: AsyncConnection, wallet: str, asset: str) -> SigningStop | None:
    query = select(signing_stop).where(
        signing_stop.c.wallet == wallet,
        signing_stop.c.asset == asset,
        signing_stop.c.state == StopState.OPEN,
    )
    row = (await conn.execute(query.with_for_update())).one_or_none()
    return None if row is None else _to_stop(row)


async def _lift(conn: AsyncConnection, stop: SigningStop, now: datetime) -> SigningStop:
    STOP_STATES.require(stop.state, StopState.LIFTED)
    mine = signing_stop.c.id == stop.id
    await conn.execute(
        update(signing_stop).where(mine).values(state=StopState.LIFTED, lifted_at=now)
    )
    lifted = _to_stop((await conn.execute(select(signing_stop).where(mine))).one())
    reason = "below its cap again"
    await record(conn, [_event(lifted, stop, 2, "HotFloatBelowCap", reason, now)])
    return lifted


def _event(
    stop: SigningStop,
    before: SigningStop | None,
    version: int,
    name: str,
    reason: str,
    now: datetime,
) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=stop.id,
        version=version,
        name=name,
        at=now,
        actor=WATCH,
        reason=reason,
        from_state=None if before is None else before.state,
        to_state=stop.state,
        payload={"wallet": stop.wallet, "asset": stop.asset},
    )


def _to_stop(row: Row[Any]) -> SigningStop:
    return SigningStop(
        id=row.id,
        wallet=row.wallet,
        asset=row.asset,
        state=StopState(row.state),
        reason=row.reason,
        since=row.since,
    )
