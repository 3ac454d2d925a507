"""Bring a database's schema to a revision; where alembic's folder and the tables are.

In a checkout the revisions lie in ``alembic/``, in an installed wheel in ``app/migrations/``.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import threading
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, Final, Literal

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData
from sqlalchemy.exc import DBAPIError

from app.local.errors import MigrationNotDone
from kernel.db import create_engine, metadata
from kernel.errors import OutsideUnavailable

URL_ATTRIBUTE: Final = "causeway_owner_url"
URL_VARIABLE: Final = "CAUSEWAY_DATABASE_URL"
LOCK_TIMEOUT: Final = "2s"
IDLE_IN_TRANSACTION_TIMEOUT: Final = "60s"
ATTEMPTS_MAX: Final = 15
RETRY_SECONDS: Final = 1.0
#: Lock not available, and deadlock.
REPEATABLE_SQLSTATES: Final = frozenset({"55P03", "40P01"})

#: The packages that keep tables, in the order of the floors; each in the schema of its name.
PACKAGES: Final = (
    "kernel",
    "registry",
    "ledger",
    "marketdata",
    "chain",
    "venues",
    "custody",
    "risk",
    "trading",
    "settlement",
    "reporting",
)
#: And ``books``, where the rooms within the ledger keep what moves along the edges of a machine: in
#: the schema of the ledger itself there is nothing but the journal and its state.
SCHEMAS: Final = (*PACKAGES, "books")

# alembic keeps its running environment in a module-wide proxy: one migration per process at once.
_ONE_AT_A_TIME = threading.Lock()


def migrations_folder() -> Path:
    """Return the folder with ``env.py`` and ``versions``.

    Raises:
        MigrationNotDone: neither a checkout nor a complete installation.
    """
    # Installed first: beside an installed package, ``alembic`` is the library of that name.
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "migrations", here.parents[2] / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise MigrationNotDone(
        "the migrations are not installed",
        where=str(here.parents[1] / "migrations"),
        remedy="Install Causeway again, or run it from a checkout",
    )


def load_tables() -> MetaData:
    """Import every package's private tables and return the one metadata.

    They are found by name (``tables``, ``…_tables``), also in the rooms within a package, so that
    a new one cannot be forgotten.
    """
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(path, f"{package}."):
            if module.name.endswith((".tables", "_tables")):
                importlib.import_module(module.name)
    return metadata


def is_ours(
    name: str | None,
    kind: Literal[
        "schema",
        "table",
        "column",
        "index",
        "unique_constraint",
        "foreign_key_constraint",
        "check_constraint",
    ],
    parents: MutableMapping[Any, str | None],
) -> bool:
    """Tell alembic's comparison to look at Causeway's schemas only (its `include_name` hook)."""
    del parents
    return kind != "schema" or name in SCHEMAS


def configuration(owner_url: str) -> Config:
    """Return alembic's configuration for a database; no ini file is read."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes[URL_ATTRIBUTE] = owner_url
    return config


def head() -> str:
    """Return the newest revision this code knows."""
    found = ScriptDirectory(str(migrations_folder())).get_current_head()
    if found is None:
        raise MigrationNotDone(
            "there is no revision", where=str(migrations_folder()), remedy="Install Causeway again"
        )
    return found


async def migrate(owner_url: str, revision: str = "head") -> None:
    """Bring the schema up to a revision; nothing happens where it is already there.

    Args:
        owner_url: ``postgresql+asyncpg://…`` of the role that owns the schema.
        revision: a revision id, or ``head``.

    Raises:
        MigrationNotDone: names the revision and what PostgreSQL said; nothing was changed.
    """
    await _run(command.upgrade, owner_url, revision)


async def downgrade(owner_url: str, revision: str) -> None:
    """Take the schema down to a revision, or to nothing with ``base``: for tests and repair."""
    await _run(command.downgrade, owner_url, revision)


async def current(owner_url: str) -> str | None:
    """Return the revision the database is at, None where it was never migrated."""

    def read(connection: Connection) -> str | None:
        context = MigrationContext.configure(connection, opts={"version_table_schema": "public"})
        return context.get_current_revision()

    engine = create_engine(owner_url)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(read)
    except OSError as error:
        raise OutsideUnavailable(
            f"PostgreSQL does not answer: {error}",
            where=engine.url.render_as_string(hide_password=True),
            remedy=f"Start it, or correct {URL_VARIABLE}",
        ) from error
    finally:
        await engine.dispose()


async def _run(verb: Callable[[Config, str], None], owner_url: str, revision: str) -> None:
    # alembic's commands are synchronous and env.py opens its own event loop: a thread of their own.
    def work() -> None:
        with _ONE_AT_A_TIME:
            verb(configuration(owner_url), revision)

    try:
        await asyncio.to_thread(work)
    except (CommandError, DBAPIError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise MigrationNotDone(
            f"the schema is not at revision {revision}: {reason}",
            remedy=(
                "Nothing was changed. If the database is newer than this program, use the newer "
                "program; else look at the statement above"
            ),
        ) from error
    except OSError as error:
        raise OutsideUnavailable(
            f"PostgreSQL does not answer: {error}",
            remedy=f"Start it, or correct {URL_VARIABLE}",
        ) from error
