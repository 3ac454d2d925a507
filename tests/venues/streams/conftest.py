"""One venue for a module of stream tests, its accounts used by hand and through a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import ccxt.async_support as ccxt
import pytest

from kernel.clock import SystemClock
from kernel.money import Asset
from tests.venues.conftest import ASSETS
from tests.venues.conftest import gateway_settings as settings_of
from venues.ccxt.endpoint import point_at, settings
from venues.ccxt.gateway import CcxtGateway, GatewaySettings, open_gateway
from venues.simulator.testing import SimulatorProcess
from venues.streams.binance import BinanceStream


def gateway_settings(sim: SimulatorProcess) -> GatewaySettings:
    """The usual account, which may trade one asset more."""
    assets = {**ASSETS, "BTC": Asset("BTC", 8)}
    return replace(settings_of(sim), assets=assets, order_timeout=timedelta(seconds=4))


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    arguments = ("--step-ms", "0", "--balance", "ETH=100", "USDT=1000000", "BTC=10", "BNB=0")
    with SimulatorProcess(tmp_path_factory.mktemp("venue"), *arguments) as process:
        yield process


@pytest.fixture
def sim(venue: SimulatorProcess) -> Iterator[SimulatorProcess]:
    venue.control("DELETE", "faults")
    yield venue
    venue.control("DELETE", "faults")


@pytest.fixture
async def gateway(sim: SimulatorProcess) -> AsyncIterator[CcxtGateway]:
    async with open_gateway(gateway_settings(sim), SystemClock()) as opened:
        yield opened


@pytest.fixture
async def stream(sim: SimulatorProcess, gateway: CcxtGateway) -> BinanceStream:
    found = BinanceStream(
        wanted=gateway_settings(sim), clock=SystemClock(), venue_time=gateway.venue_time
    )
    found.learn(await gateway.instrument("ETHUSDT"))
    return found


@pytest.fixture
async def desk(sim: SimulatorProcess) -> AsyncIterator[Any]:
    """The account's own key, used by hand: nothing of it is on record."""
    credentials = gateway_settings(sim).credentials
    exchange = ccxt.binance(settings(credentials, timeout_ms=20_000, rate_limit=False))
    exchange.verify = False  # no TLS: no certificates to read
    point_at(exchange, gateway_settings(sim).endpoint)
    yield exchange
    await exchange.close()
