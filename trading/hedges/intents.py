"""Writing what a plan orders: the desk's limits first, then the price it was made on, then the intents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.clock import to_unix_ms
from marketdata.instruments import record_instrument
from marketdata.prices import record_price
from matching.model import TimeInForce
from risk.model import ProposedOrder
from risk.order_checks import check_orders
from trading.hedges import store
from trading.hedges.decision import HedgePlan, Situation
from trading.hedges.evidence import price_of_route
from trading.hedges.model import HedgeLine, HedgePolicy, HedgeVerdict
from trading.hedges.shrinking import shrunk
from trading.hedges.situation import desk_book_reader
from trading.routing import RouteLeg
from venues.model import OrderTicket, VenueOrder
from venues.orders import intend
from venues.ports import VenueGateway

TRIES_MAX: Final = 5
"""How often a plan is made smaller before the desk's limits are taken to let nothing pass."""


async def within_limits(
    conn: AsyncConnection,
    line: HedgeLine,
    seen: Situation,
    plan: HedgePlan,
    *,
    book: int,
    now: datetime,
) -> HedgePlan:
    """Return as much of *plan* as the desk's limits let pass; if that is nothing, why.

    Takes the lock of the desk: two lines of one desk cannot pass one limit together.
    """
    places = [market.place for market in seen.markets]
    read_book = desk_book_reader(book, line.desk)
    tried, why = plan, ""
    for number in range(TRIES_MAX):
        if not tried.legs:
            break
        proposed = [_proposed(line, seen, tried, leg, now) for leg in tried.legs]
        breaches = await check_orders(conn, line.desk, proposed, read_book, now=now)
        if not breaches:
            return tried
        why = why or "; ".join(map(str, breaches))
        tried = shrunk(tried, places, breaches, is_again=number > 0)
    return plan.instead(HedgeVerdict.LIMITED, why) if plan.legs else plan


def _proposed(
    line: HedgeLine, seen: Situation, plan: HedgePlan, leg: RouteLeg, now: datetime
) -> ProposedOrder:
    assert plan.side is not None, "a plan with legs has a side"
    place = seen.markets[leg.place].place
    assert place.view is not None, "an order is planned on a book"
    return ProposedOrder(
        desk=line.desk,
        venue=place.venue,
        account=place.account,
        asset=line.asset,
        quote=place.instrument.quote.code,
        side=plan.side,
        base_units=leg.units,
        limit_price=place.instrument.price(leg.limit_ticks),
        book_age_ms=max(0, (now - place.view.received_at) // timedelta(milliseconds=1)),
    )


async def intend_legs(
    conn: AsyncConnection,
    line: HedgeLine,
    seen: Situation,
    plan: HedgePlan,
    policy: HedgePolicy,
    *,
    gateways: Mapping[tuple[str, str], VenueGateway],
    actor: str,
    now: datetime,
) -> list[VenueOrder]:
    """Write what the orders were planned on, and an intent for each.

    Raises:
        AccountHalted: a person halted an account after it was looked at.
    """
    assert plan.side is not None, "a plan with legs has a side"
    assert plan.route is not None, "and a route"
    assert plan.route.mid is not None, "which was measured against a mid"
    places = [market.place for market in seen.markets]
    mid = price_of_route(places, plan.route.mid, now=now, age_max=policy.book_age_max)
    price = await record_price(conn, mid, now=now)
    await store.update_line(conn, line, now=now, sequence=line.sequence + len(plan.legs))
    orders = []
    for sequence, leg in enumerate(plan.legs, start=line.sequence + 1):
        place = places[leg.place]
        known = await record_instrument(conn, place.instrument, now=now)
        ticket = OrderTicket(
            venue=place.venue,
            account=place.account,
            symbol=known.symbol,
            instrument_version=known.version,
            side=plan.side,
            base_units=leg.units,
            quantity=known.quantity_text(leg.lots),
            price=known.price_text(leg.limit_ticks),
            time_in_force=TimeInForce.IOC,
            reference=line.reference,
            # With the time: a book restored from a backup counts again, and must not use an id again.
            intent=f"{line.reference}:{sequence}:{to_unix_ms(now)}",
        )
        order = await intend(
            conn,
            ticket,
            capabilities=gateways[place.venue, place.account].capabilities,
            recv_window=policy.recv_window,
            actor=actor,
            reason=f"{plan.detail}; mid {price.id}",
            now=now,
        )
        orders.append(order)
    return orders
