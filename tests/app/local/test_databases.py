"""Throw-away databases: each test has its own, nobody waits for it, and none is left."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy import text

from app.local.databases import Clones, Server
from kernel.db import create_engine


async def names(server: Server) -> set[str]:
    """The databases that there are."""
    connection = await server.connect()
    try:
        return {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
    finally:
        await connection.close()


async def test_copies_share_nothing_and_are_gone_at_the_end(
    database_server: Server, database_template: str
) -> None:
    before = await names(database_server)
    clones = Clones(database_server, database_template)
    one, other = clones.take(), clones.take()
    engine, reader = create_engine(one.owner_url), create_engine(other.owner_url)
    async with engine.begin() as conn:
        await conn.execute(text("CREATE TABLE public.mine (n int)"))
    async with reader.connect() as conn:
        found = await conn.scalar(text("SELECT to_regclass('public.mine')::text"))
    held = await engine.connect()
    there = await names(database_server)
    clones.give_back(one)
    clones.give_back(other)
    clones.close()

    assert found is None
    assert {one.name, other.name} <= there
    assert not await names(database_server) & {one.name, other.name}
    assert len(await names(database_server) - before) <= 1  # the session's own makes one ahead
    await held.invalidate()
    await held.close()
    await engine.dispose()
    await reader.dispose()


def test_a_copy_that_cannot_be_made_is_told_to_whoever_takes_it(database_server: Server) -> None:
    clones = Clones(database_server, "causeway_nothing_of_that_name")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        clones.take()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        clones.close()
