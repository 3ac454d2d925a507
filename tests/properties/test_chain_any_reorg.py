"""Any schedule of reorganisations, crashes and lies of a node gives the ledger of a clean sync."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.local.databases import Database, Server, cloned
from kernel.clock import ManualClock
from kernel.db import APP_ROLE, create_engine
from tests.properties.chain_schedule import (
    LONG,
    SHORT,
    Action,
    LyingGateway,
    Play,
    ReorgHouse,
    actions,
    fund,
    payments,
)

COUNTER = itertools.count(1)


@dataclass(frozen=True)
class Founded:
    """A house that was founded in a database, and how to have copies of it."""

    server: Server
    database: Database
    house: ReorgHouse

    @contextmanager
    def copy(self, runner: asyncio.Runner, gateway: LyingGateway) -> Iterator[ReorgHouse]:
        """Give a house of its own over *gateway*."""
        name = f"{self.database.name}_{next(COUNTER)}"
        with cloned(self.server, self.database.name, name) as database:
            engine = create_engine(database.app_url, role=APP_ROLE, injected_clock=True)
            try:
                clock = ManualClock(self.house.now)
                yield replace(self.house, engine=engine, gateway=gateway, clock=clock)
            finally:
                runner.run(engine.dispose())


@pytest.fixture
def founded(database_server: Server, database: Database) -> Founded:
    """Found the house once; nobody stays connected to its database."""
    engine = create_engine(database.app_url, role=APP_ROLE, injected_clock=True)

    async def work() -> ReorgHouse:
        house = ReorgHouse(engine, LyingGateway())
        await house.open()
        await engine.dispose()
        return house

    with asyncio.Runner() as runner:
        house = runner.run(work())
    return Founded(database_server, database, house)


@pytest.mark.timeout(1_800)
def test_any_schedule_of_reorganisations_gives_the_ledger_of_a_clean_sync(
    founded: Founded,
) -> None:
    # Failures 5, 20 and 21 of the catalogue: whatever the chain and the node did on the way.
    @given(schedule=actions, height=st.sampled_from([1, SHORT, LONG]))
    @settings(
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    def check(schedule: list[Action], height: int) -> None:
        with asyncio.Runner() as runner:
            lived, gateway = play(founded, runner, schedule, height)
            with founded.copy(runner, gateway) as house:
                clean = runner.run(settle(house))
        assert lived == clean

    check()


def play(
    founded: Founded, runner: asyncio.Runner, schedule: list[Action], height: int
) -> tuple[dict[str, object], LyingGateway]:
    """Live through *schedule*; return what the books say in the end, and the chain."""
    gateway = LyingGateway()
    fund(gateway)
    with founded.copy(runner, gateway) as house:
        played = Play(house, gateway, payments(house))
        played.begin(height)

        async def live() -> dict[str, object]:
            for action in schedule:
                await played.take(action)
            return await settle(house)

        return runner.run(live()), gateway


async def settle(house: ReorgHouse) -> dict[str, object]:
    """Let the chain be calm, and return what the books say."""
    await house.settle()
    return await house.story()
