"""When a story goes on after somebody was struck, and who is ended for it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.faults.edges import Kind, Moment, Point
from kernel.db import transact
from kernel.errors import CausewayError
from tests.crash.matrix.mortal import mortals
from tests.crash.matrix.telling import Databases
from tests.crash.matrix.test_wire import READY, add

NOTICES_AFTER_S: Final = 0.3


async def test_nobody_goes_on_before_a_server_that_dies_knows_it(databases: Databases) -> None:
    """Its connections are lost first; for a moment it would let the next one in, and end him."""
    point = Point(READY, Moment.BEFORE_COMMIT, Kind.SERVER_KILLED)
    knows: list[bool] = []
    lives: list[bool] = []

    async def kill(backend: int) -> None:
        os.kill(backend, signal.SIGTERM)
        await asyncio.sleep(NOTICES_AFTER_S)
        knows.append(True)

    with databases() as database:
        async with mortals(database, point) as mortal:
            assert mortal.doom is not None
            mortal.doom.kill_server = kill

            async def turn() -> None:
                lives.append(bool(knows))
                await transact(mortal.engine, add)

            await mortal.act(turn)

    assert lives == [False, True]


async def test_who_stands_still_is_ended_once_somebody_waits_for_what_he_has_locked(
    databases: Databases,
) -> None:
    point = Point(READY, Moment.BEFORE_COMMIT, Kind.SECOND_WORKER)
    ends: list[str] = []

    async def alone(conn: AsyncConnection) -> None:
        await conn.execute(text("SELECT pg_advisory_xact_lock(7)"))
        await add(conn)

    with databases() as database:
        async with mortals(database, point) as mortal:

            async def turn() -> None:
                life = f"life {mortal.lives}"
                try:
                    await transact(mortal.engine, alone)
                except CausewayError as error:
                    ends.append(f"{life}: {type(error).__name__}")
                    raise
                ends.append(f"{life}: done")

            await mortal.act(turn)

    assert sorted(ends[:2]) == ["life 0: CommitUnknown", "life 1: done"]
    assert ends[2:] == ["life 2: done"]


async def test_who_stands_still_in_nobodys_way_goes_on_and_is_done(databases: Databases) -> None:
    point = Point(READY, Moment.BEFORE_COMMIT, Kind.SECOND_WORKER)
    ends: list[int] = []

    with databases() as database:
        async with mortals(database, point) as mortal:

            async def turn() -> None:
                life = mortal.lives
                await transact(mortal.engine, lambda conn: add(conn, f"job-{life}"))
                ends.append(life)

            await mortal.act(turn)
            assert mortal.wire.taken[READY] == len(ends)

    assert ends == [1, 0, 2]


async def test_who_asks_has_the_answer_of_whoever_did_it_though_another_found_it_done(
    databases: Databases,
) -> None:
    point = Point(READY, Moment.BEFORE_COMMIT, Kind.SECOND_WORKER)
    answers: list[str] = []

    async def once(conn: AsyncConnection) -> str:
        await conn.execute(text("SELECT pg_advisory_xact_lock(7)"))
        done = await conn.scalar(text("SELECT count(*) FROM kernel.job"))
        if not done:
            await add(conn)
        answers.append("" if done else "added")
        return answers[-1]

    with databases() as database:
        async with mortals(database, point) as mortal:
            assert await mortal.ask(once) == "added"

    assert answers == ["added", "added", ""]
