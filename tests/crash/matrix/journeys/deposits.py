"""Deposits: a story for every edge, those of `tests.crash.test_deposits`, over the wire."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any, Final

from kernel.db import create_engine
from tests.crash.matrix.stage import Journey, Stage
from tests.crash.test_deposits import STORIES, MortalHouse, Story, seen

LEASE: Final = timedelta(minutes=2)


async def play(story: Story, stage: Stage) -> Any:
    mortal = stage.mortal
    mortal.make_mortal(stage.patch, MortalHouse, "follow", "advance")
    mortal.make_asking_mortal(stage.patch, MortalHouse, "do")
    killer = create_engine(stage.database.owner_url)
    house = MortalHouse(mortal.engine, killer=killer)
    mortal.pass_lease = partial(house.clock.advance, LEASE)
    await house.open()
    await story.prepare(house)
    # What fakes a state as its owner is done: the server may be killed from here on.
    await killer.dispose()
    await story.act(house)
    await house.advance()
    told = await seen(house)
    await killer.dispose()
    assert told[0] == story.ends
    return told


JOURNEYS: Final = tuple(
    Journey("deposit", f"{edge[0]} to {edge[1]}", partial(play, story), compared=True)
    for edge, story in STORIES.items()
)
