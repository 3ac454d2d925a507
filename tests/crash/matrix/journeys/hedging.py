"""Hedging: deals come and go, the hedger trades them away, fills are posted once each."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import SystemClock
from kernel.db import transact
from ledger.posting import open_book
from registry.changes import found
from registry.testing import demo_founding
from tests.crash.matrix.stage import Journey, Stage
from tests.properties import test_hedging
from trading.hedges.hedger import hedge_once
from trading.hedges.model import HedgeVerdict
from venues.claims import LEASE
from venues.testing import Conduct, Trouble

SEEDS: Final = (1, 2)
"""Of the deals and of what goes wrong at the venues."""
DEALS: Final = 3
PASSES_MAX: Final = 60
DONE: Final = frozenset({HedgeVerdict.FLAT, HedgeVerdict.BELOW_MINIMUM})


async def play(seed: int, stage: Stage) -> Any:
    mortal, random = stage.mortal, Random(seed)

    async def open_house(conn: AsyncConnection) -> None:
        await found(conn, demo_founding(), now=SystemClock().now())
        at = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
        await open_book(conn, test_hedging.BOOK, entity="causeway-desk", now=at)

    await transact(mortal.direct, open_house)
    venues = (
        test_hedging.scripted(random, "north", "main"),
        test_hedging.scripted(random, "south", "main"),
    )
    desk = test_hedging.Desk(mortal.engine, "desk", random, venues)
    mortal.pass_lease = partial(desk.clock.pass_time, LEASE)
    await desk.begin()

    async def hedge() -> HedgeVerdict:
        return (await hedge_once(desk.hedger, desk.name, "ETH")).verdict

    for _ in range(DEALS):
        await desk._deal()
        await mortal.act(hedge)
        await desk.check_never_too_much()
    for venue in venues:
        venue.trouble = lambda _: Trouble.NONE
        venue.conduct = lambda _: Conduct()
    # What is under way counts as hedged until the venue has said how it ended.
    desk.clock.pass_time(LEASE)
    for _ in range(PASSES_MAX):
        verdict = await mortal.act(hedge)
        await desk.check_never_too_much()
        if verdict in DONE:
            break
        desk.clock.pass_time(LEASE)
    await desk.check_at_the_end()


JOURNEYS: Final = tuple(Journey("hedge", f"seed {seed}", partial(play, seed)) for seed in SEEDS)
