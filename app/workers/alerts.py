"""The worker of alerts: looks at the house, raises and clears, tells people, escalates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import CausewayError, OutsideUnavailable, StaleFence
from reporting.alerts.alerts import Observed, escalate, observe
from reporting.alerts.deliveries import claim_due, plan, postpone, record_delivered, record_failed
from reporting.alerts.model import Alert, AlertKind, Channel, Delivery, Finding
from reporting.alerts.policies import current_policy

BATCHES_MAX: Final = 10
log = structlog.get_logger("alerts")


class Look(Protocol):
    """Something that looks at the house for one kind of trouble."""

    @property
    def kind(self) -> AlertKind:
        """What it looks for."""
        ...

    async def find(self, conn: AsyncConnection) -> Sequence[Finding]:
        """Return everything of that kind that is wrong now."""
        ...


class Sender(Protocol):
    """What hands a message over."""

    async def send(self, item: Delivery) -> None:
        """Hand it over.

        Raises:
            OutsideUnavailable: it is not known to have arrived.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertWorker:
    """Everything that is needed; every turn is safe to take again, by any number of processes."""

    engine: AsyncEngine
    clock: Clock
    book: int
    looks: Sequence[Look]
    sender: Sender
    holder: str = "alerts"

    async def turn(self) -> dict[str, int]:
        """Look at everything, then tell whom there is to tell; return how many of what.

        Raises:
            CausewayError: of the first look that failed, when all else is done.
        """
        observed: list[Observed] = []
        failures: list[CausewayError] = []
        for look in self.looks:
            try:
                observed.append(await self._look(look))
            except CausewayError as error:
                log.error("cannot look", kind=str(look.kind), error=str(error))  # noqa: TRY400  foreseen: the sentence says all
                failures.append(error)
        escalated = await transact(self.engine, self._escalate)
        planned = await transact(self.engine, self._plan)
        delivered, failed = await self._deliver()
        if failures:
            raise failures[0]
        counts = {
            "raised": sum(len(item.raised) for item in observed),
            "cleared": sum(len(item.cleared) for item in observed),
            "escalated": len(escalated),
            "planned": planned,
            "delivered": delivered,
            "failed": failed,
        }
        return {name: count for name, count in counts.items() if count}

    async def _look(self, look: Look) -> Observed:
        """Look for one kind in a transaction of its own: one that fails hides no other."""
        observed = await transact(self.engine, partial(self._observe, look))
        for item in observed.raised:
            log.error("alert", kind=str(item.kind), key=item.key, text=item.text)
        for item in observed.cleared:
            log.info("alert is over", kind=str(item.kind), key=item.key)
        return observed

    async def _observe(self, look: Look, conn: AsyncConnection) -> Observed:
        found = await look.find(conn)
        return await observe(conn, self.book, found, examined={look.kind}, now=self.clock.now())

    async def _escalate(self, conn: AsyncConnection) -> list[Alert]:
        return await escalate(conn, self.book, await current_policy(conn), now=self.clock.now())

    async def _plan(self, conn: AsyncConnection) -> int:
        return await plan(conn, self.book, await current_policy(conn), now=self.clock.now())

    async def _deliver(self) -> tuple[int, int]:
        """Send what is due; a channel that has failed once waits for the next turn.

        One that hangs would keep everybody else waiting, and the house from being looked at.
        """
        delivered = 0
        down: set[Channel] = set()
        for _ in range(BATCHES_MAX):
            claimed = await transact(self.engine, self._claim)
            if not claimed:
                break
            for item in claimed:
                if item.channel in down:
                    await self._record(partial(postpone, item=item))
                elif await self._send(item):
                    delivered += 1
                else:
                    down.add(item.channel)
        return delivered, len(down)

    async def _claim(self, conn: AsyncConnection) -> list[Delivery]:
        return await claim_due(conn, holder=self.holder, now=self.clock.now())

    async def _send(self, item: Delivery) -> bool:
        try:
            await self.sender.send(item)
        except OutsideUnavailable as error:
            log.error("alert not delivered", channel=item.channel.name, error=str(error))  # noqa: TRY400  foreseen: the sentence says all
            await self._record(partial(record_failed, item=item, detail=str(error)))
            return False
        await self._record(partial(record_delivered, item=item))
        return True

    async def _record(self, end: Callable[..., Awaitable[object]]) -> None:
        try:
            await transact(self.engine, partial(end, now=self.clock.now()))
        except StaleFence:
            # It took longer than the lease: whoever has the message now tells how it ended.
            log.warning("another worker has taken a message over")
