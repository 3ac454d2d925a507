"""How far a restore has been read: when what was sent is known again, and what is still to be done."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.restore import store
from custody.restore.given import look_after_given
from custody.restore.model import SourceState, Stage


async def note_sent(conn: AsyncConnection, restore_id: UUID, *, now: datetime) -> bool:
    """Let facts be taken in as soon as everything that was sent is known again; tell whether it is.

    The restore's row is locked by whoever calls.
    """
    sources = await store.list_sources(conn, restore_id)
    sent = [item for item in sources if item.stage is Stage.SENT]
    if any(item.state is SourceState.WAITING for item in sent):
        return False
    for item in sent:
        if await store.count_unresolved(conn, restore_id, item.source):
            return False
    standing = await store.require_standing(conn)
    if standing.sent_known_at is None:
        await store.update_restore(conn, restore_id, sent_known_at=now)
        await look_after_given(conn, standing, now=now)
    return True


async def list_missing(conn: AsyncConnection, restore_id: UUID) -> list[str]:
    """Return, in words, what keeps the doors shut; []: two people may open."""
    sources = await store.list_sources(conn, restore_id)
    missing = [
        f"{item.source} is not read to its end: {item.detail}"
        for item in sources
        if item.state is SourceState.WAITING
    ]
    unresolved = await store.count_unresolved(conn, restore_id)
    if unresolved:
        missing.append(f"{unresolved} items are for people to look at")
    return missing
