"""Real PostgreSQL for every test that asks for one: migrated once, cloned per test.

``CAUSEWAY_TEST_DATABASE_URL`` names a server to use (its role needs CREATEDB and CREATEROLE);
without it a server is started in a temporary folder, from ``CAUSEWAY_PG_BIN`` or from the wheel.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import hypothesis
import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local import process_table
from app.local.migrate import migrate
from app.local.postgres import THROWAWAY, LocalPostgres
from kernel.db import APP_ROLE, create_engine

hypothesis.settings.register_profile("dev", deadline=None, max_examples=50)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=200, print_blob=True, derandomize=False
)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=5_000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("CAUSEWAY_HYPOTHESIS", "dev"))

#: Any number: sessions that share one server migrate their templates one after the other.
TEMPLATE_LOCK = 0x6361757365776179


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs a database, and leave soak tests to `make soak`."""
    for item in items:
        if "database_server" in getattr(item, "fixturenames", ()):
            item.add_marker("database")
    if "CAUSEWAY_SOAK_MINUTES" not in os.environ:
        soaking = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=soaking)
        items[:] = [item for item in items if item not in soaking]


#: A file system in memory; a container may have a small one.
MEMORY = Path("/dev/shm")  # noqa: S108  owner is checked, names are random
MEMORY_BYTES_MIN = 3 * 1024**3


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server on which databases may be made."""

    admin_url: URL
    app_user: str | None

    def owner_url(self, name: str) -> str:
        return self._render(self.admin_url.set(database=name))

    def app_url(self, name: str) -> str:
        url = self.admin_url.set(database=name)
        return self._render(url if self.app_user is None else url.set(username=self.app_user))

    async def connect(self) -> asyncpg.Connection:
        url = self.admin_url.set(drivername="postgresql")
        return await asyncpg.connect(self._render(url))

    async def execute(self, *statements: str) -> None:
        connection = await self.connect()
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    @staticmethod
    def _render(url: URL) -> str:
        return url.render_as_string(hide_password=False)


@dataclass(frozen=True, slots=True)
class Database:
    """One test's own database, at the newest revision.

    ``owner_url`` may change the schema; ``app_url`` logs in for the runtime role, as which
    ``create_engine(app_url, role=APP_ROLE)`` acts on every server.
    """

    name: str
    owner_url: str
    app_url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to use this database."""
        return {
            "CAUSEWAY_DATABASE_URL": self.owner_url,
            "CAUSEWAY_APP_DATABASE_URL": self.app_url,
        }


def _in_thread(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    # A loop of its own, so that the loop of pytest-asyncio is neither used nor replaced.
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(lambda: asyncio.run(work())).result()


def _scratch() -> Path:
    writable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK)
    if writable and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN:
        return MEMORY
    return Path(tempfile.gettempdir())


def _end_abandoned(folder: Path) -> None:
    """End the servers of test runs that were killed, and remove their folders."""
    for run in folder.glob("tests-*-*"):
        if process_table.identity(int(run.name.split("-")[1])) is not None:
            continue
        for lock in run.rglob("owner.lock"):
            LocalPostgres(lock.parent).end_left_over()
        shutil.rmtree(run, ignore_errors=True)


def server_folder() -> Path:
    """Make a folder for a throw-away server, in memory where there is room: ten times as fast.

    Not pytest's tmp_path: when root runs the tests the server is another user, which must be able
    to reach the folder; and the path of a socket must be short.
    """
    top = _scratch() / f"causeway-{os.geteuid()}"
    top.mkdir(mode=0o711, exist_ok=True)
    if top.stat().st_uid != os.geteuid():
        pytest.exit(f"{top} belongs to another user; remove it")
    _end_abandoned(top)
    folder = Path(tempfile.mkdtemp(prefix=f"tests-{os.getpid()}-", dir=top))
    folder.chmod(0o711)
    return folder


@pytest.fixture(scope="session")
def database_server() -> Iterator[Server]:
    """The PostgreSQL server of this test session (of this worker, under xdist)."""
    given = os.environ.get("CAUSEWAY_TEST_DATABASE_URL")
    if given:
        yield Server(admin_url=make_url(given).set(drivername="postgresql+asyncpg"), app_user=None)
        return
    folder = server_folder()
    local = LocalPostgres(folder / "pg", settings=THROWAWAY)
    local.start()
    try:
        yield Server(admin_url=make_url(local.url()), app_user=APP_ROLE)
    finally:
        local.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def database_template(database_server: Server) -> Iterator[str]:
    """The name of a database at the newest revision, to clone."""
    name = f"causeway_template_{secrets.token_hex(4)}"

    async def make() -> None:
        keeper = await database_server.connect()
        try:
            await keeper.execute("SELECT pg_advisory_lock($1)", TEMPLATE_LOCK)
            await keeper.execute(f"CREATE DATABASE {name}")
            await migrate(database_server.owner_url(name))
            if database_server.app_user is not None:
                await keeper.execute(f"ALTER ROLE {database_server.app_user} LOGIN")
        finally:
            await keeper.close()

    _in_thread(make)
    yield name
    _in_thread(lambda: database_server.execute(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def empty_database(database_server: Server) -> AsyncIterator[Database]:
    """A database without any schema, for tests of the migrations."""
    async with _database(database_server, "template1") as database:
        yield database


@pytest.fixture
async def database(database_server: Server, database_template: str) -> AsyncIterator[Database]:
    """This test's own database, at the newest revision."""
    async with _database(database_server, database_template) as database:
        yield database


@pytest.fixture
async def owner_engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine as the role that owns the schema."""
    engine = create_engine(database.owner_url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine as the runtime role, as production has it."""
    engine = create_engine(database.app_url, role=APP_ROLE)
    yield engine
    await engine.dispose()


@asynccontextmanager
async def _database(server: Server, template: str) -> AsyncIterator[Database]:
    name = f"causeway_test_{secrets.token_hex(6)}"
    await server.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    try:
        yield Database(name=name, owner_url=server.owner_url(name), app_url=server.app_url(name))
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
