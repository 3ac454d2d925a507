"""Reading Bitcoin's serialised forms from front to back; never past the end. Pure.

Source: Bitcoin developer reference (compact size); a length in a longer form than it needs is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from chain.errors import BadTransaction

T = TypeVar("T")


def encode_size(size: int) -> bytes:
    """Return a "compact size", in its shortest form."""
    if size < 0xFD:
        return bytes([size])
    if size <= 0xFFFF:
        return b"\xfd" + size.to_bytes(2, "little")
    return b"\xfe" + size.to_bytes(4, "little")


@dataclass(slots=True)
class ByteReader:
    """Reads *raw* from *at* on.

    Attributes:
        what: how an error calls it.
    """

    raw: bytes
    at: int = 0
    what: str = "the transaction"

    def take(self, count: int) -> bytes:
        """Return the next *count* bytes.

        Raises:
            BadTransaction: there are not so many.
        """
        found = self.raw[self.at : self.at + count]
        if len(found) != count:
            raise BadTransaction(f"{self.what} is cut short")
        self.at += count
        return found

    def number(self, width: int) -> int:
        """Return a number of *width* bytes, the lowest first."""
        return int.from_bytes(self.take(width), "little")

    def size(self) -> int:
        """Return a compact size that is in its shortest form and no more than there is."""
        first = self.number(1)
        if first < 0xFD:
            return first
        size = self.number({0xFD: 2, 0xFE: 4, 0xFF: 8}[first])
        if size > len(self.raw):
            raise BadTransaction(f"{self.what} is cut short")
        if encode_size(size)[0] != first:
            raise BadTransaction(f"the length {size} is not in its shortest form")
        return size

    def many(self, read: Callable[[], T]) -> list[T]:
        """Return as many parts as a size says."""
        # Every part takes a byte at least, so that a false count ends at the end of the bytes.
        return [read() for _ in range(self.size())]

    def data(self) -> bytes:
        """Return bytes behind their length."""
        return self.take(self.size())
