"""Between decimal text on the wire and integers inside.

Every asset counts in units of 1e-8, as Binance spot does; prices and quantities are texts of the
same scale before they become ticks and lots.
"""

import re
from typing import Final

from venues.simulator.errors import Refusal, VenueRefusal

DECIMALS: Final = 8
UNIT: Final = 10**DECIMALS

_NUMBER: Final = re.compile(r"([0-9]{1,20})(\.[0-9]{1,20})?")


def units_from_text(parameter: str, text: str) -> int:
    """Read `1.5` as 150000000 units.

    Raises:
        VenueRefusal: MALFORMED for what is not a plain decimal, TOO_PRECISE for a ninth decimal
            place.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise VenueRefusal(
            Refusal.MALFORMED,
            f"{parameter} {text!r} is not a plain decimal number like 12.5",
            subject=parameter,
        )
    fraction = (match[2] or ".")[1:].rstrip("0")
    if len(fraction) > DECIMALS:
        raise VenueRefusal(
            Refusal.TOO_PRECISE,
            f"{parameter} {text!r} has more than {DECIMALS} decimals",
            subject=parameter,
        )
    return int(match[1]) * UNIT + int(fraction.ljust(DECIMALS, "0"))


def text_from_units(units: int) -> str:
    """Write 150000000 units as `1.50000000`."""
    sign = "-" if units < 0 else ""
    whole, fraction = divmod(abs(units), UNIT)
    return f"{sign}{whole}.{fraction:0{DECIMALS}d}"
