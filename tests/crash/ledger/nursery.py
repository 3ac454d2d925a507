"""Posters to kill, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import hypothesis
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local import process_table
from kernel.db import transact
from ledger.posting import decided
from ledger.verification import verify
from tests.crash.ledger.poster import Ack, Order, as_line
from tests.crash.ledger.workload import (
    CREATED_BY_BATCH,
    REFUSED_BY_BATCH,
    answers,
    columns_of,
    count_of,
    expected,
    padding,
    prepare_book,
    send,
)

REPOSITORY: Final = Path(__file__).absolute().parents[3]
GONE_S: Final = 30.0


def rounds(usual: int) -> int:
    """Return how many rounds to play: *usual* of them, five times that in a soak."""
    return usual * max(1, hypothesis.settings().max_examples // 200)


@dataclass(frozen=True, slots=True)
class Poster:
    """A poster that lives, or lived."""

    pid: int
    identity: str
    order: Order

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended by itself."""
        process_table.send(self.pid, self.identity, number)

    async def gone(self) -> None:
        """Wait until it has ended."""
        assert await asyncio.to_thread(
            process_table.wait_gone, self.pid, self.identity, timeout_seconds=GONE_S
        ), "the poster does not end"


@dataclass(slots=True)
class Nursery:
    """Where posters come from; see `tests.crash.ledger.poster`."""

    process: asyncio.subprocess.Process
    folder: Path
    posters: list[Poster]

    async def bear(
        self, url: str, *streams: str, batches: int, book: int = 1, first: int | None = None
    ) -> Poster:
        """Start a poster that goes on where its streams' acknowledgements end."""
        acked = min(len(self.acks(stream)) for stream in streams)
        order = Order(
            url, book, streams, acked if first is None else first, batches, str(self.folder)
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(as_line(order))
        pid = int(await self.process.stdout.readline())
        # One that has ended already has no identity; nothing is sent to it then.
        poster = Poster(pid, process_table.identity(pid) or "", order)
        self.posters.append(poster)
        return poster

    def acks(self, stream: str) -> list[Ack]:
        """Return what was promised to a stream, the first promise of each batch."""
        found: dict[int, Ack] = {}
        for ack in Ack.read(self.folder, stream):
            found.setdefault(ack.batch, ack)
        return list(found.values())


@contextlib.asynccontextmanager
async def opened_nursery(folder: Path) -> AsyncIterator[Nursery]:
    """Give a nursery; whoever still lives at the end is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.crash.ledger.poster"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    nursery = Nursery(process, folder, [])
    try:
        yield nursery
    finally:
        for poster in nursery.posters:
            poster.send(signal.SIGKILL)
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def promises_hold(engine: AsyncEngine, nursery: Nursery, streams: Sequence[str]) -> int:
    """Assert that everything acknowledged is in the journal as it was said; return how many acks."""
    count = 0
    for stream in streams:
        acks = nursery.acks(stream)
        assert [ack.batch for ack in acks] == list(range(len(acks)))
        ids = [UUID(key) for ack in acks for key in ack.decided]
        found = await transact(engine, lambda conn: decided(conn, 1, ids))  # noqa: B023  run at once
        for ack in acks:
            for key, (sequence, amount) in ack.decided.items():
                answer = found[UUID(key)]
                assert answer.sequence == sequence
                assert (None if answer.amount is None else str(answer.amount)) == amount
        count += len(acks)
    return count


async def retries_double_nothing(
    engine: AsyncEngine, streams: Sequence[str], batches: int, *, clean_book: int
) -> None:
    """Send every batch again under the same ids and assert that the book is that of a clean run."""
    await prepare_book(engine, clean_book, streams)
    for stream in streams:
        for number in range(batches):
            for book in (1, clean_book):
                assert answers(await send(engine, book, stream, number)) == expected(stream)
    assert await columns_of(engine, 1) == await columns_of(engine, clean_book)
    for table in ("transfer", "entry", "refusal", "hold"):
        assert await count_of(engine, 1, table) == await count_of(engine, clean_book, table)
    total = len(streams) * batches
    assert await count_of(engine, 1, "refusal") == total * REFUSED_BY_BATCH
    # The last item of a batch is the first batch's funding again.
    created = total * (CREATED_BY_BATCH - 1) + sum(batches * padding(name) for name in streams)
    assert await count_of(engine, 1, "transfer") == created
    assert await verify(engine, 1) == []
