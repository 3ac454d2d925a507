"""What a venue did and a restored database does not know: found, booked once, never ordered again."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

import pytest
from msgspec import structs
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database, Server
from kernel.clock import SystemClock
from kernel.db import transact
from kernel.events import list_history
from marketdata.model import Instrument
from matching.model import TimeInForce
from tests.venues.conftest import QUICK, intended, ticket
from tests.venues.test_complaints import Desk
from venues.account_state import account_state, halt
from venues.ccxt.gateway import CcxtGateway
from venues.errors import AccountHalted
from venues.fills import collect, filled_units, list_fills
from venues.model import AccountMode, OrderState, VenueOrder
from venues.orders import order_on_record, resume, submit
from venues.records import BINANCE
from venues.restored import ACTOR, DOUBT_FOR, VenueRead, doubt, list_halted, read_again
from venues.simulator.testing import SimulatorProcess
from venues.store import STRAY
from venues.testing import ScriptedVenue

CLOCK = SystemClock()
S = OrderState


@dataclass
class SetBack:
    """An account at a simulated venue, and a copy of the database to come back to."""

    server: Server
    database: Database
    engine: AsyncEngine
    gateway: CcxtGateway
    sim: SimulatorProcess
    grid: Instrument
    copies: list[str] = field(default_factory=list)

    async def back_up(self) -> None:
        self.copies.append(f"causeway_backup_{secrets.token_hex(6)}")
        await self.engine.dispose()
        await self.server.execute(
            f'CREATE DATABASE "{self.copies[-1]}" TEMPLATE "{self.database.name}"'
            " STRATEGY file_copy"
        )

    async def restore(self) -> None:
        """Put the copy in the database's place, and let the restore be found."""
        name = self.database.name
        await self.engine.dispose()
        await self.server.execute(
            f'DROP DATABASE "{name}"',
            f'CREATE DATABASE "{name}" TEMPLATE "{self.copies[-1]}" STRATEGY file_copy',
        )
        await transact(self.engine, lambda conn: doubt(conn, now=CLOCK.now()))

    async def intended(self, key: str, **wanted: object) -> VenueOrder:
        return await intended(self.engine, ticket(self.grid, key, **wanted))  # type: ignore[arg-type]

    async def resting(self, key: str) -> VenueOrder:
        """Write down an order that rests at the venue once it is sent."""
        return await self.intended(key, price="2500", time_in_force=TimeInForce.GTC)

    async def send(self, order: VenueOrder) -> VenueOrder:
        return await submit(self.engine, self.gateway, order.id, holder="t", clock=CLOCK)

    async def read(self, *symbols: str) -> VenueRead:
        wanted = {*symbols}
        return await read_again(self.engine, self.gateway, wanted, clock=CLOCK)

    async def clear_up(self) -> list[VenueOrder]:
        """Do what whoever looks after the account does every turn."""
        return await resume(self.engine, self.gateway, holder="t", clock=CLOCK, policy=QUICK)

    async def get(self, order: VenueOrder) -> VenueOrder:
        return await transact(self.engine, lambda conn: order_on_record(conn, order.id))

    async def filled(self, order: VenueOrder) -> int:
        row = await self.get(order)
        return await transact(self.engine, lambda conn: filled_units(conn, row))

    async def trades(self) -> list[str]:
        found = await transact(
            self.engine, lambda conn: list_fills(conn, "sim", "desk", self.grid.symbol)
        )
        return sorted(item.trade_id for item in found)

    def statuses(self) -> dict[str, str]:
        """Return what the venue truly has, by client order id."""
        orders = self.sim.state()["accounts"]["desk"]["orders"]
        return {item["clientOrderId"]: item["status"] for item in orders}


@pytest.fixture
async def house(
    database_server: Server,
    database: Database,
    engine: AsyncEngine,
    gateway: CcxtGateway,
    sim: SimulatorProcess,
    grid: Instrument,
) -> AsyncIterator[SetBack]:
    made = SetBack(database_server, database, engine, gateway, sim, grid)
    yield made
    for name in made.copies:
        await database_server.execute(f'DROP DATABASE IF EXISTS "{name}"')


async def test_orders_that_stand_here_as_not_sent_are_found_and_not_sent_again(
    house: SetBack,
) -> None:
    quick, slow = await house.intended("quick"), await house.resting("slow")
    await house.back_up()
    assert (await house.send(quick)).state is S.FILLED
    assert (await house.send(slow)).state is S.ACKED
    there = house.statuses()

    await house.restore()

    for order in (quick, slow):
        assert (await house.get(order)).state is S.UNKNOWN
        assert (await house.send(order)).state is S.UNKNOWN
    first = await house.read()
    # A trade says whose it is; of what has none, whoever looks after the account asks.
    assert (first.unsettled, first.is_complete) == ((slow.client_order_id,), False)
    assert [item.state for item in await house.clear_up()] == [S.ACKED]
    assert (await house.read()).is_complete
    assert (await house.get(quick)).state is S.FILLED
    assert await house.filled(quick) == quick.base_units
    assert house.statuses() == there


