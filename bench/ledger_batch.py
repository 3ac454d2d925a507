"""How near do batches of full postings come to COPY of the rows that they leave behind?

Ours is the writer: for each transfer a row, two entries with the balance after them, two balances,
the leaf and the block of the tree, decided under the head's lock, in one commit for each batch.
Beside it stands plain `post`, one transaction for each batch and nothing overlapping.

The peer writes the same transfer and entry rows with asyncpg's `copy_records_to_table`, into tables
with the same columns and indexes and in as many commits, and does nothing else: no decision,
no balance, no proof. The limit does so from bytes that were encoded beforehand.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any, Final

import asyncpg

from bench.ledger_book import ACCOUNTS, BATCH, Book, books, used
from bench.measure import Measured, Result, Shared, Turn, alternate
from ledger.model import BATCH_MAX

ROUNDS: Final = 3
TRANSFERS_PER_TURN: Final = 65_536
"""Long enough that filling the pipeline and emptying it hardly counts."""
POSTED_PER_TURN: Final = 16_384
"""Without a writer there is no pipeline, and a shorter turn will do."""
AT_LEAST: Final = 0.7

PEER: Final = "peer"
LIMIT: Final = "encoded"
TABLES: Final = ("transfer", "entry")

SET_APART: Final = """
DROP TABLE IF EXISTS newest_{table};
CREATE TEMP TABLE newest_{table} AS
    SELECT * FROM ledger.{table} WHERE book = 1 AND sequence > {before};
CREATE INDEX ON newest_{table} (sequence)
"""

SELECT: Final = """
SELECT * FROM newest_{table} WHERE sequence BETWEEN $1 AND $2 ORDER BY sequence
"""

Rows = list[Any]
Batch = tuple[Rows, Rows]
"""The transfer rows and the entry rows of one commit."""


def measure_1000(shared: Shared) -> Measured:
    """Measure batches of 1,000."""
    return _measure(shared, BATCH)


def measure_8192(shared: Shared) -> Measured:
    """Measure the largest batches."""
    return _measure(shared, BATCH_MAX)


def _measure(shared: Shared, size: int) -> Measured:
    found = shared.once(books)
    name = f"ledger_batch_{size}"
    count = TRANSFERS_PER_TURN // size
    with found.book(name) as book:
        rows = _Rows(book, size, count)
        rates = alternate(
            {
                "writer": lambda: book.writing(size, count),
                PEER: rows.copying_records,
                LIMIT: rows.copying_bytes,
                "post": lambda: book.posting(size, POSTED_PER_TURN // size),
            },
            ROUNDS,
        )
        book.runner.run(rows.close())
    against = (
        (name, "writer", PEER, "asyncpg copy_records_to_table of the same rows (peer)", AT_LEAST),
        (f"{name}.encoded", "writer", LIMIT, "binary COPY of rows encoded before (limit)", None),
        (f"{name}.post", "post", PEER, "the peer, beside post() without a writer", None),
    )
    return Measured(
        [
            Result(
                name=known,
                value=rates[ours],
                unit="transfers/s",
                baseline=words,
                baseline_value=rates[theirs],
                at_least=goal,
            )
            for known, ours, theirs, words, goal in against
        ],
        found.conditions(
            f"{ACCOUNTS:,} accounts with an overdraft guard, pairs at random, batches of "
            f"{size:,} transfers, one commit each; {ROUNDS} turns of {size * count:,} transfers"
        ),
        used(),
    )


class _Rows:
    """The rows of the newest turn of posting, and two ways to write them again."""

    def __init__(self, book: Book, size: int, count: int) -> None:
        self.book = book
        self.size = size
        self.count = count
        self.raw: asyncpg.Connection = book.runner.run(asyncpg.connect(self._url))
        for schema in (PEER, LIMIT):
            book.runner.run(self.raw.execute(_tables(schema)))

    @property
    def _url(self) -> str:
        return self.book.server.psql_url(self.book.name)

    def copying_records(self) -> Turn:
        """Return a turn of the peer: Python objects, encoded by the driver."""
        batches: list[Batch] = self._run(self._read())
        return lambda: self._run(self._copy_records(batches))

    def copying_bytes(self) -> Turn:
        """Return a turn of the limit: what the peer would send, encoded beforehand."""
        encoded: list[tuple[bytes, ...]] = self._run(self._encode())
        return lambda: self._run(self._copy_bytes(encoded))

    async def close(self) -> None:
        """Leave the database."""
        await self.raw.close()

    def _run(self, work: Any) -> Any:
        return self.book.runner.run(work)

    async def _copy_records(self, batches: list[Batch]) -> int:
        for batch in batches:
            async with self.raw.transaction():
                for table, rows in zip(TABLES, batch, strict=True):
                    await self.raw.copy_records_to_table(table, schema_name=PEER, records=rows)
        return self.size * self.count

    async def _copy_bytes(self, batches: list[tuple[bytes, ...]]) -> int:
        for batch in batches:
            async with self.raw.transaction():
                for table, encoded in zip(TABLES, batch, strict=True):
                    await self.raw.copy_to_table(
                        table, schema_name=LIMIT, source=_once(encoded), format="binary"
                    )
        return self.size * self.count

    async def _read(self) -> list[Batch]:
        return [
            (await self._fetch("transfer", *bounds), await self._fetch("entry", *bounds))
            for bounds in await self._set_apart()
        ]

    async def _fetch(self, table: str, first: int, last: int) -> Rows:
        return [tuple(row) for row in await self.raw.fetch(_select(table), first, last)]

    async def _encode(self) -> list[tuple[bytes, ...]]:
        """Let PostgreSQL encode the rows: what it writes in binary it reads again."""
        batches: list[tuple[bytes, ...]] = []
        for bounds in await self._set_apart():
            encoded: list[bytes] = []
            for table in TABLES:
                into = BytesIO()
                await self.raw.copy_from_query(
                    _select(table), *bounds, output=into, format="binary"
                )
                encoded.append(into.getvalue())
            batches.append(tuple(encoded))
        return batches

    async def _set_apart(self) -> list[tuple[int, int]]:
        """Copy the newest turn's rows to where they are found quickly, and return its batches."""
        turn = self.size * self.count
        before: int = await self.raw.fetchval("SELECT sequence - $1 FROM ledger.head", turn)
        for table in TABLES:
            await self.raw.execute(SET_APART.format(table=table, before=before))
        starts = range(before + 1, before + turn + 1, self.size)
        return [(start, start + self.size - 1) for start in starts]


def _select(table: str) -> str:
    return SELECT.format(table=table)


def _tables(schema: str) -> str:
    made = (
        f"CREATE TABLE {schema}.{table} (LIKE ledger.{table} INCLUDING STORAGE INCLUDING INDEXES);"
        for table in TABLES
    )
    return f"CREATE SCHEMA {schema}; {''.join(made)}"


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
