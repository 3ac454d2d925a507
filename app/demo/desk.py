"""Chapter 3: the desk sells and buys, and hedges what is left at the venue through ccxt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from random import SystemRandom
from typing import Final

from app.demo.deposits import ACME, BIRCH
from app.demo.stage import BOOK, Stage
from kernel.errors import OutsideUnavailable, Refused
from kernel.money import Price
from kernel.settings import Secret
from marketdata.events import Channel
from marketdata.instruments import record_instrument
from marketdata.mid import venue_mid
from marketdata.model import Instrument, RecordedPrice
from marketdata.prices import record_price
from matching.model import Side
from trading.deals import book_deal
from trading.hedges.hedger import Hedger, hedge_until_done
from trading.hedges.lines import open_line
from trading.hedges.model import HedgeLine, HedgePlace, HedgePolicy, HedgeVerdict
from trading.model import Deal, DealRequest, DealSide
from trading.position import position
from trading.venue_accounts import open_venue_account
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.gateway import CcxtGateway, GatewaySettings, open_gateway
from venues.explain import explain_order
from venues.feeds.factory import FeedPlan, feed_of, opened_feed, running
from venues.feeds.runner import FeedRunner
from venues.fills import list_fills
from venues.model import OrderState
from venues.orders import list_orders
from venues.records import BINANCE
from venues.simulator.testing import control

DESK: Final = "otc"
VENUE: Final = "binance"
ACCOUNT: Final = "desk"
SYMBOL: Final = "ETHUSDT"
BOOK_WAIT: Final = timedelta(seconds=15)
BOOK_AGE_MAX: Final = timedelta(seconds=5)
SILENCE: Final = timedelta(seconds=2)
SPREAD_PPM: Final = 2_000
"""What the desk asks above the mid, or bids below it, in millionths."""
PPM: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Room:
    """The desk's connections to the venue."""

    gateway: CcxtGateway
    feed: FeedRunner
    instrument: Instrument


@contextlib.asynccontextmanager
async def open_room(stage: Stage) -> AsyncIterator[Room]:
    """Connect to the venue: orders through ccxt's unmodified class, books by a feed of our own."""
    venue = stage.world.venue
    endpoint = Endpoint(http_url=str(venue["url"]), ws_url=str(venue["ws_url"]))
    wanted = GatewaySettings(
        venue=VENUE,
        account=ACCOUNT,
        capabilities=BINANCE,
        endpoint=endpoint,
        credentials=Credentials(api_key=str(venue["api_key"]), secret=Secret(str(venue["secret"]))),
        assets=stage.assets,
        rate_limit=False,
    )
    async with open_gateway(wanted, stage.clock) as gateway:
        await gateway.synchronise()
        now = stage.clock.now()
        found = await gateway.instrument(SYMBOL)
        instrument = await stage.do(lambda conn: record_instrument(conn, found, now=now))
        plan = FeedPlan(
            feed=feed_of(BINANCE),
            instruments=(instrument,),
            channels=frozenset({Channel.BOOK}),
            silence=SILENCE,
        )
        async with (
            opened_feed(
                plan,
                http_url=str(venue["url"]),
                ws_url=str(venue["ws_url"]),
                clock=stage.clock,
                chance=SystemRandom().random,
            ) as feed,
            running(feed),
        ):
            yield Room(gateway, feed, instrument)


async def trade_and_hedge(stage: Stage, room: Room) -> None:
    """Book three deals at prices from the live book and bring the position to flat."""
    opened = await open_venue_account(
        stage.world.engine, room.gateway, [SYMBOL], book=BOOK, clock=stage.clock
    )
    held = " and ".join(stage.money(b.free, b.asset) for b in opened if b.free)
    stage.note(f"the venue account is opened in the books with {held}")
    mid = await live_mid(stage, room)
    stage.note(
        f"mid {mid.record.price.format(2)} from the live book, recorded as evidence of the deals",
        f"price {mid.id}",
    )
    for reference, party, side, amount in (
        ("deal-1", ACME, DealSide.DESK_SELLS, "10 ETH"),
        ("deal-2", ACME, DealSide.DESK_BUYS, "4 ETH"),
        ("deal-3", BIRCH, DealSide.DESK_SELLS, "3 ETH"),
    ):
        request = deal_request(stage, reference, party, side, amount, mid)
        deal = await stage.do(partial(book_deal, request=request, book=BOOK, now=stage.clock.now()))
        stage.note(describe_deal(stage, deal), f"deal {deal.id}")
    await _tell_position(stage, "position after the deals")
    await _hedge(stage, room)


