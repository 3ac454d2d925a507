"""The worker of one account at a venue: its orders, its trades, its stream, its transfers, its books.

Nothing is done with a key that was not looked at: until the venue has said that the trading key
cannot withdraw, every turn begins with that question. Orders are placed by whoever hedges; here
they are followed to their ends, whoever placed them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.venue_file import VenueSection
from custody.venues.explain import list_unsettled
from custody.venues.worker import advance_venue_transfers
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import Refused, ungrouped
from kernel.jobs import Job
from kernel.private_files import read_kek
from registry.queries import list_assets
from trading.hedges.fills import post_fills
from trading.hedges.lines import list_lines
from trading.hedges.model import HedgeLine
from trading.venue_accounts import is_venue_account_open
from trading.venue_reconciliation import (
    enqueue_daily,
    job_name,
    reconcile_account,
)
from trading.venue_reconciliation_model import ReconciliationRun
from venues.account_reading import symbols_of
from venues.cancels import arm_dead_man
from venues.ccxt.endpoint import Endpoint
from venues.ccxt.gateway import GatewaySettings, open_gateway
from venues.ccxt.treasury import TreasurySettings, open_treasury
from venues.credentials.model import KeyPurpose, Slot
from venues.credentials.vault import reveal
from venues.errors import VenueUnavailable
from venues.fills import collect
from venues.lifecycle import ResolvePolicy
from venues.orders import resume
from venues.permissions import require_trading_key
from venues.ports import VenueGateway
from venues.records import capabilities_of
from venues.streams.factory import private_stream
from venues.streams.port import PrivateStream
from venues.streams.supervisor import Supervisor
from venues.treasury_ports import VenueTreasury

HOLDER: Final = "venues"
POSTING_ROUNDS_MAX: Final = 50
CLOCK_PERIOD: Final = timedelta(minutes=1)
"""How often the venue's clock is measured, whatever else is asked: well before the last measurement
is too old to sign an order with."""

log = structlog.get_logger("venues")


@dataclass(slots=True, kw_only=True)
class VenueDesk:
    """One account and what is needed to look after it; made by `open_desk`.

    Attributes:
        stream: None: the venue has no private stream that we read.
        treasury: None: funds are not moved there and back.
        chance: gives numbers in [0, 1) that spread reconnections.
        holder: who leases its orders and transfers.
    """

    engine: AsyncEngine
    clock: Clock
    book: int
    section: VenueSection
    gateway: VenueGateway
    stream: PrivateStream | None
    treasury: VenueTreasury | None
    chance: Callable[[], float]
    holder: str = HOLDER
    resolve: ResolvePolicy = field(default_factory=ResolvePolicy)
    _measured_at: datetime | None = None
    _is_checked: bool = False
    _is_open: bool = False

    @property
    def job(self) -> str:
        """Return the name of the account's daily job."""
        return job_name(self.section.venue, self.section.account)

    async def check(self) -> None:
        """Be sure that the key is a trading key; the venue is asked until it has answered once.

        Raises:
            KeyRefused: the key can withdraw, or cannot trade.
            VenueUnavailable: the venue does not answer.
        """
        if not self._is_checked:
            accepts = self.section.accept_unknown_permissions
            await require_trading_key(self.gateway, accept_unknown=accepts)
            self._is_checked = True

    async def begin(self) -> None:
        """Be sure of the key, and that the account is in the books.

        Raises:
            KeyRefused: the key can withdraw, or cannot trade.
            Refused: the account is not open in the books.
            VenueUnavailable: the venue does not answer.
        """
        await self.check()
        if self._is_open:
            return
        venue, account = self.section.venue, self.section.account
        self._is_open = await transact(
            self.engine, lambda conn: is_venue_account_open(conn, self.book, venue, account)
        )
        if not self._is_open:
            raise Refused(
                f"the account {self.section.name} is not open in the books",
                remedy=f"Run `causeway venues open {self.section.name}`",
            )

    async def turn(self) -> Mapping[str, object]:
        """Follow every open order, collect every trade, post what hedge lines traded."""
        await self.begin()
        await self._keep_time()
        left = await resume(
            self.engine, self.gateway, holder=self.holder, clock=self.clock, policy=self.resolve
        )
        new = 0
        for symbol in await self.symbols():
            found = await collect(self.engine, self.gateway, symbol, clock=self.clock)
            new += found.new
        return {"open": len(left), "trades": new, "posted": await self._post()}

    async def listen(self, stop: asyncio.Event) -> Mapping[str, object]:
        """Keep the private stream alive until *stop* is set."""
        if self.stream is None:
            await stop.wait()
            return {}
        await self.begin()
        supervisor = Supervisor(
            engine=self.engine,
            stream=self.stream,
            gateway=self.gateway,
            symbols=set(await self.symbols()),
            clock=self.clock,
            chance=self.chance,
            resolve=self.resolve,
        )
        # What was foreseen, as a database that goes away, ends this turn and not the house.
        with ungrouped():
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(supervisor.run())
                await stop.wait()
                listening.cancel()
        return {}

    async def move_funds(self) -> Mapping[str, object]:
        """Take every transfer to and from the account as far as it goes."""
        if self.treasury is None:
            return {}
        report = await advance_venue_transfers(
            self.engine, self.treasury, book=self.book, holder=self.holder, clock=self.clock
        )
        for alarm in report.alarms:
            log.warning(
                "a transfer needs a person",
                account=self.section.name,
                transfer=str(alarm.subject),
                reason=alarm.reason,
            )
        return {
            "sent": len(report.submitted),
            "moved": len(report.moved),
            "credited": len(report.credited),
            "alarms": len(report.alarms),
        }

    async def stay_alive(self) -> Mapping[str, object]:
        """Tell the venue that we are there, where it would otherwise cancel everything."""
        await self.begin()
        await arm_dead_man(self.gateway, after=self.section.dead_man)
        return {}

    async def plan_the_day(self) -> Mapping[str, object]:
        """Insert the day's job of the account."""
        made = await transact(
            self.engine,
            lambda conn: enqueue_daily(
                conn, self.section.venue, self.section.account, now=self.clock.now()
            ),
        )
        return {"planned": 1} if made else {}

    async def close_the_day(self, job: Job) -> None:
        """Do the day's job: compare everything with the venue. A second time it compares again."""
        run = await self.reconcile()
        log.info(
            "reconciled",
            account=self.section.name,
            day=f"{job.scheduled_for:%Y-%m-%d}",
            outcome=str(run.outcome),
        )

    async def reconcile(self) -> ReconciliationRun:
        """Compare orders, trades and balances with the venue."""
        await self.begin()
        return await reconcile_account(
            self.engine,
            self.gateway,
            self.section.symbols,
            book=self.book,
            clock=self.clock,
            transfers=list_unsettled,
        )

    async def _keep_time(self) -> None:
        """Measure the venue's clock if that was long ago; one that does not tell is asked again."""
        now = self.clock.now()
        if self._measured_at is not None and abs(now - self._measured_at) < CLOCK_PERIOD:
            return
        try:
            await self.gateway.synchronise()
        except VenueUnavailable as error:
            log.warning(
                "a venue does not tell the time", account=self.section.name, error=str(error)
            )
        else:
            self._measured_at = now

    async def symbols(self) -> list[str]:
        """Return what the account trades, by the house file and by what is on record."""
        known = await transact(
            self.engine, lambda conn: symbols_of(conn, self.section.venue, self.section.account)
        )
        return sorted({*self.section.symbols, *known})

    async def _post(self) -> int:
        lines = await transact(self.engine, list_lines)
        mine = [line for line in lines if line.places_at(self.section.venue, self.section.account)]
        return sum([await self._post_line(line) for line in mine])

    async def _post_line(self, line: HedgeLine) -> int:
        posted = 0
        for _ in range(POSTING_ROUNDS_MAX):
            fills = await transact(
                self.engine,
                lambda conn: post_fills(
                    conn, line.desk, line.asset, book=self.book, now=self.clock.now()
                ),
            )
            posted += len(fills)
            if not fills:
                break
        return posted


