"""What users of other engines suffer from with orders, each complaint a test that it cannot happen here.

The docstring of a test names the threads. The venue is the scripted one: it keeps the truth apart from
what it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.events import list_history
from kernel.money import Asset
from marketdata.model import BookView, Level
from matching.model import Side, TimeInForce
from tests.venues.sending import send_alone
from trading.hedges.decision import Market, Situation, plan_hedge
from trading.hedges.model import HedgePolicy, HedgeVerdict
from trading.routing import Place
from venues.account_state import account_state, halt, reduce_only, release
from venues.cancels import arm_dead_man, cancel, cancel_all
from venues.capabilities import Capabilities, Expiry
from venues.claims import LEASE
from venues.dust import round_down
from venues.errors import (
    AccountHalted,
    AccountNotClear,
    AttemptRefused,
    NotEscalated,
    VenueUnavailable,
)
from venues.escalations import Verdict, WasNotPlaced, WasPlaced, decide
from venues.exposure import list_exposures
from venues.fills import collect, list_fills, list_unread, record_fills
from venues.lifecycle import ResolvePolicy
from venues.model import (
    ATTEMPTS_MAX,
    AccountMode,
    OrderKind,
    OrderReport,
    OrderState,
    OrderTicket,
    VenueOrder,
    VenueStatus,
)
from venues.orders import intend, list_orders, resolve, resume, submit, try_again
from venues.records import BINANCE, KRAKEN
from venues.reports import record_report
from venues.store import get_order
from venues.testing import AT_ONCE, GRID, Call, Conduct, ScriptedVenue, Trouble
from venues.worst_case import Uncertainty, uncertainty

S = OrderState
LOTS = 100
UNITS = LOTS * GRID.lot
WINDOW = timedelta(seconds=3)
POLICY = ResolvePolicy(
    margin=timedelta(seconds=1),
    not_founds=3,
    pause=timedelta(0),
    looks_max=100,
    escalate_after=timedelta(minutes=5),
)
RESTS = Conduct(trades=())
NO_EXPIRY = replace(BINANCE, expiry=Expiry.NONE)


def script(**calls: Iterable[Trouble]) -> Callable[[Call], Trouble]:
    """What goes wrong with the first calls of each kind; nothing after that."""
    left = {Call[name.upper()]: iter(troubles) for name, troubles in calls.items()}
    return lambda call: next(left.get(call, iter(())), Trouble.NONE)


def always(**calls: Trouble) -> Callable[[Call], Trouble]:
    """What goes wrong with every call of a kind."""
    troubles = {Call[name.upper()]: trouble for name, trouble in calls.items()}
    return lambda call: troubles.get(call, Trouble.NONE)


@dataclass
class Desk:
    """A worker at a scripted venue."""

    engine: AsyncEngine
    venue: ScriptedVenue

    def ticket(self, intent: str = "want", **changes: Any) -> OrderTicket:
        wanted = OrderTicket(
            venue=self.venue.venue,
            account=self.venue.account,
            symbol="ETHUSDT",
            instrument_version=1,
            side=Side.BUY,
            base_units=UNITS,
            quantity=GRID.quantity_text(LOTS),
            price="3000.00",
            time_in_force=TimeInForce.GTC,
            reference="complaint",
            intent=intent,
        )
        return replace(wanted, **changes)

    async def send(self, ticket: OrderTicket | None = None) -> VenueOrder:
        return await send_alone(
            self.engine,
            self.venue,
            ticket or self.ticket(),
            recv_window=WINDOW,
            holder="t",
            reason="wanted",
            clock=self.venue,
        )

    async def intend(self, ticket: OrderTicket) -> VenueOrder:
        return await transact(
            self.engine,
            lambda conn: intend(
                conn,
                ticket,
                capabilities=self.venue.capabilities,
                recv_window=WINDOW,
                actor="system:t",
                reason="wanted",
                now=self.venue.now(),
            ),
        )

    async def submit(self, order: VenueOrder) -> VenueOrder:
        return await submit(self.engine, self.venue, order.id, holder="t", clock=self.venue)

    async def resolve(self, order: VenueOrder) -> VenueOrder:
        return await resolve(
            self.engine, self.venue, order.id, holder="t", clock=self.venue, policy=POLICY
        )

    async def resume(self) -> list[VenueOrder]:
        return await resume(self.engine, self.venue, holder="t", clock=self.venue, policy=POLICY)

    async def again(self, order: VenueOrder) -> VenueOrder:
        again = await transact(
            self.engine,
            lambda conn: try_again(
                conn,
                order,
                capabilities=self.venue.capabilities,
                actor="system:t",
                reason="again",
                now=self.venue.now(),
            ),
        )
        return await self.submit(again)

    async def collect(self) -> int:
        return (await collect(self.engine, self.venue, "ETHUSDT", clock=self.venue)).new

    async def cancel(self, order: VenueOrder) -> VenueOrder:
        return await cancel(self.engine, self.venue, order.id, holder="t", clock=self.venue)

    async def read(self, order: VenueOrder) -> VenueOrder:
        return await transact(self.engine, lambda conn: get_order(conn, order.id))

    async def filled(self) -> int:
        async with self.engine.connect() as conn:
            fills = await list_fills(conn, self.venue.venue, self.venue.account, "ETHUSDT")
        return sum(fill.base_units for fill in fills)

    async def bounds(self) -> Uncertainty:
        async with self.engine.connect() as conn:
            return uncertainty(
                await list_exposures(conn, self.venue.venue, self.venue.account, "ETHUSDT")
            )

    async def mode(self) -> AccountMode:
        async with self.engine.connect() as conn:
            return (await account_state(conn, self.venue.venue, self.venue.account)).mode

    async def events(self, order: VenueOrder) -> list[str]:
        async with self.engine.connect() as conn:
            return [event.name for event in await list_history(conn, "venue-order", order.id)]

    async def report(self, order: VenueOrder, status: VenueStatus, executed: int) -> VenueOrder:
        """Hand in a report as a stream would."""
        report = OrderReport(
            client_order_id=order.client_order_id,
            venue_order_id=self.venue.orders[-1].venue_order_id,
            status=status,
            executed_units=executed,
        )

        async def work(conn):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  a one-line transaction
            row = await get_order(conn, order.id, lock=True)
            return await record_report(
                conn, row, report, actor="system:stream", now=self.venue.now()
            )

        return await transact(self.engine, work)


def desk_at(engine: AsyncEngine, **options: Any) -> Desk:
    return Desk(engine, ScriptedVenue(**options))


# 1. A time-out on placing an order that is live, and the software orders again.


@pytest.mark.parametrize("wanted", [1, 2, 5])
async def test_a_time_out_on_an_order_that_is_live_never_orders_again(
    engine: AsyncEngine, wanted: int
) -> None:
    """Ccxt #2599, ccxt #2698, ccxt #1880, hummingbot #493, hummingbot #2342."""
    desk = desk_at(engine, trouble=script(place=[Trouble.LOST_ANSWER]))
    order = await desk.send()
    for _ in range(wanted):
        await desk.send()
        with pytest.raises(AttemptRefused, match="not proven"):
            await desk.again(order)

    after = await desk.resolve(order)
    await desk.collect()

    assert (order.state, after.state) == (S.UNKNOWN, S.FILLED)
    assert (desk.venue.placements, len(desk.venue.orders)) == (1, 1)
    assert await desk.filled() == UNITS


