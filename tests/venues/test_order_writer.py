"""Orders that are written in groups: each has its own result, and what goes wrong with one stays there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from kernel.db import create_engine, transact
from kernel.errors import BadInput, CausewayError, CommitUnknown
from tests.venues.test_complaints import POLICY, RESTS, WINDOW, Desk, desk_at
from venues import order_writer
from venues.account_state import halt
from venues.claims import LEASE
from venues.errors import AccountHalted, OrderConflict
from venues.model import (
    AccountMode,
    OrderState,
    OrderTicket,
    Placement,
    PlacementUnknown,
    VenueOrder,
)
from venues.order_writer import HELD_MAX, OrderWriter
from venues.orders import list_orders, resume, send
from venues.round_trips import OrderRows

Sent = VenueOrder | CausewayError | DBAPIError | None


class Dying:
    """A venue whose senders all die when they are about to send."""

    def __init__(self, desk: Desk) -> None:
        self._venue = desk.venue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    async def place(self, order: VenueOrder, *, after: Any = None) -> Placement:
        raise asyncio.CancelledError(order.client_order_id)


class Answering:
    """A venue that says yes when the books are held up already."""

    def __init__(self, desk: Desk, holding: Awaitable[asyncpg.Connection]) -> None:
        self._venue = desk.venue
        self._holding = holding
        self.admin: asyncpg.Connection
        self.has_answered = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    async def place(self, order: VenueOrder, *, after: Any = None) -> Placement:
        said: Placement = await self._venue.place(order, after=after)
        self.admin = await self._holding
        self.has_answered.set()
        return said


class Garbling:
    """A venue whose answer to the first order cannot be written down."""

    def __init__(self, desk: Desk) -> None:
        self._venue = desk.venue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    async def place(self, order: VenueOrder, *, after: Any = None) -> Placement:
        said: Placement = await self._venue.place(order, after=after)
        if order.intent == "want-0":
            return PlacementUnknown("\ud800")
        return said


async def sent(
    writer: OrderWriter, desk: Desk, ticket: OrderTicket, gateway: Any = None, **more: Any
) -> Sent:
    """Send an order; what came of it, or None if the sender died."""
    try:
        return await send(
            writer,
            gateway or desk.venue,
            ticket,
            recv_window=WINDOW,
            holder="t",
            reason="wanted",
            clock=desk.venue,
            **more,
        )
    except (CausewayError, DBAPIError) as error:
        return error
    except asyncio.CancelledError:
        return None


async def sent_at_once(
    writer: OrderWriter, desk: Desk, tickets: Iterable[OrderTicket], gateway: Any = None
) -> list[Sent]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sent(writer, desk, item, gateway)) for item in tickets]
    return [task.result() for task in tasks]


def tickets(desk: Desk, count: int) -> list[OrderTicket]:
    return [desk.ticket(f"want-{number}") for number in range(count)]


async def on_record(desk: Desk) -> list[VenueOrder]:
    async with desk.engine.connect() as conn:
        return await list_orders(conn, desk.venue.venue, desk.venue.account)


async def commits_of(engine: AsyncEngine) -> int:
    """Return how many transactions have written an order that is on record now."""
    async with engine.connect() as conn:
        return int(
            await conn.scalar(
                text("SELECT count(DISTINCT xmin::text) FROM kernel.history WHERE version = 1")
            )
            or 0
        )


async def test_orders_sent_at_once_share_their_commits(engine: AsyncEngine) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    async with OrderWriter(engine) as writer:
        results = await sent_at_once(writer, desk, tickets(desk, 16))

    orders = await on_record(desk)
    assert {order.state for order in orders} == {OrderState.ACKED}
    assert sorted(orders, key=lambda o: o.intent) == sorted(
        [item for item in results if isinstance(item, VenueOrder)], key=lambda o: o.intent
    )
    assert desk.venue.placements == len(orders) == 16
    assert await commits_of(engine) == 1
    assert [await desk.events(order) for order in orders] == [["OrderSubmitted", "OrderAcked"]] * 16


async def test_one_order_that_conflicts_harms_no_other_of_its_group(engine: AsyncEngine) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    await desk.send(desk.ticket("want-3", price="2999.00"))
    async with OrderWriter(engine) as writer:
        results = await sent_at_once(writer, desk, tickets(desk, 8))

    assert isinstance(results[3], OrderConflict)
    assert all(isinstance(item, VenueOrder) for n, item in enumerate(results) if n != 3)
    assert desk.venue.placements == len(await on_record(desk)) == 8
    assert await commits_of(engine) == 2  # the one before, and the group's


async def test_the_same_order_handed_in_twice_is_sent_once(engine: AsyncEngine) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    async with OrderWriter(engine) as writer:
        results = await sent_at_once(writer, desk, [desk.ticket()] * 6)

    assert {item.id for item in results if isinstance(item, VenueOrder)} == {
        order.id for order in await on_record(desk)
    }
    assert desk.venue.placements == 1


async def test_a_halted_account_stops_only_its_own_orders_of_a_group(engine: AsyncEngine) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    wanted = tickets(desk, 6)
    wanted[4] = desk.ticket("want-4", account="other")
    await transact(
        engine,
        lambda conn: halt(
            conn, desk.venue.venue, "other", reason="a test", actor="system:t", now=desk.venue.now()
        ),
    )
    async with OrderWriter(engine) as writer:
        results = await sent_at_once(writer, desk, wanted)

    assert isinstance(results[4], AccountHalted)
    assert desk.venue.placements == len(await on_record(desk)) == 5
    assert await desk.mode() is AccountMode.ACTIVE


async def test_senders_that_die_between_the_groups_commit_and_sending_have_sent_nothing(
    engine: AsyncEngine,
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    async with OrderWriter(engine) as writer:
        assert await sent_at_once(writer, desk, tickets(desk, 6), Dying(desk)) == [None] * 6

    assert {order.state for order in await on_record(desk)} == {OrderState.SUBMITTING}
    desk.venue.pass_time(LEASE)
    left = await resume(engine, desk.venue, holder="next", clock=desk.venue, policy=POLICY)
    assert not left
    assert [order.state for order in await on_record(desk)] == [OrderState.NOT_PLACED] * 6
    assert desk.venue.placements == 0


async def test_a_connection_lost_in_a_commit_is_unknown_to_each_of_the_group(
    engine: AsyncEngine, database: Database
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    wanted = tickets(desk, 5)
    async with OrderWriter(engine) as writer:
        await sent(writer, desk, wanted[0])
        async with held_up(database) as admin, asyncio.TaskGroup() as group:
            sending = group.create_task(sent_at_once(writer, desk, wanted[1:]))
            await ended_while_waiting(admin)
            results = await sending
        assert [type(item) for item in results] == [CommitUnknown] * 4
        assert [order.intent for order in await on_record(desk)] == ["want-0"]
        assert desk.venue.placements == 1

        again = await sent_at_once(writer, desk, wanted)
    assert {item.state for item in again if isinstance(item, VenueOrder)} == {OrderState.ACKED}
    assert desk.venue.placements == len(await on_record(desk)) == 5


@asynccontextmanager
async def held_up(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Let nobody write an event meanwhile."""
    admin = await asyncpg.connect(database.owner_url.replace("+asyncpg", ""))
    try:
        async with admin.transaction():
            await admin.execute("LOCK TABLE kernel.history IN SHARE MODE")
            yield admin
    finally:
        await admin.close()


