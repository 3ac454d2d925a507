"""PostgreSQL killed with -9, at every step and under load: nothing promised is lost, or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import run_apart, server_folder
from app.local.migrate import migrate
from app.local.postgres import DURABLE, OWNER, LocalPostgres
from kernel.db import APP_ROLE, create_engine
from tests.crash.ledger.nursery import (
    Nursery,
    Poster,
    promises_hold,
    retries_double_nothing,
    rounds,
)
from tests.crash.ledger.test_client_killed import steps_of_a_posting
from tests.crash.ledger.wire import Step, Watch, wired
from tests.crash.ledger.workload import LARGE, prepare_book

# Its server is its own, so it does not ask for the session's, by which the others are marked.
pytestmark = pytest.mark.database

GROUPS = (("lone-1",), ("lone-2",), tuple(f"together-{n}" for n in range(4)))
STREAMS = [stream for group in GROUPS for stream in group]
ANSWERS_S = 30.0
PAUSE_S = 0.35


@pytest.fixture
def server() -> Iterator[LocalPostgres]:
    """A server of this test's own, as durable as in production."""
    folder = server_folder()
    with LocalPostgres(folder / "pg", settings=DURABLE) as running:
        run_apart(lambda: migrate(running.url()))
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def production(server: LocalPostgres) -> AsyncIterator[AsyncEngine]:
    """An engine as the runtime role of that server."""
    await ask(server, f"ALTER ROLE {APP_ROLE} LOGIN")
    engine = create_engine(server.url(user=APP_ROLE), role=APP_ROLE)
    yield engine
    await engine.dispose()


async def ask(server: LocalPostgres, statement: str, user: str = OWNER) -> list[asyncpg.Record]:
    """Run a statement on a connection of its own, as soon as the server lets anybody in."""
    async with asyncio.timeout(ANSWERS_S):
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                connection = await asyncpg.connect(server.psql_url(user=user))
                try:
                    return list(await connection.fetch(statement))
                finally:
                    await connection.close()
            await asyncio.sleep(0.02)


async def more_is_promised(nursery: Nursery) -> None:
    """Wait until somebody has got another answer: after a recovery the posters go on."""

    def promised() -> int:
        return sum(len(nursery.acks(stream)) for stream in STREAMS)

    before = promised()
    async with asyncio.timeout(ANSWERS_S):
        while promised() == before:  # noqa: ASYNC110  another process promises
            await asyncio.sleep(0.02)


async def kill_backend(server: LocalPostgres) -> None:
    """Kill one server process of a poster; the postmaster then ends all others and recovers."""
    backends = await ask(
        server,
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'causeway' ORDER BY pid",
        "postgres",
    )
    if backends:
        os.kill(random.choice(backends)["pid"], signal.SIGKILL)


async def kill_postmaster(server: LocalPostgres) -> None:
    """Kill the server itself and start it again."""
    os.kill(server.pid, signal.SIGKILL)
    assert await asyncio.to_thread(server.restart_if_dead)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["small", LARGE])
async def test_a_server_killed_at_every_step_loses_and_doubles_nothing(
    kind: str,
    server: LocalPostgres,
    production: AsyncEngine,
    nursery: Nursery,
    record_property: Callable[[str, object], None],
) -> None:
    """The poster lives on, and asks again under the same ids until it is answered."""
    async with wired(server.url(user=APP_ROLE)) as wire:
        whole = f"{kind}-whole"
        await prepare_book(production, 1, [whole])
        steps = await steps_of_a_posting(nursery, wire, whole)
        streams = [f"{kind}-{number}" for number in range(len(steps))]
        await prepare_book(production, 1, streams)
        for stream, step in zip(streams, steps, strict=True):
            killed: list[int] = []
            wire.watch = killer(nursery, stream, step, killed)
            poster = await nursery.bear(wire.url, stream, batches=3)
            await poster.gone()
            assert len(killed) == 1
            assert len(nursery.acks(stream)) == 3

    record_property("counts", f"PostgreSQL killed at {len(steps)} points of a {kind} posting")
    await production.dispose()
    assert await promises_hold(production, nursery, streams) == 3 * len(streams)
    await retries_double_nothing(production, [whole, *streams], 3, clean_book=2)


def killer(nursery: Nursery, stream: str, point: Step, killed: list[int]) -> Watch:
    """Kill the server's process of the connection when a message passes, and swallow the message."""

    def watch(step: Step) -> bool:
        if killed or len(nursery.acks(stream)) != 1 or not step.is_like(point):
            return False
        os.kill(step.backend, signal.SIGKILL)
        killed.append(step.backend)
        return True

    return watch


@pytest.mark.timeout(600)
async def test_a_server_killed_under_load_keeps_what_it_has_promised(
    server: LocalPostgres,
    production: AsyncEngine,
    nursery: Nursery,
    record_property: Callable[[str, object], None],
) -> None:
    for setting in ("synchronous_commit", "fsync", "full_page_writes"):
        assert (await ask(server, f"SHOW {setting}"))[0][0] == "on"
    url = server.url(user=APP_ROLE)
    await prepare_book(production, 1, STREAMS)
    posters: list[Poster] = [await nursery.bear(url, *group, batches=100_000) for group in GROUPS]
    kills = (kill_backend, kill_postmaster)
    for number in range(rounds(4)):
        await more_is_promised(nursery)
        await asyncio.sleep(random.uniform(0, PAUSE_S))
        await kills[number % len(kills)](server)
        await ask(server, "SELECT 1")
    await more_is_promised(nursery)
    # They are killed as well: then every batch that one of them began may be there or not.
    for poster in posters:
        poster.send(signal.SIGKILL)
        await poster.gone()

    await production.dispose()
    promised = await promises_hold(production, nursery, STREAMS)
    most = max(len(nursery.acks(stream)) for stream in STREAMS)
    record_property("counts", f"PostgreSQL killed {rounds(4)} times over {promised} promises")
    assert promised > rounds(4)
    await retries_double_nothing(production, STREAMS, most + 1, clean_book=2)
