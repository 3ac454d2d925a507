"""The revision that brought agreements and standing instructions here: rows, old names, way back."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database, Server, cloned, run_apart
from app.local.errors import MigrationNotDone
from app.local.migrate import downgrade, migrate
from kernel.db import APP_ROLE, create_engine
from tests.conftest import IDLE_MS

BEFORE, AFTER = "0036_pre_backfills", "0037_pre_terms"
WRITE_AGREEMENT = text(
    "INSERT INTO settlement.agreement AS a VALUES"
    " ('acme', :version, '2026-01-05', :prefunded, 'ada', 'ben', 'ff', '2026-01-05')"
    " ON CONFLICT (party) DO UPDATE SET version = excluded.version, prefunded = excluded.prefunded"
    " WHERE a.version = excluded.version - 1"
)
WRITE_STANDING = text(
    "INSERT INTO settlement.standing_instruction"
    " (party, asset, rail, version, destination, proposed_by, approved_by, at) VALUES"
    " ('acme', 'ETH', 'evm', :version, '0x1', 'ada', 'ben', '2026-01-05T23:30Z')"
    " ON CONFLICT DO NOTHING"
)
READ_AGREEMENT = text("SELECT version, prefunded FROM settlement.agreement")
READ_STANDING = text("SELECT version FROM settlement.standing_instruction ORDER BY version")
READ_HERE = text("SELECT effective_from::text, needs_call_back FROM trading.standing_instruction")


WRITE_WAITING = text(
    "INSERT INTO trading.standing_instruction VALUES ('acme', 'ETH', 'evm', 2, '0x2',"
    " 'ada', 'ben', '2026-01-05', '2026-01-07', true)"
)
WAITING_FOR_LOCK = text(
    "SELECT count(*) FROM pg_locks WHERE NOT granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@pytest.fixture(scope="module")
def database_before(database_server: Server) -> Iterator[str]:
    """The name of a database as it was before the tables moved, with a row of each."""
    name = f"causeway_before_{secrets.token_hex(6)}"

    async def fill(database: Database) -> None:
        await migrate(database.owner_url, BEFORE)
        engine = create_engine(
            database.owner_url, role=APP_ROLE, idle_in_transaction_timeout_ms=IDLE_MS
        )
        async with engine.begin() as conn:
            await conn.execute(WRITE_AGREEMENT, {"version": 1, "prefunded": False})
            await conn.execute(WRITE_STANDING, {"version": 1})
        await engine.dispose()

    with cloned(database_server, "template1", name) as database:
        run_apart(lambda: fill(database))
        yield name


@pytest.fixture
def moving(database_server: Server, database_before: str) -> Iterator[Database]:
    """A database of one's own as it was before the tables moved."""
    name = f"causeway_moving_{secrets.token_hex(6)}"
    with cloned(database_server, database_before, name) as database:
        yield database


@pytest.fixture
async def before(moving: Database) -> AsyncIterator[AsyncEngine]:
    """That database, as the runtime role."""
    engine = create_engine(moving.owner_url, role=APP_ROLE, idle_in_transaction_timeout_ms=IDLE_MS)
    yield engine
    await engine.dispose()


async def test_rows_move_along_and_code_of_before_goes_on_writing(
    before: AsyncEngine, moving: Database
) -> None:
    await migrate(moving.owner_url, AFTER)

    async with before.begin() as conn:
        assert list(map(tuple, await conn.execute(READ_HERE))) == [("2026-01-05", False)]
        changed = await conn.execute(WRITE_AGREEMENT, {"version": 2, "prefunded": True})
        assert changed.rowcount == 1
        late = await conn.execute(WRITE_AGREEMENT, {"version": 2, "prefunded": False})
        assert late.rowcount == 0
        await conn.execute(WRITE_STANDING, {"version": 2})
        assert list(map(tuple, await conn.execute(READ_AGREEMENT))) == [(2, True)]
        assert list((await conn.execute(READ_STANDING)).scalars()) == [1, 2]

    await downgrade(moving.owner_url, BEFORE)
    async with before.begin() as conn:
        assert list(map(tuple, await conn.execute(READ_AGREEMENT))) == [(2, True)]
        assert list((await conn.execute(READ_STANDING)).scalars()) == [1, 2]


async def test_there_is_no_way_back_while_a_change_waits_that_would_be_in_force_there(
    before: AsyncEngine, moving: Database
) -> None:
    await migrate(moving.owner_url, AFTER)
    async with before.begin() as conn:
        await conn.execute(WRITE_WAITING)

    with pytest.raises(MigrationNotDone, match="waits or was denied"):
        await downgrade(moving.owner_url, BEFORE)

    async with before.begin() as conn:
        await conn.execute(
            text(
                "INSERT INTO trading.call_back VALUES"
                " ('acme', 'ETH', 'evm', 2, true, 'calls/1', 'dan', '2026-01-05')"
            )
        )
    await downgrade(moving.owner_url, BEFORE)


async def test_a_change_that_is_written_while_the_way_back_begins_is_not_overlooked(
    before: AsyncEngine, moving: Database
) -> None:
    await migrate(moving.owner_url, AFTER)

    async def is_refused() -> None:
        with pytest.raises(MigrationNotDone, match="waits or was denied"):
            await downgrade(moving.owner_url, BEFORE)

    async with before.connect() as conn, asyncio.TaskGroup() as group:
        await conn.execute(WRITE_WAITING)
        back = group.create_task(is_refused())
        async with asyncio.timeout(10), before.connect() as other:
            while not (await other.execute(WAITING_FOR_LOCK)).scalar_one():  # noqa: ASYNC110  the lock is in a database
                await asyncio.sleep(0.01)
        await conn.commit()
        await back
