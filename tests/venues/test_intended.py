"""Orders that a decision wrote down together and that are sent together: each once, or not at all."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from uuid import UUID

import pytest
from msgspec import structs
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.databases import Database
from kernel.db import transact
from kernel.errors import BadInput, OutsideUnavailable
from tests.venues.test_complaints import POLICY, RESTS, WINDOW, Desk, desk_at
from tests.venues.test_order_writer import (
    Answering,
    Dying,
    ended_while_waiting,
    held_up,
    on_record,
    tickets,
)
from venues import intended as venues_intended
from venues.account_state import halt
from venues.claims import LEASE
from venues.intended import send_intended
from venues.model import OrderState, VenueOrder
from venues.order_writer import GROUP_MAX, OrderWriter
from venues.orders import intend, resume

S = OrderState


async def intended(desk: Desk, count: int) -> list[VenueOrder]:
    """Write intents in one transaction, as whoever decides on them does."""

    async def write(conn: AsyncConnection) -> list[VenueOrder]:
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
            for ticket in tickets(desk, count)
        ]

    return await transact(desk.engine, write)


async def sent(
    writer: OrderWriter, desk: Desk, orders: list[VenueOrder], *, later: bool = False
) -> list[VenueOrder]:
    return await send_intended(
        writer, desk.venue, orders, holder="t", clock=desk.venue, is_recorded_later=later
    )


async def commits_of(desk: Desk, version: int) -> int:
    async with desk.engine.connect() as conn:
        query = "SELECT count(DISTINCT xmin::text) FROM kernel.history WHERE version = :version"
        return int(await conn.scalar(text(query), {"version": version}) or 0)


async def test_intents_of_one_decision_are_sent_once_each_and_share_their_commits(
    engine: AsyncEngine,
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    orders = await intended(desk, 8)
    async with OrderWriter(engine) as writer:
        results = await sent(writer, desk, orders)

    assert [item.id for item in results] == [item.id for item in orders]
    assert {item.state for item in results} == {S.ACKED}
    assert sorted(results, key=lambda o: o.intent) == sorted(
        await on_record(desk), key=lambda o: o.intent
    )
    assert desk.venue.placements == 8
    assert await commits_of(desk, 1) == 1
    assert await commits_of(desk, 2) == 1
    for order in results:
        assert await desk.events(order) == ["OrderIntended", "OrderSubmitted", "OrderAcked"]


async def test_what_is_recorded_later_is_on_record_once_the_writer_is_settled(
    engine: AsyncEngine,
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    orders = await intended(desk, 4)
    async with OrderWriter(engine) as writer:
        results = await sent(writer, desk, orders, later=True)
        await writer.settled()
        assert {item.id: item for item in await on_record(desk)} == {
            item.id: item for item in results
        }


async def test_of_two_who_send_the_same_intents_one_sends_each(engine: AsyncEngine) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    orders = await intended(desk, 6)
    async with (
        OrderWriter(engine) as one,
        OrderWriter(engine) as other,
        asyncio.TaskGroup() as group,
    ):
        for writer in (one, other, one):
            group.create_task(sent(writer, desk, orders))

    assert desk.venue.placements == 6
    assert {order.state for order in await on_record(desk)} == {S.ACKED}


async def test_sent_again_they_are_returned_as_they_are(engine: AsyncEngine) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    orders = await intended(desk, 2)
    async with OrderWriter(engine) as writer:
        first = await sent(writer, desk, orders)
        stale = await sent(writer, desk, orders)
        known = await sent(writer, desk, first)

    assert first == stale == known
    assert desk.venue.placements == 2


async def test_intents_of_a_halted_account_are_ended_and_not_sent(engine: AsyncEngine) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    orders = await intended(desk, 3)
    await transact(
        engine,
        lambda conn: halt(
            conn,
            desk.venue.venue,
            desk.venue.account,
            reason="a test",
            actor="system:t",
            now=desk.venue.now(),
        ),
    )
    async with OrderWriter(engine) as writer:
        results = await sent(writer, desk, orders)

    assert {(item.state, item.state_reason) for item in results} == {
        (S.NOT_PLACED, "the account was halted before it was sent")
    }
    assert desk.venue.placements == 0


async def test_an_intent_that_was_given_up_is_not_sent(engine: AsyncEngine) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    orders = await intended(desk, 2)
    desk.venue.pass_time(LEASE)
    await resume(engine, desk.venue, holder="other", clock=desk.venue, policy=POLICY)
    async with OrderWriter(engine) as writer:
        results = await sent(writer, desk, orders)

    assert [item.state for item in results] == [S.NOT_PLACED] * 2
    assert desk.venue.placements == 0


@pytest.mark.parametrize("changed", ["version", "fence"])
async def test_an_intent_that_was_touched_goes_the_plain_way(
    engine: AsyncEngine, changed: str
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    (order,) = await intended(desk, 1)
    before = structs.replace(order, **{changed: getattr(order, changed) + 5})
    async with OrderWriter(engine) as writer:
        (result,) = await sent(writer, desk, [before])

    assert (result.state, result.fence, result.version) == (S.ACKED, 1, 3)
    assert await desk.events(order) == ["OrderIntended", "OrderSubmitted", "OrderAcked"]
    assert desk.venue.placements == 1


async def test_senders_that_die_between_the_commit_and_sending_have_sent_nothing(
    engine: AsyncEngine,
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    orders = await intended(desk, 3)
    async with OrderWriter(engine) as writer, asyncio.TaskGroup() as group:
        dying = Dying(desk)
        for order in orders:
            group.create_task(send_intended(writer, dying, [order], holder="t", clock=desk.venue))

    assert {order.state for order in await on_record(desk)} == {S.SUBMITTING}
    desk.venue.pass_time(LEASE)
    await resume(engine, desk.venue, holder="next", clock=desk.venue, policy=POLICY)
    assert {order.state for order in await on_record(desk)} == {S.NOT_PLACED}
    assert desk.venue.placements == 0


async def test_what_a_lost_connection_leaves_is_an_intent_that_was_not_sent(
    engine: AsyncEngine, database: Database
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    orders = await intended(desk, 2)
    async with OrderWriter(engine) as writer, AsyncExitStack() as stack:
        admin = await stack.enter_async_context(held_up(database))
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(sent(writer, desk, orders))
            await ended_while_waiting(admin)
        assert sending.result() == orders

    assert [order.state for order in await on_record(desk)] == [S.INTENT] * 2
    assert desk.venue.placements == 0


async def test_an_order_that_was_sent_is_never_returned_as_an_intent(
    engine: AsyncEngine, database: Database
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    (order,) = await intended(desk, 1)
    async with OrderWriter(engine) as writer, AsyncExitStack() as stack:
        slow = Answering(desk, stack.enter_async_context(held_up(database)))
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(
                send_intended(writer, slow, [order], holder="t", clock=desk.venue)
            )
            await slow.has_answered.wait()
            await ended_while_waiting(slow.admin)
        (found,) = sending.result()

    assert desk.venue.placements == 1
    assert (found.state, found.fence) == (S.SUBMITTING, 1)
    assert await on_record(desk) == [found]


async def test_a_database_that_is_gone_for_one_order_does_not_stop_the_others(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    orders = await intended(desk, 3)

    async def gone(
        engine: AsyncEngine, gateway: object, order_id: UUID, **more: object
    ) -> VenueOrder:
        raise OutsideUnavailable("every connection is in use")

    monkeypatch.setattr(venues_intended, "submit", gone)
    touched = structs.replace(orders[0], version=orders[0].version + 5)
    async with OrderWriter(engine) as writer:
        results = await sent(writer, desk, [touched, *orders[1:]])

    assert results[0] == touched
    assert [item.state for item in results[1:]] == [S.ACKED] * 2
    assert desk.venue.placements == 2


async def test_orders_of_others_given_twice_or_too_many_are_refused(engine: AsyncEngine) -> None:
    desk = desk_at(engine, conduct=lambda _: RESTS)
    (order,) = await intended(desk, 1)
    many = [
        structs.replace(order, id=desk.ticket(f"n{n}").order_id(desk.venue.now()))
        for n in range(101)
    ]
    assert len(many) == GROUP_MAX + 1
    async with OrderWriter(engine) as writer:
        for wrong in ([order, order], [structs.replace(order, account="other")], many):
            with pytest.raises(BadInput):
                await sent(writer, desk, wrong)

    assert desk.venue.placements == 0
