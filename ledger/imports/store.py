"""Rows of imports to values and back, and what is read to check one; private to this room."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from ledger.imports.model import IMPORT_STATES, ImportRun, ImportState, Known, Plan
from ledger.imports.tables import import_set
from ledger.model import AccountSpec, Side
from ledger.store import run

PAGE_MAX: Final = 500
READ_MAX: Final = 8_192


async def insert_import(
    conn: AsyncConnection, item: ImportRun, plan: Plan, signature: bytes
) -> bool:
    """Insert an import unless its name or its files are known; tell whether this call did."""
    statement = (
        insert(import_set)
        .values(
            id=item.id,
            book=item.book,
            name=item.name,
            digest=item.digest,
            files={f"{kind}.csv": sha256 for kind, sha256 in plan.hashes.items()},
            rows=plan.rows,
            reason=item.reason,
            state=item.state,
            imported_by=item.imported_by,
            approved_by=item.approved_by,
            signature=signature,
            begun_at=item.begun_at,
        )
        .on_conflict_do_nothing()
    )
    return (await conn.execute(statement)).rowcount == 1


async def find_imports(conn: AsyncConnection, book: int, name: str, digest: str) -> list[ImportRun]:
    """Return the imports of this name or of these files."""
    query = select(import_set).where(
        import_set.c.book == book, (import_set.c.name == name) | (import_set.c.digest == digest)
    )
    return [_run(row) for row in await conn.execute(query.order_by(import_set.c.begun_at))]


async def is_begun(conn: AsyncConnection, book: int, digest: str) -> bool:
    """Tell whether an import of these files has begun."""
    query = select(import_set.c.id).where(import_set.c.book == book, import_set.c.digest == digest)
    return (await conn.execute(query)).first() is not None


async def list_imports(conn: AsyncConnection, book: int, limit: int = PAGE_MAX) -> list[ImportRun]:
    """Return the imports of a book, newest first."""
    query = select(import_set).where(import_set.c.book == book)
    query = query.order_by(import_set.c.begun_at.desc(), import_set.c.id.desc())
    return [_run(row) for row in await conn.execute(query.limit(min(limit, PAGE_MAX)))]


async def lock_import(conn: AsyncConnection, import_id: UUID) -> ImportRun:
    """Lock and return an import."""
    query = select(import_set).where(import_set.c.id == import_id).with_for_update()
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        raise Refused(f"there is no import {import_id}")
    return _run(row)


async def move_import(
    conn: AsyncConnection, item: ImportRun, state: ImportState, **values: object
) -> ImportRun:
    """Move a locked import along an edge and return it as it stands then."""
    IMPORT_STATES.require(item.state, state)
    statement = (
        update(import_set)
        .where(import_set.c.id == item.id)
        .values(state=state, **values)
        .returning(import_set)
    )
    return _run((await conn.execute(statement)).one())


async def read_posted(conn: AsyncConnection, book: int, ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return the amounts of those of the transfers that are in the journal, at most `READ_MAX`.

    One membership test, hashed or by index: while a journal grows by thousands of rows a second the
    statistics still call it empty, and a look-up of each id by itself may read the journal each time.
    """
    assert len(ids) <= READ_MAX
    rows = await run(
        conn,
        """
        SELECT id, amount::text AS amount FROM ledger.transfer
         WHERE book = $1 AND id = ANY ($2::uuid[])
        """,
        book,
        list(ids),
    )
    return {row.id: int(row.amount) for row in rows}


async def find_code(conn: AsyncConnection, book: int, transfer_id: UUID) -> str | None:
    """Return the code of a transfer; None if the book has none of this id."""
    rows = await run(
        conn, "SELECT code FROM ledger.transfer WHERE book = $1 AND id = $2", book, transfer_id
    )
    return rows[0].code if rows else None


async def read_known(
    conn: AsyncConnection, book: int, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Known]:
    """Return those of the accounts that are open, with their columns."""
    ordered: Sequence[tuple[str, str]] = sorted(keys)
    found: dict[tuple[str, str], Known] = {}
    for start in range(0, len(ordered), READ_MAX):
        part = ordered[start : start + READ_MAX]
        rows = await run(
            conn, _KNOWN, book, [path for path, _ in part], [asset for _, asset in part]
        )
        found |= {(row.path, row.asset): _known(row) for row in rows}
    return found


_KNOWN: Final = """
SELECT a.path, a.asset, a.side, a.owner, a.purpose, a.debits_must_not_exceed_credits,
       a.credits_must_not_exceed_debits, a.effective_at, a.opened_at,
       b.credit_limit::text AS credit_limit,
       b.debits_pending::text AS debits_pending, b.debits_posted::text AS debits_posted,
       b.credits_pending::text AS credits_pending, b.credits_posted::text AS credits_posted
  FROM unnest($2::text[], $3::text[]) AS k(path, asset)
  JOIN ledger.account a ON a.book = $1 AND a.path = k.path AND a.asset = k.asset
  JOIN ledger.balance b ON b.book = a.book AND b.account = a.number
"""


def _known(row: Row[Any]) -> Known:
    return Known(
        spec=AccountSpec(
            path=row.path,
            asset=row.asset,
            side=Side(row.side),
            owner=row.owner,
            debits_must_not_exceed_credits=row.debits_must_not_exceed_credits,
            credits_must_not_exceed_debits=row.credits_must_not_exceed_debits,
            credit_limit=int(row.credit_limit),
            purpose=row.purpose,
            effective_at=row.effective_at,
        ),
        opened_at=row.effective_at or row.opened_at,
        debits_pending=int(row.debits_pending),
        debits_posted=int(row.debits_posted),
        credits_pending=int(row.credits_pending),
        credits_posted=int(row.credits_posted),
    )


def _run(row: Row[Any]) -> ImportRun:
    return ImportRun(
        id=row.id,
        book=row.book,
        name=row.name,
        digest=row.digest,
        state=ImportState(row.state),
        reason=row.reason,
        imported_by=row.imported_by,
        approved_by=row.approved_by,
        begun_at=row.begun_at,
        completed_at=row.completed_at,
    )
