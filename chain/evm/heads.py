"""New heads of an EVM chain, announced over WebSocket; what that is worth, `chain.heads` says.

Any number of providers may be listened to; each is opened again by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from web3 import AsyncWeb3, WebSocketProvider
from web3.exceptions import Web3Exception
from websockets.exceptions import WebSocketException

from chain.heads import HeadSignal

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
class HeadFeed(HeadSignal):
    """Listens to the WebSockets of a chain's providers.

    Run `run` in a task group of the caller's; it ends only when it is cancelled.

    Attributes:
        urls: WebSocket addresses; they may hold keys and are never shown.
    """

    urls: Sequence[str]

    async def run(self) -> None:
        """Listen to every provider, for ever."""
        async with asyncio.TaskGroup() as group:
            for url in self.urls:
                group.create_task(
                    self.listen_for_ever(partial(self._listen, url), CONNECTION_TROUBLE)
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
                self.announce()
        finally:
            await provider.disconnect()
