"""A venue as a process of its own, a gateway to it, and an order to place."""

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
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.gateway import BinanceGateway, GatewaySettings, open_gateway
from venues.lifecycle import ResolvePolicy
from venues.model import OrderTicket, VenueOrder
from venues.orders import intend
from venues.simulator.testing import SimulatorProcess

ASSETS = {asset.code: asset for asset in (Asset("ETH", 18), Asset("USDT", 6), Asset("BNB", 8))}
RECV_WINDOW = timedelta(milliseconds=800)
QUICK = ResolvePolicy(
    margin=timedelta(milliseconds=100),
    not_founds=2,
    pause=timedelta(milliseconds=50),
    looks_max=60,
)


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path / "venue", "--step-ms", "0") as process:
        yield process


def gateway_settings(sim: SimulatorProcess) -> GatewaySettings:
    return GatewaySettings(
        venue="sim",
        account="desk",
        endpoint=Endpoint(http_url=sim.url, ws_url=sim.ws_url),
        credentials=Credentials(api_key=sim.ready["api_key"], secret=Secret(sim.ready["secret"])),
        assets=ASSETS,
        order_timeout=timedelta(milliseconds=1_500),
        read_timeout=timedelta(milliseconds=1_500),
        rate_limit=False,
    )


@pytest.fixture
async def gateway(sim: SimulatorProcess) -> AsyncIterator[BinanceGateway]:
    async with open_gateway(gateway_settings(sim), SystemClock()) as opened:
        yield opened


@pytest.fixture
async def grid(engine: AsyncEngine, gateway: BinanceGateway) -> Instrument:
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
        key=key,
    )


async def intended(
    engine: AsyncEngine, wanted: OrderTicket, *, recv_window: timedelta = RECV_WINDOW
) -> VenueOrder:
    now = SystemClock().now()
    return await transact(
        engine,
        lambda conn: intend(
            conn, wanted, recv_window=recv_window, actor="system:test", reason="a test", now=now
        ),
    )
