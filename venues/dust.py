"""Exact amounts out of a venue's decimal text, with what lies beyond the asset's scale."""

from __future__ import annotations

import re
from typing import Final

from kernel.errors import BadInput
from kernel.money import Asset
from venues.model import DUST_SCALE

_DECIMAL: Final = re.compile(r"(?P<sign>-?)(?P<whole>\d{1,78})(?:\.(?P<fraction>\d{1,78}))?")
_WHOLE: Final = 10**DUST_SCALE


def round_up(text: str, asset: Asset) -> tuple[int, int]:
    """Return (units, dust) of what we pay: ``units - dust`` is the venue's figure."""
    exact = _exact(text, asset)
    units = -(-exact // _WHOLE)
    return units, units * _WHOLE - exact


def round_down(text: str, asset: Asset) -> tuple[int, int]:
    """Return (units, dust) of what we get: ``units + dust`` is the venue's figure."""
    exact = _exact(text, asset)
    return exact // _WHOLE, exact % _WHOLE


def _exact(text: str, asset: Asset) -> int:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise BadInput(f"{text!r} is not an amount of {asset.code}")
    places = asset.scale + DUST_SCALE
    fraction = (match["fraction"] or "").rstrip("0")
    if len(fraction) > places:
        raise BadInput(f"{text!r} of {asset.code} has more than {places} decimal places")
    exact = int(match["whole"] + fraction.ljust(places, "0"))
    return -exact if match["sign"] else exact
