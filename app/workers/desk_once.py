"""Hedging by hand, once: the feeds and accounts of one line, opened for as long as it takes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.house_file import HouseFile
from app.workers.market_data_file import FeedSection
from app.workers.market_feeds import chosen, opened
from app.workers.venue_desk import open_desk
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import BadInput, OutsideUnavailable
from marketdata.instruments import list_instruments
from registry.queries import get_asset
from trading.hedges.hedger import Hedger
from trading.hedges.lines import get_line
from trading.hedges.model import HedgeLine, HedgePolicy
from venues.feeds.factory import running
from venues.feeds.runner import FeedRunner


@contextlib.asynccontextmanager
async def hedging_by_hand(
    engine: AsyncEngine,
    file: HouseFile,
    desk: str,
    asset: str,
    *,
    patience: timedelta,
    clock: Clock,
    chance: Callable[[], float],
    holder: str,
) -> AsyncIterator[Hedger]:
    """Have a hedger for one line, with a running book of each of its places, while the context is open.

    Raises:
        NoHedgeLine: there is no such line.
        BadInput: the house file has no account or feed of any of its places.
        OutsideUnavailable: no book arrived in time.
    """
    line = await transact(engine, lambda conn: get_line(conn, desk, asset))
    async with contextlib.AsyncExitStack() as stack:
        accounts = [
            await stack.enter_async_context(
                open_desk(engine, section, book=file.book, clock=clock, chance=chance)
            )
            for section in file.venues
            if line.places_at(section.venue, section.account)
        ]
        feeds = {
            section.venue: await stack.enter_async_context(
                _feed(engine, section, line, clock=clock, chance=chance)
            )
            for section in file.feeds
            if any(place.venue == section.venue for place in line.places)
        }
        if not accounts or not feeds:
            raise BadInput(
                f"the house file has no [[venue]] or no [[feed]] of a place of {desk} {asset}",
                remedy="Write them, or open a place where there is one",
            )
        for account in accounts:
            await account.begin()
        await _wait_for_books(line, feeds, patience)
        yield Hedger(
            engine=engine,
            gateways={(one.section.venue, one.section.account): one.gateway for one in accounts},
            feeds=feeds,
            clock=clock,
            policy=await _policy(engine, file, line),
            fees={(one.section.venue, one.section.account): one.section.taker for one in accounts},
            book=file.book,
            holder=holder,
        )


@contextlib.asynccontextmanager
async def _feed(
    engine: AsyncEngine,
    section: FeedSection,
    line: HedgeLine,
    *,
    clock: Clock,
    chance: Callable[[], float],
) -> AsyncIterator[FeedRunner]:
    """Run a feed of the line's own symbols only."""
    known = await transact(engine, lambda conn: list_instruments(conn, section.venue))
    symbols = sorted({place.symbol for place in line.places if place.venue == section.venue})
    grids = chosen(known, symbols, section.venue)
    async with opened(section, grids, clock=clock, chance=chance) as feed, running(feed):
        yield feed


async def _wait_for_books(
    line: HedgeLine, feeds: Mapping[str, FeedRunner], patience: timedelta
) -> None:
    """Wait until one place has a book; a venue that gives none is left out of the pass."""
    for place in line.places:
        feed = feeds.get(place.venue)
        if feed is not None and await feed.wait_for_book(place.symbol, patience) is not None:
            return
    raise OutsideUnavailable(
        f"no book of {line.asset} arrived within {patience // timedelta(seconds=1)} s",
        remedy="Look at `causeway marketdata status`, or wait longer",
    )


async def _policy(engine: AsyncEngine, file: HouseFile, line: HedgeLine) -> HedgePolicy:
    asset = await transact(engine, lambda conn: get_asset(conn, line.asset))
    for section in file.hedges:
        if (section.desk, section.asset) == (line.desk, line.asset):
            return section.hedge_policy(asset)
    return HedgePolicy()
