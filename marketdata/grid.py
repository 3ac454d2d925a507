"""Decimal texts of a venue as ticks and units of an instrument: exact, and fast for many at once.

Prices repeat, so their ticks are remembered; quantities seldom do, but a venue writes nearly all of
them with the same number of decimals, so their digits are read as one whole number (`plain_rows`).
What is written otherwise is read with more care, and what is no number at all is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kernel.errors import BadInput
from marketdata.errors import OffGrid
from marketdata.events import Rows
from marketdata.model import Instrument

REMEMBERED_MAX: Final = 100_000
"""Prices remembered of an instrument; then all are forgotten and the memory fills again."""

TEXT_MAX: Final = 40
"""Characters of a number; a longer one is no price or quantity of anything."""


class Grid:
    """Reads the numbers of one instrument.

    Args:
        instrument: whose ticks and smallest units.
        decimals: with how many the venue writes quantities, mostly.
    """

    def __init__(self, instrument: Instrument, *, decimals: int = 8) -> None:
        self.instrument = instrument
        self._ticks = _Ticks(instrument)
        self._scale = instrument.base.scale
        self._point = -decimals - 1
        self._factor = 10 ** (self._scale - decimals) if self._scale >= decimals > 0 else 0

    def ticks(self, text: str) -> int:
        """Return a decimal price in ticks.

        Raises:
            BadInput: not a decimal number.
            OffGrid: not positive, or not a whole number of ticks.
        """
        return self._ticks[text]

    def units(self, text: str) -> int:
        """Return a decimal quantity in smallest units of the base asset, what is less cut off.

        A venue may keep finer quantities than its lots or our units are; they cannot be traded.

        Raises:
            BadInput: not a decimal number, or negative.
        """
        return _scaled(text, self._scale)

    def rows(self, levels: Sequence[tuple[str, str]]) -> Rows:
        """Return (price, quantity) texts as ticks and units; quantity 0 is kept: it removes.

        Raises:
            BadInput: a text is not a decimal number, or negative.
            OffGrid: a price is not positive, or not a whole number of ticks.
        """
        return tuple([(self.ticks(price), self.units(quantity)) for price, quantity in levels])

    def plain_rows(self, levels: Sequence[tuple[str, str]]) -> Rows:
        """Return the same of texts out of bytes that `is_plain`, in less time.

        Of such a text `int` takes digits and nothing else. All that is left to look at is where the
        point is, and that there is one.
        """
        ticks, point, factor = self._ticks, self._point, self._factor
        try:
            rows = tuple(
                [
                    (ticks[price], int(quantity.replace(".", "", 1)) * factor)
                    for price, quantity in levels
                    if quantity[point] == "."
                ]
            )
        except (IndexError, ValueError):
            rows = ()
        return rows if factor and len(rows) == len(levels) else self.rows(levels)


def is_plain(data: bytes) -> bool:
    """Tell whether JSON has none of what `int` reads in a text that is no decimal number.

    Those are signs, spaces, underscores, other digits than ours, and escapes, which may be any.
    """
    return data.isascii() and not (
        b"-" in data or b"_" in data or b" " in data or b"+" in data or b"\\" in data
    )


class _Ticks(dict[str, int]):
    """Ticks by text, found once each."""

    def __init__(self, instrument: Instrument) -> None:
        super().__init__()
        self._instrument = instrument

    def __missing__(self, text: str) -> int:
        grid = self._instrument
        steps = _scaled(text, grid.price_scale, exactly=True)
        ticks, rest = divmod(steps, grid.tick)
        if rest or not ticks:
            raise OffGrid(f"{text} is not a price of {grid.symbol} at {grid.venue}")
        if len(self) >= REMEMBERED_MAX:
            self.clear()
        self[text] = ticks
        return ticks


def _scaled(text: str, scale: int, *, exactly: bool = False) -> int:
    """Return a number in units of ``10 ** -scale``; what is less is cut off, or refused."""
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if len(text) > TEXT_MAX or not (digits.isascii() and digits.isdigit()):
        raise BadInput(f"{text[:TEXT_MAX]!r} is not a decimal number")
    if len(fraction) <= scale:
        return int(digits) * int(10 ** (scale - len(fraction)))
    units, rest = divmod(int(digits), int(10 ** (len(fraction) - scale)))
    if rest and exactly:
        raise OffGrid(f"{text} has more than {scale} decimals")
    return units