@contextlib.asynccontextmanager
async def open_desk(
    engine: AsyncEngine,
    section: VenueSection,
    *,
    book: int,
    clock: Clock,
    chance: Callable[[], float],
    holder: str = HOLDER,
) -> AsyncIterator[VenueDesk]:
    """Open the account's keys and make its connections; closes them at the end.

    The venue is asked at once whether the trading key can withdraw. One that does not answer is
    asked again by every turn.

    Raises:
        SecretUnreadable: the KEK file, or what it opens, is unusable.
        Refused: no key is enrolled; or the key must not be used (`KeyRefused`).
    """
    kek = read_kek(section.kek)
    trading = Slot(section.venue, section.account, KeyPurpose.TRADING)
    withdrawal = Slot(section.venue, section.account, KeyPurpose.WITHDRAWAL)
    credentials = await transact(engine, lambda conn: reveal(conn, trading, kek))
    treasurer = None
    if section.withdrawals:
        treasurer = await transact(engine, lambda conn: reveal(conn, withdrawal, kek))
    assets = {asset.code: asset for asset in await transact(engine, list_assets)}
    record = capabilities_of(section.connector)
    endpoint = Endpoint(
        http_url=section.http_url or None,
        ws_url=section.ws_url or None,
        private_ws_url=section.private_ws_url or None,
    )
    wanted = GatewaySettings(
        venue=section.venue,
        account=section.account,
        capabilities=record,
        endpoint=endpoint,
        credentials=credentials,
        assets=assets,
        has_nonce_window=section.has_nonce_window,
    )
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(open_gateway(wanted, clock))
        treasury = None
        if treasurer is not None:
            treasury_settings = TreasurySettings(
                venue=section.venue,
                account=section.account,
                capabilities=record,
                endpoint=endpoint,
                credentials=treasurer,
                assets=assets,
            )
            treasury = await stack.enter_async_context(open_treasury(treasury_settings, clock))
        desk = VenueDesk(
            engine=engine,
            clock=clock,
            book=book,
            section=section,
            gateway=gateway,
            stream=private_stream(wanted, clock, venue_time=gateway.venue_time)
            if record.has_private_stream
            else None,
            treasury=treasury,
            chance=chance,
            holder=holder,
        )
        try:
            await desk.check()
        except VenueUnavailable as error:
            log.warning("a venue does not answer", account=section.name, error=str(error))
        yield desk
