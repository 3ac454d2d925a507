"""Transfers to and from a venue: the lives of `tests.custody.venues.test_transfer_edges`, over the wire."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any, Final

from app.faults.edges import Edge as Taken
from custody.errors import NotPossible
from custody.venues.sending import LEASE
from tests.crash.matrix.mortal import Mortal
from tests.crash.matrix.stage import Journey, Stage
from tests.custody.payout_world import World
from tests.custody.venues.test_transfer_edges import (
    BACK,
    WAYS,
    Edge,
    Life,
    NotListed,
    W,
    Way,
    rest_of,
    state,
)
from tests.custody.venues.transfer_world import TransferWorld, make_transfer_world

SENDING: Final = Taken("custody.venue_withdrawal", "approved", "submitting")


async def play(edge: Edge, way: Way, stage: Stage) -> Any:
    mortal = stage.mortal
    async with make_transfer_world(mortal.engine, stage.folder) as world:
        mortal.make_mortal(stage.patch, TransferWorld, "work", "settle_chain")
        mortal.make_mortal(stage.patch, World, "advance", "follow", "confirm")
        mortal.make_asking_mortal(stage.patch, World, "run")
        clock = world.desk.clock
        mortal.pass_lease = partial(clock.advance, LEASE + timedelta(seconds=1))
        mortal.rename = partial(setattr, world, "holder")
        before = await rest_of(world)
        life = Life(world, "life")
        clock.advance(timedelta(seconds=1))
        ends = way.ends
        try:
            await way.before(life)
            await way.act(life)
            await way.then(life)
        except (NotListed, NotPossible):
            if not was_never_taken(mortal, world):
                raise
        if was_never_taken(mortal, world) and await state(life, edge[0]) not in ends:
            await find_out(life)
            ends = frozenset({W.NOT_PLACED})
        assert await state(life, edge[0]) in ends
        assert await rest_of(world) == before
        sent = [ticket.withdrawal_id for ticket in world.treasury.requests]
        assert len(sent) == len(set(sent))
        await world.desk.assert_rule_two()


def was_never_taken(mortal: Mortal, world: TransferWorld) -> bool:
    """Tell whether who wrote down that he sends it died before he did, or came when the door was shut.

    Nobody sends it for him: it may have been sent.
    """
    doom = mortal.doom
    written = doom is not None and mortal.struck and doom.point.edge == SENDING
    return written and not world.treasury.withdrawals


async def find_out(life: Life) -> None:
    """Let the venue's list say in time that it never came, or two people after too long."""
    life.world.treasury.down = False
    await life.turns()
    if await state(life, BACK) == W.ESCALATED:
        await life.say_it_is_none()


JOURNEYS: Final = tuple(
    Journey("own-transfer", " ".join(edge), partial(play, edge, way)) for edge, way in WAYS.items()
)
