"""What differs between our record of an account and the venue's: orders and trades, item by item.

Pure functions. They say what differs and never which side is right; orders that are being sent and
trades that are younger than the venue needs to list them are the caller's to leave out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum, unique
from typing import Final

from matching.model import Side
from venues.model import (
    NEVER_PLACED_STATES,
    OrderReport,
    OrderState,
    VenueFill,
    VenueOrder,
    VenueStatus,
)


@unique
class DifferenceKind(StrEnum):
    """What kind of thing differs."""

    ORDER_UNKNOWN_AT_VENUE = "order_unknown_at_venue"
    """We have an order as placed, and the venue does not list it."""
    ORDER_UNKNOWN_TO_US = "order_unknown_to_us"
    """The venue lists an order that nobody here made: open, or of which something has traded.

    An order that the venue made a second time under one of our client ids is such a one.
    """
    ORDER_TERMS = "order_terms"
    """Another side, quantity or price."""
    ORDER_STATE = "order_state"
    """Another state, or another quantity executed."""
    ORDER_UNRESOLVED = "order_unresolved"
    """Whether the order exists is not known, and a person was called."""
    FILL_MISSING = "fill_missing"
    """The venue lists a trade that is not on record."""
    FILL_SURPLUS = "fill_surplus"
    """A trade is on record that the venue does not list."""
    FILL_CONTRADICTING = "fill_contradicting"
    """A trade is on record otherwise than the venue lists it."""
    FILLS_SHORT = "fills_short"
    """The venue says that an order executed more than its trades on record add up to."""


ABSENT: Final = "nothing"
SPELT: Final = frozenset({"price", "executed_at"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that differs, as each side has it.

    Attributes:
        subject: ``order:<symbol>:<client order id>`` or ``trade:<symbol>:<trade id>``.
    """

    kind: DifferenceKind
    subject: str
    ours: str
    theirs: str


_STATES: Final[Mapping[VenueStatus, frozenset[OrderState]]] = {
    VenueStatus.OPEN: frozenset({OrderState.ACKED, OrderState.PARTIALLY_FILLED}),
    VenueStatus.FILLED: frozenset({OrderState.FILLED}),
    VenueStatus.CANCELLED: frozenset({OrderState.CANCELLED}),
    VenueStatus.EXPIRED: frozenset({OrderState.EXPIRED}),
    VenueStatus.REJECTED: NEVER_PLACED_STATES | {OrderState.EXPIRED},
}
UNSENT: Final = frozenset({OrderState.INTENT, OrderState.SUBMITTING, OrderState.UNKNOWN})
"""Somebody is still finding out what becomes of these."""


def compare_orders(
    symbol: str,
    ours: Iterable[VenueOrder],
    theirs: Iterable[OrderReport],
    *,
    made_before: datetime,
) -> list[Difference]:
    """Return what differs between our orders of a symbol and those that the venue lists.

    Args:
        symbol: the venue's.
        ours: every order that the venue should list; those in `UNSENT` are only looked up.
        theirs: what the venue listed before ours were read; the same order may come twice.
        made_before: orders made later than this need not be listed yet.
    """
    known = list(ours)
    by_client = {order.client_order_id: order for order in known}
    by_venue = {order.venue_order_id: order for order in known if order.venue_order_id}
    found: list[Difference] = []
    seen: set[str] = set()
    for report in sorted(theirs, key=lambda item: (item.venue_order_id, item.executed_units)):
        order = by_venue.get(report.venue_order_id) or by_client.get(report.client_order_id)
        second = order is not None and is_second(order, report)
        if order is None or second:
            if report.status is not VenueStatus.OPEN and not report.executed_units:
                continue  # over, and nothing came of it
            name = report.venue_order_id if second else report.client_order_id
            name = name or report.venue_order_id
            found.append(
                _of(symbol, name, DifferenceKind.ORDER_UNKNOWN_TO_US, ABSENT, _told(report))
            )
            continue
        seen.add(order.client_order_id)
        if order.state not in UNSENT:
            found += _order_differs(symbol, order, report)
    for order in known:
        if order.state is OrderState.ESCALATED:
            found.append(_order(symbol, order, DifferenceKind.ORDER_UNRESOLVED, ABSENT))
        elif (
            order.client_order_id not in seen
            and order.created_at < made_before
            and _must_be_listed(order)
        ):
            found.append(_order(symbol, order, DifferenceKind.ORDER_UNKNOWN_AT_VENUE, ABSENT))
    return _distinct(found)


def is_second(order: VenueOrder, report: OrderReport) -> bool:
    """Tell whether the venue speaks of another order than the one that we know by this client id."""
    theirs = report.venue_order_id
    return bool(order.venue_order_id and theirs and order.venue_order_id != theirs)


