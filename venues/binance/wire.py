"""Where Binance's public streams and books are. Sources: web-socket-streams.md, rest-api.md.

A depth of 1,000 levels costs a weight of 50, of up to 100 levels 5; an address may use 6,000 in a
minute (rest-api.md, "Order book", "IP limits"), of which orders and accounts need their share.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from venues.binance.books import CHECK_LEVELS, SNAPSHOT_LEVELS
from venues.feeds.model import VenueWire, polite

HTTP_URL: Final = "https://api.binance.com"
WS_URL: Final = "wss://stream.binance.com:9443"
WEIGHT_PER_MINUTE: Final = 2_400


def wire(http_url: str | None = None, ws_url: str | None = None) -> VenueWire:
    """Return the venue's addresses; None: the real ones."""
    http, streams = (http_url or HTTP_URL).rstrip("/"), (ws_url or WS_URL).rstrip("/")

    def depth(symbol: str, limit: int) -> str:
        return f"{http}/api/v3/depth?symbol={quote(symbol, safe='')}&limit={limit}"

    return VenueWire(
        ws_url=f"{streams}/stream",
        book_url=lambda symbol: depth(symbol, SNAPSHOT_LEVELS),
        check_url=lambda symbol: depth(symbol, CHECK_LEVELS),
        limits=polite(WEIGHT_PER_MINUTE, book=50, check=5, used_header="X-MBX-USED-WEIGHT-1M"),
    )
