"""The plans of the hot statements: by key, on tables that nobody has analysed yet."""

from __future__ import annotations

import re

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from ledger import statements
from ledger.model import BATCH_MAX
from ledger.posting import ensure_accounts, open_book

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
        await conn.exec_driver_sql(f"PREPARE hot AS {statement}")
        nothing = ", ".join(["NULL"] * max(parameters))
        rows = await conn.exec_driver_sql(f"EXPLAIN EXECUTE hot ({nothing})")
        plan = "\n".join(row[0] for row in rows)

    assert WHOLE_TABLE.findall(plan) == [], plan
