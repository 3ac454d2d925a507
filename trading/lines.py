"""Hedge lines: who hedges what where, and the switch that stops it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from trading import store
from trading.errors import HedgeLineConflict
from trading.model import HEDGE_STATES, HedgeLine, HedgeState


async def open_line(
    conn: AsyncConnection, line: HedgeLine, *, by: str, reason: str, now: datetime
) -> HedgeLine:
    """Say where an asset of a desk is hedged; the same line again returns the one there is.

    Raises:
        HedgeLineConflict: the asset is hedged elsewhere, or the instrument hedges another line.
    """
    line_id = derive_id(now, "hedge-line", line.desk, line.asset)
    if await store.insert_line(conn, line, line_id, now=now):
        event = DomainEvent(
            entity_type=store.HEDGE,
            entity_id=line_id,
            version=1,
            name="HedgeLineOpened",
            at=now,
            actor=by,
            reason=reason,
            to_state=str(HedgeState.ACTIVE),
            payload=_place(line),
        )
        await record(conn, [event])
        return line
    for known in await store.list_lines(conn):
        if (known.desk, known.asset) == (line.desk, line.asset) and _place(known) == _place(line):
            return known
    raise HedgeLineConflict(
        f"{line.asset} of {line.desk} is hedged elsewhere, or {line.symbol} at {line.venue} is "
        "used by another line"
    )


async def list_lines(conn: AsyncConnection) -> list[HedgeLine]:
    """Return every hedge line, by desk and asset."""
    return await store.list_lines(conn)


async def set_line_state(
    conn: AsyncConnection,
    desk: str,
    asset: str,
    state: HedgeState,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> HedgeLine:
    """Halt a line, or let it go on; a halted line places nothing, and still posts its fills.

    Raises:
        NoHedgeLine: there is no such line.
    """
    line = await store.lock_line(conn, desk, asset)
    if line.state is state:
        return line
    HEDGE_STATES.require(line.state, state)
    line_id = await store.update_line(conn, line, now=now, state=str(state))
    event = DomainEvent(
        entity_type=store.HEDGE,
        entity_id=line_id,
        version=await next_version(conn, store.HEDGE, line_id),
        name="HedgeLineHalted" if state is HedgeState.HALTED else "HedgeLineResumed",
        at=now,
        actor=by,
        reason=reason,
        from_state=str(line.state),
        to_state=str(state),
        payload=_place(line),
    )
    await record(conn, [event])
    return await store.lock_line(conn, desk, asset)


def _place(line: HedgeLine) -> dict[str, str]:
    return {
        "desk": line.desk,
        "asset": line.asset,
        "venue": line.venue,
        "account": line.account,
        "symbol": line.symbol,
        "target": str(line.target),
    }