def compare_fills(ours: Iterable[VenueFill], theirs: Iterable[VenueFill]) -> list[Difference]:
    """Return what differs between the trades on record and those that the venue lists."""
    mine = {(item.symbol, item.trade_id): item for item in ours}
    listed = {(item.symbol, item.trade_id): item for item in theirs}
    found = [
        _trade(key, DifferenceKind.FILL_MISSING, ABSENT, _dealt(listed[key]))
        for key in sorted(listed.keys() - mine.keys())
    ]
    found += [
        _trade(key, DifferenceKind.FILL_SURPLUS, _dealt(mine[key]), ABSENT)
        for key in sorted(mine.keys() - listed.keys())
    ]
    for key in sorted(mine.keys() & listed.keys()):
        names = contradictions(mine[key], listed[key])
        if names:
            ours_say, theirs_say = _fields(mine[key], names), _fields(listed[key], names)
            found.append(_trade(key, DifferenceKind.FILL_CONTRADICTING, ours_say, theirs_say))
    return found


def unreadable(symbol: str, trade_id: str, reason: str) -> Difference:
    """Return that the venue lists a trade that cannot be read, and so is not on record."""
    told = f"cannot be read: {reason}"
    return _trade((symbol, trade_id), DifferenceKind.FILL_MISSING, ABSENT, told)


def short_of_fills(order: VenueOrder, filled_units: int) -> Difference:
    """Return that the trades of *order* do not add up to what the venue says it executed."""
    return _of(
        order.symbol,
        order.client_order_id,
        DifferenceKind.FILLS_SHORT,
        f"{filled_units} filled",
        f"{order.executed_units} executed",
    )


def contradictions(one: VenueFill, other: VenueFill) -> tuple[str, ...]:
    """Return the names of the fields in which two stories about a trade differ.

    A stream may spell prices and times otherwise than a list does: what was paid and got counts.
    """
    return tuple(
        field.name
        for field in fields(VenueFill)
        if field.name not in SPELT and getattr(one, field.name) != getattr(other, field.name)
    )


def standing_in_both(
    first: Collection[Difference], second: Collection[Difference]
) -> list[Difference]:
    """Return the differences that two looks show alike: what moves between them is trading."""
    again = set(second)
    return [item for item in first if item in again]


def _must_be_listed(order: VenueOrder) -> bool:
    return order.state not in UNSENT and order.state not in NEVER_PLACED_STATES


def _order_differs(symbol: str, order: VenueOrder, report: OrderReport) -> list[Difference]:
    found = []
    terms = (
        (report.side, order.side),
        (report.base_units, order.base_units),
        (report.price and _plain(report.price), order.price and _plain(order.price)),
    )
    if any(theirs and ours and theirs != ours for theirs, ours in terms):
        found.append(
            _of(
                symbol,
                order.client_order_id,
                DifferenceKind.ORDER_TERMS,
                _terms(order.side, order.base_units, order.price),
                _terms(report.side, report.base_units, report.price),
            )
        )
    agree = order.state in _STATES[report.status] or order.state is OrderState.ESCALATED
    if not agree or order.executed_units != report.executed_units:
        found.append(_order(symbol, order, DifferenceKind.ORDER_STATE, _told(report)))
    return found


def _plain(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _terms(side: Side | None, units: int | None, price: str | None) -> str:
    return (
        f"{side.value if side else 'any side'} {units} at {_plain(price) if price else 'any price'}"
    )


def _told(report: OrderReport) -> str:
    return f"{report.status}, {report.executed_units} executed"


def _order(symbol: str, order: VenueOrder, kind: DifferenceKind, theirs: str) -> Difference:
    ours = f"{order.state}, {order.executed_units} executed"
    return _of(symbol, order.client_order_id, kind, ours, theirs)


def _of(symbol: str, name: str, kind: DifferenceKind, ours: str, theirs: str) -> Difference:
    return Difference(kind=kind, subject=f"order:{symbol}:{name}", ours=ours, theirs=theirs)


def _trade(key: tuple[str, str], kind: DifferenceKind, ours: str, theirs: str) -> Difference:
    return Difference(kind=kind, subject=f"trade:{key[0]}:{key[1]}", ours=ours, theirs=theirs)


def _dealt(fill: VenueFill) -> str:
    return (
        f"{fill.side.value} {fill.base_units} {fill.base} for {fill.quote_units} {fill.quote}, "
        f"fee {fill.fee_units} {fill.fee_asset}"
    )


def _fields(fill: VenueFill, names: Iterable[str]) -> str:
    return ", ".join(f"{name} {getattr(fill, name)}" for name in names)


def _distinct(found: Iterable[Difference]) -> list[Difference]:
    return list(dict.fromkeys(found))
