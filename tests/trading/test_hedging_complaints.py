"""What users of other engines have suffered when hedging, each as a story that ends well here.

The venues are in memory and know the truth; the deals, orders, trades and postings are on record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.money import Price
from marketdata.model import BookView, Instrument, PriceRecord, Quality
from marketdata.price_model import PriceKind
from marketdata.prices import record_price
from marketdata.testing import StillFeed, book_view
from matching.model import Side
from registry.queries import get_operator
from registry.testing import ETH, USDT, operator_keypair
from risk.limits import desk_limits_bytes, set_desk_limits
from risk.model import DeskLimits
from tests.trading.conftest import BOOK, DESK, booked, request
from trading.deals import amend_deal, cancel_deal
from trading.hedges.hedger import Hedger, hedge_once, hedge_until_done
from trading.hedges.lines import close_place, get_line, open_line
from trading.hedges.model import HedgeLine, HedgePlace, HedgePolicy, HedgeReport, HedgeVerdict
from trading.model import DealSide
from trading.position import position
from venues.claims import LEASE
from venues.lifecycle import ResolvePolicy
from venues.model import OrderState, VenueBalance
from venues.testing import AT_ONCE, GRID, Call, Conduct, ScriptedVenue, Trouble

V = HedgeVerdict
QUICK = HedgePolicy(
    resolve=ResolvePolicy(
        margin=timedelta(seconds=1),
        not_founds=2,
        pause=timedelta(0),
        looks_max=3,
        patience=timedelta(seconds=12),
        escalate_after=timedelta(minutes=5),
    )
)
ONE = 10**18
PLACE = HedgePlace("north", "desk", "ETHUSDT")


@dataclass(slots=True)
class Purse(ScriptedVenue):
    """A scripted venue with money, and what happens while a plan asks about it."""

    meanwhile: Callable[[], Coroutine[Any, Any, object]] | None = None

    async def instrument(self, symbol: str) -> Instrument:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            await happens()
        return await ScriptedVenue.instrument(self, symbol)

    async def balances(self) -> list[VenueBalance]:
        return [VenueBalance(asset=code, free=10**30, locked=0, dust=0) for code in ("ETH", "USDT")]


class LiveFeed(StillFeed):
    """A book as young as it can be, unless it has stopped."""

    def __init__(self, venue: Purse) -> None:
        super().__init__()
        self._venue = venue
        self.stopped_at: datetime | None = None

    def book(self, symbol: str) -> BookView | None:
        del symbol
        return book_view(
            [("2999.00", "50")],
            [("3001.00", "50")],
            at=self.stopped_at or self._venue.now(),
            instrument=replace(GRID, venue=self._venue.venue),
        )


@dataclass
class Desk:
    """One line at some scripted venues, and what hedges it."""

    engine: AsyncEngine
    venues: list[Purse]
    policy: HedgePolicy = QUICK

    def __post_init__(self) -> None:
        self.feeds = {venue.venue: LiveFeed(venue) for venue in self.venues}

    @property
    def hedger(self) -> Hedger:
        return Hedger(
            engine=self.engine,
            gateways={(venue.venue, venue.account): venue for venue in self.venues},
            feeds=self.feeds,
            clock=self.venues[0],
            policy=self.policy,
            book=BOOK,
        )

    async def passes(self) -> list[HedgeReport]:
        return await hedge_until_done(self.hedger, DESK, "ETH")

    async def deal(self, reference: str, amount: str, **changes: Any) -> Any:
        asked = request(reference, base_units=ETH.parse(amount), fee_units=0, **changes)
        return await booked(self.engine, asked, self.venues[0].now())

    async def held(self) -> int:
        async with self.engine.connect() as conn:
            return (await position(conn, BOOK, DESK)).get("ETH", 0)

    def bought(self) -> int:
        """What the venues have truly traded."""
        return sum(
            trade.base_units if trade.side is Side.BUY else -trade.base_units
            for venue in self.venues
            for trade in venue.trades
        )

    async def postings(self) -> int:
        async with self.engine.connect() as conn:
            return int(await conn.scalar(text("SELECT count(*) FROM trading.fill_posting")) or 0)

    def pass_time(self, span: timedelta) -> None:
        for venue in self.venues:
            venue.pass_time(span)


Open = Callable[..., Coroutine[Any, Any, Desk]]


@pytest.fixture
def opened(house: AsyncEngine) -> Open:
    async def work(*names: str) -> Desk:
        desk = Desk(house, [Purse(venue=name) for name in names or ("north",)])
        places = tuple(HedgePlace(venue.venue, "desk", "ETHUSDT") for venue in desk.venues)
        line = HedgeLine(desk=DESK, asset="ETH", places=places)
        now = desk.venues[0].now()
        await transact(house, lambda conn: open_line(conn, line, by="dora", reason="", now=now))
        return desk

    return work


def once(trouble: Trouble, call: Call = Call.PLACE) -> Callable[[Call], Trouble]:
    """That trouble with the first such call; none after it."""
    left = [trouble]
    return lambda asked: left.pop() if asked is call and left else Trouble.NONE


# The hedge leg is missing.


async def test_a_deal_made_while_an_order_is_on_its_way_is_hedged_too(opened: Open) -> None:
    """Hummingbot #2501: filled while a cancel was in flight, no hedge was ever placed."""
    desk = await opened()
    await desk.deal("a", "4")

    async with asyncio.TaskGroup() as group:
        group.create_task(hedge_once(desk.hedger, DESK, "ETH"))
        group.create_task(desk.deal("b", "3"))
    await desk.passes()

    assert (desk.bought(), await desk.held()) == (7 * ONE, 0)


