"""Two houses a worker, each built once; a test changes one in a transaction that is rolled back."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Database, Server, cloned, run_apart
from kernel.db import APP_ROLE, create_engine
from tests.app.oracles.house import live_a_day, pay_in_coins
from tests.app.oracles.planting import Plant
from tests.conftest import IDLE_MS


@contextmanager
def built(
    server: Server, template: str, live: Callable[[AsyncEngine, str], Awaitable[None]]
) -> Iterator[Database]:
    """Give a database in which somebody has lived."""
    with cloned(server, template, f"causeway_oracles_{secrets.token_hex(6)}") as database:

        async def build() -> None:
            engine = create_engine(
                database.app_url,
                role=APP_ROLE,
                idle_in_transaction_timeout_ms=IDLE_MS,
                injected_clock=True,
            )
            await live(engine, database.app_url)
            await engine.dispose()

        run_apart(build)
        yield database


@pytest.fixture(scope="session")
def rich(
    database_server: Server, database_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database in which a desk has lived a day; nobody commits to it afterwards."""
    folder = tmp_path_factory.mktemp("desk")
    with built(
        database_server, database_template, lambda engine, url: live_a_day(engine, url, folder)
    ) as database:
        yield database


@pytest.fixture(scope="session")
def coins(
    database_server: Server, database_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database in which a Bitcoin wallet has paid; nobody commits to it afterwards."""
    folder = tmp_path_factory.mktemp("coins")
    with built(
        database_server, database_template, lambda engine, _: pay_in_coins(engine, folder)
    ) as database:
        yield database


@pytest.fixture
async def rich_engine(rich: Database) -> AsyncIterator[AsyncEngine]:
    """The runtime role in the house of the desk."""
    engine = create_engine(rich.app_url, role=APP_ROLE, idle_in_transaction_timeout_ms=IDLE_MS)
    yield engine
    await engine.dispose()


@pytest.fixture
async def coins_engine(coins: Database) -> AsyncIterator[AsyncEngine]:
    """The same in the house that pays in coins."""
    engine = create_engine(coins.app_url, role=APP_ROLE, idle_in_transaction_timeout_ms=IDLE_MS)
    yield engine
    await engine.dispose()


@pytest.fixture
def planted_in(plant: Plant, request: pytest.FixtureRequest) -> Database:
    """The house in which this fault is planted."""
    found = request.getfixturevalue(plant.house)
    assert isinstance(found, Database)
    return found


@pytest.fixture
async def planting(planted_in: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction of the owner in that house, in which anything may be changed: it is rolled back."""
    engine = create_engine(planted_in.owner_url, idle_in_transaction_timeout_ms=IDLE_MS)
    async with engine.connect() as conn:
        transaction = await conn.begin()
        yield conn
        await transaction.rollback()
    await engine.dispose()
