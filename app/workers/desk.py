"""The worker of the desk: it hedges every line, prices quotes, and watches what the day has lost.

What a halted desk has out it takes back. It has no books and no keys of its own: the feeds and the accounts that the house runs anyway are
looked at. A turn that is killed anywhere is continued by the next one, of this process or another.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.documents import find_draw
from app.workers.desk_file import DeskSection, HedgeSection
from app.workers.loops import Loop, next_pause
from app.workers.market_data import MarketDesk
from app.workers.venue_desk import VenueDesk
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import CausewayError, OutsideUnavailable, Refused, ungrouped
from kernel.money import Asset
from marketdata.consolidated import VenueBook
from marketdata.fees import NO_FEE, VenueFee
from registry.queries import get_asset, list_assets
from risk.limits import desk_limits_of, list_desk_limits
from risk.loss import lose_sight, watch_losses
from risk.model import EVERY, DeskLimits
from trading.confirmations.drawing import draw_due
from trading.confirmations.issuing import issue_due
from trading.confirmations.model import Draw
from trading.hedges.hedger import Hedger, hedge_once
from trading.hedges.lines import list_lines
from trading.hedges.model import HedgeLine, HedgePolicy, HedgeReport, HedgeVerdict
from trading.hedges.situation import is_quiet
from trading.kill import enforce_halts
from trading.pnl.runs import day_pnl_units
from trading.quotes.maker import serve_quotes
from trading.quotes.model import QuotePolicy
from venues.ports import VenueGateway

HOLDER: Final = "desk"
LINES_AT_ONCE: Final = 4
LOOK_AGE_MAX: Final = timedelta(minutes=1)
"""A line at which nothing happens is looked at in full after so long all the same."""
LOSS_PAUSE: Final = timedelta(seconds=10)
PAPER_PAUSE: Final = timedelta(seconds=5)
SWITCH_PAUSE: Final = timedelta(milliseconds=500)
REST: Final = timedelta(seconds=1)
"""How long a line is left alone after a pass that could do nothing; doubled by each failure."""
FAILED: Final = frozenset({HedgeVerdict.REFUSED, HedgeVerdict.VENUE_DOWN})
"""What is no reason to ask the venue again at once."""
TOLD: Final = FAILED | {
    HedgeVerdict.LIMITED,
    HedgeVerdict.NO_FUNDS,
    HedgeVerdict.BOOK_UNUSABLE,
    HedgeVerdict.TOO_EXPENSIVE,
}
"""What only a person can end, if it does not end by itself."""

log = structlog.get_logger("desk")


@dataclass(slots=True)
class _Rest:
    """How long a line is left alone, and how often in a row it has failed."""

    until: datetime
    failures: int = 0


@dataclass(slots=True, kw_only=True)
class DeskWorker:
    """What the desk of one house does; made by `desk_worker`.

    Attributes:
        policies: by desk and asset; other lines have the defaults.
        accounts: the venue accounts that this house looks after.
        markets: the feeds that it runs.
        draw: draws the PDFs of confirmations; None: they are drawn when somebody asks for one.
        holder: who leases the orders that it places.
    """

    engine: AsyncEngine
    clock: Clock
    book: int
    section: DeskSection
    quote_policy: QuotePolicy
    policies: Mapping[tuple[str, str], HedgePolicy]
    accounts: Sequence[VenueDesk]
    markets: Sequence[MarketDesk]
    draw: Draw | None = field(default_factory=find_draw)
    holder: str = HOLDER
    _rests: dict[tuple[str, str], _Rest] = field(default_factory=dict)
    _told: dict[tuple[str, str], str] = field(default_factory=dict)
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _blind_since: dict[str, datetime] = field(default_factory=dict)

    def loops(self) -> list[Loop]:
        """Return what is done again and again."""
        found = []
        if self.section.hedges:
            found.append(Loop(name="desk hedges", turn=self.hedge, pause=self.section.pause))
        if self.section.quotes:
            found.append(Loop(name="desk quotes", turn=self.serve, pause=self.section.pause))
        found.append(Loop(name="desk losses", turn=self.watch, pause=LOSS_PAUSE))
        found.append(Loop(name="desk switches", turn=self.enforce, pause=SWITCH_PAUSE))
        found.append(Loop(name="desk confirmations", turn=self.confirm, pause=PAPER_PAUSE))
        return found

    async def hedge(self) -> Mapping[str, object]:
        """Bring every line one step towards its target; what is wrong with one stops no other."""
        lines = await transact(self.engine, list_lines)
        hedger = await self._hedger()
        room = asyncio.Semaphore(LINES_AT_ONCE)
        orders = posted = 0

        async def one(line: HedgeLine) -> None:
            nonlocal orders, posted
            async with room:
                report = await self._look_at(hedger, line)
            if report is not None:
                orders, posted = orders + len(report.orders), posted + report.fills_posted

        with ungrouped():
            async with asyncio.TaskGroup() as group:
                for line in lines:
                    group.create_task(one(line))
        return {key: value for key, value in (("orders", orders), ("posted", posted)) if value}

    async def serve(self) -> Mapping[str, object]:
        """Price what clients have asked for, look at what they have taken, end what is over."""
        served = await serve_quotes(self.engine, self, self.clock, self.quote_policy, self.book)
        self._counts["desk_quotes_served", "all"] += served
        return {"served": served} if served else {}

    async def confirm(self) -> Mapping[str, object]:
        """Write and draw the confirmations that are due: of deals booked, amended or cancelled."""
        done = await transact(self.engine, lambda conn: issue_due(conn, now=self.clock.now()))
        if self.draw is not None:
            await draw_due(self.engine, self.draw, clock=self.clock)
        return {"confirmations": len(done)} if done else {}

    async def enforce(self) -> Mapping[str, object]:
        """Take back what a halted desk has out, whoever halted it: its quotes and its orders."""
        gateways = [account.gateway for account in self.accounts]
        quotes, left = await enforce_halts(self.engine, gateways, clock=self.clock)
        facts = (("quotes withdrawn", quotes), ("orders left", left))
        return {key: value for key, value in facts if value}

    async def watch(self) -> Mapping[str, object]:
        """Tighten the switch of a desk whose day has lost too much, or whose loss nobody knows."""
        lines, limits = await transact(self.engine, _desks_to_watch)
        desks = {line.desk for line in lines} | {item.desk for item in limits}
        for desk in sorted(desks - {EVERY}):
            try:
                await transact(self.engine, partial(self._watch_one, desk=desk))
            except Refused as error:
                self._tell(desk, "", f"the day's result is not known: {error}")
                now = self.clock.now()
                since = self._blind_since.setdefault(desk, now)
                await transact(self.engine, partial(lose_sight, desk=desk, since=since, now=now))
            else:
                self._tell(desk, "", "")
                self._blind_since.pop(desk, None)
        return {}

    def books(self, base: Asset, quote: Asset) -> Sequence[VenueBook]:
        """Return each venue's newest book of the pair; see `trading.ports.BookSource`.

        By the codes: a venue may count an asset in more decimal places than the house.
        """
        fees = self._fees_by_venue()
        return [
            VenueBook(instrument, market.book(instrument.symbol), fees.get(market.venue, NO_FEE))
            for market in self.markets
            for instrument in market.instruments
            if (instrument.base.code, instrument.quote.code) == (base.code, quote.code)
        ]

    def counters(self) -> Mapping[tuple[str, str], int]:
        """Return what was done, by kind and line."""
        return dict(self._counts)

    async def _hedger(self) -> Hedger:
        return Hedger(
            engine=self.engine,
            gateways=await self._gateways(),
            feeds={market.venue: market for market in self.markets},
            clock=self.clock,
            policy=HedgePolicy(),
            policies=self.policies,
            fees={
                (one.section.venue, one.section.account): one.section.taker for one in self.accounts
            },
            book=self.book,
            holder=self.holder,
        )

    async def _gateways(self) -> dict[tuple[str, str], VenueGateway]:
        """Return the accounts whose key was looked at and that are open in the books."""
        found = {}
        for account in self.accounts:
            try:
                await account.begin()
            except (OutsideUnavailable, Refused):
                continue  # its own loop says so; its places are left out meanwhile
            found[account.section.venue, account.section.account] = account.gateway
        return found

    async def _look_at(self, hedger: Hedger, line: HedgeLine) -> HedgeReport | None:
        """Take one pass over a line; None: it rests, or nothing has happened to it."""
        key, now = (line.desk, line.asset), self.clock.now()
        rest = self._rests.get(key)
        if rest is not None and now < rest.until:
            return None
        policy = hedger.policy_of(line)
        async with self.engine.connect() as conn:
            if await is_quiet(conn, self.book, line, policy, since=now - LOOK_AGE_MAX):
                return None
        try:
            report = await hedge_once(hedger, line.desk, line.asset)
        except CausewayError as error:
            self._rest_after(key, is_failure=True)
            self._tell(*key, str(error))
            return None
        self._rest_after(key, is_failure=report.verdict in FAILED)
        if report.verdict is HedgeVerdict.ORDER:
            self._rests.pop(key, None)
        if report.alarm or report.verdict in TOLD:
            # By what is the matter: its figures change from look to look.
            kind = f"{report.verdict}{' alarm' if report.alarm else ''}"
            self._tell(*key, report.alarm or report.detail, kind=kind)
        else:
            self._tell(*key, "")
        self._counts["desk_hedge_orders", f"{line.desk}/{line.asset}"] += len(report.orders)
        self._counts["desk_hedge_fills", f"{line.desk}/{line.asset}"] += report.fills_posted
        return report

    def _rest_after(self, key: tuple[str, str], *, is_failure: bool) -> None:
        before = self._rests.get(key)
        failures = (0 if before is None else before.failures) + 1 if is_failure else 0
        self._rests[key] = _Rest(self.clock.now() + next_pause(REST, failures), failures)

    def _tell(self, desk: str, asset: str, why: str, *, kind: str = "") -> None:
        """Log and count that a person should look, once until it is for another *kind* of reason."""
        told = kind or why
        if told and self._told.get((desk, asset)) != told:
            log.warning("a line needs a person", desk=desk, asset=asset, why=why)
            self._counts["desk_alarms", f"{desk}/{asset}"] += 1
        self._told[desk, asset] = told

    async def _watch_one(self, conn: AsyncConnection, *, desk: str) -> None:
        limits = await desk_limits_of(conn, desk)
        if limits is None or limits.loss_units is None:
            return
        now = self.clock.now()
        currency = await get_asset(conn, limits.currency)
        result = await day_pnl_units(conn, self.book, desk, currency=currency, now=now)
        await watch_losses(conn, desk, result, now)

    def _fees_by_venue(self) -> Mapping[str, VenueFee]:
        return {one.section.venue: one.section.taker for one in reversed(self.accounts)}


async def _desks_to_watch(conn: AsyncConnection) -> tuple[list[HedgeLine], list[DeskLimits]]:
    return await list_lines(conn), await list_desk_limits(conn)


async def desk_worker(
    engine: AsyncEngine,
    section: DeskSection,
    lines: Sequence[HedgeSection],
    *,
    book: int,
    accounts: Sequence[VenueDesk],
    markets: Sequence[MarketDesk],
    clock: Clock,
    holder: str = HOLDER,
) -> DeskWorker:
    """Return the worker of a house's desk.

    Raises:
        BadInput: an amount of the house file is none of its asset.
        Refused: an asset is not registered.
    """
    assets = {asset.code: asset for asset in await transact(engine, list_assets)}
    for line in lines:
        if line.asset not in assets:
            raise Refused(f"the asset {line.asset} of line {line.name} is not registered")
    skews = {line.asset: line.skew(assets[line.asset]) for line in lines}
    policy = section.quote_policy
    return DeskWorker(
        engine=engine,
        clock=clock,
        book=book,
        section=section,
        quote_policy=QuotePolicy(
            book_age_max=policy.book_age_max,
            venues_min=policy.venues_min,
            width_ppm_max=policy.width_ppm_max,
            slippage_ppm_max=policy.slippage_ppm_max,
            sizes={line.asset: line.sizes(assets[line.asset]) for line in lines},
            skews={asset: skew for asset, skew in skews.items() if skew is not None},
        ),
        policies={(line.desk, line.asset): line.hedge_policy(assets[line.asset]) for line in lines},
        accounts=accounts,
        markets=markets,
        holder=holder,
    )
