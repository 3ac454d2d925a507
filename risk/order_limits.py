"""Whether orders may be written: the desk's switch, its limits, the worst case. Pure.

Each limit is judged as if everything that is under way, and everything proposed, turned out as it hurts
most: a buy makes a position at most so much longer, a sell at most so much shorter, and neither is
taken to make up for the other. So the order in which they fill does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from kernel.money import Rounding
from matching.model import Side
from risk.errors import NotValued
from risk.model import (
    Breach,
    Control,
    ControlState,
    DeskBook,
    DeskLimits,
    ProposedOrder,
    Violation,
    WorstCase,
)
from risk.worth import Worth
from venues.model import OrderState
from venues.worst_case import OrderExposure, uncertainty

FLAT = WorstCase(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskUsage:
    """How much of its limits a desk uses, all read under its lock.

    Attributes:
        positions: worst case by asset, with everything that is under way.
        under_way: by venue and asset, what may still trade, in smallest units.
        unsettled: orders whose outcome nobody knows yet.
        orders_last_minute: orders written within the last sixty seconds.
        tripped: accounts that no order may go to: (venue, account).
        worth: prices in the limits' currency.
    """

    control: Control
    positions: Mapping[str, WorstCase]
    under_way: Mapping[str, Mapping[str, int]]
    unsettled: int
    orders_last_minute: int
    tripped: frozenset[tuple[str, str]] = frozenset()
    worth: Worth = field(default_factory=lambda: Worth("", MappingProxyType({})))


def worst_cases(book: DeskBook) -> dict[str, WorstCase]:
    """Return the bounds of every position: orders under way both filled and not filled."""
    found: dict[str, WorstCase] = {}
    for asset in {*book.positions, *book.under_way}:
        held, bounds = book.positions.get(asset, 0), uncertainty(book.under_way.get(asset, ()))
        found[asset] = WorstCase(held + bounds.low, held + bounds.high)
    return found


def under_way(book: DeskBook) -> dict[str, dict[str, int]]:
    """Return by venue and asset how much orders may still trade, both sides added."""
    found: dict[str, dict[str, int]] = {}
    for asset, exposures in book.under_way.items():
        for item in exposures:
            at_venue = found.setdefault(item.order.venue, {})
            at_venue[asset] = at_venue.get(asset, 0) + item.possible
    return found


def count_unsettled(book: DeskBook) -> int:
    """Return how many orders have no known outcome: unknown, on their way, or only written."""
    return sum(_is_unsettled(item) for items in book.under_way.values() for item in items)


def judge_orders(
    limits: DeskLimits | None, usage: DeskUsage, proposed: Sequence[ProposedOrder]
) -> tuple[Breach, ...]:
    """Return everything that is wrong with writing *proposed* now, all together.

    Where the desk's switch forbids them that is the whole answer; a desk without limits has only its
    switch and the breakers.
    """
    if not proposed:
        return ()
    switched_off = tuple(_control(usage, proposed))
    if switched_off:
        return switched_off
    found = [
        Breach(Violation.VENUE_TRIPPED, f"{venue}/{account}")
        for venue, account in sorted({(o.venue, o.account) for o in proposed} & usage.tripped)
    ]
    if limits is not None:
        found += _counts(limits, usage, proposed)
        found += _assets(limits, usage, proposed)
        found += _money(limits, usage, proposed)
    return tuple(sorted(dict.fromkeys(found), key=_precedence))


def after_orders(
    positions: Mapping[str, WorstCase], proposed: Sequence[ProposedOrder]
) -> dict[str, WorstCase]:
    """Return the worst cases once *proposed* are written."""
    found = dict(positions)
    for order in proposed:
        before = found.get(order.asset, FLAT)
        if order.side is Side.BUY:
            found[order.asset] = WorstCase(before.low, before.high + order.base_units)
        else:
            found[order.asset] = WorstCase(before.low - order.base_units, before.high)
    return found


def order_worth(order: ProposedOrder, worth: Worth) -> int:
    """Return what an order is worth: at the market or at its limit, whichever is more.

    Raises:
        NotValued: the base or the quote asset has no price.
    """
    at_limit = order.limit_price.to_quote(order.base_units, Rounding.UP)
    return max(worth.of(order.asset, order.base_units), worth.of(order.quote, at_limit))


def _control(usage: DeskUsage, proposed: Sequence[ProposedOrder]) -> Iterator[Breach]:
    match usage.control.state:
        case ControlState.ACTIVE:
            return
        case ControlState.HALTED:
            yield Breach(Violation.DESK_HALTED, usage.control.desk)
        case ControlState.REDUCING:
            then = after_orders(usage.positions, proposed)
            for asset, side in dict.fromkeys((order.asset, order.side) for order in proposed):
                # Only what cannot pass zero, however much of everything else fills too.
                towards_zero = then[asset].low >= 0 if side is Side.SELL else then[asset].high <= 0
                if not towards_zero:
                    yield Breach(Violation.NOT_REDUCING, asset)


def _counts(
    limits: DeskLimits, usage: DeskUsage, proposed: Sequence[ProposedOrder]
) -> Iterator[Breach]:
    unsettled = usage.unsettled + len(proposed)
    allowed = limits.unknown_orders_max
    if allowed is not None and unsettled > allowed:
        yield Breach(Violation.TOO_MANY_UNKNOWN, limits.desk, unsettled, allowed)
    rate, allowed = usage.orders_last_minute + len(proposed), limits.orders_per_minute
    if allowed is not None and rate > allowed:
        yield Breach(Violation.ORDER_RATE, limits.desk, rate, allowed)
    oldest = limits.book_age_max_ms
    for order in proposed if oldest is not None else ():
        age = order.book_age_ms
        if age is None or age > (oldest or 0):
            yield Breach(Violation.BOOK_TOO_OLD, order.venue, age or 0, oldest or 0)


def _assets(
    limits: DeskLimits, usage: DeskUsage, proposed: Sequence[ProposedOrder]
) -> Iterator[Breach]:
    then = after_orders(usage.positions, proposed)
    for asset, side in dict.fromkeys((order.asset, order.side) for order in proposed):
        allowed = limits.asset_units.get(asset)
        if allowed is None:
            continue
        # On its own side only: a sale of what one has too much of is never refused.
        reaches = then[asset].high if side is Side.BUY else -then[asset].low
        if reaches > allowed:
            yield Breach(Violation.ASSET_POSITION, asset, reaches, allowed)


def _money(
    limits: DeskLimits, usage: DeskUsage, proposed: Sequence[ProposedOrder]
) -> Iterator[Breach]:
    for judge in (_order_notional, _total_notional, _venues):
        try:
            yield from judge(limits, usage, proposed)
        except NotValued as error:
            yield Breach(Violation.NO_PRICE, error.asset)


def _order_notional(
    limits: DeskLimits, usage: DeskUsage, proposed: Sequence[ProposedOrder]
) -> Iterator[Breach]:
    allowed = limits.order_notional_units
    for order in proposed if allowed is not None else ():
        worth = order_worth(order, usage.worth)
        if worth > (allowed or 0):
            yield Breach(Violation.ORDER_NOTIONAL, order.asset, worth, allowed or 0)


def _total_notional(
    limits: DeskLimits, usage: DeskUsage, proposed: Sequence[ProposedOrder]
) -> Iterator[Breach]:
    allowed = limits.notional_units
    if allowed is None:
        return
    then = after_orders(usage.positions, proposed)
    grown = [a for a, worst in then.items() if worst.size > usage.positions.get(a, FLAT).size]
    if not grown:
        return
    sizes = [(a, worst.size) for a, worst in sorted(then.items()) if a != limits.currency]
    total = usage.worth.total(sizes)
    if total > allowed:
        yield Breach(Violation.TOTAL_NOTIONAL, limits.desk, total, allowed)


def _venues(
    limits: DeskLimits, usage: DeskUsage, proposed: Sequence[ProposedOrder]
) -> Iterator[Breach]:
    for venue in sorted({order.venue for order in proposed} & set(limits.venue_units)):
        allowed = limits.venue_units[venue]
        total = usage.worth.total(sorted(usage.under_way.get(venue, {}).items()))
        total += sum(order_worth(o, usage.worth) for o in proposed if o.venue == venue)
        if total > allowed:
            yield Breach(Violation.VENUE_UNDER_WAY, venue, total, allowed)


def _is_unsettled(item: OrderExposure) -> bool:
    return item.is_unsettled or item.order.state is OrderState.INTENT


def _precedence(breach: Breach) -> int:
    return tuple(Violation).index(breach.violation)
