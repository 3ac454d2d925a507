"""A venue, a gateway to it, and an order to place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from kernel.money import Asset
from kernel.settings import Secret
from marketdata.instruments import record_instrument
from marketdata.model import Instrument
from matching.model import Side, TimeInForce
from tests.venues.in_thread import SimulatorThread
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.gateway import CcxtGateway, GatewaySettings, open_gateway
from venues.lifecycle import ResolvePolicy
from venues.model import OrderTicket, VenueOrder
from venues.orders import intend
from venues.records import BINANCE
from venues.simulator.testing import SimulatorProcess

ASSETS = {asset.code: asset for asset in (Asset("ETH", 18), Asset("USDT", 6), Asset("BNB", 8))}
RECV_WINDOW = timedelta(milliseconds=1_500)
ORDER_TIMEOUT = timedelta(seconds=3)
"""What hangs, hangs for longer; what is answered, is answered sooner on a busy machine, too."""
QUICK = ResolvePolicy(
    margin=timedelta(milliseconds=100),
    not_founds=2,
    pause=timedelta(milliseconds=50),
    looks_max=60,
    escalated_pause=timedelta(0),
)


@pytest.fixture
def sim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SimulatorProcess]:
    """A venue of this test's own; a test that kills it asks for a process (`KILLED`)."""
    kind = getattr(request, "param", SimulatorThread)
    with kind(tmp_path / "venue", "--step-ms", "0") as venue:
        yield venue


KILLED = pytest.mark.parametrize("sim", [SimulatorProcess], indirect=True, ids=["process"])


def gateway_settings(sim: SimulatorProcess) -> GatewaySettings:
    return GatewaySettings(
        venue="sim",
        account="desk",
        capabilities=BINANCE,
        endpoint=Endpoint(http_url=sim.url, ws_url=sim.ws_url),
        credentials=Credentials(api_key=sim.ready["api_key"], secret=Secret(sim.ready["secret"])),
        assets=ASSETS,
        order_timeout=ORDER_TIMEOUT,
        read_timeout=timedelta(seconds=10),
        rate_limit=False,
    )


@pytest.fixture
async def gateway(sim: SimulatorProcess) -> AsyncIterator[CcxtGateway]:
    async with open_gateway(gateway_settings(sim), SystemClock()) as opened:
        yield opened


@pytest.fixture
async def grid(engine: AsyncEngine, gateway: CcxtGateway) -> Instrument:
    found = await gateway.instrument("ETHUSDT")
    now = SystemClock().now()
    return await transact(engine, lambda conn: record_instrument(conn, found, now=now))


def ticket(
    grid: Instrument,
    key: str = "one",
    *,
    lots: int = 10_000,
    price: str = "3100",
    side: Side = Side.BUY,
    time_in_force: TimeInForce = TimeInForce.IOC,
) -> OrderTicket:
    """An order that takes the simulator's ask at once, unless told otherwise."""
    return OrderTicket(
        venue="sim",
        account="desk",
        symbol=grid.symbol,
        instrument_version=grid.version,
        side=side,
        base_units=lots * grid.lot,
        quantity=grid.quantity_text(lots),
        price=grid.price_text(grid.ticks(price)),
        time_in_force=time_in_force,
        reference="test",
        intent=key,
    )


async def intended(
    engine: AsyncEngine, wanted: OrderTicket, *, recv_window: timedelta = RECV_WINDOW
) -> VenueOrder:
    now = SystemClock().now()
    return await transact(
        engine,
        lambda conn: intend(
            conn,
            wanted,
            capabilities=BINANCE,
            recv_window=recv_window,
            actor="system:test",
            reason="a test",
            now=now,
        ),
    )
