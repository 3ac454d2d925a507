"""Before orders are written: would they, in the worst case, take the desk beyond a limit?

Locks: the row of the desk, then the rows of tripped accounts in the order of their names, until the
caller's transaction ends. The desk's book is read after that, so two lines of one desk cannot pass one
limit together: the second one sees the orders that the first one wrote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from risk import store
from risk.breaker import DEFAULT_BREAKER, Breaker, BreakerPolicy, may_pass
from risk.controls import control_of
from risk.model import Breach, DeskBook, DeskLimits, ProposedOrder
from risk.order_limits import DeskUsage, count_unsettled, judge_orders, under_way, worst_cases
from risk.ports import BookReader
from risk.valuation import load_worth
from risk.venue_health import lock_tripped, start_trials
from risk.worth import Worth


async def check_orders(
    conn: AsyncConnection,
    desk: str,
    orders: Sequence[ProposedOrder],
    read_book: BookReader,
    *,
    now: datetime,
    breakers: BreakerPolicy = DEFAULT_BREAKER,
) -> tuple[Breach, ...]:
    """Return what is wrong with writing *orders* now, all together; nothing: they pass.

    Call it in the transaction that writes the orders, after the line's row is locked and before the
    first row of an order is inserted. Orders that pass count against the rate, and as the trial of an
    account that tripped; so what passes is written, or the transaction rolled back.

    Args:
        read_book: reads what the whole desk has and has under way; called under the desk's lock.
    """
    if any(order.desk != desk for order in orders):
        raise BadInput(f"orders of several desks are checked as those of {desk}")
    if not orders:
        return ()
    control = await control_of(conn, desk, lock=True)
    limits = await store.find_desk_limits(conn, desk)
    book = await read_book(conn)
    positions = worst_cases(book)
    unwell = await lock_tripped(conn, {(order.venue, order.account) for order in orders})
    usage = DeskUsage(
        control=control,
        positions=positions,
        under_way=under_way(book),
        unsettled=count_unsettled(book),
        orders_last_minute=await store.count_passed(conn, desk, now=now),
        tripped=_closed_to(orders, unwell, breakers, now=now),
        worth=await _worth(conn, limits, book, orders, now=now),
    )
    breaches = judge_orders(limits, usage, orders)
    if not breaches:
        await start_trials(conn, unwell, now=now, policy=breakers)
        await store.add_passed(conn, desk, len(orders), now=now)
    return breaches


def _closed_to(
    orders: Sequence[ProposedOrder],
    unwell: Mapping[tuple[str, str], Breaker],
    policy: BreakerPolicy,
    *,
    now: datetime,
) -> frozenset[tuple[str, str]]:
    """Return the accounts that these orders may not go to: one order is a trial, two are none."""
    counted = Counter((order.venue, order.account) for order in orders)
    return frozenset(
        place
        for place, breaker in unwell.items()
        if counted[place] > 1 or not may_pass(breaker, policy, now=now)
    )


async def _worth(
    conn: AsyncConnection,
    limits: DeskLimits | None,
    book: DeskBook,
    orders: Sequence[ProposedOrder],
    *,
    now: datetime,
) -> Worth:
    """Return the prices that the limits in money need; none where there are no such limits."""
    in_money = limits is not None and (
        limits.notional_units is not None
        or limits.order_notional_units is not None
        or any(order.venue in limits.venue_units for order in orders)
    )
    if limits is None or not in_money:
        return Worth("" if limits is None else limits.currency, {})
    assets = {*book.positions, *book.under_way}
    assets |= {code for order in orders for code in (order.asset, order.quote)}
    return await load_worth(conn, limits.currency, assets, now=now)