async def test_an_order_that_failed_is_placed_again_by_the_next_look(opened: Open) -> None:
    """Hummingbot #3849: the taker order failed and was not tried again."""
    desk = await opened()
    desk.venues[0].trouble = once(Trouble.BACK_OFF)
    await desk.deal("a", "4")

    await desk.passes()
    reports = await desk.passes()

    assert reports[-1].verdict is V.FLAT
    assert (desk.bought(), await desk.held()) == (4 * ONE, 0)


async def test_three_deals_at_once_are_hedged_as_three(opened: Open) -> None:
    """Hummingbot #855: three fills, two hedges."""
    desk = await opened()

    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(desk.deal(f"d{n}", "2"))
    await desk.passes()

    assert (desk.bought(), await desk.held()) == (6 * ONE, 0)


async def test_several_hedgers_do_not_each_price_off_one_book(opened: Open) -> None:
    """Hummingbot #4779: several takers, priced off one stale book."""
    desk = await opened()
    await desk.deal("a", "4")

    async with asyncio.TaskGroup() as group:
        for n in range(4):
            group.create_task(hedge_once(replace(desk.hedger, holder=f"h{n}"), DESK, "ETH"))
    await desk.passes()
    desk.feeds["north"].stopped_at = desk.venues[0].now()
    desk.pass_time(2 * QUICK.book_age_max)
    await desk.deal("b", "1")
    stale = await desk.passes()

    assert desk.bought() == 4 * ONE
    assert [(report.verdict, report.detail) for report in stale] == [
        (V.BOOK_UNUSABLE, "the book is stale")
    ]


@pytest.mark.parametrize("change", ["cancelled", "amended"])
async def test_a_hedge_of_a_deal_that_was_not_real_is_taken_back(opened: Open, change: str) -> None:
    """Hummingbot #817: the maker fill was a phantom, the hedge was real."""
    desk = await opened()
    deal = await desk.deal("a", "4")
    await desk.passes()
    now = desk.venues[0].now()

    if change == "cancelled":
        await transact(
            desk.engine, lambda conn: cancel_deal(conn, deal.id, by="dora", reason="no", now=now)
        )
    else:
        smaller = request("b", base_units=ONE, fee_units=0)
        await transact(desk.engine, lambda conn: amend_deal(conn, deal.id, smaller, now=now))
    await desk.passes()

    assert await desk.held() == 0
    assert desk.bought() == (0 if change == "cancelled" else ONE)


# The order's answer is lost.


async def test_an_order_whose_answer_is_lost_is_not_placed_again(opened: Open) -> None:
    """Ccxt #2599, hummingbot #493: a timeout, the order was live, the software ordered again."""
    desk = await opened()
    desk.venues[0].trouble = once(Trouble.LOST_ANSWER)
    await desk.deal("a", "4")

    reports = await desk.passes()

    assert reports[-1].verdict is V.FLAT
    assert (desk.venues[0].placements, desk.bought()) == (1, 4 * ONE)


