"""What does the balance of an account at a moment of the past cost, when it has a long history?

Ours is `ledger.queries.get_balance` at a recorded time, on an account with a million entries.
The limit is one look-up by primary key of one row, through the same driver and connection.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Awaitable, Callable
from datetime import datetime
from time import perf_counter
from typing import Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.ledger_book import ASSET, BOOK, MANY, POOL, SEED, Book, books, used
from bench.measure import Measured, Result, Shared
from ledger.queries import get_balance

LOOK_UPS: Final = 2_000
WARM_UP: Final = 200
AT_MOST: Final = 3
MICROSECONDS: Final = 1_000_000

LOOK_UP: Final = """
SELECT debits_pending, debits_posted, credits_pending, credits_posted, version
  FROM ledger.balance WHERE book = $1 AND account = $2
"""

Call = Callable[[AsyncConnection], Awaitable[object]]


def measure(shared: Shared) -> Measured:
    """Ask for balances of the past and look up rows in turn."""
    found = shared.once(books)
    book = found.many()
    times = book.runner.run(_blocks(book))
    medians = book.runner.run(_ask(book, times))
    return Measured(
        [
            Result(
                name=name,
                value=medians[short] * MICROSECONDS,
                unit="us",
                baseline="a look-up by primary key, same connection (limit)",
                baseline_value=medians["key"] * MICROSECONDS,
                at_most=goal,
            )
            for name, short, goal in (
                ("ledger_asof", "past", AT_MOST),
                ("ledger_asof.now", "now", None),
            )
        ],
        found.conditions(
            f"an account with {MANY:,} entries, which funded as many others; {LOOK_UPS:,} moments "
            f"at random since its first, one connection, one call at a time"
        ),
        used(),
    )


async def _blocks(book: Book) -> list[datetime]:
    """Return the times of the blocks, oldest first, once the planner knows the tables."""
    raw = await asyncpg.connect(book.server.psql_url(book.name))
    try:
        await raw.execute("VACUUM ANALYZE")
        rows = await raw.fetch("SELECT recorded_at FROM ledger.block ORDER BY height")
    finally:
        await raw.close()
    return [row[0] for row in rows]


async def _ask(book: Book, times: list[datetime]) -> dict[str, float]:
    """Return the median seconds of each kind of call."""
    chance = random.Random(SEED)
    first, span = times[0], times[-1] - times[0]

    async def past(conn: AsyncConnection) -> object:
        at = first + span * chance.random()
        return await get_balance(conn, BOOK, POOL, ASSET, at_time=at)

    async def now(conn: AsyncConnection) -> object:
        return await get_balance(conn, BOOK, POOL, ASSET)

    async def key(conn: AsyncConnection) -> object:
        number = chance.randrange(1, book.accounts)
        return (await conn.exec_driver_sql(LOOK_UP, (BOOK, number))).fetchall()

    calls: dict[str, Call] = {"past": past, "now": now, "key": key}
    took: dict[str, list[float]] = {name: [] for name in calls}
    async with book.engine.connect() as conn:
        for counted in range(-WARM_UP, LOOK_UPS):
            for name, call in calls.items():
                began = perf_counter()
                await call(conn)
                if counted >= 0:
                    took[name].append(perf_counter() - began)
    return {name: statistics.median(found) for name, found in took.items()}
