"""A server and books for the ledger's benchmarks.

One server for all of them, with fixed settings; a database for each, cloned from one template whose
book has 10,000 client accounts, every one with an overdraft guard and something to spend.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from app.local.migrate import migrate
from app.local.postgres import DURABLE, LocalPostgres
from bench.measure import Turn, versions
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine, transact
from kernel.ids import derive_id
from ledger.accounts import open_accounts
from ledger.chart import account_spec
from ledger.model import BATCH_MAX, PostResult, Transfer, transfer
from ledger.posting import open_book, post, require_applied
from ledger.writer import Writer

SEED: Final = 20
BOOK: Final = 1
ASSET: Final = "USDT"
ACCOUNTS: Final = 10_000
MANY: Final = 1_000_000
FUNDS: Final = 10**15
AMOUNT_MAX: Final = 10**6
POOL: Final = "custody:bench"
BATCH: Final = 1_000
TEMPLATE: Final = "bench_template"
CONNECTIONS: Final = 8
IN_FLIGHT: Final = 3
"""Whole batches that wait at the writer at once, so that it never waits for the next."""

SERVER: Final = {**DURABLE, "shared_buffers": "1GB", "max_wal_size": "4GB"}
"""As the embedded server of the demo, with room for the working set; commits reach the disk."""

SHOWN: Final = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "wal_level",
    "autovacuum",
)

Pair = Callable[[random.Random], tuple[int, int]]
"""Draws the numbers of the debited and of the credited account."""


class Books:
    """The server, and a template of a funded book on it."""

    def __init__(self, server: LocalPostgres) -> None:
        self.server = server
        self.settings: dict[str, str] = {}
        self._stack = ExitStack()
        self._many: Book | None = None

    async def prepare(self) -> None:
        """Make the template: migrated, its accounts open and funded."""
        await self.administer(f"CREATE DATABASE {TEMPLATE}")
        await migrate(self.server.url(TEMPLATE))
        raw = await asyncpg.connect(self.server.psql_url())
        try:
            self.settings = {name: await raw.fetchval(f"SHOW {name}") for name in SHOWN}
        finally:
            await raw.close()

    async def administer(self, statement: str) -> None:
        """Run a statement about databases."""
        raw = await asyncpg.connect(self.server.psql_url())
        try:
            await raw.execute(statement)
        finally:
            await raw.close()

    @contextmanager
    def book(self, name: str) -> Iterator[Book]:
        """Give a database of its own to a benchmark, and drop it afterwards."""
        with asyncio.Runner() as runner:
            runner.run(self.administer(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
            found = Book(self, name, runner)
            try:
                yield found
            finally:
                runner.run(found.close())
                runner.run(self.administer(f"DROP DATABASE {name}"))

    def many(self) -> Book:
        """Return the book of a million accounts, made when it is first asked for.

        All were funded from `POOL`, which therefore has a million entries.
        """
        if self._many is None:
            self._many = self._stack.enter_context(self.book("bench_many"))
            self._many.runner.run(self._many.open(ACCOUNTS, MANY))
        return self._many

    def close(self) -> None:
        """Drop what was made on the way."""
        self._stack.close()

    def conditions(self, words: str) -> dict[str, str]:
        """Return what a benchmark says about its *input* and the server."""
        return {"input": words, "server": ", ".join(f"{k}={v}" for k, v in self.settings.items())}


@contextmanager
def books() -> Iterator[Books]:
    """Start the server and make the template."""
    folder = Path(tempfile.mkdtemp(prefix="causeway-bench-"))
    # PostgreSQL never runs as root: its own user must be able to pass.
    folder.chmod(0o711)
    try:
        with LocalPostgres(folder / "pg", settings=SERVER) as server:
            found = Books(server)
            with asyncio.Runner() as runner:
                runner.run(found.prepare())
                template = Book(found, TEMPLATE, runner)
                runner.run(template.open(0, ACCOUNTS))
                runner.run(template.close())
            try:
                yield found
            finally:
                found.close()
    finally:
        shutil.rmtree(folder)


class Book:
    """One book, and everything a benchmark does to it."""

    def __init__(self, of: Books, name: str, runner: asyncio.Runner) -> None:
        self.server = of.server
        self.name = name
        self.runner = runner
        self.engine = create_engine(of.server.url(name), role=APP_ROLE, pool_size=CONNECTIONS)
        self.chance = random.Random(SEED)
        self.accounts = ACCOUNTS
        self._clock = SystemClock()

    async def open(self, first: int, end: int) -> None:
        """Open the clients numbered from *first* to before *end*, and fund them."""
        async with self.engine.begin() as conn:
            await open_book(conn, BOOK, entity="bench")
            await open_accounts(conn, BOOK, [account_spec(POOL, ASSET)])
        for start in range(first, end, BATCH_MAX):
            paths = [client(number) for number in range(start, min(end, start + BATCH_MAX))]
            async with self.engine.begin() as conn:
                await open_accounts(conn, BOOK, [account_spec(path, ASSET) for path in paths])
        self.accounts = end
        async with self.writer(BATCH_MAX) as writer:
            await submit(writer, self._funding(first, end))

    def _funding(self, first: int, end: int) -> Iterator[list[Transfer]]:
        for start in range(first, end, BATCH_MAX):
            numbers = range(start, min(end, start + BATCH_MAX))
            yield [self.transfer(POOL, client(number), FUNDS) for number in numbers]

    def writer(self, group_max: int) -> Writer:
        """Return a writer whose commits hold *group_max* transfers at most."""
        return Writer(self.engine, BOOK, group_max=group_max)

    def transfer(self, debit: str, credit: str, amount: int) -> Transfer:
        """Return a transfer with an id of its own, in the order of time."""
        unique = self.chance.getrandbits(64)
        return transfer(
            derive_id(self._clock.now(), "bench", unique),
            debit,
            credit,
            amount,
            ASSET,
            code="bench",
        )

    def batches(self, size: int, count: int, pair: Pair | None = None) -> list[list[Transfer]]:
        """Return *count* batches of *size* random transfers; uniform pairs unless *pair* is given."""
        draw = pair or self.uniform
        return [[self._random(draw) for _ in range(size)] for _ in range(count)]

    def uniform(self, chance: random.Random) -> tuple[int, int]:
        """Draw two different accounts, each as likely as any other."""
        debit = chance.randrange(self.accounts)
        credit = chance.randrange(self.accounts - 1)
        return debit, credit + (credit >= debit)

    def _random(self, draw: Pair) -> Transfer:
        debit, credit = draw(self.chance)
        return self.transfer(client(debit), client(credit), self.chance.randint(1, AMOUNT_MAX))

    def writing(self, size: int, count: int, pair: Pair | None = None) -> Turn:
        """Return a turn of the writer with whole batches, each in a commit of its own."""
        batches = self.batches(size, count, pair)

        async def work() -> int:
            async with self.writer(size) as writer:
                await submit(writer, iter(batches))
                assert writer.commits == count
            return size * count

        return lambda: self.runner.run(work())

    def posting(self, size: int, count: int) -> Turn:
        """Return a turn of plain posting, one transaction for each batch."""
        batches = self.batches(size, count)

        async def work() -> int:
            for batch in batches:
                await self.post(batch)
            return size * count

        return lambda: self.runner.run(work())

    async def post(self, batch: Sequence[Transfer]) -> None:
        """Post a batch in one transaction; every transfer must be applied."""

        async def work(conn: AsyncConnection) -> list[PostResult]:
            return await post(conn, BOOK, batch)

        require_applied(await transact(self.engine, work))

    async def close(self) -> None:
        """Leave the database."""
        await self.engine.dispose()


async def submit(writer: Writer, batches: Iterator[list[Transfer]]) -> None:
    """Submit whole batches, some of them in flight at once; every transfer must be applied."""

    async def work() -> None:
        for batch in batches:
            require_applied(await writer.submit(*batch))

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work())


def client(number: int) -> str:
    """Return the path of a client's account."""
    return f"client:c{number:07}"


def used() -> dict[str, str]:
    """Return the versions of what takes part in each of the ledger's benchmarks."""
    return versions("sqlalchemy", "asyncpg")
