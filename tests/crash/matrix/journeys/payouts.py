"""Payouts on a chain with accounts: the stories of `tests.custody.test_payout_matrix`, over the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final

from chain.testing import ScriptedTransaction
from custody.payout_model import PayoutState
from custody.payout_rescue import resume_bytes, resume_sender
from custody.payout_worker import LEASE
from registry.testing import operator_keypair
from tests.crash.matrix.stage import Journey, Stage
from tests.custody import test_payout_matrix as matrix
from tests.custody.fate import Fate
from tests.custody.payout_world import ETH, PAYEE, STRANGER, World, make_world

REFUSED_ALWAYS: Final = 10**6


Resume = Callable[[matrix.Stage, ScriptedTransaction], Awaitable[list[tuple[str, int]]]]


async def robbed(stage: matrix.Stage, then: Resume) -> list[tuple[str, int]]:
    """A stranger spends the nonce of a payout that no pool has taken: it is held."""
    world = stage.world
    world.gateway.refuse_broadcasts = REFUSED_ALWAYS
    payout = await world.approved()
    await world.advance()
    thief = ScriptedTransaction(
        sender=world.hot["client-pool"], recipient=STRANGER, nonce=0, value=ETH
    )
    world.gateway.mine(thief)
    await world.follow()
    assert (await world.get(payout)).state is PayoutState.SECURITY_HOLD
    world.gateway.refuse_broadcasts = 0
    return await then(stage, thief)


async def is_paid_when_the_theft_is_undone(
    stage: matrix.Stage, thief: ScriptedTransaction
) -> list[tuple[str, int]]:
    world, hot, reason = stage.world, stage.world.hot["client-pool"], "the thief's block is gone"
    world.gateway.reorg(1, [[], []])
    world.gateway.drop(thief.hash)
    await world.follow()
    signed = resume_bytes("evm", hot, reason)
    signatures = {code: operator_keypair(code).sign(signed) for code in ("ada", "ben")}
    await world.run(
        lambda conn: resume_sender(
            conn, "evm", hot, signatures=signatures, reason=reason, now=world.clock.now()
        )
    )
    await stage.live(8)
    return [(PAYEE, 2 * ETH)]


def robbing(then: Resume) -> matrix.Story:
    return partial(robbed, then=then)


async def play(story: matrix.Story, stage: Stage) -> Any:
    mortal = stage.mortal
    async with make_world(mortal.engine, stage.folder) as world:
        mortal.make_mortal(stage.patch, World, "advance", "follow", "confirm")
        mortal.make_asking_mortal(stage.patch, World, "run")
        mortal.pass_lease = partial(world.clock.advance, LEASE + timedelta(seconds=1))
        mortal.rename = partial(setattr, world, "worker")
        fate = Fate()
        signer = matrix.MortalSigner(world.signer, fate)
        world.signer = signer
        expected = await story(matrix.Stage(world, fate, signer))
        assert matrix.payments(world) == expected
        await matrix.assert_settled(world)
        return expected


JOURNEYS: Final = (
    *(Journey("payout", told.story.__name__, partial(play, told.story)) for told in matrix.STORIES),
    Journey("payout", "is robbed", partial(play, robbing(is_paid_when_the_theft_is_undone))),
)
