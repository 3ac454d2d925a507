"""PostgreSQL on a disk that is full, or that does not sync: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Final

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.faults.disks import DiskFault, FailingDisk, failing_disk
from app.faults.preloads import DISK_LIBRARIES, FOLDER, with_own_names_first
from app.local.postgres import LocalPostgres
from kernel.db import APP_ROLE, transact
from kernel.errors import OutsideUnavailable
from ledger.verification import verify
from tests.crash.ledger.nursery import (
    Nursery,
    opened_nursery,
    promises_hold,
    retries_double_nothing,
)
from tests.crash.ledger.test_server_killed import ask
from tests.crash.ledger.workload import prepare_book
from tests.faults.seeds import fresh_seed
from tests.faults.servers import (
    FAULTS_ARE_THERE,
    faults_folder,
    preloaded_server,
    runtime_engine,
    started_again,
)

pytestmark = [pytest.mark.database, FAULTS_ARE_THERE, pytest.mark.timeout(300)]

STREAMS: Final = ("lone", "other")
NOTICED_S: Final = 15.0
STRIKES_MAX: Final = 5
ROUNDS: Final = 2
SESSIONS: Final = "SELECT pid FROM pg_stat_activity WHERE application_name = 'causeway'"
CHECKPOINTER: Final = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    """A disk that works until it is told not to."""
    with faults_folder() as folder:
        yield failing_disk(folder)


@pytest.fixture
def server(disk: FailingDisk) -> Iterator[LocalPostgres]:
    """A server on that disk."""
    with preloaded_server(disk.folder, disk.environment) as running:
        yield running


@pytest.fixture
async def nursery(tmp_path: Path) -> AsyncIterator[Nursery]:
    """Where posters come from."""
    async with opened_nursery(tmp_path) as made:
        yield made


def acks(nursery: Nursery) -> int:
    return sum(len(nursery.acks(stream)) for stream in STREAMS)


async def until(condition: Callable[[], bool], server: LocalPostgres, disk: FailingDisk) -> None:
    """Wait, starting the server again whenever it gave up."""
    async with asyncio.timeout(NOTICED_S):
        while not condition():
            await started_again(server, disk.environment)
            await asyncio.sleep(0.05)


def said(server: LocalPostgres, words: str) -> int:
    return server.log.read_text(errors="replace").count(words)


async def checkpoint(server: LocalPostgres) -> None:
    """Ask for a checkpoint of a server that is going to end over it."""
    connection = await asyncpg.connect(server.psql_url(user="postgres"))
    try:
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await connection.execute("CHECKPOINT")
    finally:
        connection.terminate()


async def test_a_full_disk_refuses_with_its_reason_and_the_next_one_is_served(
    server: LocalPostgres, disk: FailingDisk
) -> None:
    engine = runtime_engine(server, pool_size=1)

    async def much(conn: AsyncConnection) -> None:
        await conn.execute(
            text(
                "INSERT INTO kernel.lease (name)"
                " SELECT 'full-' || n || repeat('x', 100) FROM generate_series(1, 5000) n"
            )
        )

    async def count(conn: AsyncConnection) -> int:
        return int(await conn.scalar(text("SELECT count(*) FROM kernel.lease")) or 0)

    async def pid(conn: AsyncConnection) -> int:
        return int(await conn.scalar(text("SELECT pg_backend_pid()")) or 0)

    before, session = await transact(engine, count), await transact(engine, pid)
    disk.fail(session, DiskFault.FULL)
    with pytest.raises(OutsideUnavailable, match="No space left on device"):
        await transact(engine, much)

    disk.mend(session, DiskFault.FULL)
    assert await transact(engine, count) == before
    await transact(engine, much)
    assert await transact(engine, count) == before + 5000
    await engine.dispose()


FAILURES: Final = (
    (DiskFault.FULL, SESSIONS, "No space left on device"),
    (DiskFault.NO_SYNC, SESSIONS, "PANIC:  could not fdatasync"),
    (DiskFault.NO_SYNC, CHECKPOINTER, "PANIC:  could not fsync"),
)
"""What fails, for whom, and what the server's log says then."""


