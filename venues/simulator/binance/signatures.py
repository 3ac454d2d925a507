"""Signatures of requests: HMAC-SHA256 by a shared secret, RSA or Ed25519 by a registered key.

Pure. Source: binance-spot-api-docs, rest-api.md, "SIGNED Endpoint security": HMAC is in hex, RSA
(PKCS #1 v1.5 with SHA-256) and Ed25519 are in Base64, over the text of all parameters but the
signature itself.
"""

import base64
import binascii
import hmac

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from venues.simulator.model import ApiKeySpec


def is_signed_by(key: ApiKeySpec, payload: str, signature: str) -> bool:
    """Whether a signature over a payload was made with this key."""
    if not key.public_key:
        expected = hmac.digest(key.secret.encode(), payload.encode(), "sha256").hex()
        return hmac.compare_digest(expected.encode(), signature.lower().encode())
    try:
        raw = base64.b64decode(signature, validate=True)
        _verify(key.public_key, payload.encode(), raw)
    except (InvalidSignature, binascii.Error):
        return False
    return True


def is_ed25519(key: ApiKeySpec) -> bool:
    """Whether the key may open sessions: only Ed25519 keys may."""
    if not key.public_key:
        return False
    return isinstance(load_pem_public_key(key.public_key.encode()), Ed25519PublicKey)


def _verify(pem: str, payload: bytes, signature: bytes) -> None:
    public = load_pem_public_key(pem.encode())
    if isinstance(public, Ed25519PublicKey):
        public.verify(signature, payload)
    elif isinstance(public, RSAPublicKey):
        public.verify(signature, payload, PKCS1v15(), SHA256())
    else:
        raise InvalidSignature
