"""The index of a pair, and where prices come from, as sections of the house file describe them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from app.workers.market_data_file import IndexSection, PriceSection
from app.workers.market_feeds import found_instrument
from marketdata.hierarchy import DEFAULT, Hierarchies, Hierarchy, Rung, Source
from marketdata.index_price import IndexPolicy, IndexVenue
from marketdata.instruments import list_instruments
from registry.queries import get_asset


async def load_index_policy(conn: AsyncConnection, section: IndexSection) -> IndexPolicy:
    """Return the policy of a section, with the newest grids on record.

    Raises:
        UnknownRecord: an asset is not registered.
        NoInstrument: a venue has no such pair on record.
    """
    venues = []
    for venue, weight in zip(section.venues, section.weights, strict=True):
        known = await list_instruments(conn, venue)
        venues.append(IndexVenue(found_instrument(known, section.name, venue), weight))
    return IndexPolicy(
        base=await get_asset(conn, section.base),
        quote=await get_asset(conn, section.quote),
        venues=tuple(venues),
        venues_min=section.venues_min,
        age_max=section.age_max,
        deviation_ppm_max=section.deviation_ppm,
        spread_ppm_max=section.spread_ppm,
    )


def load_hierarchies(
    sections: Sequence[PriceSection], *, within: timedelta | None = None
) -> Hierarchies:
    """Return the hierarchies of the pairs that have a section; all others have the usual one.

    Args:
        within: how old a price of the market may be for a pair without section.
    """
    usual = DEFAULT if within is None else DEFAULT.within(within)
    return Hierarchies({item.name: _hierarchy(item) for item in sections}, usual)


def _hierarchy(section: PriceSection) -> Hierarchy:
    """Every source serves the purposes that it serves by default: a file cannot widen them."""
    purposes = {rung.source: rung.purposes for rung in DEFAULT.rungs}
    rungs = [Rung(Source(name), purposes[Source(name)], section.age_max) for name in section.rungs]
    return Hierarchy(tuple(rungs), section.pivots)
