"""New heads over WebSocket: a reason to look sooner, never a fact.

Polling is the truth: whoever waits here looks at the chain when it is woken *or* when its time is up,
and looks the same way in both cases. So a notification that is lost costs a little time, one that
comes twice or that lies costs a look, and a connection that breaks costs nothing while it is opened
again. Any number of providers may be listened to; each is opened again by itself, with growing
pauses.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from web3 import AsyncWeb3, WebSocketProvider
from web3.exceptions import Web3Exception
from websockets.exceptions import WebSocketException

PAUSE_BASE_S: Final = 0.5
PAUSE_MAX_S: Final = 30.0
PAUSE_DOUBLINGS_MAX: Final = 6
GAP_MIN_S: Final = 0.2
"""Between two looks: a provider that announces heads without end cannot make us ask without end."""
CONNECT_TIMEOUT_S: Final = 10.0
PING_S: Final = 20.0
MESSAGE_BYTES_MAX: Final = 1024 * 1024

CONNECTION_TROUBLE: Final = (
    Web3Exception,
    WebSocketException,
    OSError,
    TimeoutError,
    json.JSONDecodeError,
)


@dataclass(slots=True)
class HeadFeed:
    """Listens to the WebSockets of a chain's providers.

    Run `run` in a task group of the caller's; it ends only when it is cancelled.

    Attributes:
        urls: WebSocket addresses; they may hold keys and are never shown.
        heard: notifications so far, duplicates included.
        opened: connections so far, repeated ones included.
    """

    urls: Sequence[str]
    heard: int = 0
    opened: int = 0
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _looked_at_s: float = 0.0

    async def run(self) -> None:
        """Listen to every provider, for ever."""
        async with asyncio.TaskGroup() as group:
            for url in self.urls:
                group.create_task(self._listen_for_ever(url))

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

    async def _listen_for_ever(self, url: str) -> None:
        failures = 0
        while True:
            heard = self.heard
            try:
                await self._listen(url)
            except CONNECTION_TROUBLE:
                failures = 0 if self.heard > heard else failures + 1
            # Whatever was announced meanwhile was not heard: have a look.
            self._woken.set()
            await asyncio.sleep(
                min(PAUSE_MAX_S, PAUSE_BASE_S * 2 ** min(failures, PAUSE_DOUBLINGS_MAX))
            )

    async def _listen(self, url: str) -> None:
        """Subscribe and pass on announcements until the connection ends."""
        provider = WebSocketProvider(
            url,
            max_connection_retries=1,
            request_timeout=CONNECT_TIMEOUT_S,
            websocket_kwargs={
                "open_timeout": CONNECT_TIMEOUT_S,
                "ping_interval": PING_S,
                "ping_timeout": PING_S,
                "max_size": MESSAGE_BYTES_MAX,
            },
        )
        web3 = AsyncWeb3(provider)
        try:
            await provider.connect()
            await web3.eth.subscribe("newHeads")
            self.opened += 1
            async for _ in web3.socket.process_subscriptions():
                self.heard += 1
                self._woken.set()
        finally:
            await provider.disconnect()
