"""How fast is an order from the intent to the venue's acknowledgement, beside a bare ccxt loop?

Ours is the whole path of `venues.orders.send`: one statement writes the intent, with the id and
the time that will be signed, and reaches the disk; the unmodified ccxt class, which has made and
signed the request meanwhile, sends the order over a real socket to a venue simulator, a process of its
own; a second statement writes what came of it, with its events. Whoever sends goes on with the venue's
answer; a turn ends when every answer is on record. The same is measured with each sender waiting for
the record (``.recorded``). Orders that are under way at once share statements
and commits. The limit is the same ccxt class in a loop that keeps nothing and remembers nothing, against
the same simulator.

What a commit that waits for the disk costs here is printed beside it: one is in each of our orders.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import asyncpg
import ccxt.async_support as ccxt

from app.local.migrate import migrate
from bench.ledger_book import Books, books
from bench.measure import Measured, Result, Shared, Turn, alternate, versions
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine
from kernel.money import Asset
from kernel.settings import Secret
from marketdata.model import Instrument
from matching.model import Side, TimeInForce
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.gateway import CcxtGateway, GatewaySettings, open_gateway
from venues.model import OrderState, OrderTicket
from venues.order_writer import OrderWriter
from venues.orders import send
from venues.records import BINANCE
from venues.simulator.testing import SimulatorProcess, ccxt_settings, point_ccxt_at

ROUNDS: Final = 15
AT_LEAST: Final = 0.5
SECONDS_PER_TURN: Final = 0.5
SYMBOL: Final = "ETHUSDT"
UNIFIED: Final = "ETH/USDT"
PRICE: Final = "1500"
"""Half of the simulator's price: the order rests and is acknowledged as open."""
LOTS: Final = 100
DATABASE: Final = "orders_path"
RECV_WINDOW: Final = timedelta(seconds=5)
COMMITS_MEASURED: Final = 200
CLOCK: Final = SystemClock()
ASSETS: Final = {
    asset.code: asset for asset in (Asset("ETH", 18), Asset("USDT", 6), Asset("BNB", 8))
}


class Paths:
    """A database, a venue, a gateway and a bare ccxt object, and what both contestants do."""

    def __init__(
        self,
        runner: asyncio.Runner,
        writer: OrderWriter,
        gateway: CcxtGateway,
        bare: Any,
        grid: Instrument,
    ) -> None:
        self.runner = runner
        self.writer = writer
        self.gateway = gateway
        self.bare = bare
        self.grid = grid
        self.commit_ms = 0.0
        self._numbers = count(1)

    async def ours(self) -> None:
        """Write an order down and send it; what the venue says is written down right behind."""
        await self._send(is_recorded_later=True)

    async def recorded(self) -> None:
        """Write an order down, send it, and wait until what the venue said is written down."""
        await self._send(is_recorded_later=False)

    async def _send(self, *, is_recorded_later: bool) -> None:
        number = next(self._numbers)
        ticket = OrderTicket(
            venue="sim",
            account="desk",
            symbol=SYMBOL,
            instrument_version=1,
            side=Side.BUY,
            base_units=LOTS * self.grid.lot,
            quantity=self.grid.quantity_text(LOTS),
            price=PRICE,
            time_in_force=TimeInForce.GTC,
            reference="bench",
            intent=f"bench-{number}",
        )
        order = await send(
            self.writer,
            self.gateway,
            ticket,
            recv_window=RECV_WINDOW,
            holder="bench",
            reason="a benchmark",
            clock=CLOCK,
            is_recorded_later=is_recorded_later,
        )
        assert order.state is OrderState.ACKED, order.state_reason

    async def theirs(self) -> None:
        """Send an order with ccxt."""
        number = next(self._numbers)
        answer = await self.bare.create_order(
            UNIFIED,
            "limit",
            "buy",
            self.grid.quantity_text(LOTS),
            PRICE,
            {"newClientOrderId": f"bare{number}"},
        )
        assert answer["id"], answer

    def turn(self, order: Callable[[], Awaitable[None]], concurrency: int) -> Turn:
        """Order one after the other from *concurrency* tasks, for a while."""

        async def work() -> int:
            done = 0
            until = perf_counter() + SECONDS_PER_TURN

            async def task() -> None:
                nonlocal done
                while perf_counter() < until:
                    await order()
                    done += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(task())
            await self.writer.settled()
            return done

        return lambda: self.runner.run(work())


