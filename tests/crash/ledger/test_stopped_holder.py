"""A process that stops while it holds the head's lock: the others wait no longer than the time-out."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from kernel.db import APP_ROLE, IDLE_IN_TRANSACTION_TIMEOUT_MS, create_engine
from tests.crash.ledger.nursery import Nursery, Poster, promises_hold, retries_double_nothing
from tests.crash.ledger.wire import Step, is_lock, is_written, wired
from tests.crash.ledger.workload import answers, expected, prepare_book, send

TIMEOUT_S = IDLE_IN_TRANSACTION_TIMEOUT_MS / 1000
BUSY_MACHINE_S = 1.5


@pytest.mark.parametrize("point", [is_lock, is_written])
async def test_a_stopped_process_delays_the_others_at_most_the_timeout(
    engine: AsyncEngine, database: Database, nursery: Nursery, point: object
) -> None:
    """It is let go on afterwards, and finds out that it has to ask again."""
    assert callable(point)
    await prepare_book(engine, 1, ["stops", "other-1", "other-2"])
    stopped: asyncio.Queue[Poster] = asyncio.Queue()
    async with wired(database.app_url) as wire:
        poster: list[Poster] = []

        def watch(step: Step) -> bool:
            if poster and stopped.empty() and step.answered and not step.prepares and point(step):
                poster[0].send(signal.SIGSTOP)
                stopped.put_nowait(poster[0])
            return False

        wire.watch = watch
        poster.append(await nursery.bear(wire.url, "stops", batches=2))
        async with asyncio.timeout(30):
            holder = await stopped.get()
        stopped.put_nowait(holder)

        waited = [await post_as_in_production(database, n) for n in (1, 2)]
        holder.send(signal.SIGCONT)
        await holder.gone()

    # Only the first one meets the holder: it waits, and not longer than it must.
    assert TIMEOUT_S / 2 < waited[0] < TIMEOUT_S + BUSY_MACHINE_S
    assert waited[1] < TIMEOUT_S / 2
    assert await promises_hold(engine, nursery, ["stops"]) == 2
    await retries_double_nothing(engine, ["stops", "other-1", "other-2"], 2, clean_book=2)


async def post_as_in_production(database: Database, number: int) -> float:
    """Post a batch with the time-outs of production; return the seconds it took."""
    production = create_engine(database.app_url, role=APP_ROLE)
    started = time.monotonic()
    try:
        stream = f"other-{number}"
        assert answers(await send(production, 1, stream, 0)) == expected(stream)
    finally:
        await production.dispose()
    return time.monotonic() - started
