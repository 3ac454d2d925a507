"""A copy of the house's database, in which may be tried what the house itself must not do."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import asyncpg
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from app.demo.guided.tour import Tour
from app.demo.world import DATABASE
from kernel.db import APP_ROLE, create_engine
from kernel.errors import OutsideUnavailable

COPY: Final = f"{DATABASE}_copy"


@dataclass(frozen=True, slots=True)
class Copy:
    """A database with everything that the house's had when it was made.

    Attributes:
        name: of the database.
        engine: of the runtime role; its ledger believes the time that it is told.
    """

    name: str
    engine: AsyncEngine


@contextlib.asynccontextmanager
async def copied(tour: Tour) -> AsyncIterator[Copy]:
    """Copy the house's database, and drop the copy at the end.

    Raises:
        OutsideUnavailable: somebody else is connected to the database.
    """
    world = tour.stage.world
    plain = make_url(world.server_url).set(drivername="postgresql")
    connection = await asyncpg.connect(plain.render_as_string(hide_password=False))
    try:
        # A database that is copied has no sessions: ours are opened again when they are needed.
        await world.engine.dispose()
        await connection.execute(f"DROP DATABASE IF EXISTS {COPY} WITH (FORCE)")
        try:
            await connection.execute(f"CREATE DATABASE {COPY} TEMPLATE {DATABASE}")
        except asyncpg.ObjectInUseError as error:
            raise OutsideUnavailable(
                f"{DATABASE} cannot be copied while somebody else is connected to it",
                remedy="Close the other connections and start again",
            ) from error
        url = make_url(world.owner_url).set(database=COPY).render_as_string(hide_password=False)
        engine = create_engine(url, role=APP_ROLE, injected_clock=True)
        try:
            yield Copy(COPY, engine)
        finally:
            await engine.dispose()
            await connection.execute(f"DROP DATABASE {COPY} WITH (FORCE)")
    finally:
        await connection.close()
