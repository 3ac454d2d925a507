"""Whether a deal's price is off the market: too far from the mid, on either side. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from kernel.money import Price
from marketdata.price_model import PPM
from trading.model import DealSide


@dataclass(frozen=True, slots=True, kw_only=True)
class OffMarket:
    """A price further from the market's than the terms allow without a reason.

    Attributes:
        ppm: by how much the price is above (negative: below) the market's, in millionths of the
            market's, away from zero: never shown as within the tolerance.
        tolerance_ppm: how far it may be.
        favours_desk: the desk gains by it; otherwise the party does, and either is looked into.
    """

    ppm: int
    tolerance_ppm: int
    favours_desk: bool


def judge(price: Price, market: Price, side: DealSide, tolerance_ppm: int) -> OffMarket | None:
    """Return how far *price* is off, or None if it is within the tolerance, bounds included.

    Compared in integers: ``|price - market| * PPM > tolerance * market``.

    Args:
        price: what the two agreed.
        market: the same pair's mid at that moment.
        side: which way the base asset goes.
        tolerance_ppm: millionths of the market's price.
    """
    ours = price.numerator * market.denominator
    theirs = market.numerator * price.denominator
    distance = abs(ours - theirs) * PPM
    if distance <= tolerance_ppm * theirs:
        return None
    ppm = -(-distance // theirs)
    is_above = ours > theirs
    return OffMarket(
        ppm=ppm if is_above else -ppm,
        tolerance_ppm=tolerance_ppm,
        favours_desk=is_above is (side is DealSide.DESK_SELLS),
    )
