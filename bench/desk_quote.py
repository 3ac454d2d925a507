"""A two-way quote from ten venues with a thousand levels a side each: how long does it take?

From the venues' books as the feeds keep them to both prices: the books are judged, merged as far as
the size reaches, averaged after fees; spread, skew and tick are put on. Ten venues on three grids with
different fees; the sizes take from a hundredth to a tenth of all levels of a side, bid and ask. The peer
is the obvious way to the same two costs: the whole joint book after fees, swept on either side.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from bench.measure import Measured, Shared, versions
from bench.ten_venues import BTC, NOW, USD, VENUES, compared, instrument, times_ms, view
from marketdata.consolidated import VenueBook, consolidate, sweep_joint
from marketdata.fees import VenueFee
from marketdata.merged import MergedBooks
from matching.model import Side
from trading.quotes.model import QuotePolicy, QuoteRequest, SkewPolicy
from trading.quotes.pricing import QuotePrice, price_quote
from trading.terms.model import DEFAULT_TERMS

LEVELS: Final = 1_000
QUOTES: Final = 1_000
PEER_QUOTES: Final = 100
WARM_UP: Final = 20
GOAL_MS: Final = 5
SIZES: Final = 10
LEVEL_UNITS: Final = 1_000_000
STEP_UNITS: Final = LEVEL_UNITS * VENUES * LEVELS // 100
"""Every quote is for one of `SIZES` sizes: a hundredth of the levels of a side, two, and so on."""

POLICY: Final = QuotePolicy(
    book_age_max=timedelta(seconds=5),
    venues_min=5,
    skews={"BTC": SkewPolicy(full_units=10**10, ppm_max=500)},
)
REQUEST: Final = QuoteRequest(
    client_ref="bench",
    desk="otc",
    party="acme",
    base=BTC,
    quote=USD,
    units=STEP_UNITS,
    requested_by="system:bench",
)


def measure(shared: Shared) -> Measured:  # noqa: ARG001  the shape of a benchmark
    """Time single quotes, and the peer's on the same books."""
    books = [_book(number) for number in range(VENUES)]
    ours = times_ms(lambda n: _quote(books, _units(n)), warm_up=WARM_UP, count=QUOTES)
    peers = times_ms(lambda n: _whole(books, _units(n)), warm_up=WARM_UP, count=PEER_QUOTES)
    return Measured(
        results=compared(
            "desk_quote", ours, peers, "both sides of the whole joint book", goal_ms=GOAL_MS
        ),
        conditions={
            "venues": str(VENUES),
            "levels": f"{LEVELS:,}",
            "taken": f"{VENUES * LEVELS // 100:,} to {VENUES * LEVELS * SIZES // 100:,} levels a side",
            "quotes": f"{QUOTES:,}",
        },
        versions=versions(),
    )


def _quote(books: list[VenueBook], units: int) -> None:
    merged = MergedBooks(BTC, USD, books, now=NOW, age_max=POLICY.book_age_max)
    request = replace(REQUEST, units=units)
    made = price_quote(request, merged, DEFAULT_TERMS, POLICY, position=10**9)
    if not isinstance(made, QuotePrice) or made.bid is None or made.ask is None:
        raise TypeError(f"there is no price: {made}")


def _whole(books: list[VenueBook], units: int) -> None:
    whole = consolidate(books, BTC, USD, now=NOW, age_max=POLICY.book_age_max, after_fees=True)
    for side in (Side.BUY, Side.SELL):
        if sweep_joint(whole, side, units).units != units:
            raise ValueError("the size is not there")


def _book(number: int) -> VenueBook:
    traded = instrument(number)
    age = timedelta(milliseconds=100 * number)
    shown = view(traded, number, levels=LEVELS, units=LEVEL_UNITS, age=age)
    return VenueBook(traded, shown, VenueFee(100 * (number % 4)))


def _units(number: int) -> int:
    return STEP_UNITS * (1 + number % SIZES)
