"""Fields of a venue's JSON, read exactly: a decimal is a text, or an integer, never a float."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kernel.errors import BadInput
from kernel.money import Asset
from matching.model import Side

EXPONENT_MAX: Final = 60
"""A larger power of ten is no amount of anything."""

SIDES: Final = {"BUY": Side.BUY, "SELL": Side.SELL, "buy": Side.BUY, "sell": Side.SELL}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d{1,78})(?:\.(?P<fraction>\d{1,78}))?(?:[eE](?P<power>[+-]?\d{1,3}))?",
    re.ASCII,
)
_PLAIN: Final = re.compile(r"-?\d{1,78}(?:\.\d{1,78})?", re.ASCII)
"""What most are: without an exponent, so that it is returned as it is."""
_RFC3339: Final = re.compile(
    r"(?P<second>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d{1,12}))?Z", re.ASCII
)


def plain(text: str) -> str:
    """Return a decimal text without an exponent, digit for digit: ``1E+1`` is ``10``.

    Raises:
        BadInput: it is none.
    """
    if _PLAIN.fullmatch(text):
        return text
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise BadInput(f"{text!r} is not a decimal")
    power = int(match["power"] or 0)
    if abs(power) > EXPONENT_MAX:
        raise BadInput(f"{text!r} is out of all proportion")
    sign = "-" if match["sign"] == "-" else ""
    whole, fraction = match["whole"], match["fraction"] or ""
    if power >= 0:
        moved = fraction.ljust(power, "0")
        whole, fraction = whole + moved[:power], moved[power:]
    else:
        moved = whole.rjust(1 - power, "0")
        whole, fraction = moved[:power], moved[power:] + fraction
    if power:
        whole = whole.lstrip("0") or "0"
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, Mapping):
        raise BadInput(f"the venue answered with {type(value).__name__} where an object was due")
    return value


def rows(value: Any) -> list[Any]:
    """Return a JSON list."""
    if not isinstance(value, list):
        raise BadInput(f"the venue answered with {type(value).__name__} where a list was due")
    return value


def text_of(row: Mapping[str, Any], key: str) -> str:
    """Return a field as text; an integer is one, a float is not."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(f"the venue's answer has no {key!r} that can be read")
    text = str(value)
    if not text.isprintable():  # what is on record is UTF-8, and has no zero bytes
        raise BadInput(f"the venue's answer has a {key!r} that is no text")
    return text


def decimal_of(row: Mapping[str, Any], key: str) -> str:
    """Return a field as a plain decimal text."""
    return plain(text_of(row, key))


def units_of(row: Mapping[str, Any], key: str, asset: Asset) -> int:
    """Return a field in smallest units of *asset*."""
    return asset.parse(decimal_of(row, key))


def truth_of(row: Mapping[str, Any], key: str) -> bool:
    """Return a field that is true or false."""
    value = row.get(key)
    if not isinstance(value, bool):
        raise BadInput(f"the venue's answer has no {key!r} that can be read")
    return value


def side_of(text: str) -> Side:
    """Read a side."""
    if text not in SIDES:
        raise BadInput(f"{text!r} is not a side")
    return SIDES[text]


def asset_of(assets: Mapping[str, Asset], code: str) -> Asset:
    """Return an asset by its code."""
    if code not in assets:
        raise BadInput(
            f"the venue speaks of {code}, which is not a known asset",
            remedy="Register the asset before it is traded or charged",
        )
    return assets[code]


def moment(time_ms: Any) -> datetime:
    """Read milliseconds since 1970."""
    text = str(time_ms)
    if not text.isdecimal():
        raise BadInput(f"{text!r} is not a time in milliseconds")
    return _EPOCH + timedelta(milliseconds=int(text))


def moment_of_seconds(text: str) -> datetime:
    """Read seconds since 1970 with a fraction, cut to the millisecond."""
    whole, _, fraction = plain(text).partition(".")
    return moment(whole + fraction[:3].ljust(3, "0"))


def moment_of_rfc3339(text: str) -> datetime:
    """Read an RFC 3339 time in UTC, cut to the millisecond."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise BadInput(f"{text!r} is not a time in RFC 3339")
    at = datetime.fromisoformat(f"{match['second']}+00:00")
    return at + timedelta(milliseconds=int((match["fraction"] or "")[:3].ljust(3, "0")))
