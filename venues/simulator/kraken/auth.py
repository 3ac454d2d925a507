"""API keys, signatures and nonces.

`API-Sign` is base64(HMAC-SHA512(base64-decoded secret, path + SHA256(nonce + body))). The nonce must
be higher than every nonce the key has sent, whoever sent it: it belongs to the key. A nonce is used up
by every request with a right signature, whatever becomes of the request. The venue forgets nonces
when it is started again. Source: docs.kraken.com, Spot REST authentication; Nonce.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from venues.simulator.kraken import errors
from venues.simulator.kraken.errors import KrakenRefusal

KEY_HEADER: Final = "API-Key"
SIGN_HEADER: Final = "API-Sign"
NONCE_MAX: Final = 1 << 64

Sent = Mapping[str, Any]

# Decimals in a JSON body stay the text they were.
_JSON: Final = msgspec.json.Decoder(dict[str, Any], float_hook=str)


def signature(secret: str, path: str, nonce: str, body: str) -> str:
    """What a request must carry in `API-Sign`.

    Raises:
        KrakenRefusal: the account's secret is no base64.
    """
    try:
        key = base64.b64decode(secret, validate=True)
    except binascii.Error as error:
        raise KrakenRefusal(errors.INVALID_SIGNATURE) from error
    digest = hashlib.sha256((nonce + body).encode()).digest()
    return base64.b64encode(hmac.new(key, path.encode() + digest, hashlib.sha512).digest()).decode()


def require_signature(secret: str, *, path: str, sent: Sent, body: str, given: str) -> None:
    """Check the signature of a request.

    Raises:
        KrakenRefusal: it is wrong or missing.
    """
    expected = signature(secret, path, str(sent.get("nonce", "")), body)
    if not hmac.compare_digest(expected.encode(), given.encode()):
        raise KrakenRefusal(errors.INVALID_SIGNATURE)


class Nonces:
    """The highest nonce of each key."""

    def __init__(self) -> None:
        self._highest: dict[str, int] = {}

    def accept(self, api_key: str, sent: Sent) -> int:
        """Use up a request's nonce.

        Raises:
            KrakenRefusal: it is no number or not higher than the last one.
        """
        text = str(sent.get("nonce", ""))
        nonce = int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0
        if not self._highest.get(api_key, 0) < nonce < NONCE_MAX:
            raise KrakenRefusal(errors.INVALID_NONCE)
        self._highest[api_key] = nonce
        return nonce


def parameters(query: str, body: str, content_type: str) -> dict[str, Any]:
    """What a request says: in its query and in its body, a form or a JSON object.

    Numbers of a JSON body become texts as they were written, as in a form.

    Raises:
        KrakenRefusal: the body is no JSON object though it is said to be one.
    """
    found: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    if content_type.startswith("application/json") or body.startswith("{"):
        return found | json_object(body)
    return found | dict(parse_qsl(body, keep_blank_values=True))


def json_object(text: str) -> dict[str, Any]:
    """A JSON object whose decimals stay texts.

    Raises:
        KrakenRefusal: it is none.
    """
    try:
        return _JSON.decode(text)
    except msgspec.DecodeError as error:
        raise KrakenRefusal("EGeneral:Invalid arguments") from error
