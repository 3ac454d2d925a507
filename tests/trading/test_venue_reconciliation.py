"""Reconciling an account against the simulator: seeded breaks are found, and close when cured."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import ccxt.async_support as ccxt
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import ManualClock, SystemClock
from kernel.db import transact
from kernel.errors import BadInput
from kernel.events import list_history
from kernel.ids import derive_id
from kernel.money import Asset
from kernel.states import trigger_name, trigger_statements
from marketdata.instruments import record_instrument
from marketdata.model import Instrument
from matching.model import Side, TimeInForce
from registry.errors import NotAuthorised
from registry.queries import get_operator
from registry.testing import operator_keypair
from tests.trading.conftest import BOOK, DESK, wait_or_are_done
from tests.venues.conftest import ASSETS, QUICK, gateway_settings, intended, ticket
from tests.venues.in_thread import SimulatorThread
from trading.errors import BreakNotStanding, NoVenueBreak
from trading.hedges.fills import post_fills
from trading.hedges.lines import open_line
from trading.hedges.model import HedgeLine, HedgePlace
from trading.venue_accounts import open_venue_account
from trading.venue_reconciliation import (
    dismiss_break,
    dismissal_bytes,
    enqueue_daily,
    explain_break,
    list_breaks,
    list_runs,
    propose_dismissal,
    reconcile_account,
)
from trading.venue_reconciliation_model import (
    BREAK_STATES,
    BreakState,
    Outcome,
    ReconcilePolicy,
    ReconciliationRun,
    VenueBreak,
)
from trading.venue_reconciliation_store import PAGE_MAX, insert_breaks
from venues.ccxt.endpoint import point_at, settings
from venues.ccxt.gateway import CcxtGateway, open_gateway
from venues.fills import begin_history, collect, record_fills
from venues.model import FillPage, OrderTicket, VenueBalance, VenueFill, VenueOrder
from venues.orders import list_orders, resume, submit
from venues.simulator.testing import SimulatorProcess
from venues.streams.binance import BinanceStream
from venues.streams.model import StreamPolicy
from venues.streams.supervisor import Supervisor

CLOCK = SystemClock()
SYMBOL = "ETHUSDT"
LINE = HedgeLine(desk=DESK, asset="ETH", places=(HedgePlace("sim", "desk", SYMBOL),))
POLICY = ReconcilePolicy(settling=timedelta(milliseconds=100))
LONG = timedelta(seconds=20)
"""Longer than an answer takes on any machine: nothing here is to be late."""


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    arguments = ("--step-ms", "0", "--balance", "ETH=100", "USDT=1000000", "BNB=0")
    with SimulatorThread(tmp_path_factory.mktemp("venue"), *arguments) as process:
        yield process


@pytest.fixture
def sim(venue: SimulatorProcess) -> Iterator[SimulatorProcess]:
    yield venue
    venue.control("DELETE", "faults")
    venue.control("DELETE", "withhold")


@dataclass(frozen=True)
class World:
    """An open account, its books, the venue's control, and the account's key used by hand."""

    engine: AsyncEngine
    owner: AsyncEngine
    gateway: CcxtGateway
    sim: SimulatorProcess
    grid: Instrument
    by_hand: Any
    name: str
    began: str

    def ticket(self, key: str, **changes: Any) -> OrderTicket:
        """Return an order that no other test has placed at this venue."""
        return ticket(self.grid, f"{self.name}-{key}", **changes)

    async def trade(self, key: str, **changes: Any) -> VenueOrder:
        """Place an order of ours, and post what it fills."""
        order = await intended(self.engine, self.ticket(key, **changes), recv_window=LONG)
        after = await submit(self.engine, self.gateway, order.id, holder="t", clock=CLOCK)
        await self.post()
        return after

    async def post(self) -> None:
        await collect(self.engine, self.gateway, SYMBOL, clock=CLOCK)
        await transact(
            self.engine, lambda c: post_fills(c, DESK, "ETH", book=BOOK, now=CLOCK.now())
        )

    async def reconcile(self, **changes: Any) -> ReconciliationRun:
        return await reconcile_account(
            self.engine,
            self.gateway,
            [SYMBOL],
            book=BOOK,
            **{"policy": POLICY, "clock": CLOCK, **changes},
        )

    async def breaks(self, states: Any = frozenset({BreakState.OPEN})) -> list[VenueBreak]:
        async with self.engine.connect() as conn:
            return await list_breaks(conn, "sim", "desk", states=states)

    async def as_owner(self, statement: str, **values: Any) -> None:
        """Change a row as no process may, so that there is something to find."""
        async with self.owner.begin() as conn:
            await conn.execute(text(statement), values)

    def free(self, asset: str) -> str:
        held = self.sim.state()["accounts"]["desk"]["balances"][asset]
        return str(held["free"])

    async def operator(self, code: str) -> Any:
        async with self.engine.connect() as conn:
            return await get_operator(conn, code)


@pytest.fixture
async def world(
    house: AsyncEngine,
    owner_engine: AsyncEngine,
    sim: SimulatorProcess,
    request: pytest.FixtureRequest,
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        wanted = replace(
            gateway_settings(sim),
            assets={**ASSETS, "BTC": Asset("BTC", 8)},
            order_timeout=LONG,
            read_timeout=LONG,
        )
        gateway = await stack.enter_async_context(open_gateway(wanted, CLOCK))
        by_hand = ccxt.binance(settings(wanted.credentials, timeout_ms=20_000, rate_limit=False))
        by_hand.verify = False  # no TLS: no certificates to read
        stack.push_async_callback(by_hand.close)
        point_at(by_hand, wanted.endpoint)
        for pair in ("ETH/USDT", "BTC/USDT"):
            for order in await by_hand.fetch_open_orders(pair):
                await by_hand.cancel_order(order["id"], pair)
        found = await gateway.instrument(SYMBOL)
        grid = await transact(house, lambda c: record_instrument(c, found, now=CLOCK.now()))
        await open_venue_account(house, gateway, [SYMBOL], book=BOOK, clock=CLOCK)
        await transact(
            house, lambda c: open_line(c, LINE, by="dora", reason="test", now=CLOCK.now())
        )
        began = (await gateway.fills(SYMBOL, "")).cursor
        yield World(house, owner_engine, gateway, sim, grid, by_hand, request.node.name, began)


async def test_an_account_that_agrees_is_clean_and_the_same_inputs_have_the_same_hash(
    world: World,
) -> None:
    await world.trade("one")
    first = await world.reconcile()
    again = await world.reconcile()
    await world.trade("two")
    other = await world.reconcile()

    assert [(b.kind, b.subject, b.ours, b.theirs) for b in await world.breaks()] == []
    assert [run.outcome for run in (first, again, other)] == [Outcome.CLEAN] * 3
    assert first.inputs_hash == again.inputs_hash != other.inputs_hash
    assert first.counts["orders_ours"] == first.counts["orders_theirs"] == 1
    assert first.counts["fills_ours"] == first.counts["fills_theirs"] > 0
    assert all(row.agrees for row in other.balances)
    async with world.engine.connect() as conn:
        runs = await list_runs(conn, "sim", "desk")
    assert [run.id for run in runs] == [other.id, again.id, first.id]


Cure = Callable[[], Awaitable[Any]]


async def balance_overwritten(world: World) -> Cure:
    before = world.free("ETH")
    world.sim.control("POST", "balance", {"asset": "ETH", "free": "1.5"})

    async def cure() -> None:
        world.sim.control("POST", "balance", {"asset": "ETH", "free": before})

    return cure


async def fill_withheld(world: World) -> Cure:
    order = await intended(world.engine, world.ticket("withheld"), recv_window=LONG)
    world.sim.control("POST", "withhold", {"fills": 0})
    await submit(world.engine, world.gateway, order.id, holder="t", clock=CLOCK)
    trades = len(await world.gateway.fills_of_order(await newest(world)))
    world.sim.control("POST", "withhold", {"fills": trades})

    async def cure() -> None:
        world.sim.control("DELETE", "withhold")
        await world.post()

    return cure


async def newest(world: World) -> VenueOrder:
    async with world.engine.connect() as conn:
        return (await list_orders(conn, "sim", "desk"))[-1]


async def order_by_hand(world: World) -> Cure:
    placed = await world.by_hand.create_order("ETH/USDT", "limit", "buy", 0.1, 2000)
    return lambda: world.by_hand.cancel_order(placed["id"], "ETH/USDT")


async def order_denied(world: World) -> Cure:
    order = await world.trade("denied", price="2000", time_in_force=TimeInForce.GTC)
    sent = {"symbol": SYMBOL, "client_order_id": order.client_order_id}
    world.sim.control("POST", "withhold", sent)

    async def cure() -> None:
        world.sim.control("DELETE", "withhold")

    return cure


async def fee_told_otherwise(world: World) -> Cure:
    """The stream told another fee than the list of trades does: the first report stays."""
    order = await intended(world.engine, world.ticket("fee"), recv_window=LONG)
    sent = await submit(world.engine, world.gateway, order.id, holder="t", clock=CLOCK)
    (fill, *_) = await world.gateway.fills_of_order(sent)
    await record(world, replace(fill, fee_units=fill.fee_units + 5))
    await world.post()
    statement = "UPDATE venues.fill SET fee_units = :units WHERE trade_id = :id"
    return lambda: world.as_owner(statement, units=fill.fee_units, id=fill.trade_id)


async def record(world: World, fill: VenueFill) -> None:
    await transact(
        world.engine, lambda c: record_fills(c, [fill], source="stream", now=CLOCK.now())
    )


async def fill_invented(world: World) -> Cure:
    order = await world.trade("model")
    (fill, *_) = await world.gateway.fills_of_order(order)
    await record(world, replace(fill, trade_id="99999999", venue_order_id="0"))
    return lambda: world.as_owner("DELETE FROM venues.fill WHERE trade_id = '99999999'")


async def fill_skipped(world: World) -> Cure:
    """Our own cursor has jumped over a trade that somebody made by hand."""
    await world.by_hand.create_order("ETH/USDT", "limit", "buy", 0.1, 4000, {"timeInForce": "IOC"})
    page = await world.gateway.fills(SYMBOL, "")
    await set_cursor(world, page.cursor)
    return lambda: set_cursor(world, world.began)


async def set_cursor(world: World, cursor: str) -> None:
    await transact(
        world.engine,
        lambda c: begin_history(c, "sim", "desk", SYMBOL, cursor=cursor, now=CLOCK.now()),
    )


async def terms_changed(world: World) -> Cure:
    order = await world.trade("terms", price="2000", time_in_force=TimeInForce.GTC)
    statement = "UPDATE venues.venue_order SET price = :price WHERE id = :id"
    await world.as_owner(statement, price="2001", id=order.id)
    return lambda: world.as_owner(statement, price=order.price, id=order.id)


SEEDS: dict[str, tuple[Any, set[str]]] = {
    "balance overwritten": (balance_overwritten, {"balance"}),
    "fill withheld": (fill_withheld, {"fills_short", "balance"}),
    "order placed by hand": (order_by_hand, {"order_unknown_to_us"}),
    "order denied": (order_denied, {"order_unknown_at_venue"}),
    "fee told otherwise": (fee_told_otherwise, {"fill_contradicting", "balance"}),
    "fill invented": (fill_invented, {"fill_surplus", "balance"}),
    "terms changed": (terms_changed, {"order_terms"}),
}


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_seeded_break_is_found_itemised_and_closes_when_it_is_cured(
    world: World, seed: str
) -> None:
    sow, expected = SEEDS[seed]
    await world.trade("before")
    assert (await world.reconcile()).outcome is Outcome.CLEAN

    cure = await sow(world)
    await asyncio.sleep(POLICY.settling / timedelta(seconds=1) + 0.05)
    run = await world.reconcile()
    found = await world.breaks()
    again = await world.reconcile()
    still = await world.breaks()
    await cure()
    cured = await world.reconcile()

    assert run.outcome is again.outcome is Outcome.BROKEN
    assert {item.kind for item in found} == expected
    assert {item.id for item in still} == {item.id for item in found} == set(run.breaks)
    assert all(
        len(item.subject.split(":")) == (2 if item.kind == "balance" else 3) for item in found
    )
    if seed != "fee told otherwise":  # what was posted with the wrong fee stays posted
        assert (cured.outcome, await world.breaks()) == (Outcome.CLEAN, [])
        async with world.engine.connect() as conn:
            history = await list_history(conn, "venue-break", found[0].id)
        assert [event.name for event in history] == ["VenueBreakFound", "VenueBreakClosed"]
    else:
        assert {item.kind for item in await world.breaks()} == {"balance"}


async def test_a_trade_that_is_not_on_record_is_missing_until_it_is(world: World) -> None:
    cure = await fill_skipped(world)
    await asyncio.sleep(POLICY.settling / timedelta(seconds=1) + 0.05)
    await world.reconcile()
    found = {item.kind for item in await world.breaks()}
    await cure()
    await world.reconcile()
    left = {item.kind for item in await world.breaks()}

    assert found == {"fill_missing", "order_unknown_to_us", "balance"}
    assert left == {"order_unknown_to_us"}


async def test_an_asset_that_is_not_registered_is_told_and_never_left_out(world: World) -> None:
    control = world.sim.control
    dust = {"asset": "USDC", "free": "0.00000001"}
    await asyncio.to_thread(control, "POST", "balance", dust)
    try:
        run = await world.reconcile()
        (item,) = await world.breaks()
        stated = await world.gateway.balances()
    finally:
        await asyncio.to_thread(control, "POST", "balance", {**dust, "free": "0"})
    cured = await world.reconcile()

    assert run.outcome is Outcome.BROKEN
    assert (item.kind, item.subject) == ("unknown_asset", "asset:USDC")
    assert (item.ours, item.theirs) == ("not registered", "0.00000001")
    assert "USDC" not in {balance.asset for balance in stated}
    assert cured.outcome is Outcome.CLEAN
    assert await world.breaks() == []


async def test_a_trade_that_waits_too_long_to_be_posted_is_a_break_and_explains_the_balance(
    world: World,
) -> None:
    order = await intended(world.engine, world.ticket("unposted"), recv_window=LONG)
    await submit(world.engine, world.gateway, order.id, holder="t", clock=CLOCK)
    young = await world.reconcile()
    old = await world.reconcile(policy=replace(POLICY, unposted_max=timedelta(0)))
    found = {item.kind for item in await world.breaks()}
    await world.post()
    posted = await world.reconcile()

    assert (young.outcome, old.outcome) == (Outcome.CLEAN, Outcome.BROKEN)
    assert found == {"fill_unposted"}
    assert any(row.unposted > 0 for row in young.balances)
    assert posted.outcome is Outcome.CLEAN


async def test_a_transfer_under_way_explains_a_balance_and_another_amount_does_not(
    world: World,
) -> None:
    world.sim.control("POST", "fund", {"asset": "USDT", "amount": "100"})

    async def exactly(*_: Any) -> list[tuple[str, int]]:
        return [("USDT", 100_000_000), ("USDT", 5), ("ETH", 7)]

    async def other(*_: Any) -> list[tuple[str, int]]:
        return [("USDT", 99_999_999)]

    under_way = await world.reconcile(transfers=exactly)
    unexplained = await world.reconcile(transfers=other)

    assert under_way.outcome is Outcome.CLEAN
    assert {row.asset: row.in_transit for row in under_way.balances}["USDT"] == 100_000_000
    assert unexplained.outcome is Outcome.BROKEN


# People.


async def broken(world: World) -> VenueBreak:
    world.sim.control("POST", "fund", {"asset": "USDT", "amount": "7"})
    await world.reconcile()
    (found,) = await world.breaks()
    return found


async def test_an_explanation_stands_until_the_figures_change(world: World) -> None:
    found = await broken(world)
    cleo = await world.operator("cleo")
    said = await transact(
        world.engine,
        lambda c: explain_break(c, found.id, by=cleo, reason="a gift", now=CLOCK.now()),
    )
    run = await world.reconcile()
    (explained,) = await world.breaks(frozenset({BreakState.EXPLAINED}))
    world.sim.control("POST", "fund", {"asset": "USDT", "amount": "1"})
    await world.reconcile()
    (reopened,) = await world.breaks()

    assert said.state is explained.state is BreakState.EXPLAINED
    assert run.outcome is Outcome.BROKEN  # it is explained, not gone
    assert (reopened.id, reopened.explanation) == (found.id, "")


async def test_it_takes_two_people_to_close_a_break_without_evidence(world: World) -> None:
    found = await broken(world)
    cleo, ada, ben = [await world.operator(code) for code in ("cleo", "ada", "ben")]

    async def say(verb: Any, **said: Any) -> VenueBreak:
        return await transact(world.engine, lambda c: verb(c, found.id, now=CLOCK.now(), **said))

    with pytest.raises(BreakNotStanding, match="nobody proposed"):
        await say(dismiss_break, by=ada, signature=bytes(64))
    with pytest.raises(NotAuthorised):
        await say(propose_dismissal, by=ben, reason="no role for it")
    with pytest.raises(BadInput):
        await say(propose_dismissal, by=cleo, reason=" ")
    proposed = await say(propose_dismissal, by=cleo, reason="the venue's gift")
    signed = operator_keypair("ada").sign(dismissal_bytes(proposed))
    own = operator_keypair("cleo").sign(dismissal_bytes(proposed))
    with pytest.raises(BreakNotStanding, match="cannot agree"):
        await say(dismiss_break, by=cleo, signature=own)
    with pytest.raises(NotAuthorised):
        await say(dismiss_break, by=ada, signature=bytes(64))
    dismissed = await say(dismiss_break, by=ada, signature=signed)
    quiet = await world.reconcile()
    world.sim.control("POST", "fund", {"asset": "USDT", "amount": "1"})
    loud = await world.reconcile()
    (reopened,) = await world.breaks()

    assert (dismissed.state, quiet.outcome) == (BreakState.DISMISSED, Outcome.CLEAN)
    assert quiet.breaks == (found.id,)
    assert loud.outcome is Outcome.BROKEN
    assert (reopened.id, reopened.dismissed_by) == (found.id, None)
    with pytest.raises(NoVenueBreak):
        await transact(
            world.engine,
            lambda c: explain_break(c, quiet.id, by=cleo, reason="x", now=CLOCK.now()),
        )


async def test_the_database_knows_the_same_edges_as_the_model(engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        source = await conn.scalar(
            text("SELECT prosrc FROM pg_proc WHERE proname = :name"),
            {"name": trigger_name(BREAK_STATES)},
        )

    assert source == trigger_statements(BREAK_STATES)[0].split("$$")[1]


async def test_a_day_has_one_slot_however_many_ask_for_it(engine: AsyncEngine) -> None:
    now = CLOCK.now()

    async def ask(conn: AsyncConnection) -> list[bool]:
        return [await enqueue_daily(conn, "sim", "desk", now=now) for _ in range(2)]

    assert await transact(engine, ask) == [True, False]


# Under load, and after any faults.


async def test_trading_all_the_while_is_no_break(world: World) -> None:
    stop = asyncio.Event()

    async def trade() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            side = Side.BUY if number % 2 else Side.SELL
            price = "3100" if side is Side.BUY else "2900"
            await world.trade(f"load-{number}", lots=100, side=side, price=price)

    async with asyncio.TaskGroup() as group:
        group.create_task(trade())
        runs = [await world.reconcile() for _ in range(3)]
        world.sim.control("POST", "fund", {"asset": "USDT", "amount": "7"})
        funded = await world.reconcile()
        stop.set()
    (found,) = await world.breaks()

    assert [(run.outcome, run.breaks) for run in runs] == [(Outcome.CLEAN, ())] * 3
    assert all(row.agrees for run in runs for row in run.balances)
    assert (funded.outcome, found.subject) == (Outcome.BROKEN, "balance:USDT")
    assert {row.asset: row.difference for row in funded.balances}["USDT"] == 7_000_000


async def test_an_account_that_trades_after_every_statement_is_compared_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, number = world.gateway.balances, 0

    async def traded_after() -> list[VenueBalance]:
        nonlocal number
        number += 1
        stated = await state()
        side = Side.BUY if number % 2 else Side.SELL
        price = "3100" if side is Side.BUY else "2900"
        await world.trade(f"after-{number}", lots=100, side=side, price=price)
        return stated

    monkeypatch.setattr(world.gateway, "balances", traded_after)
    agreed = await world.reconcile()
    world.sim.control("POST", "fund", {"asset": "USDT", "amount": "7"})
    funded = await world.reconcile()
    (found,) = await world.breaks()

    assert agreed.outcome is Outcome.CLEAN
    assert any(row.traded_after for row in agreed.balances)
    assert (funded.outcome, found.subject) == (Outcome.BROKEN, "balance:USDT")


async def test_a_list_that_is_late_for_a_moment_is_no_break(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream was first, and the list of trades shows the trade after the first look at it."""
    order = await world.trade("late")
    (*_, newest_fill) = await world.gateway.fills_of_order(order)
    await asyncio.sleep(POLICY.settling / timedelta(seconds=1) + 0.05)
    listed, calls = world.gateway.fills, 0

    async def late(symbol: str, cursor: str) -> FillPage:
        nonlocal calls
        calls += 1
        page = await listed(symbol, cursor)
        if calls > 3:
            return page
        kept = tuple(item for item in page.fills if item.trade_id != newest_fill.trade_id)
        return replace(page, fills=kept)

    monkeypatch.setattr(world.gateway, "fills", late)
    run = await world.reconcile()

    assert calls > 3
    assert (run.outcome, await world.breaks()) == (Outcome.CLEAN, [])


