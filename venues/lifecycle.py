"""Decisions about an order's life: which states a venue's report leads through, when silence counts.

Pure functions: what is on record and what was said go in, what to do comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import Final

from venues.model import (
    FINAL_STATES,
    UNSETTLED_STATES,
    OrderReport,
    OrderState,
    VenueOrder,
    VenueStatus,
)

_ENDS: Final = {
    VenueStatus.FILLED: OrderState.FILLED,
    VenueStatus.CANCELLED: OrderState.CANCELLED,
    VenueStatus.EXPIRED: OrderState.EXPIRED,
    VenueStatus.REJECTED: OrderState.NOT_PLACED,
}


def states_after(order: VenueOrder, report: OrderReport) -> tuple[OrderState, ...]:
    """Return the states that *report* takes *order* through, in order; empty: nothing new.

    Reports may come late and twice: one that executed less than is known, or that speaks of an
    ended order, changes no state. A rejection is only believed while the order is unsettled.
    """
    current = order.state
    if current in FINAL_STATES or report.executed_units < order.executed_units:
        return ()
    if report.status is VenueStatus.REJECTED:
        return _after_rejection(current)
    steps: list[OrderState] = []
    if current in UNSETTLED_STATES:
        steps.append(OrderState.ACKED)
        current = OrderState.ACKED
    end = _ENDS.get(report.status)
    partly = report.executed_units > 0 and end is not OrderState.FILLED
    if partly and current is OrderState.ACKED:
        steps.append(OrderState.PARTIALLY_FILLED)
    if end is not None:
        steps.append(end)
    return tuple(steps)


def _after_rejection(current: OrderState) -> tuple[OrderState, ...]:
    if current is OrderState.SUBMITTING:
        return (OrderState.UNKNOWN, OrderState.NOT_PLACED)
    if current in UNSETTLED_STATES:
        return (OrderState.NOT_PLACED,)
    return (OrderState.EXPIRED,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvePolicy:
    """How an unknown order is cleared up.

    Attributes:
        margin: added to the time until which the venue may accept the order: for its own clock's
            steps and for the time between accepting an order and listing it.
        not_founds: times that both the single query and the lists must miss it, after that time.
        pause: between two looks.
        looks_max: looks in one call of `orders.resolve`, which can be called again.
        patience: after it neither another look of `orders.resolve` nor another order of
            `orders.resume` is begun: a venue that only times out would else hold a pass for minutes.
        escalate_after: age at which a person is called.
    """

    margin: timedelta = timedelta(seconds=2)
    not_founds: int = 3
    pause: timedelta = timedelta(milliseconds=500)
    looks_max: int = 40
    patience: timedelta = timedelta(seconds=10)
    escalate_after: timedelta = timedelta(minutes=5)


@unique
class Silence(Enum):
    """What it means that the venue did not find an order."""

    MAY_STILL_COME = "the venue can still accept the order"
    COUNTS = "the order can no longer be accepted"


def weigh_silence(order: VenueOrder, venue_now: datetime, policy: ResolvePolicy) -> Silence:
    """Return whether "not found", said at *venue_now*, is evidence.

    The venue refuses a request older than its window by its own clock (Binance: ``timestamp`` +
    ``recvWindow``), so only its own clock can tell that the door is shut.
    """
    if order.signed_at is None:
        return Silence.COUNTS
    shut_at = order.signed_at + order.recv_window + policy.margin
    return Silence.COUNTS if venue_now > shut_at else Silence.MAY_STILL_COME