async def live_mid(stage: Stage, room: Room) -> RecordedPrice:
    """Return the middle of the live book, recorded as evidence.

    Raises:
        OutsideUnavailable: no book arrives.
        Refused: it is too old or too thin to say a price.
    """
    view = await room.feed.wait_for_book(SYMBOL, BOOK_WAIT)
    if view is None:
        raise OutsideUnavailable(
            f"no book of {SYMBOL} arrived", where=str(stage.world.venue["url"])
        )
    now = stage.clock.now()
    record = venue_mid(room.instrument, view, now=now, age_max=BOOK_AGE_MAX)
    if isinstance(record, Refused):
        raise record
    return await stage.do(lambda conn: record_price(conn, record, now=now))


def deal_request(
    stage: Stage, reference: str, party: str, side: DealSide, amount: str, mid: RecordedPrice
) -> DealRequest:
    """Return a deal of the desk at its spread away from *mid*."""
    eth, usdt = stage.assets["ETH"], stage.assets["USDT"]
    away = SPREAD_PPM if side is DealSide.DESK_SELLS else -SPREAD_PPM
    middle = mid.record.price
    return DealRequest(
        client_ref=reference,
        desk=DESK,
        party=party,
        side=side,
        base=eth,
        quote=usdt,
        base_units=stage.units(amount),
        price=Price.of(middle.numerator * (PPM + away), middle.denominator * PPM, eth, usdt),
        fee_units=stage.units("5 USDT") if side is DealSide.DESK_SELLS else 0,
        price_id=mid.id,
        value_date=stage.clock.now().date(),
        booked_by="dan",
        reason="agreed by voice",
    )


def describe_deal(stage: Stage, deal: Deal) -> str:
    """Say what a deal is in a sentence."""
    asked = deal.request
    verb = "sells to" if asked.side is DealSide.DESK_SELLS else "buys from"
    fee = f", fee {stage.money(asked.fee_units, asked.quote.code)}" if asked.fee_units else ""
    return (
        f"the desk {verb} {asked.party} {stage.money(asked.base_units, asked.base.code)} "
        f"for {stage.money(deal.quote_units, asked.quote.code)}{fee}"
    )


async def open_hedging(stage: Stage, room: Room, policy: HedgePolicy) -> Hedger:
    """Say where the desk's ETH is hedged, and return who does it."""
    now = stage.clock.now()
    line = HedgeLine(desk=DESK, asset="ETH", places=(HedgePlace(VENUE, ACCOUNT, SYMBOL),))
    await stage.do(
        lambda conn: open_line(
            conn, line, by="dan", reason="the desk's ETH is hedged here", now=now
        )
    )
    return Hedger(
        engine=stage.world.engine,
        gateways={(VENUE, ACCOUNT): room.gateway},
        feeds={VENUE: room.feed},
        clock=stage.clock,
        policy=policy,
        book=BOOK,
    )


async def _hedge(stage: Stage, room: Room) -> None:
    hedger = await open_hedging(stage, room, HedgePolicy(book_age_max=BOOK_AGE_MAX))
    await lose_the_answer(stage)
    reports = await hedge_until_done(hedger, DESK, "ETH")
    await _tell_orders(stage)
    for fill in reversed(
        await stage.do(partial(list_fills, venue=VENUE, account=ACCOUNT, symbol=SYMBOL))
    ):
        stage.note(
            f"hedge: {'bought' if fill.side is Side.BUY else 'sold'} {stage.money(fill.base_units, fill.base)} for "
            f"{stage.money(fill.quote_units, fill.quote)}, "
            f"fee {stage.money(fill.fee_units, fill.fee_asset)}; posted",
            f"trade {fill.trade_id} of order {fill.venue_order_id}",
        )
    last = reports[-1]
    if last.verdict not in {HedgeVerdict.FLAT, HedgeVerdict.BELOW_MINIMUM}:
        raise OutsideUnavailable(f"the hedge stopped: {last.verdict}: {last.detail}")
    await _tell_position(stage, "position after the hedge")
    stage.note(
        f"residual {stage.money(last.residual, 'ETH')}: less than the venue's smallest order"
    )


async def lose_the_answer(stage: Stage) -> None:
    """Let the venue take the next order and cut the connection before it answers."""
    url = str(stage.world.venue["url"])
    fault = {"kind": "reset_after_accept", "path": "/api/v3/order", "method": "POST"}
    await asyncio.to_thread(control, url, "POST", "faults", fault)


async def _tell_orders(stage: Stage) -> None:
    for order in await stage.do(partial(list_orders, venue=VENUE, account=ACCOUNT)):
        story = await stage.do(partial(explain_order, order_id=order.id))
        stage.note(
            f"order, sent once: {' → '.join(story.states)}", f"order {order.client_order_id}"
        )
        if OrderState.UNKNOWN in story.states:
            stage.note("the answer to it was lost; the venue was asked for its id, and had it")


async def _tell_position(stage: Stage, what: str) -> None:
    held = await stage.do(lambda conn: position(conn, BOOK, DESK))
    text = ", ".join(stage.money(units, asset) for asset, units in sorted(held.items()) if units)
    stage.note(f"{what}: {text or 'flat'}")
