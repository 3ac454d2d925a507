"""The mid price of one venue's book, with what it was made of."""

from __future__ import annotations

from datetime import datetime, timedelta

from kernel.errors import Refused
from kernel.money import Price
from marketdata.freshness import Freshness, judge
from marketdata.model import BookView, Instrument, PriceRecord, Quality


def venue_mid(
    instrument: Instrument, view: BookView | None, *, now: datetime, age_max: timedelta
) -> PriceRecord | Refused:
    """Return the exact middle of best bid and ask, or why there is none.

    The middle of two prices in ticks may be half a tick; the ratio holds it exactly.
    """
    verdict = judge(view, now=now, age_max=age_max)
    if verdict is not Freshness.FRESH or view is None or view.top is None:
        return Refused(
            f"the book of {instrument.symbol} at {instrument.venue} is {verdict}",
            remedy="Wait for the feed, or enter a price by hand",
        )
    top = view.top
    sum_ticks = instrument.price(top.bid.ticks + top.ask.ticks)
    return PriceRecord(
        price=Price.of(
            sum_ticks.numerator, sum_ticks.denominator * 2, instrument.base, instrument.quote
        ),
        kind="venue-mid",
        quality=Quality.GOOD,
        constituents=(
            {
                "venue": instrument.venue,
                "symbol": instrument.symbol,
                "instrument_version": instrument.version,
                "sequence": view.sequence,
                "received_at": view.received_at.isoformat(),
                "bid": instrument.price_text(top.bid.ticks),
                "ask": instrument.price_text(top.ask.ticks),
            },
        ),
        observed_at=view.received_at,
    )
