"""What the private streams through ccxt.pro have in common: the account, what it trades, instances."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from kernel.clock import Clock
from marketdata.model import Instrument
from venues.ccxt.gateway import GatewaySettings
from venues.ccxt.instance import streaming
from venues.streams.ccxt_session import QUEUE_MAX

CONNECT_TIMEOUT: Final = timedelta(seconds=10)


@dataclass(slots=True, kw_only=True)
class CcxtStream:
    """One account's private stream.

    Attributes:
        wanted: the account, as its gateway has it.
        venue_time: the venue's time when ours is as given: requests are signed with it.
        instruments: what is traded, by the venue's symbol.
        connect_timeout: until a connection that is not subscribed is given up.
        queue_max: events that may wait to be written down.
    """

    wanted: GatewaySettings
    clock: Clock
    venue_time: Callable[[datetime], datetime]
    instruments: dict[str, Instrument] = field(default_factory=dict)
    connect_timeout: timedelta = CONNECT_TIMEOUT
    queue_max: int = QUEUE_MAX

    @property
    def venue(self) -> str:
        """Return our code of the venue."""
        return self.wanted.venue

    @property
    def account(self) -> str:
        """Return our code of the account."""
        return self.wanted.account

    def learn(self, instrument: Instrument) -> None:
        """Read trades of one more instrument from now on."""
        self.instruments[instrument.symbol] = instrument

    @asynccontextmanager
    async def instance(self) -> AsyncIterator[Any]:
        """Make an instance of ccxt.pro for one connection, and close it at the end."""
        wanted = self.wanted
        exchange = streaming(
            wanted.capabilities,
            wanted.credentials,
            wanted.endpoint,
            wanted.read_timeout,
            self.clock,
        )
        try:
            yield exchange
        finally:
            await exchange.close()
