"""How a process is: started or not, stopping or not, its loops, its pool, and what it depends on.

`Vitals` is filled by whoever runs the house and read by the health endpoint; nothing here asks the
outside except its `checks`, and those only when somebody asks whether the house is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool

from app.local.migrate import head
from app.metrics import Figures
from app.posting_times import PostingTimes
from app.workers.loops import Pulse
from custody.signer.client import SignerClient
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import CausewayError, OutsideUnavailable
from kernel.leases import take

CHECK_TIMEOUT_S: Final = 3.0
"""Longer than a healthy answer takes, shorter than a prober waits."""
PROBE_LEASE: Final = "health-probe"
PROBE_LEASE_FOR: Final = timedelta(seconds=5)
HEARTBEAT_S: Final = 0.5
VERSION: Final = "SELECT version_num FROM public.alembic_version"

Check = Callable[[], Awaitable[str]]
"""Returns why the house is not ready; empty: nothing is wrong."""


@dataclass(slots=True, kw_only=True)
class Vitals:
    """What is known of this process.

    Attributes:
        stop: set when it is to end.
        is_started: the workers run.
        checks: what the house depends on, by name.
        pulses: how each loop is doing, by name.
        figures: of its market data.
        engine: the workers' connections; None before there are any.
        lag_s: how much later than asked for the event loop last came round.
    """

    stop: asyncio.Event
    is_started: bool = False
    checks: dict[str, Check] = field(default_factory=dict)
    pulses: dict[str, Pulse] = field(default_factory=dict)
    figures: Figures = field(default_factory=Figures)
    postings: PostingTimes = field(default_factory=PostingTimes)
    engine: AsyncEngine | None = None
    lag_s: float = 0.0

    async def troubles(self) -> dict[str, str]:
        """Return why this process takes no work, by what is wrong; empty: it is ready."""
        if self.stop.is_set():
            return {"stopping": "it was told to stop"}
        if not self.is_started:
            return {"starting": "its workers do not run yet"}
        # At once: three that hang together keep no prober waiting longer than one.
        async with asyncio.TaskGroup() as group:
            asked = {name: group.create_task(self.ask(name)) for name in self.checks}
        found = {name: task.result() for name, task in asked.items()}
        return {name: trouble for name, trouble in found.items() if trouble}

    async def ask(self, name: str) -> str:
        """Return what is wrong with one thing that the house depends on; empty: nothing."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                return await self.checks[name]()
        except TimeoutError:
            return f"no answer within {CHECK_TIMEOUT_S:g} s"
        except CausewayError as error:
            return error.what

    async def beat(self) -> None:
        """Measure for ever how late the event loop comes round."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + HEARTBEAT_S
            await asyncio.sleep(HEARTBEAT_S)
            self.lag_s = max(0.0, loop.time() - due_s)

    def families(self) -> Iterator[Metric]:
        """Return the figures of the process itself; what it depends on is not asked."""
        yield _gauge("causeway_started", "1 once the workers run", int(self.is_started))
        yield _gauge("causeway_stopping", "1 from the signal to the end", int(self.stop.is_set()))
        yield _gauge(
            "causeway_event_loop_lag_seconds", "How late the event loop came round", self.lag_s
        )
        turns = CounterMetricFamily("causeway_loop_turns", "Turns taken", labels=("loop",))
        failures = GaugeMetricFamily(
            "causeway_loop_failures", "Failed turns in a row", labels=("loop",)
        )
        busy = GaugeMetricFamily(
            "causeway_loop_busy_seconds",
            "Since the turn under way began; 0: none is under way",
            labels=("loop",),
        )
        now_s = asyncio.get_running_loop().time()
        for name, pulse in self.pulses.items():
            turns.add_metric((name,), pulse.turns)
            failures.add_metric((name,), pulse.failures)
            busy.add_metric((name,), now_s - pulse.changed_s if pulse.is_busy else 0.0)
        yield from (turns, failures, busy, self.postings.family())
        pool = None if self.engine is None else self.engine.sync_engine.pool
        if isinstance(pool, QueuePool):
            yield _gauge(
                "causeway_database_connections_used",
                "Connections that workers hold",
                pool.checkedout(),
            )
            yield _gauge(
                "causeway_database_connections_room", "Connections that they may hold", pool.size()
            )


def database_check(engine: AsyncEngine, clock: Clock) -> Check:
    """Return whether PostgreSQL answers and lets leases be taken.

    The lease is taken in a transaction that is rolled back: a server that is read only, or that does not
    know the runtime role, is no use to a worker, though it answers.
    """

    async def check() -> str:
        async def take_and_leave(conn: AsyncConnection) -> None:
            async with conn.begin_nested() as attempt:
                await take(
                    conn,
                    PROBE_LEASE,
                    holder=PROBE_LEASE,
                    now=clock.now(),
                    lease_for=PROBE_LEASE_FOR,
                )
                await attempt.rollback()

        try:
            await transact(engine, take_and_leave, attempts_max=1)
        except DBAPIError as error:
            return f"no lease can be taken: {error.orig}"
        return ""

    return check


def migration_check(engine: AsyncEngine) -> Check:
    """Return whether the schema is the one of this program, or a newer one.

    Newer is well: that is how an upgrade without a pause goes, the schema first. A program that does
    not know the schema's revision takes it for newer.
    """
    wanted = head()

    async def check() -> str:
        async def read(conn: AsyncConnection) -> str | None:
            found: str | None = await conn.scalar(text(VERSION))
            return found

        try:
            found = await transact(engine, read, attempts_max=1)
        except DBAPIError as error:
            return f"the schema's revision cannot be read: {error.orig}"
        if found is None or found < wanted:
            return f"the schema is at {found}, this program needs {wanted}"
        return ""

    return check


def signer_check(signer: SignerClient) -> Check:
    """Return whether the signer answers."""

    async def check() -> str:
        try:
            await signer.health()
        except OutsideUnavailable as error:
            return error.what
        return ""

    return check


def _gauge(name: str, purpose: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, purpose, value=value)
