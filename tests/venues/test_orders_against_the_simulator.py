"""Orders through the unmodified ccxt class against a venue that misbehaves by schedule.

Whatever happens: at most one order of ours exists at the venue, and what is on record is what the
venue did. The venue's own truth is read from its control endpoint.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import ManualClock, SystemClock
from kernel.db import transact
from kernel.events import list_history
from marketdata.model import Instrument
from matching.model import TimeInForce
from tests.venues.conftest import (
    KILLED,
    QUICK,
    gateway_settings,
    intended,
    ticket,
)
from venues.account_state import account_state
from venues.cancels import cancel
from venues.ccxt.gateway import CcxtGateway, open_gateway
from venues.claims import LEASE
from venues.errors import OrderConflict, VenueUnavailable
from venues.exposure import list_exposures
from venues.fills import Collected, begin_history, collect, filled_units, list_fills, record_fills
from venues.model import AccountMode, OrderState, Placement, PlacementUnknown, VenueFill, VenueOrder
from venues.orders import list_orders, refresh, resolve, resume, submit
from venues.simulator.testing import SimulatorProcess
from venues.streams.binance import BinanceStream
from venues.streams.model import FillSeen
from venues.worst_case import Uncertainty, uncertainty

CLOCK = SystemClock()
ORDER_PATH = "/api/v3/order"
S = OrderState

LANDS = [
    "hang_after_accept",
    "reset_after_accept",
    "status_503_after_accept",
    "html_502_after_accept",
    "html_504_after_accept",
    "timeout_1007_after_accept",
    "unexpected_1006_after_accept",
    "truncated_200",
]
DOES_NOT_LAND = ["hang_before_accept", "reset_before", "status_503", "html_504"]
IS_REFUSED = ["rate_limited_429", "banned_418"]


def truth(sim: SimulatorProcess) -> dict[str, Any]:
    account: dict[str, Any] = sim.state()["accounts"]["desk"]
    return account


def ours(sim: SimulatorProcess, order: VenueOrder) -> list[Any]:
    return [o for o in truth(sim)["orders"] if o["clientOrderId"] == order.client_order_id]


async def placed(engine: AsyncEngine, gateway: CcxtGateway, order: VenueOrder) -> VenueOrder:
    """Submit, and clear up what is not known, as the hedger does."""
    after = await submit(engine, gateway, order.id, holder="t", clock=CLOCK)
    if after.state is S.UNKNOWN:
        after = await resolve(engine, gateway, order.id, holder="t", clock=CLOCK, policy=QUICK)
    return after


async def collected(engine: AsyncEngine, gateway: CcxtGateway) -> Collected:
    return await collect(engine, gateway, "ETHUSDT", clock=CLOCK)


async def filled(engine: AsyncEngine, order: VenueOrder) -> int:
    return await transact(engine, lambda conn: filled_units(conn, order))


async def test_an_order_is_placed_filled_and_its_fills_add_up(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    order = await intended(engine, ticket(grid))

    after = await placed(engine, gateway, order)
    found = await collected(engine, gateway)

    assert after.state is S.FILLED
    assert after.executed_units == order.base_units == await filled(engine, after)
    assert (found.incomplete, found.new) == ((), len(truth(sim)["fills"]))
    assert ours(sim, order)[0]["status"] == "FILLED"
    async with engine.connect() as conn:
        history = await list_history(conn, "venue-order", order.id)
    assert [event.to_state for event in history] == ["intent", "submitting", "acked", "filled"]


@pytest.mark.parametrize("fault", LANDS)
async def test_an_order_that_landed_unseen_is_found_and_counted_once(
    engine: AsyncEngine,
    gateway: CcxtGateway,
    grid: Instrument,
    sim: SimulatorProcess,
    fault: str,
) -> None:
    order = await intended(engine, ticket(grid))
    sim.fault(fault, ORDER_PATH, method="POST", seconds=6)

    after = await placed(engine, gateway, order)
    await collected(engine, gateway)

    assert after.state is S.FILLED
    assert len(truth(sim)["orders"]) == 1
    assert await filled(engine, after) == order.base_units


@pytest.mark.parametrize("fault", DOES_NOT_LAND)
async def test_an_order_that_did_not_land_is_shown_not_to_exist(
    engine: AsyncEngine,
    gateway: CcxtGateway,
    grid: Instrument,
    sim: SimulatorProcess,
    fault: str,
) -> None:
    order = await intended(engine, ticket(grid))
    sim.fault(fault, ORDER_PATH, method="POST", seconds=6)

    after = await placed(engine, gateway, order)

    assert after.state is S.NOT_PLACED
    assert truth(sim)["orders"] == []


@pytest.mark.parametrize("fault", IS_REFUSED)
async def test_a_refusal_is_final_at_once(
    engine: AsyncEngine,
    gateway: CcxtGateway,
    grid: Instrument,
    sim: SimulatorProcess,
    fault: str,
) -> None:
    order = await intended(engine, ticket(grid))
    sim.fault(fault, ORDER_PATH, method="POST")

    after = await submit(engine, gateway, order.id, holder="t", clock=CLOCK)

    assert after.state is S.REFUSED
    assert truth(sim)["orders"] == []


async def test_too_little_money_is_a_refusal(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    sim.control("POST", "balance", {"asset": "USDT", "free": "10"})
    order = await intended(engine, ticket(grid))

    after = await submit(engine, gateway, order.id, holder="t", clock=CLOCK)

    assert after.state is S.REFUSED
    assert "insufficient" in after.state_reason


class LateGateway:
    """A gateway whose order is on its way for so long that nobody waits for its answer."""

    def __init__(self, inner: CcxtGateway) -> None:
        self._inner = inner
        self.under_way: list[VenueOrder] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def place(self, order: VenueOrder, *, after: Any = None) -> Placement:
        self.under_way.append(order)
        return PlacementUnknown("no answer")


async def test_an_order_that_lands_late_but_in_time_is_not_given_up(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    """The venue accepts it after we stopped waiting, and before its window is over."""
    late: Any = LateGateway(gateway)
    few = replace(QUICK, looks_max=QUICK.not_founds + 1)
    order = await intended(engine, ticket(grid), recv_window=timedelta(seconds=60))

    given_up = await submit(engine, late, order.id, holder="t", clock=CLOCK)
    missed = await resolve(engine, gateway, order.id, holder="t", clock=CLOCK, policy=few)
    (under_way,) = late.under_way
    await gateway.place(under_way)
    after = await resolve(engine, gateway, order.id, holder="t", clock=CLOCK, policy=QUICK)

    assert [given_up.state, missed.state, after.state] == [S.UNKNOWN, S.UNKNOWN, S.FILLED]
    assert len(truth(sim)["orders"]) == 1


async def test_a_wrong_clock_is_refused_measured_and_then_right(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    sim.control("POST", "clock", {"skew_ms": 60_000})
    first = await placed(engine, gateway, await intended(engine, ticket(grid, "first")))
    second = await placed(engine, gateway, await intended(engine, ticket(grid, "second")))

    assert first.state is S.REFUSED
    assert second.state is S.FILLED


async def test_while_the_venue_does_not_answer_an_order_stays_unknown(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    order = await intended(engine, ticket(grid))
    sim.fault("reset_before", ORDER_PATH, method="POST")
    sim.fault("status_503", "/api/v3", method="GET", count=1_000)

    after = await submit(engine, gateway, order.id, holder="t", clock=CLOCK)
    policy = replace(QUICK, looks_max=8)
    still = await resolve(engine, gateway, order.id, holder="t", clock=CLOCK, policy=policy)
    old = replace(policy, escalate_after=timedelta(0), looks_max=1)
    escalated = await resolve(engine, gateway, order.id, holder="t", clock=CLOCK, policy=old)
    sim.control("DELETE", "faults")
    (left,) = await resume(
        engine, gateway, holder="t", clock=CLOCK, policy=replace(QUICK, looks_max=1)
    )
    await resume(engine, gateway, holder="t", clock=CLOCK, policy=QUICK)
    async with engine.connect() as conn:
        (at_last,) = await list_orders(conn, "sim", "desk")

    assert [after.state, still.state, escalated.state] == [S.UNKNOWN, S.UNKNOWN, S.ESCALATED]
    assert left.state is S.ESCALATED
    assert at_last.state is S.NOT_PLACED


class MuteGateway:
    """A gateway to a venue that lets every query run into its timeout, on a clock of its own."""

    def __init__(self, inner: CcxtGateway, clock: ManualClock) -> None:
        self._inner = inner
        self._clock = clock
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def server_time(self) -> datetime:
        self.asked += 1
        self._clock.advance(timedelta(seconds=5))
        raise VenueUnavailable("timeout", where="sim")

    async def place(self, order: VenueOrder, *, after: Any = None) -> Placement:
        return PlacementUnknown(f"no answer about {order.client_order_id}")


async def test_a_venue_that_only_times_out_does_not_hold_a_pass_for_minutes(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument
) -> None:
    clock = ManualClock(CLOCK.now())
    mute: Any = MuteGateway(gateway, clock)
    for key in ("a", "b", "c"):
        order = await intended(engine, ticket(grid, key))
        await submit(engine, mute, order.id, holder="t", clock=clock)
    began = clock.now()
    policy = replace(QUICK, patience=timedelta(seconds=10), pause=timedelta(0))

    left = await resume(engine, mute, holder="t", clock=clock, policy=policy)

    assert [order.state for order in left] == [S.UNKNOWN] * 3
    assert clock.now() - began == timedelta(seconds=10)
    assert mute.asked == 2


class BlindGateway:
    """A gateway to a venue that takes an order and for a while says that it has none."""

    def __init__(self, inner: CcxtGateway) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def place(self, order: VenueOrder, *, after: Any = None) -> Placement:
        await self._inner.place(order, after=after)
        return PlacementUnknown("no answer")

    async def find_order(self, order: VenueOrder) -> None:
        return None

    async def list_orders(self, symbol: str, since: datetime) -> list[Any]:
        return []


async def names_of(engine: AsyncEngine, order: VenueOrder) -> list[str]:
    async with engine.connect() as conn:
        return [event.name for event in await list_history(conn, "venue-order", order.id)]


async def test_a_trade_of_an_order_taken_for_not_placed_is_told_and_counted(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument
) -> None:
    """The venue denied the order as often as we asked, and traded it all the same."""
    blind: Any = BlindGateway(gateway)
    order = await intended(engine, ticket(grid))
    await submit(engine, blind, order.id, holder="t", clock=CLOCK)
    denied = await resolve(engine, blind, order.id, holder="t", clock=CLOCK, policy=QUICK)

    await collected(engine, gateway)
    again = await collected(engine, gateway)

    async with engine.connect() as conn:
        (after,) = await list_orders(conn, "sim", "desk")
    assert denied.state is after.state is S.NOT_PLACED
    assert after.executed_units == order.base_units == await filled(engine, after)
    assert again.incomplete == ()
    assert (await names_of(engine, order)).count("OrderTradedLate") == 1


async def test_a_living_order_that_the_venue_denied_in_every_answer_is_counted_and_taken_back(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    resting = ticket(grid, price="2000", time_in_force=TimeInForce.GTC)
    order = await intended(engine, resting)
    sim.fault("withhold_order", ORDER_PATH, method="POST", seconds=60)
    denied = await placed(engine, gateway, order)
    still = await refresh(engine, gateway, order.id, holder="t", clock=CLOCK)
    sim.control("DELETE", "withhold")

    shown = await refresh(engine, gateway, order.id, holder="t", clock=CLOCK)
    async with engine.connect() as conn:
        bounds = uncertainty(await list_exposures(conn, "sim", "desk", "ETHUSDT"))
        account = await account_state(conn, "sim", "desk")
    left = await resume(engine, gateway, holder="t", clock=CLOCK, policy=QUICK)

    assert (denied.state, still.revived_at, denied.version) == (S.NOT_PLACED, None, still.version)
    assert shown.revived_at is not None
    assert bounds == Uncertainty(low=0, high=order.base_units)
    assert account.mode is AccountMode.REDUCING
    assert (await names_of(engine, order))[-2:] == ["OrderRevived", "OrderLaidToRest"]
    assert (left, ours(sim, order)[0]["status"]) == ([], "CANCELED")


async def test_a_trade_settles_an_order_of_unknown_outcome(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument
) -> None:
    blind: Any = BlindGateway(gateway)
    order = await intended(engine, ticket(grid))
    unknown = await submit(engine, blind, order.id, holder="t", clock=CLOCK)

    await collected(engine, gateway)

    async with engine.connect() as conn:
        (after,) = await list_orders(conn, "sim", "desk")
    assert (unknown.state, after.state) == (S.UNKNOWN, S.FILLED)
    assert "OrderTradedLate" not in await names_of(engine, order)


async def test_a_fill_after_the_cancel_is_told(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument
) -> None:
    resting = ticket(grid, price="2000", time_in_force=TimeInForce.GTC)
    order = await intended(engine, resting)
    await submit(engine, gateway, order.id, holder="t", clock=CLOCK)
    after = await cancel(engine, gateway, order.id, holder="t", clock=CLOCK)
    await placed(engine, gateway, await intended(engine, ticket(grid, "model")))
    (model, *_) = (await gateway.fills("ETHUSDT", "")).fills
    assert after.venue_order_id is not None
    late = replace(model, trade_id="999999", venue_order_id=after.venue_order_id)

    for _ in range(2):
        await transact(
            engine, lambda conn: record_fills(conn, [late], source="stream", now=CLOCK.now())
        )

    assert (await names_of(engine, order)).count("OrderTradedLate") == 1


async def test_a_trade_that_no_order_of_ours_made_is_told_once(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument
) -> None:
    model = await intended(engine, ticket(grid, "model"))
    strange = structs.replace(
        model, client_order_id="by-hand", signed_at=gateway.venue_time(CLOCK.now())
    )
    await gateway.place(strange)

    await collected(engine, gateway)
    await transact(
        engine,
        lambda conn: begin_history(conn, "sim", "desk", "ETHUSDT", cursor="", now=CLOCK.now()),
    )
    await collected(engine, gateway)

    async with engine.connect() as conn:
        fills = await list_fills(conn, "sim", "desk", "ETHUSDT")
        told = [await list_history(conn, "venue-fill", fill.id) for fill in fills]
    assert fills
    assert [[event.name for event in events] for events in told] == [["FillOfNoOrder"]] * len(fills)


@KILLED
async def test_the_venue_killed_while_it_answers_ends_with_one_order(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    order = await intended(engine, ticket(grid))
    sim.fault("hang_after_accept", ORDER_PATH, method="POST", seconds=30)

    async with asyncio.TaskGroup() as group:
        sending = group.create_task(submit(engine, gateway, order.id, holder="t", clock=CLOCK))
        async with asyncio.timeout(20):
            while not (await asyncio.to_thread(truth, sim))["orders"]:  # noqa: ASYNC110  another process
                await asyncio.sleep(0.02)
        await asyncio.to_thread(sim.kill)
    unknown = sending.result()
    down = await resolve(
        engine, gateway, order.id, holder="t", clock=CLOCK, policy=replace(QUICK, looks_max=3)
    )
    await asyncio.to_thread(sim.start)
    after = await resolve(engine, gateway, order.id, holder="t", clock=CLOCK, policy=QUICK)
    await collected(engine, gateway)

    assert (unknown.state, down.state, after.state) == (S.UNKNOWN, S.UNKNOWN, S.FILLED)
    assert len(truth(sim)["orders"]) == 1
    assert await filled(engine, after) == order.base_units


class Dies(Exception):
    """Our own process ends here."""


class DyingGateway:
    """A gateway in a process that ends right before or right after it sends an order."""

    def __init__(self, inner: CcxtGateway, *, after_sending: bool) -> None:
        self._inner = inner
        self._after_sending = after_sending

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def place(self, order: VenueOrder, *, after: Any = None) -> Placement:
        if self._after_sending:
            await self._inner.place(order, after=after)
        raise Dies


@pytest.mark.parametrize(("after_sending", "expected"), [(True, S.FILLED), (False, S.NOT_PLACED)])
async def test_a_crash_around_sending_is_cleared_up_by_the_next_start(
    engine: AsyncEngine,
    gateway: CcxtGateway,
    grid: Instrument,
    sim: SimulatorProcess,
    after_sending: bool,  # noqa: FBT001  a row of the table
    expected: OrderState,
) -> None:
    order = await intended(engine, ticket(grid))
    dying: Any = DyingGateway(gateway, after_sending=after_sending)
    with pytest.raises(Dies):
        await submit(engine, dying, order.id, holder="first", clock=CLOCK)

    during = await resume(engine, gateway, holder="second", clock=CLOCK, policy=QUICK)
    later = ManualClock(CLOCK.now() + LEASE)
    left = await resume(engine, gateway, holder="second", clock=later, policy=QUICK)

    assert [o.state for o in during] == [S.SUBMITTING]  # its sender may still be at work
    assert left == []
    async with engine.connect() as conn:
        (after,) = await list_orders(conn, "sim", "desk")
    assert after.state is expected
    assert len(truth(sim)["orders"]) == (1 if expected is S.FILLED else 0)


class SlowGateway:
    """A gateway of a worker that is paused after sending and wakes up without an answer."""

    def __init__(self, inner: CcxtGateway) -> None:
        self._inner = inner
        self.sent = asyncio.Event()
        self.awake = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def place(self, order: VenueOrder, *, after: Any = None) -> Placement:
        await self._inner.place(order, after=after)
        self.sent.set()
        await self.awake.wait()
        return PlacementUnknown("paused too long")


async def test_a_worker_that_wakes_up_after_its_lease_changes_nothing(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument
) -> None:
    order = await intended(engine, ticket(grid))
    slow: Any = SlowGateway(gateway)

    async with asyncio.TaskGroup() as group:
        first = group.create_task(submit(engine, slow, order.id, holder="first", clock=CLOCK))
        await slow.sent.wait()
        later = ManualClock(CLOCK.now() + LEASE)
        await resume(engine, gateway, holder="second", clock=later, policy=QUICK)
        slow.awake.set()

    assert first.result().state is S.FILLED


async def test_an_intent_that_nobody_sent_is_given_up_and_never_sent(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    order = await intended(engine, ticket(grid))
    young = await resume(engine, gateway, holder="t", clock=CLOCK, policy=QUICK)
    later = ManualClock(CLOCK.now() + LEASE)
    await resume(engine, gateway, holder="t", clock=later, policy=QUICK)

    after = await submit(engine, gateway, order.id, holder="t", clock=CLOCK)

    assert [o.state for o in young] == [S.INTENT]
    assert after.state is S.NOT_PLACED
    assert truth(sim)["orders"] == []


async def test_of_many_that_submit_one_sends(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    order = await intended(engine, ticket(grid))

    async with asyncio.TaskGroup() as group:
        for n in range(4):
            group.create_task(submit(engine, gateway, order.id, holder=f"t{n}", clock=CLOCK))

    assert len(truth(sim)["orders"]) == 1


async def test_the_same_ticket_is_the_same_order_and_other_content_is_refused_by_field(
    engine: AsyncEngine, grid: Instrument
) -> None:
    first = await intended(engine, ticket(grid))

    assert (await intended(engine, ticket(grid))).id == first.id
    with pytest.raises(OrderConflict, match="price"):
        await intended(engine, ticket(grid, price="3050"))


async def test_a_resting_order_can_be_cancelled(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    resting = ticket(grid, price="2000", time_in_force=TimeInForce.GTC)
    order = await intended(engine, resting)

    acked = await submit(engine, gateway, order.id, holder="t", clock=CLOCK)
    after = await cancel(engine, gateway, order.id, holder="t", clock=CLOCK)

    assert (acked.state, after.state) == (S.ACKED, S.CANCELLED)
    assert ours(sim, order)[0]["status"] == "CANCELED"


async def test_an_order_larger_than_the_book_expires_partly_filled(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    sim.control("POST", "fund", {"asset": "USDT", "amount": "90000000"})
    best_ask = sim.state()["symbols"]["ETHUSDT"]["asks"][0][0]
    order = await intended(engine, ticket(grid, lots=9_000_000, price=best_ask))

    after = await placed(engine, gateway, order)
    await collected(engine, gateway)

    assert after.state is S.EXPIRED
    assert 0 < after.executed_units < order.base_units
    assert await filled(engine, after) == after.executed_units


async def test_a_fill_is_stored_once_whichever_way_it_comes(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    streamed: list[VenueFill] = []
    stream = BinanceStream(wanted=gateway_settings(sim), clock=CLOCK, venue_time=gateway.venue_time)
    stream.learn(grid)
    async with stream.connect() as session:
        await placed(engine, gateway, await intended(engine, ticket(grid)))
        async with asyncio.timeout(20):
            while len(streamed) < len(truth(sim)["fills"]):
                events = await session.next(100)
                streamed += [event.fill for event in events if isinstance(event, FillSeen)]
    await transact(
        engine, lambda conn: record_fills(conn, streamed, source="stream", now=CLOCK.now())
    )
    found = await collected(engine, gateway)
    async with engine.connect() as conn:
        stored = await list_fills(conn, "sim", "desk", "ETHUSDT")

    assert found.new == 0
    assert len(stored) == len(truth(sim)["fills"])
    assert set(stored) == set(streamed)


async def test_a_fill_the_stream_brought_does_not_hide_an_earlier_one(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument
) -> None:
    for key in ("a", "b", "c"):
        await placed(engine, gateway, await intended(engine, ticket(grid, key)))
    *_, last = (await gateway.fills("ETHUSDT", "")).fills
    await transact(
        engine, lambda conn: record_fills(conn, [last], source="stream", now=CLOCK.now())
    )

    found = await collected(engine, gateway)

    async with engine.connect() as conn:
        stored = await list_fills(conn, "sim", "desk", "ETHUSDT")
    assert found.new == len(stored) - 1
    assert sum(f.base_units for f in stored) == 3 * 10**18


async def test_another_story_about_the_same_trade_changes_nothing_and_calls_a_person(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument
) -> None:
    await placed(engine, gateway, await intended(engine, ticket(grid)))
    await collected(engine, gateway)
    (first, *_) = (await gateway.fills("ETHUSDT", "")).fills
    other = replace(first, quote_units=first.quote_units + 1)

    for _ in range(2):
        await transact(
            engine, lambda conn: record_fills(conn, [other], source="stream", now=CLOCK.now())
        )

    async with engine.connect() as conn:
        stored = await list_fills(conn, "sim", "desk", "ETHUSDT")
        told = await list_history(conn, "venue-fill", first.id)
        account = await account_state(conn, "sim", "desk")
    assert first in stored
    assert [event.name for event in told] == ["FillContradicted"]
    assert account.mode is AccountMode.REDUCING


async def test_trades_before_the_opening_are_left_out(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    model = await intended(engine, ticket(grid, "model"))
    before_us = structs.replace(
        model, client_order_id="old", signed_at=gateway.venue_time(CLOCK.now())
    )
    await gateway.place(before_us)
    history = await gateway.fills("ETHUSDT", "")
    *_, last = history.fills
    await transact(
        engine,
        lambda conn: begin_history(
            conn, "sim", "desk", "ETHUSDT", cursor=history.cursor, now=CLOCK.now()
        ),
    )
    nothing = await collected(engine, gateway)
    await placed(engine, gateway, await intended(engine, ticket(grid, "new")))
    found = await collected(engine, gateway)

    async with engine.connect() as conn:
        stored = await list_fills(conn, "sim", "desk", "ETHUSDT")
    assert nothing.new == 0
    assert found.new == len(stored) == len(truth(sim)["fills"]) - 1
    assert last not in stored


async def test_a_venue_that_is_down_says_nothing_about_orders(
    engine: AsyncEngine, gateway: CcxtGateway, grid: Instrument, sim: SimulatorProcess
) -> None:
    order = await intended(engine, ticket(grid))
    await asyncio.to_thread(sim.kill)

    with pytest.raises(VenueUnavailable):
        await gateway.find_order(order)
    with pytest.raises(VenueUnavailable):
        await gateway.balances()


async def test_an_order_is_not_sent_through_a_gateway_that_never_connected(
    engine: AsyncEngine, grid: Instrument, sim: SimulatorProcess
) -> None:
    await asyncio.to_thread(sim.kill)
    order = await intended(engine, ticket(grid))
    async with open_gateway(gateway_settings(sim), CLOCK) as fresh:
        after = await submit(engine, fresh, order.id, holder="t", clock=CLOCK)

    assert after.state is S.REFUSED
    assert after.state_reason.startswith("not sent")


SHAPES = [
    5,
    [5],
    {"fills": [5], "symbol": "ETHUSDT"},
    {"fills": 5, "status": "FILLED", "executedQty": "abc", "symbol": 5},
    {"code": "x", "msg": {}},
    {"balances": [5]},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_an_answer_of_any_shape_proves_nothing(
    gateway: CcxtGateway, grid: Instrument, engine: AsyncEngine, shape: Any
) -> None:
    order = await intended(engine, ticket(grid))

    async def answer(*_: Any, **__: Any) -> Any:
        return shape

    for exchange in (gateway._trader, gateway._reader):
        exchange.fetch = answer
    sent = structs.replace(order, signed_at=gateway.venue_time(CLOCK.now()))

    assert isinstance(await gateway.place(sent), PlacementUnknown)
    for ask in (
        gateway.find_order(sent),
        gateway.list_orders("ETHUSDT", CLOCK.now()),
        gateway.fills("ETHUSDT", ""),
        gateway.balances(),
        gateway.cancel(order),
    ):
        with pytest.raises(VenueUnavailable):
            await ask
