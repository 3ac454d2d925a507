"""Kraken's private channels over WebSocket v2, through ccxt.pro's own class.

ccxt fetches the token and makes the connection. The channels are subscribed to by us: its
`watch_orders` and `watch_my_trades` share one subscription, so whichever comes first decides what is
shown, and each gets only the frames that begin with its kind of item. The venue sends a heartbeat
every second in which nothing else happens, so silence is death.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from venues.ccxt.classify import failure_of
from venues.streams.ccxt_session import FAILURES, CcxtSession
from venues.streams.ccxt_stream import CcxtStream
from venues.streams.errors import StreamLost
from venues.streams.kraken_frames import KrakenFrames
from venues.streams.model import GapReason

SILENCE_MAX: Final = timedelta(seconds=5)
CHANNELS: Final[tuple[Mapping[str, Any], ...]] = (
    {"channel": "executions", "snap_orders": True, "snap_trades": False, "order_status": True},
    {"channel": "balances", "snapshot": True},
)


class KrakenSession(CcxtSession):
    """A subscribed connection to Kraken."""

    async def probe(self, timeout: timedelta) -> None:  # noqa: ASYNC109  see `CcxtSession.ask`
        """Be sure that the venue answers."""
        await self.ask({"method": "ping"}, name="req_id", timeout=timeout)


@dataclass(slots=True, kw_only=True)
class KrakenStream(CcxtStream):
    """See `venues.streams.port.PrivateStream`.

    Attributes:
        silence_max: how long the venue may say nothing at all.
    """

    silence_max: timedelta = SILENCE_MAX
    _names: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[CcxtSession]:
        """Connect and subscribe.

        Raises:
            StreamLost: that was not possible.
        """
        began = self.clock.now()
        async with self.instance() as exchange:
            client = exchange.client(exchange.urls["api"]["ws"]["privateV2"])
            frames = KrakenFrames(
                self.instruments, self.wanted.assets, self.account, names=self._names
            )
            session = KrakenSession(
                client,
                frames,
                self.clock,
                silence_max=self.silence_max,
                queue_max=self.queue_max,
            )
            try:
                async with asyncio.timeout(self.connect_timeout / timedelta(seconds=1)):
                    await self._subscribe(exchange, client, session, began)
            except (TimeoutError, *FAILURES) as error:
                reason = failure_of(error).reason
                raise StreamLost(GapReason.CLOSED, reason, since=began) from error
            session.begin()
            yield session

    async def _subscribe(
        self, exchange: Any, client: Any, session: CcxtSession, began: datetime
    ) -> None:
        if not self._names:
            await exchange.load_markets()
            for name, market in exchange.options["marketsByWsName"].items():
                self._names[str(name).replace("XBT", "BTC").replace("XDG", "DOGE")] = market["id"]
        token = await exchange.authenticate()
        await client.connect(exchange.session)
        for channel in CHANNELS:
            question = {"method": "subscribe", "params": {**channel, "token": token}}
            answer = await session.ask(question, name="req_id", timeout=self.connect_timeout)
            if answer.get("success") is not True:
                told = str(answer.get("error"))[:200]
                raise StreamLost(GapReason.REFUSED, told, since=began)
