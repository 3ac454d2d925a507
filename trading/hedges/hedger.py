"""One pass over a hedge line: clear up, collect, post, plan, place, and again collect and post.

Call it as often as you like, from as many processes as you like. Everything it needs to know is in
the database and at the venues; a pass that dies anywhere is continued by the next one. A venue that
does not answer takes only itself out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import ungrouped
from marketdata.fees import NO_FEE, VenueFee
from marketdata.ports import Feed
from trading.hedges import store
from trading.hedges.decision import HedgePlan, Situation, plan_hedge, with_alarm
from trading.hedges.fills import post_fills
from trading.hedges.intents import intend_legs, within_limits
from trading.hedges.model import (
    HedgeLine,
    HedgeLook,
    HedgePlace,
    HedgePolicy,
    HedgeReport,
    HedgeVerdict,
)
from trading.hedges.sending import send_leg
from trading.hedges.situation import Reached, need_of, read_situation
from trading.position import position
from venues.errors import AccountHalted, VenueUnavailable
from venues.fills import collect
from venues.model import OrderState, VenueOrder
from venues.orders import resume
from venues.ports import VenueGateway

PASSES_MAX: Final = 20
POSTING_ROUNDS_MAX: Final = 50
VENUES_AT_ONCE: Final = 8
"""Places that one pass asks at the same time."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedger:
    """Who hedges: the connections and limits of one process.

    Attributes:
        gateways: by our codes of venue and account; a place without one is left out.
        feeds: by our code of the venue; without one there is no book.
        policy: of every line that `policies` does not name by desk and asset.
        fees: what each account is charged; of one that is not named, nothing.
        holder: name of the process; its actor is ``system:<holder>``.
    """

    engine: AsyncEngine
    gateways: Mapping[tuple[str, str], VenueGateway]
    feeds: Mapping[str, Feed]
    clock: Clock
    policy: HedgePolicy
    book: int
    policies: Mapping[tuple[str, str], HedgePolicy] = field(default_factory=dict)
    fees: Mapping[tuple[str, str], VenueFee] = field(default_factory=dict)
    holder: str = "hedger"

    @property
    def actor(self) -> str:
        """Return the actor of what it does."""
        return f"system:{self.holder}"

    def policy_of(self, line: HedgeLine) -> HedgePolicy:
        """Return the policy of a line."""
        return self.policies.get((line.desk, line.asset), self.policy)

    def gateway_of(self, place: HedgePlace) -> VenueGateway:
        """Return the connection to a place.

        Raises:
            VenueUnavailable: this process has none.
        """
        found = self.gateways.get((place.venue, place.account))
        if found is None:
            raise VenueUnavailable("this process has no connection to it", where=place.name)
        return found


@dataclass(frozen=True, slots=True)
class _Planned:
    """What was decided and written: the plan, and an intent for each of its legs."""

    plan: HedgePlan
    orders: Sequence[VenueOrder] = ()


async def hedge_once(hedger: Hedger, desk: str, asset: str) -> HedgeReport:
    """Bring the position of *asset* one step towards its target and tell what was done.

    Raises:
        NoHedgeLine: nobody has said where the asset is hedged.
    """
    line = await transact(hedger.engine, lambda conn: store.get_line(conn, desk, asset))
    before = await _position(hedger, line)
    down: dict[HedgePlace, str] = {}
    await _at_each(line.places, partial(_catch_up, hedger, line), down)
    posted = await _post(hedger, line)
    up = [place for place in line.places if place.is_open and place not in down]
    is_needed = await _is_needed(hedger, line)
    reached = await _at_each(up, partial(_reach, hedger, is_needed), down)
    try:
        planned = await _plan(hedger, line, reached, down)
    except AccountHalted as error:
        # Between the look at the account and the intent: nothing was written, so nothing is sent.
        planned = _Planned(_halted(error, line.target - before))
    orders = await _send(hedger, line, planned.orders)
    traded = [place for place in up if any(_is_at(order, place) for order in orders)]
    await _at_each(traded, partial(_collect, hedger), down)
    posted += await _post(hedger, line) if orders else 0
    after = await _position(hedger, line)
    verdict, detail = _outcome(planned.plan, orders, traded, down)
    return HedgeReport(
        verdict=verdict,
        detail=detail,
        before=before,
        after=after,
        residual=line.target - after,
        orders=tuple(orders),
        fills_posted=posted,
        left_out=tuple(f"{place.name}: {why}" for place, why in sorted(down.items())),
        alarm=planned.plan.alarm,
        funding=planned.plan.funding,
    )


