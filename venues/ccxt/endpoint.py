"""Where a ccxt instance sends its requests.

`set_sandbox_mode` is no help: it swaps in a table of test hosts without wallet calls. So the URLs
of the instance are rewritten: every one keeps its path and gets another scheme and host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from kernel.errors import BadInput
from kernel.settings import Secret

SPOT_OPTIONS: Final[Mapping[str, Any]] = {
    "defaultType": "spot",
    "fetchMarkets": {"types": ["spot"]},
    "fetchMargins": False,
}
"""Only spot, only one host."""

ALWAYS: Final[Mapping[str, Any]] = {"maxRetriesOnFailure": 0}
"""Never a second POST that nobody asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A venue's address; None leaves ccxt's own, which is the real venue.

    Attributes:
        private_ws_url: of private streams, where they are elsewhere than the public ones; it may
            have a path of its own.
    """

    http_url: str | None = None
    ws_url: str | None = None
    private_ws_url: str | None = None

    def __post_init__(self) -> None:
        streams = {"ws", "wss"}
        for url, schemes in (
            (self.http_url, {"http", "https"}),
            (self.ws_url, streams),
            (self.private_ws_url, streams),
        ):
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
    credentials: Credentials | None,
    *,
    timeout_ms: int,
    rate_limit: bool,
    options: Mapping[str, Any] = SPOT_OPTIONS,
) -> dict[str, Any]:
    """Return the constructor settings of a ccxt class."""
    keys: dict[str, Any] = {}
    if credentials is not None:
        keys = {"apiKey": credentials.api_key, "secret": credentials.secret.reveal()}
    return {
        **keys,
        "timeout": timeout_ms,
        "enableRateLimit": rate_limit,
        "options": {name: _copy(value) for name, value in {**options, **ALWAYS}.items()},
    }


def point_at(exchange: Any, endpoint: Endpoint) -> None:
    """Send *exchange* (an instance of any class of ccxt) to *endpoint*.

    The WebSocket base of Binance's market streams must hold ``/stream``: by that ccxt tells spot
    from futures. All other URLs keep their paths.
    """
    api = exchange.urls["api"]
    if endpoint.http_url is not None:
        if urlsplit(endpoint.http_url).scheme == "http":
            exchange.timeout_on_exit = 0  # which is for TLS connections to be shut down
        for name, url in list(api.items()):
            if isinstance(url, str):
                api[name] = _moved(url, endpoint.http_url)
    if endpoint.ws_url is not None and isinstance(api.get("ws"), Mapping):
        base = endpoint.ws_url.rstrip("/")
        private = (endpoint.private_ws_url or endpoint.ws_url).rstrip("/")
        api["ws"] = _streams(api["ws"], base, private)


def _streams(table: Mapping[str, Any], base: str, private: str) -> dict[str, Any]:
    if "ws-api" in table:
        return {"spot": f"{base}/stream/ws", "ws-api": {"spot": f"{base}/ws-api/v3"}}
    return {
        name: _moved(url, private if "private" in name else base)
        if isinstance(url, str)
        else _streams(url, base, private)
        for name, url in table.items()
    }


def _moved(url: str, target: str) -> str:
    parts, old = urlsplit(target), urlsplit(url)
    path = parts.path.rstrip("/") + old.path
    return urlunsplit(old._replace(scheme=parts.scheme, netloc=parts.netloc, path=path))


def _copy(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value
