"""The kill switch: halted and committed first, then cleared everywhere, whatever a venue does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec import structs
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import Refused
from matching.model import Side, TimeInForce
from registry.errors import UnknownRecord
from risk.controls import control_of, set_control
from risk.model import EVERY, ControlState
from tests.trading.conftest import DESK
from trading.hedges.lines import open_line
from trading.hedges.model import HedgeLine, HedgePlace
from trading.kill import BY_RECORD, NOT_REACHED, KillPolicy, enforce_halts, kill
from venues.lifecycle import ResolvePolicy
from venues.model import OrderState, OrderTicket, VenueOrder
from venues.orders import intend, list_orders, resume, submit
from venues.testing import GRID, Call, Conduct, ScriptedVenue, Trouble

WINDOW = timedelta(seconds=3)
SOON = KillPolicy(
    patience=timedelta(seconds=10),
    pause=timedelta(0),
    resolve=ResolvePolicy(margin=timedelta(0), not_founds=1, pause=timedelta(0)),
)
GIVES_UP = KillPolicy(patience=timedelta(seconds=2.5), pause=timedelta(milliseconds=50))
"""Time is up for who never answers; who answers has time for a round on the busiest machine."""


def venues(*names: str) -> list[ScriptedVenue]:
    """Venues at which an order rests until it is cancelled."""
    return [ScriptedVenue(venue=name, conduct=lambda _: Conduct(trades=())) for name in names]


async def hedged_at(engine: AsyncEngine, *places: ScriptedVenue, desk: str = DESK) -> None:
    where = tuple(HedgePlace(item.venue, item.account, "ETHUSDT") for item in places)
    line = HedgeLine(desk=desk, asset="ETH", places=where)
    await transact(
        engine,
        lambda conn: open_line(conn, line, by="dan", reason="test", now=places[0].now()),
    )


async def written(engine: AsyncEngine, venue: ScriptedVenue, key: str) -> VenueOrder:
    ticket = OrderTicket(
        venue=venue.venue,
        account=venue.account,
        symbol="ETHUSDT",
        instrument_version=1,
        side=Side.BUY,
        base_units=100 * GRID.lot,
        quantity=GRID.quantity_text(100),
        price="3000.00",
        time_in_force=TimeInForce.GTC,
        reference="test",
        intent=key,
    )

    async def work(conn: AsyncConnection) -> VenueOrder:
        return await intend(
            conn,
            ticket,
            capabilities=venue.capabilities,
            recv_window=WINDOW,
            actor="system:test",
            reason="test",
            now=venue.now(),
        )

    return await transact(engine, work)


async def placed(engine: AsyncEngine, venue: ScriptedVenue, key: str) -> VenueOrder:
    order = await written(engine, venue, key)
    return await submit(engine, venue, order.id, holder="test", clock=venue)


async def states(engine: AsyncEngine, venue: ScriptedVenue) -> list[OrderState]:
    async with engine.connect() as conn:
        found = await list_orders(conn, venue.venue, venue.account)
    return [item.state for item in found]


async def test_everything_open_is_taken_back_at_every_account_and_intents_are_given_up(
    house: AsyncEngine,
) -> None:
    here, there = venues("here", "there")
    await hedged_at(house, here, there)
    for venue in (here, there):
        await placed(house, venue, "resting")
        await written(house, venue, "not sent yet")

    report = await kill(
        house, [here, there], desk=DESK, by="dan", reason="a bad feed", clock=here, policy=SOON
    )

    assert report.is_clear
    assert (report.control.state, report.control.by) == (ControlState.HALTED, "dan")
    assert [(item.venue, item.left, item.reason) for item in report.accounts] == [
        ("here", (), ""),
        ("there", (), ""),
    ]
    for venue in (here, there):
        assert sorted(await states(house, venue)) == [OrderState.CANCELLED, OrderState.NOT_PLACED]
        assert not any(order.is_open for order in venue.orders)


async def test_the_desk_is_halted_before_a_venue_is_asked(house: AsyncEngine) -> None:
    seen: list[ControlState] = []

    class Watching(ScriptedVenue):
        async def cancel_all(self, symbol: str | None) -> int:
            async with house.connect() as conn:
                seen.append((await control_of(conn, DESK)).state)
            return await ScriptedVenue.cancel_all(self, symbol)

    venue = Watching(venue="here")
    await hedged_at(house, venue)

    report = await kill(
        house, [venue], desk=DESK, by="system:watch", reason="loss", clock=venue, policy=SOON
    )

    assert report.is_clear
    assert set(seen) == {ControlState.HALTED}


async def test_a_venue_that_does_not_answer_is_asked_again_and_keeps_no_other_from_being_cleared(
    house: AsyncEngine,
) -> None:
    flaky, well = venues("flaky", "well")
    await hedged_at(house, flaky, well)
    for venue in (flaky, well):
        await placed(house, venue, "resting")
    asked = iter([Trouble.LOST_REQUEST, Trouble.BACK_OFF, Trouble.LOST_REQUEST])
    flaky.trouble = lambda call: next(asked, Trouble.NONE) if call is Call.CANCEL else Trouble.NONE

    report = await kill(
        house, [flaky, well], desk=DESK, by="dan", reason="stop", clock=flaky, policy=SOON
    )

    assert report.is_clear
    assert {item.venue: item.rounds for item in report.accounts} == {"flaky": 4, "well": 1}


async def test_what_could_not_be_cleared_in_time_is_told_and_the_next_kill_goes_on(
    house: AsyncEngine,
) -> None:
    dead, well = venues("dead", "well")
    await hedged_at(house, dead, well)
    order = await placed(house, dead, "resting")
    dead.trouble = lambda _: Trouble.LOST_REQUEST

    first = await kill(
        house, [dead, well], desk=DESK, by="dan", reason="stop", clock=dead, policy=GIVES_UP
    )
    there, other = first.accounts
    assert not first.is_clear
    assert other.is_clear
    assert there.rounds > 1
    assert there.reason.startswith("time is up: the request never arrives")
    async with house.connect() as conn:
        (kept,) = await list_orders(conn, dead.venue, dead.account)
    assert kept.cancel_requested_at is not None
    assert kept.client_order_id == order.client_order_id

    dead.trouble = lambda _: Trouble.NONE
    again = await kill(
        house, [dead, well], desk=DESK, by="dan", reason="again", clock=dead, policy=SOON
    )
    assert again.is_clear
    assert again.control.reason == "stop"


async def test_an_order_of_unknown_outcome_is_not_clear_before_there_is_evidence(
    house: AsyncEngine,
) -> None:
    (venue,) = venues("here")
    await hedged_at(house, venue)
    venue.late_by = timedelta(milliseconds=200)
    troubles = iter([Trouble.LATE_REQUEST])
    venue.trouble = lambda call: (
        next(troubles, Trouble.NONE) if call is Call.PLACE else Trouble.NONE
    )
    order = await placed(house, venue, "late")
    assert order.state is OrderState.UNKNOWN

    report = await kill(
        house, [venue], desk=DESK, by="dan", reason="stop", clock=venue, policy=SOON
    )

    assert report.is_clear
    assert report.accounts[0].rounds > 1
    (arrived,) = venue.orders
    assert not arrived.is_open
    assert await states(house, venue) == [OrderState.CANCELLED]


async def test_what_opens_while_the_account_is_cleared_is_cleared_too(house: AsyncEngine) -> None:
    class Late(ScriptedVenue):
        cancels = 0

        async def cancel_all(self, symbol: str | None) -> int:
            found = await ScriptedVenue.cancel_all(self, symbol)
            self.cancels += 1
            if self.cancels == 1:
                # A stranger's: nothing on record says that something may be alive.
                await ScriptedVenue.place(self, stranger)
            return found

    venue = Late(venue="here", conduct=lambda _: Conduct(trades=()))
    await hedged_at(house, venue)
    order = await placed(house, venue, "resting")
    stranger = structs.replace(order, client_order_id="stranger", signed_at=venue.now())

    report = await kill(
        house, [venue], desk=DESK, by="dan", reason="stop", clock=venue, policy=SOON
    )

    assert report.is_clear
    assert report.accounts[0].rounds == 2
    assert [item.is_open for item in venue.orders] == [False, False]


async def test_a_desks_kill_leaves_other_accounts_and_the_houses_takes_all(
    house: AsyncEngine,
) -> None:
    mine, others, nobodys = venues("mine", "others", "nobodys")
    everything = [mine, others, nobodys]
    await hedged_at(house, mine)
    await hedged_at(house, others, desk="prime")
    for venue in everything:
        await placed(house, venue, "resting")

    report = await kill(
        house, everything, desk=DESK, by="dan", reason="stop", clock=mine, policy=SOON
    )
    assert [item.venue for item in report.accounts] == ["mine"]
    assert [venue.orders[0].is_open for venue in everything] == [False, True, True]
    async with house.connect() as conn:
        assert (await control_of(conn, "prime")).state is ControlState.ACTIVE

    report = await kill(
        house, everything, desk=None, by="dan", reason="stop", clock=mine, policy=SOON
    )
    assert report.control.desk == EVERY
    assert [venue.orders[0].is_open for venue in everything] == [False, False, False]
    async with house.connect() as conn:
        assert (await control_of(conn, "prime")).state is ControlState.HALTED


async def test_several_who_kill_at_once_do_it_together(house: AsyncEngine) -> None:
    (venue,) = venues("here")
    await hedged_at(house, venue)
    for number in range(3):
        await placed(house, venue, f"resting-{number}")

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                kill(house, [venue], desk=DESK, by=by, reason="stop", clock=venue, policy=SOON)
            )
            for by in ("dan", "ada", "system:watch")
        ]

    assert all(task.result().is_clear for task in tasks)
    assert len({task.result().control.by for task in tasks}) == 1
    assert set(await states(house, venue)) == {OrderState.CANCELLED}


async def test_whoever_may_not_kill_has_not_touched_anything(house: AsyncEngine) -> None:
    (venue,) = venues("here")
    await hedged_at(house, venue)
    await placed(house, venue, "resting")

    with pytest.raises(UnknownRecord):
        await kill(house, [venue], desk=DESK, by="nobody", reason="stop", clock=venue, policy=SOON)

    assert venue.orders[0].is_open
    async with house.connect() as conn:
        assert (await control_of(conn, DESK)).state is ControlState.ACTIVE


async def test_what_goes_wrong_at_one_account_even_unforeseen_keeps_no_other_open(
    house: AsyncEngine,
) -> None:
    class Broken(ScriptedVenue):
        error: Exception = KeyError("status")

        async def cancel_all(self, symbol: str | None) -> int:
            del symbol
            raise self.error

    refusing = Broken(venue="refusing")
    refusing.error = Refused("the key was revoked")
    broken = Broken(venue="broken")
    (well,) = venues("well")
    # It is cleared only after the others have failed.
    asked = iter([Trouble.LOST_REQUEST])
    well.trouble = lambda call: next(asked, Trouble.NONE) if call is Call.CANCEL else Trouble.NONE
    await hedged_at(house, refusing, broken, well)
    await placed(house, well, "resting")

    report = await kill(
        house,
        [refusing, broken, well],
        desk=DESK,
        by="dan",
        reason="stop",
        clock=well,
        policy=GIVES_UP,
    )

    assert [(item.venue, item.is_clear, item.reason) for item in report.accounts] == [
        ("broken", False, "time is up: 'status'"),
        ("refusing", False, "time is up: the key was revoked"),
        ("well", True, ""),
    ]
    assert not well.orders[0].is_open


async def test_quotes_that_cannot_be_withdrawn_keep_no_account_open(
    house: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> int:
        raise Refused("the books are closed")

    monkeypatch.setattr("trading.kill.withdraw_all", refuse)
    (venue,) = venues("here")
    await hedged_at(house, venue)
    await placed(house, venue, "resting")

    report = await kill(
        house, [venue], desk=DESK, by="dan", reason="stop", clock=venue, policy=SOON
    )

    assert report.accounts[0].is_clear
    assert not report.is_clear
    assert report.quotes_reason == "the books are closed"


async def test_where_nobody_here_speaks_to_the_venue_the_house_that_runs_cancels(
    house: AsyncEngine,
) -> None:
    """The wish is on record, and the house's own turn at the account carries it out."""
    (venue,) = venues("here")
    await hedged_at(house, venue)
    await placed(house, venue, "resting")
    await written(house, venue, "not sent yet")

    async with asyncio.TaskGroup() as group:
        killing = group.create_task(
            kill(house, [], desk=DESK, by="dan", reason="stop", clock=venue, policy=SOON)
        )
        while not killing.done():
            await resume(
                house, venue, holder="house", clock=venue, policy=SOON.resolve, symbol=None
            )
            await asyncio.sleep(0.01)

    (account,) = killing.result().accounts
    assert (account.is_clear, account.rounds, account.reason) == (True, 0, BY_RECORD)
    assert sorted(await states(house, venue)) == [OrderState.CANCELLED, OrderState.NOT_PLACED]


