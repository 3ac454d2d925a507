"""Whatever becomes of senders and connections: sent is what is committed, at most once, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from kernel.db import transact
from kernel.errors import CausewayError
from tests.venues.test_complaints import RESTS, WINDOW, Desk, desk_at
from tests.venues.test_order_writer import on_record
from venues.errors import VenueUnavailable
from venues.intended import send_intended
from venues.model import OrderState, OrderTicket, Placement, PlacementRefused, VenueOrder
from venues.order_writer import OrderWriter
from venues.orders import intend, send

SENDERS: Final = 60
PATIENCE_S: Final = 60
LOSSES: Final = 4
UNSENT: Final = {OrderState.INTENT, OrderState.NOT_PLACED}


class Witness:
    """A venue that looks into the books whenever an order comes in, and whose senders dawdle or fail."""

    def __init__(self, desk: Desk, books: asyncpg.Connection, random: Random) -> None:
        self._venue = desk.venue
        self._books = books
        self._one_by_one = asyncio.Lock()
        self._random = random
        self.arrived: Counter[str] = Counter()
        self.states: set[str | None] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    async def place(self, order: VenueOrder, *, after: Any = None) -> Placement:
        await asyncio.sleep(self._random.uniform(0, 0.01))
        match self._random.randrange(12):
            case 0:
                return PlacementRefused("not sent: no turn")
            case 1:
                raise VenueUnavailable("no market", where="sim")
            case 2:
                raise asyncio.CancelledError
            case _:
                pass
        if after is not None:
            await after
        self.arrived[order.client_order_id] += 1
        async with self._one_by_one:
            state = "SELECT state FROM venues.venue_order WHERE id = $1"
            self.states.add(await self._books.fetchval(state, order.id))
        return await self._venue.place(order)


@asynccontextmanager
async def books_of(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.owner_url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


async def lose_connections(admin: asyncpg.Connection, random: Random) -> None:
    """End the sessions of those who write, now and then."""
    for _ in range(LOSSES):
        await asyncio.sleep(random.uniform(0, 0.05))
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND datname = current_database() AND query ~ '(written|advance_orders)'"
        )


async def intents_of(desk: Desk, wanted: list[OrderTicket]) -> list[VenueOrder]:
    return await transact(
        desk.engine,
        lambda conn: _intend(desk, conn, wanted),
    )


async def _intend(desk: Desk, conn: Any, wanted: list[OrderTicket]) -> list[VenueOrder]:
    return [
        await intend(
            conn,
            ticket,
            capabilities=desk.venue.capabilities,
            recv_window=WINDOW,
            actor="system:t",
            reason="wanted",
            now=desk.venue.now(),
        )
        for ticket in wanted
    ]


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_is_sent_is_committed_and_sent_once_whatever_becomes_of_senders_and_connections(
    engine: AsyncEngine, database: Database, seed: int
) -> None:
    random = Random(seed)
    desk = desk_at(engine, conduct=lambda _: RESTS)
    wanted = [desk.ticket(f"want-{number}") for number in range(SENDERS)]
    intents = await intents_of(desk, wanted[::3])
    told: Counter[str] = Counter()

    async with (
        books_of(database) as books,
        books_of(database) as admin,
        OrderWriter(engine) as writer,
        asyncio.timeout(PATIENCE_S),
    ):
        venue = Witness(desk, books, random)

        async def one(number: int) -> None:
            await asyncio.sleep(random.uniform(0, 0.1))
            later = random.random() < 0.5
            try:
                if number % 3 == 0:
                    intent = intents[number // 3]
                    (order,) = await send_intended(
                        writer,
                        venue,
                        [intent],
                        holder="t",
                        clock=desk.venue,
                        is_recorded_later=later,
                    )
                else:
                    order = await send(
                        writer,
                        venue,
                        wanted[number],
                        recv_window=WINDOW,
                        holder="t",
                        reason="wanted",
                        clock=desk.venue,
                        is_recorded_later=later,
                    )
                told[order.state] += 1
            except (CausewayError, DBAPIError, ExceptionGroup) as error:
                told[type(error).__name__] += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(lose_connections(admin, random))
            # Each order is wanted by two: by one of them who may go away.
            tasks = [group.create_task(one(n)) for n in range(SENDERS)]
            tasks += [group.create_task(one(n)) for n in range(0, SENDERS, 2)]
            for task in random.sample(tasks, len(tasks) // 3):
                await asyncio.sleep(random.uniform(0, 0.005))
                task.cancel()
        await writer.settled()

    orders = {order.client_order_id: order for order in await on_record(desk)}
    assert venue.arrived
    assert set(venue.arrived.values()) == {1}
    assert venue.states <= {"submitting"}
    assert all(orders[name].state not in UNSENT for name in venue.arrived)
    assert told[OrderState.ACKED]
