"""A worker that wants some orders and clears up before it begins: a process to be killed at any moment.

Run as ``python -m tests.crash.orderer``, told what it needs in one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine
from kernel.money import Asset
from kernel.settings import Secret
from matching.model import Side, TimeInForce
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.gateway import CcxtGateway, GatewaySettings, open_gateway
from venues.fills import collect
from venues.lifecycle import ResolvePolicy
from venues.model import OrderTicket
from venues.order_writer import OrderWriter
from venues.orders import resume, send
from venues.records import BINANCE

ASSETS: Final = {
    asset.code: asset for asset in (Asset("ETH", 18), Asset("USDT", 6), Asset("BNB", 8))
}
CLOCK: Final = SystemClock()
WINDOW: Final = timedelta(milliseconds=400)
POLICY: Final = ResolvePolicy(
    margin=timedelta(milliseconds=100), not_founds=2, pause=timedelta(milliseconds=20)
)
LOT: Final = 10**14
AT_ONCE: Final = 8
"""Tasks that order at the same time: what they write is grouped."""


def ticket(number: int) -> OrderTicket:
    """Return order number *number*: it takes what the book has to give."""
    return OrderTicket(
        venue="sim",
        account="desk",
        symbol="ETHUSDT",
        instrument_version=1,
        side=Side.BUY,
        base_units=100 * LOT,
        quantity="0.0100",
        price="3100.00",
        time_in_force=TimeInForce.IOC,
        reference="crash",
        intent=f"want-{number}",
    )


async def order_all(writer: OrderWriter, gateway: CcxtGateway, numbers: Iterable[int]) -> None:
    """Send some of the orders, one after the other."""
    for number in numbers:
        await send(
            writer,
            gateway,
            ticket(number),
            recv_window=WINDOW,
            holder="orderer",
            reason="wanted",
            clock=CLOCK,
        )


async def work(told: dict[str, Any]) -> None:
    """Clear up, send every order that is wanted, clear up again, collect."""
    engine = create_engine(told["database"], role=APP_ROLE)
    wanted = GatewaySettings(
        venue="sim",
        account="desk",
        capabilities=BINANCE,
        endpoint=Endpoint(http_url=told["url"], ws_url=told["ws_url"]),
        credentials=Credentials(api_key=told["api_key"], secret=Secret(told["secret"])),
        assets=ASSETS,
        rate_limit=False,
    )
    async with open_gateway(wanted, CLOCK) as gateway:
        await gateway.instrument("ETHUSDT")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        async with OrderWriter(engine) as writer, asyncio.TaskGroup() as group:
            for first in range(AT_ONCE):
                numbers = range(first, told["orders"], AT_ONCE)
                group.create_task(order_all(writer, gateway, numbers))
        left = await resume(engine, gateway, holder="orderer", clock=CLOCK, policy=POLICY)
        await collect(engine, gateway, "ETHUSDT", clock=CLOCK)
    await engine.dispose()
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    asyncio.run(work(json.loads(sys.stdin.readline())))
