"""What a venue says about an order, written down: from its answers, queries, lists and streams.

Reports come late, twice and out of order; they are weighed by what has executed, not by when they
came. What they contradict is told to a person, and never made to fit.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from venues.account_state import reduce_only
from venues.lifecycle import states_after
from venues.model import (
    FINAL_STATES,
    NEVER_PLACED_STATES,
    Accepted,
    OrderReport,
    OrderState,
    Placement,
    PlacementRefused,
    PlacementUnknown,
    VenueOrder,
    VenueStatus,
)
from venues.store import advance, note, set_columns


async def record_placement(
    conn: AsyncConnection, row: VenueOrder, placement: Placement, *, actor: str, now: datetime
) -> VenueOrder:
    """Record the answer to the one request that placed the locked *row*.

    What a stream or a cancel has shown of it meanwhile is more than an answer that says nothing; a
    refusal of an order that was shown contradicts it, and a person is told.
    """
    match placement:
        case Accepted(report):
            return await record_report(conn, row, report, actor=actor, now=now)
        case PlacementRefused(reason) if row.state not in {
            OrderState.SUBMITTING,
            *NEVER_PLACED_STATES,
        }:
            return await _alarm(conn, row, "OrderRefusedButSeen", reason, now=now)
        case _ if row.state is not OrderState.SUBMITTING:
            return row
        case PlacementRefused(reason, kind):
            return await advance(
                conn,
                row,
                OrderState.REFUSED,
                reason=reason,
                actor=actor,
                now=now,
                refusal=str(kind),
            )
        case PlacementUnknown(reason):
            return await advance(conn, row, OrderState.UNKNOWN, reason=reason, actor=actor, now=now)


async def record_report(
    conn: AsyncConnection, row: VenueOrder, report: OrderReport, *, actor: str, now: datetime
) -> VenueOrder:
    """Record what the venue says about the locked *row*, one edge at a time.

    An order that was over and has traded more all the same stays what it is, and an event says so.
    """
    if row.venue_order_id not in {None, report.venue_order_id}:
        return await _alarm(
            conn,
            row,
            "OrderDoubled",
            f"the venue shows it as {report.venue_order_id} and as {row.venue_order_id}",
            now=now,
        )
    before = row
    executed = max(row.executed_units, report.executed_units)
    steps = states_after(row, report)
    if steps:
        row = await advance(
            conn,
            row,
            *steps,
            reason=f"the venue says {report.status}",
            actor=actor,
            now=now,
            venue_order_id=report.venue_order_id,
            executed_units=executed,
        )
    elif executed > row.executed_units or row.venue_order_id is None:
        row = await set_columns(
            conn,
            row,
            executed_units=executed,
            venue_order_id=report.venue_order_id,
            is_complete=False,
        )
    if before.state in FINAL_STATES:
        row = await _record_after_its_end(conn, row, report, before, now=now)
    if before.executed_units <= row.base_units < executed:
        row = await record_overfill(conn, row, executed, now=now)
    return row


async def record_overfill(
    conn: AsyncConnection, row: VenueOrder, executed: int, *, now: datetime
) -> VenueOrder:
    """Record that more was traded than ordered: it is a fact, and a reason to stop and look."""
    reason = f"{executed} units were traded of {row.base_units} ordered"
    return await _alarm(conn, row, "OrderOverfilled", reason, now=now)


async def record_late_trade(
    conn: AsyncConnection, row: VenueOrder, executed: int, *, now: datetime
) -> VenueOrder:
    """Record that the locked *row* traded although it was over.

    After a cancel that is how venues are, and an event says so. After a proof that the venue never
    had the order it means that the proof was wrong: then nothing but less risk is allowed.
    """
    reason = f"the venue traded {executed} units of an order that was {row.state}"
    if row.state in NEVER_PLACED_STATES:
        return await _alarm(conn, row, "OrderTradedLate", reason, now=now)
    return await note(conn, row, "OrderTradedLate", reason=reason, now=now)


async def _record_after_its_end(
    conn: AsyncConnection,
    row: VenueOrder,
    report: OrderReport,
    before: VenueOrder,
    *,
    now: datetime,
) -> VenueOrder:
    is_over = report.status is not VenueStatus.OPEN
    if row.executed_units > before.executed_units:
        row = await record_late_trade(conn, row, row.executed_units, now=now)
    if row.state in NEVER_PLACED_STATES and not is_over and row.revived_at is None:
        row = await set_columns(conn, row, revived_at=now, is_complete=False)
        return await _alarm(
            conn, row, "OrderRevived", f"the venue shows it open; it was {row.state}", now=now
        )
    if row.revived_at is not None and is_over:
        row = await set_columns(conn, row, revived_at=None, is_complete=False)
        return await note(
            conn, row, "OrderLaidToRest", reason=f"the venue says {report.status}", now=now
        )
    return row


async def _alarm(
    conn: AsyncConnection, row: VenueOrder, name: str, reason: str, *, now: datetime
) -> VenueOrder:
    row = await note(conn, row, name, reason=reason, now=now)
    await reduce_only(
        conn,
        row.venue,
        row.account,
        reason=f"order {row.client_order_id}: {reason}",
        actor="system:venue-orders",
        now=now,
    )
    return row
