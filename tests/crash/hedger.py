"""A hedger that works until its line is flat: a process to be killed at any moment.

Run as ``python -m tests.crash.hedger``, told what it needs in one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any, Final

from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine
from kernel.settings import Secret
from marketdata.model import BookView, Instrument
from marketdata.testing import StillFeed, book_view
from tests.crash.orderer import ASSETS, LOT, POLICY, WINDOW
from trading.hedges.hedger import Hedger, hedge_once
from trading.hedges.model import HedgePolicy, HedgeVerdict
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.gateway import GatewaySettings, open_gateway
from venues.records import BINANCE

CLOCK: Final = SystemClock()
LIMITS: Final = HedgePolicy(
    order_units_max=100 * LOT,
    recv_window=WINDOW,
    intent_age_max=timedelta(milliseconds=100),
    resolve=POLICY,
)
DONE: Final = frozenset({HedgeVerdict.FLAT, HedgeVerdict.BELOW_MINIMUM})


class FreshFeed(StillFeed):
    """A book that does not change, as young as it can be."""

    def __init__(self, told: dict[str, Any], grid: Instrument) -> None:
        super().__init__()
        self._told = told
        self._grid = grid

    def book(self, symbol: str) -> BookView | None:
        del symbol
        bids, asks = self._told["bids"], self._told["asks"]
        return book_view(bids, asks, at=CLOCK.now(), instrument=self._grid)


def settings(told: dict[str, Any]) -> GatewaySettings:
    """Return how the venue is spoken to."""
    return GatewaySettings(
        venue="sim",
        account="desk",
        capabilities=BINANCE,
        endpoint=Endpoint(http_url=told["url"], ws_url=told["ws_url"]),
        credentials=Credentials(api_key=told["api_key"], secret=Secret(told["secret"])),
        assets=ASSETS,
        rate_limit=False,
    )


async def work(told: dict[str, Any]) -> None:
    """Hedge, one small order after the other, until there is nothing to hedge."""
    engine = create_engine(told["database"], role=APP_ROLE)
    async with open_gateway(settings(told), CLOCK) as gateway:
        hedger = Hedger(
            engine=engine,
            gateways={("sim", "desk"): gateway},
            feeds={"sim": FreshFeed(told, await gateway.instrument("ETHUSDT"))},
            clock=CLOCK,
            policy=LIMITS,
            book=told["book"],
        )
        while (await hedge_once(hedger, "otc", "ETH")).verdict not in DONE:
            # After a pass: whoever kills it does so between two orders, or around one.
            sys.stdout.write("ready\n")
            sys.stdout.flush()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(work(json.loads(sys.stdin.readline())))
