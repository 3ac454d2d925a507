"""Connections to PostgreSQL that fail: the pool recovers, and no outcome is guessed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.faults.proxy import FaultProxy, postgres_target
from app.faults.wire_rules import Fault, Rule, Way, storm
from app.local.databases import Database
from kernel.db import APP_ROLE, create_engine, driver, transact
from kernel.errors import CommitUnknown, OutcomeUnknown, OutsideUnavailable
from ledger.model import PostResult
from ledger.posting import decided, post
from ledger.verification import verify
from tests.crash.ledger.workload import answers, batch, columns_of, expected, prepare_book, send
from tests.faults.seeds import fresh_seed

SILENCE_S: Final = 2.0
"""When the engines of these tests take a silent server for lost."""
NOTICED_WITHIN_S: Final = 60.0
STORM_S: Final = 3.0
STREAMS: Final = ("lone", "other")
INSERT = text("INSERT INTO kernel.lease (name) VALUES (:name)")
COUNT = text("SELECT count(*) FROM kernel.lease WHERE name = 'wire'")


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[FaultProxy]:
    """A proxy before this test's database."""
    async with FaultProxy(postgres_target(database.app_url)) as made:
        yield made


@pytest.fixture
async def wired(database: Database, proxy: FaultProxy) -> AsyncIterator[AsyncEngine]:
    """An engine whose connections lead through the proxy."""
    async with opened(database, proxy) as engine:
        yield engine


@asynccontextmanager
async def opened(database: Database, proxy: FaultProxy) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(
        proxy.database_url(database.app_url),
        role=APP_ROLE,
        pool_size=2,
        injected_clock=True,
        command_timeout_s=SILENCE_S,
    )
    yield engine
    await engine.dispose()


async def write(conn: AsyncConnection) -> None:
    await conn.execute(INSERT, {"name": "wire"})


async def count(conn: AsyncConnection) -> int:
    return int(await conn.scalar(COUNT) or 0)


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.RESET])
async def test_a_pool_whose_connections_were_cut_while_idle_recovers_by_itself(
    wired: AsyncEngine, proxy: FaultProxy, fault: Fault
) -> None:
    async with wired.connect(), wired.connect():
        pass
    assert proxy.cut(reset=fault is Fault.RESET) == 2

    await transact(wired, write)
    assert await transact(wired, count) == 1


async def test_a_server_that_goes_silent_before_commit_is_asked_anew_over_another_connection(
    wired: AsyncEngine, proxy: FaultProxy
) -> None:
    attempts = 0

    async def silenced_once(conn: AsyncConnection) -> int:
        nonlocal attempts
        attempts += 1
        await write(conn)
        if attempts == 1:
            proxy.set(Rule(fault=Fault.SWALLOW, times=1))
        return int(await conn.scalar(text("SELECT 1")) or 0)

    async with asyncio.timeout(NOTICED_WITHIN_S):
        assert await transact(wired, silenced_once) == 1
    assert attempts == 2
    assert await transact(wired, count) == 1


async def test_the_drivers_own_statements_notice_a_silent_server_too(
    wired: AsyncEngine, proxy: FaultProxy
) -> None:
    attempts = 0

    async def silenced_once(conn: AsyncConnection) -> int:
        nonlocal attempts
        attempts += 1
        await write(conn)
        if attempts == 1:
            proxy.set(Rule(fault=Fault.SWALLOW, times=1))
        async with driver(conn) as raw:
            return int(await raw.fetchval("SELECT 1"))

    async with asyncio.timeout(NOTICED_WITHIN_S):
        assert await transact(wired, silenced_once) == 1
    assert attempts == 2


@pytest.mark.parametrize(("way", "happened"), [(Way.TO_SERVER, 0), (Way.TO_CLIENT, 1)])
async def test_a_server_that_goes_silent_during_commit_leaves_an_unknown_outcome(
    wired: AsyncEngine, proxy: FaultProxy, engine: AsyncEngine, way: Way, happened: int
) -> None:
    async def write_and_silence(conn: AsyncConnection) -> None:
        await write(conn)
        proxy.set(Rule(fault=Fault.SWALLOW, way=way))

    async with asyncio.timeout(NOTICED_WITHIN_S):
        with pytest.raises(CommitUnknown):
            await transact(wired, write_and_silence)

    assert await transact(engine, count) == happened
    proxy.clear()
    assert await transact(wired, count) == happened


async def test_a_server_that_never_answers_a_new_connection_is_outside(
    database: Database, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernel.db.CONNECT_TIMEOUT_S", SILENCE_S)
    proxy.set(Rule(fault=Fault.SWALLOW))
    async with opened(database, proxy) as engine, asyncio.timeout(NOTICED_WITHIN_S):
        with pytest.raises(OutsideUnavailable, match="does not answer"):
            await transact(engine, write)


async def test_a_server_that_refuses_every_connection_is_outside(
    wired: AsyncEngine, proxy: FaultProxy
) -> None:
    proxy.set(Rule(fault=Fault.REFUSE))

    with pytest.raises(OutsideUnavailable):
        await transact(wired, write)


async def test_postings_through_a_storm_are_each_there_once_and_as_promised(
    database: Database,
    proxy: FaultProxy,
    engine: AsyncEngine,
    record_property: Callable[[str, object], None],
) -> None:
    """Every batch is sent under the same ids until it is answered; a clean book then looks the same."""
    seed = fresh_seed()
    await prepare_book(engine, 1, STREAMS)
    await prepare_book(engine, 2, STREAMS)
    promised: list[list[PostResult]] = []
    unknown = 0
    calm = asyncio.Event()

    async def stream(wired: AsyncEngine, name: str) -> int:
        nonlocal unknown
        number = 0
        while not calm.is_set() or number == 0:
            items = batch(name, number)
            try:
                promised.append(await transact(wired, lambda conn: post(conn, 1, items)))  # noqa: B023
            except (OutsideUnavailable, OutcomeUnknown) as error:
                unknown += isinstance(error, CommitUnknown)
                continue
            number += 1
        return number

    async with opened(database, proxy) as wired, asyncio.TaskGroup() as group:
        streams = {name: group.create_task(stream(wired, name)) for name in STREAMS}
        # A bit that is turned is what checksums of the transport are for: here none would notice.
        steps = [
            step
            for step in storm(seed, seconds=STORM_S)
            if all(rule.fault is not Fault.CORRUPT for rule in step.rules)
        ]
        await proxy.play(steps)
        calm.set()

    total = sum(task.result() for task in streams.values())
    record_property(
        "counts",
        f"storm between a poster and PostgreSQL, seed {seed}: {len(steps)} changes, "
        f"{proxy.connections} connections, {total} batches, {unknown} unknown commits",
    )
    ids = [result.transfer_id for results in promised for result in results]
    found = await transact(engine, lambda conn: decided(conn, 1, ids))
    for result in (one for results in promised for one in results):
        if result.sequence is not None:
            assert found[result.transfer_id].sequence == result.sequence
    for name, task in streams.items():
        for number in range(task.result()):
            for book in (1, 2):
                assert answers(await send(engine, book, name, number)) == expected(name)
    assert await columns_of(engine, 1) == await columns_of(engine, 2)
    assert await verify(engine, 1) == []