async def waiting_for_the_lock(admin: asyncpg.Connection) -> int:
    """Return the process of the session that waits for the lock, once there is one."""
    pid: int | None = None
    while pid is None:
        await asyncio.sleep(0.01)
        await admin.execute("SELECT pg_stat_clear_snapshot()")
        pid = await admin.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND wait_event_type = 'Lock'"
        )
    return pid


async def ended_while_waiting(admin: asyncpg.Connection) -> None:
    """End the session that waits for the lock, once there is one."""
    await admin.fetchval("SELECT pg_terminate_backend($1)", await waiting_for_the_lock(admin))


async def test_whoever_goes_away_before_his_group_begins_leaves_nothing_and_holds_up_nobody(
    engine: AsyncEngine, database: Database
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    wanted = tickets(desk, 4)
    async with OrderWriter(engine) as writer, AsyncExitStack() as stack:
        admin = await stack.enter_async_context(held_up(database))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sent(writer, desk, wanted[0]))]
            await waiting_for_the_lock(admin)
            tasks += [group.create_task(sent(writer, desk, item)) for item in wanted[1:]]
            await asyncio.sleep(0.1)
            tasks[1].cancel()
            tasks[2].cancel()
            await stack.aclose()
    assert [task.result() for task in tasks[1:3]] == [None, None]

    assert {order.intent for order in await on_record(desk)} == {"want-0", "want-3"}
    assert desk.venue.placements == 2


