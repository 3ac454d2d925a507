"""The two hashes of Bitcoin, which extended keys and their base58 take from it, whatever the chain."""

from __future__ import annotations

import hashlib


def double_sha256(data: bytes) -> bytes:
    """Return SHA-256 of SHA-256."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def hash160(data: bytes) -> bytes:
    """Return RIPEMD-160 of SHA-256."""
    return hashlib.new("ripemd160", hashlib.sha256(data).digest()).digest()
