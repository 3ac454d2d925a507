"""PostgreSQL's clock jumps an hour either way: ledger time goes on, holds and leases keep their order."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.faults.clocks import JumpingClock, jumping_clock
from app.local.databases import Database
from app.local.postgres import LocalPostgres
from kernel.db import transact
from ledger.model import PostResult, Transfer, hold, post_hold
from ledger.outcome import Outcome
from ledger.posting import open_book, post
from ledger.verification import verify
from registry.changes import found
from registry.testing import ENTITY, demo_founding
from tests.crash.ledger.workload import answers, expected, item_id, prepare_book, send
from tests.faults.servers import FAULTS_ARE_THERE, faults_folder, preloaded_server, runtime_engine
from tests.trading.quotes.conftest import Desk
from tests.trading.quotes.market import asked, shown
from trading.quotes.model import Verdict

pytestmark = [pytest.mark.database, FAULTS_ARE_THERE]

HOUR: Final = timedelta(hours=1)
EXPIRED: Final = Outcome.PENDING_TRANSFER_EXPIRED
BLOCKS = text("SELECT recorded_at FROM ledger.block WHERE book = 1 ORDER BY last_sequence")


@pytest.fixture
def clock() -> Iterator[JumpingClock]:
    """The clock of this test's server."""
    with faults_folder() as folder:
        yield jumping_clock(folder)


@pytest.fixture
def server(clock: JumpingClock) -> Iterator[LocalPostgres]:
    """A server with that clock."""
    with preloaded_server(clock.file.parent, clock.environment) as running:
        yield running


@pytest.fixture
async def production(server: LocalPostgres) -> AsyncIterator[AsyncEngine]:
    """An engine as production has it: the ledger reads PostgreSQL's clock."""
    engine = runtime_engine(server)
    yield engine
    await engine.dispose()


async def server_time(engine: AsyncEngine) -> datetime:
    async def read(conn: AsyncConnection) -> datetime:
        found = await conn.scalar(text("SELECT clock_timestamp()"))
        assert isinstance(found, datetime)
        return found.astimezone(UTC)

    return await transact(engine, read)


async def block_times(engine: AsyncEngine) -> list[datetime]:
    async def read(conn: AsyncConnection) -> list[datetime]:
        return [row[0].astimezone(UTC) for row in await conn.execute(BLOCKS)]

    return await transact(engine, read)


async def test_block_time_and_expiry_go_on_through_jumps_and_a_clock_that_lags_is_reported(
    production: AsyncEngine, clock: JumpingClock
) -> None:
    began = await server_time(production)
    await prepare_book(production, 1, ["jumps"])
    alarms: list[int] = []
    for number, hours in enumerate((0, 1, 0, -1, 2)):
        clock.set(HOUR * hours)
        with structlog.testing.capture_logs() as logs:
            assert answers(await send(production, 1, "jumps", number)) == expected("jumps")
        alarms.append(sum(line["event"] == "ledger.clock_behind" for line in logs))

    times = await block_times(production)
    assert times == sorted(times)
    # An hour ahead it went along; behind that it stood still, until the clock was ahead of it again.
    assert times[-1] - began >= 2 * HOUR
    assert times[-2] - times[-4] == timedelta(0)
    assert [count > 0 for count in alarms] == [False, False, True, True, False]
    await a_hold_that_fell_due_in_an_hour_that_was_none_stays_expired(production, clock)
    assert await verify(production, 1) == []


async def a_hold_that_fell_due_in_an_hour_that_was_none_stays_expired(
    production: AsyncEngine, clock: JumpingClock
) -> None:
    clock.set(3 * HOUR)
    await prepare_book(production, 1, ["due"])
    await send(production, 1, "due", 0)
    held = hold(
        item_id("due", 1, "held"), "client:due", "in-flight:evm", 3, "X",
        code="crash.test", purpose="quote", timeout=HOUR / 2,
    )  # fmt: skip
    assert [r.outcome for r in await posted(production, held)] == [Outcome.CREATED]
    taken = [post_hold(item_id("due", 1, name), held.id, code="crash.test") for name in "ab"]

    clock.set(4 * HOUR)
    assert [r.outcome for r in await posted(production, taken[0])] == [EXPIRED]
    clock.set(-HOUR)
    assert [r.outcome for r in await posted(production, taken[1])] == [EXPIRED]


async def posted(engine: AsyncEngine, item: Transfer) -> list[PostResult]:
    return await transact(engine, lambda conn: post(conn, 1, [item]))


async def test_an_offer_is_taken_by_a_clock_that_neither_passed_it_nor_went_back_behind_it(
    production: AsyncEngine, clock: JumpingClock
) -> None:
    began = await server_time(production)

    async def house(conn: AsyncConnection) -> None:
        await found(conn, demo_founding(), now=began)
        await open_book(conn, 1, entity=ENTITY.code)

    await transact(production, house)
    desk, told = Desk(production), []
    for number, hours in enumerate((0, 1, -1)):
        clock.set(timedelta(0))
        at = await server_time(production)
        desk.books = [shown(at=at)]
        made = await desk.quote(asked(f"quote-{number}"), at=at)
        clock.set(HOUR * hours)
        told.append((await desk.accept(made, ref=f"taken-{number}", at=at)).verdict)

    assert told == [Verdict.WON, Verdict.EXPIRED, Verdict.EXPIRED]


TAKE: Final = """
import asyncio, sys
from datetime import timedelta
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine, transact
from kernel.leases import take

async def main() -> None:
    engine, now = create_engine(sys.argv[1], role=APP_ROLE), SystemClock().now()
    lease_for = timedelta(minutes=30)
    print(await transact(
        engine, lambda conn: take(conn, "clocks", holder=sys.argv[2], now=now, lease_for=lease_for)
    ))
    await engine.dispose()

asyncio.run(main())
"""


async def test_a_worker_whose_clock_is_an_hour_ahead_takes_over_with_a_fence_of_its_own(
    database: Database, clock: JumpingClock
) -> None:
    """Two of them never write under one fence, however far apart their clocks are."""

    async def take_as(holder: str, environment: Mapping[str, str]) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", TAKE, database.app_url, holder),
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        said, _ = await process.communicate()
        return said.decode().strip()

    assert await take_as("right", {}) == "1"
    assert await take_as("other", clock.environment) == "None"
    clock.set(HOUR)
    assert await take_as("ahead", clock.environment) == "2"
    clock.set(-HOUR)
    assert await take_as("behind", clock.environment) == "None"
    assert await take_as("right", {}) == "None"
