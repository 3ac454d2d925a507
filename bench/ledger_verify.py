"""How fast is a live book verified, and does the memory of it grow with the journal?

The workload is a journal of plain transfers and holds over 10,000 guarded accounts. `ledger.verification`
derives everything again: every leaf, tile and root, both entries of each transfer, each balance
and hold. It runs in a process of its own, so that the memory is its own: the peak resident size, once
over the journal and once over one four times as long.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Final
from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.migrate import migrate
from app.local.postgres import DURABLE, LocalPostgres
from bench.measure import Measured, Result, Shared, peak_memory_kib, versions
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine, transact
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import Transfer, hold, post_hold, transfer
from ledger.posting import open_book, post, require_applied
from ledger.verification import verify

SEED: Final = 20
BOOK: Final = 1
ASSET: Final = "USDT"
ACCOUNTS: Final = 10_000
BATCH: Final = 8_000
TRANSFERS: Final = 100_000
TIMES_LONGER: Final = 4
ROUNDS: Final = 3
FUNDS: Final = 10**15
AMOUNT_MAX: Final = 10**6
HOLD_EVERY: Final = 20
"""One transfer in twenty is a hold, and one resolves it."""
OPENED_AT_ONCE: Final = 5_000
POOL: Final = "custody:bench"
GOAL_PER_S: Final = 100_000
MEMORY_AT_MOST: Final = 1.1

SERVER: Final = {**DURABLE, "shared_buffers": "256MB", "max_wal_size": "2GB"}
SHOWN: Final = ("fsync", "synchronous_commit", "shared_buffers", "max_wal_size", "autovacuum")


def measure(_shared: Shared) -> Measured:
    """Verify a journal, then one four times as long."""
    with _server() as server, asyncio.Runner() as runner:
        bench = _Bench(server, runner)
        runner.run(bench.prepare())
        short = bench.verified(TRANSFERS)
        long = bench.verified(TIMES_LONGER * TRANSFERS)
        settings = runner.run(bench.close())
    return Measured(
        [
            Result(name="ledger_verify", value=long.rate, unit="transfers/s", at_least=GOAL_PER_S),
            Result(
                name="ledger_verify_memory",
                value=long.peak_kib,
                unit="KiB",
                baseline=f"the same over a quarter of the journal, {TRANSFERS:,} transfers",
                baseline_value=short.peak_kib,
                at_most=MEMORY_AT_MOST,
            ),
        ],
        {
            "input": (
                f"{TIMES_LONGER * TRANSFERS:,} transfers over {ACCOUNTS:,} accounts with an"
                f" overdraft guard, pairs at random, two of {HOLD_EVERY} a hold or its posting;"
                f" the median of {ROUNDS} runs"
            ),
            "server": ", ".join(f"{k}={v}" for k, v in settings.items()),
        },
        versions("sqlalchemy", "asyncpg"),
    )


class _Run:
    """One verification, in a process of its own."""

    def __init__(self, seconds: float, records: int, peak_kib: int) -> None:
        self.rate = records / seconds
        self.peak_kib = peak_kib


def run_apart(url: str) -> _Run:
    """Verify the book; called in a fresh process."""

    async def work() -> tuple[float, int]:
        engine = create_engine(url, role=APP_ROLE)
        seen = [0]

        def progress(done: int, _of: int) -> None:
            seen[0] = done

        began = perf_counter()
        faults = await verify(engine, BOOK, progress=progress)
        seconds = perf_counter() - began
        await engine.dispose()
        if faults:
            raise AssertionError(f"a sound book has faults: {faults[:3]}")
        return seconds, seen[0]

    seconds, records = asyncio.run(work())
    return _Run(seconds, records, peak_memory_kib())


@contextmanager
def _server() -> Iterator[LocalPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="causeway-bench-"))
    # PostgreSQL never runs as root: its own user must be able to pass.
    folder.chmod(0o711)
    try:
        with LocalPostgres(folder / "pg", settings=SERVER) as server:
            yield server
    finally:
        shutil.rmtree(folder)


class _Bench:
    """A migrated server with a journal that grows."""

    def __init__(self, server: LocalPostgres, runner: asyncio.Runner) -> None:
        self.server = server
        self.runner = runner
        self.engine: AsyncEngine
        self.chance = random.Random(SEED)
        self.began = SystemClock().now()
        self.made = 0

    async def prepare(self) -> None:
        """Migrate, open the accounts, give every client something to spend."""
        await migrate(self.server.url())
        self.engine = create_engine(self.server.url(), role=APP_ROLE)
        clients = [_client(number) for number in range(ACCOUNTS)]
        async with self.engine.begin() as conn:
            await open_book(conn, BOOK, entity="bench")
            await ensure_accounts(conn, BOOK, [(POOL, ASSET)])
        for first in range(0, ACCOUNTS, OPENED_AT_ONCE):
            some = clients[first : first + OPENED_AT_ONCE]
            async with self.engine.begin() as conn:
                await ensure_accounts(conn, BOOK, [(path, ASSET) for path in some])
            await self._post([self._transfer(POOL, path, FUNDS) for path in some])

    def verified(self, transfers: int) -> _Run:
        """Let the journal grow to *transfers*, and verify it."""
        self.runner.run(self._grow(transfers))
        runs = [self._apart() for _ in range(ROUNDS)]
        middle = statistics.median(run.rate for run in runs)
        return next(run for run in runs if run.rate == middle)

    def _apart(self) -> _Run:
        with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
            return pool.submit(run_apart, self.server.url()).result()

    async def _grow(self, transfers: int) -> None:
        while self.made < transfers:
            batch: list[Transfer] = []
            while len(batch) < BATCH:
                batch += self._next()
            await self._post(batch)
        raw = await asyncpg.connect(self.server.psql_url())
        try:
            await raw.execute("VACUUM ANALYZE")
        finally:
            await raw.close()

    def _next(self) -> list[Transfer]:
        debit, credit = map(_client, self.chance.sample(range(ACCOUNTS), 2))
        amount = self.chance.randint(1, AMOUNT_MAX)
        if self.chance.randrange(HOLD_EVERY):
            return [self._transfer(debit, credit, amount)]
        self.made += 1
        held = hold(self._id(), debit, credit, amount, ASSET, code="bench", purpose="bench")
        self.made += 1
        return [held, post_hold(self._id(), held.id, code="bench")]

    async def _post(self, batch: list[Transfer]) -> None:
        async def work(conn: AsyncConnection) -> None:
            require_applied(await post(conn, BOOK, batch))

        await transact(self.engine, work)

    async def close(self) -> dict[str, str]:
        """Return the server's settings; the work is over."""
        await self.engine.dispose()
        raw = await asyncpg.connect(self.server.psql_url())
        try:
            return {name: await raw.fetchval(f"SHOW {name}") for name in ("server_version", *SHOWN)}
        finally:
            await raw.close()

    def _transfer(self, debit: str, credit: str, amount: int) -> Transfer:
        self.made += 1
        return transfer(self._id(), debit, credit, amount, ASSET, code="bench")

    def _id(self) -> UUID:
        return derive_id(self.began, "bench", self.made)


def _client(number: int) -> str:
    return f"client:c{number:05}"
