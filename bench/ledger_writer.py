"""How fast are 256 tasks that each post one transfer at a time and wait for its answer?

They share one writer, which takes whatever waits into one commit. Beside it stand batches of 1,000
through the same writer. The latency is what a task sees, from submitting to its answer after
the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import perf_counter
from typing import Final

from bench.ledger_book import ACCOUNTS, BATCH, Book, books, used
from bench.measure import Measured, Result, Shared, Turn, alternate, percentile
from ledger.model import Transfer
from ledger.posting import require_applied
from ledger.writer import Writer

ROUNDS: Final = 5
SUBMITTERS: Final = 256
TRANSFERS_PER_TURN: Final = 20_000
AT_LEAST: Final = 0.4
PERCENTILES: Final = (50, 95, 99)
MILLISECONDS: Final = 1_000


def measure(shared: Shared) -> Measured:
    """Let single submissions and whole batches take turns."""
    found = shared.once(books)
    latencies: list[float] = []
    with found.book("ledger_writer") as book:
        rates = alternate(
            {
                "single": lambda: _single(book, latencies),
                "batches": lambda: book.writing(BATCH, TRANSFERS_PER_TURN // BATCH),
            },
            ROUNDS,
        )
    del latencies[:TRANSFERS_PER_TURN]  # The turn that warms up does not count.
    return Measured(
        [
            Result(
                name="ledger_writer",
                value=rates["single"],
                unit="transfers/s",
                baseline=f"batches of {BATCH:,} through the same writer",
                baseline_value=rates["batches"],
                at_least=AT_LEAST,
            ),
            *(
                Result(
                    name=f"ledger_writer.p{percent}",
                    value=percentile(latencies, percent) * MILLISECONDS,
                    unit="ms",
                )
                for percent in PERCENTILES
            ),
        ],
        found.conditions(
            f"{SUBMITTERS} tasks, one transfer each at a time, {ACCOUNTS:,} accounts with an "
            f"overdraft guard, pairs at random; {ROUNDS} turns of {TRANSFERS_PER_TURN:,} transfers"
        ),
        used(),
    )


def _single(book: Book, latencies: list[float]) -> Turn:
    (transfers,) = book.batches(TRANSFERS_PER_TURN, 1)

    async def work() -> int:
        waiting = iter(transfers)
        async with book.writer(BATCH) as writer, asyncio.TaskGroup() as group:
            for _ in range(SUBMITTERS):
                group.create_task(_submit(writer, waiting, latencies))
        return len(transfers)

    return lambda: book.runner.run(work())


async def _submit(writer: Writer, waiting: Iterator[Transfer], latencies: list[float]) -> None:
    for item in waiting:
        began = perf_counter()
        require_applied(await writer.submit(item))
        latencies.append(perf_counter() - began)
