"""Rows of alerts, of who is told, and of what was sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, bindparam, false, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from kernel.leases import claim, require_one
from kernel.rows import insert_new_rows
from reporting.alerts.model import (
    Alert,
    AlertKind,
    AlertState,
    Channel,
    ChannelKind,
    Delivery,
    DeliveryState,
)
from reporting.alerts.tables import alert, alert_delivery, alert_policy

PAGE_MAX: Final = 500
PLAN_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is to be written down: to whom, about what, and whether that is over."""

    id: UUID
    alert: Alert
    channel: Channel
    is_clear: bool


_OPEN: Final = alert.c.state != str(AlertState.CLEARED)


async def insert_alerts(conn: AsyncConnection, alerts: Sequence[Alert]) -> set[UUID]:
    """Write alerts that are new; return the ids of those that were not open already."""
    if not alerts:
        return set()
    statement = insert(alert).on_conflict_do_nothing().returning(alert.c.id)
    rows = await conn.execute(statement.values([_alert_row(item) for item in alerts]))
    return set(rows.scalars())


async def lock_open(conn: AsyncConnection, book: int, kinds: Collection[AlertKind]) -> list[Alert]:
    """Lock and return the open alerts of some kinds, oldest first."""
    query = (
        select(alert)
        .where(alert.c.book == book, _OPEN, alert.c.kind.in_(sorted(kinds)))
        .order_by(alert.c.id)
        .with_for_update()
    )
    return [alert_of(row) for row in await conn.execute(query)]


async def get_alert(conn: AsyncConnection, alert_id: UUID, *, lock: bool = False) -> Alert:
    """Return one alert, locked if it is to be changed.

    Raises:
        Refused: there is none.
    """
    query = select(alert).where(alert.c.id == alert_id)
    if lock:
        query = query.with_for_update()
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        raise Refused(f"there is no alert {alert_id}", remedy="`causeway alerts list` shows them")
    return alert_of(row)


async def list_alerts(
    conn: AsyncConnection,
    book: int,
    *,
    states: Collection[AlertState],
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Alert]:
    """Return a page of alerts, newest first; *after* is (raised_at, id) of the last one seen."""
    query = select(alert).where(alert.c.book == book, alert.c.state.in_(sorted(states)))
    if after is not None:
        query = query.where(tuple_(alert.c.raised_at, alert.c.id) < after)
    ordered = query.order_by(alert.c.raised_at.desc(), alert.c.id.desc())
    rows = await conn.execute(ordered.limit(min(limit, PAGE_MAX)))
    return [alert_of(row) for row in rows]


async def update_alerts(
    conn: AsyncConnection, alert_ids: Collection[UUID], values: Mapping[str, object]
) -> None:
    """Change locked alerts alike."""
    if alert_ids:
        await conn.execute(update(alert).where(alert.c.id.in_(alert_ids)).values(**values))


async def refresh(conn: AsyncConnection, texts: Mapping[UUID, str], now: datetime) -> None:
    """Write down that alerts were found again, and in what words."""
    if texts:
        await conn.execute(
            update(alert)
            .where(alert.c.id == bindparam("of"))
            .values(text=bindparam("words"), last_seen_at=now),
            [{"of": key, "words": words} for key, words in texts.items()],
        )


async def lock_unplanned(conn: AsyncConnection, book: int, policy: int) -> list[Alert]:
    """Lock alerts that nobody acknowledged and whose level has not been told by this policy."""
    return await _lock(
        conn,
        alert.c.book == book,
        alert.c.state == str(AlertState.RAISED),
        tuple_(alert.c.planned_level, alert.c.planned_policy) != tuple_(alert.c.level, policy),
    )


async def lock_overdue(
    conn: AsyncConnection, book: int, before: datetime, highest: Mapping[AlertKind, int]
) -> list[Alert]:
    """Lock alerts that nobody has acknowledged since *before* and that are below their kind's level.

    Those that can go no higher would fill the page for good, and nothing else would ever be raised.
    """
    below = [
        (alert.c.kind == str(kind)) & (alert.c.level < level) for kind, level in highest.items()
    ]
    return await _lock(
        conn,
        alert.c.book == book,
        alert.c.state == str(AlertState.RAISED),
        alert.c.level_since <= before,
        or_(false(), *below),
    )


async def lock_cleared(conn: AsyncConnection, book: int) -> list[Alert]:
    """Lock alerts that are over, and whose end nobody has been told yet."""
    return await _lock(
        conn,
        alert.c.book == book,
        alert.c.state == str(AlertState.CLEARED),
        ~alert.c.is_clear_planned,
    )


async def told_channels(
    conn: AsyncConnection, alert_ids: Collection[UUID]
) -> dict[UUID, dict[str, Channel]]:
    """Return by alert which channels were sent something about it."""
    found: dict[UUID, dict[str, Channel]] = {}
    if alert_ids:
        query = select(alert_delivery).where(
            alert_delivery.c.alert_id.in_(alert_ids), ~alert_delivery.c.is_clear
        )
        for row in await conn.execute(query):
            found.setdefault(row.alert_id, {})[row.channel] = _channel_of(row)
    return found


