"""The watch over a house that runs: its daily reconciliation, and what people have to know."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from sqlalchemy.ext.asyncio import AsyncEngine

from app.alerts.channels import Post
from app.alerts.conditions import conditions
from app.workers.alert_file import AlertSection
from app.workers.alerts import AlertWorker
from app.workers.loops import Loop
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import CausewayError
from reporting.recon.runs import reconcile_daily


@asynccontextmanager
async def open_alerts(
    engine: AsyncEngine, section: AlertSection, *, book: int, clock: Clock, holder: str
) -> AsyncIterator[Loop]:
    """Give the loop that looks at the house, and tells people.

    Raises:
        BadInput: the secret of web hooks cannot be read.
    """
    secret = section.read_secret()
    async with aiohttp.ClientSession() as session:
        worker = AlertWorker(
            engine=engine,
            clock=clock,
            book=book,
            looks=conditions(book, clock),
            sender=Post(
                session=session,
                clock=clock,
                secret=secret,
                smtp=section.smtp,
                sender=section.sender,
            ),
            holder=holder,
        )

        async def look() -> Mapping[str, object]:
            # First of all: what the day's reconciliation finds is looked at with everything else. Where
            # it cannot be made, people are told of the rest all the same.
            try:
                made = await transact(
                    engine, lambda conn: reconcile_daily(conn, book, now=clock.now())
                )
            except CausewayError:
                await worker.turn()
                raise
            daily = {} if made is None else {"reconciliation": str(made.result)}
            return {**daily, **await worker.turn()}

        yield Loop(name="alerts", turn=look, pause=section.pause)
