"""A process that posts streams of batches until it is done, or killed.

``python -m tests.crash.ledger.poster`` is a nursery: it reads one order a line (JSON), forks a
poster for each and says its process id, so that a poster is born without importing anything. An
acknowledgement is one line written after the commit: what stands there has been promised.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import APP_ROLE, create_engine, transact
from kernel.errors import CommitUnknown, OutcomeUnknown, OutsideUnavailable
from ledger.model import PostResult, Transfer
from ledger.posting import post
from ledger.writer import Writer
from tests.crash.ledger.workload import batch

RETRY_S: Final = 0.02

Post = Callable[[list[Transfer]], Awaitable[list[PostResult]]]


@dataclass(frozen=True, slots=True)
class Order:
    """What a poster is to do.

    Attributes:
        url: of the server.
        book: the book.
        streams: posted side by side, each in order; through one `Writer` if there are several.
        first: number of the first batch of each stream.
        batches: of each stream.
        folder: where ``<stream>.acks`` are written.
    """

    url: str
    book: int
    streams: tuple[str, ...]
    first: int
    batches: int
    folder: str


@dataclass(frozen=True, slots=True)
class Ack:
    """A promise: this batch is committed, and these are its records."""

    batch: int
    decided: dict[str, tuple[int, str | None]]

    @staticmethod
    def read(folder: Path, stream: str) -> list[Ack]:
        """Return what was promised; the end of a line that a kill cut off was not."""
        path = folder / f"{stream}.acks"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [
            Ack(row["batch"], {key: (value[0], value[1]) for key, value in row["decided"].items()})
            for row in map(json.loads, lines)
        ]


async def run(order: Order) -> None:
    """Carry an order out."""
    engine = create_engine(order.url, role=APP_ROLE, pool_size=1)

    async def post_now(items: list[Transfer]) -> list[PostResult]:
        return await transact(engine, lambda conn: post(conn, order.book, items))

    if len(order.streams) == 1:
        await _stream(order, order.streams[0], post_now)
    else:
        await _write(engine, order)
    await engine.dispose()


async def _write(engine: AsyncEngine, order: Order) -> None:
    async with Writer(engine, order.book) as writer, asyncio.TaskGroup() as group:

        async def submit(items: list[Transfer]) -> list[PostResult]:
            return await writer.submit(*items)

        for stream in order.streams:
            group.create_task(_stream(order, stream, submit))


async def _stream(order: Order, stream: str, post_now: Post) -> None:
    file = os.open(Path(order.folder) / f"{stream}.acks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in range(order.first, order.batches):
        results = await _until_answered(post_now, batch(stream, number))
        decided = {
            str(r.transfer_id): (r.sequence, None if r.amount is None else str(r.amount))
            for r in results
            if r.sequence is not None
        }
        os.write(file, json.dumps({"batch": number, "decided": decided}).encode() + b"\n")
    os.close(file)


async def _until_answered(post_now: Post, items: list[Transfer]) -> list[PostResult]:
    """Send the same ids until there is an answer: what a client that does not know would do."""
    while True:
        try:
            return await post_now(items)
        except (CommitUnknown, OutcomeUnknown, OutsideUnavailable):
            await asyncio.sleep(RETRY_S)


def main() -> None:
    """Fork a poster for each order."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asyncio.run(run(Order(**{**order, "streams": tuple(order["streams"])})))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


def as_line(order: Order) -> bytes:
    """Return an order as the nursery reads it."""
    return json.dumps(asdict(order)).encode() + b"\n"


if __name__ == "__main__":
    main()
