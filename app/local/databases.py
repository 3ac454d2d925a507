"""Throw-away databases on a real server: migrated once, cloned per test.

``CAUSEWAY_TEST_DATABASE_URL`` names a server to use (its role needs CREATEDB and CREATEROLE);
without it a server is started in a temporary folder, in memory where there is room.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import URL, make_url

from app.local import process_table
from app.local.errors import HomeInUse
from app.local.migrate import migrate
from app.local.postgres import THROWAWAY, LocalPostgres
from kernel.db import APP_ROLE

SERVER_VARIABLE: Final = "CAUSEWAY_TEST_DATABASE_URL"
#: Any number: sessions that share one server migrate their templates one after the other.
TEMPLATE_LOCK: Final = 0x6361757365776179
#: A file system in memory; a container may have a small one.
MEMORY: Final = Path("/dev/shm")  # noqa: S108  owner is checked, names are random
MEMORY_BYTES_MIN: Final = 3 * 1024**3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server on which databases may be made."""

    admin_url: URL
    app_user: str | None

    def owner_url(self, name: str) -> str:
        """Return the URL of a database, as the role that migrates."""
        return self._render(self.admin_url.set(database=name))

    def app_url(self, name: str) -> str:
        """Return the URL of a database, as the runtime role where the server lets it log in."""
        url = self.admin_url.set(database=name)
        return self._render(url if self.app_user is None else url.set(username=self.app_user))

    async def connect(self) -> asyncpg.Connection:
        """Return a connection of the role that may make databases."""
        url = self.admin_url.set(drivername="postgresql")
        return await asyncpg.connect(self._render(url))

    async def execute(self, *statements: str) -> None:
        """Run statements outside any transaction."""
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
        """Return what a child process needs to use this database."""
        return {
            "CAUSEWAY_DATABASE_URL": self.owner_url,
            "CAUSEWAY_APP_DATABASE_URL": self.app_url,
        }


def run_apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a loop and thread of its own, so that no caller's loop is used."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()


@contextmanager
def opened_server(environment: Mapping[str, str]) -> Iterator[Server]:
    """Give the server that *environment* names, or a throw-away one that ends with the block."""
    given = environment.get(SERVER_VARIABLE)
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
        # The server's last files may still go away meanwhile; what stays, the next run removes.
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def migrated_template(server: Server, name: str) -> Iterator[str]:
    """Give the name of a database at the newest revision, to clone."""

    async def make() -> None:
        keeper = await server.connect()
        try:
            await keeper.execute("SELECT pg_advisory_lock($1)", TEMPLATE_LOCK)
            await keeper.execute(f"CREATE DATABASE {name}")
            await migrate(server.owner_url(name))
            if server.app_user is not None:
                await keeper.execute(f"ALTER ROLE {server.app_user} LOGIN")
        finally:
            await keeper.close()

    run_apart(make)
    try:
        yield name
    finally:
        run_apart(lambda: server.execute(f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def cloned(server: Server, template: str, name: str) -> Iterator[Database]:
    """Give a database that is a copy of *template*, and drop it afterwards."""
    make = f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"
    run_apart(lambda: server.execute(make))
    try:
        yield Database(name=name, owner_url=server.owner_url(name), app_url=server.app_url(name))
    finally:
        run_apart(lambda: server.execute(f"DROP DATABASE {name} WITH (FORCE)"))


class Clones:
    """Databases that are copies of one template, made ahead while others are in use.

    One connection of its own, in a thread of its own, makes the next copy ahead and drops those that
    are given back, so that nobody waits for either.
    """

    def __init__(self, server: Server, template: str) -> None:
        self._server = server
        self._template = template
        self._loop = asyncio.new_event_loop()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._connection: asyncpg.Connection | None = None
        self._drops: list[Future[None]] = []
        self._next = self._later(self._make)

    def take(self) -> Database:
        """Return a copy that nobody has used, and begin to make another."""
        name, self._next = self._next.result(), self._later(self._make)
        server = self._server
        return Database(name=name, owner_url=server.owner_url(name), app_url=server.app_url(name))

    def give_back(self, database: Database) -> None:
        """Have a copy dropped, whoever is still connected to it."""
        self._drops.append(self._later(lambda: self._drop(database.name)))

    def close(self) -> None:
        """Drop what was made ahead, when everything given back is dropped.

        Raises:
            asyncpg.PostgresError: a copy could not be dropped.
        """
        try:
            name = self._next.result()
            self._drops.append(self._later(lambda: self._drop(name)))
        finally:
            self._later(self._disconnect).result()
            self._thread.shutdown()
            self._loop.close()
        for drop in self._drops:
            drop.result()

    def _later(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        return self._thread.submit(lambda: self._loop.run_until_complete(work()))

    async def _make(self) -> str:
        name = f"causeway_test_{secrets.token_hex(6)}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY file_copy")
        return name

    async def _drop(self, name: str) -> None:
        await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _execute(self, statement: str) -> None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._server.connect()
        await self._connection.execute(statement)

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.close()


def server_folder() -> Path:
    """Make a folder for a throw-away server, in memory where there is room: ten times as fast.

    When root runs the tests the server is another user, which must be able to reach the folder;
    and the path of a socket must be short.

    Raises:
        HomeInUse: somebody else owns the folder above it.
    """
    top = scratch() / f"causeway-{os.geteuid()}"
    top.mkdir(mode=0o711, exist_ok=True)
    if top.stat().st_uid != os.geteuid():
        raise HomeInUse("another user owns the folder", where=str(top), remedy="Remove it")
    _end_abandoned(top)
    folder = Path(tempfile.mkdtemp(prefix=f"tests-{os.getpid()}-", dir=top))
    folder.chmod(0o711)
    return folder


def scratch() -> Path:
    """Return where files of tests lie that need not outlive the machine: in memory if there is room."""
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
