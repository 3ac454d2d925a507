"""How alembic reaches the database: asynchronously, as the owner, in one transaction.

The whole upgrade is one transaction that holds the version table, so of two that start at once one
waits, and a crash half-way leaves nothing. A lock that is not granted within two seconds is given
up, so that a migration never queues in front of the desk's own statements, and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.migrate import (
    ATTEMPTS_MAX,
    IDLE_IN_TRANSACTION_TIMEOUT,
    LOCK_TIMEOUT,
    REPEATABLE_SQLSTATES,
    RETRY_SECONDS,
    URL_ATTRIBUTE,
    URL_VARIABLE,
    is_ours,
    load_tables,
)
from kernel.db import create_engine, sqlstate
from kernel.errors import BadInput

# As alembic makes it; made beforehand so that it can be locked before it is read.
VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS public.alembic_version (
    version_num VARCHAR(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY
)
"""


def owner_url() -> str:
    """Return the URL the caller passed in the configuration, else the environment's."""
    url = context.config.attributes.get(URL_ATTRIBUTE) or os.environ.get(URL_VARIABLE)
    if not url:
        raise BadInput(
            "no database to migrate",
            where=URL_VARIABLE,
            remedy="Set it to postgresql+asyncpg://OWNER@HOST/DATABASE",
        )
    return str(url)


def run_offline() -> None:
    """Print the SQL of the migration (`alembic upgrade head --sql`)."""
    context.configure(
        dialect_name="postgresql",
        target_metadata=load_tables(),
        literal_binds=True,
        version_table_schema="public",
    )
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection: Connection) -> None:
    """Migrate over one connection, in one transaction."""
    context.configure(
        connection=connection,
        target_metadata=load_tables(),
        include_schemas=True,
        include_name=is_ours,
        version_table_schema="public",
        compare_type=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(
            text(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_TIMEOUT}'")
        )
        connection.execute(text("LOCK TABLE public.alembic_version IN ACCESS EXCLUSIVE MODE"))
        # No secret: a house that is asked whether it is ready reads which revision the schema is at.
        connection.execute(text("GRANT SELECT ON public.alembic_version TO PUBLIC"))
        context.run_migrations()


async def make_version_table(engine: AsyncEngine) -> None:
    """Make the table that migrations lock; of two that try at once, one is enough."""
    # IF NOT EXISTS does not look at what another open transaction is making.
    with contextlib.suppress(IntegrityError, ProgrammingError):
        async with engine.begin() as connection:
            await connection.execute(text(VERSION_TABLE))


async def run_online() -> None:
    """Migrate, giving up a lock that is not granted and trying again."""
    engine = create_engine(owner_url(), command_timeout_s=None)
    try:
        await make_version_table(engine)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                async with engine.connect() as connection:
                    await connection.run_sync(run_on)
            except DBAPIError as error:
                if sqlstate(error) not in REPEATABLE_SQLSTATES or attempt == ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return
    finally:
        await engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    asyncio.run(run_online())
