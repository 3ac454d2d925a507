"""The market's mid that a quote was made around, as a price that can be looked up. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from kernel.money import Price
from marketdata.consolidated import USABLE, VenueBook
from marketdata.merged import MergedBooks
from marketdata.model import BookView, PriceRecord, Quality
from marketdata.price_model import PriceKind


def mid_record(books: MergedBooks, mid: Price) -> PriceRecord:
    """Return the mid of *books* with the top of every book that takes part in it.

    It speaks of the moment at which it was looked at: books of different ages made it.
    """
    verdicts = zip(books.books, books.verdicts, strict=True)
    return PriceRecord(
        price=mid,
        kind=PriceKind.JOINT_MID,
        quality=Quality.GOOD,
        constituents=tuple(
            _top(item, item.view)
            for item, verdict in verdicts
            if verdict in USABLE and item.view is not None
        ),
        method={"name": "best-bid-and-ask"},
        observed_at=books.now,
    )


def seen_by(record: PriceRecord, at: datetime) -> PriceRecord:
    """Return *record* as observed at *at*, PostgreSQL's time, if it says that it was later.

    The books' process has a clock of its own; a little ahead, it would speak of a moment after the
    deal that the mid is of.
    """
    return replace(record, observed_at=min(record.observed_at, at))


def _top(item: VenueBook, view: BookView) -> Mapping[str, Any]:
    grid = item.instrument
    return {
        "venue": grid.venue,
        "symbol": grid.symbol,
        "instrument_version": grid.version,
        "sequence": view.sequence,
        "received_at": view.received_at.isoformat(),
        "bid": grid.price_text(view.bids[0].ticks) if view.bids else None,
        "ask": grid.price_text(view.asks[0].ticks) if view.asks else None,
    }
