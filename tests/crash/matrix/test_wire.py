"""What the wire knows of a transaction: the edges that it has taken, and whether it was committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from app.faults.edges import Edge, Kind, Moment, Point
from app.faults.killing import doomed
from app.faults.marks import WORD
from app.faults.postgres_wire import wired
from kernel.db import APP_ROLE, create_engine, transact
from kernel.errors import CommitUnknown
from kernel.jobs import claim_due, complete, enqueue, list_dead
from tests.crash.matrix.telling import Databases

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
READY = Edge("kernel.job", "new", "ready")
DONE = Edge("kernel.job", "ready", "done")


async def add(conn: AsyncConnection, name: str = "sweep") -> None:
    await enqueue(conn, name, NOW)


async def do_it(conn: AsyncConnection) -> None:
    (job,) = await claim_due(conn, ["sweep"], holder="me", now=NOW, lease_for=NOW - NOW, limit=1)
    await complete(conn, job, now=NOW)


@asynccontextmanager
async def engine_over(url: str) -> AsyncIterator[Any]:
    engine = create_engine(url, role=APP_ROLE)
    yield engine
    await engine.dispose()


async def test_the_wire_counts_the_edges_of_what_is_committed(databases: Databases) -> None:
    with databases() as database:
        async with wired(database.app_url) as wire, engine_over(wire.url) as engine:
            await transact(engine, add)
            assert wire.taken == {READY: 1}
            await transact(engine, do_it)
            assert wire.taken == {READY: 1, DONE: 1}


async def test_what_is_rolled_back_is_not_taken(databases: Databases) -> None:
    async def regret(conn: AsyncConnection) -> None:
        await add(conn)
        raise LookupError

    with databases() as database:
        async with wired(database.app_url) as wire, engine_over(wire.url) as engine:
            with pytest.raises(LookupError):
                await transact(engine, regret)
            assert not wire.taken


async def test_what_a_savepoint_takes_back_is_not_taken(databases: Databases) -> None:
    async def work(conn: AsyncConnection) -> None:
        await add(conn, "kept")
        inner = await conn.begin_nested()
        await add(conn, "regretted")
        await inner.rollback()

    with databases() as database:
        async with wired(database.app_url) as wire, engine_over(wire.url) as engine:
            await transact(engine, work)
            assert wire.taken == {READY: 1}


async def test_no_client_sees_a_mark_over_the_wire(databases: Databases) -> None:
    with databases() as database:
        async with wired(database.app_url) as wire:
            for url, seen in ((database.app_url, 1), (wire.url, 0)):
                assert await notices(url, f"job-{seen}") == seen


async def notices(url: str, name: str) -> int:
    """Insert a job and return how many marks its client was told."""
    told: list[str] = []
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain)
    connection.add_log_listener(lambda _, message: told.append(message.message))
    await connection.execute(
        "INSERT INTO kernel.job (id, name, scheduled_for, state, run_after, payload)"
        " VALUES (gen_random_uuid(), $1, now(), 'ready', now(), '{}')",
        name,
    )
    await asyncio.sleep(0)
    await connection.close()
    return len([text for text in told if text.startswith(WORD)])


@pytest.mark.parametrize(
    ("moment", "done"), [(Moment.BEFORE_COMMIT, False), (Moment.AFTER_COMMIT, True)]
)
async def test_a_connection_cut_around_commit_leaves_its_client_in_doubt(
    databases: Databases, moment: Moment, *, done: bool
) -> None:
    with databases() as database:
        async with doomed(database.app_url, Point(READY, moment, Kind.CUT)) as doom:
            async with engine_over(doom.url) as engine:
                with pytest.raises(CommitUnknown):
                    await transact(engine, add)
                assert doom.struck.is_set()
                # It strikes once: who asks again is served.
                await transact(engine, list_dead)
            assert (doom.wire.taken[READY] == 1) is done
