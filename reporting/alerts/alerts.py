"""From findings to alerts: raised once, refreshed while they last, cleared when they are over.

`observe` is told what is wrong now, of which kinds; whatever of those kinds is open and not among it
is over. Two processes may observe at once: an index lets one alert of a key be open, and whoever comes
second finds it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, next_versions, record
from kernel.ids import derive_id
from registry.model import Operator, Role
from registry.people import require_operator
from reporting.alerts import store
from reporting.alerts.model import ALERT_STATES, Alert, AlertKind, AlertPolicy, AlertState, Finding

ENTITY: Final = "alert"
SYSTEM: Final = "system:alerts"
FINDINGS_MAX: Final = 500
"""Of one kind at once; a finding of its own says that there are more."""
REASON_MAX: Final = 500
ACKNOWLEDGERS: Final = (Role.TREASURER, Role.OPERATIONS, Role.FINANCE, Role.APPROVER)


@dataclass(frozen=True, slots=True)
class Observed:
    """What an observation changed."""

    raised: tuple[Alert, ...] = ()
    cleared: tuple[Alert, ...] = ()


def bounded(kind: AlertKind, findings: Sequence[Finding]) -> list[Finding]:
    """Return at most `FINDINGS_MAX` findings of a kind, the last of which says how many are left out.

    In the order of their keys: the same ones each time, as long as they last.
    """
    ordered = sorted(findings, key=lambda item: item.key)
    if len(ordered) <= FINDINGS_MAX:
        return ordered
    kept = ordered[: FINDINGS_MAX - 1]
    left = len(ordered) - len(kept)
    return [*kept, Finding(kind=kind, key="~more", text=f"{left} more of this kind are not listed")]


async def observe(
    conn: AsyncConnection,
    book: int,
    findings: Sequence[Finding],
    *,
    examined: Collection[AlertKind],
    now: datetime,
) -> Observed:
    """Raise what is new, refresh what lasts, clear what is over.

    Args:
        conn: the caller's transaction.
        book: whose alerts.
        findings: everything that is wrong now, of the kinds in *examined*.
        examined: kinds that were looked at; alerts of others stay as they are.
        now: the time.
    """
    if not {item.kind for item in findings} <= set(examined):
        raise BadInput("a finding is of a kind that was not examined")
    wanted = {
        (item.kind, item.key): item
        for kind in sorted(examined)
        for item in bounded(kind, [f for f in findings if f.kind is kind])
    }
    fresh = [_new(book, item, now) for item in wanted.values()]
    before = await store.lock_open(conn, book, examined)
    known = {(item.kind, item.key) for item in before}
    written = await store.insert_alerts(
        conn, [item for item in fresh if (item.kind, item.key) not in known]
    )
    raised = tuple(item for item in fresh if item.id in written)
    lasting = {item.id: wanted[key] for item in before if (key := (item.kind, item.key)) in wanted}
    await store.refresh(conn, {key: item.text for key, item in lasting.items()}, now)
    over = [item for item in before if item.id not in lasting]
    cleared = await _clear(conn, over, now)
    await _record(conn, raised, "AlertRaised", SYSTEM, "", now)
    return Observed(raised, tuple(cleared))


async def raise_test(conn: AsyncConnection, book: int, *, by: Operator, now: datetime) -> Alert:
    """Raise an alert that means nothing, to see whether it arrives; acknowledging it ends it."""
    operator = await require_operator(conn, by, *ACKNOWLEDGERS)
    text = f"{operator.code} tries whether alerts arrive"
    finding = Finding(kind=AlertKind.TEST, key=now.isoformat(), text=text)
    item = _new(book, finding, now)
    if await store.insert_alerts(conn, [item]):
        await _record(conn, [item], "AlertRaised", operator.code, "", now)
    return item


async def acknowledge(
    conn: AsyncConnection, alert_id: UUID, *, by: Operator, reason: str, now: datetime
) -> Alert:
    """Take an alert on: nobody else is told from here on. Again by the same person: nothing.

    Raises:
        Refused: there is no such alert, it is over, or another one has taken it on.
    """
    operator = await require_operator(conn, by, *ACKNOWLEDGERS)
    item = await store.get_alert(conn, alert_id, lock=True)
    if item.acknowledged_by == operator.code:
        return item
    if item.acknowledged_by is not None:
        raise Refused(f"{item.acknowledged_by} has taken alert {item.id} on already")
    if item.state is AlertState.CLEARED:
        raise Refused(f"alert {item.id} is over", remedy="There is nothing to take on")
    after = replace(
        item,
        state=AlertState.ACKNOWLEDGED,
        acknowledged_by=operator.code,
        acknowledged_at=now,
    )
    ALERT_STATES.require(item.state, after.state)
    values = {"state": str(after.state), "acknowledged_by": operator.code, "acknowledged_at": now}
    await store.update_alerts(conn, [item.id], values)
    await _record(conn, [after], "AlertAcknowledged", operator.code, reason[:REASON_MAX], now)
    if item.kind is AlertKind.TEST:
        (after,) = await _clear(conn, [after], now)
    return after


async def escalate(
    conn: AsyncConnection, book: int, policy: AlertPolicy, *, now: datetime
) -> list[Alert]:
    """Raise the level of what nobody has acknowledged in time; return what went up."""
    highest = {kind: policy.highest(kind) for kind in AlertKind}
    going = await store.lock_overdue(conn, book, now - policy.escalate_after, highest)
    up = [replace(item, level=item.level + 1, level_since=now) for item in going]
    for level in sorted({item.level for item in up}):
        same = [item.id for item in up if item.level == level]
        await store.update_alerts(conn, same, {"level": level, "level_since": now})
    await _record(conn, up, "AlertEscalated", SYSTEM, "nobody has acknowledged it", now)
    return up


async def _clear(conn: AsyncConnection, items: Sequence[Alert], now: datetime) -> list[Alert]:
    after = [replace(item, state=AlertState.CLEARED, cleared_at=now) for item in items]
    await store.update_alerts(
        conn,
        [item.id for item in items],
        {"state": str(AlertState.CLEARED), "cleared_at": now},
    )
    await _record(conn, after, "AlertCleared", SYSTEM, "", now)
    return after


def _new(book: int, finding: Finding, now: datetime) -> Alert:
    return Alert(
        id=derive_id(now, "alert", book, str(finding.kind), finding.key),
        book=book,
        kind=finding.kind,
        key=finding.key,
        text=finding.text,
        state=AlertState.RAISED,
        level=1,
        level_since=now,
        raised_at=now,
        last_seen_at=now,
    )


async def _record(
    conn: AsyncConnection,
    items: Sequence[Alert],
    name: str,
    by: str,
    reason: str,
    now: datetime,
) -> None:
    versions = await next_versions(conn, ENTITY, [item.id for item in items]) if items else {}
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
                payload={"kind": str(item.kind), "key": item.key, "level": str(item.level)},
            )
            for item in items
        ],
    )
