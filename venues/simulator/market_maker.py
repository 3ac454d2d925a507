"""The synthetic market maker: where it quotes and what its counterpart flow trades.

Pure: the same seed, symbol and step always give the same plan, whatever happened in between, so a
replay needs to know only that a step was made.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from matching.model import NewOrder, Side, TimeInForce
from venues.simulator.model import PPM, MakerSpec, SymbolSpec

_MASK: Final = (1 << 64) - 1


class Dice:
    """SplitMix64: a sequence of integers from a seed, the same on every Python.

    Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
        self._state = int.from_bytes(digest[:8], "big")

    def below(self, bound: int) -> int:
        """An integer from 0 to `bound` - 1."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return (mixed ^ (mixed >> 31)) % bound

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + self.below(high - low + 1)


@dataclass(frozen=True, slots=True)
class Quote:
    """A resting order the market maker wants."""

    side: Side
    price_ticks: int
    quantity_lots: int


@dataclass(frozen=True, slots=True)
class Flow:
    """A small market order of the background flow."""

    side: Side
    quantity_lots: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One step on one symbol: first withdraw, then quote, then trade."""

    mid_ticks: int
    withdraw: tuple[tuple[Side, int], ...]
    quote: tuple[Quote, ...]
    flow: Flow | None


def drifted_mid(maker: MakerSpec, mid: int, anchor: int, dice: Dice) -> int:
    """The next mid: a uniform step, kept within a range around the anchor."""
    reach = max(1, mid * maker.drift_ppm // PPM)
    width = anchor * maker.range_ppm // PPM
    moved = mid + dice.between(-reach, reach)
    return max(1, min(max(moved, anchor - width), anchor + width))


def ladder(
    spec: SymbolSpec, maker: MakerSpec, mid: int, anchor: int, dice: Dice
) -> tuple[Quote, ...]:
    """Quotes around a mid: on a grid that only the anchor decides, sizes growing outwards."""
    gap = max(1, anchor * maker.gap_ppm // PPM)
    half = max(1, mid * maker.half_spread_ppm // PPM)
    best_bid = (mid - half) // gap * gap
    best_ask = -(-(mid + half) // gap) * gap
    lots_base = max(1, maker.level_notional_units // spec.notional_units(mid, 1))
    quotes = []
    for level in range(maker.levels):
        for side, best, sign in ((Side.BUY, best_bid, -1), (Side.SELL, best_ask, 1)):
            price = best + sign * level * gap
            lots = max(1, lots_base * (4 + level) * dice.between(50, 150) // 400)
            if price > 0:
                quotes.append(Quote(side, price, lots))
    return tuple(quotes)


def plan_step(
    spec: SymbolSpec,
    maker: MakerSpec,
    *,
    dice: Dice,
    mid_ticks: int,
    anchor_ticks: int,
    resting: Mapping[tuple[Side, int], int],
    with_flow: bool,
) -> Plan:
    """What to do around a mid. `resting` holds the maker's lots by (side, price).

    A level that still has half of what it should is left alone, so that most of the book stands
    still from one step to the next.
    """
    wanted = {
        (quote.side, quote.price_ticks): quote
        for quote in ladder(spec, maker, mid_ticks, anchor_ticks, dice)
    }
    stale = tuple(
        key
        for key, lots in resting.items()
        if key not in wanted or lots * 2 < wanted[key].quantity_lots
    )
    kept = resting.keys() - set(stale)
    quotes = tuple(quote for key, quote in wanted.items() if key not in kept)
    flow = None
    if with_flow and dice.below(2):
        side = (Side.BUY, Side.SELL)[dice.below(2)]
        notional = dice.between(maker.flow_notional_units // 10, maker.flow_notional_units)
        flow = Flow(side, max(1, notional // spec.notional_units(mid_ticks, 1)))
    return Plan(mid_ticks, stale, quotes, flow)


def quote_order(owner: str, order_id: int, quote: Quote) -> NewOrder:
    """The resting order that a quote is."""
    return NewOrder(order_id, owner, quote.side, quote.quantity_lots, quote.price_ticks)


def flow_order(owner: str, order_id: int, flow: Flow) -> NewOrder:
    """The market order that a piece of background flow is."""
    return NewOrder(order_id, owner, flow.side, flow.quantity_lots, None, TimeInForce.IOC)
