"""The plans of the hot statements: by key, on tables that nobody has analysed yet."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.ids import derive_id
from ledger import statements
from ledger.accounts import ensure_accounts
from ledger.model import BATCH_MAX, Transfer, reversal, transfer
from ledger.outcome import Outcome
from ledger.posting import decided, open_book, post, require_applied
from ledger.scenarios import START

OTHERS = tuple(name for name in statements.PARTS if name not in {"posted", "standings"})
HOT = {
    "posted balances are written": statements.write_statement(("posted", *OTHERS)),
    "balances and holds are written": statements.write_statement(("standings", *OTHERS)),
    "accounts are read": statements.READ_ACCOUNTS,
    "accounts are read by number": statements.READ_ACCOUNTS_BY_NUMBER,
    "transfers are read": statements.READ_TRANSFERS,
}
WHOLE_TABLE = re.compile(r"(?:Seq Scan|Bitmap Heap Scan) on \w+")


@pytest.mark.parametrize("what", HOT)
async def test_no_hot_statement_reads_a_whole_table(engine: AsyncEngine, what: str) -> None:
    """The generic plan, which a connection keeps: it knows nothing of the arrays' lengths."""
    statement = HOT[what]
    parameters = {int(number) for number in re.findall(r"\$(\d+)", statement)}

    async def prepare(conn: AsyncConnection) -> None:
        await open_book(conn, 1, entity="desk")
        await ensure_accounts(conn, 1, [(f"client:c{n}", "X") for n in range(BATCH_MAX)])

    await transact(engine, prepare)
    async with engine.connect() as conn:
        await conn.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        await conn.exec_driver_sql(statements.KEYS_ONLY)
        await conn.exec_driver_sql(f"PREPARE hot AS {statement}")
        nothing = ", ".join(["NULL"] * max(parameters))
        rows = await conn.exec_driver_sql(f"EXPLAIN EXECUTE hot ({nothing})")
        plan = "\n".join(row[0] for row in rows)

    assert WHOLE_TABLE.findall(plan) == [], plan


async def test_a_book_newer_than_the_statistics_is_posted_to_by_key(
    engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    """The planner believes that such a book is empty: no plan may rest on that."""
    for book in (1, 2):
        await transact(engine, partial(fill, book=book, batches=4))
        if book == 1:
            async with owner_engine.connect() as conn:
                await conn.exec_driver_sql("COMMIT")
                await conn.exec_driver_sql("ANALYZE")
    before = await read_by_index(owner_engine)
    again = [item for n in range(4) for item in batch(2, n)]
    results = await transact(engine, lambda conn: post(conn, 2, again))
    assert {result.outcome for result in results} == {Outcome.EXISTS}
    undone = [reversal(derive_id(START, "undone", item.id), item.id, code="plan") for item in again]
    results = await transact(engine, lambda conn: post(conn, 2, undone))
    assert {result.outcome for result in results} == {Outcome.CREATED}
    assert len(await transact(engine, lambda conn: decided(conn, 2, [i.id for i in again]))) == 400

    read = {name: n - before[name] for name, n in (await read_by_index(owner_engine)).items()}
    # Each look-up reads one row, or two at most where the same key is in both books.
    assert {name: n for name, n in read.items() if n > 8 * len(again)} == {}


async def fill(conn: AsyncConnection, *, book: int, batches: int) -> None:
    await open_book(conn, book, entity=f"desk {book}")
    paths = [("custody:w", "X"), *((f"client:c{n}", "X") for n in range(300))]
    await ensure_accounts(conn, book, paths)
    for n in range(batches):
        require_applied(await post(conn, book, batch(book, n)))


def batch(book: int, number: int) -> list[Transfer]:
    return [
        transfer(
            derive_id(START + timedelta(seconds=number, milliseconds=n), "plan", book, number, n),
            "custody:w",
            f"client:c{n}",
            1,
            "X",
            code="plan",
        )
        for n in range(100)
    ]


async def read_by_index(engine: AsyncEngine) -> dict[str, int]:
    """Rows read so far through each index of the ledger, and in scans of each table."""
    async with engine.connect() as conn:
        await conn.exec_driver_sql("SELECT pg_stat_force_next_flush()")
        rows = await conn.exec_driver_sql(
            "SELECT indexrelname AS name, idx_tup_read AS n FROM pg_stat_user_indexes WHERE schemaname = 'ledger'"
            " UNION ALL"
            " SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'ledger'"
        )
        return {row["name"]: row["n"] for row in rows.mappings()}
