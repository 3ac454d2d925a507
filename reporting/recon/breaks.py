"""What people do about breaks: take one on, and resolve it, which takes two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, next_versions, record
from registry.authority import signing_bytes
from registry.calendars import Calendar, count_business_days
from registry.model import Operator, Role
from registry.people import require_operator, require_second
from registry.queries import get_operator
from reporting.recon import store
from reporting.recon.model import BREAK_STATES, STANDING, Break, BreakState, PlaceKind
from trading.terms.value_dates import calendars_of

ENTITY: Final = "recon-break"
SYSTEM: Final = "system:reconciliation"
REASON_MAX: Final = 500
MAY: Final = (Role.FINANCE, Role.TREASURER, Role.OPERATIONS)
MAY_SIGN: Final = (Role.FINANCE, Role.TREASURER, Role.APPROVER)
LIST_MAX: Final = store.PAGE_MAX


async def assign(
    conn: AsyncConnection, break_id: UUID, *, to: str, by: Operator, now: datetime
) -> Break:
    """Say who looks after a break; again, to somebody else, hands it on.

    Raises:
        Refused: it is resolved or over, or *to* may not look after breaks.
    """
    operator = await require_operator(conn, by, *MAY)
    assignee = await require_operator(conn, await get_operator(conn, to), *MAY)
    item = await store.get_break(conn, break_id, lock=True)
    _require_standing(item)
    if item.assigned_to == assignee.code:
        return item
    after = replace(item, state=BreakState.ASSIGNED, assigned_to=assignee.code)
    return await _write(conn, item, after, "BreakAssigned", operator.code, f"to {to}", now)


def resolution_bytes(item: Break, reason: str) -> bytes:
    """Return what the second person signs: this break, as it is now, for this reason."""
    return signing_bytes(
        "reporting.recon_resolution",
        {
            "break": item.id,
            "key": item.found.key,
            "amount": None if item.found.amount is None else str(item.found.amount),
            "text": item.found.text,
            "reason": reason,
        },
    )


async def resolve(
    conn: AsyncConnection,
    break_id: UUID,
    *,
    reason: str,
    by: Operator,
    second: Operator,
    signature: bytes,
    now: datetime,
) -> Break:
    """Resolve a break at its present figure; it opens again when the figure is another one.

    Nothing is posted from here: what has to be posted is, by its own verb, and then the break is over
    by itself. This is for what is known and stays: a wrong statement, an address of somebody else.

    Args:
        conn: the caller's transaction.
        break_id: which one.
        reason: why, and what is done about it.
        by: who says so.
        second: another person, who signs `resolution_bytes`.
        signature: the second person's.
        now: the time.

    Raises:
        BadInput: no reason is given.
        Refused: it is resolved or over, or the people may not.
    """
    if not 0 < len(reason.strip()) <= REASON_MAX:
        raise BadInput(f"a resolution has a reason of 1 to {REASON_MAX} characters")
    operator = await require_operator(conn, by, *MAY)
    item = await store.get_break(conn, break_id, lock=True)
    payload = resolution_bytes(item, reason)
    other = await require_second(
        conn, operator, second, *MAY_SIGN, payload=payload, signature=signature
    )
    _require_standing(item)
    after = replace(
        item,
        state=BreakState.RESOLVED,
        resolution=reason,
        resolved_by=(operator.code, other.code),
        resolved_amount=item.found.amount,
        resolved_at=now,
    )
    why = f"{reason[: REASON_MAX - 80]}, signed by {other.code}"
    return await _write(conn, item, after, "BreakResolved", operator.code, why, now)


async def get_break(conn: AsyncConnection, break_id: UUID) -> Break:
    """Return a break.

    Raises:
        Refused: there is none.
    """
    return await store.get_break(conn, break_id)


async def list_breaks(
    conn: AsyncConnection,
    book: int,
    *,
    states: Sequence[BreakState] = STANDING,
    after: tuple[datetime, UUID] | None = None,
    limit: int = LIST_MAX,
) -> list[Break]:
    """Return a page of breaks, the oldest first; *after* is (opened_at, id) of the last one seen."""
    return await store.list_breaks(conn, book, states=states, after=after, limit=limit)


def age_days(item: Break, today: date) -> int:
    """Return the business days since a break was opened: of its money at a bank, else every day."""
    at_bank = item.found.place_kind is PlaceKind.BANK and item.found.asset
    calendars = calendars_of(item.found.asset) if at_bank else frozenset({Calendar.ALWAYS})
    return count_business_days(item.opened_at.astimezone(UTC).date(), today, calendars)


async def record_breaks(
    conn: AsyncConnection,
    items: Sequence[tuple[Break, str]],
    *,
    by: str,
    reason: str,
    now: datetime,
) -> None:
    """Record what happened to breaks, as (break, event)."""
    versions = await next_versions(conn, ENTITY, [item.id for item, _ in items])
    await record(
        conn,
        [
            DomainEvent(
                entity_type=ENTITY,
                entity_id=item.id,
                version=versions[item.id],
                name=name,
                at=now,
                actor=by,
                reason=reason,
                to_state=str(item.state),
                payload={
                    "key": item.found.key,
                    "amount": "" if item.found.amount is None else str(item.found.amount),
                },
            )
            for item, name in items
        ],
    )


def _require_standing(item: Break) -> None:
    if item.state not in STANDING:
        raise Refused(
            f"break {item.id} is {item.state}", remedy="Only one that stands can be worked on"
        )


async def _write(
    conn: AsyncConnection,
    before: Break,
    after: Break,
    name: str,
    by: str,
    reason: str,
    now: datetime,
) -> Break:
    BREAK_STATES.require(before.state, after.state)
    await store.write_breaks(conn, [after])
    await record_breaks(conn, [(after, name)], by=by, reason=reason, now=now)
    return after
