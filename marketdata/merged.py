"""Books of several venues read as one, level by level: nothing whole is ever built.

`marketdata.consolidated` makes the whole joint book, to show it. Who wants to know what an amount
costs, or where to trade it, mostly looks at a few dozen levels of thousands: here the sides of the
venues are merged lazily as they are walked, on the same joint grid, with the same verdicts, exact to
the same integers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter, mul
from typing import Final, NamedTuple

from kernel.money import Asset, Price, Rounding, divide
from marketdata.consolidated import USABLE, VenueBook, joint_grid
from marketdata.fees import taker_steps
from marketdata.freshness import Freshness, judge
from marketdata.model import Level
from marketdata.price_model import PPM
from matching.model import Side

ROWS_FIRST: Final = 16
ROWS_MAX: Final = 1_024
"""Rows of a book that are merged at once: at the beginning, and when the walk is long."""

BLOCK_GROWTH: Final = 4
"""How much longer the next block is that is added up whole."""


class MergedLevel(NamedTuple):
    """What one book shows at one price, as seen from all of them.

    Attributes:
        steps: the price on the joint grid; after fees, in millionths of its steps.
        units: of the base, in the joint scale.
        book: its number, in the order in which they were given, from 0.
        ticks: the price as that venue counts it, before fees.
    """

    steps: int
    units: int
    book: int
    ticks: int


@dataclass(frozen=True, slots=True)
class MergedSweep:
    """What an order would find: units by venue, the worst price, and the exact cost.

    Attributes:
        units: found, of the joint scale; fewer than asked for where the books end.
        cost: the sum of steps times units.
        worst_steps: the last price reached; None: nothing was found.
        by_venue: units by the venue's code, those first that are reached first.
        after_fees: whether the steps are millionths, after what a taker pays.
    """

    units: int
    cost: int
    worst_steps: int | None
    by_venue: Mapping[str, int]
    after_fees: bool


class MergedBooks:
    """Books of one pair as they were at one moment. Never changed.

    Attributes:
        grid: on which every price and quantity of every venue is a whole number.
        verdicts: of every book, in their order; only `USABLE` ones have levels here.
        evicted: the books that are left out by ``venue:symbol``, and why.
    """

    def __init__(
        self,
        base: Asset,
        quote: Asset,
        books: Sequence[VenueBook],
        *,
        now: datetime,
        age_max: timedelta,
    ) -> None:
        """Judge the books and find their joint grid.

        Args:
            base: what is traded.
            quote: what it is paid in.
            books: any number of one pair; several symbols of a venue are several books.
            now: by which their age is judged.
            age_max: an older book is left out.

        Raises:
            BadInput: an instrument of another pair, one venue's symbol twice, or too many books.
        """
        self.books: Final = tuple(books)
        self.grid: Final = joint_grid(base, quote, self.books)
        self.now: Final = now
        self.verdicts: Final = tuple(judge(item.view, now=now, age_max=age_max) for item in books)

    @property
    def evicted(self) -> Mapping[str, Freshness]:
        """The books that are left out, and why."""
        return {
            item.name: verdict
            for item, verdict in zip(self.books, self.verdicts, strict=True)
            if verdict not in USABLE
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The books that take part, as ``venue:symbol``."""
        return tuple(
            item.name
            for item, verdict in zip(self.books, self.verdicts, strict=True)
            if verdict in USABLE
        )

    def levels(self, side: Side, *, after_fees: bool = True) -> Iterator[MergedLevel]:
        """Walk what an order of *side* meets, best first; equal prices in the order of the books.

        Args:
            side: of the order: a buyer meets asks.
            after_fees: order the levels by what a taker pays or gets in the end.
        """
        sides = self._sides_of(side, after_fees=after_fees)
        for count in _growing():
            block = _next_block(sides, count, is_ascending=side is Side.BUY)
            if not block:
                return
            yield from block

    def best(self, side: Side, *, after_fees: bool = True) -> MergedLevel | None:
        """Return the first level that an order of *side* meets; None: there is none."""
        return next(self.levels(side, after_fees=after_fees), None)

    def mid_price(self) -> Price | None:
        """Return the exact middle of the best bid and the best ask of all venues, before fees.

        Between venues the best bid may reach the best ask; the middle is the middle all the same.
        None where a side is empty.
        """
        bid = self.best(Side.SELL, after_fees=False)
        ask = self.best(Side.BUY, after_fees=False)
        return self.grid.price(bid.steps + ask.steps, 2) if bid and ask else None

    def average(
        self,
        side: Side,
        units: int,
        *,
        after_fees: bool = True,
        limit_steps: int | None = None,
    ) -> MergedSweep:
        """Return what an order of *side* for *units* would find, never past the limit.

        Args:
            side: of the order.
            units: of the base, in the scale of the grid.
            after_fees: count what a taker pays or gets in the end.
            limit_steps: in the steps of these levels: with *after_fees*, in millionths.
        """
        sides = self._sides_of(side, after_fees=after_fees)
        if limit_steps is not None:
            for item in sides:
                item.cut(limit_steps, is_ascending=side is Side.BUY)
        walk = _Walk(sides, units, in_cost=False, is_ascending=side is Side.BUY)
        return self._swept(walk, after_fees=after_fees)

    def average_worth(self, side: Side, cost: int, *, after_fees: bool = True) -> MergedSweep:
        """Return what an order of *side* would find by when that costs or brings *cost*.

        Args:
            side: of the order.
            cost: steps of these levels times units; the last unit may pass it.
            after_fees: count what a taker pays or gets in the end.
        """
        sides = self._sides_of(side, after_fees=after_fees)
        walk = _Walk(sides, cost, in_cost=True, is_ascending=side is Side.BUY)
        return self._swept(walk, after_fees=after_fees)

    def price(self, steps: int, *, after_fees: bool = True) -> Price:
        """Return the exact ratio of a price in steps of `levels`."""
        return self.grid.price(steps, PPM if after_fees else 1)

    def average_price(self, sweep: MergedSweep) -> Price | None:
        """Return the exact average price of what a sweep of these books found; None: nothing."""
        if not sweep.units:
            return None
        return self.grid.price(sweep.cost, sweep.units * (PPM if sweep.after_fees else 1))

    def _swept(self, walk: _Walk, *, after_fees: bool) -> MergedSweep:
        walk.run()
        by_venue: dict[str, int] = {}
        for book, units in walk.by_book.items():
            venue = self.books[book].instrument.venue
            by_venue[venue] = by_venue.get(venue, 0) + units
        return MergedSweep(walk.units, walk.cost, walk.worst_steps, by_venue, after_fees)

    def _sides_of(self, side: Side, *, after_fees: bool) -> list[_BookSide]:
        return [
            self._side_of(number, side, after_fees=after_fees)
            for number, verdict in enumerate(self.verdicts)
            if verdict in USABLE
        ]

    def _side_of(self, number: int, side: Side, *, after_fees: bool) -> _BookSide:
        item = self.books[number]
        assert item.view is not None, "a usable book is there"
        rows = item.view.asks if side is Side.BUY else item.view.bids
        per_tick = self.grid.tick_factors[number]
        if after_fees:
            # Both are products, so one factor does for every level.
            per_tick = taker_steps(per_tick, side, item.fee)
        return _BookSide(number, rows, per_tick, self.grid.unit_factors[number])


