"""What people decide of an order that nothing is known of: two of them, with evidence attached.

The machine goes on looking meanwhile; if the venue's word comes first, it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from venues.account_state import BY_A_MACHINE
from venues.errors import NotEscalated
from venues.model import OrderReport, OrderState, VenueOrder, VenueStatus
from venues.reports import record_report
from venues.store import advance, get_order, note
from venues.tables import order_decision

EVIDENCE_LENGTH_MAX: Final = 4_000
PEOPLE: Final = 2
PLACED: Final = "placed"
NOT_PLACED: Final = "not-placed"


@dataclass(frozen=True, slots=True)
class WasPlaced:
    """The venue has or had the order, as the evidence shows it."""

    venue_order_id: str
    status: VenueStatus
    executed_units: int


@dataclass(frozen=True, slots=True)
class WasNotPlaced:
    """The venue never had the order."""


Verdict = WasPlaced | WasNotPlaced


async def decide(
    conn: AsyncConnection,
    order: VenueOrder,
    *,
    operator: str,
    evidence: str,
    verdict: Verdict,
    now: datetime,
) -> VenueOrder:
    """Record one person's verdict; the second person of the same verdict puts it in force.

    Fills are never decided: if the verdict is that the order traded, they are fetched as always,
    and until they are here the difference stays visible.

    Raises:
        BadInput: no evidence, not a person, or a second verdict of the same person.
        NotEscalated: the order is not, or no longer, escalated.
    """
    if not evidence.strip() or len(evidence) > EVIDENCE_LENGTH_MAX:
        raise BadInput(f"a verdict needs evidence of at most {EVIDENCE_LENGTH_MAX} characters")
    if not operator or operator.startswith(BY_A_MACHINE):
        raise BadInput("an order is decided by people")
    row = await get_order(conn, order.id, lock=True)
    if row.state is not OrderState.ESCALATED:
        raise NotEscalated(f"order {row.client_order_id} is {row.state}")
    columns = _columns(verdict)
    written = await conn.execute(
        insert(order_decision)
        .values(order_id=row.id, operator=operator, evidence=evidence, decided_at=now, **columns)
        .on_conflict_do_nothing()
    )
    if written.rowcount != 1:
        raise BadInput(f"{operator} has decided order {row.client_order_id} already")
    row = await note(
        conn,
        row,
        "OrderDecided",
        reason=evidence,
        actor=operator,
        now=now,
        payload={"verdict": columns["verdict"]},
    )
    if len(await _agreeing(conn, row, columns)) < PEOPLE:
        return row
    return await _put_in_force(conn, row, verdict, operator, now)


async def _agreeing(
    conn: AsyncConnection, row: VenueOrder, columns: dict[str, object]
) -> list[str]:
    same = [order_decision.c[name].is_not_distinct_from(value) for name, value in columns.items()]
    found = await conn.execute(
        select(order_decision.c.operator).where(order_decision.c.order_id == row.id, *same)
    )
    return [str(item.operator) for item in found]


async def _put_in_force(
    conn: AsyncConnection, row: VenueOrder, verdict: Verdict, operator: str, now: datetime
) -> VenueOrder:
    match verdict:
        case WasNotPlaced():
            return await advance(
                conn,
                row,
                OrderState.NOT_PLACED,
                reason="two people decided so, with evidence",
                actor=operator,
                now=now,
                fence=row.fence + 1,
            )
        case WasPlaced(venue_order_id, status, executed_units):
            report = OrderReport(
                client_order_id=row.client_order_id,
                venue_order_id=venue_order_id,
                status=status,
                executed_units=executed_units,
            )
            return await record_report(conn, row, report, actor=operator, now=now)


def _columns(verdict: Verdict) -> dict[str, object]:
    match verdict:
        case WasNotPlaced():
            return {
                "verdict": NOT_PLACED,
                "venue_order_id": None,
                "status": None,
                "executed_units": None,
            }
        case WasPlaced(venue_order_id, status, executed_units):
            return {
                "verdict": PLACED,
                "venue_order_id": venue_order_id,
                "status": str(status),
                "executed_units": executed_units,
            }
