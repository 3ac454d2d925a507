"""What a statement's import asks of whoever made our payments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks.entry_model import BookedEntry
from custody.plan import Plan


@dataclass(frozen=True, slots=True)
class Booked:
    """Which lines were payments of ours, and what they post."""

    taken: frozenset[UUID] = frozenset()
    plan: Plan = field(default_factory=Plan)


class Payments(Protocol):
    """Whoever knows our payments by their EndToEndId."""

    async def record_booked(
        self, conn: AsyncConnection, entries: Sequence[BookedEntry], *, now: datetime
    ) -> Booked:
        """Lock the payments that these lines end or undo, write them, and plan their postings.

        Called once for all new lines of a file; what is not ours is left out of ``taken``.
        """
