"""Issuing statements: written once, kept with their hashes, drawn outside every transaction.

Of one client and period there is one statement. It is by recorded time and of days that are over, so
whoever issues it again finds the same bytes; where they are not the same, the journal was
changed behind the ledger's back, and that is refused and not written over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from reporting.errors import StatementRefused
from reporting.statements import store
from reporting.statements.document import sha256_hex, statement_csv
from reporting.statements.gathering import gather_statement
from reporting.statements.model import Period, StatementFile

ENTITY: Final = "client-statement"
SETTLED: Final = timedelta(minutes=5)
"""So long after its last day a period is over: what was recorded just before midnight may be committed
just after it, and belongs into this statement."""

Draw: TypeAlias = Callable[[bytes], bytes]
"""Makes the PDF of a statement's CSV: `reporting.statements.pdf.draw`, where its library is."""

get_statement = store.get_statement
find_statement = store.find_statement
list_statements = store.list_statements


@dataclass(frozen=True, slots=True)
class Verified:
    """A statement that was written again; *differences*: none if it has the same bytes."""

    statement: StatementFile
    differences: tuple[str, ...]


async def issue_statement(
    conn: AsyncConnection, book: int, party: str, period: Period, *, by: str, now: datetime
) -> StatementFile:
    """Write a statement down, or return the one that is on record if it has the same bytes.

    Raises:
        StatementRefused: the period is not over, or the one on record says something else.
        UnknownRecord: there is no such party.
    """
    if period.last >= (now - SETTLED).astimezone(UTC).date():
        raise StatementRefused(
            f"{period.last} is not over: what is still recorded belongs into the statement",
            remedy="Look at it without --issue, or issue it tomorrow",
        )
    found = await gather_statement(conn, book, party, period)
    content = statement_csv(found)
    item = StatementFile(
        id=derive_id(now, ENTITY, book, party, f"{period.first}", f"{period.last}"),
        book=book,
        party=party,
        period=period,
        sequence=found.sequence,
        lines=found.line_count,
        csv=content,
        csv_sha256=sha256_hex(content),
        pdf_sha256=None,
        issued_by=by,
        issued_at=now,
    )
    if not await store.insert_statement(conn, item):
        return await _same(conn, item)
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=1,
        name="ClientStatementIssued",
        at=now,
        actor=by,
        payload={
            "book": book,
            "party": party,
            "first": period.first.isoformat(),
            "last": period.last.isoformat(),
            "csv_sha256": item.csv_sha256,
        },
    )
    await record(conn, [event])
    return item


async def _same(conn: AsyncConnection, item: StatementFile) -> StatementFile:
    known = await store.find_statement(conn, item.book, item.party, item.period)
    if known is None or known.csv_sha256 != item.csv_sha256:
        raise StatementRefused(
            f"a statement of {item.party} for {item.period.first} to {item.period.last} was issued "
            "and says something else",
            remedy="Run `causeway ledger verify`: what was recorded then never changes",
        )
    return known


async def verify_statement(conn: AsyncConnection, statement_id: UUID) -> Verified:
    """Write an issued statement again from the journal, and compare the bytes.

    Raises:
        NoStatement: there is none.
    """
    item = await store.get_statement(conn, statement_id)
    again = statement_csv(await gather_statement(conn, item.book, item.party, item.period))
    differences = []
    if sha256_hex(item.csv) != item.csv_sha256:
        differences.append("what is kept does not have the hash that is kept with it")
    if again != item.csv:
        differences.append(f"{item.csv_sha256} on record, {sha256_hex(again)} now")
    return Verified(item, tuple(differences))


async def get_statement_pdf(engine: AsyncEngine, statement_id: UUID, draw: Draw) -> bytes:
    """Return the PDF of an issued statement: the one that is kept, drawn now if there is none.

    Raises:
        NoStatement: there is none.
    """

    async def load(conn: AsyncConnection) -> tuple[StatementFile, bytes | None]:
        item = await store.get_statement(conn, statement_id)
        return item, await store.read_pdf(conn, statement_id)

    item, kept = await transact(engine, load)
    if kept is not None:
        return kept
    # Drawing takes its time: nobody waits for it in a transaction.
    pdf = await asyncio.to_thread(draw, item.csv)

    async def keep(conn: AsyncConnection) -> bytes:
        await store.get_statement(conn, statement_id, lock=True)
        known = await store.read_pdf(conn, statement_id)
        if known is not None:
            return known
        await store.write_pdf(conn, statement_id, pdf, sha256_hex(pdf))
        return pdf

    return await transact(engine, keep)
