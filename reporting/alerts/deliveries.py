"""Messages about alerts: written down before they are sent, sent at least once, given up visibly."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.ids import derive_id
from reporting.alerts import store
from reporting.alerts.model import (
    DELIVERY_STATES,
    Alert,
    AlertPolicy,
    Channel,
    Delivery,
    DeliveryState,
)

CLAIM_MAX: Final = 20
LEASE: Final = timedelta(minutes=5)
"""Longer than `CLAIM_MAX` messages take when every one of them runs into its time limit."""
ATTEMPTS_MAX: Final = 10
RETRY_BASE: Final = timedelta(seconds=5)
RETRY_MAX: Final = timedelta(minutes=10)
DETAIL_MAX: Final = 500


async def plan(conn: AsyncConnection, book: int, policy: AlertPolicy, *, now: datetime) -> int:
    """Write down whom open alerts are told to at their level, and whom the end of the others.

    Each message is written once, whoever plans. Returns how many are new.
    """
    raised = await store.lock_unplanned(conn, book, policy.version)
    messages = [
        _message(item, channel, is_clear=False)
        for item in raised
        for channel in policy.channels_for(item.kind, item.level)
    ]
    over = await store.lock_cleared(conn, book)
    told = await store.told_channels(conn, [item.id for item in over])
    messages += [
        _message(item, channel, is_clear=True)
        for item in over
        for channel in told.get(item.id, {}).values()
    ]
    new = await store.insert_deliveries(conn, messages, now)
    for level in sorted({item.level for item in raised}):
        same = [item.id for item in raised if item.level == level]
        planned = {"planned_level": level, "planned_policy": policy.version}
        await store.update_alerts(conn, same, planned)
    await store.update_alerts(conn, [item.id for item in over], {"is_clear_planned": True})
    return new


async def claim_due(conn: AsyncConnection, *, holder: str, now: datetime) -> list[Delivery]:
    """Claim messages to send; whoever claims has `LEASE` to say how it ended."""
    return await store.claim_deliveries(
        conn, holder=holder, now=now, lease_for=LEASE, limit=CLAIM_MAX
    )


async def record_delivered(conn: AsyncConnection, item: Delivery, *, now: datetime) -> None:
    """Record that a channel has taken the message."""
    await _end(conn, item, DeliveryState.DELIVERED, "", now)


async def record_failed(
    conn: AsyncConnection, item: Delivery, detail: str, *, now: datetime
) -> DeliveryState:
    """Record that it is not known to have arrived: tried again later, given up after many times."""
    if item.attempts + 1 >= ATTEMPTS_MAX:
        await _end(conn, item, DeliveryState.DEAD, detail, now)
        return DeliveryState.DEAD
    pause = min(RETRY_MAX, RETRY_BASE * 2**item.attempts)
    values = {
        "attempts": item.attempts + 1,
        "run_after": now + pause,
        "detail": detail[:DETAIL_MAX],
    }
    await store.move_delivery(conn, item, values)
    return DeliveryState.PENDING


async def postpone(conn: AsyncConnection, item: Delivery, *, now: datetime) -> None:
    """Give a message back that was not tried: its channel is down for another one."""
    await store.move_delivery(conn, item, {"run_after": now + RETRY_BASE})


async def _end(
    conn: AsyncConnection, item: Delivery, state: DeliveryState, detail: str, now: datetime
) -> None:
    DELIVERY_STATES.require(DeliveryState.PENDING, state)
    values = {
        "state": str(state),
        "attempts": item.attempts + 1,
        "detail": detail[:DETAIL_MAX],
        "ended_at": now,
    }
    await store.move_delivery(conn, item, values)


def _message(item: Alert, channel: Channel, *, is_clear: bool) -> store.Message:
    parts = ("alert-message", item.id, item.level, int(is_clear), channel.name)
    return store.Message(derive_id(item.raised_at, *parts), item, channel, is_clear)
