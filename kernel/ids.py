"""Identifiers that the caller makes: deterministic, ordered by time, safe to make twice.

The layout is UUID version 8 of RFC 9562, section 5.8: 48 bits of Unix milliseconds first, as in
version 7, so that index pages fill in order; then 74 bits of a SHA-256 over everything that makes
the object what it is. The same act therefore has the same id after a crash, a retry or a replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

from kernel.clock import to_unix_ms
from kernel.errors import BadInput


def canonical(parts: Iterable[object]) -> bytes:
    """Return *parts* as unambiguous bytes: each one with its length, so no two lists collide."""
    encoded = [_encode(part) for part in parts]
    return b"".join([len(piece).to_bytes(4, "big") + piece for piece in encoded])


def derive_id(at: datetime, *parts: object) -> UUID:
    """Return the id of what *parts* describe, born at *at* (timezone-aware).

    Args:
        at: creation time of the domain row, not of the attempt: it orders the ids.
        parts: the verb, the row, the epoch, the attempt; str, int, bytes, UUID or None.
    """
    digest = int.from_bytes(hashlib.sha256(canonical(parts)).digest()[:10], "big")
    value = (to_unix_ms(at) & (2**48 - 1)) << 80
    value |= 0x8 << 76
    value |= ((digest >> 62) & 0xFFF) << 64
    value |= 0b10 << 62
    value |= digest & (2**62 - 1)
    return UUID(int=value)


def _encode(part: object) -> bytes:
    # The commonest first: ids are derived for every row and event.
    if isinstance(part, str):
        return b"s" + part.encode()
    if isinstance(part, UUID):
        return b"u" + part.bytes
    if isinstance(part, int):
        return b"i%d" % part
    if part is None:
        return b"n"
    if isinstance(part, bytes):
        return b"b" + part
    raise BadInput(f"an id cannot be derived from a {type(part).__name__}")


def stable_id(*parts: object) -> UUID:
    """Return the id of something known by name alone (a party's agreement), whenever it is made."""
    return derive_id(datetime(1970, 1, 1, tzinfo=UTC), *parts)
