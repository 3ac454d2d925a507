"""Where a ccxt instance sends its requests.

`set_sandbox_mode` is no help: it swaps in a table of test hosts without wallet calls. So the URLs
of the instance are rewritten: every one keeps its path and gets another scheme and host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from kernel.errors import BadInput
from kernel.settings import Secret

SPOT_OPTIONS: Final[dict[str, Any]] = {
    "defaultType": "spot",
    "fetchMarkets": {"types": ["spot"]},
    "fetchMargins": False,
    "maxRetriesOnFailure": 0,
}
"""Only spot, only one host, and never a second POST that nobody asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A venue's address; None leaves ccxt's own, which is the real venue."""

    http_url: str | None = None
    ws_url: str | None = None

    def __post_init__(self) -> None:
        for url, schemes in ((self.http_url, {"http", "https"}), (self.ws_url, {"ws", "wss"})):
            if url is not None and (
                urlsplit(url).scheme not in schemes or not urlsplit(url).netloc
            ):
                raise BadInput(
                    f"{url!r} is no address of a venue", remedy="Write scheme://host:port"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The API key of one account."""

    api_key: str
    secret: Secret


def settings(
    credentials: Credentials | None, *, timeout_ms: int, rate_limit: bool
) -> dict[str, Any]:
    """Return the constructor settings of a ccxt class."""
    keys: dict[str, Any] = {}
    if credentials is not None:
        keys = {"apiKey": credentials.api_key, "secret": credentials.secret.reveal()}
    return {
        **keys,
        "timeout": timeout_ms,
        "enableRateLimit": rate_limit,
        "options": {name: _copy(value) for name, value in SPOT_OPTIONS.items()},
    }


def point_at(exchange: Any, endpoint: Endpoint) -> None:
    """Send *exchange* (a ccxt binance instance) to *endpoint*.

    The WebSocket base of market streams must hold ``/stream``: by that ccxt tells spot from futures.
    """
    api = exchange.urls["api"]
    if endpoint.http_url is not None:
        target = urlsplit(endpoint.http_url)
        if target.scheme == "http":
            exchange.timeout_on_exit = 0  # which is for TLS connections to be shut down
        for name, url in list(api.items()):
            if isinstance(url, str):
                moved = urlsplit(url)._replace(scheme=target.scheme, netloc=target.netloc)
                api[name] = urlunsplit(moved)
    if endpoint.ws_url is not None:
        base = endpoint.ws_url.rstrip("/")
        api["ws"] = {"spot": f"{base}/stream/ws", "ws-api": {"spot": f"{base}/ws-api/v3"}}


def _copy(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value
