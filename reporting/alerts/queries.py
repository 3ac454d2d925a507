"""Reads of alerts: a page of them, and how far people were told."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from reporting.alerts import store
from reporting.alerts.model import Alert, AlertState, DeliveryState

LIST_MAX: Final = store.PAGE_MAX
OPEN: Final = (AlertState.RAISED, AlertState.ACKNOWLEDGED)


async def list_alerts(
    conn: AsyncConnection,
    book: int,
    *,
    states: Collection[AlertState] = OPEN,
    after: tuple[datetime, UUID] | None = None,
    limit: int = LIST_MAX,
) -> list[Alert]:
    """Return a page of alerts, newest first; *after* is (raised_at, id) of the last one seen."""
    return await store.list_alerts(conn, book, states=states, after=after, limit=limit)


async def get_alert(conn: AsyncConnection, alert_id: UUID) -> Alert:
    """Return one alert.

    Raises:
        Refused: there is none.
    """
    return await store.get_alert(conn, alert_id)


async def count_messages(
    conn: AsyncConnection, alert_ids: Collection[UUID]
) -> dict[UUID, dict[DeliveryState, int]]:
    """Return by alert how many messages about it are in which state."""
    return await store.count_deliveries(conn, alert_ids)
