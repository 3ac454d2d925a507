"""Decisions about an order's life: what a venue's report means, when silence counts, who may try again.

Pure functions: what is on record and what was said go in, what to do comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import Final

from venues.capabilities import Capabilities, Expiry
from venues.model import (
    ATTEMPTS_MAX,
    FINAL_STATES,
    NEVER_PLACED_STATES,
    UNSETTLED_STATES,
    OrderReport,
    OrderState,
    RefusalKind,
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
            steps and for the time between accepting an order and listing it. None: the venue's own
            (`Capabilities.settling_margin`).
        not_founds: times that both the single query and the lists must miss it, after that time.
        pause: between two looks.
        looks_max: looks in one call of `orders.resolve`, which can be called again.
        patience: after it neither another look of `orders.resolve` nor another order of
            `orders.resume` is begun: a venue that only times out would else hold a pass for minutes.
        escalate_after: how long it is looked for, without a long pause, before a person is called.
        escalated_pause: between two looks for an order that a person has been called for.
    """

    margin: timedelta | None = None
    not_founds: int = 3
    pause: timedelta = timedelta(milliseconds=500)
    looks_max: int = 40
    patience: timedelta = timedelta(seconds=10)
    escalate_after: timedelta = timedelta(minutes=5)
    escalated_pause: timedelta = timedelta(minutes=1)


@unique
class Silence(Enum):
    """What it means that the venue did not find an order."""

    MAY_STILL_COME = "the venue can still accept the order"
    COUNTS = "the order can no longer be accepted"


def weigh_silence(
    order: VenueOrder, venue_now: datetime, policy: ResolvePolicy, capabilities: Capabilities
) -> Silence:
    """Return whether "not found", said at *venue_now*, is evidence.

    The venue refuses a request older than its window by its own clock (Binance: ``timestamp`` +
    ``recvWindow``; Kraken: ``deadline``), so only its own clock can tell that the door is shut.
    Where requests never expire the door is never shut.
    """
    if order.signed_at is None:
        return Silence.COUNTS
    if capabilities.expiry is Expiry.NONE:
        return Silence.MAY_STILL_COME
    margin = capabilities.settling_margin if policy.margin is None else policy.margin
    shut_at = order.signed_at + order.recv_window + margin
    return Silence.COUNTS if venue_now > shut_at else Silence.MAY_STILL_COME


def listed_from(order: VenueOrder, made_at: datetime) -> datetime:
    """Return from when on a venue's list is read to find *order*, by the venue's clock.

    An order is sent after it was made. When it was sent is not always known as well: of one that was
    doubted after a restore it is only known until when it was.

    Args:
        order: as it is on record.
        made_at: what the venue's clock showed when it was made.
    """
    return made_at if order.signed_at is None else min(made_at, order.signed_at)


def sought_since(
    order: VenueOrder, watched_at: datetime | None, now: datetime, policy: ResolvePolicy
) -> datetime:
    """Return since when *order* has been looked for: a long pause of ours does not count.

    Otherwise a desk that was down for an hour would call a person about each order at its first
    unanswered question, although the venue has the answer. *watched_at* is when any order of the
    account was looked at last: one that waits its turn behind others is being looked for.
    """
    if order.sought_since is None or watched_at is None:
        return now
    return now if now - watched_at >= policy.escalate_after // 2 else order.sought_since


def is_due(order: VenueOrder, now: datetime, policy: ResolvePolicy) -> bool:
    """Tell whether *order* is to be looked at now: an escalated one is asked for more slowly."""
    if order.state is not OrderState.ESCALATED or order.looked_at is None:
        return True
    return now - order.looked_at >= policy.escalated_pause


RETRYABLE: Final = frozenset({RefusalKind.BACK_OFF, RefusalKind.CLOCK})
"""Refusals that say nothing against the order itself."""


def why_not_again(earlier: Sequence[VenueOrder], attempt: int) -> str | None:
    """Return why attempt number *attempt* may not be made after the *earlier* ones; None: it may.

    Every earlier attempt must be proven not to exist at the venue, and the last one must not have
    been refused for what it is.
    """
    if [order.attempt for order in earlier] != list(range(1, attempt)):
        return f"attempt {attempt} does not follow the {len(earlier)} on record"
    if attempt > ATTEMPTS_MAX:
        return f"an intent is tried at most {ATTEMPTS_MAX} times"
    for order in earlier:
        if order.state not in NEVER_PLACED_STATES or order.revived_at or order.executed_units:
            return f"attempt {order.attempt} is {order.state}: it is not proven not to exist"
        if order.state is OrderState.REFUSED and order.refusal not in RETRYABLE:
            return f"attempt {order.attempt} was refused for good"
    return None
