"""What is in flight between books, and whether the books agree with each other about it."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.interbook import store
from ledger.interbook.model import ClearingStanding


async def clearing_standings(conn: AsyncConnection) -> list[ClearingStanding]:
    """Return every pair of books with a clearing account or a move under way, by asset.

    All of it is read in one statement. At rest the two sides of a pair sum to zero; in flight the
    moves explain what they do not. A pair that does not agree was written to by something else.
    """
    return await store.read_standings(conn)
