"""What is heard late, or by a worker whose turn is over: the venue's word counts, conclusions do not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from tests.venues.sending import send_alone
from tests.venues.test_complaints import POLICY, RESTS, UNITS, Desk, always, desk_at, script
from venues.account_state import release
from venues.claims import LEASE, claim_order, write_claimed
from venues.errors import AccountNotClear
from venues.model import (
    AccountMode,
    OrderState,
    Placement,
    PlacementRefused,
    PlacementUnknown,
    VenueOrder,
    VenueStatus,
)
from venues.orders import ORDERS_MAX, resume
from venues.store import advance
from venues.testing import ScriptedVenue, Trouble
from venues.worst_case import Uncertainty

S = OrderState


class Paused:
    """A venue whose answer to a placement reaches a worker that slept meanwhile."""

    def __init__(self, venue: ScriptedVenue, word: Placement | None = None) -> None:
        self._venue = venue
        self._word = word
        self.sent = asyncio.Event()
        self.awake = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    async def place(self, order: VenueOrder, *, after: Any = None) -> Placement:
        answer = await self._venue.place(order, after=after)
        self.sent.set()
        await self.awake.wait()
        return self._word or answer


@dataclass(frozen=True)
class Late:
    """What became of an order whose sender slept while another worker resolved it."""

    desk: Desk
    word: VenueOrder
    """What the sender's call returned."""
    after: VenueOrder


async def slept(desk: Desk, word: Placement | None, *, denied: bool) -> Late:
    """Send, sleep beyond the lease while another worker resolves the order, and write at last."""
    paused: Any = Paused(desk.venue, word)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(
            send_alone(
                desk.engine,
                paused,
                desk.ticket(),
                recv_window=timedelta(seconds=3),
                holder="sleeper",
                reason="wanted",
                clock=desk.venue,
            )
        )
        await paused.sent.wait()
        desk.venue.pass_time(LEASE)
        if denied:
            desk.venue.denied |= {placed.order.client_order_id for placed in desk.venue.orders}
        await desk.resume()
        paused.awake.set()
    return Late(desk, sending.result(), await desk.read(sending.result()))


@pytest.mark.parametrize("word", [PlacementUnknown("no answer"), PlacementRefused("not like this")])
async def test_a_conclusion_of_a_worker_whose_turn_is_over_changes_nothing(
    engine: AsyncEngine, word: Placement
) -> None:
    """Nautilus #4215: what a late answer means was decided over what was known by then."""
    late = await slept(desk_at(engine, conduct=lambda _: RESTS), word, denied=False)

    assert late.word == late.after
    assert late.after.state is S.ACKED
    assert await late.desk.mode() is AccountMode.ACTIVE


async def test_the_venues_yes_counts_though_the_worker_that_heard_it_had_lost_its_turn(
    engine: AsyncEngine,
) -> None:
    """Hummingbot #8457: the venue had accepted the order, and its answer was thrown away."""
    late = await slept(desk_at(engine, conduct=lambda _: RESTS), None, denied=True)

    assert late.after.state is S.NOT_PLACED
    assert late.after.revived_at is not None
    assert late.after.venue_order_id == late.desk.venue.orders[0].venue_order_id
    assert await late.desk.bounds() == Uncertainty(low=0, high=UNITS)
    assert await late.desk.mode() is AccountMode.REDUCING


async def test_a_worker_whose_turn_is_over_concludes_nothing_and_ends_nobodys_claim(
    engine: AsyncEngine,
) -> None:
    """Two workers on one unknown order: the fence of the second keeps the first out."""
    desk = desk_at(engine, trouble=script(place=[Trouble.LOST_ANSWER]))
    order = await desk.send()
    first = await claim_order(engine, order.id, holder="first", now=desk.venue.now(), policy=POLICY)
    desk.venue.pass_time(LEASE)
    second = await claim_order(
        engine, order.id, holder="second", now=desk.venue.now(), policy=POLICY
    )
    assert first is not None
    assert second is not None

    after = await write_claimed(
        engine,
        first,
        lambda conn, row: advance(
            conn,
            row,
            S.NOT_PLACED,
            reason="so I thought",
            actor="system:first",
            now=desk.venue.now(),
        ),
    )

    third = await claim_order(engine, order.id, holder="third", now=desk.venue.now(), policy=POLICY)
    assert (after.state, third) == (S.UNKNOWN, None)


class Streamed:
    """A venue whose stream tells of an order before the answer to its placement is there."""

    def __init__(self, desk: Desk, word: Placement | None, executed: int) -> None:
        self._desk = desk
        self._word = word
        self._executed = executed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._desk.venue, name)

    async def place(self, order: VenueOrder, *, after: Any = None) -> Placement:
        answer = await self._desk.venue.place(order, after=after)
        await self._desk.report(order, VenueStatus.OPEN, self._executed)
        return self._word or answer


