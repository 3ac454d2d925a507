"""Orders under any faults and deaths: what is on record is what the venue did, to the last lot.

A scripted venue misbehaves by a seeded schedule while a worker sends orders, dies at some await and
is started anew. Whatever happens: of each intent at most one order ever exists at the venue, every
trade is recorded once, and every order ends by evidence.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from matching.model import Side, TimeInForce
from tests.properties.dying import live
from tests.venues.sending import send_alone
from venues.account_state import account_state
from venues.claims import LEASE
from venues.errors import AttemptRefused, VenueUnavailable
from venues.exposure import list_exposures
from venues.fills import collect, list_fills
from venues.lifecycle import ResolvePolicy
from venues.model import (
    FINAL_STATES,
    NEVER_PLACED_STATES,
    AccountMode,
    OrderState,
    OrderTicket,
    VenueOrder,
)
from venues.orders import list_orders, resume, submit, try_again
from venues.records import BINANCE, KRAKEN
from venues.testing import AT_ONCE, GRID, Call, Conduct, ScriptedVenue, Trouble
from venues.worst_case import uncertainty

SCHEDULES = {"dev": 25, "ci": 25, "soak": 3_000}[os.environ.get("CAUSEWAY_HYPOTHESIS", "dev")]
SEED = 20_260_105
pytestmark = pytest.mark.timeout(120 if SCHEDULES < 1_000 else 7_200)
LOTS = 100
WINDOW = timedelta(seconds=3)
POLICY = ResolvePolicy(
    margin=timedelta(seconds=1),
    not_founds=2,
    pause=timedelta(0),
    looks_max=60,
    patience=timedelta(seconds=12),
    escalate_after=timedelta(minutes=5),
)
LIVES_MAX = 40
S = OrderState


def ticket(account: str, number: int, *, kind: TimeInForce = TimeInForce.IOC) -> OrderTicket:
    return OrderTicket(
        venue="scripted",
        account=account,
        symbol="ETHUSDT",
        instrument_version=1,
        side=Side.BUY if number % 3 else Side.SELL,
        base_units=LOTS * GRID.lot,
        quantity=GRID.quantity_text(LOTS),
        price="3000.00",
        time_in_force=kind,
        reference="property",
        intent=f"want-{number}",
    )


PLACE_TROUBLES = [
    *[Trouble.NONE] * 4,
    *[Trouble.LOST_ANSWER] * 3,
    *[Trouble.LOST_REQUEST] * 2,
    *[Trouble.LATE_REQUEST] * 2,
    Trouble.REFUSED,
    Trouble.BACK_OFF,
    Trouble.CLOCK,
]
ASK_TROUBLES = [*[Trouble.NONE] * 8, *[Trouble.LOST_ANSWER] * 2, Trouble.STALE]
CONDUCTS = [
    Conduct(),
    Conduct(trades=((AT_ONCE, 40),), ends_after=timedelta(milliseconds=1)),
    Conduct(trades=(), ends_after=timedelta(milliseconds=1)),
    Conduct(trades=((AT_ONCE, 30), (timedelta(seconds=2), 70))),
    Conduct(trades=((timedelta(seconds=1), 50),), ends_after=timedelta(seconds=2)),
]


@dataclass
class Lives:
    """A worker that wants some orders and dies now and then, at a venue that misbehaves."""

    engine: AsyncEngine
    venue: ScriptedVenue
    tickets: list[OrderTicket]
    unknowns: Counter[OrderState] = field(default_factory=Counter)

    async def life(self) -> None:
        """Send what is wanted, try again what was not placed, clear up, collect."""
        for wanted in self.tickets:
            await self._want(wanted)
        await resume(
            self.engine,
            self.venue,
            holder="worker",
            clock=self.venue,
            policy=POLICY,
            intents_older_than=timedelta(0),
        )
        try:
            await collect(self.engine, self.venue, "ETHUSDT", clock=self.venue)
        except VenueUnavailable:
            return

    async def _want(self, wanted: OrderTicket) -> None:
        order = await send_alone(
            self.engine,
            self.venue,
            wanted,
            recv_window=WINDOW,
            holder="worker",
            reason="wanted",
            clock=self.venue,
        )
        if order.state in NEVER_PLACED_STATES:
            await self._again(order)

    async def _again(self, order: VenueOrder) -> None:
        """Try a want again: decided and written in one transaction, then sent."""
        try:
            again = await transact(
                self.engine,
                lambda conn: try_again(
                    conn,
                    order,
                    capabilities=self.venue.capabilities,
                    actor="system:worker",
                    reason="again",
                    now=self.venue.now(),
                ),
            )
        except AttemptRefused:
            return
        await submit(self.engine, self.venue, again.id, holder="worker", clock=self.venue)

    async def orders(self) -> list[VenueOrder]:
        async with self.engine.connect() as conn:
            return await list_orders(conn, self.venue.venue, self.venue.account)

    async def live_until_done(self, deaths: Callable[[int], int | None]) -> None:
        """Live again and again, dying as told, until a life leaves nothing open."""
        for number in range(LIVES_MAX):
            died, _ = await live(self.life(), deaths(number))
            self.venue.pass_time(LEASE)
            if not died and await self._is_done():
                return
        raise AssertionError(f"not done after {LIVES_MAX} lives: {await self.orders()}")

    async def _is_done(self) -> bool:
        orders = await self.orders()
        settled = all(o.state in FINAL_STATES or o.state is S.ESCALATED for o in orders)
        async with self.engine.connect() as conn:
            fills = await list_fills(conn, self.venue.venue, self.venue.account, "ETHUSDT")
        return settled and len(fills) == len(self.venue.trades)

    async def check(self) -> None:
        """Compare what is on record with the truth."""
        orders = await self.orders()
        by_id = {order.client_order_id: order for order in orders}
        true_ids = Counter(placed.order.client_order_id for placed in self.venue.orders)
        wants = Counter(by_id[name].intent for name in true_ids)

        assert [name for name, times in true_ids.items() if times > 1] == []
        assert [want for want, times in wants.items() if times > 1] == []
        assert {o.client_order_id for o in orders if o.state in NEVER_PLACED_STATES}.isdisjoint(
            true_ids
        )
        async with self.engine.connect() as conn:
            fills = await list_fills(conn, self.venue.venue, self.venue.account, "ETHUSDT")
            exposures = await list_exposures(conn, self.venue.venue, self.venue.account, "ETHUSDT")
            account = await account_state(conn, self.venue.venue, self.venue.account)
        assert sorted(fills, key=lambda f: int(f.trade_id)) == self.venue.trades
        filled: Counter[str] = Counter()
        for fill in fills:
            filled[fill.venue_order_id] += fill.base_units
        for placed in self.venue.orders:
            order = by_id[placed.order.client_order_id]
            assert order.executed_units == placed.executed == filled[placed.venue_order_id]
            assert str(order.state) == str(placed.status)
        bounds = uncertainty(exposures)
        booked = sum(f.base_units if f.side is Side.BUY else -f.base_units for f in fills)
        assert bounds.low == bounds.high == booked
        assert account.mode is AccountMode.ACTIVE


def scripted(random: Random, account: str, **options: Any) -> ScriptedVenue:
    return ScriptedVenue(
        account=account,
        trouble=lambda call: random.choice(PLACE_TROUBLES if call is Call.PLACE else ASK_TROUBLES),
        conduct=lambda _: random.choice(CONDUCTS),
        late_by=timedelta(seconds=random.choice([1, 2, 2.9, 3.5, 20])),
        settling=timedelta(milliseconds=random.choice([0, 300, 900])),
        venue_skew=timedelta(milliseconds=random.choice([-400, 0, 700])),
        **options,
    )


async def test_any_faults_and_deaths_end_with_the_venues_own_truth(
    engine: AsyncEngine, record_property: Callable[[str, object], None]
) -> None:
    counts: Counter[str] = Counter()
    for number in range(SCHEDULES):
        random = Random(SEED + number)
        venue = scripted(random, f"a{number}", capabilities=random.choice([BINANCE, KRAKEN]))
        lives = Lives(engine, venue, [ticket(venue.account, n) for n in range(3)])
        deaths = [random.randrange(1, 260) for _ in range(random.randrange(4))]

        await lives.live_until_done(lambda n, deaths=deaths: deaths[n] if n < len(deaths) else None)  # type: ignore[misc]

        await lives.check()
        for order in await lives.orders():
            counts["orders"] += 1
            counts["unknown"] += order.sought_since is not None
            counts["escalated"] += order.state is S.ESCALATED
    record_property("counts", f"scripted orders: {dict(counts)}")
    assert counts["unknown"] >= SCHEDULES // 2
    assert counts["escalated"] * 100 <= counts["unknown"]


EVERY = [Trouble.NONE, Trouble.LOST_ANSWER, Trouble.LOST_REQUEST, Trouble.BACK_OFF]


async def test_a_death_at_each_single_wait_changes_nothing(
    engine: AsyncEngine, record_property: Callable[[str, object], None]
) -> None:
    """Each wait of the worker is died at once; under the soak profile once with each trouble."""
    soak = os.environ.get("CAUSEWAY_HYPOTHESIS") == "soak"
    dying_at = deaths = survived = 0
    while survived < len(EVERY):  # the lives that meet other troubles are longer
        dying_at += 1
        for trouble in EVERY if soak else [EVERY[dying_at % len(EVERY)]]:
            account = f"d{dying_at}-{trouble.name}"
            first = iter([trouble])
            venue = ScriptedVenue(
                account=account,
                trouble=lambda call, first=first: (  # type: ignore[misc]
                    next(first, Trouble.NONE) if call is Call.PLACE else Trouble.NONE
                ),
                conduct=lambda _: CONDUCTS[1],
                settling=timedelta(milliseconds=300),
            )
            lives = Lives(engine, venue, [ticket(account, 1)])
            died, _ = await live(lives.life(), dying_at)
            venue.pass_time(LEASE)

            await lives.live_until_done(lambda _: None)

            await lives.check()
            survived = 0 if died else survived + 1
            deaths += died
    record_property("counts", f"deaths of an order worker: {deaths}")
    assert deaths > 40
