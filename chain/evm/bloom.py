"""Bloom filters of blocks and receipts: what a block says about its logs, to hold answers against.

A filter has 2048 bits; each address and topic of a log sets three of them, taken from its
Keccak-256. Source: Ethereum yellow paper, section 4.4.1 (function M).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from eth_utils.crypto import keccak

BITS: Final = 2_048
CACHE_MAX: Final = 65_536


@lru_cache(maxsize=CACHE_MAX)
def bits_of(item: bytes) -> int:
    """Return the filter, as an integer, of one address (20 bytes) or topic (32 bytes)."""
    digest = keccak(item)
    bits = 0
    for start in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[start : start + 2], "big") % BITS)
    return bits


def bloom_of(items: Iterable[bytes]) -> int:
    """Return the filter of several addresses and topics."""
    bits = 0
    for item in items:
        bits |= bits_of(item)
    return bits


def may_contain(bloom: int, item: bytes) -> bool:
    """Tell whether *item* may be in the filter; False is certain."""
    bits = bits_of(item)
    return bloom & bits == bits
