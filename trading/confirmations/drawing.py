"""The PDFs of confirmations: drawn once, outside every transaction, and kept as they were sent.

Drawing needs the extra ``documents``; a house without it has texts, and draws when it has it.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from trading.confirmations import store
from trading.confirmations.model import Confirmation, Draw

DRAW_MAX: Final = 20
"""PDFs drawn in one turn: each takes some hundredths of a second."""


async def draw_due(engine: AsyncEngine, draw: Draw, *, clock: Clock, limit: int = DRAW_MAX) -> int:
    """Draw and keep the PDFs of the confirmations that have waited longest; return how many."""
    undrawn = await transact(
        engine, lambda conn: store.list_undrawn(conn, limit=min(limit, DRAW_MAX))
    )
    for item in undrawn:
        await _draw(engine, item, draw, clock)
    return len(undrawn)


async def get_pdf(engine: AsyncEngine, confirmation_id: UUID, draw: Draw, *, clock: Clock) -> bytes:
    """Return the PDF of a confirmation: the one that is kept, drawn now if there is none.

    Raises:
        NoConfirmation: none has this id.
    """

    async def load(conn: AsyncConnection) -> tuple[Confirmation, bytes | None]:
        item = await store.get_confirmation(conn, confirmation_id)
        return item, await store.read_pdf(conn, confirmation_id)

    item, kept = await transact(engine, load)
    return kept if kept is not None else await _draw(engine, item, draw, clock)


async def _draw(engine: AsyncEngine, item: Confirmation, draw: Draw, clock: Clock) -> bytes:
    """Draw the PDF and keep it; what another process kept meanwhile is the one that counts."""
    # Drawing is some hundredths of a second of work, for which nobody else should wait.
    pdf = await asyncio.to_thread(draw, item.text)

    async def keep(conn: AsyncConnection) -> bytes:
        locked = await store.get_confirmation(conn, item.id, lock=True)
        kept = await store.read_pdf(conn, item.id)
        if kept is not None:
            return kept
        digest = hashlib.sha256(pdf).hexdigest()
        await store.write_pdf(conn, locked, pdf, digest, now=clock.now())
        return pdf

    return await transact(engine, keep)