async def test_where_nobody_at_all_speaks_to_the_venue_what_may_trade_is_told(
    house: AsyncEngine,
) -> None:
    (venue,) = venues("here")
    await hedged_at(house, venue)
    order = await placed(house, venue, "resting")
    await written(house, venue, "not sent yet")

    report = await kill(house, [], desk=DESK, by="dan", reason="stop", clock=venue, policy=GIVES_UP)

    (account,) = report.accounts
    assert not report.is_clear
    assert account.left == (order.client_order_id,)
    assert account.reason == f"time is up: {NOT_REACHED}"
    assert await states(house, venue) == [OrderState.ACKED, OrderState.NOT_PLACED]


@pytest.mark.parametrize("name", [DESK, EVERY])
async def test_a_house_takes_back_what_a_halted_desk_has_out_whoever_halted_it(
    house: AsyncEngine, name: str
) -> None:
    mine, others = venues("mine", "others")
    everything = [mine, others]
    await hedged_at(house, mine)
    await hedged_at(house, others, desk="prime")
    for venue in everything:
        await placed(house, venue, "resting")
    assert await enforce_halts(house, everything, clock=mine) == (0, 0)
    assert all(venue.orders[0].is_open for venue in everything)

    await transact(
        house,
        lambda conn: set_control(
            conn, name, ControlState.HALTED, by="system:loss-watch", reason="l", now=mine.now()
        ),
    )
    assert await enforce_halts(house, [others], clock=mine) == (0, 1)
    assert mine.orders[0].is_open
    assert await enforce_halts(house, everything, clock=mine) == (0, 0)

    assert [venue.orders[0].is_open for venue in everything] == [False, name == DESK]
    assert await enforce_halts(house, everything, clock=mine) == (0, 0)
