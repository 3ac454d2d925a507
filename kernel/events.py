"""Domain events: what happened to an entity, who did it, and why.

`record` writes each event twice in the transaction that causes it: into ``history`` (for people:
``explain``) and into ``outbox`` (for machines). `relay` delivers the outbox at least once, in order
within one entity; a consumer removes duplicates by the event's id.

Why delivery marks rows instead of remembering the last position: positions are handed out before
commit, so a reader that keeps only a cursor silently skips the rows of transactions that commit
late.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import ARRAY, Uuid, any_, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel import tracing
from kernel.db import transact
from kernel.errors import BadInput, StaleFence
from kernel.ids import derive_id
from kernel.leases import take
from kernel.rows import insert_rows
from kernel.tables import history, outbox
from kernel.tracing import TraceContext

RELAY_LEASE: Final = timedelta(seconds=30)
RELAY_BATCH_MAX: Final = 500
REASON_LENGTH_MAX: Final = 500
OWN_PAYLOAD: Final = "payload"
"""In a row of the outbox: what an event calls by a word of the envelope."""

_IDS: Final = bindparam("entity_ids", type_=ARRAY(Uuid))


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """One step in the life of an entity.

    Attributes:
        entity_type: ``deposit``, ``payout``, …
        version: counts the entity's events from 1, without gaps.
        name: in the past tense: ``DepositCredited``.
        actor: operator id, or ``system:<process>``.
        payload: JSON values only; amounts as decimal strings or integer strings, no personal data.
        traceparent: its place in a trace, as its row says; see `kernel.tracing`.
    """

    entity_type: str
    entity_id: UUID
    version: int
    name: str
    at: datetime
    actor: str
    reason: str = ""
    from_state: str | None = None
    to_state: str | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    traceparent: str | None = field(default=None, compare=False)

    @property
    def id(self) -> UUID:
        """Return the id by which a consumer recognises a duplicate."""
        return derive_id(self.at, "event", self.entity_type, self.entity_id, self.version)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An outbox row on its way to a consumer."""

    position: int
    id: UUID
    aggregate_type: str
    aggregate_id: str
    type: str
    payload: Mapping[str, Any]
    traceparent: str | None = None


async def record(conn: AsyncConnection, events: Sequence[DomainEvent]) -> None:
    """Append *events* to history and outbox, in the caller's transaction."""
    if not events:
        return
    for event in events:
        if len(event.reason) > REASON_LENGTH_MAX:
            raise BadInput(f"a reason is at most {REASON_LENGTH_MAX} characters long")
    if tracing.is_on():
        events = _traced(events, await _first_places(conn, events))
    await insert_rows(conn, history, [_history_row(event) for event in events])
    await insert_rows(conn, outbox, [_outbox_row(event) for event in events])


def traced(events: Sequence[DomainEvent]) -> Sequence[DomainEvent]:
    """Put events that a statement of its own will record into the traces of what is in hand."""
    return _traced(events, {}) if tracing.is_on() else events


def json_rows(events: Sequence[DomainEvent]) -> tuple[str, str]:
    """Return the rows of ``history`` and of ``outbox`` that `record` would write, as JSON.

    For the few statements that write a row and its events at once, in one round trip. A row of
    ``history`` has the columns that an event has fields.
    """
    return as_json(events), as_json([_outbox_row(event) for event in events])


def as_json(rows: Sequence[Mapping[str, Any] | DomainEvent]) -> str:
    """Return rows as a JSON array, as PostgreSQL reads them: times and ids are texts in it."""
    return msgspec.json.encode(rows).decode()


async def next_version(conn: AsyncConnection, entity_type: str, entity_id: UUID) -> int:
    """Return the version of the entity's next event; the caller has locked the entity's row."""
    last = await conn.scalar(
        select(func.max(history.c.version)).where(
            history.c.entity_type == entity_type, history.c.entity_id == entity_id
        )
    )
    return int(last or 0) + 1


async def next_versions(
    conn: AsyncConnection, entity_type: str, entity_ids: Collection[UUID]
) -> dict[UUID, int]:
    """Return `next_version` of many entities at once; the caller has locked their rows."""
    rows = await conn.execute(
        select(history.c.entity_id, func.max(history.c.version).label("last"))
        .where(history.c.entity_type == entity_type, history.c.entity_id == any_(_IDS))
        .group_by(history.c.entity_id),
        {_IDS.key: list(entity_ids)},
    )
    last = {row.entity_id: int(row.last) for row in rows}
    return {entity_id: last.get(entity_id, 0) + 1 for entity_id in entity_ids}


async def last_times(
    conn: AsyncConnection, entity_type: str, entity_ids: Collection[UUID], to_state: str
) -> dict[UUID, datetime]:
    """Return when each of these entities last came to a state; those that never did are left out."""
    rows = await conn.execute(
        select(history.c.entity_id, func.max(history.c.at).label("at"))
        .where(
            history.c.entity_type == entity_type,
            history.c.entity_id == any_(_IDS),
            history.c.to_state == to_state,
        )
        .group_by(history.c.entity_id),
        {_IDS.key: list(entity_ids)},
    )
    return {row.entity_id: row.at for row in rows}


async def list_history(
    conn: AsyncConnection, entity_type: str, entity_id: UUID
) -> list[DomainEvent]:
    """Return the life of an entity, oldest event first."""
    rows = await conn.execute(
        select(history)
        .where(history.c.entity_type == entity_type, history.c.entity_id == entity_id)
        .order_by(history.c.version)
    )
    return [DomainEvent(**row._mapping) for row in rows]  # noqa: SLF001  the public name of a row's mapping


