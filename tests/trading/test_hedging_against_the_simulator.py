"""Hedging end to end: deals in the ledger, orders through ccxt, a venue that misbehaves or dies.

The invariant of every story: what the venue traded, what is on record and what is posted are the
same, the books agree with the venue's balances, and the position is flat within a lot.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from kernel.events import list_history
from kernel.money import Asset, Price
from kernel.settings import Secret
from ledger.queries import list_accounts
from ledger.testing import enforce_lock_order
from marketdata.model import Instrument, PriceRecord, Quality
from marketdata.prices import get_price, record_price
from marketdata.testing import StillFeed, book_view
from registry.testing import ETH, USDT
from tests.trading.conftest import BOOK, DESK, balances, booked, request
from tests.venues.conftest import KILLED, ORDER_TIMEOUT
from tests.venues.in_thread import SimulatorThread
from trading.errors import HedgeLineConflict, NoHedgeLine
from trading.hedges.fills import post_fills
from trading.hedges.hedger import Hedger, hedge_once, hedge_until_done
from trading.hedges.lines import list_lines, open_line, set_line_state
from trading.hedges.model import (
    HedgeLine,
    HedgePlace,
    HedgePolicy,
    HedgeReport,
    HedgeState,
    HedgeVerdict,
)
from trading.model import DealSide
from trading.venue_accounts import open_venue_account
from trading.venue_reconciliation import reconcile_account
from trading.venue_reconciliation_model import ReconcilePolicy, VenueReconciled
from venues.account_state import halt, reduce_only, release
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.gateway import CcxtGateway, GatewaySettings, open_gateway
from venues.fills import collect, list_fills
from venues.lifecycle import ResolvePolicy
from venues.model import AccountState, OrderState, Placement, VenueBalance, VenueOrder
from venues.orders import list_orders
from venues.records import BINANCE
from venues.simulator.testing import SimulatorProcess

CLOCK = SystemClock()
BNB = Asset("BNB", 8)
ORDER_PATH = "/api/v3/order"
PLACE = HedgePlace("sim", "desk", "ETHUSDT")
HERE = (PLACE.venue, PLACE.account)
LINE = HedgeLine(desk=DESK, asset="ETH", places=(PLACE,))
POLICY = HedgePolicy(
    recv_window=timedelta(seconds=2),
    intent_age_max=timedelta(milliseconds=1_500),
    resolve=ResolvePolicy(
        margin=timedelta(milliseconds=100),
        not_founds=2,
        pause=timedelta(milliseconds=50),
        looks_max=60,
    ),
)
V = HedgeVerdict
LOT = 10**14


@pytest.fixture
def sim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SimulatorProcess]:
    kind = getattr(request, "param", SimulatorThread)
    arguments = ("--step-ms", "0", "--balance", "ETH=100", "USDT=1000000", "BNB=0")
    with kind(tmp_path / "venue", *arguments) as process:
        yield process


@pytest.fixture
async def gateway(sim: SimulatorProcess) -> AsyncIterator[CcxtGateway]:
    wanted = GatewaySettings(
        venue="sim",
        account="desk",
        capabilities=BINANCE,
        endpoint=Endpoint(http_url=sim.url, ws_url=sim.ws_url),
        credentials=Credentials(api_key=sim.ready["api_key"], secret=Secret(sim.ready["secret"])),
        assets={asset.code: asset for asset in (ETH, USDT, BNB)},
        order_timeout=ORDER_TIMEOUT,
        read_timeout=timedelta(seconds=10),
        rate_limit=False,
    )
    async with open_gateway(wanted, CLOCK) as opened:
        yield opened


@pytest.fixture
async def grid(gateway: CcxtGateway) -> Instrument:
    return await gateway.instrument("ETHUSDT")


class LiveFeed(StillFeed):
    """Shows the venue's own top of book as fresh as it can be: what a real feed does, at once."""

    def __init__(self, sim: SimulatorProcess, grid: Instrument) -> None:
        super().__init__()
        self._sim = sim
        self._grid = grid
        self.down = False

    def book(self, symbol: str) -> Any:
        if not self.down:
            state = self._sim.state()["symbols"][symbol]
            self.show(
                book_view(
                    state["bids"],
                    state["asks"],
                    at=CLOCK.now(),
                    instrument=self._grid,
                    sequence=state["update_id"],
                )
            )
        return super().book(symbol)


