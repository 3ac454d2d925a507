"""A venue changes its grids and lists symbols while we run: both are learnt without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from marketdata.errors import NoInstrument
from marketdata.instruments import get_instrument, record_instrument
from tests.conformance.connectors.bench import Connector, settings_for
from tests.venues.conftest import intended, ticket
from tests.venues.in_thread import SimulatorThread
from venues.ccxt.gateway import CcxtGateway, open_gateway
from venues.ccxt.markets import MarketsPolicy
from venues.model import Accepted, PlacementRefused
from venues.simulator.testing import SimulatorProcess
from venues.store import get_order

CLOCK = SystemClock()
FINE = "ETH/USD:tick=0.01:lot=0.0001:min=5:mid=3000"
COARSE = "ETH/USD:tick=0.1:lot=0.01:min=5:mid=3000"
OTHER = "BTC/USD:tick=0.1:lot=0.00001:min=5:mid=60000"
SYMBOLS = {"binance": "ETHUSDT", "kraken": "XETHZUSD"}
AT_ONCE = MarketsPolicy(age_max=timedelta(0), pause=timedelta(0))
WHEN_DOUBTED = MarketsPolicy(age_max=timedelta(hours=1), pause=timedelta(0))
NOT_YET = MarketsPolicy(age_max=timedelta(0), pause=timedelta(hours=1))

Become = Callable[..., SimulatorProcess]


@pytest.fixture
def become(tmp_path: Path) -> Iterator[Become]:
    """A venue with these markets; each time it is another one at the same address."""
    port = 0
    with ExitStack() as running:

        def started(dialect: str, *markets: str) -> SimulatorProcess:
            nonlocal port
            running.pop_all().close()
            spelt = [m.replace("/USD:", "/USDT:") if dialect == "binance" else m for m in markets]
            line = ("--dialect", dialect, "--step-ms", "0", "--symbol", *spelt)
            folder = tmp_path / f"venue-{len(list(tmp_path.iterdir()))}"
            sim = running.enter_context(SimulatorThread(folder, *line, port=port))
            port = urlsplit(sim.url).port or 0
            return sim

        yield started


@asynccontextmanager
async def opened(
    name: str, sim: SimulatorProcess, policy: MarketsPolicy
) -> AsyncIterator[CcxtGateway]:
    wanted = replace(settings_for(name, sim), markets_policy=policy)
    async with open_gateway(wanted, CLOCK) as gateway:
        yield gateway


@pytest.mark.parametrize("name", ["binance", "kraken"])
async def test_a_grid_that_changed_is_read_again_and_orders_keep_the_one_they_were_made_on(
    engine: AsyncEngine, become: Become, name: str
) -> None:
    symbol = SYMBOLS[name]
    async with opened(name, become(name, FINE), AT_ONCE) as gateway:
        before = await gateway.instrument(symbol)
        record = partial(record_instrument, now=CLOCK.now())
        first = await transact(engine, partial(record, instrument=before))
        lots = first.base.parse("0.1234") // first.lot
        order = await intended(engine, ticket(first, lots=lots, price="2999.99"))
        become(name, COARSE)
        after = await gateway.instrument(symbol)
        second = await transact(engine, partial(record, instrument=after))

    async with engine.connect() as conn:
        kept = await get_order(conn, order.id)
        its_grid = await get_instrument(conn, "sim", symbol, version=kept.instrument_version)
    assert [(grid.price_scale, grid.tick) for grid in (before, after)] == [(2, 1), (1, 1)]
    assert (first.version, second.version) == (1, 2)
    assert its_grid == first
    assert (kept.price, kept.base_units) == ("2999.99", first.base.parse("0.1234"))


@pytest.mark.parametrize("name", ["binance", "kraken"])
async def test_a_symbol_that_was_listed_meanwhile_is_found(become: Become, name: str) -> None:
    new = {"binance": "BTCUSDT", "kraken": "XXBTZUSD"}[name]
    async with opened(name, become(name, FINE), WHEN_DOUBTED) as gateway:
        with pytest.raises(NoInstrument):
            await gateway.instrument(new)
        become(name, FINE, OTHER)

        assert (await gateway.instrument(new)).symbol == new
        assert (await gateway.instrument(SYMBOLS[name])).symbol == SYMBOLS[name]


async def test_an_order_refused_for_the_grid_has_the_grid_read_again(become: Become) -> None:
    async with opened("binance", become("binance", FINE), WHEN_DOUBTED) as gateway:
        grid = await gateway.instrument("ETHUSDT")
        sim = become("binance", COARSE)
        connector = Connector("binance", sim, gateway, grid)
        unaware = await gateway.instrument("ETHUSDT")
        refused = await gateway.place(connector.resting(quantity="0.1234", price="2000.01"))
        aware = await gateway.instrument("ETHUSDT")
        again = replace(connector, grid=aware)
        placed = await gateway.place(again.resting(quantity="0.12", price="2000.5"))

    assert unaware == grid
    assert isinstance(refused, PlacementRefused)
    assert (aware.price_scale, aware.tick) == (1, 1)
    assert isinstance(placed, Accepted)


async def test_markets_that_cannot_be_read_again_stay_and_are_not_asked_for_without_a_pause(
    become: Become, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = become("binance", FINE)
    async with opened("binance", sim, AT_ONCE) as gateway:
        grid = await gateway.instrument("ETHUSDT")
        sim.fault("status_503", "/api/v3/exchangeInfo", count=1_000)
        assert await gateway.instrument("ETHUSDT") == grid
        with pytest.raises(NoInstrument):
            await gateway.instrument("DOGEUSDT")
    sim.control("DELETE", "faults")
    async with opened("binance", sim, NOT_YET) as gateway:
        asked = 0
        load_markets = gateway._reader.load_markets

        async def counted(reload: bool = False) -> Any:  # noqa: FBT001, FBT002  as ccxt has it
            nonlocal asked
            asked += reload
            return await load_markets(reload)

        await gateway.instrument("ETHUSDT")
        monkeypatch.setattr(gateway._reader, "load_markets", counted)
        for _ in range(3):
            with pytest.raises(NoInstrument):
                await gateway.instrument("DOGEUSDT")

    assert asked == 0


async def test_an_order_does_not_wait_while_markets_are_read_again(become: Become) -> None:
    sim = become("binance", FINE)
    async with opened("binance", sim, AT_ONCE) as gateway:
        grid = await gateway.instrument("ETHUSDT")
        connector = Connector("binance", sim, gateway, grid)
        sim.fault("hang_before_accept", "/api/v3/exchangeInfo", count=1_000)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(gateway.instrument("ETHUSDT"))
            await asyncio.sleep(0.05)
            placed = await gateway.place(connector.resting())
            was_reading = not reading.done()
            # The venue begins anew, and whoever waits for it is cut off.
            become("binance", FINE)

    assert isinstance(placed, Accepted)
    assert was_reading
    assert reading.result() == grid
