"""The hourly proof while PostgreSQL goes away: an attempt that failed, and no end of the house."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.faults.proxy import FaultProxy, postgres_target
from app.faults.wire_rules import Fault, Rule
from app.local.databases import Database
from app.workers.books_proof import BooksProof, proof_schedule
from app.workers.jobs import JobWorker
from kernel.clock import ManualClock
from kernel.db import APP_ROLE, create_engine, transact
from kernel.jobs import enqueue
from ledger.queries import head
from tests.crash.ledger.workload import prepare_book

BOOK = 1


@pytest.mark.parametrize(
    "fault",
    [Rule(fault=Fault.CUT, heard="COPY ("), Rule(fault=Fault.REFUSE)],
    ids=["while it reads", "before it reads"],
)
async def test_a_server_that_goes_away_is_an_attempt_that_failed_and_the_next_one_proves(
    engine: AsyncEngine, database: Database, tmp_path: Path, fault: Rule
) -> None:
    await prepare_book(engine, BOOK, ["lone"])
    async with FaultProxy(postgres_target(database.app_url)) as proxy:
        wired = create_engine(proxy.database_url(database.app_url), role=APP_ROLE)
        # The connection over which the proof is asked for is there already.
        await transact(wired, lambda conn: head(conn, BOOK))
        clock = ManualClock()
        name = proof_schedule(BOOK, clock).name
        proof = BooksProof(engine=wired, book=BOOK, folder=tmp_path, stops=lambda: False)
        worker = JobWorker(engine=engine, clock=clock, handlers={name: proof.prove})
        await transact(engine, lambda conn: enqueue(conn, name, clock.now()))

        proxy.set(fault)
        away = await worker.turn()
        proxy.clear()
        clock.advance(timedelta(hours=1))
        back = await worker.turn()
        await wired.dispose()

    assert (len(away.done), len(away.failed), len(back.done)) == (0, 1, 1)
    assert "PostgreSQL went away during the proof" in next(iter(away.failed.values()))
