"""Many rows in one statement: inserted or updated from one JSON document.

PostgreSQL turns the document into rows of the table's own type (its manual, section 9.16,
``json_populate_recordset``), so a block of a thousand deposits takes as many statements as one deposit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import LargeBinary, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput

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
        statement = f"{_insert(table, part[0])} {known}"
        done = await conn.exec_driver_sql(statement, (_document(table, part),))
        written += done.rowcount
    return written


async def insert_new_rows(
    conn: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]], *, key: str = "id"
) -> set[Any]:
    """Insert those of *rows* that no unique column forbids, in their order; return their *key*."""
    written: set[Any] = set()
    for start in range(0, len(rows), ROWS_MAX):
        part = rows[start : start + ROWS_MAX]
        statement = f'{_insert(table, part[0])} ON CONFLICT DO NOTHING RETURNING "{key}"'
        done = await conn.exec_driver_sql(statement, (_document(table, part),))
        written |= set(done.scalars())
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
            f"FROM json_populate_recordset(NULL::{table.fullname}, CAST($1 AS json)) AS new "
            f"WHERE {where}"
        )
        done = await conn.exec_driver_sql(statement, (_document(table, part),))
        written += done.rowcount
    return written


def _insert(table: Table, row: Mapping[str, Any]) -> str:
    columns = ", ".join(f'"{name}"' for name in row)
    return (
        f"INSERT INTO {table.fullname} ({columns}) "  # noqa: S608  names of our own tables
        f"SELECT {columns} FROM json_populate_recordset(NULL::{table.fullname}, "
        "CAST($1 AS json))"
    )


def _document(table: Table, rows: Sequence[Mapping[str, Any]]) -> str:
    binary = [name for name in rows[0] if isinstance(table.c[name].type, LargeBinary)]
    plain = [{**row, **{name: _bytea(row[name]) for name in binary}} for row in rows]
    try:
        # Integers of any size, ids and moments are written as PostgreSQL reads them.
        return msgspec.json.encode(plain).decode()
    except UnicodeEncodeError as error:
        raise BadInput(f"a text for {table.name} has half a character in it") from error


def _bytea(value: bytes | None) -> str | None:
    return None if value is None else f"\\x{value.hex()}"
