"""Any schedule of reorganisations, crashes and lies of a node gives the ledger of a clean sync."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.local.databases import Database, Server
from tests.properties.chain_schedule import (
    LONG,
    SHORT,
    Action,
    Founded,
    LyingGateway,
    Play,
    actions,
    found_house,
    fund,
    payments,
    settle,
)

EXAMPLES_SHARE = 16
"""Of the examples that other properties get: each is two lives of a whole house, some two seconds."""


@pytest.fixture
def founded(database_server: Server, database: Database) -> Founded:
    """A house that was founded once."""
    return found_house(database_server, database)


@pytest.mark.timeout(1_800)
def test_any_schedule_of_reorganisations_gives_the_ledger_of_a_clean_sync(
    founded: Founded,
) -> None:
    # Failures 5, 20 and 21 of the catalogue: whatever the chain and the node did on the way.
    @given(schedule=actions, height=st.sampled_from([1, SHORT, LONG]))
    @settings(
        max_examples=max(1, settings().max_examples // EXAMPLES_SHARE),
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
