"""What venues charge, as a part of what a trade is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kernel.errors import BadInput
from marketdata.price_model import PPM
from matching.model import Side

FEE_PPM_MAX: Final = 100_000
"""A tenth; a higher figure is a typing error."""


@dataclass(frozen=True, slots=True)
class VenueFee:
    """What one venue charges of the notional, in millionths; below zero it pays."""

    taker_ppm: int
    maker_ppm: int = 0

    def __post_init__(self) -> None:
        if max(abs(self.taker_ppm), abs(self.maker_ppm)) > FEE_PPM_MAX:
            raise BadInput(
                f"a fee of {self.taker_ppm} or {self.maker_ppm} millionths is not likely"
            )


NO_FEE: Final = VenueFee(0)


def taker_steps(steps: int, side: Side, fee: VenueFee) -> int:
    """Return what a taker pays or gets in the end, in millionths of the steps that *steps* counts.

    ``ask · (1 + fee)`` for a buyer, ``bid · (1 - fee)`` for a seller; exact.
    """
    return steps * (PPM + fee.taker_ppm if side is Side.BUY else PPM - fee.taker_ppm)
