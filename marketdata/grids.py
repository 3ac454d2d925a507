"""Venues with different grids, counted in one: integers that are exact at every one of them.

A venue writes prices in ticks of its own size and quantities in its own scale of the base asset. On
the joint grid of some instruments a price is a whole number of ``10 ** -price_scale`` of the quote
asset per whole base, a quantity one of ``10 ** -base_scale`` of the base: the finest scale of any of
them, so that every conversion is a multiplication and nothing is ever rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from kernel.errors import BadInput
from kernel.money import Asset, Price
from marketdata.model import Instrument


@dataclass(frozen=True, slots=True)
class JointGrid:
    """The grid on which several instruments of one pair are exact.

    Attributes:
        base, quote: as the prices shall be told; their scales need not be the venues'.
        tick_factors, unit_factors: what a tick and a unit of each instrument are on it, in the
            order of the instruments.
    """

    base: Asset
    quote: Asset
    price_scale: int
    base_scale: int
    tick_factors: tuple[int, ...]
    unit_factors: tuple[int, ...]

    @classmethod
    def of(cls, base: Asset, quote: Asset, instruments: Sequence[Instrument]) -> Self:
        """Return the joint grid of *instruments*.

        Raises:
            BadInput: one of them is of another pair. A price in USDT is none in USD.
        """
        for item in instruments:
            if (item.base.code, item.quote.code) != (base.code, quote.code):
                raise BadInput(
                    f"{item.symbol} at {item.venue} is {item.base.code}/{item.quote.code},"
                    f" not {base.code}/{quote.code}"
                )
        price_scale = max((item.price_scale for item in instruments), default=0)
        base_scale = max((item.base.scale for item in instruments), default=base.scale)
        return cls(
            base,
            quote,
            price_scale,
            base_scale,
            tuple(item.tick * int(10 ** (price_scale - item.price_scale)) for item in instruments),
            tuple(int(10 ** (base_scale - item.base.scale)) for item in instruments),
        )

    def price(self, steps: int, parts: int = 1) -> Price:
        """Return the price of ``steps / parts`` steps of the grid."""
        return Price.of(
            steps * int(10**self.quote.scale),
            parts * int(10 ** (self.price_scale + self.base.scale)),
            self.base,
            self.quote,
        )
