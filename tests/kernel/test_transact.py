"""The one function that runs a transaction: what it repeats, what it reports, what it never guesses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import pytest
from sqlalchemy import URL, Column, MetaData, Table, insert, make_url, select, text
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.local.databases import Database
from kernel import db
from kernel.db import (
    APP_ROLE,
    Timestamp,
    Units,
    constraint_name,
    create_engine,
    driver,
    sqlstate,
    transact,
)
from kernel.errors import CommitUnknown, OutsideUnavailable

NAME = "kernel-test"
INSERT = text("INSERT INTO kernel.lease (name) VALUES (:name)")
COUNT = text("SELECT count(*) FROM kernel.lease WHERE name = :name")


async def write(conn: AsyncConnection) -> str:
    await conn.execute(INSERT, {"name": NAME})
    return "written"


async def count(engine: AsyncEngine) -> int:
    async with engine.connect() as conn:
        return int(await conn.scalar(COUNT, {"name": NAME}) or 0)


async def test_what_the_work_returns_is_returned_once_it_is_committed(engine: AsyncEngine) -> None:
    assert await transact(engine, write) == "written"
    assert await count(engine) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
async def test_an_error_of_the_work_rolls_back_and_is_not_repeated(
    engine: AsyncEngine, error: type[BaseException]
) -> None:
    attempts = 0

    async def fail(conn: AsyncConnection) -> None:
        nonlocal attempts
        attempts += 1
        await write(conn)
        raise error

    with pytest.raises(error):
        await transact(engine, fail)
    assert (attempts, await count(engine)) == (1, 0)


@pytest.mark.parametrize("code", sorted(db.RETRYABLE_SQLSTATES))
async def test_what_postgresql_says_may_be_repeated_is_repeated_as_a_whole(
    engine: AsyncEngine, code: str
) -> None:
    attempts = 0

    async def fail_twice(conn: AsyncConnection) -> int:
        nonlocal attempts
        attempts += 1
        await write(conn)
        if attempts < 3:
            await conn.execute(
                text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")
            )
        return attempts

    assert await transact(engine, fail_twice) == 3
    assert await count(engine) == 1


async def test_a_violated_constraint_is_not_repeated(engine: AsyncEngine) -> None:
    attempts = 0
    await transact(engine, write)

    async def again(conn: AsyncConnection) -> None:
        nonlocal attempts
        attempts += 1
        await write(conn)

    with pytest.raises(DBAPIError) as refused:
        await transact(engine, again)
    assert attempts == 1
    assert (sqlstate(refused.value), constraint_name(refused.value)) == ("23505", "pk_lease")


async def test_after_the_last_attempt_it_says_how_often_it_was_refused(engine: AsyncEngine) -> None:
    async def fail(conn: AsyncConnection) -> None:
        await conn.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))

    with pytest.raises(OutsideUnavailable, match="did not take the transaction 2 times"):
        await transact(engine, fail, attempts_max=2)


async def test_a_real_deadlock_is_repeated_until_both_have_done_their_work(
    engine: AsyncEngine,
) -> None:
    async with engine.begin() as conn:
        await conn.execute(INSERT, [{"name": "a"}, {"name": "b"}])
    both_hold_one = asyncio.Barrier(2)
    met: set[str] = set()

    async def lock(first: str, second: str) -> None:
        async def work(conn: AsyncConnection) -> None:
            touch = text("UPDATE kernel.lease SET fence = fence + 1 WHERE name = :name")
            await conn.execute(touch, {"name": first})
            if first not in met:
                met.add(first)
                await both_hold_one.wait()
            await conn.execute(touch, {"name": second})

        await transact(engine, work)

    async with asyncio.TaskGroup() as group:
        group.create_task(lock("a", "b"))
        group.create_task(lock("b", "a"))

    async with engine.connect() as conn:
        fences = (
            (await conn.execute(text("SELECT DISTINCT fence FROM kernel.lease"))).scalars().all()
        )
    assert fences == [2]


async def test_a_lock_that_is_not_granted_is_given_up(engine: AsyncEngine) -> None:
    await transact(engine, write)
    impatient = text("SET LOCAL lock_timeout = '20ms'")
    lock = text("SELECT * FROM kernel.lease FOR UPDATE")

    async def want(conn: AsyncConnection) -> None:
        await conn.execute(impatient)
        await conn.execute(lock)

    async with engine.begin() as holder:
        await holder.execute(lock)
        with pytest.raises(OutsideUnavailable, match="lock timeout"):
            await transact(engine, want, attempts_max=2)


async def test_a_server_that_is_not_there_is_outside_and_no_password_is_told() -> None:
    engine = create_engine("postgresql+asyncpg://desk:hunter2@127.0.0.1:1/desk")
    with pytest.raises(OutsideUnavailable, match="does not answer") as refused:
        await transact(engine, write)
    await engine.dispose()
    assert "hunter2" not in str(refused.value)
    assert "127.0.0.1" in refused.value.where


async def test_a_database_that_is_not_there_is_outside_as_well(database: Database) -> None:
    engine = create_engine(database.app_url.replace(database.name, "nowhere"))
    with pytest.raises(OutsideUnavailable, match="nowhere"):
        await transact(engine, write)
    await engine.dispose()


async def test_when_every_connection_is_in_use_it_says_so(database: Database) -> None:
    small = create_async_engine(database.app_url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    async with small.connect():
        with pytest.raises(OutsideUnavailable, match="every connection is in use"):
            await transact(small, write)
    await small.dispose()


@pytest.mark.parametrize("reaches_server", [True, False])
async def test_a_connection_lost_during_commit_is_neither_success_nor_failure(
    database: Database, engine: AsyncEngine, *, reaches_server: bool
) -> None:
    async with cutting_proxy(make_url(database.app_url), reaches_server=reaches_server) as url:
        cut = create_engine(url, role=db.APP_ROLE)
        with pytest.raises(CommitUnknown, match="during COMMIT"):
            await transact(cut, write)
        await cut.dispose()

    # Looking is the only way to know: it happened exactly if COMMIT reached the server.
    for _ in range(100):
        if await count(engine) == reaches_server:
            break
        await asyncio.sleep(0.02)
    assert await count(engine) == reaches_server


async def test_a_refusal_at_commit_is_a_refusal(owner_engine: AsyncEngine) -> None:
    async with owner_engine.begin() as conn:
        await conn.execute(
            text("CREATE TABLE kernel.late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        )

    async def twice(conn: AsyncConnection) -> None:
        await conn.execute(text("INSERT INTO kernel.late VALUES (1), (1)"))

    with pytest.raises(DBAPIError) as refused:
        await transact(owner_engine, twice)
    assert sqlstate(refused.value) == "23505"


async def test_a_connection_lost_before_commit_is_repeated_as_a_whole(
    engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    attempts = 0

    async def lose_once(conn: AsyncConnection) -> int:
        nonlocal attempts
        attempts += 1
        await write(conn)
        if attempts == 1:
            await lose(conn, owner_engine)
        return attempts

    assert await transact(engine, lose_once) == 2
    assert await count(engine) == 1


async def test_a_connection_lost_every_time_is_an_outside_that_does_not_work(
    engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    async def lose_always(conn: AsyncConnection) -> None:
        await write(conn)
        await lose(conn, owner_engine)

    with pytest.raises(OutsideUnavailable, match="2 times"):
        await transact(engine, lose_always, attempts_max=2)
    assert await count(engine) == 0


@pytest.mark.parametrize("over", ["sqlalchemy", "driver"])
async def test_what_was_prepared_before_a_migration_is_prepared_anew(
    owner_engine: AsyncEngine, database: Database, over: str
) -> None:
    attempts = 0

    async def read(conn: AsyncConnection) -> object:
        nonlocal attempts
        attempts += 1
        if over == "sqlalchemy":
            return await conn.scalar(text("SELECT n FROM kernel.migrated"))
        await conn.execute(text("SELECT 1"))
        async with driver(conn) as raw:
            return await raw.fetchval("SELECT n FROM kernel.migrated")

    async with owner_engine.begin() as conn:
        await conn.execute(text("CREATE TABLE kernel.migrated AS SELECT 7 AS n"))
    assert await transact(owner_engine, read) == 7

    another_process = await asyncpg.connect(database.owner_url.replace("+asyncpg", ""))
    await another_process.execute("ALTER TABLE kernel.migrated ALTER n TYPE text")
    await another_process.close()

    assert await transact(owner_engine, read) == "7"
    assert attempts == 3


async def test_a_connection_keeps_the_statements_of_a_whole_house_prepared(
    engine: AsyncEngine,
) -> None:
    async def run_all(conn: AsyncConnection) -> None:
        for number in range(db.STATEMENTS_KEPT):
            await conn.execute(text(f"SELECT {number}"))

    async def prepared(conn: AsyncConnection) -> datetime:
        newest: datetime = await conn.scalar(
            text("SELECT max(prepare_time) FROM pg_prepared_statements")
        )
        return newest

    await transact(engine, run_all)
    before = await transact(engine, prepared)
    await transact(engine, run_all)

    assert await transact(engine, prepared) == before


async def test_an_url_may_say_that_nothing_stays_prepared(database: Database) -> None:
    """As behind a pooler that gives each transaction another connection of the server."""
    url = make_url(database.app_url).update_query_dict({"prepared_statement_cache_size": "0"})
    engine = create_engine(url.render_as_string(hide_password=False), role=APP_ROLE)

    async def run(conn: AsyncConnection) -> object:
        for number in range(20):
            await conn.execute(text(f"SELECT {number}"))
        return await conn.scalar(text("SELECT count(*) FROM pg_prepared_statements"))

    assert await transact(engine, run) == 1
    await engine.dispose()


async def lose(conn: AsyncConnection, owner_engine: AsyncEngine) -> None:
    """End the server process behind *conn*, and notice."""
    backend = await conn.scalar(text("SELECT pg_backend_pid()"))
    async with owner_engine.connect() as other:
        await other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": backend})
    await conn.execute(text("SELECT 1"))


async def test_every_connection_acts_as_the_runtime_role_with_its_time_outs(
    database: Database,
) -> None:
    engine = create_engine(database.app_url, role=APP_ROLE)
    async with engine.connect() as conn:
        shown = {
            name: await conn.scalar(text(f"SHOW {name}"))
            for name in (
                "role",
                "lock_timeout",
                "idle_in_transaction_session_timeout",
                "timezone",
                "transaction_isolation",
            )
        }
    await engine.dispose()
    assert shown == {
        "role": "causeway_app",
        "lock_timeout": "2s",
        "idle_in_transaction_session_timeout": "2s",
        "timezone": "UTC",
        "transaction_isolation": "read committed",
    }


async def test_amounts_and_times_come_back_as_they_went_in(owner_engine: AsyncEngine) -> None:
    table = Table("t", MetaData(), Column("units", Units), Column("at", Timestamp))
    at = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
    async with owner_engine.begin() as conn:
        await conn.run_sync(table.create)
        rows: list[dict[str, object]] = [
            {"units": 2**256 - 1, "at": at},
            {"units": None, "at": None},
        ]
        await conn.execute(insert(table), rows)
        found = (await conn.execute(select(table).order_by(table.c.units))).all()
        stored = await conn.scalar(text("SELECT max(units) FROM t"))
    assert [tuple(row) for row in found] == [(2**256 - 1, at), (None, None)]
    assert isinstance(found[0].units, int)
    assert isinstance(stored, Decimal)


async def test_a_time_without_a_zone_is_not_stored(owner_engine: AsyncEngine) -> None:
    table = Table("t", MetaData(), Column("at", Timestamp))
    async with owner_engine.connect() as conn:
        await conn.run_sync(table.create)
        with pytest.raises(StatementError, match="no time zone"):
            await conn.execute(insert(table), {"at": datetime(2026, 1, 5)})  # noqa: DTZ001  the case


def test_an_error_from_elsewhere_has_no_sqlstate() -> None:
    assert sqlstate(ValueError()) is None
    assert constraint_name(ValueError()) is None


@asynccontextmanager
async def cutting_proxy(url: URL, *, reaches_server: bool) -> AsyncIterator[str]:
    """Serve a PostgreSQL that hangs up when it is told to COMMIT, before or after it hears it."""

    async def serve(down: asyncio.StreamReader, up: asyncio.StreamWriter) -> None:
        reader, writer = await connect(url)

        async def ask() -> None:
            while data := await down.read(65_536):
                if b"COMMIT;" in data:
                    if reaches_server:
                        writer.write(data)
                        await writer.drain()
                    up.close()
                    writer.close()
                    return
                writer.write(data)
                await writer.drain()

        async def answer() -> None:
            while not up.is_closing() and (data := await reader.read(65_536)):
                if up.is_closing():
                    return
                up.write(data)
                await up.drain()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ask())
                group.create_task(answer())
        except* OSError:
            pass
        finally:
            up.close()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        through = URL.create(
            url.drivername, url.username, url.password, "127.0.0.1", port, url.database
        )
        yield through.render_as_string(hide_password=False) + "?ssl=disable"


async def connect(url: URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host = url.host or url.query.get("host")
    port = url.port or int(str(url.query.get("port", 5432)))
    assert isinstance(host, str)
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, port)