async def test_whoever_goes_away_while_his_group_is_written_is_not_sent_and_harms_no_other(
    engine: AsyncEngine, database: Database
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    wanted = tickets(desk, 4)
    async with OrderWriter(engine) as writer:
        await sent(writer, desk, wanted[0])
        async with asyncio.TaskGroup() as group, held_up(database):
            tasks = [group.create_task(sent(writer, desk, item)) for item in wanted[1:]]
            await asyncio.sleep(0.1)
            tasks[0].cancel()
            await asyncio.sleep(0.1)

    assert tasks[0].result() is None
    assert desk.venue.placements == 3
    states = {order.intent: order.state for order in await on_record(desk)}
    assert states.pop("want-1") is OrderState.SUBMITTING
    assert states == dict.fromkeys(("want-0", "want-2", "want-3"), OrderState.ACKED)


async def test_a_yes_that_was_not_recorded_is_found_at_the_venue(
    engine: AsyncEngine, database: Database
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    async with OrderWriter(engine) as writer:
        await sent(writer, desk, desk.ticket("first"))
        async with AsyncExitStack() as stack:
            slow = Answering(desk, stack.enter_async_context(held_up(database)))
            answer = await sent(writer, desk, desk.ticket("second"), slow, is_recorded_later=True)
            assert isinstance(answer, VenueOrder)
            assert answer.state is OrderState.ACKED
            await ended_while_waiting(slow.admin)
            await writer.settled()

    states = {order.intent: order.state for order in await on_record(desk)}
    assert states == {"first": OrderState.ACKED, "second": OrderState.SUBMITTING}
    desk.venue.pass_time(LEASE)
    await resume(engine, desk.venue, holder="next", clock=desk.venue, policy=POLICY)
    assert {order.state for order in await on_record(desk)} == {OrderState.ACKED}
    assert desk.venue.placements == 2


async def test_what_has_to_be_recorded_plainly_waits_for_no_other(engine: AsyncEngine) -> None:
    desk = desk_at(engine)
    together, met = asyncio.Barrier(3), []

    async def meet() -> None:
        async with asyncio.timeout(10):
            met.append(await together.wait())

    async with OrderWriter(engine) as writer:
        for item in tickets(desk, 3):
            rows = OrderRows(item.order_id(desk.venue.now()), [], [])
            assert writer.writes_later(rows, otherwise=meet, about=item.intent)
        await writer.settled()
        assert len(met) == 3


async def test_a_pool_that_the_writer_would_hold_whole_is_refused(database: Database) -> None:
    small = create_engine(database.app_url, pool_size=HELD_MAX)
    with pytest.raises(BadInput):
        OrderWriter(small)
    OrderWriter(create_engine(database.app_url, pool_size=HELD_MAX + 1))


async def test_what_is_recorded_later_is_on_record_once_the_writer_is_settled(
    engine: AsyncEngine,
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    async with OrderWriter(engine) as writer:
        results = [
            await sent(writer, desk, item, is_recorded_later=True) for item in tickets(desk, 5)
        ]
        await writer.settled()
        assert await on_record(desk) == results
    assert [await desk.events(order) for order in await on_record(desk)] == [
        ["OrderSubmitted", "OrderAcked"]
    ] * 5


@pytest.mark.parametrize("is_settled", [True, False])
async def test_what_is_recorded_later_waits_for_company_and_no_longer_than_anybody_else_waits(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, *, is_settled: bool
) -> None:
    monkeypatch.setattr(order_writer, "LINGER", timedelta(hours=1))
    desk = desk_at(engine, conduct=lambda _: RESTS)
    async with OrderWriter(engine) as writer:
        for item in tickets(desk, 5):
            await sent(writer, desk, item, is_recorded_later=True)
        assert {order.state for order in await on_record(desk)} == {OrderState.SUBMITTING}
        if is_settled:
            await writer.settled()
            assert {order.state for order in await on_record(desk)} == {OrderState.ACKED}

    assert {order.state for order in await on_record(desk)} == {OrderState.ACKED}
    async with engine.connect() as conn:
        query = "SELECT count(DISTINCT xmin::text) FROM kernel.history WHERE version = 2"
        assert await conn.scalar(text(query)) == 1


async def test_whoever_sends_when_the_writer_is_closed_goes_the_plain_way(
    engine: AsyncEngine,
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    async with OrderWriter(engine) as writer:
        pass
    async with asyncio.timeout(30):
        results = [
            await sent(writer, desk, item, is_recorded_later=True) for item in tickets(desk, 3)
        ]
        await writer.settled()

    assert {item.state for item in results if isinstance(item, VenueOrder)} == {OrderState.ACKED}
    assert len(await on_record(desk)) == len(results) == desk.venue.placements == 3


async def test_nobody_waits_for_writing_that_was_ended_before_it_began(
    engine: AsyncEngine,
) -> None:
    """Whoever closes the writer is cancelled in the very turn in which somebody hands something in."""
    desk = desk_at(engine, conduct=lambda _: RESTS)
    order = await desk.intend(desk.ticket())
    nothing = OrderRows(order.id, [], [])
    writer, begun = OrderWriter(engine), list[asyncio.Future[bool]]()

    async def never() -> None:
        raise AssertionError(order.client_order_id)

    async def closing() -> None:
        async with writer:
            begun.append(
                writer.insert_sent(
                    order, holder="t", lease_until=order.created_at, actor="system:t"
                )
            )

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        ended = group.create_task(closing())
        await asyncio.sleep(0)
        ended.cancel()
        told = writer.write_sending(nothing)
        assert writer.writes_later(nothing, otherwise=never, about=order.client_order_id)
        with pytest.raises(asyncio.CancelledError):
            await ended
        assert await told is False
        assert isinstance(begun[0].exception(), CommitUnknown)
        await writer.settled()
        assert await writer.write_outcome(nothing) is False


async def test_an_answer_that_no_text_can_hold_harms_no_other_order_of_its_group(
    engine: AsyncEngine,
) -> None:
    """JSON can say half of a pair of surrogates, which is no character."""
    desk = desk_at(engine, conduct=lambda _: RESTS)
    async with OrderWriter(engine) as writer:
        results = await sent_at_once(writer, desk, tickets(desk, 4), Garbling(desk))
        assert isinstance(await sent(writer, desk, desk.ticket("next")), VenueOrder)

    assert [type(item) for item in results] == [DBAPIError, VenueOrder, VenueOrder, VenueOrder]
    states = {order.intent: order.state for order in await on_record(desk)}
    assert states.pop("want-0") is OrderState.SUBMITTING
    assert set(states.values()) == {OrderState.ACKED}