async def test_an_order_wanted_twice_is_placed_once(engine: AsyncEngine) -> None:
    """Catalyst #317, catalyst #315: the same order was placed twice."""
    desk = desk_at(engine)

    first, second = await desk.send(), await desk.send()

    assert first.id == second.id
    assert desk.venue.placements == 1


async def test_an_order_is_not_sent_again_when_it_was_seen_before_its_answer_failed(
    engine: AsyncEngine,
) -> None:
    """Nautilus #4215: retried after a -1007 although the acceptance had arrived by the stream."""
    desk = desk_at(engine, trouble=script(place=[Trouble.LOST_ANSWER]), conduct=lambda _: RESTS)
    order = await desk.send()

    seen = await desk.report(order, VenueStatus.OPEN, 0)

    assert seen.state is S.ACKED
    with pytest.raises(AttemptRefused):
        await desk.again(order)
    assert desk.venue.placements == 1


async def test_an_id_that_was_sent_is_never_sent_again_even_where_the_venue_would_take_it(
    engine: AsyncEngine,
) -> None:
    """Ccxt #2599: ids are unique among open orders only, so a filled order's id places a second one."""
    desk = desk_at(engine, trouble=script(place=[Trouble.BACK_OFF, Trouble.LOST_REQUEST]))
    first = await desk.send()
    second = await desk.again(first)
    second = await desk.resolve(second)
    third = await desk.again(second)

    assert [o.state for o in (first, second, third)] == [S.REFUSED, S.NOT_PLACED, S.FILLED]
    assert [o.attempt for o in (first, second, third)] == [1, 2, 3]
    assert len({o.client_order_id for o in (first, second, third)}) == 3
    assert len(desk.venue.orders) == 1


async def test_an_intent_is_tried_a_few_times_only(engine: AsyncEngine) -> None:
    """Nautilus #3879: orders stack up when each refusal makes another one."""
    desk = desk_at(engine, trouble=always(place=Trouble.BACK_OFF))
    order = await desk.send()
    for _ in range(ATTEMPTS_MAX - 1):
        order = await desk.again(order)

    with pytest.raises(AttemptRefused, match="at most"):
        await desk.again(order)
    assert desk.venue.placements == ATTEMPTS_MAX


