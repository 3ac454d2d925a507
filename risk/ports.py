"""What risk has to be handed: the desk's book, which only trading knows how to read."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from risk.model import DeskBook


class BookReader(Protocol):
    """Reads what a desk has and has under way; called after the desk's lock is held, never before."""

    async def __call__(self, conn: AsyncConnection) -> DeskBook:
        """Return the book as of this statement: every asset of the desk, every open order."""
        ...
