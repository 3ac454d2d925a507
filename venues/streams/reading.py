"""Reading frames exactly: numbers stay the text that they were sent as.

A venue that sends JSON numbers means decimals; through a float they would lose trailing zeros and,
for large balances, digits. Fields are read as those of answers are: see `venues.ccxt.texts`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kernel.errors import BadInput
from kernel.money import Asset
from venues.ccxt.reading import balance_from
from venues.ccxt.texts import text_of
from venues.model import VenueBalance
from venues.nesting import require_shallow


def decode(text: str) -> Any:
    """Return the value of a JSON text, its numbers with a point as their text.

    Raises:
        BadInput: it is not JSON.
    """
    try:
        require_shallow(text)
        return json.loads(text, parse_float=str, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"a frame is not JSON: {text[:80]!r}") from error


def word(row: Mapping[str, Any], key: str) -> str:
    """Return a text that is not empty, or a whole number as its text."""
    text = text_of(row, key)
    if not text:
        raise BadInput(f"{key!r} is empty")
    return text


def balance(asset: Asset, free: str, locked: str) -> VenueBalance:
    """Return a balance from the venue's figures, rounded down; zero is one."""
    return balance_from(asset, free, locked) or _nothing(asset)


def _nothing(asset: Asset) -> VenueBalance:
    return VenueBalance(asset=asset.code, free=0, locked=0, dust=0)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
