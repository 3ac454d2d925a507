"""Assets, amounts and prices, exact by construction.

An amount is an ``int`` of the asset's smallest unit. ``Decimal`` appears only here, where text is
parsed and printed. A price is a ratio of integers; whoever converts with it names the rounding
direction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from math import gcd
from typing import Self

from kernel.errors import BadInput

AMOUNT_MAX = 2**256 - 1
"""The largest amount that is stored: what a uint256 holds; numeric(78,0) has room for it."""

SCALE_MAX = 36
"""More decimal places than any asset in use has; a larger figure is a typing error."""

_CODE = re.compile(r"[A-Z][A-Z0-9.\-]{0,31}")
_DECIMAL = re.compile(r"(?P<sign>-?)(?P<whole>\d{1,78})(?:\.(?P<fraction>\d{1,78}))?", re.ASCII)
_GROUPED = re.compile(r"-?\d{1,3}(?P<mark>[,_])\d{3}(?:(?P=mark)\d{3})*(?:\.\d+)?", re.ASCII)


class Rounding(Enum):
    """Where an inexact result goes."""

    DOWN = "down"
    """Towards zero: the payer keeps the remainder."""
    UP = "up"
    """Away from zero: the receiver keeps the remainder."""
    EXACT = "exact"
    """A remainder is refused."""


@dataclass(frozen=True, slots=True, order=True)
class Asset:
    """What is counted: a code and the number of decimal places of its smallest unit.

    A scale never changes once the asset is in use.
    """

    code: str
    scale: int

    def __post_init__(self) -> None:
        if not _CODE.fullmatch(self.code):
            raise BadInput(
                f"{self.code!r} is not an asset code",
                remedy="Use 1 to 32 capital letters, digits, dots or hyphens, a letter first",
            )
        if not 0 <= self.scale <= SCALE_MAX:
            raise BadInput(f"{self.code} has scale {self.scale}; 0 to {SCALE_MAX} are possible")

    def parse(self, text: str) -> int:
        """Return *text* (``"1.5"`` or ``"1.5 BTC"``) in smallest units.

        Raises:
            BadInput: not a plain decimal, another asset's code, or more places than the asset has.
        """
        number, _, code = text.strip().partition(" ")
        if code.strip() not in {"", self.code}:
            raise BadInput(f"{text!r} is in {code.strip()}, {self.code} is asked for")
        match = _match_decimal(number)
        if match is None:
            raise BadInput(f"{text!r} is not an amount", remedy=f'Write it as "1.5 {self.code}"')
        fraction = (match["fraction"] or "").rstrip("0")
        if len(fraction) > self.scale:
            raise BadInput(f"{text!r} has more than the {self.scale} decimal places of {self.code}")
        units = int(match["whole"] + fraction.ljust(self.scale, "0"))
        if units > AMOUNT_MAX:
            raise BadInput(f"{text!r} is larger than any amount that can be stored")
        return -units if match["sign"] else units

    def format(self, units: int, *, code: bool = True, places: int = 0) -> str:
        """Return *units* as a decimal with its asset: ``"1.5 BTC"``; at least *places* decimals."""
        digits = str(abs(units)).rjust(self.scale + 1, "0")
        whole, fraction = digits[: len(digits) - self.scale], digits[len(digits) - self.scale :]
        fraction = fraction.rstrip("0").ljust(min(places, self.scale), "0")
        text = ("-" if units < 0 else "") + f"{int(whole):,}" + (f".{fraction}" if fraction else "")
        return f"{text} {self.code}" if code else text


def _match_decimal(text: str) -> re.Match[str] | None:
    """Match a decimal; marks between groups of three digits are left out, ``1,5`` is none."""
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "").replace("_", "")
    return _DECIMAL.fullmatch(text)


def divide(numerator: int, denominator: int, rounding: Rounding) -> int:
    """Return the quotient rounded as named; sign by sign, so that -x rounds like x."""
    if denominator <= 0:
        raise BadInput(f"cannot divide by {denominator}")
    quotient, remainder = divmod(abs(numerator), denominator)
    if remainder:
        if rounding is Rounding.EXACT:
            raise BadInput(f"{numerator} is not a multiple of {denominator}")
        if rounding is Rounding.UP:
            quotient += 1
    return -quotient if numerator < 0 else quotient


def rescale(units: int, from_scale: int, to_scale: int, rounding: Rounding = Rounding.EXACT) -> int:
    """Return *units* of scale *from_scale* in units of *to_scale* (a chain's decimals, say)."""
    if to_scale >= from_scale:
        return units * int(10 ** (to_scale - from_scale))
    return divide(units, int(10 ** (from_scale - to_scale)), rounding)


@dataclass(frozen=True, slots=True)
class Price:
    """Units of *quote* for units of *base*, as a reduced ratio of positive integers.

    ``quote_units = base_units * numerator / denominator``.
    """

    base: Asset
    quote: Asset
    numerator: int
    denominator: int

    def __post_init__(self) -> None:
        if self.numerator <= 0 or self.denominator <= 0:
            raise BadInput(f"a price of {self.base.code} must be positive")

    @classmethod
    def parse(cls, text: str, base: Asset, quote: Asset) -> Self:
        """Read a decimal price per whole unit: ``"60000.25"`` USD for one BTC."""
        match = _match_decimal(text.strip())
        if match is None or match["sign"]:
            raise BadInput(f"{text!r} is not a price", remedy='Write it as "60000.25"')
        fraction = match["fraction"] or ""
        mantissa = int(match["whole"] + fraction)
        return cls.of(
            mantissa * int(10**quote.scale), int(10 ** (len(fraction) + base.scale)), base, quote
        )

    @classmethod
    def of(cls, numerator: int, denominator: int, base: Asset, quote: Asset) -> Self:
        """Return the ratio in lowest terms."""
        divisor = gcd(numerator, denominator) or 1
        return cls(base, quote, numerator // divisor, denominator // divisor)

    def to_quote(self, base_units: int, rounding: Rounding) -> int:
        """Return what *base_units* cost, in units of the quote asset."""
        return divide(base_units * self.numerator, self.denominator, rounding)

    def to_base(self, quote_units: int, rounding: Rounding) -> int:
        """Return how much of the base *quote_units* buy."""
        return divide(quote_units * self.denominator, self.numerator, rounding)

    def format(self, places: int = 8) -> str:
        """Return the price of one whole unit of the base, rounded down to *places* decimals."""
        units = divide(
            self.numerator * int(10 ** (self.base.scale + places)),
            self.denominator * int(10**self.quote.scale),
            Rounding.DOWN,
        )
        return f"{Asset(self.quote.code, places).format(units)}/{self.base.code}"