@pytest.fixture
async def hedger(
    house: AsyncEngine, gateway: CcxtGateway, sim: SimulatorProcess, grid: Instrument
) -> Hedger:
    await open_venue_account(house, gateway, ["ETHUSDT"], book=BOOK, clock=CLOCK)
    await transact(
        house, lambda conn: open_line(conn, LINE, by="dora", reason="test", now=CLOCK.now())
    )
    return Hedger(
        engine=house,
        gateways={HERE: gateway},
        feeds={"sim": LiveFeed(sim, grid)},
        clock=CLOCK,
        policy=POLICY,
        book=BOOK,
    )


async def hedged(hedger: Hedger) -> list[HedgeReport]:
    return await hedge_until_done(hedger, DESK, "ETH")


async def reconciled(hedger: Hedger) -> tuple[VenueReconciled, ...]:
    run = await reconcile_account(
        hedger.engine,
        hedger.gateways[HERE],
        ["ETHUSDT"],
        book=BOOK,
        clock=CLOCK,
        policy=ReconcilePolicy(settling=timedelta(milliseconds=100)),
    )
    return run.balances


async def require_all_agrees(hedger: Hedger, sim: SimulatorProcess) -> None:
    """The venue's fills = fills on record = fills posted, and every balance agrees."""
    real = {fill["id"]: fill["qty"] for fill in sim.state()["accounts"]["desk"]["fills"]}
    async with hedger.engine.connect() as conn:
        known = await list_fills(conn, "sim", "desk", "ETHUSDT")
        posted = (await conn.execute(text("SELECT trade_id FROM trading.fill_posting"))).scalars()
        assert {str(key) for key in real} == {fill.trade_id for fill in known} == set(posted)
    assert sum(ETH.parse(qty) for qty in real.values()) == sum(f.base_units for f in known)
    assert [row for row in await reconciled(hedger) if not row.agrees] == []


