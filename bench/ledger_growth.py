"""Does posting slow down as the journal grows?

Ten million transfers are posted to one book, in batches of 1,000 through the writer. The rate of
the last tenth is held against that of the first. It takes about ten minutes and some 8 GB
of disk, so it is run by name only.
"""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Final

import asyncpg

from bench.ledger_book import ACCOUNTS, BATCH, Book, books, used
from bench.measure import Measured, Result, Shared

TRANSFERS: Final = 10_000_000
PARTS: Final = 10
BATCHES_AT_ONCE: Final = 50
AT_LEAST: Final = 0.8


def measure(shared: Shared) -> Measured:
    """Post as many transfers as *shared* asks for, and compare the last tenth with the first."""
    found = shared.once(books)
    transfers = shared.size or TRANSFERS
    with found.book("ledger_growth") as book:
        rates: list[float] = []
        for part in range(1, PARTS + 1):
            rates.append(_part(book, transfers // PARTS))
            sys.stderr.write(f"  {part * transfers // PARTS:,} transfers: {rates[-1]:,.0f}/s\n")
        size = book.runner.run(_bytes(book))
    return Measured(
        [
            Result(
                name="ledger_growth",
                value=rates[-1],
                unit="transfers/s",
                baseline=f"the first {transfers // PARTS:,} transfers",
                baseline_value=rates[0],
                at_least=AT_LEAST,
            ),
            Result(name="ledger_growth.size", value=size / transfers, unit="bytes/transfer"),
        ],
        {
            **found.conditions(
                f"{transfers:,} transfers over {ACCOUNTS:,} accounts with an overdraft guard, pairs at "
                f"random, batches of {BATCH:,} through the writer"
            ),
            "rates": ", ".join(f"{rate:,.0f}" for rate in rates),
        },
        used(),
    )


def _part(book: Book, transfers: int) -> float:
    """Post so many transfers and return their rate; making them is not timed."""
    done, seconds = 0, 0.0
    while done < transfers:
        count = max(1, min(BATCHES_AT_ONCE, (transfers - done) // BATCH))
        turn = book.writing(BATCH, count)
        began = perf_counter()
        done += turn()
        seconds += perf_counter() - began
    return done / seconds


async def _bytes(book: Book) -> int:
    raw = await asyncpg.connect(book.server.psql_url(book.name))
    try:
        size: int = await raw.fetchval("SELECT pg_database_size(current_database())")
        return size
    finally:
        await raw.close()
