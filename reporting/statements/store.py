"""Rows of issued statements."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from reporting.errors import NoStatement
from reporting.statements.model import IssuedStatement, Period, StatementFile
from reporting.statements.tables import client_statement

LISTED_MAX: Final = 500

_LISTED: Final = [item for item in client_statement.c if item.name not in {"csv", "pdf"}]
"""Without the documents, of which five hundred are more than fits into memory."""
_WHOLE: Final = [*_LISTED, client_statement.c.csv]


async def insert_statement(conn: AsyncConnection, item: StatementFile) -> bool:
    """Insert a statement; False: one of that client and period is on record."""
    values = {
        "id": item.id,
        "book": item.book,
        "party": item.party,
        "first": item.period.first,
        "last": item.period.last,
        "sequence": item.sequence,
        "lines": item.lines,
        "csv": item.csv,
        "csv_sha256": item.csv_sha256,
        "issued_by": item.issued_by,
        "issued_at": item.issued_at,
    }
    statement = insert(client_statement).values(**values).on_conflict_do_nothing()
    return (await conn.execute(statement)).rowcount == 1


async def get_statement(
    conn: AsyncConnection, statement_id: UUID, *, lock: bool = False
) -> StatementFile:
    """Return a statement on record.

    Raises:
        NoStatement: there is none.
    """
    query = select(*_WHOLE).where(client_statement.c.id == statement_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NoStatement(f"no statement {statement_id} was issued")
    return StatementFile(**_facts(row), csv=row.csv)


async def find_statement(
    conn: AsyncConnection, book: int, party: str, period: Period
) -> StatementFile | None:
    """Return the statement of a client and period, if one was issued."""
    row = (
        await conn.execute(
            select(*_WHOLE).where(
                client_statement.c.book == book,
                client_statement.c.party == party,
                client_statement.c.first == period.first,
                client_statement.c.last == period.last,
            )
        )
    ).one_or_none()
    return None if row is None else StatementFile(**_facts(row), csv=row.csv)


async def list_statements(
    conn: AsyncConnection, book: int, *, party: str | None = None, limit: int = LISTED_MAX
) -> list[IssuedStatement]:
    """Return issued statements, those of the latest periods first."""
    query = select(*_LISTED).where(client_statement.c.book == book)
    if party is not None:
        query = query.where(client_statement.c.party == party)
    rows = await conn.execute(
        query.order_by(
            client_statement.c.last.desc(), client_statement.c.party, client_statement.c.id
        ).limit(max(1, min(limit, LISTED_MAX)))
    )
    return [IssuedStatement(**_facts(row)) for row in rows]


async def read_pdf(conn: AsyncConnection, statement_id: UUID) -> bytes | None:
    """Return the PDF that is kept, None: it has not been drawn."""
    query = select(client_statement.c.pdf).where(client_statement.c.id == statement_id)
    found: bytes | None = await conn.scalar(query)
    return found


async def write_pdf(conn: AsyncConnection, statement_id: UUID, pdf: bytes, digest: str) -> None:
    """Keep the PDF; the caller has locked the row and there is none."""
    await conn.execute(
        update(client_statement)
        .where(client_statement.c.id == statement_id)
        .values(pdf=pdf, pdf_sha256=digest)
    )


def _facts(row: Row[Any]) -> dict[str, Any]:
    names = [item.name for item in fields(IssuedStatement) if item.name != "period"]
    period = Period(first=row.first, last=row.last)
    return {"period": period, **{name: getattr(row, name) for name in names}}