async def test_no_order_is_taken_for_dead_without_the_venues_word_and_others_go_on(
    opened: Open,
) -> None:
    """Hummingbot #8457, nautilus #4152: an outage made live orders disappear, untracked."""
    desk = await opened("north", "south")
    north, south = desk.venues
    desk.policy = replace(QUICK, order_units_max=2 * ONE, legs_max=1)
    north.trouble = lambda _: Trouble.LOST_ANSWER
    await desk.deal("a", "4")

    down = await hedge_once(desk.hedger, DESK, "ETH")
    held_during = await desk.held()
    north.trouble = lambda _: Trouble.NONE
    await desk.passes()

    assert down.left_out[0].startswith("north/desk")
    assert [(order.venue, order.state) for order in down.orders] == [("south", OrderState.FILLED)]
    assert held_during == -2 * ONE
    assert (desk.bought(), await desk.held()) == (4 * ONE, 0)
    assert south.trades


async def test_in_the_worst_case_an_unknown_order_counts_both_ways(opened: Open) -> None:
    """Filled, as far as more buying is concerned; not filled, as far as selling is."""
    desk = await opened()
    north = desk.venues[0]
    north.trouble = lambda call: Trouble.NONE if call is Call.FILLS else Trouble.LOST_REQUEST
    await desk.deal("a", "4")
    first = await hedge_once(desk.hedger, DESK, "ETH")
    await desk.deal("b", "1", side=DealSide.DESK_BUYS)

    second = await hedge_once(desk.hedger, DESK, "ETH")

    assert first.order is not None
    assert first.order.state is OrderState.UNKNOWN
    assert second.orders == ()
    assert second.verdict is V.IN_FLIGHT


# Fills.


async def test_trades_are_posted_once_however_often_they_are_collected(opened: Open) -> None:
    """Nautilus #3046: fills were booked twice after a restart."""
    desk = await opened()
    desk.venues[0].conduct = lambda _: Conduct(trades=((AT_ONCE, 25),) * 4)
    await desk.deal("a", "4")

    await desk.passes()
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(hedge_once(desk.hedger, DESK, "ETH"))

    assert (await desk.postings(), await desk.held()) == (4, 0)


async def test_a_trade_that_comes_after_its_order_ended_is_hedged_back(opened: Open) -> None:
    """Hummingbot #3374: orphan orders filled hours later and nobody noticed."""
    desk = await opened()
    north = desk.venues[0]
    await desk.deal("a", "4")
    await desk.passes()
    late = north.trade(north.orders[0], ONE)

    reports = await desk.passes()
    desk.pass_time(LEASE)
    reports += await desk.passes()

    assert late.base_units == ONE
    assert reports[-1].verdict is V.FLAT
    assert (desk.bought(), await desk.held()) == (4 * ONE, 0)


# Rests below the smallest order.


