"""What a restore skipped is watched: the first addresses of each range get their rows."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.restore import store
from custody.restore.model import (
    ADDRESSES,
    WHAT_LENGTH_MAX,
    Item,
    ItemState,
    Restore,
    SourceState,
)
from custody.restore.progress import note_sent
from custody.restore_gate import BY
from custody.skipped import ADDRESSES_WATCHED, Skip, list_skips, write_skipped
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import CausewayError, OutcomeUnknown, OutsideUnavailable
from registry.queries import get_chain, get_wallet

AT_ONCE: Final = 50
"""Addresses that are derived, each twice, in one transaction."""


async def watch_skipped(
    engine: AsyncEngine, *, clock: Clock, watched: int = ADDRESSES_WATCHED, by: str = BY
) -> list[Item]:
    """Watch the first *watched* addresses of every range that the restore has skipped.

    What is committed stays: call it again where it was broken off. A wallet whose addresses cannot be
    derived is for people; nobody is given one of them all the same.

    Returns:
        What is for people.

    Raises:
        NotPossible: no restore stands.
        OutsideUnavailable: PostgreSQL does not answer.
        OutcomeUnknown: its answer was lost.
    """

    async def look(conn: AsyncConnection) -> tuple[Restore, list[Skip]]:
        found = await store.require_standing(conn)
        known = {item.source: item.state for item in await store.list_sources(conn, found.id)}
        if known.get(ADDRESSES) is not SourceState.WAITING:
            return found, []
        return found, await list_skips(conn, restore_id=found.id)

    standing, skips = await transact(engine, look)
    items = []
    for skip in skips:
        try:
            await _watch(engine, skip, watched, clock)
        except (OutsideUnavailable, OutcomeUnknown):
            raise
        except CausewayError as error:
            items.append(_underivable(standing, skip, error.what, clock.now()))

    async def finish(conn: AsyncConnection) -> None:
        now, found = clock.now(), await store.require_standing(conn, lock=True)
        source = await store.get_source(conn, found.id, ADDRESSES)
        if source.state is not SourceState.WAITING:
            return
        for item in items:
            await store.save_item(conn, item)
        detail = f"{len(skips)} wallets skip what may have been given out, and watch {watched} each"
        await store.move_source(conn, source, SourceState.DONE, detail=detail, by=by, now=now)
        await note_sent(conn, found.id, now=now)

    if skips:
        await transact(engine, finish)
    return items


async def _watch(engine: AsyncEngine, skip: Skip, watched: int, clock: Clock) -> None:
    for first in range(skip.first, skip.first + watched, AT_ONCE):
        indexes = range(first, min(first + AT_ONCE, skip.first + watched))
        write = partial(_write, skip=skip, indexes=indexes, now=clock.now())
        await transact(engine, write)


async def _write(conn: AsyncConnection, *, skip: Skip, indexes: range, now: datetime) -> None:
    wallet = await get_wallet(conn, skip.wallet)
    await write_skipped(conn, skip, await get_chain(conn, skip.chain), wallet, indexes, now=now)


def _underivable(standing: Restore, skip: Skip, why: str, now: datetime) -> Item:
    what = f"addresses {skip.first} to {skip.last} of {skip.wallet} are not watched: {why}"
    return Item(
        restore_id=standing.id,
        source=ADDRESSES,
        key=skip.wallet,
        state=ItemState.UNRESOLVED,
        what=what[:WHAT_LENGTH_MAX],
        found_at=now,
    )
