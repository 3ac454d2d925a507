"""An order that is made ready while its row is being committed goes out after that, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.clock import SystemClock
from tests.conformance.connectors.bench import Connector, settings_for
from tests.venues.in_thread import SimulatorThread
from venues.ccxt.gateway import open_gateway
from venues.model import Accepted
from venues.simulator.testing import SimulatorProcess

CLOCK = SystemClock()
SYMBOLS = {"binance": "ETHUSDT", "kraken": "XETHZUSD"}
MARKETS = {"binance": "ETH/USDT", "kraken": "ETH/USD"}
GRID = "tick=0.01:lot=0.0001:min=5:mid=3000"


@pytest.fixture(params=sorted(SYMBOLS))
def venue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, SimulatorProcess]]:
    name = request.param
    line = ("--dialect", name, "--step-ms", "0", "--symbol", f"{MARKETS[name]}:{GRID}")
    with SimulatorThread(tmp_path / "venue", *line) as sim:
        yield name, sim


async def test_nothing_goes_out_before_the_commit_is_known(
    venue: tuple[str, SimulatorProcess],
) -> None:
    name, sim = venue
    async with open_gateway(settings_for(name, sim), CLOCK) as gateway:
        connector = Connector(name, sim, gateway, await gateway.instrument(SYMBOLS[name]))
        first, never = connector.resting(), connector.resting()
        committed, rolled_back = (asyncio.get_running_loop().create_future() for _ in range(2))
        async with asyncio.TaskGroup() as group:
            placing = group.create_task(gateway.place(first, after=committed))
            left = group.create_task(gateway.place(never, after=rolled_back))
            # Another request of the key is answered meanwhile, so this one could have been, too.
            assert await gateway.find_order(first) is None
            committed.set_result(None)
            placed = await placing
            left.cancel()
        assert isinstance(placed, Accepted)
        assert await gateway.find_order(first) is not None
        assert await gateway.find_order(never) is None