async def preview(hedger: Hedger, desk: str, asset: str) -> HedgePlan:
    """Return what a pass would do now; nothing is written, sent or collected.

    Raises:
        NoHedgeLine: nobody has said where the asset is hedged.
    """
    line = await transact(hedger.engine, lambda conn: store.get_line(conn, desk, asset))
    down: dict[HedgePlace, str] = {}
    up = [place for place in line.places if place.is_open]
    reached = await _at_each(up, partial(_reach, hedger, True), down)
    async with hedger.engine.connect() as conn:
        planned = await _plan_on(conn, hedger, line, reached, down)
        await conn.rollback()
    return planned.plan


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


async def _at_each(
    places: Sequence[HedgePlace],
    ask: Callable[[HedgePlace], Awaitable[T]],
    down: dict[HedgePlace, str],
) -> list[T]:
    """Ask every place at once, in their order; one that does not answer is put among *down*."""
    room = asyncio.Semaphore(VENUES_AT_ONCE)
    found: dict[HedgePlace, T] = {}

    async def one(place: HedgePlace) -> None:
        async with room:
            try:
                found[place] = await ask(place)
            except VenueUnavailable as error:
                down[place] = str(error)

    with ungrouped():
        async with asyncio.TaskGroup() as group:
            for place in places:
                group.create_task(one(place))
    return [found[place] for place in places if place in found]


async def _catch_up(hedger: Hedger, line: HedgeLine, place: HedgePlace) -> None:
    """Clear up earlier orders at a place and collect their trades."""
    policy = hedger.policy_of(line)
    await resume(
        hedger.engine,
        hedger.gateway_of(place),
        holder=hedger.holder,
        clock=hedger.clock,
        policy=policy.resolve,
        symbol=place.symbol,
        intents_older_than=policy.intent_age_max,
    )
    await _collect(hedger, place)


async def _collect(hedger: Hedger, place: HedgePlace) -> None:
    await collect(hedger.engine, hedger.gateway_of(place), place.symbol, clock=hedger.clock)


async def _post(hedger: Hedger, line: HedgeLine) -> int:
    """Post what the line has traded and return how many trades that were."""
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


async def _is_needed(hedger: Hedger, line: HedgeLine) -> bool:
    """Tell whether a plan will ask what is free at the venues."""
    async with hedger.engine.connect() as conn:
        need, _ = await need_of(conn, hedger.book, line)
    return abs(need) > hedger.policy_of(line).band_units


async def _reach(hedger: Hedger, is_needed: bool, place: HedgePlace) -> Reached:  # noqa: FBT001  bound once, by `partial`
    gateway = hedger.gateway_of(place)
    instrument = await gateway.instrument(place.symbol)
    return Reached(
        place=place,
        instrument=instrument,
        fee=hedger.fees.get((place.venue, place.account), NO_FEE),
        balances=await gateway.balances() if is_needed else None,
    )


async def _plan(
    hedger: Hedger, line: HedgeLine, reached: Sequence[Reached], down: dict[HedgePlace, str]
) -> _Planned:
    """Plan under the line's lock and write the intents of all legs in the same transaction.

    The next one to plan sees the intents as under way, whoever sends them and whether they are sent.
    """
    return await transact(hedger.engine, lambda conn: _plan_on(conn, hedger, line, reached, down))


