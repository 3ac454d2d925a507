"""The supervisor of a private stream: it listens, notices silence, rebuilds, and fills every gap.

Three tasks share a connection. One writes events down, the others watch: the venue is asked over the
same connection whether it is there, and its list of trades is compared with what was streamed. Any
of them ends the connection; then a gap is recorded, a new connection is made after a pause, and once
it listens the venue is asked for every trade and every open order, so that nothing between is lost.

The bounded queue lies between the socket and the writing task: a slow database makes a gap, never a
venue that closes on us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from marketdata.errors import NoInstrument
from venues.errors import VenueUnavailable
from venues.fills import collect, record_fills
from venues.lifecycle import ResolvePolicy
from venues.model import OrderState
from venues.orders import resume
from venues.ports import VenueGateway
from venues.reports import record_report
from venues.store import find_by_client_id, get_order
from venues.streams import gaps
from venues.streams.errors import StreamLost
from venues.streams.liveness import first_missed, is_silent, pause_before
from venues.streams.model import (
    BalanceSeen,
    FillSeen,
    FundsMoved,
    GapReason,
    OrderSeen,
    StreamEvent,
    StreamGap,
    StreamPolicy,
    SymbolSeen,
)
from venues.streams.port import PrivateStream, StreamSession

log = structlog.get_logger()

BATCH_MAX: Final = 200
AUDIT_OVERLAP: Final = timedelta(minutes=1)
"""A trade may be listed late: each audit looks a little back."""

Hear = Callable[[StreamEvent], None]


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Keeps one account's private stream alive.

    Attributes:
        symbols: what is traded; more are learnt from the stream.
        chance: gives numbers in [0, 1) that spread reconnections.
        hear: told every event after it is written down; must not block.
    """

    engine: AsyncEngine
    stream: PrivateStream
    gateway: VenueGateway
    symbols: set[str]
    clock: Clock
    chance: Callable[[], float]
    policy: StreamPolicy = field(default_factory=StreamPolicy)
    resolve: ResolvePolicy = field(default_factory=ResolvePolicy)
    holder: str = "streams"
    hear: Hear = field(default=lambda _: None)

    async def run(self) -> None:
        """Listen until cancelled."""
        gap_id = await self._begin()
        failures = 0
        while True:
            began = self.clock.now()
            lost = await self._listen(gap_id)
            now = self.clock.now()
            if isinstance(lost, _NeverListened):
                await transact(self.engine, partial(_note_attempt, gap_id, lost.detail))
                await self._ask_for_everything()
            else:
                gap_id = await self._lose(lost)
                failures = 0 if now - began >= self.policy.steady_after else failures
            pause = pause_before(failures, self.policy, self.chance())
            failures += 1
            await asyncio.sleep(pause / timedelta(seconds=1))

    async def _begin(self) -> UUID:
        """Open the gap that ends when somebody listens for the first time."""
        venue, account = self.stream.venue, self.stream.account
        for symbol in sorted(self.symbols):
            await self._learn(symbol)

        async def work(conn: AsyncConnection) -> UUID:
            since = await gaps.last_listened(conn, venue, account) or self.clock.now()
            gap = StreamGap(since, GapReason.STARTED, "the process started")
            return await gaps.open_gap(conn, venue, account, gap)

        return await transact(self.engine, work)

    async def _lose(self, lost: StreamGap) -> UUID:
        log.warning(
            "private stream lost",
            venue=self.stream.venue,
            account=self.stream.account,
            reason=str(lost.reason),
            detail=lost.detail,
        )
        self.hear(lost)
        return await transact(
            self.engine,
            lambda conn: gaps.open_gap(conn, self.stream.venue, self.stream.account, lost),
        )

    async def _listen(self, gap_id: UUID) -> StreamGap | _NeverListened:
        """Connect and listen until the connection is lost; return how it was."""
        lost: StreamGap | _NeverListened = _NeverListened("")
        listening = False
        try:
            async with self.stream.connect() as session:
                listening = True
                until = self.clock.now()
                await transact(self.engine, lambda c: gaps.end_gap(c, gap_id, until=until))
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._write_down(session))
                    group.create_task(self._probe(session))
                    group.create_task(self._audit(session))
                    group.create_task(self._fill_gaps())
        except* StreamLost as found:
            first = next(_leaves(found))
            lost = (
                StreamGap(first.since, first.reason, first.detail)
                if listening
                else _NeverListened(first.detail)
            )
        return lost

    async def _write_down(self, session: StreamSession) -> None:
        while True:
            for event in await session.next(BATCH_MAX):
                await self._take(event)
                self.hear(event)

    async def _take(self, event: StreamEvent) -> None:
        match event:
            case FillSeen():
                await self._take_fill(event)
            case OrderSeen():
                await transact(self.engine, partial(self._take_report, event))
            case SymbolSeen(symbol):
                await self._take_up(symbol)
            case BalanceSeen() | FundsMoved() | StreamGap():
                pass  # nothing is on record of these: who listens is told

    async def _take_fill(self, event: FillSeen) -> None:
        now = self.clock.now()
        await transact(
            self.engine, lambda c: record_fills(c, [event.fill], source="stream", now=now)
        )

    async def _take_report(self, event: OrderSeen, conn: AsyncConnection) -> None:
        venue, account = self.stream.venue, self.stream.account
        found = await find_by_client_id(conn, venue, account, event.report.client_order_id)
        if found is None:
            return  # not ours: its trades show in the list of trades, itself in reconciliation
        row = await get_order(conn, found.id, lock=True)
        if row.state is not OrderState.INTENT:  # what was never signed was never sent
            actor = f"system:{self.holder}"
            await record_report(conn, row, event.report, actor=actor, now=self.clock.now())

    async def _take_up(self, symbol: str) -> None:
        """Begin to trade an instrument that nobody named: learn it and ask for its trades."""
        if symbol in self.symbols:
            return
        if await self._learn(symbol):
            self.symbols.add(symbol)
            await self._ask_for_everything()

    async def _learn(self, symbol: str) -> bool:
        try:
            self.stream.learn(await self.gateway.instrument(symbol))
        except (VenueUnavailable, NoInstrument) as error:
            log.warning("instrument cannot be read", symbol=symbol, fault=str(error))
            return False
        return True

    async def _probe(self, session: StreamSession) -> None:
        every = self.policy.probe_every / timedelta(seconds=1)
        while True:
            await asyncio.sleep(every)
            if is_silent(session.heard_at, self.clock.now(), session.silence_max):
                raise StreamLost(GapReason.SILENT, "the venue says nothing", since=session.heard_at)
            await session.probe(self.policy.probe_timeout)

    async def _audit(self, session: StreamSession) -> None:
        """Compare the venue's list of trades with what was streamed."""
        every = self.policy.audit_every / timedelta(seconds=1)
        venue, account = self.stream.venue, self.stream.account
        first = session.subscribed_at + self.policy.audit_grace
        since = self.gateway.venue_time(first)
        while True:
            await asyncio.sleep(every)
            until = self.gateway.venue_time(self.clock.now()) - self.policy.audit_grace
            if not await self._collect():
                continue
            async with self.engine.connect() as conn:
                listed = await gaps.traded_between(conn, venue, account, since, until)
            missed = first_missed(listed, session.seen)
            if missed is not None:
                raise StreamLost(
                    GapReason.MISSED,
                    f"trade {missed.trade_id} of {missed.symbol} was never streamed",
                    since=min(missed.executed_at, self.clock.now()),
                )
            since = max(since, until - AUDIT_OVERLAP)

    async def _fill_gaps(self) -> None:
        """Ask for what may have happened in the gaps that have ended, until the venue answers."""
        failures = 0
        while not await self._ask_for_everything():
            pause = pause_before(failures, self.policy, self.chance())
            failures += 1
            await asyncio.sleep(pause / timedelta(seconds=1))

    async def _ask_for_everything(self) -> bool:
        """Collect every trade and look after every open order; tell whether the venue answered."""
        venue, account = self.stream.venue, self.stream.account
        ended = await transact(self.engine, lambda c: gaps.unfilled_gaps(c, venue, account))
        new = await self._collect_all()
        if new is None:
            return False
        left = await resume(
            self.engine,
            self.gateway,
            holder=self.holder,
            clock=self.clock,
            policy=self.resolve,
        )
        await transact(
            self.engine,
            lambda c: gaps.mark_filled(c, ended, fills=new, orders=len(left), now=self.clock.now()),
        )
        return True

    async def _collect(self) -> bool:
        return await self._collect_all() is not None

    async def _collect_all(self) -> int | None:
        """Collect the trades of every symbol; None: the venue did not answer for one of them."""
        new, answered = 0, True
        for symbol in sorted(self.symbols):
            try:
                found = await collect(self.engine, self.gateway, symbol, clock=self.clock)
                new += found.new
            except VenueUnavailable as error:
                log.warning("trades cannot be asked for", symbol=symbol, fault=str(error))
                answered = False
        return new if answered else None


@dataclass(frozen=True, slots=True)
class _NeverListened:
    """A connection that was never subscribed: the gap goes on."""

    detail: str


async def _note_attempt(gap_id: UUID, detail: str, conn: AsyncConnection) -> None:
    await gaps.note_attempt(conn, gap_id, detail)


def _leaves(found: BaseExceptionGroup[StreamLost]) -> Iterator[StreamLost]:
    for error in found.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
