"""A venue in memory with a clock of its own, which misbehaves as it is told: for tests of orders.

It keeps the truth (`ScriptedVenue.orders`, `ScriptedVenue.trades`) apart from what it says, and it
is as unkind as real ones are: a request may arrive late or not at all, an answer may be lost, an
accepted order may take a while to show in queries, a client order id is refused only while an order
of it is open, and trades may come after a cancel.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, unique
from functools import partial
from typing import Final

from kernel.clock import to_unix_ns
from kernel.money import Asset
from marketdata.model import Instrument
from matching.model import TimeInForce
from venues.capabilities import Capabilities, Expiry
from venues.errors import VenueUnavailable
from venues.lifecycle import listed_from
from venues.model import (
    Accepted,
    FillPage,
    KeyPermissions,
    OrderReport,
    Placement,
    PlacementRefused,
    PlacementUnknown,
    RefusalKind,
    UnknownBalance,
    UnreadFill,
    VenueBalance,
    VenueFill,
    VenueOrder,
    VenueStatus,
)
from venues.records import BINANCE

ETH: Final = Asset("ETH", 18)
USDT: Final = Asset("USDT", 6)
GRID: Final = Instrument(
    venue="scripted",
    symbol="ETHUSDT",
    base=ETH,
    quote=USDT,
    price_scale=2,
    tick=1,
    lot=10**14,
    lots_min=1,
    lots_max=10**9,
    min_notional=0,
)
BEGINNING: Final = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
CALL_TAKES: Final = timedelta(milliseconds=40)
FILLS_PAGE: Final = 3
AT_ONCE: Final = timedelta(0)


@unique
class Call(Enum):
    """What the venue is asked."""

    PLACE = "place"
    CANCEL = "cancel"
    FIND = "find"
    LIST = "list"
    FILLS = "fills"
    CLOCK = "clock"


@unique
class Trouble(Enum):
    """What goes wrong with one call."""

    NONE = "none"
    LOST_REQUEST = "the request never arrives, and no answer"
    LOST_ANSWER = "the request is carried out, and no answer"
    LATE_REQUEST = "no answer, and the request arrives later, perhaps too late"
    REFUSED = "refused for what it is"
    BACK_OFF = "too many requests"
    CLOCK = "our clock is off"
    STALE = "an answer from before the newest changes"


@dataclass(frozen=True, slots=True)
class Conduct:
    """What an order does at the venue once it is there.

    Attributes:
        trades: (after what time, what parts of a hundred of the order), in order of time.
        ends_after: when the rest of it expires; None: it rests.
        after_cancel: parts of a hundred that trade although the cancel was acknowledged.
    """

    trades: tuple[tuple[timedelta, int], ...] = ((AT_ONCE, 100),)
    ends_after: timedelta | None = None
    after_cancel: int = 0


@dataclass(slots=True)
class Placed:
    """An order as it truly is."""

    order: VenueOrder
    venue_order_id: str
    accepted_at: datetime
    conduct: Conduct
    executed: int = 0
    status: VenueStatus = VenueStatus.OPEN

    @property
    def is_open(self) -> bool:
        """Whether it can trade."""
        return self.status is VenueStatus.OPEN


@dataclass(slots=True)
class ScriptedVenue:
    """One account at a venue: a `venues.ports.VenueGateway`, and a `kernel.clock.Clock`.

    Attributes:
        trouble: asked before each call what goes wrong with it.
        conduct: asked for each accepted order what it will do.
        settling: how long an accepted order does not show in queries and lists.
        denied: client order ids that the venue denies to know, whatever is true.
        unreadable: trade ids that cannot be read.
        late_by: how long a late request is on its way.
        venue_skew: what the venue's clock is ahead of the wall clock.
    """

    account: str = "desk"
    venue: str = "scripted"
    capabilities: Capabilities = BINANCE
    trouble: Callable[[Call], Trouble] = lambda _: Trouble.NONE
    conduct: Callable[[VenueOrder], Conduct] = lambda _: Conduct()
    settling: timedelta = AT_ONCE
    late_by: timedelta = timedelta(seconds=1)
    venue_skew: timedelta = AT_ONCE
    denied: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    orders: list[Placed] = field(default_factory=list)
    trades: list[VenueFill] = field(default_factory=list)
    placements: int = 0
    dead_man_at: datetime | None = None
    _now: datetime = BEGINNING
    _due: list[tuple[datetime, int, Callable[[], object]]] = field(default_factory=list)
    _numbers: int = 0

    def now(self) -> datetime:
        """Return the wall clock."""
        return self._now

    def now_ns(self) -> int:
        """Return the same in nanoseconds since 1970."""
        return to_unix_ns(self.now())

    def pass_time(self, span: timedelta) -> None:
        """Let time pass, and everything happen that is due until then."""
        until = self._now + span
        while self._due and self._due[0][0] <= until:
            at, _, happen = self._due.pop(0)
            self._now = max(self._now, at)
            happen()
        self._now = until

    def venue_time(self, now: datetime) -> datetime:
        """Return the venue's clock."""
        return now + self.venue_skew

    async def synchronise(self) -> None:
        """Do nothing: the difference is known."""

    async def server_time(self) -> datetime:
        """Return the venue's clock."""
        await self._asked(Call.CLOCK)
        return self.venue_time(self._now)

    async def instrument(self, symbol: str) -> Instrument:
        """Return the one grid there is."""
        return replace(GRID, venue=self.venue, symbol=symbol)

    async def place(
        self, order: VenueOrder, *, after: Awaitable[object] | None = None
    ) -> Placement:
        """Accept, refuse, or leave open what became of it."""
        if after is not None:
            await after
        self.placements += 1
        trouble = self.trouble(Call.PLACE)
        await self._on_the_wire()
        match trouble:
            case Trouble.LOST_REQUEST:
                return PlacementUnknown("no answer")
            case Trouble.LATE_REQUEST:
                self._later(self.late_by, partial(self._arrive, order))
                return PlacementUnknown("no answer")
            case Trouble.REFUSED:
                return PlacementRefused("not like this")
            case Trouble.BACK_OFF:
                return PlacementRefused("too many requests", RefusalKind.BACK_OFF)
            case Trouble.CLOCK:
                return PlacementRefused("outside of the window", RefusalKind.CLOCK)
            case Trouble.NONE | Trouble.LOST_ANSWER | Trouble.STALE:
                pass
        placed = self._arrive(order)
        await self._on_the_wire()
        if trouble is Trouble.LOST_ANSWER:
            return PlacementUnknown("no answer")
        if isinstance(placed, Placed):
            return Accepted(self._report(placed))
        return placed

    async def cancel(self, order: VenueOrder) -> OrderReport | None:
        """End the open order of this client id."""
        trouble = await self._asked(Call.CANCEL)
        found = [p for p in self._known(order.client_order_id) if p.is_open]
        if not found or trouble is Trouble.STALE:
            return None
        self._end(found[-1], VenueStatus.CANCELLED)
        await self._on_the_wire()
        if trouble is Trouble.LOST_ANSWER:
            raise VenueUnavailable("no answer", where=self.venue)
        return self._report(found[-1])

    async def cancel_all(self, symbol: str | None) -> int:
        """End every open order."""
        await self._asked(Call.CANCEL)
        found = [p for p in self.orders if p.is_open and symbol in {None, p.order.symbol}]
        for placed in found:
            self._end(placed, VenueStatus.CANCELLED)
        return len(found)

    async def find_order(self, order: VenueOrder) -> OrderReport | None:
        """Return the newest order of this client id that shows, as far back as lists are read."""
        if not self.capabilities.finds_by_client_id:
            since = listed_from(order, self.venue_time(order.created_at))
            listed = await self.list_orders(order.symbol, since)
            found = [item for item in listed if item.client_order_id == order.client_order_id]
            return found[-1] if found else None
        trouble = await self._asked(Call.FIND)
        shown = self._shown(order.client_order_id)
        return self._report(shown[-1], stale=trouble is Trouble.STALE) if shown else None

    async def list_orders(self, symbol: str, since: datetime) -> list[OrderReport]:
        """Return the orders that show."""
        await self._asked(Call.LIST)
        return [
            self._report(placed)
            for placed in self.orders
            if placed.order.symbol == symbol
            and (placed.is_open or self.venue_time(placed.accepted_at) >= since)
            and placed in self._shown(placed.order.client_order_id)
        ]

    async def fills(self, symbol: str, cursor: str) -> FillPage:
        """Return a small page, which repeats the last trade of the one before."""
        await self._asked(Call.FILLS)
        mine = [trade for trade in self.trades if trade.symbol == symbol]
        start = int(cursor or 0)
        page = mine[max(0, start - 1) : start + FILLS_PAGE]
        end = min(len(mine), start + FILLS_PAGE)
        return FillPage(
            fills=tuple(trade for trade in page if trade.trade_id not in self.unreadable),
            cursor=str(end),
            is_last=end == len(mine),
            unread=tuple(self._unread(t) for t in page if t.trade_id in self.unreadable),
        )

    async def fills_of_order(self, order: VenueOrder) -> list[VenueFill]:
        """Return the trades of one order."""
        await self._asked(Call.FILLS)
        return [
            trade
            for trade in self.trades
            if trade.venue_order_id == order.venue_order_id
            and trade.trade_id not in self.unreadable
        ]

    async def balances(self) -> list[VenueBalance]:
        """Return nothing: the scripted venue keeps no purse."""
        return []

    async def unknown_balances(self) -> list[UnknownBalance]:
        """Return nothing, as `balances` does."""
        return []

    async def permissions(self) -> KeyPermissions:
        """Return what a trading key should be able to do."""
        return KeyPermissions(trade=True, withdraw=False, read=True)

    async def arm_dead_man(self, after: timedelta) -> bool:
        """Remember when everything is to be cancelled."""
        if not self.capabilities.dead_man:
            return False
        self.dead_man_at = self._now + after if after else None
        return True

    def trade(self, placed: Placed, units: int, *, fee_asset: str = "USDT") -> VenueFill:
        """Let *units* of an order trade, whatever its state; return the trade."""
        self._numbers += 1
        cost = units * 3_000 // 10**12
        trade = VenueFill(
            venue=self.venue,
            account=self.account,
            symbol=placed.order.symbol,
            trade_id=str(self._numbers),
            venue_order_id=placed.venue_order_id,
            side=placed.order.side,
            price="3000.00",
            base=ETH.code,
            base_units=units,
            quote=USDT.code,
            quote_units=cost,
            quote_dust=0,
            fee_asset=fee_asset,
            fee_units=cost // 1_000,
            fee_dust=0,
            is_maker=placed.order.time_in_force is TimeInForce.GTC,
            executed_at=self.venue_time(self._now),
        )
        self.trades.append(trade)
        placed.executed += units
        if placed.executed >= placed.order.base_units and placed.is_open:
            placed.status = VenueStatus.FILLED
        return trade

    def _arrive(self, order: VenueOrder) -> Placed | PlacementRefused | PlacementUnknown:
        """Accept a request, unless it is too late or its id belongs to an open order."""
        assert order.signed_at is not None
        expired = self.venue_time(self._now) > order.signed_at + order.recv_window
        if expired and self.capabilities.expiry is not Expiry.NONE:
            return PlacementRefused("too late", RefusalKind.CLOCK)
        if any(placed.is_open for placed in self._known(order.client_order_id)):
            return PlacementUnknown("the venue has an order of this id")
        self._numbers += 1
        placed = Placed(order, f"o{self._numbers}", self._now, self.conduct(order))
        self.orders.append(placed)
        for after, percent in placed.conduct.trades:
            self._happen(after, partial(self._trade_part, placed, percent))
        if placed.conduct.ends_after is not None:
            self._happen(placed.conduct.ends_after, lambda: self._end(placed, VenueStatus.EXPIRED))
        return placed

    def _happen(self, after: timedelta, happen: Callable[[], None]) -> None:
        """Do it now if it is due at once, otherwise when its time has come."""
        if after:
            self._later(after, happen)
        else:
            happen()

    def _trade_part(self, placed: Placed, percent: int) -> None:
        units = placed.order.base_units * percent // 100
        if placed.is_open and units:
            self.trade(placed, units)

    def _end(self, placed: Placed, status: VenueStatus) -> None:
        if not placed.is_open:
            return
        placed.status = status
        late = placed.order.base_units * placed.conduct.after_cancel // 100
        late = min(late, placed.order.base_units - placed.executed)
        if status is VenueStatus.CANCELLED and late:
            self._later(timedelta(seconds=1), partial(self.trade, placed, late))

    def _later(self, after: timedelta, happen: Callable[[], object]) -> None:
        self._numbers += 1
        bisect.insort(self._due, (self._now + after, self._numbers, happen))

    def _known(self, client_order_id: str) -> list[Placed]:
        return [p for p in self.orders if p.order.client_order_id == client_order_id]

    def _shown(self, client_order_id: str) -> list[Placed]:
        if client_order_id in self.denied:
            return []
        settled = self._now - self.settling
        return [p for p in self._known(client_order_id) if p.accepted_at <= settled]

    def _report(self, placed: Placed, *, stale: bool = False) -> OrderReport:
        return OrderReport(
            client_order_id=placed.order.client_order_id,
            venue_order_id=placed.venue_order_id,
            status=VenueStatus.OPEN if stale else placed.status,
            executed_units=0 if stale else placed.executed,
        )

    def _unread(self, trade: VenueFill) -> UnreadFill:
        return UnreadFill(
            trade_id=trade.trade_id,
            venue_order_id=trade.venue_order_id,
            reason="the asset is not known",
            raw="{}",
        )

    async def _asked(self, call: Call) -> Trouble:
        """Let a call reach the venue and say what goes wrong with its answer.

        Raises:
            VenueUnavailable: it does not reach the venue, or a query's answer is lost.
        """
        trouble = self.trouble(call)
        await self._on_the_wire()
        if trouble in {Trouble.NONE, Trouble.STALE}:
            return trouble
        if trouble is Trouble.LOST_ANSWER and call is Call.CANCEL:
            return trouble
        raise VenueUnavailable(trouble.value, where=self.venue)

    async def _on_the_wire(self) -> None:
        """Take the time that a way takes; whoever waits may die here."""
        await asyncio.sleep(0)
        self.pass_time(CALL_TAKES)