async def test_two_runs_at_once_agree_on_what_they_find(world: World) -> None:
    world.sim.control("POST", "fund", {"asset": "USDT", "amount": "7"})
    async with asyncio.TaskGroup() as group, world.owner.begin() as conn:
        # Until both are about to write, neither can.
        await conn.execute(text("LOCK TABLE trading.venue_reconciliation IN SHARE MODE"))
        both = [group.create_task(world.reconcile()) for _ in range(2)]
        await wait_or_are_done(world.engine, *both)
    (found,) = await world.breaks()

    assert {task.result().outcome for task in both} == {Outcome.BROKEN}
    assert {task.result().breaks for task in both} == {(found.id,)}


async def test_a_run_that_was_overtaken_changes_nothing(world: World) -> None:
    """It saw the account before the other did: what it did not find may be there now."""
    at, before = CLOCK.now(), world.free("USDT")
    world.sim.control("POST", "fund", {"asset": "USDT", "amount": "7"})
    newer = await world.reconcile()
    world.sim.control("POST", "balance", {"asset": "USDT", "free": before})
    older = await world.reconcile(clock=ManualClock(at))

    assert newer.outcome is older.outcome is Outcome.BROKEN
    assert [item.seen_run for item in await world.breaks()] == [newer.id]


async def test_only_a_look_at_its_symbol_closes_a_break(world: World) -> None:
    placed = await world.by_hand.create_order("BTC/USDT", "limit", "buy", 0.001, 20000)
    named = await reconcile_account(
        world.engine, world.gateway, [SYMBOL, "BTCUSDT"], book=BOOK, clock=CLOCK, policy=POLICY
    )
    unnamed = await world.reconcile()
    await world.by_hand.cancel_order(placed["id"], "BTC/USDT")
    cured = await world.reconcile()

    assert len(named.breaks) == 1
    assert unnamed.breaks == named.breaks
    assert (cured.outcome, cured.breaks) == (Outcome.CLEAN, ())


