"""Numbers and times as Kraken writes them.

REST sends decimals as texts and times as seconds; WebSocket v2 sends decimals as JSON numbers that
keep the zeros of their precision (`0.10000000`), which the checksum of a book needs, and times in
RFC 3339. A number is therefore written here as text and put into a frame as it is.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import orjson

from venues.simulator.decimals import DECIMALS, UNIT
from venues.simulator.model import SymbolSpec

REST_PRICE_DECIMALS: Final = 5

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,24}(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,2})?")


def raw(text: str) -> orjson.Fragment:
    """A number that goes to the wire exactly as it is written."""
    return orjson.Fragment(text)


def scaled(units: int, decimals: int) -> str:
    """An amount in units of 1e-8 with this many decimals, cut off if there are fewer."""
    sign, digits = ("-", -units) if units < 0 else ("", units)
    if decimals >= DECIMALS:
        digits *= 10 ** (decimals - DECIMALS)
    else:
        digits //= 10 ** (DECIMALS - decimals)
    whole, fraction = divmod(digits, 10**decimals)
    return f"{sign}{whole}.{fraction:0{decimals}d}" if decimals else f"{sign}{whole}"


def decimals_of(step_units: int) -> int:
    """The decimals a step of so many units of 1e-8 needs."""
    decimals = DECIMALS
    while decimals and step_units % 10 == 0:
        step_units //= 10
        decimals -= 1
    return decimals


def price_decimals(spec: SymbolSpec) -> int:
    """`pair_decimals` of a market."""
    return decimals_of(spec.tick_units)


def lot_decimals(spec: SymbolSpec) -> int:
    """`lot_decimals` of a market."""
    return decimals_of(spec.lot_units)


def price(spec: SymbolSpec, ticks: int) -> str:
    """A price with the decimals of its pair."""
    return scaled(ticks * spec.tick_units, price_decimals(spec))


def rest_price(spec: SymbolSpec, ticks: int) -> str:
    """A price as market data over REST has it: with five decimals, or more where a pair has more."""
    return scaled(ticks * spec.tick_units, max(REST_PRICE_DECIMALS, price_decimals(spec)))


def quantity(spec: SymbolSpec, lots: int) -> str:
    """A quantity with the decimals of its pair."""
    return scaled(lots * spec.lot_units, lot_decimals(spec))


def amount(units: int) -> str:
    """An amount of any asset, with all eight decimals."""
    return scaled(units, DECIMALS)


def average_price(spec: SymbolSpec, quote_units: int, lots: int, decimals: int) -> str:
    """What a lot cost on average, cut off at so many decimals; zero without a trade."""
    if not lots:
        return scaled(0, decimals)
    return scaled(quote_units * UNIT // (lots * spec.lot_units), decimals)


def units_of(text: str) -> int | None:
    """Units of 1e-8 of a decimal text, or None for what is no number or too precise."""
    if _NUMBER.fullmatch(text) is None:
        return None
    value = Decimal(text).scaleb(DECIMALS)
    return int(value) if value == value.to_integral_value() else None


def seconds(at_ms: int) -> orjson.Fragment:
    """A time over REST: seconds with a fraction."""
    return raw(f"{at_ms // 1000}.{at_ms % 1000:03d}0")


def nanoseconds(at_ms: int) -> int:
    """A time as a cursor: nanoseconds."""
    return at_ms * 1_000_000


def rfc3339(at_ms: int) -> str:
    """A time on WebSocket v2, with microseconds."""
    moment = datetime.fromtimestamp(at_ms // 1000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}000Z"


def ms_from_rfc3339(text: str) -> int | None:
    """Milliseconds of an RFC 3339 time, or None for what is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return (moment - _EPOCH) // timedelta(milliseconds=1)