@dataclass(slots=True)
class _BookSide:
    """One side of one book, and how far it has been walked."""

    number: int
    rows: Sequence[Level]
    per_tick: int
    per_unit: int
    walked: int = 0

    def take(self, end: int) -> Iterator[MergedLevel]:
        """Walk on, to the row of that number."""
        rows, self.walked = self.rows[self.walked : end], end
        number, per_tick, per_unit = self.number, self.per_tick, self.per_unit
        return (
            _as_level((ticks * per_tick, units * per_unit, number, ticks)) for ticks, units in rows
        )

    def totals(self, end: int) -> tuple[int, int]:
        """Return units and cost of the rows up to that number, and stay where it was."""
        rows = self.rows[self.walked : end]
        # Run in C from end to end: a tenth of what walking the rows takes.
        units = list(map(_units_of, rows))
        cost = sum(map(mul, map(_ticks_of, rows), units))
        return sum(units) * self.per_unit, cost * self.per_tick * self.per_unit

    def steps_at(self, row: int) -> int:
        """Return the price of a row on the joint grid."""
        return self.rows[row].ticks * self.per_tick

    def cut(self, limit_steps: int, *, is_ascending: bool) -> None:
        """Leave out every row beyond a price."""
        end = self.end_within(limit_steps, len(self.rows), is_ascending=is_ascending)
        self.rows = self.rows[:end]

    def end_within(self, steps: int, count: int, *, is_ascending: bool) -> int:
        """Return the number of the first row beyond a price, looking at *count* rows at most."""
        end = min(self.walked + count, len(self.rows))
        if is_ascending:
            return bisect_right(self.rows, steps // self.per_tick, self.walked, end, key=_ticks_of)
        return bisect_right(
            self.rows, steps // -self.per_tick, self.walked, end, key=_minus_ticks_of
        )


class _Part(NamedTuple):
    """The next rows of a side, to the one of number *end*, and what they come to."""

    side: _BookSide
    end: int
    units: int
    cost: int


def _growing() -> Iterator[int]:
    """Count a few rows for who looks at the top, more and more for who goes on."""
    count = ROWS_FIRST
    while True:
        yield count
        count = min(2 * count, ROWS_MAX)


def _ends_of_block(sides: Sequence[_BookSide], count: int, *, is_ascending: bool) -> list[int]:
    """Return to which row of each book one may walk on, by at most *count* rows a book.

    Rows of different books are in order only as far as every one of them has been looked at: to the
    nearest of the prices at which the looks end.
    """
    ends = [
        side.steps_at(side.walked + count - 1)
        for side in sides
        if side.walked + count < len(side.rows)
    ]
    if not ends:
        return [len(side.rows) for side in sides]
    nearest = min(ends) if is_ascending else max(ends)
    return [side.end_within(nearest, count, is_ascending=is_ascending) for side in sides]


def _next_block(sides: Sequence[_BookSide], count: int, *, is_ascending: bool) -> list[MergedLevel]:
    """Walk on by at most *count* rows a book; empty: all have come to their end.

    Sorting such a block joins runs that are in order already, which is far less work than to choose
    the next row among the books again and again; it is stable, so equal prices stay in the order of
    the books.
    """
    block: list[MergedLevel] = []
    ends = _ends_of_block(sides, count, is_ascending=is_ascending)
    for side, end in zip(sides, ends, strict=True):
        block.extend(side.take(end))
    block.sort(key=_steps_of, reverse=not is_ascending)
    return block


class _Walk:
    """A sum over the books from the best price on, until it reaches what is wanted.

    A block of rows that is taken whole need not be in order to be added up. Only the last few rows,
    of which one is taken in part, are walked one by one: a block that is too much is made smaller.
    """

    def __init__(
        self, sides: Sequence[_BookSide], wanted: int, *, in_cost: bool, is_ascending: bool
    ) -> None:
        self.units = 0
        self.cost = 0
        self.worst_steps: int | None = None
        self.by_book: dict[int, int] = {}
        self._sides = sides
        self._wanted = wanted
        self._in_cost = in_cost
        self._is_ascending = is_ascending

    def run(self) -> None:
        """Walk to the goal, or to the end of the books."""
        count, most = ROWS_FIRST, ROWS_MAX
        while (missing := self._missing()) > 0:
            ends = _ends_of_block(self._sides, count, is_ascending=self._is_ascending)
            parts = [
                _Part(side, end, *side.totals(end))
                for side, end in zip(self._sides, ends, strict=True)
                if end > side.walked
            ]
            if not parts:
                break
            found = sum(part.cost if self._in_cost else part.units for part in parts)
            if found <= missing:
                self._add_whole(parts)
                missing -= found
            elif count == ROWS_FIRST:
                self._add_levels()
            else:
                most = count // 2
            # As many rows as the rest takes if it is like these.
            likely = min(count * missing // max(found, 1), BLOCK_GROWTH * count)
            count = max(ROWS_FIRST, min(likely, most))

    def _missing(self) -> int:
        return self._wanted - (self.cost if self._in_cost else self.units)

    def _add_whole(self, parts: list[_Part]) -> None:
        """Add rows of which every one is wanted."""
        parts.sort(key=_begins_at, reverse=not self._is_ascending)
        for side, end, units, cost in parts:
            self._add(side.number, units, cost)
            side.walked = end
        lasts = [side.steps_at(end - 1) for side, end, _, _ in parts]
        self.worst_steps = max(lasts) if self._is_ascending else min(lasts)

    def _add_levels(self) -> None:
        """Walk a few rows, to the goal at the most."""
        for level in _next_block(self._sides, ROWS_FIRST, is_ascending=self._is_ascending):
            missing = self._missing()
            if missing <= 0:
                break
            wanted = divide(missing, level.steps, Rounding.UP) if self._in_cost else missing
            units = min(level.units, wanted)
            self._add(level.book, units, units * level.steps)
            self.worst_steps = level.steps

    def _add(self, book: int, units: int, cost: int) -> None:
        self.by_book[book] = self.by_book.get(book, 0) + units
        self.units += units
        self.cost += cost


def _begins_at(part: _Part) -> int:
    return part.side.steps_at(part.side.walked)


_steps_of: Final = attrgetter("steps")
_ticks_of: Final = attrgetter("ticks")
_units_of: Final = attrgetter("units")


def _minus_ticks_of(level: Level) -> int:
    return -level.ticks


_as_level: Final[Callable[[tuple[int, int, int, int]], MergedLevel]] = partial(
    tuple.__new__, MergedLevel
)
"""What `MergedLevel._make` does, without a function of Python around it for every level."""
