"""New heads that somebody announces: a reason to look sooner, never a fact.

Polling is the truth: whoever waits here looks at the chain when it is woken *or* when its time is up,
and looks the same way in both cases. So an announcement that is lost costs a little time, one that
comes twice or that lies costs a look, and a connection that breaks costs nothing while it is opened
again, with growing pauses. How a kind of node announces heads is its own: `chain.evm.heads`,
`chain.bitcoin.heads`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

PAUSE_BASE_S: Final = 0.5
PAUSE_MAX_S: Final = 30.0
PAUSE_DOUBLINGS_MAX: Final = 6
GAP_MIN_S: Final = 0.2
"""Between two looks: a provider that announces heads without end cannot make us ask without end."""


@dataclass(slots=True, kw_only=True)
class HeadSignal:
    """Where announcements arrive and are waited for.

    Attributes:
        heard: announcements so far, duplicates included.
        opened: connections so far, repeated ones included.
    """

    heard: int = 0
    opened: int = 0
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _looked_at_s: float = 0.0

    async def wait(self, timeout_s: float) -> bool:
        """Return when a new head was announced since the last wait, or after *timeout_s* at most.

        Returns:
            Whether there was an announcement; look at the chain in both cases.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
                await asyncio.sleep(self._looked_at_s + GAP_MIN_S - loop.time())
        except TimeoutError:
            pass
        woken = self._woken.is_set()
        self._woken.clear()
        self._looked_at_s = loop.time()
        return woken

    def announce(self) -> None:
        """Take an announcement."""
        self.heard += 1
        self._woken.set()

    async def listen_for_ever(
        self, listen: Callable[[], Awaitable[None]], trouble: tuple[type[Exception], ...]
    ) -> None:
        """Call *listen* again whenever it ends or raises *trouble*, with growing pauses."""
        failures = 0
        task = asyncio.current_task()
        while True:
            heard = self.heard
            try:
                await listen()
            except trouble:
                failures = 0 if self.heard > heard else failures + 1
            # A library that takes a cancellation of ours for one of its own tasks must not keep us.
            if task is not None and task.cancelling():
                raise asyncio.CancelledError
            # Whatever was announced meanwhile was not heard: have a look.
            self._woken.set()
            await asyncio.sleep(
                min(PAUSE_MAX_S, PAUSE_BASE_S * 2 ** min(failures, PAUSE_DOUBLINGS_MAX))
            )
