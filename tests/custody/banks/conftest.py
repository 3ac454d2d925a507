"""The desk of `pay_world`, founded once for a session and copied for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from app.local.databases import Clones, Database, Server, cloned, run_apart
from kernel.db import APP_ROLE, create_engine
from tests.custody.banks.pay_world import World, make_world

IDLE_MS = 60_000
"""A test that is not scheduled for two seconds on a busy machine is not a worker that hangs."""


@pytest.fixture(scope="session")
def founded(database_server: Server, database_template: str) -> Iterator[Clones]:
    """Databases with the desk in them."""
    name = f"causeway_pay_{secrets.token_hex(6)}"
    with cloned(database_server, database_template, name) as database:
        run_apart(lambda: _found(database))
        clones = Clones(database_server, name)
        yield clones
        clones.close()


async def _found(database: Database) -> None:
    engine = create_engine(database.app_url, role=APP_ROLE, injected_clock=True)
    await make_world(engine)
    await engine.dispose()


@pytest.fixture
async def world(founded: Clones) -> AsyncIterator[World]:
    """A desk of this test's own."""
    database = founded.take()
    engine = create_engine(
        database.app_url,
        role=APP_ROLE,
        idle_in_transaction_timeout_ms=IDLE_MS,
        injected_clock=True,
    )
    yield World(engine)
    await engine.dispose()
    founded.give_back(database)
