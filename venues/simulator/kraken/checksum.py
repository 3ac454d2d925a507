"""The CRC32 of a book, as WebSocket v2 sends it with every snapshot and update.

Of the ten best asks from the best upwards, then of the ten best bids from the best downwards: price
and quantity without point and without leading zeros, joined. Source: docs.kraken.com, Book checksum
(WebSocket v2); the example of that page gives 3310070434.
"""

import zlib
from collections.abc import Iterable
from itertools import islice
from typing import Final

LEVELS: Final = 10

Level = tuple[str, str]


def checksum(asks: Iterable[Level], bids: Iterable[Level]) -> int:
    """The checksum of levels (price, quantity) as they stand on the wire, best first."""
    parts = [
        _digits(text) for side in (asks, bids) for level in islice(side, LEVELS) for text in level
    ]
    return zlib.crc32("".join(parts).encode())


def _digits(text: str) -> str:
    return text.replace(".", "").lstrip("0")