async def _plan_on(
    conn: AsyncConnection,
    hedger: Hedger,
    line: HedgeLine,
    reached: Sequence[Reached],
    down: dict[HedgePlace, str],
) -> _Planned:
    locked = await store.lock_line(conn, line.desk, line.asset)
    now, policy = hedger.clock.now(), hedger.policy_of(line)
    if locked.quote is None and reached:
        locked = await store.learn_quote(conn, locked, reached[0].instrument.quote.code, now)
    still_open = {place for place in locked.places if place.is_open}
    fit = [item for item in reached if item.place in still_open and _fits(item, locked, down)]
    seen = await read_situation(
        conn, hedger.book, locked, fit, hedger.feeds, policy=policy, now=now
    )
    plan = plan_hedge(seen, policy, now)
    if down and not fit:
        plan = plan.instead(HedgeVerdict.VENUE_DOWN, "; ".join(down.values()))
    plan = await within_limits(conn, locked, seen, plan, book=hedger.book, now=now)
    if abs(plan.need) > policy.band_units:
        plan = with_alarm(plan, seen.asset, policy)
    orders = await _intend(conn, hedger, locked, seen, plan, now) if plan.legs else []
    await store.write_look(conn, locked, _look(seen, plan, now), plan.pace)
    return _Planned(plan, orders)


def _fits(item: Reached, line: HedgeLine, down: dict[HedgePlace, str]) -> bool:
    """Tell whether a place trades the line's pair; put one that does not among *down*."""
    base, quote = item.instrument.base.code, item.instrument.quote.code
    if (base, quote) == (line.asset, line.quote):
        return True
    down[item.place] = f"it trades {base}/{quote}, the line {line.asset}/{line.quote}"
    return False


async def _intend(
    conn: AsyncConnection,
    hedger: Hedger,
    line: HedgeLine,
    seen: Situation,
    plan: HedgePlan,
    now: datetime,
) -> list[VenueOrder]:
    return await intend_legs(
        conn,
        line,
        seen,
        plan,
        hedger.policy_of(line),
        gateways=hedger.gateways,
        actor=hedger.actor,
        now=now,
    )


async def _send(hedger: Hedger, line: HedgeLine, orders: Sequence[VenueOrder]) -> list[VenueOrder]:
    """Send every leg at once and return them as they stand then."""
    policy = hedger.policy_of(line)
    with ungrouped():
        async with asyncio.TaskGroup() as group:
            sending = [
                group.create_task(
                    send_leg(
                        hedger.engine,
                        hedger.gateways[order.venue, order.account],
                        order,
                        holder=hedger.holder,
                        clock=hedger.clock,
                        policy=policy.resolve,
                    )
                )
                for order in orders
            ]
    return [task.result() for task in sending]


def _outcome(
    plan: HedgePlan,
    orders: Sequence[VenueOrder],
    traded: Sequence[HedgePlace],
    down: Mapping[HedgePlace, str],
) -> tuple[HedgeVerdict, str]:
    """Return what the pass came to, after its orders were sent."""
    refused = [order.state_reason for order in orders if order.state is OrderState.REFUSED]
    if orders and len(refused) == len(orders):
        return HedgeVerdict.REFUSED, "; ".join(refused)
    lost = [down[place] for place in traded if place in down]
    if lost and len(lost) == len(traded):
        return HedgeVerdict.VENUE_DOWN, "; ".join(lost)
    return plan.verdict, plan.detail


def _look(seen: Situation, plan: HedgePlan, now: datetime) -> HedgeLook:
    return HedgeLook(
        at=now,
        verdict=plan.verdict,
        detail=plan.detail,
        position=seen.position,
        low=seen.under_way.low,
        high=seen.under_way.high,
        need=plan.need,
        waiting=plan.waiting,
        residual=plan.residual,
    )


def _halted(error: AccountHalted, need: int) -> HedgePlan:
    return HedgePlan(verdict=HedgeVerdict.HALTED, detail=str(error), need=need, residual=need)


def _is_at(order: VenueOrder, place: HedgePlace) -> bool:
    return (order.venue, order.account, order.symbol) == (place.venue, place.account, place.symbol)


async def _position(hedger: Hedger, line: HedgeLine) -> int:
    async with hedger.engine.connect() as conn:
        return (await position(conn, hedger.book, line.desk)).get(line.asset, 0)