async def test_an_order_that_is_open_there_and_missing_here_is_cancelled(house: SetBack) -> None:
    await house.back_up()
    lost = await house.send(await house.resting("lost"))
    assert lost.state is S.ACKED
    await house.restore()

    first = await house.read("ETHUSDT")
    again = await house.read("ETHUSDT")

    assert first.strangers == (lost.client_order_id,)
    assert not first.is_complete
    assert house.statuses() == {lost.client_order_id: "CANCELED"}
    assert again == VenueRead(new=0, unsettled=(), unread=0, strangers=())
    assert again.is_complete


async def test_an_order_that_was_given_up_here_and_is_open_there_is_cancelled(
    house: SetBack,
) -> None:
    order = await house.resting("one")
    await house.back_up()
    await house.send(order)
    name = house.database.name
    await house.engine.dispose()
    await house.server.execute(
        f'DROP DATABASE "{name}"',
        f'CREATE DATABASE "{name}" TEMPLATE "{house.copies[-1]}" STRATEGY file_copy',
    )
    # Somebody was quicker than the one who looks whether the database was set back.
    await resume(
        house.engine,
        house.gateway,
        holder="t",
        clock=CLOCK,
        policy=QUICK,
        intents_older_than=timedelta(0),
    )
    assert (await house.get(order)).state is S.NOT_PLACED
    await transact(house.engine, lambda conn: doubt(conn, now=CLOCK.now()))

    first = await house.read()

    assert first.strangers == (order.client_order_id,)
    assert house.statuses() == {order.client_order_id: "CANCELED"}


async def test_lost_trades_come_in_once_also_those_of_orders_that_are_lost(house: SetBack) -> None:
    order = await house.send(await house.intended("one"))
    await house.back_up()
    lost = await house.send(await house.intended("lost"))
    assert lost.state is S.FILLED
    await collect(house.engine, house.gateway, "ETHUSDT", clock=CLOCK)
    trades = await house.trades()
    assert len(trades) > 1
    await house.restore()
    assert await house.trades() == []

    read = await house.read()

    assert (read.new, read.is_complete) == (len(trades), True)
    assert await house.trades() == trades
    assert (await house.read()).new == 0
    assert await house.filled(order) == order.base_units
    found = await transact(
        house.engine, lambda conn: list_fills(conn, "sim", "desk", house.grid.symbol)
    )
    told = [
        await transact(house.engine, partial(list_history, entity_type=STRAY, entity_id=item.id))
        for item in found
    ]
    assert sum(map(len, told)) == len(trades) - 1


async def test_nothing_is_ordered_for_an_account_that_a_restore_has_halted(
    engine: AsyncEngine,
) -> None:
    desk = Desk(engine, ScriptedVenue())
    await desk.intend(desk.ticket())
    now = desk.venue.now()

    await transact(engine, lambda conn: doubt(conn, now=now))

    name, account = desk.venue.venue, desk.venue.account
    state = await transact(engine, lambda conn: account_state(conn, name, account))
    assert (state.mode, state.by) == (AccountMode.HALTED, ACTOR)
    assert await transact(engine, list_halted) == [(name, account)]
    with pytest.raises(AccountHalted, match="is halted"):
        await desk.intend(desk.ticket("two"))


async def test_an_account_that_was_halted_by_people_stays_halted_by_them(
    engine: AsyncEngine,
) -> None:
    desk = Desk(engine, ScriptedVenue())
    await desk.intend(desk.ticket())
    name, account, now = desk.venue.venue, desk.venue.account, desk.venue.now()
    by_ada = partial(halt, reason="dispute", actor="ada", now=now)
    await transact(engine, lambda conn: by_ada(conn, name, account))

    await transact(engine, lambda conn: doubt(conn, now=now))

    state = await transact(engine, lambda conn: account_state(conn, name, account))
    assert (state.mode, state.by, state.reason) == (AccountMode.HALTED, "ada", "dispute")
    assert await transact(engine, list_halted) == []


async def test_an_order_is_looked_for_from_when_it_was_asked_for_and_not_from_when_it_was_doubted(
    engine: AsyncEngine,
) -> None:
    """Venues without a question by client id list what has ended only from a moment on."""
    venue = ScriptedVenue(capabilities=replace(BINANCE, finds_by_client_id=False))
    desk = Desk(engine, venue)
    order = await desk.intend(desk.ticket())
    # The life that was lost: the order was sent, and filled at once.
    await venue.place(
        structs.replace(order, state=S.SUBMITTING, signed_at=venue.venue_time(venue.now()))
    )
    venue.pass_time(timedelta(hours=3))

    await transact(engine, lambda conn: doubt(conn, now=venue.now()))
    venue.pass_time(timedelta(minutes=10))
    found = await desk.resolve(order)

    assert (found.state, found.executed_units) == (S.FILLED, order.base_units)


async def test_an_order_that_never_was_ends_once_no_venue_takes_it_in_any_more(
    engine: AsyncEngine,
) -> None:
    venue = ScriptedVenue(venue_skew=timedelta(seconds=30))
    desk = Desk(engine, venue)
    order = await desk.intend(desk.ticket())
    venue.pass_time(timedelta(hours=3))

    await transact(engine, lambda conn: doubt(conn, now=venue.now()))
    early = await desk.resolve(order)
    venue.pass_time(DOUBT_FOR)
    late = await desk.resolve(early)

    assert (early.state, late.state) == (S.UNKNOWN, S.NOT_PLACED)
    assert venue.orders == []
