"""Hedge lines: who hedges what at which places, and the switch that stops it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from kernel.events import DomainEvent, list_history, next_version, record
from kernel.ids import derive_id
from trading.errors import HedgeLineConflict, NoHedgeLine
from trading.hedges import store
from trading.hedges.model import HEDGE_STATES, PLACES_MAX, HedgeLine, HedgePlace, HedgeState


async def open_line(
    conn: AsyncConnection, line: HedgeLine, *, by: str, reason: str, now: datetime
) -> HedgeLine:
    """Say where an asset of a desk is hedged; the same line again returns the one there is.

    Raises:
        HedgeLineConflict: the asset is hedged elsewhere, or a place hedges another line.
    """
    line_id = derive_id(now, "hedge-line", line.desk, line.asset)
    if await store.insert_line(conn, line, line_id, now=now):
        for place in sorted(line.places):
            await _require_free(conn, line, place, now=now)
        event = DomainEvent(
            entity_type=store.HEDGE,
            entity_id=line_id,
            version=1,
            name="HedgeLineOpened",
            at=now,
            actor=by,
            reason=reason,
            to_state=str(HedgeState.ACTIVE),
            payload=_facts(line),
        )
        await record(conn, [event])
        return replace(line, places=tuple(sorted(line.places)))
    known = await store.get_line(conn, line.desk, line.asset)
    if _facts(known) == _facts(line):
        return known
    raise HedgeLineConflict(
        f"{line.asset} of {line.desk} is hedged elsewhere",
        remedy="Add the place to its line, or close the line's other places",
    )


async def add_place(
    conn: AsyncConnection,
    desk: str,
    asset: str,
    place: HedgePlace,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> HedgeLine:
    """Let a line hedge at one more place, or again at one that was closed.

    Raises:
        NoHedgeLine: there is no such line.
        HedgeLineConflict: the place hedges another line.
        BadInput: the line has as many places as one may have.
    """
    line = await store.lock_line(conn, desk, asset)
    known = _found(line, place)
    if known is not None and known.is_open:
        return line
    if known is not None:
        await store.update_place(conn, replace(place, is_open=True), now=now)
    elif len(line.places) >= PLACES_MAX:
        raise BadInput(f"a line has at most {PLACES_MAX} places")
    else:
        await _require_free(conn, line, replace(place, is_open=True), now=now)
    return await _changed(conn, line, "HedgePlaceOpened", place, by=by, reason=reason, now=now)


async def close_place(
    conn: AsyncConnection,
    desk: str,
    asset: str,
    place: HedgePlace,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> HedgeLine:
    """Place nothing more at a place; its trades are posted as before. Twice is once.

    Raises:
        NoHedgeLine: there is no such line, or it has no such place.
    """
    line = await store.lock_line(conn, desk, asset)
    known = _found(line, place)
    if known is None:
        raise NoHedgeLine(f"{asset} of desk {desk} is not hedged with {place.symbol} {place.name}")
    if not known.is_open:
        return line
    await store.update_place(conn, replace(known, is_open=False), now=now)
    return await _changed(conn, line, "HedgePlaceClosed", place, by=by, reason=reason, now=now)


async def list_lines(conn: AsyncConnection) -> list[HedgeLine]:
    """Return every hedge line, by desk and asset."""
    return await store.list_lines(conn)


async def get_line(conn: AsyncConnection, desk: str, asset: str) -> HedgeLine:
    """Return one line.

    Raises:
        NoHedgeLine: there is none.
    """
    return await store.get_line(conn, desk, asset)


async def list_line_history(conn: AsyncConnection, desk: str, asset: str) -> list[DomainEvent]:
    """Return the life of a line, oldest event first.

    Raises:
        NoHedgeLine: there is none.
    """
    return await list_history(conn, store.HEDGE, await store.get_line_id(conn, desk, asset))


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
        payload=_facts(line),
    )
    await record(conn, [event])
    return await store.lock_line(conn, desk, asset)


async def _require_free(
    conn: AsyncConnection, line: HedgeLine, place: HedgePlace, *, now: datetime
) -> None:
    if not await store.insert_place(conn, line.desk, line.asset, place, now=now):
        raise HedgeLineConflict(f"{place.symbol} at {place.name} is used by another line")


async def _changed(
    conn: AsyncConnection,
    line: HedgeLine,
    name: str,
    place: HedgePlace,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> HedgeLine:
    line_id = await store.update_line(conn, line, now=now)
    event = DomainEvent(
        entity_type=store.HEDGE,
        entity_id=line_id,
        version=await next_version(conn, store.HEDGE, line_id),
        name=name,
        at=now,
        actor=by,
        reason=reason,
        from_state=str(line.state),
        to_state=str(line.state),
        payload={
            "desk": line.desk,
            "asset": line.asset,
            "venue": place.venue,
            "account": place.account,
            "symbol": place.symbol,
        },
    )
    await record(conn, [event])
    return await store.get_line(conn, line.desk, line.asset)


def _found(line: HedgeLine, place: HedgePlace) -> HedgePlace | None:
    return next((item for item in line.places if _key(item) == _key(place)), None)


def _key(place: HedgePlace) -> tuple[str, str, str]:
    return place.venue, place.account, place.symbol


def _facts(line: HedgeLine) -> Mapping[str, str | Sequence[str]]:
    return {
        "desk": line.desk,
        "asset": line.asset,
        "target": str(line.target),
        "places": [" ".join(_key(item)) for item in sorted(line.places)],
    }
