"""Builders and a still feed for tests of whoever uses market data."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from kernel.money import Asset
from marketdata.model import BookView, Instrument, Level

ETH = Asset("ETH", 18)
USDT = Asset("USDT", 6)


def eth_usdt(venue: str = "sim") -> Instrument:
    """Return an instrument with a tick of 0.01 USDT and a lot of 0.0001 ETH."""
    return Instrument(
        venue=venue,
        symbol="ETHUSDT",
        base=ETH,
        quote=USDT,
        price_scale=2,
        tick=1,
        lot=10**14,
        lots_min=1,
        lots_max=90_000_000,
        min_notional=5_000_000,
    )


def book_view(
    bids: Iterable[tuple[str, str]],
    asks: Iterable[tuple[str, str]],
    *,
    at: datetime,
    instrument: Instrument | None = None,
    sequence: int = 1,
) -> BookView:
    """Return a book from decimal (price, quantity) pairs, best first."""
    grid = instrument or eth_usdt()

    def level(pair: tuple[str, str]) -> Level:
        return Level(grid.ticks(pair[0]), grid.base.parse(pair[1]))

    return BookView(
        venue=grid.venue,
        symbol=grid.symbol,
        sequence=sequence,
        received_at=at,
        bids=tuple(map(level, bids)),
        asks=tuple(map(level, asks)),
    )


class StillFeed:
    """A feed that shows whatever it was given last."""

    def __init__(self, *views: BookView) -> None:
        self._views = {view.symbol: view for view in views}

    def show(self, view: BookView) -> None:
        """Replace the book of a symbol."""
        self._views[view.symbol] = view

    def book(self, symbol: str) -> BookView | None:
        """Return the book given last."""
        return self._views.get(symbol)

    async def wait_for_book(self, symbol: str, timeout: timedelta) -> BookView | None:  # noqa: ARG002, ASYNC109  the shape of the port
        """Return the book given last, at once."""
        return self.book(symbol)
