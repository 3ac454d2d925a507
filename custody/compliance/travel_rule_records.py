"""Writing down who sends and who receives, both ways; see `travel_rule` for what is decided."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import store as deposit_store
from custody.compliance import travel_rule_store as store
from custody.compliance.model import Direction
from custody.compliance.sealing import SealingKey, TravelRuleRecord
from custody.compliance.travel_rule import canonical, find_missing
from custody.deposit_model import Deposit
from custody.errors import UnknownRow
from custody.payout_store import get_payout
from kernel.events import DomainEvent, record
from kernel.ids import derive_id

ENTITY: Final = "travel_rule_record"

list_records = store.list_records


async def write_record(
    conn: AsyncConnection,
    subject_id: UUID,
    document: Mapping[str, Any],
    *,
    key: SealingKey,
    by: str,
    now: datetime,
) -> TravelRuleRecord:
    """Seal and keep a record about a deposit or payout; the newest one stands.

    The same document again is the record that stands. An incomplete one is kept as well, and says what
    it lacks; it clears nothing.

    Args:
        document: shaped as IVMS101, sections as in `travel_rule.find_missing`.

    Raises:
        BadInput: sections that IVMS101 does not have.
        UnknownRow: there is no deposit or payout with that id.
    """
    direction = await _direction(conn, subject_id)
    content, missing = canonical(document), find_missing(document)
    known = await store.list_records(conn, subject_id)
    digest = key.digest(content)
    if known and known[-1].content_hash == digest:
        return known[-1]
    number = len(known) + 1
    record_id = derive_id(now, ENTITY, subject_id, number, digest)
    new = TravelRuleRecord(
        id=record_id,
        direction=direction,
        subject_id=subject_id,
        number=number,
        sealed=key.seal(record_id, content),
        key_id=key.id,
        content_hash=digest,
        missing=tuple(missing),
        recorded_by=by,
        recorded_at=now,
    )
    await store.insert_record(conn, new)
    await record(conn, [_event(new)])
    return new


async def _direction(conn: AsyncConnection, subject_id: UUID) -> Direction:
    """Return which way it goes; its row stays locked, so that records are numbered without gaps."""
    try:
        await deposit_store.get_arrival(conn, Deposit, subject_id, lock=True)
    except UnknownRow:
        await get_payout(conn, subject_id, lock=True)
        return Direction.OUT
    return Direction.IN


def _event(new: TravelRuleRecord) -> DomainEvent:
    return DomainEvent(
        entity_type=ENTITY,
        entity_id=new.id,
        version=1,
        name="TravelRuleRecorded",
        at=new.recorded_at,
        actor=new.recorded_by,
        payload={
            "subject_id": str(new.subject_id),
            "direction": str(new.direction),
            "number": new.number,
            "key_id": new.key_id,
            "missing": list(new.missing),
        },
    )
