"""Where a process of the house may be paused for long."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class Stall:
    """Where a process may be paused for long: at a call to the outside, holding nothing in the database.

    Attributes:
        armed: whether the next call that passes is paused after it was carried out.
        paused: whether one has been.
        reached: set then, or when whoever was to be paused has ended without such a call.
        released: lets it go on.
    """

    armed: bool = False
    paused: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def after(self) -> None:
        """Come back from a call, perhaps long after it was carried out."""
        if self.armed:
            self.armed, self.paused = False, True
            self.reached.set()
            await self.released.wait()