async def test_a_sale_is_hedged_posted_with_its_fees_and_flat_within_a_lot(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    await booked(hedger.engine, request())

    with enforce_lock_order(hedger.engine):
        reports = await hedged(hedger)

    assert [r.verdict for r in reports] == [V.ORDER, V.ORDER, V.BELOW_MINIMUM]
    first, second, last = reports
    assert (first.before, first.after) == (-ETH.parse("10"), -ETH.parse("0.01"))
    assert second.order is not None
    assert second.order.quantity == "0.01"
    assert 0 < last.residual < LOT
    assert last.after == -last.residual
    await require_all_agrees(hedger, sim)
    books = await balances(hedger.engine)
    assert books["venue:sim/desk ETH"] == "109.99999"
    assert books["conversion:otc ETH"] == "-0.00001"
    assert float(books["expense:venue-fee USDT"].replace(",", "")) == pytest.approx(30, rel=0.01)


async def test_an_order_says_which_price_it_was_planned_on(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    await booked(hedger.engine, request())
    (report, *_) = await hedged(hedger)

    assert report.order is not None
    async with hedger.engine.connect() as conn:
        intent, *_ = await list_history(conn, "venue-order", report.order.id)
        from_reason = intent.reason.rpartition("mid ")[2]
        price = await get_price(conn, UUID(from_reason))
    assert intent.actor == "system:hedger"
    assert price.record.quality is Quality.GOOD
    assert price.record.constituents[0]["venue"] == "sim"


async def test_a_purchase_is_hedged_by_a_sale_with_its_fee_in_the_quote_asset(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    await booked(hedger.engine, request(side=DealSide.DESK_BUYS))

    reports = await hedged(hedger)

    assert [r.verdict for r in reports] == [V.ORDER, V.FLAT]
    assert reports[-1].after == 0
    await require_all_agrees(hedger, sim)
    assert (await balances(hedger.engine))["venue:sim/desk ETH"] == "90"


async def test_opposite_deals_are_netted_before_anything_is_hedged(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    await booked(hedger.engine, request("a"))
    await booked(hedger.engine, request("b", side=DealSide.DESK_BUYS, party="birch"))

    reports = await hedged(hedger)

    assert [r.verdict for r in reports] == [V.FLAT]
    assert sim.state()["accounts"]["desk"]["orders"] == []


@pytest.mark.parametrize("price", ["600", None])
async def test_a_fee_in_a_third_asset_is_valued_with_a_recorded_price_or_stays_in_kind(
    hedger: Hedger, sim: SimulatorProcess, price: str | None
) -> None:
    sim.control("POST", "fees", {"asset": "BNB"})
    sim.control("POST", "fund", {"asset": "BNB", "amount": "5"})
    if price is not None:
        record = PriceRecord(
            price=Price.parse(price, BNB, USDT),
            kind="venue-mid",
            quality=Quality.GOOD,
            observed_at=CLOCK.now(),
        )
        await transact(hedger.engine, lambda c: record_price(c, record, now=CLOCK.now()))
    await booked(hedger.engine, request())

    reports = await hedged(hedger)

    assert [r.verdict for r in reports] == [V.ORDER, V.FLAT]
    books = await balances(hedger.engine)
    assert ("conversion:otc BNB" in books) is (price is not None)
    assert ("expense:venue-fee BNB" in books) is (price is None)
    assert ("expense:venue-fee USDT" in books) is (price is not None)
    rows = {row.asset: row.agrees for row in await reconciled(hedger)}
    assert rows == {"ETH": True, "USDT": True, "BNB": False}  # the funding is not in the books


LANDS = ["hang_after_accept", "reset_after_accept", "truncated_200", "timeout_1007_after_accept"]
DOES_NOT = ["hang_before_accept", "reset_before", "status_503", "rate_limited_429"]


@pytest.mark.parametrize("fault", [*LANDS, *DOES_NOT])
async def test_whatever_happens_to_the_first_order_the_position_is_hedged_once(
    hedger: Hedger, sim: SimulatorProcess, fault: str
) -> None:
    await booked(hedger.engine, request())
    sim.fault(fault, ORDER_PATH, method="POST", seconds=6)

    await hedged(hedger)
    reports = await hedged(hedger)

    assert reports[-1].verdict is V.BELOW_MINIMUM
    assert abs(reports[-1].after) < LOT
    await require_all_agrees(hedger, sim)


async def until_the_venue_has_an_order(sim: SimulatorProcess) -> None:
    async with asyncio.timeout(20):
        while not (await asyncio.to_thread(sim.state))["accounts"]["desk"]["orders"]:  # noqa: ASYNC110  the venue is another process
            await asyncio.sleep(0.02)


@KILLED
async def test_the_venue_killed_in_the_middle_of_the_order_ends_with_the_right_fills(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    await booked(hedger.engine, request())
    sim.fault("hang_after_accept", ORDER_PATH, method="POST", seconds=30)
    quick = replace(hedger, policy=replace(POLICY, resolve=replace(POLICY.resolve, looks_max=3)))

    async with asyncio.TaskGroup() as group:
        passing = group.create_task(hedge_once(quick, DESK, "ETH"))
        await until_the_venue_has_an_order(sim)
        await asyncio.to_thread(sim.kill)
    during = passing.result()
    feed = hedger.feeds["sim"]
    assert isinstance(feed, LiveFeed)
    feed.down = True
    still = await hedge_once(quick, DESK, "ETH")
    await asyncio.to_thread(sim.start)
    feed.down = False
    reports = await hedged(hedger)

    assert during.verdict is still.verdict is V.VENUE_DOWN
    assert during.order is not None
    assert during.order.state is OrderState.UNKNOWN
    assert reports[-1].verdict is V.BELOW_MINIMUM
    await require_all_agrees(hedger, sim)
    orders = sim.state()["accounts"]["desk"]["orders"]
    assert [order["origQty"] for order in orders] == ["10.00000000", "0.01000000"]


async def test_two_hedgers_at_once_do_not_double(hedger: Hedger, sim: SimulatorProcess) -> None:
    await booked(hedger.engine, request())

    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(hedge_once(replace(hedger, holder=f"h{n}"), DESK, "ETH"))
    await hedged(hedger)

    orders = sim.state()["accounts"]["desk"]["orders"]
    assert sum(ETH.parse(order["executedQty"]) for order in orders) == ETH.parse("10.01")
    await require_all_agrees(hedger, sim)


async def test_while_somebody_holds_a_line_nobody_else_plans_or_posts_it(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    """Else a hedge could be planned between the posting of a fill and its mark."""
    await booked(hedger.engine, request())
    hold = text("SELECT 1 FROM trading.hedge WHERE desk = 'otc' AND asset = 'ETH' FOR UPDATE")

    async with asyncio.TaskGroup() as group, hedger.engine.begin() as conn:
        await conn.execute(hold)
        posting = group.create_task(
            transact(
                hedger.engine, lambda c: post_fills(c, DESK, "ETH", book=BOOK, now=CLOCK.now())
            )
        )
        passing = group.create_task(hedge_once(hedger, DESK, "ETH"))
        await asyncio.sleep(0.8)
        waiting = (posting.done(), passing.done())
        meanwhile = sim.state()["accounts"]["desk"]["orders"]

    assert waiting == (False, False)
    assert meanwhile == []
    assert posting.result() == []
    assert passing.result().verdict is V.ORDER


class Dies(Exception):
    """Our own process ends here."""


class DyingGateway:
    """A gateway in a process that ends right before or right after it sends an order."""

    def __init__(self, inner: Any, *, after_sending: bool) -> None:
        self._inner = inner
        self._after_sending = after_sending

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def place(self, order: VenueOrder, *, after: Any = None) -> Placement:
        if self._after_sending:
            await self._inner.place(order, after=after)
        raise Dies


@pytest.mark.parametrize("after_sending", [True, False])
async def test_a_hedger_that_dies_around_sending_is_continued_by_the_next(
    hedger: Hedger,
    sim: SimulatorProcess,
    monkeypatch: pytest.MonkeyPatch,
    after_sending: bool,  # noqa: FBT001  a row of the table
) -> None:
    monkeypatch.setattr("venues.orders.LEASE", timedelta(milliseconds=1_500))
    await booked(hedger.engine, request())
    dying: Any = DyingGateway(hedger.gateways[HERE], after_sending=after_sending)
    with pytest.RaisesGroup(Dies):
        await hedge_once(replace(hedger, gateways={HERE: dying}), DESK, "ETH")

    meanwhile = await hedge_once(hedger, DESK, "ETH")
    await asyncio.sleep(1.6)
    reports = await hedged(hedger)

    # What the venue has is seen by whoever looks, whose order it was; what it has not is waited for.
    assert meanwhile.verdict is (V.ORDER if after_sending else V.IN_FLIGHT)
    assert reports[-1].verdict is V.BELOW_MINIMUM
    await require_all_agrees(hedger, sim)


async def test_a_hedger_that_dies_before_it_sends_leaves_an_intent_that_is_given_up(
    hedger: Hedger, sim: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object, **__: object) -> VenueOrder:
        raise Dies

    await booked(hedger.engine, request())
    with monkeypatch.context() as patch:
        patch.setattr("trading.hedges.sending.submit", dies)
        with pytest.RaisesGroup(Dies):
            await hedge_once(hedger, DESK, "ETH")
    young = await hedge_once(hedger, DESK, "ETH")
    await asyncio.sleep(1.6)
    reports = await hedged(hedger)

    assert young.verdict is V.IN_FLIGHT
    assert reports[-1].verdict is V.BELOW_MINIMUM
    async with hedger.engine.connect() as conn:
        first, *_ = await list_orders(conn, "sim", "desk")
    assert (first.state, first.signed_at) == (OrderState.NOT_PLACED, None)
    await require_all_agrees(hedger, sim)


async def test_while_an_outcome_is_unknown_no_further_order_is_sent(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    await booked(hedger.engine, request("a"))
    sim.fault("reset_before", ORDER_PATH, method="POST")
    sim.fault("status_503", ORDER_PATH, method="GET", count=1_000)
    quick = replace(hedger, policy=replace(POLICY, resolve=replace(POLICY.resolve, looks_max=2)))

    first = await hedge_once(quick, DESK, "ETH")
    await booked(hedger.engine, request("b"))
    second = await hedge_once(quick, DESK, "ETH")
    sim.control("DELETE", "faults")
    reports = await hedged(hedger)

    assert first.order is not None
    assert first.order.state is OrderState.UNKNOWN
    assert second.verdict in {V.UNSETTLED, V.IN_FLIGHT}
    assert second.order is None
    assert reports[-1].verdict is V.BELOW_MINIMUM
    await require_all_agrees(hedger, sim)


async def test_a_position_larger_than_the_book_is_hedged_in_steps(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    await booked(hedger.engine, request(base_units=ETH.parse("30"), fee_units=0))
    careful = replace(hedger, policy=replace(POLICY, order_units_max=ETH.parse("12")))

    reports = await hedged(careful)

    sizes = [r.order.quantity for r in reports if r.order is not None]
    assert sizes == ["12", "12", "6.024", "0.006"]
    assert reports[-1].verdict is V.BELOW_MINIMUM
    await require_all_agrees(hedger, sim)


async def test_a_halted_line_places_nothing_and_goes_on_when_told(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    await booked(hedger.engine, request())

    async def switch(state: HedgeState) -> HedgeLine:
        return await transact(
            hedger.engine,
            lambda conn: set_line_state(
                conn, DESK, "ETH", state, by="ada", reason="drill", now=CLOCK.now()
            ),
        )

    await switch(HedgeState.HALTED)
    halted = await hedged(hedger)
    line = await switch(HedgeState.ACTIVE)
    going_on = await hedged(hedger)

    assert [r.verdict for r in halted] == [V.HALTED]
    assert halted[0].residual == ETH.parse("10")
    assert line.state is HedgeState.ACTIVE
    assert going_on[-1].verdict is V.BELOW_MINIMUM


async def test_a_halted_account_places_nothing_and_one_that_may_only_reduce_hedges_on(
    hedger: Hedger,
) -> None:
    await booked(hedger.engine, request())
    where = (hedger.gateways[HERE].venue, hedger.gateways[HERE].account)

    async def told(verb: Callable[..., Awaitable[AccountState]], **who: str) -> None:
        await transact(
            hedger.engine, lambda conn: verb(conn, *where, reason="drill", now=CLOCK.now(), **who)
        )

    await told(halt, actor="ada")
    halted = await hedged(hedger)
    await told(release, operator="ada")
    await told(reduce_only, actor="system:drill")
    reducing = await hedged(hedger)

    assert [r.verdict for r in halted] == [V.HALTED]
    assert reducing[-1].verdict is V.BELOW_MINIMUM


class RichGateway:
    """A gateway that told our balances before somebody else spent them."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def balances(self) -> list[VenueBalance]:
        return [VenueBalance(asset="USDT", free=USDT.parse("1000000"), locked=0, dust=0)]


async def test_a_refused_order_ends_the_round_with_the_venues_reason(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    await booked(hedger.engine, request())
    sim.control("POST", "balance", {"asset": "USDT", "free": "100"})
    rich: Any = RichGateway(hedger.gateways[HERE])

    reports = await hedged(replace(hedger, gateways={HERE: rich}))

    assert [r.verdict for r in reports] == [V.REFUSED]
    assert "insufficient balance" in reports[0].detail
    assert reports[0].residual == ETH.parse("10")


async def test_no_more_is_ordered_than_what_the_venue_says_is_free(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    await booked(hedger.engine, request())
    sim.control("POST", "balance", {"asset": "USDT", "free": "100"})

    reports = await hedged(hedger)

    assert [r.verdict for r in reports] == [V.ORDER, V.NO_FUNDS]
    assert reports[0].order is not None
    assert reports[0].order.state is OrderState.FILLED
    assert reports[-1].residual > ETH.parse("9.9")


async def test_no_hedge_on_a_stale_book(hedger: Hedger, sim: SimulatorProcess) -> None:
    """The book would do, were it younger: at its proper age it is hedged on."""
    await booked(hedger.engine, request())
    view = hedger.feeds["sim"].book("ETHUSDT")
    assert view is not None
    stale = replace(view, received_at=view.received_at - 2 * POLICY.book_age_max)

    for feed, why in ((StillFeed(stale), "stale"), (StillFeed(), "missing")):
        reports = await hedged(replace(hedger, feeds={"sim": feed}))
        assert [(r.verdict, r.detail) for r in reports] == [(V.BOOK_UNUSABLE, f"the book is {why}")]
        assert sim.state()["accounts"]["desk"]["orders"] == []

    fresh = replace(view, received_at=CLOCK.now())
    assert (
        await hedge_once(replace(hedger, feeds={"sim": StillFeed(fresh)}), DESK, "ETH")
    ).verdict is V.ORDER


async def test_a_balance_changed_at_the_venue_shows_as_a_difference_of_that_asset(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    await booked(hedger.engine, request())
    await hedged(hedger)
    sim.control("POST", "balance", {"asset": "ETH", "free": "100"})

    rows = {row.asset: row for row in await reconciled(hedger)}

    assert rows["USDT"].agrees
    assert rows["ETH"].difference == ETH.parse("100") - ETH.parse("109.99999")
    assert not rows["ETH"].agrees


async def test_an_account_is_opened_once_and_lines_do_not_share_an_instrument(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    again = await open_venue_account(
        hedger.engine, hedger.gateways[HERE], ["ETHUSDT"], book=BOOK, clock=CLOCK
    )
    same = await transact(
        hedger.engine,
        lambda conn: open_line(conn, LINE, by="dora", reason="again", now=CLOCK.now()),
    )
    other = replace(LINE, desk="other")

    assert again == []
    assert same == LINE
    with pytest.raises(HedgeLineConflict):
        await transact(
            hedger.engine,
            lambda conn: open_line(conn, other, by="dora", reason="", now=CLOCK.now()),
        )
    async with hedger.engine.connect() as conn:
        assert await list_lines(conn) == [LINE]
    with pytest.raises(NoHedgeLine):
        await hedge_once(hedger, DESK, "BTC")


async def test_an_account_without_anything_in_it_is_opened_once(
    house: AsyncEngine, gateway: CcxtGateway, sim: SimulatorProcess
) -> None:
    """Opened again it would leave out the trades made since."""
    for asset in ("ETH", "USDT"):
        sim.control("POST", "balance", {"asset": asset, "free": "0"})

    async def opened() -> list[VenueBalance]:
        return await open_venue_account(house, gateway, ["ETHUSDT"], book=BOOK, clock=CLOCK)

    nothing = await opened()
    sim.control("POST", "balance", {"asset": "USDT", "free": "1000"})

    assert nothing == []
    assert await opened() == []
    async with house.connect() as conn:
        paths = {(a.path, a.asset) for a in await list_accounts(conn, BOOK, "venue:")}
    assert paths == {("venue:sim/desk", "ETH"), ("venue:sim/desk", "USDT")}
    assert await balances(house) == {}


async def test_of_two_that_open_an_account_at_once_one_does(
    house: AsyncEngine, gateway: CcxtGateway
) -> None:
    async def opened() -> list[VenueBalance]:
        return await open_venue_account(house, gateway, ["ETHUSDT"], book=BOOK, clock=CLOCK)

    async with asyncio.TaskGroup() as group:
        both = [group.create_task(opened()) for _ in range(2)]

    assert sorted(len(task.result()) for task in both) == [0, 2]
    assert (await balances(house))["venue:sim/desk ETH"] == "100"


async def test_a_book_restored_from_a_backup_does_not_take_an_old_order_for_a_new_one(
    hedger: Hedger, sim: SimulatorProcess, owner_engine: AsyncEngine
) -> None:
    """Its line counts from an earlier number; the venue still knows the orders made since."""
    await booked(hedger.engine, request("a"))
    await hedge_once(hedger, DESK, "ETH")
    async with owner_engine.begin() as conn:
        await conn.execute(text("UPDATE trading.hedge SET sequence = 0"))
        await conn.execute(text("DELETE FROM venues.venue_order"))
    await booked(hedger.engine, request("b", base_units=ETH.parse("3")))
    sim.fault("reset_before", ORDER_PATH, method="POST")

    report = await hedge_once(hedger, DESK, "ETH")

    assert report.order is not None
    assert report.order.state is OrderState.NOT_PLACED


async def test_a_fee_is_valued_at_the_fill_however_late_it_is_posted(
    hedger: Hedger, sim: SimulatorProcess
) -> None:
    sim.control("POST", "fees", {"asset": "BNB"})
    sim.control("POST", "fund", {"asset": "BNB", "amount": "5"})
    now = CLOCK.now()
    later = now + timedelta(hours=2)
    for price, at in (("600", now), ("900", later)):
        record = PriceRecord(
            price=Price.parse(price, BNB, USDT),
            kind="venue-mid",
            quality=Quality.GOOD,
            observed_at=at,
        )
        await transact(hedger.engine, partial(record_price, record=record, now=at))
    await booked(hedger.engine, request())
    sim.fault("status_503", "/api/v3/myTrades", method="GET", skip=1, count=100)
    await hedge_once(hedger, DESK, "ETH")
    sim.control("DELETE", "faults")
    await collect(hedger.engine, hedger.gateways[HERE], "ETHUSDT", clock=CLOCK)

    posted = await transact(
        hedger.engine, lambda conn: post_fills(conn, DESK, "ETH", book=BOOK, now=later)
    )

    async with hedger.engine.connect() as conn:
        used = (await conn.execute(text("SELECT fee_price_id FROM trading.fill_posting"))).scalars()
        prices = {(await get_price(conn, price_id)).record.price.format(0) for price_id in used}
    assert posted
    assert prices == {"600 USDT/BNB"}


async def test_the_database_refuses_to_post_a_fill_twice(
    hedger: Hedger, owner_engine: AsyncEngine
) -> None:
    """The guard behind the mark: with the mark taken away, the unique key still holds."""
    await booked(hedger.engine, request())
    await hedged(hedger)
    before = await balances(hedger.engine)
    async with owner_engine.begin() as conn:
        await conn.execute(text("UPDATE venues.fill SET booked_at = NULL"))

    with pytest.raises(DBAPIError, match="pk_fill_posting"):
        await transact(
            hedger.engine,
            lambda conn: post_fills(conn, DESK, "ETH", book=BOOK, now=CLOCK.now()),
        )
    assert await balances(hedger.engine) == before
