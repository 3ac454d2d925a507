"""A death around each edge of the order machine: before its commit, after it, and after the outside act.

For every edge there is a life that takes it. The wait before which the edge is not on record and after
which it is, is searched for; the worker dies at both, and once right after the venue has acted. A fresh
worker then ends the order as the venue's truth says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.events import list_history
from tests.properties.dying import live
from tests.properties.test_venue_orders import POLICY, WINDOW, Lives, ticket
from venues.cancels import cancel
from venues.claims import LEASE
from venues.errors import VenueUnavailable
from venues.fills import collect
from venues.model import FINAL_STATES, ORDER_STATES, OrderState
from venues.orders import intend, resume, submit
from venues.testing import AT_ONCE, Call, Conduct, ScriptedVenue, Trouble

S = OrderState
WAITS_MAX = 600
NEAR = 12
FILLS_AT_ONCE = Conduct()
RESTS = Conduct(trades=())
FILLS_LATER = Conduct(trades=((timedelta(seconds=20), 100),))
PART_THEN_ALL = Conduct(trades=((AT_ONCE, 40), (timedelta(seconds=20), 60)))
PART_THEN_END = Conduct(trades=((AT_ONCE, 40),), ends_after=timedelta(seconds=20))
PART = Conduct(trades=((AT_ONCE, 40),))
ENDS = Conduct(trades=(), ends_after=timedelta(seconds=20))


@dataclass(frozen=True)
class Way:
    """A life that takes an edge: what goes wrong, what the order does, whether it is cancelled."""

    place: Trouble = Trouble.NONE
    conduct: Conduct = FILLS_AT_ONCE
    blind_for: int = 0
    cancels: bool = False
    sends: bool = True


WAYS: dict[tuple[OrderState, OrderState], Way] = {
    (S.INTENT, S.SUBMITTING): Way(),
    (S.INTENT, S.NOT_PLACED): Way(sends=False),
    (S.SUBMITTING, S.ACKED): Way(),
    (S.SUBMITTING, S.REFUSED): Way(place=Trouble.REFUSED),
    (S.SUBMITTING, S.UNKNOWN): Way(place=Trouble.LOST_ANSWER),
    (S.UNKNOWN, S.ACKED): Way(place=Trouble.LOST_ANSWER),
    (S.UNKNOWN, S.NOT_PLACED): Way(place=Trouble.LOST_REQUEST),
    (S.UNKNOWN, S.ESCALATED): Way(place=Trouble.LOST_ANSWER, conduct=RESTS, blind_for=5),
    (S.ESCALATED, S.ACKED): Way(place=Trouble.LOST_ANSWER, conduct=RESTS, blind_for=5),
    (S.ESCALATED, S.NOT_PLACED): Way(place=Trouble.LOST_REQUEST, blind_for=5),
    (S.ACKED, S.PARTIALLY_FILLED): Way(conduct=PART_THEN_ALL),
    (S.ACKED, S.FILLED): Way(conduct=FILLS_LATER),
    (S.ACKED, S.CANCELLED): Way(conduct=RESTS, cancels=True),
    (S.ACKED, S.EXPIRED): Way(conduct=ENDS),
    (S.PARTIALLY_FILLED, S.FILLED): Way(conduct=PART_THEN_ALL),
    (S.PARTIALLY_FILLED, S.CANCELLED): Way(conduct=PART, cancels=True),
    (S.PARTIALLY_FILLED, S.EXPIRED): Way(conduct=PART_THEN_END),
}
QUICK = replace(POLICY, looks_max=3, escalate_after=timedelta(seconds=45))
NUMBERS = count(1)


def test_every_edge_has_a_way() -> None:
    assert set(WAYS) == set(ORDER_STATES.edges)


class World:
    """One order at a scripted venue that goes a certain way."""

    def __init__(self, engine: AsyncEngine, way: Way) -> None:
        self.engine = engine
        self.way = way
        self.blind = way.blind_for
        self.place = iter([way.place])
        self.venue = ScriptedVenue(
            account=f"e{next(NUMBERS)}", trouble=self.trouble, conduct=lambda _: way.conduct
        )
        self.lives = Lives(engine, self.venue, [ticket(self.venue.account, 1)])

    def trouble(self, call: Call) -> Trouble:
        if call is Call.PLACE:
            return next(self.place, Trouble.NONE)
        return Trouble.LOST_REQUEST if self.blind > 0 else Trouble.NONE

    async def life(self) -> None:
        """Intend, submit, cancel if that is the way, and clear up while time passes."""
        order = await transact(
            self.engine,
            lambda conn: intend(
                conn,
                self.lives.tickets[0],
                capabilities=self.venue.capabilities,
                recv_window=WINDOW,
                actor="system:worker",
                reason="wanted",
                now=self.venue.now(),
            ),
        )
        if self.way.sends:
            await submit(self.engine, self.venue, order.id, holder="worker", clock=self.venue)
        for _ in range(self.way.blind_for + 2):
            self.venue.pass_time(timedelta(seconds=15))
            if self.way.cancels:
                await self._cancel()
            await resume(
                self.engine,
                self.venue,
                holder="worker",
                clock=self.venue,
                policy=replace(QUICK, escalated_pause=timedelta(0)),
                intents_older_than=timedelta(0),
            )
            self.blind -= 1
        try:
            await collect(self.engine, self.venue, "ETHUSDT", clock=self.venue)
        except VenueUnavailable:
            return

    async def _cancel(self) -> None:
        for order in await self.lives.orders():
            try:
                await cancel(self.engine, self.venue, order.id, holder="worker", clock=self.venue)
            except VenueUnavailable:
                continue

    async def edges(self) -> set[tuple[str, str]]:
        orders = await self.lives.orders()
        if not orders:
            return set()
        (order,) = orders
        async with self.engine.connect() as conn:
            history = await list_history(conn, "venue-order", order.id)
        return {(str(e.from_state), str(e.to_state)) for e in history}


async def died_at(engine: AsyncEngine, way: Way, wait: int | None) -> tuple[World, bool]:
    await engine.dispose()  # every life opens its connection, so that their waits are the same
    world = World(engine, way)
    died, _ = await live(world.life(), wait)
    return world, died


async def first_wait(
    engine: AsyncEngine, way: Way, holds: Callable[[World], Awaitable[bool]]
) -> int:
    """Return the first wait at whose death *holds* is so; it is so at every later one."""
    low, high = 1, 16
    while high < WAITS_MAX:
        world, died = await died_at(engine, way, high)
        if not died or await holds(world):
            break
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        world, died = await died_at(engine, way, middle)
        if not died or await holds(world):
            high = middle
        else:
            low = middle + 1
    return low


@pytest.mark.parametrize("edge", sorted(WAYS), ids=lambda edge: f"{edge[0]}-{edge[1]}")
async def test_a_death_around_an_edge_ends_with_the_venues_truth(
    engine: AsyncEngine, edge: tuple[OrderState, OrderState]
) -> None:
    way = WAYS[edge]
    wanted = (str(edge[0]), str(edge[1]))

    async def is_on_record(world: World) -> bool:
        return wanted in await world.edges()

    async def has_acted(world: World) -> bool:
        return world.venue.placements > 0

    committed = await first_wait(engine, way, is_on_record)
    for name, wait, expected in [
        ("before commit", committed - 1, False),
        ("after commit", committed, True),
    ]:
        world = await died_near(engine, way, wait, is_on_record, expected=expected)
        await goes_on(world, name)


async def test_a_death_right_after_the_venue_has_acted_ends_with_the_venues_truth(
    engine: AsyncEngine,
) -> None:
    async def has_acted(world: World) -> bool:
        return world.venue.placements > 0

    wait = await first_wait(engine, Way(), has_acted)
    for way in {way.place: way for way in WAYS.values() if way.sends}.values():
        world = await died_near(engine, way, wait, has_acted, expected=True)
        await goes_on(world, way.place.name)


async def died_near(
    engine: AsyncEngine,
    way: Way,
    wait: int,
    holds: Callable[[World], Awaitable[bool]],
    *,
    expected: bool,
) -> World:
    """Return a world whose worker died near *wait*, where *holds* is as expected.

    The count of waits differs by a few between lives: a connection is opened, a statement prepared.
    """
    for further in range(NEAR):
        nearby = max(1, wait + further if expected else wait - further)
        world, died = await died_at(engine, way, nearby)
        if died and await holds(world) is expected:
            return world
    raise AssertionError(f"no death near wait {wait} is as expected")


async def goes_on(world: World, name: str) -> None:
    """Let fresh workers go on and compare with the venue's truth."""
    world.venue.pass_time(LEASE)
    world.blind = 0
    for _ in range(2):
        await world.life()
        world.venue.pass_time(LEASE)

    (order,) = await world.lives.orders()
    assert order.state in FINAL_STATES or world.way.conduct is RESTS, name
    assert len(world.venue.orders) <= 1
    assert order.executed_units == sum(placed.executed for placed in world.venue.orders)
    if order.state in FINAL_STATES and world.venue.orders:
        assert str(order.state) == str(world.venue.orders[0].status)
