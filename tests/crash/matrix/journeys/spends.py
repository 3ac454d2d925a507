"""Payouts on Bitcoin: the stories of `tests.custody.bitcoin.test_spend_matrix`, over the wire."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any, Final

from custody.bitcoin.spend_worker import LEASE
from tests.crash.matrix.stage import Journey, Stage
from tests.custody.bitcoin import test_spend_matrix as matrix
from tests.custody.bitcoin.spend_world import SpendWorld, make_spend_world
from tests.custody.fate import Fate


async def play(story: matrix.Story, stage: Stage) -> Any:
    mortal = stage.mortal
    async with make_spend_world(mortal.engine, stage.folder) as world:
        mortal.make_mortal(stage.patch, SpendWorld, "advance", "follow", "credit", "confirm")
        mortal.make_asking_mortal(stage.patch, SpendWorld, "run")
        mortal.pass_lease = partial(world.clock.advance, LEASE + timedelta(seconds=1))
        mortal.rename = partial(setattr, world, "worker")
        with matrix.set_stage(world, Fate()) as told:
            await story.play(told)
        await matrix.assert_settled(world)
        return sorted([str(item.state) async for item in world._every()])


JOURNEYS: Final = tuple(
    Journey("payout-bitcoin", story.name, partial(play, story), compared=True)
    for story in matrix.STORIES
)
