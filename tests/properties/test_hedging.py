"""Hedging under any order of deals, amendments, cancels, trades, faults and deaths, at two venues.

Whatever happens on the way: the position in the ledger is what deals, trades and fees in kind come to;
in the worst case never more is hedged than deals have ever asked for; and once the faults are over the
need is gone, to less than a lot.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import SystemClock, to_unix_ns
from kernel.db import transact
from kernel.money import Price
from ledger.posting import open_book
from marketdata.model import BookView, Instrument
from marketdata.testing import StillFeed, book_view
from matching.model import Side
from registry.changes import found
from registry.testing import ETH, USDT, demo_founding
from tests.properties.dying import live
from trading.deals import amend_deal, book_deal, cancel_deal
from trading.hedges.hedger import Hedger, hedge_once
from trading.hedges.lines import get_line, open_line
from trading.hedges.model import HedgeLine, HedgePlace, HedgePolicy, HedgeVerdict
from trading.hedges.situation import read_exposure
from trading.model import Deal, DealRequest, DealSide
from trading.position import position
from venues.claims import LEASE
from venues.lifecycle import ResolvePolicy
from venues.model import VenueBalance, VenueFill
from venues.testing import AT_ONCE, GRID, Call, Conduct, Placed, ScriptedVenue, Trouble

SCHEDULES = {"dev": 2, "ci": 2, "soak": 500}[os.environ.get("CAUSEWAY_HYPOTHESIS", "dev")]
SEED = 20_261_121
pytestmark = pytest.mark.timeout(180 if SCHEDULES < 100 else 7_200)
BOOK = 1
LOT = GRID.lot
STEPS = 8
LIVES_MAX = 60
POLICY = HedgePolicy(
    order_units_max=4 * 10**18,
    resolve=ResolvePolicy(
        margin=timedelta(seconds=1),
        not_founds=2,
        pause=timedelta(0),
        looks_max=60,
        patience=timedelta(seconds=12),
        escalate_after=timedelta(minutes=5),
    ),
)
TROUBLES = [
    *[Trouble.NONE] * 5,
    *[Trouble.LOST_ANSWER] * 3,
    *[Trouble.LOST_REQUEST] * 2,
    Trouble.LATE_REQUEST,
    Trouble.REFUSED,
    Trouble.BACK_OFF,
]
ASK_TROUBLES = [*[Trouble.NONE] * 10, Trouble.LOST_ANSWER, Trouble.STALE]
CONDUCTS = [
    Conduct(),
    Conduct(trades=((AT_ONCE, 40),), ends_after=timedelta(milliseconds=1)),
    Conduct(trades=(), ends_after=timedelta(milliseconds=1)),
    Conduct(trades=((AT_ONCE, 30), (timedelta(seconds=2), 70))),
]


@dataclass(slots=True)
class Purse(ScriptedVenue):
    """A scripted venue with money, which takes every other fee in kind."""

    async def balances(self) -> list[VenueBalance]:
        return [VenueBalance(asset=code, free=10**30, locked=0, dust=0) for code in ("ETH", "USDT")]

    def trade(self, placed: Placed, units: int, *, fee_asset: str = "") -> VenueFill:
        kind = fee_asset or ("ETH" if len(self.trades) % 2 else "USDT")
        # Without arguments `super` does not know a class whose slots were made anew.
        return ScriptedVenue.trade(self, placed, units, fee_asset=kind)


@dataclass(frozen=True, slots=True)
class Clocks:
    """The time of two venues: that of the one that is further."""

    venues: tuple[Purse, Purse]

    def now(self) -> datetime:
        return max(venue.now() for venue in self.venues)

    def now_ns(self) -> int:
        return to_unix_ns(self.now())

    def pass_time(self, span: timedelta) -> None:
        until = self.now() + span
        for venue in self.venues:
            venue.pass_time(until - venue.now())


class FreshFeed(StillFeed):
    """A book as young as it can be."""

    def __init__(self, venue: Purse, clock: Clocks) -> None:
        super().__init__()
        self._venue = venue
        self._clock = clock

    def book(self, symbol: str) -> BookView | None:
        del symbol
        sides = [("2999.00", "50")], [("3001.00", "50")]
        return book_view(*sides, at=self._clock.now(), instrument=_grid(self._venue.venue))


def _grid(venue: str) -> Instrument:
    return replace(GRID, venue=venue)


@dataclass
class Desk:
    """A desk whose deals come and go while its hedger dies now and then."""

    engine: AsyncEngine
    name: str
    random: Random
    venues: tuple[Purse, Purse]
    deals: dict[UUID, Deal] = field(default_factory=dict)
    asked: list[int] = field(default_factory=lambda: [0])
    counts: Counter[str] = field(default_factory=Counter)
    number: int = 0

    @property
    def clock(self) -> Clocks:
        return Clocks(self.venues)

    @property
    def hedger(self) -> Hedger:
        return Hedger(
            engine=self.engine,
            gateways={(one.venue, one.account): one for one in self.venues},
            feeds={one.venue: FreshFeed(one, self.clock) for one in self.venues},
            clock=self.clock,
            policy=POLICY,
            book=BOOK,
        )

    async def begin(self) -> None:
        places = tuple(HedgePlace(one.venue, one.account, "ETHUSDT") for one in self.venues)
        line = HedgeLine(desk=self.name, asset="ETH", places=places)
        await transact(
            self.engine,
            lambda conn: open_line(conn, line, by="dora", reason="", now=self.clock.now()),
        )

    async def step(self, dies_at: int | None) -> None:
        """Let something happen to the deals, then let the hedger live; check what must hold."""
        await self._deal()
        died, _ = await live(hedge_once(self.hedger, self.name, "ETH"), dies_at)
        self.counts["deaths"] += died
        self.clock.pass_time(LEASE if died else timedelta(seconds=self.random.randrange(4)))
        await self.check_never_too_much()

    async def settle(self) -> None:
        """Hedge without faults until nothing is left to do."""
        for venue in self.venues:
            venue.trouble, venue.conduct = lambda _: Trouble.NONE, lambda _: Conduct()
        verdicts = []
        for _ in range(LIVES_MAX):
            report = await hedge_once(self.hedger, self.name, "ETH")
            await self.check_never_too_much()
            if report.verdict in {HedgeVerdict.FLAT, HedgeVerdict.BELOW_MINIMUM}:
                return
            verdicts.append(report.verdict)
            self.clock.pass_time(LEASE)
        raise AssertionError(f"not hedged after {LIVES_MAX} passes: {verdicts}")

    async def _deal(self) -> None:
        kind = self.random.choice(["book", "book", "cancel", "amend", "none"])
        if kind == "book" or not self.deals:
            await self._book()
        elif kind in {"cancel", "amend"}:
            deal_id = self.random.choice(sorted(self.deals))
            await (self._cancel if kind == "cancel" else self._amend)(deal_id)
        self.counts[kind] += 1
        self.asked.append(self._asked())

    async def _book(self) -> None:
        asked, now = self._request(), self.clock.now()
        deal = await transact(self.engine, lambda conn: book_deal(conn, asked, book=BOOK, now=now))
        self.deals[deal.id] = deal

    async def _cancel(self, deal_id: UUID) -> None:
        work = partial(cancel_deal, deal_id=deal_id, by="dora", reason="", now=self.clock.now())
        await transact(self.engine, work)
        del self.deals[deal_id]

    async def _amend(self, deal_id: UUID) -> None:
        asked, now = self._request(), self.clock.now()
        deal = await transact(self.engine, lambda conn: amend_deal(conn, deal_id, asked, now=now))
        del self.deals[deal_id]
        self.deals[deal.id] = deal

    def _request(self) -> DealRequest:
        self.number += 1
        return DealRequest(
            client_ref=f"{self.name}-{self.number}",
            desk=self.name,
            party="acme",
            side=self.random.choice(list(DealSide)),
            base=ETH,
            quote=USDT,
            base_units=self.random.randrange(1, 8 * 10**18),
            price=Price.parse("3000", ETH, USDT),
            booked_by="dora",
            reason="property",
        )

    def _asked(self) -> int:
        """What the standing deals leave: positive, long."""
        return sum(
            item.request.base_units * (1 if item.request.side is DealSide.DESK_BUYS else -1)
            for item in self.deals.values()
        )

    def _fees_in_kind(self) -> int:
        return sum(
            trade.fee_units
            for venue in self.venues
            for trade in venue.trades
            if trade.fee_asset == "ETH"
        )

    async def check_never_too_much(self) -> None:
        """However what is under way turns out, no more is hedged than was ever asked for."""

        async def work(conn: AsyncConnection) -> tuple[int, int, int]:
            line = await get_line(conn, self.name, "ETH")
            under_way = (await read_exposure(conn, line)).uncertainty
            held = (await position(conn, BOOK, self.name)).get("ETH", 0)
            return held, under_way.low, under_way.high

        held, low, high = await transact(self.engine, work)
        room = self._fees_in_kind() + LOT
        assert held - self._asked() + high <= -min(self.asked) + room
        assert held - self._asked() + low >= -max(self.asked) - room

    async def check_at_the_end(self) -> None:
        """The ledger's position is the venues' own truth and the deals', and it is flat."""
        traded = sum(
            trade.base_units if trade.side is Side.BUY else -trade.base_units
            for venue in self.venues
            for trade in venue.trades
        )
        async with self.engine.connect() as conn:
            held = (await position(conn, BOOK, self.name)).get("ETH", 0)
        assert held == self._asked() + traded - self._fees_in_kind()
        assert abs(held) < LOT


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    async def work(conn: AsyncConnection) -> None:
        await found(conn, demo_founding(), now=SystemClock().now())
        await open_book(
            conn, BOOK, entity="causeway-desk", now=datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
        )

    await transact(engine, work)
    return engine