async def test_trades_in_another_pair_before_the_opening_are_in_the_opening_balances(
    world: World,
) -> None:
    async def buy() -> None:
        await world.by_hand.create_order(
            "BTC/USDT", "limit", "buy", 0.001, 70000, {"timeInForce": "IOC"}
        )

    await buy()
    statement = "UPDATE venues.balance_snapshot SET taken_at = :at WHERE is_opening"
    await world.as_owner(statement, at=CLOCK.now())
    first = await collect(world.engine, world.gateway, "BTCUSDT", clock=CLOCK)
    run = await reconcile_account(
        world.engine, world.gateway, ["BTCUSDT"], book=BOOK, clock=CLOCK, policy=POLICY
    )
    again = [
        await reconcile_account(
            world.engine, world.gateway, ["BTCUSDT"], book=BOOK, clock=CLOCK, policy=POLICY
        )
        for _ in range(2)
    ]
    missing = [item for item in await world.breaks() if item.kind == "fill_missing"]
    await buy()
    later = await collect(world.engine, world.gateway, "BTCUSDT", clock=CLOCK)

    assert (first.new, missing) == (0, [])
    assert [item.counts["fills_theirs"] for item in (run, *again)] == [0, 0, 0]
    assert later.new > 0


async def test_an_order_that_the_venue_lists_by_its_end_is_ours_however_old(world: World) -> None:
    order = await world.trade("old")
    statement = "UPDATE venues.venue_order SET created_at = :at WHERE id = :id"
    await world.as_owner(statement, at=CLOCK.now() - timedelta(days=30), id=order.id)
    run = await world.reconcile()

    assert (run.outcome, await world.breaks()) == (Outcome.CLEAN, [])


