"""Many rows in one statement: inserted or updated from one JSON document..

PostgreSQL turns the document into rows of the table's own type (its manual, section 9.16,
``json_populate_recordset``), so a block of a thousand deposits takes as many statements as one deposit.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncConnection

ROWS_MAX: Final = 5_000
"""Rows in one statement, at most; more are written in several."""


async def insert_rows(
    conn: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]], *, known: str = ""
) -> int:
    """Insert *rows*, in their order; return how many were new.

    Args:
        rows: each with the same columns, all that the table has no default for.
        known: what to do with a row that is there already, as in ``ON CONFLICT DO NOTHING``.
    """
    written = 0
    for start in range(0, len(rows), ROWS_MAX):
        part = rows[start : start + ROWS_MAX]
        columns = ", ".join(f'"{name}"' for name in part[0])
        statement = (
            f"INSERT INTO {table.fullname} ({columns}) "  # noqa: S608  names of our own tables
            f"SELECT {columns} FROM json_populate_recordset(NULL::{table.fullname}, "
            f"CAST(:rows AS json)) {known}"
        )
        done = await conn.execute(text(statement), {"rows": _document(part)})
        written += done.rowcount
    return written


async def update_rows(
    conn: AsyncConnection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    key: Collection[str] = ("id",),
) -> int:
    """Update the rows that *key* names with the other columns; return how many there were.

    The caller has locked them.
    """
    written = 0
    for start in range(0, len(rows), ROWS_MAX):
        part = rows[start : start + ROWS_MAX]
        changes = ", ".join(f'"{name}" = new."{name}"' for name in part[0] if name not in key)
        where = " AND ".join(f'old."{name}" = new."{name}"' for name in key)
        statement = (
            f"UPDATE {table.fullname} AS old SET {changes} "  # noqa: S608  names of our own tables
            f"FROM json_populate_recordset(NULL::{table.fullname}, CAST(:rows AS json)) AS new "
            f"WHERE {where}"
        )
        done = await conn.execute(text(statement), {"rows": _document(part)})
        written += done.rowcount
    return written


def _document(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps([dict(row) for row in rows], default=_plain)


def _plain(value: object) -> object:
    match value:
        case UUID():
            return str(value)
        case datetime():
            return value.isoformat()
        case bytes():
            return f"\\x{value.hex()}"
        case _:
            raise TypeError(f"a {type(value).__name__} is in no column")
