"""Orders at a venue: the lives of `tests.crash.test_order_edges`, over the wire."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any, Final

from tests.crash.matrix.stage import Journey, Stage
from tests.crash.test_order_edges import RESTS, WAYS, Way, World
from venues.claims import LEASE
from venues.model import FINAL_STATES


async def play(way: Way, stage: Stage) -> Any:
    mortal = stage.mortal
    world = World(mortal.engine, way)
    mortal.make_mortal(stage.patch, World, "life")
    mortal.pass_lease = partial(world.venue.pass_time, LEASE + timedelta(seconds=1))
    await world.life()
    # What did not answer does, and fresh workers go on until there is nothing left to do.
    world.blind = 0
    for _ in range(2):
        world.venue.pass_time(LEASE)
        await world.life()
    (order,) = await world.lives.orders()
    placed = world.venue.orders
    assert len(placed) <= 1
    assert order.executed_units == sum(item.executed for item in placed)
    assert order.state in FINAL_STATES or way.conduct is RESTS
    if order.state in FINAL_STATES and placed:
        assert str(order.state) == str(placed[0].status)


JOURNEYS: Final = tuple(
    Journey("order", f"{before} to {after}", partial(play, way))
    for (before, after), way in WAYS.items()
)
