"""Payouts that people or time end before anything of them is signed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.payout_model import Payout, PayoutState
from custody.payouts import cancel_payout, expire_payouts, reject_payout
from registry.queries import get_operator
from tests.crash.matrix.stage import Journey, Stage
from tests.custody.payout_world import BOOK, ETH, World, make_world

End = Callable[[World, Payout], Awaitable[object]]


async def rejects(world: World, payout: Payout) -> object:
    async def work(conn: AsyncConnection) -> Payout:
        ben = await get_operator(conn, "ben")
        return await reject_payout(
            conn, payout.id, by=ben, reason="no", book=BOOK, now=world.clock.now()
        )

    return await world.run(work)


async def cancels(world: World, payout: Payout) -> object:
    async def work(conn: AsyncConnection) -> Payout:
        dan = await get_operator(conn, "dan")
        return await cancel_payout(
            conn, payout.id, by=dan, reason="no", book=BOOK, now=world.clock.now()
        )

    return await world.run(work)


async def lapses(world: World, _: Payout) -> object:
    world.clock.advance(timedelta(days=2))
    return await world.run(lambda conn: expire_payouts(conn, book=BOOK, now=world.clock.now()))


async def play(end: End, state: PayoutState, stage: Stage, *, approved: bool) -> Any:
    mortal = stage.mortal
    async with make_world(mortal.engine, stage.folder) as world:
        mortal.make_mortal(stage.patch, World, "advance", "follow", "confirm")
        mortal.make_asking_mortal(stage.patch, World, "run")
        mortal.pass_lease = partial(world.clock.advance, timedelta(seconds=1))
        before = await world.books()
        lasts = {"expires_at": world.clock.now() + timedelta(days=1)}
        payout = await (world.approved(**lasts) if approved else world.request(**lasts))
        await end(world, payout)
        await world.advance()
        assert (await world.get(payout)).state is state
        assert await world.books() == before
        assert world.gateway.pool == set()


async def asks_for_too_much(stage: Stage) -> Any:
    mortal = stage.mortal
    async with make_world(mortal.engine, stage.folder) as world:
        mortal.make_asking_mortal(stage.patch, World, "run")
        payout = await world.request(amount=1_000 * ETH)
        assert (await world.get(payout)).state is PayoutState.REJECTED


ENDS: Final = {
    "rejected": (rejects, PayoutState.REJECTED),
    "cancelled": (cancels, PayoutState.CANCELLED),
    "lapsed": (lapses, PayoutState.EXPIRED),
}
JOURNEYS: Final = (
    *(
        Journey(
            "payout-decision",
            f"{name} {'after' if approved else 'before'} its approval",
            partial(play, end, state, approved=approved),
        )
        for name, (end, state) in ENDS.items()
        for approved in (False, True)
    ),
    Journey("payout-decision", "not covered", asks_for_too_much),
)
