"""A PostgreSQL of a test's own whose clock jumps, or whose disk fails."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.faults import preloads
from app.local.databases import run_apart, server_folder
from app.local.migrate import migrate
from app.local.postgres import DURABLE, LocalPostgres
from kernel.db import APP_ROLE, create_engine
from tests.crash.ledger.test_server_killed import ask

FAULTS_ARE_THERE = pytest.mark.skipif(
    not preloads.are_there() and os.environ.get(preloads.REQUIRED_VARIABLE) != "1",
    reason="libfaketime and libfiu are not there: run scripts/fetch-faults",
)


@contextmanager
def faults_folder() -> Iterator[Path]:
    """Give a folder that the server's account can reach and write, whoever that is."""
    folder = server_folder()
    faults = folder / "faults"
    faults.mkdir()
    faults.chmod(0o777)
    try:
        yield faults
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def preloaded_server(faults: Path, environment: Mapping[str, str]) -> Iterator[LocalPostgres]:
    """Give a migrated server, as durable as in production, that runs with *environment*."""
    home = faults.parent / "pg"
    with LocalPostgres(home, settings=DURABLE) as server:
        run_apart(lambda: migrate(server.url()))
        run_apart(lambda: _let_in(server))
    server = LocalPostgres(home, settings=DURABLE)
    with preloads.in_environment(environment):
        server.start()
    try:
        yield server
    finally:
        server.stop()


async def started_again(server: LocalPostgres, environment: Mapping[str, str]) -> bool:
    """Start the server if it ended; tell whether it had."""
    with preloads.in_environment(environment):
        return await asyncio.to_thread(server.restart_if_dead)


def runtime_engine(server: LocalPostgres, *, pool_size: int = 2) -> AsyncEngine:
    """Return an engine as production has it."""
    return create_engine(server.url(user=APP_ROLE), role=APP_ROLE, pool_size=pool_size)


async def _let_in(server: LocalPostgres) -> None:
    await ask(server, f"ALTER ROLE {APP_ROLE} LOGIN")