async def test_a_rest_below_the_smallest_order_is_carried_until_a_deal_makes_it_large_enough(
    opened: Open,
) -> None:
    """Hummingbot #5688: a remainder smaller than the venue's minimum was silently skipped."""
    desk = await opened()
    desk.policy = replace(QUICK, residual_max=GRID.lot // 4)
    await desk.deal("a", "1.00005")

    first = await desk.passes()
    line = await transact(desk.engine, lambda conn: get_line(conn, DESK, "ETH"))
    await desk.deal("b", "0.00005")
    second = await desk.passes()

    assert (first[-1].verdict, first[-1].residual) == (V.BELOW_MINIMUM, GRID.lot // 2)
    assert "cannot be hedged" in first[-1].alarm
    assert line.look is not None
    assert (line.look.verdict, line.look.residual) == (V.BELOW_MINIMUM, GRID.lot // 2)
    assert second[-1].verdict is V.FLAT
    assert (desk.bought(), await desk.held()) == (ONE + GRID.lot, 0)


async def test_what_one_order_leaves_is_bought_by_the_next(opened: Open) -> None:
    """A partial execution is where we are, not an event that somebody has to catch."""
    desk = await opened("north", "south")
    parts = iter([Conduct(trades=((AT_ONCE, 40),), ends_after=timedelta(milliseconds=1))])
    for venue in desk.venues:
        venue.conduct = lambda _: next(parts, Conduct())
    await desk.deal("a", "4")

    reports = await desk.passes()

    assert reports[-1].verdict is V.FLAT
    assert (desk.bought(), await desk.held()) == (4 * ONE, 0)


async def test_flow_of_clients_the_other_way_is_never_traded_at_a_venue(opened: Open) -> None:
    """What two clients share within the window costs no spread; the rest is hedged, exactly."""
    desk = await opened()
    desk.policy = replace(QUICK, internalise=timedelta(seconds=30))
    await desk.deal("a", "4")
    waiting = await desk.passes()
    desk.pass_time(timedelta(seconds=10))
    await desk.deal("b", "3", side=DealSide.DESK_BUYS, party="birch")

    during = await desk.passes()
    desk.pass_time(timedelta(seconds=20))
    after = await desk.passes()

    assert [report.verdict for report in (*waiting, *during)] == [V.INTERNALISING] * 2
    assert after[0].verdict is V.ORDER
    assert (desk.bought(), await desk.held()) == (ONE, 0)


# A limit is smaller than the need, or a place is taken away.


async def limit(desk: Desk, **limits: Any) -> None:
    """Put limits of the desk in USDT into force, with a price by which to judge them."""
    wanted = DeskLimits(**{"desk": DESK, "currency": "USDT", "version": 1, **limits})
    now = desk.venues[0].now()

    async def work(conn: AsyncConnection) -> None:
        price = Price.parse("3000", ETH, USDT)
        index = PriceRecord(
            price=price, kind=PriceKind.INDEX, quality=Quality.GOOD, observed_at=now
        )
        await record_price(conn, index, now=now)
        await set_desk_limits(
            conn,
            wanted,
            by=await get_operator(conn, "ada"),
            approver=await get_operator(conn, "ben"),
            signature=operator_keypair("ben").sign(desk_limits_bytes(wanted)),
            reason="a test",
            now=now,
        )

    await transact(desk.engine, work)


@pytest.mark.parametrize(
    ("limits", "size"),
    [
        ({"order_notional_units": USDT.parse("6100")}, ETH.parse("2.0232")),
        ({"venue_units": {"north": USDT.parse("6100")}}, ETH.parse("2.0232")),
        ({"orders_per_minute": 60}, ETH.parse("5")),
    ],
)
async def test_a_need_beyond_a_limit_is_hedged_in_orders_within_it(
    opened: Open, limits: dict[str, Any], size: int
) -> None:
    """A hedge that waits until all of it may go out at once waits for ever."""
    desk = await opened()
    await limit(desk, **limits)
    await desk.deal("a", "5")

    reports = await desk.passes()

    assert reports[0].orders[0].base_units == size
    assert reports[-1].verdict is V.FLAT
    assert (desk.bought(), await desk.held()) == (5 * ONE, 0)


@pytest.mark.parametrize("limits", [{"orders_per_minute": 1}, {"unknown_orders_max": 1}])
async def test_where_one_order_is_allowed_the_larger_of_two_goes_out(
    opened: Open, limits: dict[str, Any]
) -> None:
    desk = await opened("north", "south")
    await limit(desk, **limits)
    await desk.deal("a", "60")

    first = await hedge_once(desk.hedger, DESK, "ETH")

    assert [order.base_units for order in first.orders] == [50 * ONE]
    assert "no more because of" in first.detail
    assert first.residual == 10 * ONE


async def test_a_limit_that_lets_nothing_pass_is_told_as_an_alarm(opened: Open) -> None:
    desk = await opened()
    desk.policy = replace(QUICK, residual_max=ONE)
    await limit(desk, order_notional_units=1)
    await desk.deal("a", "5")

    (report,) = await desk.passes()

    assert report.verdict is V.LIMITED
    assert "order-notional of ETH" in report.detail
    assert "cannot be hedged" in report.alarm
    assert desk.bought() == 0


async def test_a_place_that_is_closed_while_it_is_asked_gets_no_order(opened: Open) -> None:
    desk = await opened()
    north = desk.venues[0]
    await desk.deal("a", "5")

    async def close() -> None:
        now = north.now()
        await transact(
            desk.engine,
            lambda c: close_place(c, DESK, "ETH", PLACE, by="dora", reason="now", now=now),
        )

    north.meanwhile = close

    (report,) = await desk.passes()

    assert (report.verdict, report.orders, desk.bought()) == (V.HALTED, (), 0)


async def test_a_deal_that_comes_in_while_venues_are_asked_is_not_taken_for_missing_money(
    opened: Open,
) -> None:
    desk = await opened()
    desk.policy = replace(QUICK, residual_max=ONE)
    desk.venues[0].meanwhile = lambda: desk.deal("a", "5")

    first = await hedge_once(desk.hedger, DESK, "ETH")
    rest = await desk.passes()

    assert (first.verdict, first.alarm, first.funding) == (V.IN_FLIGHT, "", ())
    assert rest[-1].verdict is V.FLAT
    assert (desk.bought(), await desk.held()) == (5 * ONE, 0)
