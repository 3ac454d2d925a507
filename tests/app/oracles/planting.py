# ruff: noqa: S608  the names of tables come from the scenarios
"""How a fault gets into a house: what keeps it out is taken away first, as a superuser could."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

GUARDS = """
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname)
  FROM pg_constraint WHERE conrelid = cast(:name AS regclass) AND contype IN ('c', 'u', 'p', 'f')
UNION ALL
SELECT format('DROP INDEX %s', indexrelid::regclass)
  FROM pg_index WHERE indrelid = cast(:name AS regclass) AND indisunique
   AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = indexrelid)
"""


@dataclass(frozen=True, slots=True)
class Plant:
    """A fault: *statements* are run, and *oracle* must name *where* and say *what* (a pattern).

    *house* is the fixture of the database in which it happens.
    """

    says: str
    oracle: str
    statements: tuple[str, ...]
    where: str
    what: str
    at_rest: bool = False
    house: str = "rich"


def copied(table: str, changes: str = "", where: str = "true") -> str:
    """Insert a row once more: *changes* as ``column = expression``, separated by semicolons."""
    make = f"CREATE TEMP TABLE copy_ ON COMMIT DROP AS SELECT * FROM {table} WHERE {where} LIMIT 1"
    change = f"UPDATE copy_ SET {changes.replace(';', ',')}"
    return f"{make}; {change}; INSERT INTO {table} SELECT * FROM copy_; DROP TABLE copy_"


async def take_guards_away(conn: AsyncConnection, statements: tuple[str, ...]) -> None:
    """Take away what PostgreSQL itself would refuse the fault with, on each table that is named."""
    named = r"(?:UPDATE|INSERT INTO|DELETE FROM) ((?:ledger|kernel|custody|chain|trading|settlement|venues|books)\.\w+)"
    for table in dict.fromkeys(re.findall(named, " ".join(statements))):
        await conn.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        while guards := (await conn.execute(text(GUARDS), {"name": table})).scalars().all():
            await conn.execute(text(guards[0]))


async def sow(conn: AsyncConnection, statements: tuple[str, ...]) -> None:
    """Take the guards away, and do what they would have refused."""
    await take_guards_away(conn, statements)
    for statement in "; ".join(statements).split("; "):
        await conn.execute(text(statement.replace(":", r"\:")))
