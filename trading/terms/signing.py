"""A change by two people: who they are, what the second one signed, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, next_version, record
from kernel.ids import stable_id
from registry.model import Operator, Role
from registry.people import require_operator, require_second


@dataclass(frozen=True, slots=True)
class TwoPeople:
    """Who entered a change, and who signed it."""

    first: Operator
    second: Operator


async def require_two(
    conn: AsyncConnection,
    by: Operator,
    approver: Operator,
    payload: bytes,
    signature: bytes,
    *,
    entered_by: tuple[Role, ...],
) -> TwoPeople:
    """Return the two, of whom the second signed *payload*; the treasury or an approver signs.

    Raises:
        SamePerson: they are one.
        NotAuthorised: a role is missing, or the signature does not hold.
    """
    first = await require_operator(conn, by, *entered_by)
    second = await require_second(
        conn,
        first,
        approver,
        Role.TREASURER,
        Role.APPROVER,
        payload=payload,
        signature=signature,
    )
    return TwoPeople(first, second)


async def record_change(
    conn: AsyncConnection,
    entity_type: str,
    key: str,
    name: str,
    details: Mapping[str, object],
    people: TwoPeople,
    now: datetime,
) -> None:
    """Append the event of a change that two people made."""
    reason = f"approved by {people.second.code}"
    await record_step(conn, entity_type, key, name, details, people.first.code, reason, now)


async def record_step(
    conn: AsyncConnection,
    entity_type: str,
    key: str,
    name: str,
    details: Mapping[str, object],
    by: str,
    reason: str,
    now: datetime,
) -> None:
    """Append one event of what *key* names."""
    entity_id = stable_id(entity_type, key)
    event = DomainEvent(
        entity_type=entity_type,
        entity_id=entity_id,
        version=await next_version(conn, entity_type, entity_id),
        name=name,
        at=now,
        actor=by,
        reason=reason,
        payload={"key": key, **details},
    )
    await record(conn, [event])