async def count_undelivered(conn: AsyncConnection) -> int:
    """Return how many events no relay has delivered yet."""
    count = await conn.scalar(
        select(func.count()).select_from(outbox).where(outbox.c.delivered_at.is_(None))
    )
    return int(count or 0)


async def relay(
    engine: AsyncEngine,
    deliver: Callable[[Sequence[Delivery]], Awaitable[None]],
    *,
    holder: str,
    now: datetime,
    limit: int = RELAY_BATCH_MAX,
) -> int:
    """Deliver the oldest undelivered events and mark them; return how many.

    At least once: a crash between *deliver* and the mark delivers again. One relay works at a time
    (a lease); a delivery that takes longer than the lease may meet a second relay, which begins
    again with everything that is not marked. So whoever drops duplicates sees each entity's events
    in order: before any event arrives for the first time, all earlier ones have arrived.

    Raises:
        StaleFence: another relay took over meanwhile and marks instead; nothing is lost.
    """

    async def claim(conn: AsyncConnection) -> tuple[int, list[Delivery]]:
        fence = await take(conn, "outbox-relay", holder=holder, now=now, lease_for=RELAY_LEASE)
        if fence is None:
            return 0, []
        rows = await conn.execute(
            select(outbox)
            .where(outbox.c.delivered_at.is_(None))
            .order_by(outbox.c.position)
            .limit(min(limit, RELAY_BATCH_MAX))
        )
        return fence, [
            Delivery(
                r.position,
                r.id,
                r.aggregatetype,
                r.aggregateid,
                r.type,
                r.payload,
                r.traceparent,
            )
            for r in rows
        ]

    fence, batch = await transact(engine, claim)
    if not batch:
        return 0
    await deliver(batch)

    async def mark(conn: AsyncConnection) -> None:
        mine = await take(conn, "outbox-relay", holder=holder, now=now, lease_for=RELAY_LEASE)
        if mine != fence:
            raise StaleFence("the outbox relay was taken over by another worker")
        await conn.execute(
            update(outbox)
            .where(outbox.c.position.in_([item.position for item in batch]))
            .values(delivered_at=now)
        )

    await transact(engine, mark)
    return len(batch)


async def _first_places(
    conn: AsyncConnection, events: Sequence[DomainEvent]
) -> dict[UUID, TraceContext]:
    """Return where the traces of these entities began, of those whose first event's row says so."""
    found: dict[UUID, TraceContext] = {}
    for entity_type in sorted({event.entity_type for event in events if event.version > 1}):
        ids = {e.entity_id for e in events if e.entity_type == entity_type and e.version > 1}
        rows = await conn.execute(
            select(history.c.entity_id, history.c.traceparent).where(
                history.c.entity_type == entity_type,
                history.c.entity_id == any_(_IDS),
                history.c.version == 1,
            ),
            {_IDS.key: sorted(ids)},
        )
        places = {row.entity_id: TraceContext.parse(row.traceparent) for row in rows}
        found |= {key: place for key, place in places.items() if place is not None}
    return found


def _traced(
    events: Sequence[DomainEvent], places: Mapping[UUID, TraceContext]
) -> list[DomainEvent]:
    """Put the events into their entities' traces; return them with their places there."""
    known, traced = dict(places), []
    for event in events:
        place = tracing.note_event(
            event.name,
            event.entity_id,
            is_first=event.version == 1,
            named=event.payload.values(),
            known=known.get(event.entity_id),
            attributes={
                "causeway.entity": event.entity_type,
                "causeway.entity_id": str(event.entity_id),
                "causeway.version": event.version,
                "causeway.from": event.from_state or "",
                "causeway.to": event.to_state or "",
                "causeway.actor": event.actor,
            },
        )
        if place is not None and event.version == 1:
            known[event.entity_id] = place
        traced.append(event if place is None else replace(event, traceparent=place.header))
    return traced


def _history_row(event: DomainEvent) -> dict[str, Any]:
    return _with_trace(
        event,
        {
            "entity_type": event.entity_type,
            "entity_id": event.entity_id,
            "version": event.version,
            "name": event.name,
            "from_state": event.from_state,
            "to_state": event.to_state,
            "actor": event.actor,
            "reason": event.reason,
            "at": event.at,
            "payload": dict(event.payload),
        },
    )


def _outbox_row(event: DomainEvent) -> dict[str, Any]:
    return _with_trace(
        event,
        {
            "id": event.id,
            "aggregatetype": event.entity_type,
            "aggregateid": str(event.entity_id),
            "type": event.name,
            "payload": _told(event),
            "recorded_at": event.at,
        },
    )


def _told(event: DomainEvent) -> dict[str, Any]:
    """Return the event's payload in its envelope.

    The envelope's words are its own: by them a consumer orders an entity's events. What the payload calls
    the same (a policy has a version, too) is told below ``payload``.
    """
    envelope = {
        "version": event.version,
        "from": event.from_state,
        "to": event.to_state,
        "actor": event.actor,
        "reason": event.reason,
        "at": event.at.isoformat(),
    }
    own = {
        key: value for key, value in event.payload.items() if key in envelope or key == OWN_PAYLOAD
    }
    return {**event.payload, **envelope, **({OWN_PAYLOAD: own} if own else {})}


def _with_trace(event: DomainEvent, row: dict[str, Any]) -> dict[str, Any]:
    """Name the column only where there is something for it: untraced rows are written as ever."""
    return row if event.traceparent is None else {**row, "traceparent": event.traceparent}
