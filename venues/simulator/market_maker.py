"""The synthetic market maker: where it quotes and what its counterpart flow trades.

Pure: the same seed, symbol and step always give the same plan, whatever happened in between, so a
replay needs to know only that a step was made. A lively market goes through phases of many steps:
calm, trends with more flow to one side, and bursts of wide spreads, long steps and heavy flow. Sizes
are many small ones and few large ones.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from matching.model import NewOrder, Side, TimeInForce
from venues.simulator.decimals import UNIT
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
    flow: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """How a market behaves for a while. Factors are in hundredths of the calm one.

    `trend_ppm` is added to every step of the mid, `buy_percent` of the flow buys.
    """

    trend_ppm: int = 0
    drift_factor: int = 100
    spread_factor: int = 100
    size_factor: int = 100
    flow_max: int = 1
    buy_percent: int = 50


PHASE_STEPS: Final = 160
CALM: Final = Phase()
PHASES: Final = (
    Phase(flow_max=2),
    Phase(flow_max=2),
    Phase(trend_ppm=20, drift_factor=120, flow_max=3, buy_percent=70),
    Phase(trend_ppm=-20, drift_factor=120, flow_max=3, buy_percent=30),
    Phase(drift_factor=60, spread_factor=80, size_factor=150),
    Phase(drift_factor=400, spread_factor=400, size_factor=40, flow_max=6),
)


def phase_of(maker: MakerSpec, seed: int, symbol: str, step: int) -> Phase:
    """The phase a market is in; symbols change at different steps."""
    if not maker.lively:
        return CALM
    shift = Dice(seed, symbol, "shift").below(PHASE_STEPS)
    return PHASES[Dice(seed, symbol, "phase", (step + shift) // PHASE_STEPS).below(len(PHASES))]


def drifted_mid(maker: MakerSpec, phase: Phase, mid: int, anchor: int, dice: Dice) -> int:
    """The next mid: the trend and a uniform step, kept within a range around the anchor."""
    reach = max(1, mid * maker.drift_ppm * phase.drift_factor // (100 * PPM))
    width = anchor * maker.range_ppm // PPM
    moved = mid + dice.between(-reach, reach) + mid * phase.trend_ppm // PPM
    return max(1, min(max(moved, anchor - width), anchor + width))


def ladder(
    spec: SymbolSpec, maker: MakerSpec, phase: Phase, mid: int, anchor: int, dice: Dice
) -> tuple[Quote, ...]:
    """Quotes around a mid: on a grid that only the anchor decides, sizes growing outwards."""
    gap = max(1, anchor * maker.gap_ppm // PPM)
    half = max(1, mid * maker.half_spread_ppm * phase.spread_factor // (100 * PPM))
    best_bid = (mid - half) // gap * gap
    best_ask = -(-(mid + half) // gap) * gap
    lots_base = lots_worth(spec, maker.level_notional_units * phase.size_factor // 100, mid)
    quotes = []
    for level in range(maker.levels):
        for side, best, sign in ((Side.BUY, best_bid, -1), (Side.SELL, best_ask, 1)):
            price = best + sign * level * gap
            lots = max(1, lots_base * (4 + level) * dice.between(50, 150) // 400)
            if price > 0:
                quotes.append(Quote(side, price, lots))
    return tuple(quotes)


def flows(
    spec: SymbolSpec, maker: MakerSpec, phase: Phase, mid: int, dice: Dice
) -> tuple[Flow, ...]:
    """Market orders of one step: often none or one, in a burst several; small ones most of all."""
    found = []
    for _ in range(dice.below(phase.flow_max + 1)):
        side = Side.BUY if dice.below(100) < phase.buy_percent else Side.SELL
        largest = maker.flow_notional_units // (1, 1, 2, 4, 10)[dice.below(5)]
        notional = dice.between(largest // 10, largest)
        found.append(Flow(side, lots_worth(spec, notional, mid)))
    return tuple(found)


def lots_worth(spec: SymbolSpec, notional_units: int, price_ticks: int) -> int:
    """Whole lots, at least one, that cost about this much."""
    per_lot = price_ticks * spec.tick_units * spec.lot_units
    return max(1, notional_units * UNIT // per_lot)


def plan_step(
    spec: SymbolSpec,
    maker: MakerSpec,
    *,
    seed: int,
    step: int,
    mid_ticks: int,
    anchor_ticks: int,
    resting: Mapping[tuple[Side, int], int],
    with_flow: bool,
) -> Plan:
    """What to do in a step. `resting` holds the maker's lots by (side, price).

    Without flow the mid stays where it is. A level that still has half of what it should is left
    alone, so that most of the book stands still from one step to the next.
    """
    dice, phase = Dice(seed, spec.name, step), phase_of(maker, seed, spec.name, step)
    mid = drifted_mid(maker, phase, mid_ticks, anchor_ticks, dice) if with_flow else mid_ticks
    wanted = {
        (quote.side, quote.price_ticks): quote
        for quote in ladder(spec, maker, phase, mid, anchor_ticks, dice)
    }
    stale = tuple(
        key
        for key, lots in resting.items()
        if key not in wanted or lots * 2 < wanted[key].quantity_lots
    )
    kept = resting.keys() - set(stale)
    quotes = tuple(quote for key, quote in wanted.items() if key not in kept)
    flow = flows(spec, maker, phase, mid, dice) if with_flow else ()
    return Plan(mid, stale, quotes, flow)


def flow_order(owner: str, order_id: int, flow: Flow) -> NewOrder:
    """The market order that a piece of background flow is."""
    return NewOrder(order_id, owner, flow.side, flow.quantity_lots, None, TimeInForce.IOC)
