"""The database as a test, and production, find it after the migrations."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from app.local.errors import MigrationNotDone
from app.local.migrate import SCHEMAS, current, head, load_tables, migrate
from kernel.db import APP_ROLE, create_engine
from kernel.errors import OutsideUnavailable


async def test_a_clone_is_at_the_newest_revision(database: Database) -> None:
    assert await current(database.owner_url) == head()


async def test_the_runtime_engine_acts_as_the_runtime_role(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT current_user")) == APP_ROLE


async def test_the_owner_may_act_as_the_runtime_role(database: Database) -> None:
    engine = create_engine(database.owner_url, role=APP_ROLE)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT current_user")) == APP_ROLE
    await engine.dispose()


async def test_the_runtime_role_cannot_change_the_schema(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        for schema in (*SCHEMAS, "public"):
            with pytest.raises(ProgrammingError, match="permission denied"):
                await connection.execute(text(f"CREATE TABLE {schema}.intruder (id int)"))
            await connection.rollback()


async def test_the_runtime_role_cannot_truncate_any_table(engine: AsyncEngine) -> None:
    query = text(
        """
        SELECT table_schema || '.' || table_name || ': ' || privilege_type
          FROM information_schema.role_table_grants
         WHERE grantee IN (:role, 'PUBLIC') AND table_schema = ANY (:schemas)
           AND privilege_type IN ('TRUNCATE', 'TRIGGER', 'REFERENCES')
         ORDER BY 1
        """
    )
    async with engine.connect() as connection:
        rows = await connection.execute(query, {"role": APP_ROLE, "schemas": list(SCHEMAS)})

        assert [row[0] for row in rows] == []


async def test_every_table_lies_in_the_schema_of_its_package() -> None:
    assert {table.schema for table in load_tables().tables.values()} <= set(SCHEMAS)


async def test_each_test_has_a_database_of_its_own(
    database: Database, owner_engine: AsyncEngine, empty_database: Database
) -> None:
    async with owner_engine.connect() as connection:
        name = await connection.scalar(text("SELECT current_database()"))

    assert name == database.name
    assert name != empty_database.name


async def test_a_server_that_does_not_answer_is_named() -> None:
    url = "postgresql+asyncpg://causeway_owner@127.0.0.1:1/causeway"

    with pytest.raises(OutsideUnavailable, match="does not answer"):
        await migrate(url)
    with pytest.raises(OutsideUnavailable, match="does not answer"):
        await current(url)


async def test_an_unknown_revision_is_refused(empty_database: Database) -> None:
    with pytest.raises(MigrationNotDone, match="0000_pre_nothing"):
        await migrate(empty_database.owner_url, "0000_pre_nothing")


async def test_a_password_never_shows_in_an_error() -> None:
    url = "postgresql+asyncpg://owner:hunter2@127.0.0.1:1/causeway"

    with pytest.raises(OutsideUnavailable) as caught:
        await current(url)

    assert "hunter2" not in str(caught.value)


async def test_the_driver_url_connects_as_well(database: Database) -> None:
    url = database.owner_url.replace("postgresql+asyncpg", "postgresql")
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
