"""Two simulators per dialect for the whole suite, one for clocks that are set; a fresh gateway for every card and connector."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from tests.conformance.connectors.bench import CLOCK, Connector, settings_for
from tests.venues.in_thread import SimulatorThread
from venues.ccxt.gateway import open_gateway
from venues.simulator.settings import DialectName
from venues.simulator.testing import SimulatorProcess

CONNECTORS: Final = {
    "binance": ("binance", "ETHUSDT"),
    "binanceus": ("binance", "ETHUSDT"),
    "kraken": ("kraken", "XETHZUSD"),
}
"""Connector: the dialect of its simulator, and the market that is traded."""

SPOKEN: Final = {str(dialect.value) for dialect in DialectName}

Simulators = Callable[[str], SimulatorProcess]


@pytest.fixture(scope="session")
def simulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulators]:
    running: dict[str, SimulatorProcess] = {}

    def of(name: str) -> SimulatorProcess:
        if name not in running:
            dialect = name.partition("/")[0]
            home = tmp_path_factory.mktemp(dialect)
            process = SimulatorThread(home, "--step-ms", "0", "--dialect", dialect)
            process.start()
            running[name] = process
        return running[name]

    yield of
    for process in running.values():
        process.stop()


NAMES: Final = [name for name, (spoken, _) in CONNECTORS.items() if spoken in SPOKEN]


@asynccontextmanager
async def connected(name: str, sim: SimulatorProcess) -> AsyncIterator[Connector]:
    _, symbol = CONNECTORS[name]
    async with open_gateway(settings_for(name, sim), CLOCK) as gateway:
        grid = await gateway.instrument(symbol)
        yield Connector(name, sim, gateway, grid)
        sim.control("DELETE", "faults")
        sim.control("POST", "clock", {"skew_ms": 0})
        await gateway.synchronise()
        await gateway.cancel_all(None)


@pytest.fixture(params=NAMES)
async def connector(
    request: pytest.FixtureRequest, simulators: Simulators
) -> AsyncIterator[Connector]:
    dialect, _ = CONNECTORS[request.param]
    async with connected(request.param, simulators(dialect)) as found:
        yield found


@pytest.fixture(params=NAMES)
async def askew(request: pytest.FixtureRequest, simulators: Simulators) -> AsyncIterator[Connector]:
    """A connector to a venue whose clock may be set: trades of the future are in nobody's way."""
    dialect, _ = CONNECTORS[request.param]
    async with connected(request.param, simulators(f"{dialect}/askew")) as found:
        yield found
