"""Binance's user data stream over its WebSocket API, through ccxt.pro's own class.

ccxt subscribes by signature on ``/ws-api/v3``. The venue says nothing when nothing happens, so it is
asked: ``session.subscriptions`` shows that the connection answers and is still subscribed. A venue
that answers and yet streams nothing shows only in its list of trades (`supervisor`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from venues.ccxt.classify import failure_of
from venues.streams.binance_frames import BinanceFrames
from venues.streams.ccxt_session import FAILURES, CcxtSession
from venues.streams.ccxt_stream import CcxtStream
from venues.streams.errors import StreamLost
from venues.streams.model import GapReason


class BinanceSession(CcxtSession):
    """A subscribed connection to Binance."""

    async def probe(self, timeout: timedelta) -> None:  # noqa: ASYNC109  see `CcxtSession.ask`
        """Be sure that the venue answers and has not forgotten the subscription."""
        answer = await self.ask({"method": "session.subscriptions"}, name="id", timeout=timeout)
        if answer.get("result") == []:
            raise self.loss(GapReason.REFUSED, "the venue has no subscription of this connection")


class BinanceStream(CcxtStream):
    """See `venues.streams.port.PrivateStream`."""

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[CcxtSession]:
        """Connect and subscribe.

        Raises:
            StreamLost: that was not possible.
        """
        began = self.clock.now()
        async with self.instance() as exchange:
            behind = (began - self.venue_time(began)) // timedelta(milliseconds=1)
            exchange.options["timeDifference"] = behind
            client = exchange.client(exchange.urls["api"]["ws"]["ws-api"]["spot"])
            frames = BinanceFrames(self.instruments, self.wanted.assets, self.account)
            session = BinanceSession(
                client, frames, self.clock, silence_max=None, queue_max=self.queue_max
            )
            await self._subscribe(exchange, began)
            session.begin()
            yield session

    async def _subscribe(self, exchange: Any, began: datetime) -> None:
        try:
            async with asyncio.timeout(self.connect_timeout / timedelta(seconds=1)):
                await exchange.authenticate({"type": "spot"})
        except (TimeoutError, *FAILURES) as error:
            reason = failure_of(error).reason
            raise StreamLost(GapReason.CLOSED, reason, since=began) from error
