"""Rows of matches and of the rules; private to settlement."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Row, Uuid, any_, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.rows import insert_rows
from settlement.matching.model import ReceiptMatch, Rule
from settlement.matching.tables import matching_rules, receipt_match
from settlement.store import require_rows
from trading.terms.model import Rail


async def insert_matches(
    conn: AsyncConnection, items: Sequence[ReceiptMatch], now: datetime
) -> None:
    """Record what receipts paid; their rows are locked, so it is recorded once."""
    rows: list[dict[str, Any]] = [
        {
            "id": item.id,
            "receipt_id": item.receipt_id,
            "epoch": item.epoch,
            "round": item.round,
            "instruction_id": item.instruction_id,
            "rail": str(item.rail),
            "applied": item.applied,
            "charge": item.charge,
            "excess": item.excess,
            "rule": str(item.rule),
            "rules_version": item.rules_version,
            "by": item.by,
            "second": item.second,
            "reason": item.reason,
            "first_seen_at": item.first_seen_at,
            "at": now,
        }
        for item in items
    ]
    await insert_rows(conn, receipt_match, rows)


async def list_matches(
    conn: AsyncConnection,
    *,
    receipts: Collection[UUID] | None = None,
    instructions: Collection[UUID] | None = None,
    lock: bool = False,
) -> list[ReceiptMatch]:
    """Return the matches that stand, of these receipts or instructions."""
    t = receipt_match
    query = select(t).where(t.c.undone_at.is_(None)).order_by(t.c.receipt_id, t.c.epoch, t.c.id)
    if receipts is not None:
        query = query.where(_one_of(t.c.receipt_id, receipts))
    if instructions is not None:
        query = query.where(_one_of(t.c.instruction_id, instructions))
    if lock:
        query = query.with_for_update()
    return [_match(row) for row in await conn.execute(query)]


async def history(conn: AsyncConnection, receipt_id: UUID) -> list[dict[str, Any]]:
    """Return every match of a receipt, those that were undone too, the oldest first."""
    t = receipt_match
    query = select(t).where(t.c.receipt_id == receipt_id).order_by(t.c.at, t.c.round, t.c.id)
    return [dict(row) for row in (await conn.execute(query)).mappings()]


async def last_rounds(
    conn: AsyncConnection, receipts: Collection[UUID]
) -> dict[tuple[UUID, int], int]:
    """Return the number of the last round of each receipt and epoch that ever was matched."""
    t = receipt_match
    query = (
        select(t.c.receipt_id, t.c.epoch, func.max(t.c.round).label("round"))
        .where(_one_of(t.c.receipt_id, receipts))
        .group_by(t.c.receipt_id, t.c.epoch)
    )
    return {(row.receipt_id, row.epoch): row.round for row in await conn.execute(query)}


async def taken_apart(conn: AsyncConnection, receipts: Collection[UUID]) -> set[tuple[UUID, int]]:
    """Return the receipts and epochs of which two people undid a match: no rule matches them again."""
    t = receipt_match
    query = select(t.c.receipt_id, t.c.epoch).where(
        _one_of(t.c.receipt_id, receipts), t.c.undone_second.is_not(None)
    )
    return {(row.receipt_id, row.epoch) for row in await conn.execute(query)}


async def undo_matches(
    conn: AsyncConnection,
    ids: Collection[UUID],
    *,
    by: str,
    second: str | None = None,
    reason: str,
    now: datetime,
) -> None:
    """Mark that locked matches do not stand any more."""
    t = receipt_match
    result = await conn.execute(
        update(t)
        .where(_one_of(t.c.id, ids), t.c.undone_at.is_(None))
        .values(undone_at=now, undone_by=by, undone_second=second, undone_reason=reason)
    )
    require_rows(result, len(ids), "matches of receipts")


async def insert_rules(conn: AsyncConnection, **values: object) -> None:
    """Write a version of the rules; a version that is there already violates its key."""
    await conn.execute(insert(matching_rules).values(**values))


async def newest_rules(conn: AsyncConnection) -> Row[Any] | None:
    """Return the newest version of the rules, if somebody has set any."""
    query = select(matching_rules).order_by(matching_rules.c.version.desc()).limit(1)
    return (await conn.execute(query)).first()


async def list_rules(conn: AsyncConnection, *, limit: int) -> list[Row[Any]]:
    """Return the versions of the rules, the newest first."""
    query = select(matching_rules).order_by(matching_rules.c.version.desc()).limit(limit)
    return list(await conn.execute(query))


def _one_of(column: ColumnElement[UUID], ids: Collection[UUID]) -> ColumnElement[bool]:
    """Return the condition with one parameter: more receipts may wait than a statement has parameters."""
    return column == any_(literal(sorted(ids), ARRAY(Uuid)))


def _match(row: Row[Any]) -> ReceiptMatch:
    return ReceiptMatch(
        id=row.id,
        receipt_id=row.receipt_id,
        epoch=row.epoch,
        round=row.round,
        instruction_id=row.instruction_id,
        rail=Rail(row.rail),
        applied=row.applied,
        charge=row.charge,
        excess=row.excess,
        rule=Rule(row.rule),
        by=row.by,
        second=row.second,
        reason=row.reason,
        rules_version=row.rules_version,
        first_seen_at=row.first_seen_at,
    )
