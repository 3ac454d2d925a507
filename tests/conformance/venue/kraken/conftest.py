"""One simulator that speaks Kraken for all cards, and unmodified ccxt classes pointed at it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import ccxt.async_support
import ccxt.pro
import pytest
import pytest_asyncio

from tests.venues.in_thread import SimulatorThread
from venues.simulator.testing import SimulatorProcess, ccxt_settings, point_ccxt_at

MARKETS = [
    "BTC/USD:tick=0.1:lot=0.00001:min=5:mid=60000",
    "ETH/USD:tick=0.01:lot=0.0001:min=5:mid=3000",
]
BALANCES = ["BTC=50", "ETH=1000", "USD=5000000"]


@pytest.fixture(scope="session")
def kraken_venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    data_dir: Path = tmp_path_factory.mktemp("kraken")
    line = ["--dialect", "kraken", "--seed", "7", "--step-ms", "0"]
    line += ["--symbol", *MARKETS, "--balance", *BALANCES]
    with SimulatorThread(data_dir, *line) as process:
        yield process


@pytest.fixture(autouse=True)
def venue(kraken_venue: SimulatorProcess) -> SimulatorProcess:
    """Every card finds the same full books; nothing moves but by the card itself."""
    kraken_venue.control("POST", "mid", {"symbol": "BTCUSD", "price": "60000.0"})
    kraken_venue.control("POST", "mid", {"symbol": "ETHUSD", "price": "3000.00"})
    return kraken_venue


def settings(process: SimulatorProcess) -> dict[str, Any]:
    return ccxt_settings(process.ready) | {"options": {}}


@pytest_asyncio.fixture
async def rest(venue: SimulatorProcess) -> AsyncIterator[ccxt.async_support.kraken]:
    exchange = ccxt.async_support.kraken(settings(venue))
    point_ccxt_at(exchange, venue.url, venue.ws_url)
    yield exchange
    await exchange.privatePostCancelAll()
    await exchange.close()


@pytest_asyncio.fixture
async def pro(venue: SimulatorProcess) -> AsyncIterator[ccxt.pro.kraken]:
    exchange = ccxt.pro.kraken(settings(venue))
    point_ccxt_at(exchange, venue.url, venue.ws_url)
    yield exchange
    await exchange.close()
