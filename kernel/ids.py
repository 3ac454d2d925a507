"""Identifiers that the caller makes: deterministic, ordered by time, safe to make twice.

The layout is UUID version 8 of RFC 9562, section 5.8: 48 bits of Unix milliseconds first, as in
version 7, so that index pages fill in order; then 74 bits of a SHA-256 over everything that makes
the object what it is. The same act therefore has the same id after a crash, a retry or a replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from struct import Struct
from typing import Final
from uuid import UUID

from kernel.clock import to_unix_ms
from kernel.errors import BadInput

_LENGTH: Final = Struct(">I").pack
_TIME: Final = 2**48 - 1
_REST: Final = 2**62 - 1
_VERSION_AND_VARIANT: Final = 0x8 << 76 | 0b10 << 62


def canonical(parts: Iterable[object]) -> bytes:
    """Return *parts* as unambiguous bytes: each one with its length, so no two lists collide."""
    pieces = []
    for part in parts:
        # The commonest at once: ids are derived for every row and event.
        piece = b"s" + part.encode() if type(part) is str else _encode(part)
        pieces.append(_LENGTH(len(piece)))
        pieces.append(piece)
    return b"".join(pieces)


def derive_id(at: datetime, *parts: object) -> UUID:
    """Return the id of what *parts* describe, born at *at* (timezone-aware).

    Args:
        at: creation time of the domain row, not of the attempt: it orders the ids.
        parts: the verb, the row, the epoch, the attempt; str, int, bytes, UUID or None.
    """
    digest = int.from_bytes(hashlib.sha256(canonical(parts)).digest()[:10], "big")
    return UUID(
        int=(to_unix_ms(at) & _TIME) << 80
        | ((digest >> 62) & 0xFFF) << 64
        | digest & _REST
        | _VERSION_AND_VARIANT
    )


def _encode(part: object) -> bytes:
    if isinstance(part, UUID):
        return b"u" + part.bytes
    if isinstance(part, str):
        return b"s" + part.encode()
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
