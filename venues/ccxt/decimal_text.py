"""The door for ccxt's floats: the only place where one becomes something exact."""

from __future__ import annotations

from decimal import Decimal
from math import isfinite

from kernel.errors import BadInput


def decimal_text(number: float) -> str:
    """Return the shortest decimal text that reads back as *number*, without an exponent.

    It is the venue's own text as long as that has at most 15 digits.

    Raises:
        BadInput: it is no finite number.
    """
    if not isfinite(number):
        raise BadInput(f"{number!r} is not a number of a market")
    return format(Decimal(repr(number)), "f")
