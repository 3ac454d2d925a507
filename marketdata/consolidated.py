"""One book of several venues: full depth, every level with who shows how much of it.

Prices are added up only where they are exactly equal on the joint grid. A venue whose book cannot be
trusted (missing after a gap, stale, crossed within itself) is evicted whole and named with the
reason; its levels never linger. Between venues bids may reach asks: that is an opportunity, not a
fault, and it is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from kernel.errors import BadInput
from kernel.money import Asset, Price
from marketdata.fees import NO_FEE, VenueFee, taker_steps
from marketdata.freshness import Freshness, judge
from marketdata.grids import JointGrid
from marketdata.model import BookView, Instrument, Level
from marketdata.price_model import PPM
from matching.model import Side

VENUES_MAX: Final = 100
USABLE: Final = frozenset({Freshness.FRESH, Freshness.ONE_SIDED})
"""A book with one empty side is thin, not wrong."""


@dataclass(frozen=True, slots=True)
class VenueBook:
    """What one venue shows: the grid, and the newest usable book or None."""

    instrument: Instrument
    view: BookView | None
    fee: VenueFee = NO_FEE

    @property
    def name(self) -> str:
        """Return ``venue:symbol``."""
        return f"{self.instrument.venue}:{self.instrument.symbol}"


@dataclass(frozen=True, slots=True)
class VenueShare:
    """What one venue has at a level: `ticks` of its own, `units` of the joint base scale."""

    venue: str
    symbol: str
    ticks: int
    units: int


@dataclass(frozen=True, slots=True)
class JointLevel:
    """A price of the joint grid and what rests there; `units` is the sum of the shares."""

    steps: int
    units: int
    shares: tuple[VenueShare, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidatedBook:
    """Levels of both sides from the best outwards.

    Attributes:
        step: one step is ``10 ** -price_scale / step_parts`` of the quote asset per whole base;
            the parts are a million in a view after fees, else 1.
        base_scale: decimal places of `units`.
        evicted: venues that are left out, and why.
    """

    base: Asset
    quote: Asset
    price_scale: int
    step_parts: int
    base_scale: int
    bids: tuple[JointLevel, ...]
    asks: tuple[JointLevel, ...]
    venues: tuple[str, ...]
    evicted: Mapping[str, Freshness]
    at: datetime

    @property
    def is_crossed(self) -> bool:
        """Tell whether one venue's bid reaches another's ask."""
        return bool(self.bids and self.asks) and self.bids[0].steps >= self.asks[0].steps

    def price(self, steps: int) -> Price:
        """Return the exact ratio of a price in steps."""
        return Price.of(
            steps * int(10**self.quote.scale),
            self.step_parts * int(10 ** (self.price_scale + self.base.scale)),
            self.base,
            self.quote,
        )


@dataclass(frozen=True, slots=True)
class JointSweep:
    """What an order would find: units by venue, the worst price, and the exact cost.

    Attributes:
        cost: the sum of steps times units, of the book's scales: divide by its step and base units.
    """

    units: int
    by_venue: Mapping[str, int]
    worst_steps: int | None
    cost: int


def consolidate(
    books: Sequence[VenueBook],
    base: Asset,
    quote: Asset,
    *,
    now: datetime,
    age_max: timedelta,
    after_fees: bool = False,
) -> ConsolidatedBook:
    """Return the joint book of *books*, all of one pair.

    Args:
        age_max: a venue whose book is older is evicted.
        after_fees: count every level at what a taker pays or gets in the end.

    Raises:
        BadInput: an instrument of another pair, or one venue's symbol twice.
    """
    grid = joint_grid(base, quote, books)
    names = [item.name for item in books]
    bids: dict[int, list[VenueShare]] = {}
    asks: dict[int, list[VenueShare]] = {}
    evicted: dict[str, Freshness] = {}
    for index, (name, item) in enumerate(zip(names, books, strict=True)):
        verdict = judge(item.view, now=now, age_max=age_max)
        if verdict not in USABLE or item.view is None:
            evicted[name] = verdict
            continue
        factors = (grid.tick_factors[index], grid.unit_factors[index])
        fee = item.fee if after_fees else None
        _add(bids, item, item.view.bids, Side.SELL, factors, fee)
        _add(asks, item, item.view.asks, Side.BUY, factors, fee)
    return ConsolidatedBook(
        base=base,
        quote=quote,
        price_scale=grid.price_scale,
        step_parts=PPM if after_fees else 1,
        base_scale=grid.base_scale,
        bids=_levels(bids, best_first=True),
        asks=_levels(asks, best_first=False),
        venues=tuple(name for name in names if name not in evicted),
        evicted=evicted,
        at=now,
    )


def joint_grid(base: Asset, quote: Asset, books: Sequence[VenueBook]) -> JointGrid:
    """Return the grid on which all of *books* are exact.

    Raises:
        BadInput: an instrument of another pair, one venue's symbol twice, or too many books.
    """
    if len({item.name for item in books}) != len(books) or len(books) > VENUES_MAX:
        raise BadInput(f"a joint book is of at most {VENUES_MAX} different books")
    return JointGrid.of(base, quote, [item.instrument for item in books])


def is_within(steps: int, limit_steps: int | None, side: Side) -> bool:
    """Tell whether an order of *side* may trade at a price, by its limit if it has one."""
    if limit_steps is None:
        return True
    return steps <= limit_steps if side is Side.BUY else steps >= limit_steps


def sweep_joint(
    book: ConsolidatedBook, side: Side, units: int, *, limit_steps: int | None = None
) -> JointSweep:
    """Return what an order of *side* for *units* would find across venues, never past the limit.

    Within a level the venues are taken in the order of the book.
    """
    found, cost, worst = 0, 0, None
    by_venue: dict[str, int] = {}
    for level in book.asks if side is Side.BUY else book.bids:
        if found >= units or not is_within(level.steps, limit_steps, side):
            break
        for share in level.shares:
            part = min(share.units, units - found)
            if part <= 0:
                break
            by_venue[share.venue] = by_venue.get(share.venue, 0) + part
            found += part
            cost += part * level.steps
        worst = level.steps
    return JointSweep(found, by_venue, worst, cost)


def _add(
    side: dict[int, list[VenueShare]],
    item: VenueBook,
    levels: Sequence[Level],
    taken_by: Side,
    factors: tuple[int, int],
    fee: VenueFee | None,
) -> None:
    venue, symbol = item.instrument.venue, item.instrument.symbol
    for level in levels:
        steps = level.ticks * factors[0]
        if fee is not None:
            steps = taker_steps(steps, taken_by, fee)
        share = VenueShare(venue, symbol, level.ticks, level.units * factors[1])
        side.setdefault(steps, []).append(share)


def _levels(side: dict[int, list[VenueShare]], *, best_first: bool) -> tuple[JointLevel, ...]:
    return tuple(
        JointLevel(steps, sum(share.units for share in side[steps]), tuple(side[steps]))
        for steps in sorted(side, reverse=best_first)
    )
