"""Rows of travel-rule records to values and back. Private to this package."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Uuid, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.compliance.model import Direction
from custody.compliance.sealing import TravelRuleRecord
from custody.compliance.tables import travel_rule_record


async def insert_record(conn: AsyncConnection, new: TravelRuleRecord) -> None:
    """Write a record."""
    row = {name: getattr(new, name) for name in TravelRuleRecord.__dataclass_fields__}
    await conn.execute(travel_rule_record.insert().values(row | {"missing": list(new.missing)}))


async def list_records(conn: AsyncConnection, subject_id: UUID) -> list[TravelRuleRecord]:
    """Return the records about a subject, the first one first."""
    table = travel_rule_record
    query = select(table).where(table.c.subject_id == subject_id).order_by(table.c.number)
    return [
        TravelRuleRecord(
            **dict(row._mapping)  # noqa: SLF001  the public name of a row's mapping
            | {"direction": Direction(row.direction), "missing": tuple(row.missing)}
        )
        for row in await conn.execute(query)
    ]


async def list_recorded(conn: AsyncConnection, subject_ids: Collection[UUID]) -> set[UUID]:
    """Return those of these subjects whose newest record is complete."""
    if not subject_ids:
        return set()
    table = travel_rule_record
    query = (
        select(table.c.subject_id, table.c.missing)
        .where(table.c.subject_id == any_(literal(sorted(subject_ids), ARRAY(Uuid))))
        .order_by(table.c.number)
    )
    newest = {row.subject_id: row.missing for row in await conn.execute(query)}
    return {subject_id for subject_id, missing in newest.items() if not missing}
