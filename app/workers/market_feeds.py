"""A venue's public data as a section of the house file describes it: its grids, its feed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from random import SystemRandom
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.market_data_file import FeedSection
from kernel.clock import Clock
from kernel.db import transact
from kernel.money import Asset
from marketdata.errors import NoInstrument
from marketdata.events import Channel
from marketdata.model import Instrument
from marketdata.ports import History, MarketFeed
from registry.queries import list_assets
from venues.ccxt.endpoint import Endpoint
from venues.feeds.factory import FeedPlan, feed_of, opened_feed, running
from venues.feeds.runner import FeedRunner
from venues.history import open_history, open_public
from venues.instruments import Listing, Refreshed, read_instruments, refresh_instruments
from venues.records import capabilities_of

SCALE: Final = 18
"""Decimal places of an asset that is not registered: as many as any venue writes."""


class KnownAssets(Mapping[str, Asset]):
    """The registered assets; of any other one, an asset of its code with `SCALE` decimal places.

    Market data are looked at before an asset is registered; nothing is booked in it before that.
    """

    def __init__(self, registered: Iterable[Asset] = ()) -> None:
        self._assets = {asset.code: asset for asset in registered}

    def __getitem__(self, code: str) -> Asset:
        return self._assets.get(code) or Asset(code, SCALE)

    def __contains__(self, code: object) -> bool:
        return isinstance(code, str) and bool(code)

    def __iter__(self) -> Iterator[str]:
        return iter(self._assets)

    def __len__(self) -> int:
        return len(self._assets)


def endpoint_of(section: FeedSection) -> Endpoint:
    """Return where a section's venue is."""
    return Endpoint(http_url=section.http_url or None, ws_url=section.ws_url or None)


async def fetch_instruments(
    section: FeedSection, assets: Mapping[str, Asset], *, clock: Clock
) -> Listing:
    """Ask the venue for every spot market that can be read.

    Raises:
        VenueUnavailable: it does not answer.
    """
    record = capabilities_of(section.connector)
    wire = open_public(record, endpoint_of(section), clock, venue=section.venue)
    try:
        return await read_instruments(wire, record, assets, venue=section.venue)
    finally:
        await wire.close()


async def refresh(engine: AsyncEngine, section: FeedSection, *, clock: Clock) -> Refreshed:
    """Ask the venue for its markets and put on record what is new or has changed.

    Raises:
        VenueUnavailable: it does not answer.
    """
    assets = KnownAssets(await transact(engine, list_assets))
    listing = await fetch_instruments(section, assets, clock=clock)
    now = clock.now()
    return await transact(
        engine, lambda conn: refresh_instruments(conn, section.venue, listing, now=now)
    )


def history_of(
    section: FeedSection, instruments: Sequence[Instrument], *, clock: Clock
) -> AbstractAsyncContextManager[History]:
    """Return what a section's venue tells of its past."""
    record = capabilities_of(section.connector)
    return open_history(record, endpoint_of(section), instruments, clock, venue=section.venue)


def found_instrument(instruments: Sequence[Instrument], text: str, venue: str) -> Instrument:
    """Return the instrument that *text* names: the venue's spelling, or ``BASE/QUOTE``.

    Raises:
        NoInstrument: the venue has none of this name.
    """
    for item in instruments:
        if text in {item.symbol, f"{item.base.code}/{item.quote.code}"}:
            return item
    raise NoInstrument(
        f"{venue} has no symbol {text}",
        remedy=f"Run `causeway marketdata instruments {venue} --refresh`",
    )


def chosen(
    instruments: Sequence[Instrument], symbols: Sequence[str], venue: str
) -> tuple[Instrument, ...]:
    """Return the instruments of the symbols of a section."""
    return tuple(found_instrument(instruments, symbol, venue) for symbol in symbols)


def plan_for(section: FeedSection, instruments: Sequence[Instrument]) -> FeedPlan:
    """Return what a section's feed follows."""
    return FeedPlan(
        feed=feed_of(capabilities_of(section.connector)),
        instruments=tuple(instruments),
        channels=frozenset(map(Channel, section.channels)),
        candle=section.candle,
        silence=section.silence,
        check=section.check,
    )


def opened(
    section: FeedSection,
    instruments: Sequence[Instrument],
    *,
    clock: Clock,
    chance: Callable[[], float],
) -> AbstractAsyncContextManager[FeedRunner]:
    """Return the feed of a section, which does not run yet."""
    return opened_feed(
        plan_for(section, instruments),
        http_url=section.http_url,
        ws_url=section.ws_url,
        clock=clock,
        chance=chance,
    )


@contextlib.asynccontextmanager
async def watched_feed(
    section: FeedSection, symbol: str, *, clock: Clock
) -> AsyncIterator[tuple[MarketFeed, Sequence[Instrument]]]:
    """Run a feed of one symbol, its grid asked of the venue; no database is needed."""
    listing = await fetch_instruments(section, KnownAssets(), clock=clock)
    wanted = (found_instrument(listing.found, symbol, section.venue),)
    chance = SystemRandom().random
    async with opened(section, wanted, clock=clock, chance=chance) as feed, running(feed):
        yield feed, wanted
