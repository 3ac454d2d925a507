"""The proof of the books as a job of the house: every hour, once however many replicas run.

The job's rows say when the books were last proven (``causeway_books_proof_age_seconds``). Each proof
goes on where the one before ended (`ledger.verification.examine` with a state file): the file lies in
the state directory of the house and is named after the book and the moment it was opened, so that
another database never goes on from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.house_parts import House, holder, nonzero
from app.workers.jobs import JobWorker
from app.workers.loops import Loop
from app.workers.scheduler import Schedule
from kernel.clock import Clock
from kernel.db import APP_ROLE, create_engine, transact
from kernel.errors import BadInput, OutsideUnavailable, Refused, ungrouped
from kernel.jobs import Job
from ledger.verification import Verified, examine

JOB: Final = "books.proof"
CRON: Final = "11 * * * *"
FOLDER: Final = "proofs"
PAUSE: Final = timedelta(seconds=10)
BACK: Final = timedelta(hours=1)
"""Slots of the proof are made up for no further back: one proof proves everything."""
FAULTS_TOLD_MAX: Final = 20
LOST: Final = (
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    DBAPIError,
    OSError,
)
"""What the driver says of a server that is away, or goes away; of statements that are wrong it says others."""
OPENED_AT: Final = "SELECT opened_at FROM ledger.head WHERE book = :book"

log = structlog.get_logger("books")


class BooksDoNotHold(Refused):
    """The books are not what their records make them."""


def proof_schedule(book: int, clock: Clock) -> Schedule:
    """Return when a book is proven."""
    return Schedule(f"{JOB}/{book}", CRON, "UTC", clock.now() - BACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksProof:
    """Proves one book.

    Attributes:
        folder: where it is kept how far the book has been proven.
        stops: asked now and then, from another thread: whether the house is to end, so that a proof
            which is under way is given up.
    """

    engine: AsyncEngine
    book: int
    folder: Path
    stops: Callable[[], bool]

    async def prove(self, job: Job) -> None:
        """Do the job: derive everything again that is newer than the last proof.

        Raises:
            BooksDoNotHold: names table, row and fault of what does not fit.
            BadInput: the folder cannot be written, or holds something else.
            OutsideUnavailable: the house stops, or PostgreSQL goes away.
        """
        opened_at = await transact(self.engine, self._opened_at)
        state = self.folder / f"book-{self.book}-{opened_at.timestamp():.6f}.state"
        url = self.engine.url.render_as_string(hide_password=False)
        # A thread and connections of its own: recomputing holds nobody's turn up.
        with ungrouped():
            try:
                found = await asyncio.to_thread(lambda: asyncio.run(self._examine(url, state)))
            except* LOST as lost:
                raise OutsideUnavailable(
                    f"PostgreSQL went away during the proof: {lost.exceptions[0]}",
                    remedy="The next attempt goes on from there",
                ) from lost
        for fault in found.faults[:FAULTS_TOLD_MAX]:
            log.error("the books do not hold", table=fault.table, row=fault.key, what=fault.what)
        if found.faults:
            first = found.faults[0]
            raise BooksDoNotHold(
                f"{len(found.faults)} faults; the first: {first.key} {first.what}",
                where=first.table,
                remedy="Run `causeway verify`, see docs/runbooks/books-do-not-hold.md",
            )
        log.info(
            "the books are proven",
            book=self.book,
            slot=job.scheduled_for.isoformat(),
            records=found.sequence,
            read=found.sequence - found.since,
        )

    async def _examine(self, url: str, state: Path) -> Verified:
        try:
            state.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(
                f"the folder of proofs cannot be made: {error.strerror}", where=str(state.parent)
            ) from error
        engine = create_engine(url, role=APP_ROLE, pool_size=2)
        try:
            return await examine(engine, self.book, progress=self._go_on, state=state)
        finally:
            await engine.dispose()

    def _go_on(self, done: int, of: int) -> None:
        if self.stops():
            raise OutsideUnavailable(
                f"the house stops; {done} of {of} records were proven",
                remedy="The next one goes on from there",
            )

    async def _opened_at(self, conn: AsyncConnection) -> datetime:
        opened_at: datetime | None = await conn.scalar(text(OPENED_AT), {"book": self.book})
        if opened_at is None:
            raise Refused(f"there is no book {self.book}", remedy="Open it first")
        return opened_at


def proof_loop(house: House, stop: asyncio.Event) -> Loop:
    """Return the loop that proves the book of a house."""
    proof = BooksProof(
        engine=house.engine,
        book=house.file.book,
        folder=house.settings.state_dir / FOLDER,
        stops=stop.is_set,
    )
    worker = JobWorker(
        engine=house.engine,
        clock=house.clock,
        handlers={f"{JOB}/{house.file.book}": proof.prove},
        holder=holder(house, "proof"),
    )

    async def prove() -> Mapping[str, object]:
        turn = await worker.turn()
        return nonzero({"proven": len(turn.done), "failed": dict(turn.failed)})

    return Loop(name="proof", turn=prove, pause=PAUSE)
