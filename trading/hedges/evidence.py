"""Which price a hedge was planned on, recorded so that it can be looked up for ever."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from kernel.money import Price
from marketdata.mid import venue_mid
from marketdata.model import PriceRecord, Quality
from trading.routing import Place

MERGED_MID: Final = "merged-mid"
"""Kind of the middle between the best bid and the best ask of several venues: evidence of a route,
never taken for a price of another purpose."""


def price_of_route(
    places: Sequence[Place], mid: Price, *, now: datetime, age_max: timedelta
) -> PriceRecord:
    """Return the price that a route over *places* was planned on: of one book, or of several."""
    mids = [
        found
        for place in places
        if isinstance(
            found := venue_mid(place.instrument, place.view, now=now, age_max=age_max), PriceRecord
        )
    ]
    if len(mids) == 1 and mids[0].price == mid:
        return mids[0]
    return PriceRecord(
        price=mid,
        kind=MERGED_MID,
        quality=Quality.GOOD,
        constituents=tuple(part for found in mids for part in found.constituents),
        method={"rule": "best bid and best ask of all books"},
        observed_at=now,
    )