async def insert_deliveries(conn: AsyncConnection, items: Sequence[Message], now: datetime) -> int:
    """Write down whom to tell, each once; return how many are new."""
    if not items:
        return 0
    rows = [
        {
            "id": item.id,
            "alert_id": item.alert.id,
            "level": item.alert.level,
            "is_clear": item.is_clear,
            "channel": item.channel.name,
            "channel_kind": str(item.channel.kind),
            "target": item.channel.target,
            "state": str(DeliveryState.PENDING),
            "run_after": now,
        }
        for item in items
    ]
    return len(await insert_new_rows(conn, alert_delivery, rows))


async def claim_deliveries(
    conn: AsyncConnection, *, holder: str, now: datetime, lease_for: timedelta, limit: int
) -> list[Delivery]:
    """Claim messages that are due, oldest first, with the alerts as they are now."""
    rows = await claim(
        conn,
        alert_delivery,
        where=(alert_delivery.c.state == str(DeliveryState.PENDING))
        & (alert_delivery.c.run_after <= now),
        order_by=[alert_delivery.c.run_after, alert_delivery.c.id],
        holder=holder,
        now=now,
        lease_for=lease_for,
        limit=limit,
    )
    about = {row.alert_id for row in rows}
    found = await conn.execute(select(alert).where(alert.c.id.in_(about)))
    alerts = {row.id: alert_of(row) for row in found}
    return [
        Delivery(
            id=row.id,
            alert=alerts[row.alert_id],
            level=row.level,
            is_clear=row.is_clear,
            channel=_channel_of(row),
            attempts=row.attempts,
            fence=row.fence,
        )
        for row in rows
    ]


async def move_delivery(
    conn: AsyncConnection, item: Delivery, values: Mapping[str, object]
) -> None:
    """Write how an attempt ended, and give the lease back.

    Raises:
        StaleFence: another worker has claimed it meanwhile.
    """
    result = await conn.execute(
        update(alert_delivery)
        .where(alert_delivery.c.id == item.id, alert_delivery.c.fence == item.fence)
        .values(lease_holder=None, lease_until=None, **values)
    )
    require_one(result, f"message {item.id}")


async def count_deliveries(
    conn: AsyncConnection, alert_ids: Collection[UUID]
) -> dict[UUID, dict[DeliveryState, int]]:
    """Return by alert how many messages about it are in which state."""
    found: dict[UUID, dict[DeliveryState, int]] = {}
    if alert_ids:
        query = (
            select(alert_delivery.c.alert_id, alert_delivery.c.state, func.count().label("number"))
            .where(alert_delivery.c.alert_id.in_(alert_ids))
            .group_by(alert_delivery.c.alert_id, alert_delivery.c.state)
        )
        for row in await conn.execute(query):
            found.setdefault(row.alert_id, {})[DeliveryState(row.state)] = int(row.number)
    return found


async def newest_policy(conn: AsyncConnection) -> Row[Any] | None:
    """Return the row of the newest policy."""
    query = select(alert_policy).order_by(alert_policy.c.version.desc()).limit(1)
    return (await conn.execute(query)).one_or_none()


async def insert_policy(conn: AsyncConnection, row: Mapping[str, object]) -> bool:
    """Write a version of the policy; False: somebody else has written it."""
    result = await conn.execute(
        insert(alert_policy)
        .values(**row)
        .on_conflict_do_nothing()
        .returning(alert_policy.c.version)
    )
    return result.one_or_none() is not None


async def _lock(conn: AsyncConnection, *where: ColumnElement[bool]) -> list[Alert]:
    query = (
        select(alert)
        .where(*where)
        .order_by(alert.c.id)
        .limit(PLAN_MAX)
        .with_for_update(skip_locked=True)
    )
    return [alert_of(row) for row in await conn.execute(query)]


def alert_of(row: Row[Any]) -> Alert:
    """Return the alert of a row."""
    return Alert(
        id=row.id,
        book=row.book,
        kind=AlertKind(row.kind),
        key=row.key,
        text=row.text,
        state=AlertState(row.state),
        level=row.level,
        level_since=row.level_since,
        raised_at=row.raised_at,
        last_seen_at=row.last_seen_at,
        acknowledged_by=row.acknowledged_by,
        acknowledged_at=row.acknowledged_at,
        cleared_at=row.cleared_at,
    )


def _alert_row(item: Alert) -> dict[str, object]:
    return {
        "id": item.id,
        "book": item.book,
        "kind": str(item.kind),
        "key": item.key,
        "text": item.text,
        "state": str(item.state),
        "level": item.level,
        "level_since": item.level_since,
        "raised_at": item.raised_at,
        "last_seen_at": item.last_seen_at,
    }


def _channel_of(row: Row[Any]) -> Channel:
    return Channel(name=row.channel, kind=ChannelKind(row.channel_kind), target=row.target)