def scripted(random: Random, venue: str, account: str) -> Purse:
    return Purse(
        venue=venue,
        account=account,
        trouble=lambda call: random.choice(TROUBLES if call is Call.PLACE else ASK_TROUBLES),
        conduct=lambda _: random.choice(CONDUCTS),
        late_by=timedelta(seconds=random.choice([1, 2.9, 3.5, 20])),
        settling=timedelta(milliseconds=random.choice([0, 300, 900])),
    )


async def test_any_deals_faults_and_deaths_end_with_the_position_flat_and_true(
    house: AsyncEngine, record_property: Callable[[str, object], None]
) -> None:
    counts: Counter[str] = Counter()
    for number in range(SCHEDULES):
        random = Random(SEED + number)
        account = f"h{number}"
        venues = scripted(random, "north", account), scripted(random, "south", account)
        desk = Desk(house, f"desk{number}", random, venues)
        await desk.begin()
        for _ in range(STEPS):
            await desk.step(random.randrange(1, 400) if random.random() < 0.4 else None)
        await desk.settle()
        await desk.check_at_the_end()
        counts += desk.counts
        counts["orders"] += sum(len(venue.orders) for venue in venues)
        counts["both"] += all(venue.orders for venue in venues)
    record_property("counts", f"hedging: {dict(counts)}")
    assert counts["orders"] >= SCHEDULES * STEPS // 2
    assert counts["both"] >= 1
    assert counts["deaths"] >= 1