async def test_thousands_of_breaks_are_listed_in_pages_and_closed_by_one_run(world: World) -> None:
    first = await world.reconcile()
    now = CLOCK.now()
    many = [
        VenueBreak(
            id=derive_id(now, "test", number),
            book=BOOK,
            venue="sim",
            account="desk",
            kind="fill_missing",
            subject=f"trade:{SYMBOL}:{number}",
            ours="nothing",
            theirs="a trade",
            state=BreakState.OPEN,
            opened_at=now,
            opened_run=first.id,
            seen_at=now,
            seen_run=first.id,
        )
        for number in range(6_000)
    ]
    await transact(world.engine, lambda conn: insert_breaks(conn, many))
    listed: list[VenueBreak] = []
    async with world.engine.connect() as conn:
        while page := await list_breaks(
            conn, "sim", "desk", limit=10**9, after=listed[-1] if listed else None
        ):
            assert len(page) <= PAGE_MAX
            listed += page
    run = await world.reconcile()

    assert {item.id for item in listed} == {item.id for item in many}
    assert len(listed) == 6_000
    assert (run.outcome, run.counts["breaks_closed"]) == (Outcome.CLEAN, 6_000)


FRAME_FAULTS = ("ws_bad_json", "ws_wrong_types", "ws_drop", "ws_duplicate", "ws_swap", "ws_close")
ORDER_FAULTS = ("reset_after_accept", "truncated_200", "status_503", "timeout_1007_after_accept")
SEEDED = (1, 2)