@pytest.mark.parametrize(
    ("word", "executed", "state", "mode"),
    [
        (None, 0, S.ACKED, AccountMode.ACTIVE),
        (None, UNITS // 2, S.PARTIALLY_FILLED, AccountMode.ACTIVE),
        (PlacementUnknown("-1007"), 0, S.ACKED, AccountMode.ACTIVE),
        (PlacementUnknown("-1007"), UNITS // 2, S.PARTIALLY_FILLED, AccountMode.ACTIVE),
        (PlacementRefused("not like this"), 0, S.ACKED, AccountMode.REDUCING),
    ],
)
async def test_an_order_that_the_stream_shows_while_it_is_sent_stays_shown(
    engine: AsyncEngine,
    word: Placement | None,
    executed: int,
    state: OrderState,
    mode: AccountMode,
) -> None:
    """Nautilus #4215: the acceptance came by the stream, then the request timed out."""
    desk = desk_at(engine, conduct=lambda _: RESTS)
    streamed: Any = Streamed(desk, word, executed)

    after = await send_alone(
        engine,
        streamed,
        desk.ticket(),
        recv_window=timedelta(seconds=3),
        holder="t",
        reason="wanted",
        clock=desk.venue,
    )

    assert after == await desk.read(after)
    assert (after.state, after.executed_units, await desk.mode()) == (state, executed, mode)
    assert desk.venue.placements == 1


async def test_a_cancel_that_succeeds_while_the_order_is_sent_is_on_record(
    engine: AsyncEngine,
) -> None:
    """Hummingbot #2501: cancel and placement cross on their ways."""
    desk = desk_at(engine, conduct=lambda _: RESTS)
    paused: Any = Paused(desk.venue, PlacementUnknown("no answer"))
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(
            send_alone(
                engine,
                paused,
                desk.ticket(),
                recv_window=timedelta(seconds=3),
                holder="sender",
                reason="wanted",
                clock=desk.venue,
            )
        )
        await paused.sent.wait()
        cancelled = await desk.cancel(desk.venue.orders[0].order)
        paused.awake.set()

    assert cancelled.state is S.CANCELLED
    assert sending.result().state is S.CANCELLED


async def test_a_queue_of_unknown_orders_at_a_mute_venue_reaches_a_person(
    engine: AsyncEngine,
) -> None:
    """Hummingbot #8454: an outage leaves many orders; none may wait for a person for ever."""
    desk = desk_at(engine, trouble=always(place=Trouble.LOST_ANSWER, clock=Trouble.LOST_ANSWER))
    for number in range(24):
        await desk.send(desk.ticket(f"want-{number}"))
    policy = replace(POLICY, patience=timedelta(seconds=5), looks_max=1)
    slow: Any = Slow(desk.venue)
    for _ in range(24 * 3):  # one order in a pass, every twenty seconds
        desk.venue.pass_time(timedelta(seconds=20))
        await resume(
            engine,
            slow,
            holder="t",
            clock=desk.venue,
            policy=policy,
        )

    async with engine.connect() as conn:
        states = (await conn.execute(text("SELECT state FROM venues.venue_order"))).scalars().all()
    assert set(states) == {"escalated"}
    assert await desk.mode() is AccountMode.REDUCING


class Slow:
    """A venue of which each question takes five seconds."""

    def __init__(self, venue: ScriptedVenue) -> None:
        self._venue = venue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    async def server_time(self) -> Any:
        self._venue.pass_time(timedelta(seconds=5))
        return await self._venue.server_time()


async def test_an_order_behind_two_hundred_open_ones_is_looked_after(
    engine: AsyncEngine,
) -> None:
    """Nautilus #4152: a worker that reads the first page of its orders only never sees the others."""
    desk = desk_at(engine, conduct=lambda _: RESTS)
    await desk.send(desk.ticket("model"))
    copies = text(
        "INSERT INTO venues.venue_order SELECT (jsonb_populate_record(o, jsonb_build_object("
        " 'id', gen_random_uuid(), 'client_order_id', 'c' || n, 'venue_order_id', 'v' || n,"
        " 'intent', 'i' || n, 'state', 'submitting'))).*"
        " FROM venues.venue_order o, generate_series(1, :many) n"
    )
    async with engine.begin() as conn:
        await conn.execute(copies, {"many": ORDERS_MAX})
        await conn.execute(
            text("UPDATE venues.venue_order SET state = 'acked' WHERE state <> 'acked'")
        )
    desk.venue.trouble = script(place=[Trouble.LOST_ANSWER])
    unknown = await desk.send(desk.ticket("unknown"))
    quick = replace(POLICY, patience=timedelta(minutes=5))

    for _ in range(2):
        await resume(engine, desk.venue, holder="t", clock=desk.venue, policy=quick)

    assert (await desk.read(unknown)).state is S.ACKED


async def test_an_account_with_trades_that_cannot_be_read_is_not_released(
    engine: AsyncEngine,
) -> None:
    """Nautilus #3775: what a trade did is not known, so neither is the position."""
    desk = desk_at(engine)
    await desk.send()
    desk.venue.unreadable.add(desk.venue.trades[0].trade_id)
    await desk.collect()

    async def released() -> None:
        await transact(
            engine,
            lambda conn: release(
                conn, "scripted", "desk", reason="fine", operator="ann", now=desk.venue.now()
            ),
        )

    with pytest.raises(AccountNotClear, match="cannot be read"):
        await released()
    desk.venue.unreadable.clear()
    await desk.collect()
    await released()

    assert await desk.mode() is AccountMode.ACTIVE
