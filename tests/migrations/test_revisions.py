"""The migrations: their names, their order, and that they end where the tables say."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from itertools import pairwise
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from app.local.errors import MigrationNotDone
from app.local.migrate import (
    SCHEMAS,
    current,
    downgrade,
    head,
    is_ours,
    load_tables,
    migrate,
    migrations_folder,
)
from kernel.db import create_engine
from tests.conftest import IDLE_MS

NAME = re.compile(r"\d{4}_(pre|post)_[a-z0-9_]+")
VERSION_WIDTH_MAX = 32
NEWEST = 8


def revisions() -> list[str]:
    """The revision ids from the first to the newest."""
    script = ScriptDirectory(str(migrations_folder()))
    return [revision.revision for revision in script.walk_revisions()][::-1]


def test_every_revision_is_named_by_number_phase_and_subject() -> None:
    assert [name for name in revisions() if not NAME.fullmatch(name)] == []
    assert [name for name in revisions() if len(name) > VERSION_WIDTH_MAX] == []


def test_every_file_is_named_like_its_revision() -> None:
    files = sorted(path.stem for path in (migrations_folder() / "versions").glob("*.py"))

    assert files == sorted(revisions())


def test_revisions_form_one_line_in_the_order_of_their_numbers() -> None:
    script = ScriptDirectory(str(migrations_folder()))

    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1
    assert revisions() == sorted(revisions())
    numbers = sorted({int(name[:4]) for name in revisions()})
    assert numbers == list(range(1, len(numbers) + 1))


async def test_up_down_and_up_again(empty_database: Database) -> None:
    url = empty_database.owner_url
    assert await current(url) is None

    await migrate(url)
    assert await current(url) == head()
    first = await _catalogue(url)

    await downgrade(url, "base")
    assert await current(url) is None
    assert await _catalogue(url) == []

    await migrate(url)
    assert await _catalogue(url) == first


async def test_each_of_the_newest_steps_can_be_taken_back_and_done_again(
    empty_database: Database,
) -> None:
    # What is older was looked at when it was new, and goes down and up with all others in the test above.
    url = empty_database.owner_url
    for before, revision in list(pairwise(["base", *revisions()]))[-NEWEST:]:
        await migrate(url, revision)
        there = await _catalogue(url)
        await downgrade(url, before)
        await migrate(url, revision)
        assert await _catalogue(url) == there, revision


async def test_two_migrations_at_once_both_end_at_the_newest_revision(
    empty_database: Database,
) -> None:
    url = empty_database.owner_url
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    environment = {**os.environ, "CAUSEWAY_DATABASE_URL": url}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_child(command, environment)) for _ in range(2)]

    assert [task.result() for task in tasks] == [(0, ""), (0, "")]
    assert await current(url) == head()


async def test_a_migration_waits_for_a_lock_only_briefly_and_then_tries_again(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_database.owner_url
    await migrate(url, revisions()[0])
    monkeypatch.setattr("app.local.migrate.LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr("app.local.migrate.RETRY_SECONDS", 0.1)
    engine = create_engine(url, idle_in_transaction_timeout_ms=IDLE_MS)
    try:
        async with asyncio.TaskGroup() as group, engine.begin() as connection:
            await connection.execute(text("LOCK TABLE public.alembic_version IN SHARE MODE"))
            waiting = group.create_task(migrate(url))
            await asyncio.sleep(0.3)
            assert not waiting.done()
        assert await current(url) == head()
    finally:
        await engine.dispose()


async def test_a_lock_that_is_never_granted_is_reported_and_changes_nothing(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_database.owner_url
    await migrate(url, revisions()[0])
    monkeypatch.setattr("app.local.migrate.LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr("app.local.migrate.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("app.local.migrate.ATTEMPTS_MAX", 2)
    engine = create_engine(url, idle_in_transaction_timeout_ms=IDLE_MS)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("LOCK TABLE public.alembic_version IN SHARE MODE"))
            with pytest.raises(MigrationNotDone, match="lock"):
                await migrate(url)
        assert await current(url) == revisions()[0]
    finally:
        await engine.dispose()


async def test_a_database_newer_than_the_program_is_refused_by_name(database: Database) -> None:
    engine = create_engine(database.owner_url, idle_in_transaction_timeout_ms=IDLE_MS)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999_pre_future'"))
    await engine.dispose()

    with pytest.raises(MigrationNotDone, match="9999_pre_future"):
        await migrate(database.owner_url)


async def test_alembic_sees_no_difference_between_tables_and_migrations(
    owner_engine: AsyncEngine,
) -> None:
    def compare(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": is_ours,
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        return list(compare_metadata(context, load_tables()))

    async with owner_engine.connect() as connection:
        assert await connection.run_sync(compare) == []


async def test_the_tables_as_declared_and_as_migrated_have_the_same_catalogue(
    database: Database, empty_database: Database
) -> None:
    """Stricter than alembic's comparison: the text of every check, index and default counts."""
    engine = create_engine(empty_database.owner_url, idle_in_transaction_timeout_ms=IDLE_MS)
    async with engine.begin() as connection:
        for schema in SCHEMAS:
            await connection.execute(text(f"CREATE SCHEMA {schema}"))
        await connection.run_sync(load_tables().create_all)
    await engine.dispose()

    declared = _tables(await _catalogue(empty_database.owner_url))
    migrated = _tables(await _catalogue(database.owner_url))

    difference = [f"only in tables.py:     {line}" for line in set(declared) - set(migrated)]
    difference += [f"only in the migration: {line}" for line in set(migrated) - set(declared)]
    assert not difference, "\n".join(sorted(difference, key=lambda line: line[23:]))