async def test_an_order_refused_for_what_it_is_is_not_tried_again(engine: AsyncEngine) -> None:
    """Nautilus #4958: a refused order is sent for ever."""
    desk = desk_at(engine, trouble=always(place=Trouble.REFUSED))
    order = await desk.send()

    with pytest.raises(AttemptRefused, match="for good"):
        await desk.again(order)


async def test_postgresql_itself_allows_one_living_order_of_an_intent(
    engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    """Catalyst #315: what the program forgets, the database must refuse."""
    desk = desk_at(engine, trouble=script(place=[Trouble.LOST_ANSWER]))
    await desk.send()
    copy = text(
        "INSERT INTO venues.venue_order SELECT (jsonb_populate_record(o, jsonb_build_object("
        " 'id', gen_random_uuid(), 'client_order_id', 'other', 'venue_order_id', NULL,"
        " 'attempt', 2, 'state', 'intent'))).* FROM venues.venue_order o"
    )

    async with owner_engine.connect() as conn:
        with pytest.raises(IntegrityError, match="uq_venue_order_alive"):
            await conn.execute(copy)


# 2. The engine declares an order dead without the venue's word.


async def test_an_outage_drops_no_order(engine: AsyncEngine) -> None:
    """Hummingbot #8457, hummingbot #8454: a DNS outage dropped six live orders."""
    down = [Trouble.LOST_ANSWER] * 600
    desk = desk_at(
        engine,
        trouble=script(place=[Trouble.LOST_ANSWER] * 6, clock=down, find=down, list=down),
        conduct=lambda _: RESTS,
    )
    orders = [await desk.send(desk.ticket(f"want-{n}")) for n in range(6)]
    left = await desk.resume()
    bounds = await desk.bounds()
    desk.venue.trouble = script()
    desk.venue.pass_time(LEASE)

    found = await desk.resume()

    assert {order.state for order in left} == {S.UNKNOWN}
    assert bounds == Uncertainty(low=0, high=6 * UNITS)
    assert [order.state for order in found] == [S.ACKED] * 6
    assert {order.id for order in orders} == {order.id for order in found}


async def test_an_order_that_fills_hours_later_is_still_ours(engine: AsyncEngine) -> None:
    """Hummingbot #3374: orphan orders fill hours later, outside of the books."""
    hours = timedelta(hours=7)
    desk = desk_at(
        engine,
        trouble=script(place=[Trouble.LOST_ANSWER]),
        conduct=lambda _: Conduct(trades=((hours, 100),)),
    )
    order = await desk.resolve(await desk.send())
    desk.venue.pass_time(hours)

    await desk.resume()
    await desk.collect()

    assert order.state is S.ACKED
    assert (await desk.read(order)).state is S.FILLED
    assert await desk.filled() == UNITS


async def test_an_unconfirmed_order_is_never_called_rejected_while_the_venue_may_accept_it(
    engine: AsyncEngine,
) -> None:
    """Nautilus #4152: SUBMITTED became REJECTED after some retries; the order arrived afterwards."""
    desk = desk_at(
        engine,
        trouble=script(place=[Trouble.LATE_REQUEST]),
        late_by=WINDOW - timedelta(milliseconds=200),
        settling=timedelta(milliseconds=900),
    )

    after = await desk.resolve(await desk.send())

    assert after.state is S.FILLED
    assert len(desk.venue.orders) == 1


async def test_an_order_that_comes_too_late_is_refused_by_the_venue_and_proven_not_placed(
    engine: AsyncEngine,
) -> None:
    """Nautilus #4152: what ends an unknown order is the venue's clock, not a count of retries."""
    desk = desk_at(
        engine, trouble=script(place=[Trouble.LATE_REQUEST]), late_by=WINDOW + timedelta(seconds=5)
    )

    after = await desk.resolve(await desk.send())
    desk.venue.pass_time(timedelta(minutes=1))

    assert after.state is S.NOT_PLACED
    assert desk.venue.orders == []


async def test_a_query_that_fails_is_not_an_order_that_is_missing(engine: AsyncEngine) -> None:
    """Hummingbot #8454: errors of queries were counted as "not found"."""
    desk = desk_at(
        engine,
        trouble=script(place=[Trouble.LOST_REQUEST], list=[Trouble.LOST_ANSWER] * 10_000),
    )

    after = await desk.resolve(await desk.send())

    assert after.state is S.UNKNOWN


async def test_without_an_expiry_silence_never_proves_anything(engine: AsyncEngine) -> None:
    """Hummingbot #8457: three times "not found" and the order was given up, at any venue."""
    desk = desk_at(engine, trouble=script(place=[Trouble.LOST_REQUEST]), capabilities=NO_EXPIRY)
    order = await desk.send()
    for _ in range(40):
        order = await desk.resolve(order)
        desk.venue.pass_time(timedelta(seconds=20))

    assert order.state is S.ESCALATED
    assert await desk.mode() is AccountMode.REDUCING
    assert await desk.bounds() == Uncertainty(low=0, high=UNITS)


async def escalated(desk: Desk) -> VenueOrder:
    """An order whose evidence the venue withholds for the whole time."""
    order = await desk.send()
    for _ in range(60):
        order = await desk.resolve(order)
        desk.venue.pass_time(timedelta(seconds=10))
        if order.state is S.ESCALATED:
            return order
    raise AssertionError(order)


def withholding(engine: AsyncEngine, place: Trouble = Trouble.LOST_ANSWER) -> Desk:
    lost = [Trouble.LOST_ANSWER] * 100_000
    return desk_at(
        engine,
        trouble=script(place=[place], find=lost, list=lost, cancel=[Trouble.LOST_REQUEST] * 9_999),
        conduct=lambda _: RESTS,
    )


async def test_an_order_that_nobody_can_find_out_about_ends_with_a_person_and_less_risk(
    engine: AsyncEngine,
) -> None:
    """Hummingbot #8457: an engine that gives up must say so to somebody."""
    desk = withholding(engine)

    order = await escalated(desk)

    assert (await desk.events(order))[-1] == "OrderEscalated"
    assert await desk.mode() is AccountMode.REDUCING
    assert await desk.bounds() == Uncertainty(low=0, high=UNITS)
    with pytest.raises(AccountNotClear):
        await transact(
            engine,
            lambda conn: release(
                conn, "scripted", "desk", reason="fine", operator="ann", now=desk.venue.now()
            ),
        )


async def test_an_escalated_order_is_still_looked_for_and_the_venues_word_wins(
    engine: AsyncEngine,
) -> None:
    """Hummingbot #3374: an order given up by the machine must be taken up again when it shows."""
    desk = withholding(engine)
    order = await escalated(desk)
    desk.venue.trouble = script()

    too_early = await desk.resume()
    desk.venue.pass_time(POLICY.escalated_pause)
    after = await desk.resume()

    assert [o.state for o in too_early] == [S.ESCALATED]
    assert [o.state for o in after] == [S.ACKED]
    released = await transact(
        engine,
        lambda conn: release(
            conn, "scripted", "desk", reason="it was found", operator="ann", now=desk.venue.now()
        ),
    )
    assert released.mode is AccountMode.ACTIVE
    assert await desk.read(order) == after[0]


async def test_a_cancel_that_succeeds_is_proof_where_every_query_fails(engine: AsyncEngine) -> None:
    """Nautilus #4152: the venue knows the order, though it cannot be asked for."""
    desk = withholding(engine)
    order = await escalated(desk)
    lost = [Trouble.LOST_ANSWER] * 100_000
    desk.venue.trouble = script(list=lost)
    desk.venue.denied.add(order.client_order_id)
    desk.venue.trouble = script()

    after = await desk.resolve(order)

    assert after.state is S.CANCELLED
    assert not desk.venue.orders[0].is_open


async def decided(desk: Desk, order: VenueOrder, operator: str, verdict: Verdict) -> VenueOrder:
    return await transact(
        desk.engine,
        lambda conn: decide(
            conn,
            order,
            operator=operator,
            evidence="mail of the venue's support, 5 January",
            verdict=verdict,
            now=desk.venue.now(),
        ),
    )


async def test_two_people_decide_an_order_with_evidence_and_one_does_not(
    engine: AsyncEngine,
) -> None:
    """Hummingbot #8457: what the machine cannot find out, people must be able to end."""
    desk = withholding(engine, Trouble.LOST_REQUEST)
    order = await escalated(desk)

    alone = await decided(desk, order, "ann", WasNotPlaced())
    with pytest.raises(BadInput, match="already"):
        await decided(desk, order, "ann", WasNotPlaced())
    other = await decided(desk, order, "bob", WasPlaced("o1", VenueStatus.OPEN, 0))
    both = await decided(desk, order, "eve", WasNotPlaced())

    assert [o.state for o in (alone, other, both)] == [S.ESCALATED, S.ESCALATED, S.NOT_PLACED]
    assert (await desk.events(order)).count("OrderDecided") == 3
    with pytest.raises(NotEscalated):
        await decided(desk, order, "joe", WasNotPlaced())


async def test_people_may_find_that_an_order_was_placed_and_its_fills_are_fetched(
    engine: AsyncEngine,
) -> None:
    """Nautilus #3878: no fill is ever made up, not by people either."""
    desk = withholding(engine)
    order = await escalated(desk)
    placed = desk.venue.orders[0]
    desk.venue.trade(placed, UNITS)
    verdict = WasPlaced(placed.venue_order_id, VenueStatus.FILLED, UNITS)

    await decided(desk, order, "ann", verdict)
    after = await decided(desk, order, "bob", verdict)
    before_fills = await desk.filled()
    desk.venue.trouble = script()
    await desk.collect()

    assert after.state is S.FILLED
    assert (before_fills, await desk.filled()) == (0, UNITS)


async def test_a_venue_that_denied_a_living_order_is_found_out_and_the_order_taken_back(
    engine: AsyncEngine,
) -> None:
    """Hummingbot #3374: the proof was wrong; exposure is counted again, and risk only falls."""
    desk = desk_at(engine, trouble=script(place=[Trouble.LOST_ANSWER]), conduct=lambda _: RESTS)
    order = await desk.send()
    desk.venue.denied.add(order.client_order_id)
    gone = await desk.resolve(order)
    desk.venue.denied.clear()

    seen = await desk.report(order, VenueStatus.OPEN, 0)
    bounds = await desk.bounds()
    with pytest.raises(AttemptRefused):
        await desk.again(order)
    left = await desk.resume()

    assert (gone.state, seen.state) == (S.NOT_PLACED, S.NOT_PLACED)
    assert bounds == Uncertainty(low=0, high=UNITS)
    assert await desk.mode() is AccountMode.REDUCING
    assert (left, desk.venue.orders[0].status) == ([], VenueStatus.CANCELLED)
    assert await desk.bounds() == Uncertainty(low=0, high=0)


# 3. Fills booked twice, made up, or lost.


async def test_fills_read_again_after_a_restart_are_stored_once(engine: AsyncEngine) -> None:
    """Nautilus #3046, nautilus #3493: fills were booked twice after a restart."""
    desk = desk_at(engine)
    for n in range(4):
        await desk.send(desk.ticket(f"want-{n}"))
    first = await desk.collect()
    async with engine.begin() as conn:
        await conn.execute(text("UPDATE venues.fill_cursor SET trade_id = ''"))

    again = await desk.collect()

    assert (first, again) == (4, 0)
    assert await desk.filled() == 4 * UNITS


async def test_a_fill_that_stream_and_query_bring_together_is_stored_once(
    engine: AsyncEngine,
) -> None:
    """Nautilus #3493, QuantDinger #231: reconciliation raced a real fill."""
    desk = desk_at(engine)
    order = await desk.send()
    (fill,) = desk.venue.trades

    for source in ("stream", "rest", "stream"):
        await transact(
            engine,
            lambda conn, source=source: record_fills(  # type: ignore[misc]
                conn, [fill, fill], source=source, now=desk.venue.now()
            ),
        )
    await desk.collect()

    assert await desk.filled() == UNITS == (await desk.read(order)).executed_units


@pytest.mark.parametrize(
    ("without", "stored"),
    [((), 1), (("pk_fill",), 1), (("uq_fill_id",), 1), (("pk_fill", "uq_fill_id"), 2)],
)
async def test_either_key_of_a_fill_keeps_it_from_being_stored_twice_and_nothing_else_does(
    engine: AsyncEngine, owner_engine: AsyncEngine, without: tuple[str, ...], stored: int
) -> None:
    """Its trade (venue, account, symbol, trade id) and its id: without both it is counted twice."""
    desk = desk_at(engine)
    await desk.send()
    (fill,) = desk.venue.trades
    async with owner_engine.begin() as conn:
        for name in without:
            await conn.execute(text(f"ALTER TABLE venues.fill DROP CONSTRAINT {name}"))

    for source in ("stream", "rest"):
        await transact(
            engine,
            partial(record_fills, fills=[fill], source=source, now=desk.venue.now()),
        )

    assert await desk.filled() == stored * UNITS


async def test_a_difference_to_the_venues_figure_is_fetched_and_never_made_up(
    engine: AsyncEngine,
) -> None:
    """Nautilus #3878: synthetic fills had other ids in each run."""
    desk = desk_at(engine)
    await desk.send()
    hidden, desk.venue.trades = desk.venue.trades, []

    found = await collect(engine, desk.venue, "ETHUSDT", clock=desk.venue)
    missing = await desk.filled()
    desk.venue.trades = hidden
    later = await collect(engine, desk.venue, "ETHUSDT", clock=desk.venue)

    assert (missing, len(found.incomplete)) == (0, 1)
    assert (await desk.filled(), len(later.incomplete)) == (UNITS, 0)


async def test_a_fill_that_cannot_be_read_yet_is_kept_and_read_when_it_can_be(
    engine: AsyncEngine,
) -> None:
    """Nautilus #3775: a fill before its instrument was known became a phantom position."""
    desk = desk_at(engine)
    for n in range(5):
        await desk.send(desk.ticket(f"want-{n}"))
    desk.venue.trades[1] = replace(desk.venue.trades[1], venue_order_id="by-hand")
    second = desk.venue.trades[1]
    desk.venue.unreadable.add(second.trade_id)

    found = await collect(engine, desk.venue, "ETHUSDT", clock=desk.venue)
    async with engine.connect() as conn:
        kept = await list_unread(conn, "scripted", "desk")
    without = await desk.filled()
    desk.venue.unreadable.clear()
    await desk.collect()
    async with engine.connect() as conn:
        left = await list_unread(conn, "scripted", "desk")

    assert ([row.trade_id for row in kept], left) == ([second.trade_id], [])
    assert (found.unread, len(found.incomplete)) == (1, 1)
    assert (without, await desk.filled()) == (4 * UNITS, 5 * UNITS)
    assert await desk.mode() is AccountMode.REDUCING


async def test_more_filled_than_ordered_is_recorded_and_alarmed_never_refused(
    engine: AsyncEngine,
) -> None:
    """Nautilus #3046: an overfill was refused, and the position was wrong from then on."""
    desk = desk_at(engine)
    order = await desk.send()
    desk.venue.trade(desk.venue.orders[0], 7 * GRID.lot)

    await desk.collect()
    await desk.resume()

    assert await desk.filled() == UNITS + 7 * GRID.lot
    assert (await desk.events(order)).count("OrderOverfilled") == 1
    assert await desk.mode() is AccountMode.REDUCING
    bounds = await desk.bounds()
    assert bounds.low == bounds.high == UNITS + 7 * GRID.lot


async def test_reports_out_of_order_are_weighed_by_what_has_executed(engine: AsyncEngine) -> None:
    """Nautilus #3493: an older report arrived later and took filled quantity back."""
    desk = desk_at(engine, conduct=lambda _: RESTS)
    order = await desk.send()
    states = []
    for status, percent in [
        (VenueStatus.OPEN, 60),
        (VenueStatus.OPEN, 30),
        (VenueStatus.CANCELLED, 30),
        (VenueStatus.FILLED, 100),
        (VenueStatus.OPEN, 60),
        (VenueStatus.CANCELLED, 30),
    ]:
        after = await desk.report(order, status, UNITS * percent // 100)
        states.append((after.state, after.executed_units * 100 // UNITS))

    assert states == [
        (S.PARTIALLY_FILLED, 60),
        (S.PARTIALLY_FILLED, 60),
        (S.PARTIALLY_FILLED, 60),
        (S.FILLED, 100),
        (S.FILLED, 100),
        (S.FILLED, 100),
    ]


# 6. Precision.


async def test_amounts_go_out_as_plain_decimal_text(engine: AsyncEngine) -> None:
    """Ccxt #30339: 1e-7 was sent as an amount. ccxt #4853, ccxt #6103: floats near amounts."""
    desk = desk_at(engine)
    tiny = desk.ticket(base_units=GRID.lot, quantity=GRID.quantity_text(1))

    order = await desk.send(tiny)

    assert order.quantity == "0.0001"
    assert Decimal(order.quantity) * 10**18 == order.base_units == desk.venue.trades[0].base_units


@pytest.mark.parametrize("shown", ["0.1", "0.123456789", "999999999.999999999999", "0.0000009999"])
def test_a_balance_is_never_rounded_up(shown: str) -> None:
    """Ccxt #9214: a balance was rounded up; ccxt #21468: so it could not be withdrawn whole."""
    units, dust = round_down(shown, Asset("USDT", 6))

    assert Decimal(units).scaleb(-6) <= Decimal(shown)
    assert Decimal(units * 10**18 + dust).scaleb(-24) == Decimal(shown)


# 7. A hedge leg that is missing because a fill was missed, or was there without one.


async def test_an_order_that_fills_while_its_cancel_is_under_way_is_counted(
    engine: AsyncEngine,
) -> None:
    """Hummingbot #2501: filled while the cancel was in flight, and nothing hedged it."""
    desk = desk_at(engine, conduct=lambda _: Conduct(trades=((timedelta(milliseconds=60), 100),)))
    order = await desk.send()

    after = await desk.cancel(order)
    await desk.collect()

    assert after.cancel_requested_at is not None
    assert after.state is S.FILLED
    assert await desk.filled() == UNITS


async def test_a_trade_after_the_acknowledged_cancel_reopens_exposure_and_is_told(
    engine: AsyncEngine,
) -> None:
    """Hummingbot #2501, hummingbot #3849: ended orders must stay able to fill."""
    desk = desk_at(engine, conduct=lambda _: Conduct(trades=(), after_cancel=40))
    order = await desk.send()
    cancelled = await desk.cancel(order)
    await desk.collect()
    before = await desk.bounds()
    desk.venue.pass_time(timedelta(seconds=2))

    await desk.collect()

    part = UNITS * 40 // 100
    assert (cancelled.state, before) == (S.CANCELLED, Uncertainty(low=0, high=0))
    assert await desk.bounds() == Uncertainty(low=part, high=part)
    assert "OrderTradedLate" in await desk.events(order)
    assert await desk.mode() is AccountMode.ACTIVE


async def test_an_order_said_to_be_filled_is_not_a_fill(engine: AsyncEngine) -> None:
    """Hummingbot #817: the fill was a phantom, the hedge was real."""
    desk = desk_at(engine)
    await desk.send()
    desk.venue.trades.clear()

    await desk.collect()

    assert await desk.filled() == 0


async def test_three_fills_are_three_fills(engine: AsyncEngine) -> None:
    """Hummingbot #855: of three fills two were hedged."""
    parts = ((AT_ONCE, 30), (timedelta(seconds=1), 30), (timedelta(seconds=2), 40))
    desk = desk_at(engine, conduct=lambda _: Conduct(trades=parts))
    order = await desk.send()
    new = [await desk.collect()]
    for _ in range(2):
        desk.venue.pass_time(timedelta(seconds=1))
        new.append(await desk.collect())

    await desk.resume()

    assert sum(new) == 3
    assert await desk.filled() == UNITS == (await desk.read(order)).executed_units


async def test_a_cancel_whose_answer_is_lost_is_asked_for_again_after_a_restart(
    engine: AsyncEngine,
) -> None:
    """Nautilus #4958: a cancel that nobody answered was forgotten."""
    desk = desk_at(engine, conduct=lambda _: RESTS, trouble=script(cancel=[Trouble.LOST_REQUEST]))
    order = await desk.send()
    with pytest.raises(VenueUnavailable):
        await desk.cancel(order)

    left = await desk.resume()

    assert (left, (await desk.read(order)).state) == ([], S.CANCELLED)


async def test_a_cancel_that_finds_nothing_proves_nothing_of_an_order_on_its_way(
    engine: AsyncEngine,
) -> None:
    """Nautilus #4152: "unknown order" was the answer to a cancel that overtook its order."""
    desk = desk_at(engine, trouble=script(place=[Trouble.LATE_REQUEST]), conduct=lambda _: RESTS)
    order = await desk.send()

    wished = await desk.cancel(order)
    found = await desk.resolve(order)
    left = await desk.resume()

    assert (wished.state, found.state) == (S.UNKNOWN, S.ACKED)
    assert (left, (await desk.read(order)).state) == ([], S.CANCELLED)


async def test_everything_can_be_cancelled_at_once_intents_too(engine: AsyncEngine) -> None:
    """Hummingbot #3374: orders were left behind at a stop."""
    desk = desk_at(engine, conduct=lambda _: RESTS)
    sent = [await desk.send(desk.ticket(f"want-{n}")) for n in range(3)]
    unsent = await transact(
        engine,
        lambda conn: intend(
            conn,
            desk.ticket("unsent"),
            capabilities=BINANCE,
            recv_window=WINDOW,
            actor="system:t",
            reason="wanted",
            now=desk.venue.now(),
        ),
    )

    left = await cancel_all(engine, desk.venue, None, holder="t", clock=desk.venue)

    assert left == []
    assert [(await desk.read(o)).state for o in sent] == [S.CANCELLED] * 3
    assert (await desk.read(unsent)).state is S.NOT_PLACED


@pytest.mark.parametrize(("capabilities", "armed"), [(KRAKEN, True), (BINANCE, False)])
async def test_the_venue_is_told_to_cancel_everything_when_we_fall_silent(
    engine: AsyncEngine,
    capabilities: Capabilities,
    armed: bool,  # noqa: FBT001  a row of the table
) -> None:
    """Hummingbot #3374: a machine that is dead cancels nothing itself."""
    desk = desk_at(engine, capabilities=capabilities)

    assert await arm_dead_man(desk.venue, after=timedelta(minutes=1)) is armed
    assert (desk.venue.dead_man_at is not None) is armed
    with pytest.raises(BadInput):
        await arm_dead_man(desk.venue, after=timedelta(days=2))


# 8. Private trades that are incomplete.


async def test_pages_that_split_fills_lose_none(engine: AsyncEngine) -> None:
    """Ccxt #6696: the pages of trades split an order's fills. ccxt #18859, ccxt #19759: some were lost."""
    parts = tuple((AT_ONCE, 10) for _ in range(10))
    desk = desk_at(engine, conduct=lambda _: Conduct(trades=parts))
    await desk.send()

    new = await desk.collect()

    assert new == 10
    assert await desk.filled() == UNITS


async def test_each_symbol_has_fills_of_its_own(engine: AsyncEngine) -> None:
    """Ccxt #8749: only the first pair's trades were told."""
    desk = desk_at(engine)
    await desk.send()
    await desk.send(desk.ticket("other", symbol="ETHUSDC"))

    await desk.collect()
    await collect(engine, desk.venue, "ETHUSDC", clock=desk.venue)

    async with engine.connect() as conn:
        counts = Counter(
            {
                symbol: len(await list_fills(conn, "scripted", "desk", symbol))
                for symbol in ("ETHUSDT", "ETHUSDC")
            }
        )
    assert counts == {"ETHUSDT": 1, "ETHUSDC": 1}


async def test_a_fee_in_a_third_asset_is_kept_in_that_asset(engine: AsyncEngine) -> None:
    """Ccxt #6236: the fee's currency was missing."""
    desk = desk_at(engine, conduct=lambda _: RESTS)
    await desk.send()
    desk.venue.trade(desk.venue.orders[0], UNITS, fee_asset="BNB")

    await desk.collect()

    async with engine.connect() as conn:
        (fill,) = await list_fills(conn, "scripted", "desk", "ETHUSDT")
    assert (fill.fee_asset, fill.quote) == ("BNB", "USDT")
    assert fill == desk.venue.trades[0]


# 10. Rests below the smallest order.


def test_a_rest_below_the_smallest_order_stays_visible() -> None:
    """Hummingbot #5688: a remainder smaller than the venue's minimum was silently skipped."""
    venue = ScriptedVenue()
    grid = replace(GRID, lots_min=200)
    need = 150 * grid.lot
    level = (Level(ticks=299_900, units=10**21), Level(ticks=300_100, units=10**21))
    view = BookView(
        venue="scripted",
        symbol="ETHUSDT",
        bids=(level[0],),
        asks=(level[1],),
        sequence=1,
        received_at=venue.now(),
    )

    place = Place(
        venue="scripted",
        account="desk",
        instrument=grid,
        view=view,
        base_free=0,
        quote_free=10**30,
    )
    seen = Situation(
        asset=grid.base,
        position=-need,
        under_way=Uncertainty(low=0, high=0),
        target=0,
        markets=[Market(place=place)],
    )

    plan = plan_hedge(seen, HedgePolicy(), venue.now())

    assert plan.verdict is HedgeVerdict.BELOW_MINIMUM
    assert plan.residual == plan.need == need


# Kinds of orders, and who may stop and release.


@pytest.mark.parametrize("kind", OrderKind)
async def test_orders_of_every_kind_are_written_down_as_they_are_sent(
    engine: AsyncEngine, kind: OrderKind
) -> None:
    """Ccxt #30339: what is sent must be what is on record."""
    desk = desk_at(engine)
    price = None if kind is OrderKind.MARKET else "3000.00"

    order = await desk.send(desk.ticket(kind=kind, price=price))

    assert (order.kind, order.price) == (kind, price)
    sent = desk.venue.orders[0].order
    assert (sent.client_order_id, sent.signed_at) == (order.client_order_id, order.signed_at)


async def test_only_a_person_makes_an_account_active_again(engine: AsyncEngine) -> None:
    """Hummingbot #8457: a machine that stopped for a reason must not start again without one."""
    desk = desk_at(engine)
    now = desk.venue.now()

    async def verb(act: Callable[..., object], **options: str) -> None:
        await transact(engine, lambda conn: act(conn, "scripted", "desk", now=now, **options))  # type: ignore[arg-type, return-value]

    await verb(reduce_only, reason="odd", actor="system:watch")
    await verb(halt, reason="odder", actor="ann")
    await verb(reduce_only, reason="odd", actor="system:watch")
    assert await desk.mode() is AccountMode.HALTED
    for operator, reason in [("system:watch", "fine"), ("ann", " "), ("", "fine")]:
        with pytest.raises(BadInput):
            await verb(release, reason=reason, operator=operator)
    await verb(release, reason="looked into", operator="ann")

    assert await desk.mode() is AccountMode.ACTIVE


async def test_an_unknown_order_is_looked_for_before_it_is_given_to_a_person(
    engine: AsyncEngine,
) -> None:
    """Nautilus #3879: after a long stop of ours the first unanswered question proves nothing."""
    desk = withholding(engine)
    order = await desk.resolve(await desk.send())
    desk.venue.pass_time(timedelta(hours=3))

    after = await desk.resolve(order)
    orders = await transact(engine, lambda conn: list_orders(conn, "scripted", "desk"))

    assert [o.state for o in orders] == [after.state] == [S.UNKNOWN]
    assert await desk.mode() is AccountMode.ACTIVE


async def test_nothing_is_ordered_for_a_halted_account(engine: AsyncEngine) -> None:
    """Hummingbot #8457: whoever stopped an account must not find orders of it afterwards."""
    desk = desk_at(engine)
    now = desk.venue.now()
    waiting = await desk.intend(desk.ticket("written before"))
    await transact(
        engine,
        lambda conn: halt(conn, "scripted", "desk", reason="odd", actor="ann", now=now),
    )

    for refused in (desk.send, desk.intend):
        with pytest.raises(AccountHalted, match="release scripted/desk"):
            await refused(desk.ticket("wanted after"))
    ended = await desk.submit(waiting)

    assert ended.state is OrderState.NOT_PLACED
    assert desk.venue.orders == []
