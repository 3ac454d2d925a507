"""Recursive length prefix, in its one canonical form: what encodes differently is refused.

Source: Ethereum yellow paper, appendix B. A decoder that tolerates other forms lets one transaction
have several byte strings, and so several hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from chain.errors import BadTransaction

SHORT_MAX: Final = 55
"""Longest payload whose length fits into the first byte."""
DEPTH_MAX: Final = 8

Item: TypeAlias = "bytes | list[Item]"
Encodable: TypeAlias = "bytes | Sequence[Encodable]"


def encode(item: Encodable) -> bytes:
    """Return the canonical encoding of bytes, or of a (nested) sequence of bytes."""
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _prefix(len(item), 0x80) + item
    payload = b"".join(encode(part) for part in item)
    return _prefix(len(payload), 0xC0) + payload


def decode(data: bytes) -> Item:
    """Return what *data* encodes.

    Raises:
        BadTransaction: *data* is not the canonical encoding of exactly one item.
    """
    item, end = _decode_at(data, 0, len(data), 0)
    if end != len(data):
        raise BadTransaction(f"{len(data) - end} bytes follow the end of the RLP item")
    return item


def encode_int(value: int) -> bytes:
    """Return a non-negative integer as RLP content: big-endian, no leading zero, zero is empty."""
    if value < 0:
        raise BadTransaction("RLP has no negative integers")
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def decode_int(content: Item, name: str, maximum: int) -> int:
    """Return the integer in *content*, refusing leading zeros and more than *maximum*."""
    if not isinstance(content, bytes):
        raise BadTransaction(f"{name} is a list, not a number")
    if content[:1] == b"\x00":
        raise BadTransaction(f"{name} has leading zeros")
    value = int.from_bytes(content, "big")
    if value > maximum:
        raise BadTransaction(f"{name} is {value}, more than {maximum}")
    return value


def _prefix(length: int, offset: int) -> bytes:
    if length <= SHORT_MAX:
        return bytes([offset + length])
    size = encode_int(length)
    return bytes([offset + SHORT_MAX + len(size)]) + size


def _decode_at(data: bytes, start: int, limit: int, depth: int) -> tuple[Item, int]:
    if depth > DEPTH_MAX:
        raise BadTransaction("RLP lists are nested too deep")
    if start >= limit:
        raise BadTransaction("the RLP item is cut short")
    first = data[start]
    if first < 0x80:
        return data[start : start + 1], start + 1
    is_list = first >= 0xC0
    begin, end = _payload(data, start, limit, 0xC0 if is_list else 0x80)
    if not is_list:
        content = data[begin:end]
        if len(content) == 1 and content[0] < 0x80:
            raise BadTransaction("a single small byte must stand for itself in RLP")
        return content, end
    parts: list[Item] = []
    while begin < end:
        part, begin = _decode_at(data, begin, end, depth + 1)
        parts.append(part)
    return parts, end


def _payload(data: bytes, start: int, limit: int, offset: int) -> tuple[int, int]:
    """Return where the payload of the item at *start* begins and ends."""
    length = data[start] - offset
    begin = start + 1
    if length > SHORT_MAX:
        begin += length - SHORT_MAX
        size = data[start + 1 : min(begin, limit)]
        if begin > limit or size[0] == 0:
            raise BadTransaction("an RLP length is cut short or has leading zeros")
        length = int.from_bytes(size, "big")
        if length <= SHORT_MAX:
            raise BadTransaction("an RLP length is written longer than needed")
    if begin + length > limit:
        raise BadTransaction("the RLP item is cut short")
    return begin, begin + length
