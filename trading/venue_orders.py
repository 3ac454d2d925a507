"""Orders of an account, ours against the venue's, looked at until what differs stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from trading.venue_reconciliation_model import ReconcilePolicy, VenueBreak
from trading.venue_tally import Tally
from venues.account_reading import (
    filled_of,
    oldest_open_order,
    opened_at,
    orders_named,
    orders_since,
)
from venues.comparison import Difference, compare_orders, short_of_fills, standing_in_both
from venues.errors import VenueUnavailable
from venues.fills import collect
from venues.model import OrderReport, VenueOrder
from venues.orders import refresh
from venues.ports import VenueGateway

HOLDER: Final = "reconciliation"
LOOKS: Final = 3
ORDERS_MAX: Final = 50_000
"""Orders of one symbol that one run compares."""


@dataclass(slots=True)
class OrdersLook:
    """What comparing the orders showed.

    Attributes:
        is_complete: whether every order was compared that there is.
    """

    differences: list[Difference] = field(default_factory=list)
    is_complete: bool = True


async def first_moment(
    conn: AsyncConnection,
    venue: str,
    account: str,
    *,
    now: datetime,
    broken: Sequence[VenueBreak],
    policy: ReconcilePolicy,
) -> datetime:
    """Return since when orders are compared: not before the account was opened in the books.

    As far back as an order may still trade, or was made that breaks.
    """
    candidates = [now, *(item.opened_at for item in broken)]
    open_since = await oldest_open_order(conn, venue, account)
    if open_since is not None:
        candidates.append(open_since)
    names: dict[str, set[str]] = {}
    for item in broken:
        _, symbol, name = item.subject.split(":", 2)
        names.setdefault(symbol, set()).add(name)
    for symbol, wanted in sorted(names.items()):
        known = await orders_named(conn, venue, account, symbol, wanted)
        candidates += [order.created_at for order in known[:1]]
    since = min(candidates) - policy.lookback
    began = await opened_at(conn, venue, account)
    return since if began is None else max(since, began)


async def look_at_orders(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbols: Sequence[str],
    *,
    since: datetime,
    clock: Clock,
    policy: ReconcilePolicy,
    tally: Tally,
) -> OrdersLook:
    """Return what differs in two looks alike; what differs in the first is first looked after.

    Raises:
        VenueUnavailable: the venue does not answer.
    """
    found: list[Difference] = []
    is_complete = True
    for look in range(LOOKS):
        again, orders, is_complete = await _look(
            engine, gateway, symbols, since, clock, policy, tally if look == 0 else Tally()
        )
        if not again:
            return OrdersLook([], is_complete)
        if look == 0:
            await _look_after(engine, gateway, orders, again, clock, policy)
            found = again
        elif look == 1:
            found = again
        else:
            found = standing_in_both(found, again)
            break
        await asyncio.sleep(policy.settling / timedelta(seconds=1))
        for symbol in symbols:
            await collect(engine, gateway, symbol, clock=clock)
    return OrdersLook(found, is_complete)


async def _look(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbols: Sequence[str],
    since: datetime,
    clock: Clock,
    policy: ReconcilePolicy,
    tally: Tally,
) -> tuple[list[Difference], list[VenueOrder], bool]:
    found: list[Difference] = []
    known: list[VenueOrder] = []
    is_complete = True
    for symbol in symbols:
        made_before = clock.now() - policy.settling
        # Theirs first: an order is on record before it is sent, so ours then holds every one.
        theirs = await gateway.list_orders(symbol, gateway.venue_time(since))
        ours = await _ours(engine, gateway, symbol, since)
        is_complete = is_complete and len(ours) < ORDERS_MAX
        tally.add_orders(ours, theirs)
        ours += await _older(engine, gateway, symbol, ours, theirs)
        found += compare_orders(symbol, ours, theirs, made_before=made_before)
        found += await _short(engine, gateway, symbol, ours)
        known += ours
    return found, known, is_complete


async def _ours(
    engine: AsyncEngine, gateway: VenueGateway, symbol: str, since: datetime
) -> list[VenueOrder]:
    found: list[VenueOrder] = []
    while len(found) < ORDERS_MAX:
        async with engine.connect() as conn:
            page = await orders_since(
                conn,
                gateway.venue,
                gateway.account,
                symbol,
                since,
                after=found[-1] if found else None,
            )
        if not page:
            break
        found += page
    return found


async def _older(
    engine: AsyncEngine,
    gateway: VenueGateway,
    symbol: str,
    ours: Sequence[VenueOrder],
    theirs: Sequence[OrderReport],
) -> list[VenueOrder]:
    """Return orders of ours that the venue lists though they are older: some list by an order's end."""
    known = {name for order in ours for name in (order.client_order_id, order.venue_order_id)}
    named = {name for report in theirs for name in (report.client_order_id, report.venue_order_id)}
    missing = named - known - {""}
    if not missing:
        return []
    async with engine.connect() as conn:
        found = await orders_named(conn, gateway.venue, gateway.account, symbol, missing)
    have = {order.id for order in ours}
    return [order for order in found if order.id not in have]


async def _short(
    engine: AsyncEngine, gateway: VenueGateway, symbol: str, ours: Sequence[VenueOrder]
) -> list[Difference]:
    executed = [order for order in ours if order.executed_units and order.venue_order_id]
    names = [str(order.venue_order_id) for order in executed]
    async with engine.connect() as conn:
        filled = await filled_of(conn, gateway.venue, gateway.account, symbol, names)
    return [
        short_of_fills(order, filled.get(str(order.venue_order_id), 0))
        for order in executed
        if filled.get(str(order.venue_order_id), 0) < order.executed_units
    ]


async def _look_after(
    engine: AsyncEngine,
    gateway: VenueGateway,
    orders: Sequence[VenueOrder],
    differing: Collection[Difference],
    clock: Clock,
    policy: ReconcilePolicy,
) -> None:
    """Ask for the state of orders that differ: that is evidence, and no adjustment."""
    subjects = {item.subject for item in differing}
    named = [o for o in orders if f"order:{o.symbol}:{o.client_order_id}" in subjects]
    for order in named[: policy.refreshed_max]:
        try:
            await refresh(engine, gateway, order.id, holder=HOLDER, clock=clock)
        except VenueUnavailable:
            return
