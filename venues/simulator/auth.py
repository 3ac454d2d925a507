"""API keys, signatures and request times, as Binance spot checks them.

Signature: hex HMAC-SHA256 over the exact query string followed by the exact body, without the
`signature` parameter itself. Times: a request is refused when it is more than a second ahead of the
venue or older than its `recvWindow`. Source: binance-spot-api-docs, rest-api.md, "Timing security".
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from venues.simulator.errors import VenueRefusal, illegal_characters, missing
from venues.simulator.state import Account, VenueState

API_KEY_HEADER: Final = "X-MBX-APIKEY"
RECV_WINDOW_DEFAULT_MS: Final = 5_000
RECV_WINDOW_MAX_MS: Final = 60_000
AHEAD_MAX_MS: Final = 1_000

_API_KEY: Final = re.compile(r"[A-Za-z0-9]{16,128}")
_INTEGER: Final = re.compile(r"[0-9]{1,20}")
_SIGNATURE: Final = re.compile(r"(?:^|&)signature=([^&]*)")


def parameters(query: str, body: str) -> dict[str, str]:
    """The parameters of a request from its raw query and body.

    Raises:
        VenueRefusal: -1101 when a parameter is sent twice.
    """
    pairs = parse_qsl(query, keep_blank_values=True) + parse_qsl(body, keep_blank_values=True)
    found = dict(pairs)
    if len(found) < len(pairs):
        raise VenueRefusal(-1101, "Duplicate values for a parameter detected.")
    return found


def account_of_key(state: VenueState, api_key: str) -> Account:
    """The account a key belongs to.

    Raises:
        VenueRefusal: -2014 for what cannot be a key, -2015 for an unknown one.
    """
    if _API_KEY.fullmatch(api_key) is None:
        raise VenueRefusal(-2014, "API-key format invalid.", status=401)
    account = state.accounts_by_key.get(api_key)
    if account is None:
        raise VenueRefusal(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
    return account


def require_signature(secret: str, query: str, body: str) -> None:
    """Check the signature over the raw text of a request.

    Raises:
        VenueRefusal: -1102 when there is none, -1022 when it is wrong.
    """
    found = _SIGNATURE.search(query) or _SIGNATURE.search(body)
    if found is None or not found[1]:
        raise missing("signature")
    payload = _SIGNATURE.sub("", query) + _SIGNATURE.sub("", body)
    require_signature_of(secret, payload, found[1])


def require_signature_of(secret: str, payload: str, signature: str) -> None:
    """Check a signature over a payload.

    Raises:
        VenueRefusal: -1022 when it is wrong.
    """
    expected = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), signature.lower().encode()):
        raise VenueRefusal(-1022, "Signature for this request is not valid.")


def require_timely(sent: Mapping[str, str], now_ms: int) -> None:
    """Check `timestamp` and `recvWindow` against the venue's time.

    Raises:
        VenueRefusal: -1102, -1100, -1131 or -1021.
    """
    timestamp_ms = integer(sent, "timestamp")
    window_ms = RECV_WINDOW_DEFAULT_MS
    if "recvWindow" in sent:
        window_ms = integer(sent, "recvWindow")
    if window_ms > RECV_WINDOW_MAX_MS:
        raise VenueRefusal(-1131, f"recvWindow must be less than {RECV_WINDOW_MAX_MS}.")
    if timestamp_ms > now_ms + AHEAD_MAX_MS:
        raise VenueRefusal(
            -1021, "Timestamp for this request was 1000ms ahead of the server's time."
        )
    if now_ms - timestamp_ms > window_ms:
        raise VenueRefusal(-1021, "Timestamp for this request is outside of the recvWindow.")


def integer(sent: Mapping[str, str], name: str) -> int:
    """A mandatory whole number.

    Raises:
        VenueRefusal: -1102 when it is absent, -1100 when it is no number.
    """
    text = sent.get(name, "")
    if not text:
        raise missing(name)
    if _INTEGER.fullmatch(text) is None:
        raise illegal_characters(name, "^[0-9]{1,20}$")
    return int(text)
