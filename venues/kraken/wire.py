"""Where Kraken's public streams and books are. Sources: docs.kraken.com, "Spot WebSocket v2", "Depth".

Public requests are counted by address, about one a second ("Spot REST rate limits"). The venue says
something every second by itself, so it needs no pings.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from venues.feeds.model import VenueWire, polite

HTTP_URL: Final = "https://api.kraken.com"
WS_URL: Final = "wss://ws.kraken.com"
REQUESTS_PER_MINUTE: Final = 60
LISTED_MAX: Final = 500
"""Levels of a side that the venue lists at most ("Get Order Book")."""


def wire(http_url: str | None = None, ws_url: str | None = None, *, depth: int = 100) -> VenueWire:
    """Return the venue's addresses; None: the real ones. Books are compared to *depth* levels."""
    http, streams = (http_url or HTTP_URL).rstrip("/"), (ws_url or WS_URL).rstrip("/")
    count = min(depth, LISTED_MAX)

    def listed(symbol: str) -> str:
        return f"{http}/0/public/Depth?pair={quote(symbol, safe='')}&count={count}"

    return VenueWire(
        ws_url=f"{streams}/v2",
        check_url=listed,
        limits=polite(REQUESTS_PER_MINUTE),
        heartbeat=None,
    )
