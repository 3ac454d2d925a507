"""API keys, signatures and request times, as Binance spot checks them.

A signature is over the exact query string followed by the exact body, without the `signature`
parameter itself. Times: a request is refused when its timestamp is a second or more ahead of the
venue or older than its `recvWindow`. Source: binance-spot-api-docs, rest-api.md, "Timing security".
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final
from urllib.parse import parse_qsl, unquote

from venues.simulator.binance.parameters import integer
from venues.simulator.binance.refusals import ApiError, illegal_characters, missing
from venues.simulator.binance.signatures import is_signed_by
from venues.simulator.model import ApiKeySpec
from venues.simulator.state import VenueState

API_KEY_HEADER: Final = "X-MBX-APIKEY"
RECV_WINDOW_DEFAULT_MS: Final = 5_000
RECV_WINDOW_MAX_MS: Final = 60_000
AHEAD_MAX_MS: Final = 1_000

_API_KEY: Final = re.compile(r"[A-Za-z0-9]{16,128}")
_WINDOW: Final = re.compile(r"[0-9]{1,5}(\.[0-9]{1,3})?")
_SIGNATURE: Final = re.compile(r"(?:^|&)signature=([^&]*)")


def parameters(query: str, body: str) -> dict[str, str]:
    """The parameters of a request from its raw query and body.

    Raises:
        ApiError: -1101 when a parameter is sent twice.
    """
    pairs = _pairs(query) + _pairs(body)
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ApiError(-1101, "Duplicate values for a parameter detected.")
    return found


def key_named(state: VenueState, api_key: str) -> ApiKeySpec:
    """The key with what it may do.

    Raises:
        ApiError: -2014 for what cannot be a key, -2015 for an unknown one.
    """
    if _API_KEY.fullmatch(api_key) is None:
        raise ApiError(-2014, "API-key format invalid.", status=401)
    key = state.keys.get(api_key)
    if key is None:
        raise _rejected()
    return key


def require_permission(key: ApiKeySpec, permission: str) -> None:
    """Refuse a key that may not do this.

    Raises:
        ApiError: -2015.
    """
    if permission not in key.permissions:
        raise _rejected()


def require_signature(key: ApiKeySpec, query: str, body: str) -> None:
    """Check the signature over the raw text of a request.

    Raises:
        ApiError: -1102 when there is none, -1022 when it is wrong.
    """
    found = _SIGNATURE.search(query) or _SIGNATURE.search(body)
    if found is None or not found[1]:
        raise missing("signature")
    payload = "".join([_SIGNATURE.sub("", part) for part in (query, body) if part])
    if not is_signed_by(key, payload, unquote(found[1])):
        raise ApiError(-1022, "Signature for this request is not valid.")


def require_timely(sent: Mapping[str, str], now_ms: int) -> None:
    """Check `timestamp` and `recvWindow` (up to three decimals) against the venue's time.

    Raises:
        ApiError: -1102, -1100, -1131 or -1021.
    """
    timestamp_ms = integer(sent, "timestamp")
    window_ms = Decimal(RECV_WINDOW_DEFAULT_MS)
    if "recvWindow" in sent:
        if _WINDOW.fullmatch(sent["recvWindow"]) is None:
            raise illegal_characters("recvWindow", "^[0-9]{1,5}(\\.[0-9]{1,3})?$")
        window_ms = Decimal(sent["recvWindow"])
    if window_ms > RECV_WINDOW_MAX_MS:
        raise ApiError(-1131, f"recvWindow must be less than {RECV_WINDOW_MAX_MS}.")
    if timestamp_ms >= now_ms + AHEAD_MAX_MS:
        raise ApiError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now_ms - timestamp_ms > window_ms:
        raise ApiError(-1021, "Timestamp for this request is outside of the recvWindow.")


def _rejected() -> ApiError:
    return ApiError(-2015, "Invalid API-key, IP, or permissions for action.", status=401)


def _pairs(text: str) -> list[tuple[str, str]]:
    if "%" in text or "+" in text:
        return parse_qsl(text, keep_blank_values=True)
    # Nothing to decode, as nearly always: what parse_qsl gives then, in a fifth of the time.
    parts = [pair.partition("=") for pair in text.split("&") if pair]
    return [(name, value) for name, _, value in parts]
