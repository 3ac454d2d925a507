"""A follower killed before or after each of its commits: the next one ends with the same books.

Nothing of a follower lives outside the database, so a kill is what a transaction leaves behind: all
of it or nothing, and an attempt that knows nothing of the one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import chain.walk
from app.local.databases import Database, Server
from chain.model import FollowState
from kernel.db import transact
from tests.properties.chain_schedule import (
    Founded,
    LyingGateway,
    Play,
    ReorgHouse,
    found_house,
    fund,
    payments,
)

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
KILLS_MIN: Final = 10


class Killed(BaseException):
    """What no handler catches: the process is gone."""


@dataclass
class Killer:
    """Runs transactions, and kills at one of them: before it commits, or right after.

    After each kill the next worker gets one transaction further, so no commit is left out.
    """

    after: bool
    at: int = 1
    done: int = 0
    kills: int = 0

    async def transact(self, engine: AsyncEngine, work: Work[T]) -> T:
        """Run *work* in a transaction, as `kernel.db.transact` does."""
        self.done += 1
        if self.done != self.at:
            return await transact(engine, work)
        self.at, self.done, self.kills = self.at + 1, 0, self.kills + 1
        if self.after:
            await transact(engine, work)
            raise Killed

        async def killed(conn: AsyncConnection) -> T:
            await work(conn)
            raise Killed

        return await transact(engine, killed)


@dataclass
class Mortal(ReorgHouse):
    """A house whose worker is started again whenever it is killed."""

    async def walk(self, blocks_max: int = 1_000) -> FollowState:
        """Follow the chain, however many workers it takes."""
        while True:
            try:
                return await ReorgHouse.walk(self, blocks_max)
            except Killed:
                continue


async def live(house: ReorgHouse, gateway: LyingGateway) -> None:
    """Go through an inclusion of each kind, a lie, a reorganisation, and a way back."""
    played = Play(house, gateway, payments(house))
    played.begin(90)
    assert await house.walk() is FollowState.RUNNING
    played.mine(0b00010111)
    gateway.lies = 1
    await house.walk()
    gateway.lies = 0
    played.mine(0b10101000)
    await house.walk()
    await house.advance()
    played.reorg(2, 0b10111)
    for _ in range(6):
        played.mine(0b11000000)
        await house.walk()
    await house.settle()


def story(founded: Founded, runner: asyncio.Runner) -> dict[str, object]:
    """Return what the books of a new house say after all that."""
    gateway = LyingGateway()
    fund(gateway)
    with founded.copy(runner, gateway, Mortal) as house:

        async def work() -> dict[str, object]:
            await live(house, gateway)
            return await house.story()

        return runner.run(work())


@pytest.fixture
def founded(database_server: Server, database: Database) -> Founded:
    """A house that was founded once."""
    return found_house(database_server, database)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
def test_a_follower_killed_at_any_commit_goes_on_to_the_same_books(
    founded: Founded, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    killer = Killer(after)
    with asyncio.Runner() as runner:
        undisturbed = story(founded, runner)
        monkeypatch.setattr(chain.walk, "transact", killer.transact)
        killed = story(founded, runner)
    assert killer.kills > KILLS_MIN
    assert killed == undisturbed
