"""Checksums of books: Kraken's CRC32 over the best ten levels of both sides.

Sources: Kraken's guides "Spot WebSockets (v2) book checksum" and "Book checksum (v1)"; the example
of the first gives 3310070434, that of the second 974947235.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from kernel.errors import BadInput
from marketdata.book import Checksum
from marketdata.events import Rows


def crc32_of_texts(asks: Iterable[tuple[str, str]], bids: Iterable[tuple[str, str]]) -> int:
    """Return the checksum of levels as the venue writes them (price, quantity), best first.

    Asks go first. Each number is written without its point and without leading zeros.
    """
    return crc32(
        "".join(
            number.replace(".", "").lstrip("0")
            for side in (asks, bids)
            for level in side
            for number in level
        ).encode()
    )


def kraken_checksum(*, price_step: int, units_per_lot: int = 1, lots_per_unit: int = 1) -> Checksum:
    """Return the checksum of a book whose rows are ticks and units.

    A whole number of the venue's last decimal has the same digits as the venue's text without its
    point and leading zeros, so no text is kept.

    Args:
        price_step: the tick, in units of the last decimal with which the venue writes prices.
        units_per_lot: the book's units in one unit of the last decimal of the venue's quantities:
            10**10 for 18 decimals of ours and 8 of theirs.
        lots_per_unit: the other way round, where the venue writes more decimals than our units
            have.

    Raises:
        BadInput: the steps are not positive, or quantities are scaled both ways.
    """
    if min(price_step, units_per_lot, lots_per_unit) < 1 or min(units_per_lot, lots_per_unit) > 1:
        raise BadInput("a checksum needs one positive scale of prices and one of quantities")

    def side(rows: Rows) -> str:
        return "".join([f"{t * price_step}{u // units_per_lot * lots_per_unit}" for t, u in rows])

    def checksum(bids: Rows, asks: Rows) -> int:
        return crc32(f"{side(asks)}{side(bids)}".encode())

    return checksum