@pytest.mark.parametrize("seed", SEEDED)
async def test_after_any_faults_and_rest_an_account_reconciles(world: World, seed: int) -> None:
    chance = random.Random(seed)
    stream = BinanceStream(
        wanted=gateway_settings(world.sim), clock=CLOCK, venue_time=world.gateway.venue_time
    )
    supervisor = Supervisor(
        engine=world.engine,
        stream=stream,
        gateway=world.gateway,
        symbols={SYMBOL},
        clock=CLOCK,
        chance=chance.random,
        policy=StreamPolicy(
            audit_every=timedelta(milliseconds=300),
            audit_grace=timedelta(milliseconds=300),
            backoff_max=timedelta(milliseconds=200),
        ),
        resolve=QUICK,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(supervisor.run())
        for number in range(8):
            world.sim.fault(chance.choice(FRAME_FAULTS), "user", skip=chance.randrange(4))
            if chance.random() < 0.5:
                world.sim.fault(chance.choice(ORDER_FAULTS), "/api/v3/order", method="POST")
            order = await intended(world.engine, world.ticket(f"{seed}-{number}", lots=100))
            await submit(world.engine, world.gateway, order.id, holder="t", clock=CLOCK)
        world.sim.control("DELETE", "faults")
        async with asyncio.timeout(60):
            while await resume(  # noqa: ASYNC110  the venue is asked
                world.engine, world.gateway, holder="t", clock=CLOCK, policy=QUICK
            ):
                await asyncio.sleep(0.1)
        running.cancel()
    await world.post()

    run = await world.reconcile()
    true = {str(fill["id"]) for fill in world.sim.state()["accounts"]["desk"]["fills"]}
    async with world.engine.connect() as conn:
        rows = await conn.execute(text("SELECT trade_id FROM venues.fill"))

    assert (run.outcome, await world.breaks()) == (Outcome.CLEAN, [])
    assert set(rows.scalars()) <= true
