"""Kraken's numbers, digit for digit.

WebSocket v2 writes prices and quantities as JSON numbers with all decimals of the pair: ``0.10000000``.
A parser that makes a float of that forgets the zeros that the checksum of a book is made of, and a
float of 17 digits is another number. So a number stays the text that it was until it is an integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Raw

from kernel.errors import BadInput
from marketdata.events import Rows
from marketdata.grid import Grid
from marketdata.model import Instrument
from venues.ccxt.texts import plain
from venues.kraken.frames import LevelRow

DIGITS_MAX: Final = 40
"""A longer number is no price or quantity of anything."""


def rows_of(grid: Grid, levels: Sequence[LevelRow]) -> Rows:
    """Return one side of a book in ticks and units; quantity 0 is kept: it removes.

    Raises:
        BadInput, OffGrid: a number cannot be read, or is not on the grid.
    """
    try:
        return grid.rows([(str(one.price, "ascii"), str(one.qty, "ascii")) for one in levels])
    except (BadInput, UnicodeDecodeError):
        # A JSON number may have an exponent, and so far none had; what is no number is said here.
        return grid.rows([(text_of(level.price), text_of(level.qty)) for level in levels])


def text_of(number: Raw) -> str:
    """Return a number as a plain decimal.

    Raises:
        BadInput: it is none.
    """
    text = str(number, "ascii", "replace")
    if len(text) > DIGITS_MAX:
        raise BadInput(f"{text[:DIGITS_MAX]!r} is out of all proportion")
    return plain(text)


def decimals_of(number: Raw) -> int:
    """Return with how many decimals a number is written.

    Raises:
        BadInput: it is none.
    """
    return len(text_of(number).partition(".")[2])


def steps_of(number: Raw, item: Instrument) -> int:
    """Return a price or a difference of prices in ticks, cut towards zero; it may be zero.

    A price of the past may have been on another grid.

    Raises:
        BadInput: it is no number.
    """
    return _scaled(number, item.price_scale, item.tick)


def units_of(number: Raw, item: Instrument) -> int:
    """Return a quantity in smallest units of the base asset; what is less is cut off.

    Raises:
        BadInput: it is no number.
    """
    return _scaled(number, item.base.scale, 1)


def _scaled(number: Raw, scale: int, step: int) -> int:
    text = text_of(number)
    whole, _, fraction = text.lstrip("-").partition(".")
    units = int(whole + fraction[:scale].ljust(scale, "0")) // step
    return -units if text.startswith("-") else units
