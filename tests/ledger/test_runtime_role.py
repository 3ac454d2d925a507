"""What the runtime role may do to the ledger's tables: all of it, from PostgreSQL's own catalogue."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import APP_ROLE, metadata, sqlstate
from ledger.tables import head

TABLES = sorted(t.name for t in metadata.tables.values() if t.schema == head.schema)
WRITTEN = {
    "head": {"sequence", "height", "block_time", "account_count", "frontier"},
    "balance": {
        *("debits_pending", "debits_posted", "credits_pending", "credits_posted"),
        *("version", "sequence", "frozen", "closed"),
    },
    "hold": {"state", "remaining", "resolved_sequence"},
}


@pytest.mark.parametrize("table", TABLES)
async def test_rows_are_added_and_only_what_moves_is_updated(
    engine: AsyncEngine, table: str
) -> None:
    async with engine.connect() as conn:
        on_table = await conn.execute(
            text(
                "SELECT privilege_type FROM information_schema.table_privileges WHERE"
                " grantee = :role AND table_schema = 'ledger' AND table_name = :table"
            ),
            {"role": APP_ROLE, "table": table},
        )
        updated = await conn.execute(
            text(
                "SELECT column_name FROM information_schema.column_privileges WHERE"
                " grantee = :role AND table_schema = 'ledger' AND table_name = :table"
                " AND privilege_type = 'UPDATE'"
            ),
            {"role": APP_ROLE, "table": table},
        )

        assert set(on_table.scalars()) == {"SELECT", "INSERT"}
        assert set(updated.scalars()) == WRITTEN.get(table, set())


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("act", ["DELETE FROM", "TRUNCATE", "ALTER TABLE"])
async def test_nothing_is_taken_away(engine: AsyncEngine, table: str, act: str) -> None:
    end = " DISABLE TRIGGER ALL" if act == "ALTER TABLE" else ""
    async with engine.connect() as conn:
        with pytest.raises(DBAPIError) as caught:
            await conn.execute(text(f"{act} ledger.{table}{end}"))

    assert sqlstate(caught.value) == "42501"