CATALOGUE = """
SELECT n.nspname || '.' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
       || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
       || CASE WHEN a.attidentity <> '' THEN ' identity ' || a.attidentity::text ELSE '' END
       || CASE WHEN a.attgenerated <> '' THEN ' generated ' ELSE '' END
       || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
  FROM pg_attribute a
  JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attnum > 0 AND NOT a.attisdropped AND n.nspname = ANY (:schemas)
UNION ALL
SELECT n.nspname || '.' || c.relname || ' constraint ' || k.conname || ' ' || pg_get_constraintdef(k.oid)
  FROM pg_constraint k
  JOIN pg_class c ON c.oid = k.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY (:schemas)
   AND k.contype <> 'n' -- PostgreSQL 18 lists NOT NULL here as well
UNION ALL
SELECT schemaname || '.' || tablename || ' index ' || indexdef
  FROM pg_indexes WHERE schemaname = ANY (:schemas)
UNION ALL
SELECT schemaname || '.' || viewname || ' view ' || definition
  FROM pg_views WHERE schemaname = ANY (:schemas)
UNION ALL
SELECT n.nspname || '.' || p.proname || ' function of ' || md5(p.prosrc)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = ANY (:schemas)
UNION ALL
SELECT n.nspname || '.' || c.relname || ' trigger ' || pg_get_triggerdef(t.oid)
  FROM pg_trigger t
  JOIN pg_class c ON c.oid = t.tgrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY (:schemas) AND NOT t.tgisinternal
 ORDER BY 1
"""


async def _catalogue(url: str) -> list[str]:
    engine = create_engine(url, idle_in_transaction_timeout_ms=IDLE_MS)
    try:
        async with engine.connect() as connection:
            rows = await connection.execute(text(CATALOGUE), {"schemas": list(SCHEMAS)})
            return [row[0] for row in rows]
    finally:
        await engine.dispose()


def _tables(catalogue: list[str]) -> list[str]:
    """Leave out what only migrations make: functions, triggers and views."""
    return [line for line in catalogue if not re.match(r"\S+ (function of|trigger|view) ", line)]


async def _child(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        cwd=migrations_folder().parent,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await child.communicate()
    assert child.returncode is not None
    return child.returncode, said.decode() if child.returncode else ""