async def test_posters_on_a_failing_disk_lose_and_double_nothing_that_was_acknowledged(
    server: LocalPostgres,
    disk: FailingDisk,
    nursery: Nursery,
    record_property: Callable[[str, object], None],
) -> None:
    """A server that cannot write or sync panics rather than lie, and comes back from what is synced."""
    seed = fresh_seed()
    random = Random(seed)
    engine = runtime_engine(server)
    await prepare_book(engine, 1, STREAMS)
    await engine.dispose()
    for stream in STREAMS:
        await nursery.bear(server.url(user=APP_ROLE), stream, batches=100_000)
    for fault, whom, words in FAILURES * ROUNDS:
        await one_failure(server, disk, nursery, fault, whom, words, random)
    last = acks(nursery)
    await until(lambda: acks(nursery) > last + len(STREAMS), server, disk)
    for poster in nursery.posters:
        poster.send(signal.SIGKILL)
        await poster.gone()

    promised = await promises_hold(engine, nursery, STREAMS)
    most = max(len(nursery.acks(stream)) for stream in STREAMS)
    await retries_double_nothing(engine, STREAMS, most + 1, clean_book=2)
    assert await verify(engine, 1) == []
    await engine.dispose()
    record_property(
        "counts",
        f"disks full or not synced {ROUNDS * len(FAILURES)} times, seed {seed}:"
        f" {promised} promises kept",
    )


async def one_failure(
    server: LocalPostgres,
    disk: FailingDisk,
    nursery: Nursery,
    fault: DiskFault,
    whom: str,
    words: str,
    random: Random,
) -> None:
    """Let a disk fail once under load, see the server say so, and mend it."""
    before, errors = acks(nursery), said(server, words)
    more = random.randrange(5)
    await until(lambda: acks(nursery) > before + more, server, disk)
    struck = 0
    while said(server, words) == errors:
        struck += 1
        assert struck <= STRIKES_MAX, words
        for row in await ask(server, whom, "postgres"):
            with contextlib.suppress(OutsideUnavailable):  # it has ended since
                disk.fail(row["pid"], fault, probability=random.uniform(0.2, 1.0))
        if whom is CHECKPOINTER:
            await checkpoint(server)
        with contextlib.suppress(TimeoutError):
            await until(lambda: said(server, words) > errors, server, disk)
    # Sessions that live on are told; those of a server that came back have a new disk.
    for row in await ask(server, SESSIONS, "postgres"):
        with contextlib.suppress(OutsideUnavailable):
            disk.mend(row["pid"], fault)


def test_libraries_are_told_to_use_their_own_names_first() -> None:
    image = (FOLDER / DISK_LIBRARIES[1]).read_bytes()
    changed = with_own_names_first(image)

    assert changed != image
    assert with_own_names_first(changed) == changed


def test_who_has_no_failing_disk_is_named(disk: FailingDisk) -> None:
    with pytest.raises(OutsideUnavailable, match="process 1 has no failing disk"):
        disk.fail(1, DiskFault.FULL)


CONVERSATIONS: Final = 500


@pytest.fixture
def sleeper(disk: FailingDisk) -> Iterator[subprocess.Popen[bytes]]:
    """A program on that disk that does nothing, once it listens."""
    asleep = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    with subprocess.Popen(
        asleep, env={**os.environ, **disk.environment}, stdout=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"\n"
        yield program
        program.kill()


def test_a_process_is_told_between_any_two_of_its_conversations(
    disk: FailingDisk, sleeper: subprocess.Popen[bytes]
) -> None:
    """Each ends with closed pipes, which it opens anew: it may be told before it has."""
    for _ in range(CONVERSATIONS):
        disk.fail(sleeper.pid, DiskFault.FULL)
        disk.mend(sleeper.pid, DiskFault.FULL)


def test_who_has_ended_and_left_its_pipes_has_no_failing_disk(
    disk: FailingDisk, sleeper: subprocess.Popen[bytes]
) -> None:
    sleeper.kill()
    sleeper.wait()

    with pytest.raises(OutsideUnavailable, match="has no failing disk: it has ended"):
        disk.fail(sleeper.pid, DiskFault.FULL)
