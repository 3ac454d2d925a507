"""What is written around sending an order, as rows: many orders in one statement and one commit.

They say the same as the statements of `venues.store` do one by one, and give way to them whenever
an order is not as plain as it mostly is: then nothing is written of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from msgspec.structs import replace

from kernel.events import REASON_LENGTH_MAX, DomainEvent, as_json, json_rows, traced
from venues.lifecycle import states_after
from venues.model import (
    Accepted,
    AccountMode,
    OrderState,
    Placement,
    PlacementRefused,
    PlacementUnknown,
    VenueOrder,
)
from venues.store import intent_event, order_row, step_event
from venues.tables import venue_account_state, venue_order

SENT_ONCE: Final = "sent once"


@dataclass(frozen=True, slots=True)
class OrderRows:
    """What is to be written about one order: itself or its steps, and its events.

    The rows are made when the statement's turn has come, for all orders that share it in one go.
    """

    order_id: UUID
    rows: Sequence[Callable[[], dict[str, Any]]]
    events: Sequence[DomainEvent]


def rows_of_intent(
    order: VenueOrder, *, holder: str, lease_until: datetime, actor: str
) -> OrderRows:
    """Return the rows of an order that is about to be sent."""
    row = partial(order_row, order, lease_holder=holder, lease_until=lease_until)
    return OrderRows(order.id, [row], traced([intent_event(order, actor=actor)]))


def rows_of_sending(
    order: VenueOrder,
    *,
    signed_at: datetime,
    holder: str,
    lease_until: datetime,
    actor: str,
    now: datetime,
) -> tuple[VenueOrder, OrderRows]:
    """Return an intent as it is when it is about to be sent, and the rows that say so."""
    event = step_event(order, OrderState.SUBMITTING, reason=SENT_ONCE, actor=actor, now=now)
    sent = replace(
        order,
        state=OrderState.SUBMITTING,
        state_reason=SENT_ONCE,
        signed_at=signed_at,
        updated_at=now,
        version=order.version + 1,
        fence=order.fence + 1,
    )
    row = partial(_sent_row, sent, lease_holder=holder, lease_until=lease_until)
    return sent, OrderRows(order.id, [row], traced([event]))


def rows_of_outcome(
    order: VenueOrder, placement: Placement, *, actor: str, now: datetime
) -> tuple[VenueOrder, OrderRows] | None:
    """Return *order* after *placement* and the rows that say so; None: it is not a plain case."""
    states, reason, columns = _meaning(order, placement)
    if not states:
        return None
    steps: list[Callable[[], dict[str, Any]]] = []
    events: list[DomainEvent] = []
    for nth, state in enumerate(states, start=1):
        events.append(step_event(order, state, reason=reason, actor=actor, now=now))
        order = replace(
            order,
            state=state,
            state_reason=reason[:REASON_LENGTH_MAX],
            updated_at=now,
            version=order.version + 1,
            **columns,
        )
        steps.append(partial(_step_row, order, nth))
    return order, OrderRows(order.id, steps, traced(events))


def parameters(group: Iterable[OrderRows]) -> tuple[str, str, str]:
    """Return the three values that each statement below takes, for all orders of *group*."""
    rows: list[dict[str, Any]] = []
    events: list[DomainEvent] = []
    for item in group:
        rows += [row() for row in item.rows]
        events += item.events
    return as_json(rows), *json_rows(events)


def _sent_row(order: VenueOrder, *, lease_holder: str, lease_until: datetime) -> dict[str, Any]:
    return {
        "id": order.id,
        "state": order.state.value,
        "state_reason": order.state_reason,
        "signed_at": order.signed_at,
        "updated_at": order.updated_at,
        "version": order.version,
        "fence": order.fence,
        "lease_holder": lease_holder,
        "lease_until": lease_until,
    }


def _step_row(order: VenueOrder, nth: int) -> dict[str, Any]:
    return {
        "id": order.id,
        "nth": nth,
        "fence": order.fence,
        "version": order.version,
        "state": order.state.value,
        "state_reason": order.state_reason,
        "updated_at": order.updated_at,
        "venue_order_id": order.venue_order_id,
        "executed_units": order.executed_units,
        "refusal": None if order.refusal is None else order.refusal.value,
    }


def _meaning(
    order: VenueOrder, placement: Placement
) -> tuple[tuple[OrderState, ...], str, dict[str, Any]]:
    match placement:
        case Accepted(report):
            if report.executed_units > order.base_units:
                return (), "", {}  # an alarm goes with it
            columns = {
                "venue_order_id": report.venue_order_id,
                "executed_units": report.executed_units,
            }
            return states_after(order, report), f"the venue says {report.status}", columns
        case PlacementRefused(reason, kind):
            return (OrderState.REFUSED,), reason, {"refusal": kind}
        case PlacementUnknown(reason):
            return (OrderState.UNKNOWN,), reason, {}


_ORDER_COLUMNS: Final = (
    *("id", "venue", "account", "symbol", "instrument_version", "kind", "side", "base_units"),
    *("quantity", "price", "time_in_force", "reference", "intent", "attempt", "client_order_id"),
    *("state", "state_reason", "signed_at", "recv_window_ms", "created_at", "updated_at"),
    *("version", "fence", "lease_holder", "lease_until"),
)
_HISTORY_COLUMNS: Final = (
    *("entity_type", "entity_id", "version", "name", "from_state", "to_state"),
    *("actor", "reason", "at", "payload", "traceparent"),
)
_OUTBOX_COLUMNS: Final = (
    *("id", "aggregatetype", "aggregateid", "type", "payload", "recorded_at"),
    "traceparent",
)


def _selected(table: str, columns: Sequence[str], parameter: int, where: str) -> str:
    names = ", ".join(columns)
    source = f"json_populate_recordset(NULL::{table}, CAST(CAST(${parameter} AS text) AS json))"
    chosen = ", ".join(f"r.{name}" for name in columns)
    return f"INSERT INTO {table} ({names}) SELECT {chosen} FROM {source} AS r WHERE {where}"  # noqa: S608  names of our own tables


_NOT_HALTED: Final = (
    f"NOT EXISTS (SELECT 1 FROM {venue_account_state.fullname} AS a "  # noqa: S608  as above
    f"WHERE a.venue = r.venue AND a.account = r.account AND a.state = '{AccountMode.HALTED}')"
)
_TOLD: Final = "entity_id = ANY (ARRAY(SELECT id FROM written))"
_PUT_OUT: Final = "aggregateid = ANY (ARRAY(SELECT id::text FROM written))"
INSERT_SENT: Final = (
    f"WITH written AS ({_selected(venue_order.fullname, _ORDER_COLUMNS, 1, _NOT_HALTED)} "  # noqa: S608  as above
    "ON CONFLICT DO NOTHING RETURNING id), "
    f"told AS ({_selected('kernel.history', _HISTORY_COLUMNS, 2, _TOLD)}), "
    f"put_out AS ({_selected('kernel.outbox', _OUTBOX_COLUMNS, 3, _PUT_OUT)}) "
    "SELECT array_agg(id) FROM written"
)
"""Insert the orders that nothing speaks against; return their ids."""

_SENT_COLUMNS: Final = (
    *("state", "state_reason", "signed_at", "updated_at", "version", "fence"),
    *("lease_holder", "lease_until"),
)
_UNTOUCHED: Final = (
    f"o.id = r.id AND o.state = '{OrderState.INTENT}'"
    " AND o.version = r.version - 1 AND o.fence = r.fence - 1"
)
SEND_INTENDED: Final = (
    "WITH wanted AS (SELECT * FROM "  # noqa: S608  as above
    f"json_populate_recordset(NULL::{venue_order.fullname}, CAST(CAST($1 AS text) AS json))), "
    # Locked in one order everywhere, so that two groups never wait for each other.
    f"locked AS (SELECT o.id FROM {venue_order.fullname} AS o, wanted AS r "
    f"WHERE {_UNTOUCHED} AND {_NOT_HALTED.replace('= r.', '= o.')} ORDER BY o.id FOR UPDATE OF o), "
    f"written AS (UPDATE {venue_order.fullname} AS o SET "
    f"{', '.join(f'{name} = r.{name}' for name in _SENT_COLUMNS)} FROM wanted AS r "
    f"WHERE {_UNTOUCHED} AND o.id IN (SELECT id FROM locked) RETURNING o.id), "
    f"told AS ({_selected('kernel.history', _HISTORY_COLUMNS, 2, _TOLD)}), "
    f"put_out AS ({_selected('kernel.outbox', _OUTBOX_COLUMNS, 3, _PUT_OUT)}) "
    "SELECT array_agg(id) FROM written"
)
"""Take intents that nobody has touched, of accounts that are not halted, to sent; return their ids."""

ADVANCE: Final = (
    "SELECT venues.advance_orders(CAST($1 AS text)::json, CAST($2 AS text)::json,"
    " CAST($3 AS text)::json)"
)
"""Advance the orders that are still as they were when they were sent; return their ids."""
