"""What taking liquidity would cost: walking the levels that an order would trade against."""

from __future__ import annotations

from dataclasses import dataclass

from marketdata.model import BookView
from matching.model import Side


@dataclass(frozen=True, slots=True)
class Sweep:
    """The result of walking a side: `units` found, `worst_ticks` reached (None: nothing found)."""

    units: int
    worst_ticks: int | None


def sweep(view: BookView, side: Side, units: int, *, limit_ticks: int | None = None) -> Sweep:
    """Return what an order of *side* for *units* of the base would find, never past the limit."""
    found, worst = 0, None
    for level in view.asks if side is Side.BUY else view.bids:
        if found >= units or not _within(level.ticks, limit_ticks, side):
            break
        found = min(units, found + level.units)
        worst = level.ticks
    return Sweep(found, worst)


def _within(ticks: int, limit_ticks: int | None, side: Side) -> bool:
    if limit_ticks is None:
        return True
    return ticks <= limit_ticks if side is Side.BUY else ticks >= limit_ticks
