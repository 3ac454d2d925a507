"""One pass over a hedge line: clear up, collect, post, plan, place, and again collect and post.

Call it as often as you like, from as many processes as you like. Everything it needs to know is in
the database and at the venue; a pass that dies anywhere is continued by the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.freezes import find_freeze
from kernel.clock import Clock, to_unix_ms
from kernel.db import transact
from marketdata.instruments import record_instrument
from marketdata.mid import venue_mid
from marketdata.model import BookView, Instrument, PriceRecord
from marketdata.ports import Feed
from marketdata.prices import record_price
from matching.model import TimeInForce
from trading import store
from trading.fills import post_fills
from trading.hedging import HedgePlan, plan_hedge
from trading.model import (
    HedgeLine,
    HedgePolicy,
    HedgeReport,
    HedgeState,
    HedgeVerdict,
)
from trading.position import position
from venues.errors import VenueUnavailable
from venues.exposure import list_exposures
from venues.fills import collect
from venues.model import UNSETTLED_STATES, OrderState, OrderTicket, VenueOrder
from venues.orders import intend, resolve, resume, submit
from venues.ports import VenueGateway
from venues.worst_case import uncertainty

PASSES_MAX: Final = 20
POSTING_ROUNDS_MAX: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedger:
    """Who hedges: the connections and limits of one process.

    Attributes:
        holder: name of the process; its actor is ``system:<holder>``.
    """

    engine: AsyncEngine
    gateway: VenueGateway
    feed: Feed
    clock: Clock
    policy: HedgePolicy
    book: int
    holder: str = "hedger"

    @property
    def actor(self) -> str:
        """Return the actor of what it does."""
        return f"system:{self.holder}"


async def hedge_once(hedger: Hedger, desk: str, asset: str) -> HedgeReport:
    """Bring the position of *asset* one step towards its target and tell what was done.

    Raises:
        NoHedgeLine: nobody has said where the asset is hedged.
    """
    line = await transact(hedger.engine, lambda conn: store.get_line(conn, desk, asset))
    before = await _position(hedger, line)
    try:
        posted = await _catch_up(hedger, line)
        instrument = await hedger.gateway.instrument(line.symbol)
    except VenueUnavailable as error:
        return await _report(hedger, line, before, HedgeVerdict.VENUE_DOWN, str(error))
    view = hedger.feed.book(line.symbol)
    plan, order_id = await _plan(hedger, line, instrument, view)
    if order_id is None:
        return await _report(hedger, line, before, plan.verdict, plan.detail, posted=posted)
    order = await _place(hedger, order_id)
    if order.state is OrderState.REFUSED:
        reason = order.state_reason
        return await _report(hedger, line, before, HedgeVerdict.REFUSED, reason, order, posted)
    try:
        posted += await _collect_and_post(hedger, line)
    except VenueUnavailable as error:
        return await _report(
            hedger, line, before, HedgeVerdict.VENUE_DOWN, str(error), order, posted
        )
    return await _report(hedger, line, before, plan.verdict, plan.detail, order, posted)


async def hedge_until_done(
    hedger: Hedger, desk: str, asset: str, *, passes_max: int = PASSES_MAX
) -> list[HedgeReport]:
    """Repeat `hedge_once` until there is nothing to place any more, at most *passes_max* times."""
    reports: list[HedgeReport] = []
    while len(reports) < min(passes_max, PASSES_MAX):
        reports.append(await hedge_once(hedger, desk, asset))
        if reports[-1].verdict is not HedgeVerdict.ORDER:
            break
    return reports


async def _catch_up(hedger: Hedger, line: HedgeLine) -> int:
    """Clear up earlier orders, collect and post their fills; return how many were posted."""
    await resume(
        hedger.engine,
        hedger.gateway,
        holder=hedger.holder,
        clock=hedger.clock,
        policy=hedger.policy.resolve,
        symbol=line.symbol,
        intents_older_than=hedger.policy.intent_age_max,
    )
    return await _collect_and_post(hedger, line)


async def _collect_and_post(hedger: Hedger, line: HedgeLine) -> int:
    await collect(hedger.engine, hedger.gateway, line.symbol, clock=hedger.clock)
    posted = 0
    for _ in range(POSTING_ROUNDS_MAX):
        fills = await transact(
            hedger.engine,
            lambda conn: post_fills(
                conn, line.desk, line.asset, book=hedger.book, now=hedger.clock.now()
            ),
        )
        if not fills:
            break
        posted += len(fills)
    return posted


async def _plan(
    hedger: Hedger, line: HedgeLine, instrument: Instrument, view: BookView | None
) -> tuple[HedgePlan, UUID | None]:
    """Plan under the line's lock and write the intent in the same transaction.

    The next one to plan sees the intent as under way, whoever sends it and whether it is sent.
    """

    async def work(conn: AsyncConnection) -> tuple[HedgePlan, UUID | None]:
        locked = await store.lock_line(conn, line.desk, line.asset)
        plan = await _decide(conn, hedger, locked, instrument, view)
        if plan.side is None:
            return plan, None
        order = await _intend(conn, hedger, locked, instrument, view, plan)
        return plan, order.id

    return await transact(hedger.engine, work)


async def _decide(
    conn: AsyncConnection,
    hedger: Hedger,
    line: HedgeLine,
    instrument: Instrument,
    view: BookView | None,
) -> HedgePlan:
    exposures = await list_exposures(conn, line.venue, line.account, line.symbol)
    held = (await position(conn, hedger.book, line.desk)).get(line.asset, 0)
    plan = plan_hedge(
        position=held,
        under_way=uncertainty(exposures),
        target=line.target,
        instrument=instrument,
        view=view,
        policy=hedger.policy,
        now=hedger.clock.now(),
    )
    if plan.side is None:
        return plan
    unsettled = sum(item.is_unsettled for item in exposures)
    if line.state is HedgeState.HALTED:
        return _instead(plan, HedgeVerdict.HALTED, "the line is halted")
    frozen = await find_freeze(conn, asset=line.asset)
    if frozen is not None:
        return _instead(plan, HedgeVerdict.HALTED, f"{frozen.scope} is frozen")
    if unsettled >= hedger.policy.unsettled_max:
        return _instead(plan, HedgeVerdict.UNSETTLED, f"{unsettled} orders of unknown outcome")
    return plan


async def _intend(
    conn: AsyncConnection,
    hedger: Hedger,
    line: HedgeLine,
    instrument: Instrument,
    view: BookView | None,
    plan: HedgePlan,
) -> VenueOrder:
    assert plan.side is not None
    now = hedger.clock.now()
    known = await record_instrument(conn, instrument, now=now)
    mid = venue_mid(known, view, now=now, age_max=hedger.policy.book_age_max)
    assert isinstance(mid, PriceRecord), "a plan is made on a fresh book only"
    price = await record_price(conn, mid, now=now)
    sequence = line.sequence + 1
    await store.update_line(conn, line, now=now, sequence=sequence)
    ticket = OrderTicket(
        venue=line.venue,
        account=line.account,
        symbol=line.symbol,
        instrument_version=known.version,
        side=plan.side,
        base_units=plan.lots * known.lot,
        quantity=known.quantity_text(plan.lots),
        price=known.price_text(plan.limit_ticks),
        time_in_force=TimeInForce.IOC,
        reference=line.reference,
        # With the time: a book restored from a backup counts again, and must not use an id again.
        key=f"{line.reference}:{sequence}:{to_unix_ms(now)}",
    )
    return await intend(
        conn,
        ticket,
        recv_window=hedger.policy.recv_window,
        actor=hedger.actor,
        reason=f"{plan.detail}; mid {price.id}",
        now=now,
    )


async def _place(hedger: Hedger, order_id: UUID) -> VenueOrder:
    order = await submit(
        hedger.engine, hedger.gateway, order_id, holder=hedger.holder, clock=hedger.clock
    )
    if order.state not in UNSETTLED_STATES:
        return order
    return await resolve(
        hedger.engine,
        hedger.gateway,
        order_id,
        holder=hedger.holder,
        clock=hedger.clock,
        policy=hedger.policy.resolve,
    )


def _instead(plan: HedgePlan, verdict: HedgeVerdict, detail: str) -> HedgePlan:
    return HedgePlan(verdict=verdict, detail=detail, need=plan.need, residual=plan.need)


async def _position(hedger: Hedger, line: HedgeLine) -> int:
    async with hedger.engine.connect() as conn:
        return (await position(conn, hedger.book, line.desk)).get(line.asset, 0)


async def _report(
    hedger: Hedger,
    line: HedgeLine,
    before: int,
    verdict: HedgeVerdict,
    detail: str,
    order: VenueOrder | None = None,
    posted: int = 0,
) -> HedgeReport:
    after = await _position(hedger, line)
    return HedgeReport(
        verdict=verdict,
        detail=detail,
        before=before,
        after=after,
        residual=line.target - after,
        order=order,
        fills_posted=posted,
    )
