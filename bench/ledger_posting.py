"""How near is posting to the least that any ledger on PostgreSQL has to do?

Ours is `ledger.posting.post`: a transfer row, two entries with the balance after them, two balances,
the leaf and the block of the tree, decided under the head's lock and committed. The limit is COPY of
the same transfer rows alone, into a table with one unique index and nothing else, in as many
commits: no ledger that keeps its transfers in this PostgreSQL can be faster.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.local.migrate import migrate
from app.local.postgres import DURABLE, LocalPostgres
from bench.measure import Measured, Result, alternate, versions
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine, transact
from kernel.ids import derive_id
from ledger.model import Transfer, transfer
from ledger.posting import ensure_accounts, open_book, post, require_applied

SEED: Final = 20
BOOK: Final = 1
ASSET: Final = "USDT"
ACCOUNTS: Final = 10_000
BATCH: Final = 1_000
BATCHES_PER_TURN: Final = 10
ROUNDS: Final = 5
FUNDS: Final = 10**15
AMOUNT_MAX: Final = 10**6
OPENED_AT_ONCE: Final = 5_000
POOL: Final = "custody:bench"

SERVER: Final = {**DURABLE, "shared_buffers": "256MB", "max_wal_size": "2GB"}
"""As the embedded server of the demo, with room for the working set; commits reach the disk."""

SHOWN: Final = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "wal_level",
    "autovacuum",
)

LIMIT_TABLE: Final = """
CREATE SCHEMA bench;
CREATE TABLE bench.transfer (LIKE ledger.transfer);
CREATE UNIQUE INDEX ON bench.transfer (book, id)
"""


def measure() -> Measured:
    """Post and COPY in turn on a server of this benchmark's own."""
    with _server() as server, asyncio.Runner() as runner:
        return runner.run(_Bench(server, runner).prepare()).measure()


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
    """A migrated server with funded accounts, and the two contestants."""

    def __init__(self, server: LocalPostgres, runner: asyncio.Runner) -> None:
        self.server = server
        self.runner = runner
        self.engine: AsyncEngine
        self.copying: asyncpg.Connection
        self.settings: dict[str, str] = {}
        self.chance = random.Random(SEED)
        self.began = SystemClock().now()
        self.made = 0
        self.copied = 0

    async def prepare(self) -> _Bench:
        """Migrate, open the accounts, give every client something to spend."""
        await migrate(self.server.url())
        self.copying = await asyncpg.connect(self.server.psql_url())
        await self.copying.execute(LIMIT_TABLE)
        self.settings = {
            name: await self.copying.fetchval(f"SHOW {name}") for name in ("server_version", *SHOWN)
        }
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
        return self

    def measure(self) -> Measured:
        """Let posting and COPY take turns."""
        rates = alternate({"post": self._posting, "copy": self._copy}, ROUNDS)
        self.runner.run(self._close())
        return Measured(
            [
                Result(
                    name="ledger.posting",
                    value=rates["post"],
                    unit="transfers/s",
                    baseline="COPY of the transfer rows only, one unique index (limit)",
                    baseline_value=rates["copy"],
                )
            ],
            {
                "input": (
                    f"{ACCOUNTS:,} accounts with an overdraft guard, pairs at random, one writer, "
                    f"batches of {BATCH:,} transfers, one commit each; "
                    f"{ROUNDS} turns of {BATCHES_PER_TURN * BATCH:,} transfers"
                ),
                "server": ", ".join(f"{k}={v}" for k, v in self.settings.items()),
            },
            versions("sqlalchemy", "asyncpg"),
        )

    def _posting(self) -> Any:
        batches = [
            [
                self._transfer(*self._pair(), self.chance.randint(1, AMOUNT_MAX))
                for _ in range(BATCH)
            ]
            for _ in range(BATCHES_PER_TURN)
        ]

        async def work() -> int:
            for batch in batches:
                await self._post(batch)
            return BATCHES_PER_TURN * BATCH

        return lambda: self.runner.run(work())

    def _copy(self) -> Any:
        batches = self.runner.run(self._written())

        async def work() -> int:
            for rows in batches:
                await self.copying.copy_records_to_table(
                    "transfer", schema_name="bench", records=rows
                )
            return sum(map(len, batches))

        return lambda: self.runner.run(work())

    async def _written(self) -> list[list[tuple[Any, ...]]]:
        """Return the rows of the newest turn of posting, in its batches."""
        rows = await self.copying.fetch(
            "SELECT * FROM ledger.transfer ORDER BY book, sequence DESC LIMIT $1",
            BATCHES_PER_TURN * BATCH,
        )
        plain = [tuple(row) for row in reversed(rows)]
        return [plain[first : first + BATCH] for first in range(0, len(plain), BATCH)]

    async def _post(self, batch: Sequence[Transfer]) -> None:
        async def work(conn: AsyncConnection) -> None:
            require_applied(await post(conn, BOOK, batch))

        await transact(self.engine, work)

    async def _close(self) -> None:
        await self.copying.close()
        await self.engine.dispose()

    def _pair(self) -> tuple[str, str]:
        debit, credit = self.chance.sample(range(ACCOUNTS), 2)
        return _client(debit), _client(credit)

    def _transfer(self, debit: str, credit: str, amount: int) -> Transfer:
        self.made += 1
        return transfer(
            derive_id(self.began, "bench", self.made), debit, credit, amount, ASSET, code="bench"
        )


def _client(number: int) -> str:
    return f"client:c{number:05}"
