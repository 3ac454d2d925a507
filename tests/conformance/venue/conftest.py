"""A simulator of its own for each module, and unmodified ccxt classes pointed at it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import ccxt.async_support
import ccxt.pro
import pytest
import pytest_asyncio

from tests.venues.in_thread import SimulatorThread
from venues.simulator.testing import SimulatorProcess, ccxt_settings, point_ccxt_at


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    data_dir: Path = tmp_path_factory.mktemp("venue")
    with SimulatorThread(data_dir, "--seed", "7", "--step-ms", "50") as process:
        yield process


@pytest.fixture(autouse=True)
def no_faults_left(venue: SimulatorProcess) -> Iterator[None]:
    yield
    venue.control("DELETE", "faults")


@pytest_asyncio.fixture
async def rest(venue: SimulatorProcess) -> AsyncIterator[ccxt.async_support.binance]:
    exchange = ccxt.async_support.binance(ccxt_settings(venue.ready))
    point_ccxt_at(exchange, venue.url, venue.ws_url)
    yield exchange
    await exchange.close()


@pytest_asyncio.fixture
async def treasury(venue: SimulatorProcess) -> AsyncIterator[ccxt.async_support.binance]:
    """The same account by its other key: it may withdraw and read, not trade."""
    keys = {"apiKey": venue.ready["withdraw_api_key"], "secret": venue.ready["withdraw_secret"]}
    exchange = ccxt.async_support.binance({**ccxt_settings(venue.ready), **keys})
    point_ccxt_at(exchange, venue.url, venue.ws_url)
    yield exchange
    await exchange.close()


@pytest_asyncio.fixture
async def pro(venue: SimulatorProcess) -> AsyncIterator[ccxt.pro.binance]:
    exchange = ccxt.pro.binance(ccxt_settings(venue.ready))
    point_ccxt_at(exchange, venue.url, venue.ws_url)
    yield exchange
    await exchange.close()
