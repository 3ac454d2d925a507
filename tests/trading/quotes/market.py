"""Books to quote from, and terms and policies to quote by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from kernel.money import Asset
from marketdata.consolidated import VenueBook
from marketdata.fees import VenueFee
from marketdata.merged import MergedBooks
from marketdata.model import BookView, Instrument, Level
from registry.testing import ETH, USDT
from trading.quotes.model import QuotePolicy, QuoteRequest
from trading.terms.model import DEFAULT_TERMS, ClientTerms, SpreadRule

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
AGE_MAX = timedelta(seconds=2)
POLICY = QuotePolicy(book_age_max=AGE_MAX)


def instrument(venue: str = "binance", *, tick: int = 1, price_scale: int = 2) -> Instrument:
    """ETH/USDT with prices of two decimals."""
    return Instrument(
        venue=venue,
        symbol="ETHUSDT",
        base=ETH,
        quote=USDT,
        price_scale=price_scale,
        tick=tick,
        lot=10**14,
        lots_min=1,
        lots_max=10**9,
        min_notional=0,
        version=1,
    )


def shown(
    venue: str = "binance",
    *,
    bids: tuple[tuple[str, str], ...] = (("2999", "5"), ("2998", "10")),
    asks: tuple[tuple[str, str], ...] = (("3001", "5"), ("3002", "10")),
    at: datetime = NOW,
    fee_ppm: int = 0,
    grid: Instrument | None = None,
) -> VenueBook:
    """What one venue shows: (price, amount) from the best outwards."""
    item = grid or instrument(venue)
    view = BookView(
        venue=venue,
        symbol=item.symbol,
        sequence=1,
        received_at=at,
        bids=_levels(item, bids),
        asks=_levels(item, asks),
    )
    return VenueBook(item, view, VenueFee(fee_ppm))


def silent(venue: str = "kraken") -> VenueBook:
    """A venue that has no book at the moment."""
    return VenueBook(instrument(venue), None)


def merged(*books: VenueBook, now: datetime = NOW) -> MergedBooks:
    """The books as one, at one moment."""
    return MergedBooks(ETH, USDT, books, now=now, age_max=AGE_MAX)


def moved(percent_up: str, *, at: datetime = NOW) -> VenueBook:
    """The usual book a little higher: ``moved("3")`` is three whole units of the quote up."""
    up = int(percent_up)
    return shown(bids=((f"{2999 + up}", "15"),), asks=((f"{3001 + up}", "15"),), at=at)


def terms(**changes: Any) -> ClientTerms:
    """Terms without a spread and a fee, unless changed."""
    spreads = (SpreadRule(base="*", quote="*", half_spread_ppm=0),)
    return replace(DEFAULT_TERMS, **{"party": "acme", "spreads": spreads, **changes})


def asked(client_ref: str = "rfq-1", **changes: Any) -> QuoteRequest:
    """Acme asks for both sides of 10 ETH, unless changed."""
    usual: dict[str, Any] = {
        "client_ref": client_ref,
        "desk": "otc",
        "party": "acme",
        "base": ETH,
        "quote": USDT,
        "units": ETH.parse("10"),
        "requested_by": "dora",
    }
    return QuoteRequest(**{**usual, **changes})


@dataclass
class Books:
    """A source of books that shows what it was given."""

    shown: list[VenueBook] = field(default_factory=list)

    def books(self, base: Asset, quote: Asset) -> list[VenueBook]:
        """Return what is watched of the pair."""
        return [
            item
            for item in self.shown
            if (item.instrument.base, item.instrument.quote) == (base, quote)
        ]


def _levels(item: Instrument, rows: tuple[tuple[str, str], ...]) -> tuple[Level, ...]:
    return tuple(Level(item.ticks(price), item.base.parse(amount)) for price, amount in rows)
