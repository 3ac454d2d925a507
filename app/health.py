"""The health endpoint of a process: is it alive, has it started, does it take work, how is it.

::

    /livez     200 while the event loop comes round; nothing else is asked, so a database that is down
               makes nobody restart what would come up no better
    /startupz  503 until the workers run, then 200 to the end
    /readyz    200 while work is taken: PostgreSQL answers, its schema is at this program's revision,
               leases can be taken, the signer answers. 503 with every trouble by name, also from the
               moment at which the process was told to stop
    /metrics   figures of the process and service levels of the house, for Prometheus

The words are Kubernetes' own. Answers are JSON, but for the last; they hold no secret and no name of a
client. They are kept for a second, so that no prober, however eager, is a load on the database.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.metrics import CONTENT_TYPE, MarketDataCollector
from app.service_levels import ServiceLevels
from app.vitals import Vitals
from kernel.clock import Clock
from kernel.errors import OutsideUnavailable

LIVE: Final = "/livez"
READY: Final = "/readyz"
STARTED: Final = "/startupz"
METRICS: Final = "/metrics"
ANSWER_KEPT_S: Final = 1.0
"""For how long an answer about readiness serves further questions."""
LEVELS_KEPT_S: Final = 5.0
"""For how long service levels serve further scrapes: some thirty short queries each time."""

SHUTDOWN_S: Final = 2.0
"""What a prober that hangs on may cost the end of the process."""

T = TypeVar("T")


@dataclass(slots=True)
class Kept(Generic[T]):
    """What *make* returned, made again only when it is older than *for_s*; one at a time."""

    make: Callable[[], Awaitable[T]]
    for_s: float
    _made: list[T] = field(default_factory=list)
    _made_s: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self) -> T:
        """Return it."""
        time_s = asyncio.get_running_loop().time
        async with self._lock:
            if not self._made or time_s() - self._made_s >= self.for_s:
                self._made = [await self.make()]
                self._made_s = time_s()
            return self._made[0]


@dataclass(frozen=True, eq=False)
class _Collected(Collector):
    """Metrics that were made before."""

    metrics: Sequence[Metric]

    def collect(self) -> Iterator[Metric]:
        """Return them."""
        yield from self.metrics


class Endpoint:
    """Answers for one process.

    Attributes:
        vitals: of the process.
        levels: None until there is a database to read them from.
        url: where it answers; empty before it does.
    """

    def __init__(self, vitals: Vitals, clock: Clock) -> None:
        """Answer for *vitals*; ages are by *clock*."""
        self.vitals = vitals
        self.levels: ServiceLevels | None = None
        self.url = ""
        self._clock = clock
        self._troubles = Kept(vitals.troubles, ANSWER_KEPT_S)
        self._read = Kept(self._read_levels, LEVELS_KEPT_S)

    def application(self) -> web.Application:
        """Return the four questions as a web application."""
        found = web.Application()
        found.router.add_get(LIVE, self._live)
        found.router.add_get(STARTED, self._started)
        found.router.add_get(READY, self._ready)
        found.router.add_get(METRICS, self._metrics)
        return found

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _started(self, _: web.Request) -> web.Response:
        started = self.vitals.is_started
        return web.json_response({"started": started}, status=200 if started else 503)

    async def _ready(self, _: web.Request) -> web.Response:
        troubles = await self._find_troubles()
        body = {"ready": not troubles, "troubles": troubles}
        return web.json_response(body, status=503 if troubles else 200)

    async def _find_troubles(self) -> dict[str, str]:
        # Whoever was told to stop is not ready from that moment on, whatever is kept or was being asked.
        found = {} if self.vitals.stop.is_set() else await self._troubles.get()
        return await self.vitals.troubles() if self.vitals.stop.is_set() else found

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=await self.exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def exposition(self) -> bytes:
        """Return everything as Prometheus reads it."""
        async with asyncio.TaskGroup() as group:
            troubles = group.create_task(self._find_troubles())
            levels = group.create_task(self._read.get())
        metrics = [
            *self.vitals.families(),
            *_readiness(self.vitals.checks, troubles.result()),
            *levels.result(),
        ]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected(metrics))
        registry.register(MarketDataCollector(self.vitals.figures, self._clock))
        return generate_latest(registry)

    async def _read_levels(self) -> list[Metric]:
        return [] if self.levels is None else await self.levels.read()


def _readiness(checks: Iterable[str], troubles: dict[str, str]) -> Iterator[Metric]:
    yield GaugeMetricFamily("causeway_ready", "1 while work is taken", value=int(not troubles))
    well = GaugeMetricFamily("causeway_check", "1 where nothing is wrong", labels=("check",))
    for name in checks:
        well.add_metric((name,), int(name not in troubles))
    yield well


@contextlib.asynccontextmanager
async def served(vitals: Vitals, clock: Clock, *, host: str, port: int) -> AsyncIterator[Endpoint]:
    """Answer on *host* and *port* while the context is open; gives the endpoint.

    Args:
        vitals: of this process.
        clock: ages are by it.
        host: loopback, or where probers reach this machine.
        port: 0 takes any free one.

    Raises:
        OutsideUnavailable: the port is taken, or the host is not this machine.
    """
    endpoint = Endpoint(vitals, clock)
    runner = web.AppRunner(endpoint.application(), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise OutsideUnavailable(
                f"the health endpoint cannot be served: {error.strerror}",
                where=f"{host}:{port}",
                remedy="Set CAUSEWAY_HEALTH_PORT to a free port, CAUSEWAY_HEALTH_HOST to an address"
                " of this machine",
            ) from error
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(vitals.beat())
            taken_host, taken_port = runner.addresses[0][:2]
            endpoint.url = f"http://{taken_host}:{taken_port}"
            yield endpoint
            beating.cancel()
    finally:
        await runner.cleanup()