@contextmanager
def paths(found: Books) -> Iterator[Paths]:
    """Make the database, start the venue and connect."""
    with (
        tempfile.TemporaryDirectory(prefix="causeway-bench-") as folder,
        asyncio.Runner() as runner,
    ):
        runner.run(found.administer(f"CREATE DATABASE {DATABASE}"))
        try:
            with SimulatorProcess(Path(folder) / "venue", "--step-ms", "0") as sim:
                sim.control("POST", "fund", {"asset": "USDT", "amount": "90000000000"})
                stack = AsyncExitStack()
                opened = runner.run(_open(runner, stack, found, sim))
                try:
                    yield opened
                finally:
                    runner.run(stack.aclose())
        finally:
            runner.run(found.administer(f"DROP DATABASE {DATABASE}"))


async def _open(
    runner: asyncio.Runner, stack: AsyncExitStack, found: Books, sim: SimulatorProcess
) -> Paths:
    url = found.server.url(DATABASE)
    await migrate(url)
    engine = create_engine(url, role=APP_ROLE, pool_size=10)
    stack.push_async_callback(engine.dispose)
    wanted = GatewaySettings(
        venue="sim",
        account="desk",
        capabilities=BINANCE,
        endpoint=Endpoint(http_url=sim.url, ws_url=sim.ws_url),
        credentials=Credentials(api_key=sim.ready["api_key"], secret=Secret(sim.ready["secret"])),
        assets=ASSETS,
        rate_limit=False,
    )
    writer = await stack.enter_async_context(OrderWriter(engine))
    gateway = await stack.enter_async_context(open_gateway(wanted, CLOCK))
    bare = ccxt.binance(ccxt_settings(sim.ready))
    stack.push_async_callback(bare.close)
    point_ccxt_at(bare, sim.url, sim.ws_url)
    await bare.load_markets()
    opened = Paths(runner, writer, gateway, bare, await gateway.instrument(SYMBOL))
    opened.commit_ms = await _commit_ms(found, url)
    return opened


async def _commit_ms(found: Books, url: str) -> float:
    """Return what one small commit takes, in ms, alone on the server: the write to the disk."""
    del url
    raw = await asyncpg.connect(found.server.psql_url())
    try:
        await raw.execute("CREATE TABLE IF NOT EXISTS bench_commit (n integer)")
        spans = []
        for number in range(COMMITS_MEASURED):
            began = perf_counter()
            await raw.execute("INSERT INTO bench_commit VALUES ($1)", number)
            spans.append(perf_counter() - began)
        await raw.execute("DROP TABLE bench_commit")
    finally:
        await raw.close()
    return statistics.median(spans) * 1_000


def measure_1(shared: Shared) -> Measured:
    """One order at a time."""
    return _measure(shared, 1)


def measure_16(shared: Shared) -> Measured:
    """Sixteen at a time."""
    return _measure(shared, 16)


def _measure(shared: Shared, concurrency: int) -> Measured:
    found = shared.once(books)
    with paths(found) as path:
        rates = alternate(
            {
                "ours": lambda: path.turn(path.ours, concurrency),
                "recorded": lambda: path.turn(path.recorded, concurrency),
                "bare": lambda: path.turn(path.theirs, concurrency),
            },
            ROUNDS,
        )
        commit_ms = path.commit_ms
    name = f"orders_path_{concurrency}"
    return Measured(
        [
            Result(
                name=name,
                value=rates["ours"],
                unit="orders/s",
                baseline="bare ccxt loop, same concurrency",
                baseline_value=rates["bare"],
                at_least=AT_LEAST,
            ),
            Result(name=f"{name}.recorded", value=rates["recorded"], unit="orders/s"),
            Result(
                name=f"{name}.commit", value=commit_ms, unit="ms for one commit, fsync included"
            ),
        ],
        found.conditions(
            f"{concurrency} orders at once, limit orders that rest; {ROUNDS} turns of "
            f"{SECONDS_PER_TURN} s; simulator with its journal in a process of its own"
        ),
        versions("ccxt", "aiohttp", "asyncpg", "sqlalchemy"),
    )
