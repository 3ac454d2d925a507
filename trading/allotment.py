"""How an amount is shared out among markets: the arithmetic of a route.

Only whole numbers: lots, units, prices that count upwards as they get worse. What they mean in money
is known to `trading.routing`, which says how much room every market has.

Taking the best level of all markets again and again ends at one worst price: whatever is better has
been taken, nothing worse has. So that price is looked for, by halving, and what every market has up
to it is read off the running sums of its book. It is the same sharing out, and hardly longer for a
thousand levels than for ten.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Lots: TypeAlias = dict[int, int]
"""Lots of every market, by its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What one market may be given.

    Attributes:
        lot: in smallest units of the base.
        lots_min: the smallest order it accepts.
        lots_max: the most it may be given, at least `lots_min`.
        prices: of its levels, best first, so counted that they rise; comparable between markets.
        sums: of the units of the levels, up to each of them.
        depth: the book it is; markets that share one do not find there what another has taken, and
            have the same lots.
    """

    lot: int
    lots_min: int
    lots_max: int
    prices: Sequence[int]
    sums: Sequence[int]
    depth: str

    def units_to(self, price: int) -> int:
        """Return what its book shows up to a price."""
        levels = bisect_right(self.prices, price)
        return self.sums[levels - 1] if levels else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """Who gets what, by the number of the market.

    Attributes:
        lots: of everyone who gets something, at least its smallest order.
        full: who has all it may be given, while its book shows more at the worst price of all.
        below_minimum: who was left out as its part was too small.
        surplus: who was left out as there were too many.
    """

    lots: Mapping[int, int]
    full: frozenset[int]
    below_minimum: tuple[int, ...]
    surplus: tuple[int, ...]


def allot(rooms: Mapping[int, Room], units: int, *, markets_max: int) -> Allotment:
    """Share *units* out at the best prices, within everyone's room.

    Whose part is too small for an order of its own is left out, the smallest part first, and the
    amount is shared out anew. If then something is left over that nobody else has room for, those
    left out are tried again: one gets its smallest order, and the others less.

    Args:
        rooms: of the markets that take part; at equal prices the earlier one comes first, and so it
            does in a book that is shared.
        units: of the base; not below zero.
        markets_max: the most that get something; those with the smallest parts are left out.
    """
    taking = dict(rooms)
    below: list[int] = []
    surplus: list[int] = []
    while True:
        lots = _share(taking, units, {})
        small = [one for one, count in lots.items() if count < taking[one].lots_min]
        if not small and len(lots) <= markets_max:
            break
        left_out = min(small or lots, key=lambda one: (lots[one] * taking[one].lot, -one))
        (below if small else surplus).append(left_out)
        del taking[left_out]
    for one in reversed(below):
        least = rooms[one].lots_min * rooms[one].lot
        if least > min(units, rooms[one].sums[-1]):
            continue
        asked = {number: rooms[number] for number in rooms if number in taking or number == one}
        better = _share(asked, units, {one: rooms[one].lots_min})
        if _is_accepted(better, rooms, markets_max) and _units(better, rooms) > _units(lots, rooms):
            lots, taking = better, asked
    return Allotment(
        lots=lots,
        full=_full(taking, lots),
        below_minimum=tuple(one for one in below if one not in lots),
        surplus=tuple(surplus),
    )


def _share(rooms: Mapping[int, Room], units: int, kept: Lots) -> Lots:
    """Return the lots of everyone who gets any.

    Args:
        rooms: who takes part.
        units: to share out.
        kept: lots that somebody has beforehand, whatever is cheaper elsewhere.
    """
    lots = {one: kept.get(one, 0) for one in rooms}
    while True:
        left = units - _units(lots, rooms)
        # A lot that is larger than what is left fits nobody; a finer one may still.
        growing = {one: room for one, room in rooms.items() if room.lot <= left}
        worst = max((room.prices[-1] for room in growing.values()), default=None)
        if worst is None:
            break
        grown = _lots_at(rooms, growing, lots, worst)
        if _units(grown, rooms) > units:
            grown = _up_to(rooms, growing, lots, units)
        if grown == lots:
            break
        lots = grown
    return {one: count for one, count in lots.items() if count}


def _up_to(rooms: Mapping[int, Room], growing: Mapping[int, Room], lots: Lots, units: int) -> Lots:
    """Return what everyone has when *units* have just been given, or the next lot does not fit."""
    low = min(room.prices[0] for room in growing.values())
    high = max(room.prices[-1] for room in growing.values())
    while low < high:
        middle = (low + high) // 2
        if _units(_lots_at(rooms, growing, lots, middle), rooms) >= units:
            high = middle
        else:
            low = middle + 1
    given = _lots_at(rooms, growing, lots, low - 1)
    left = units - _units(given, rooms)
    for one, count in _lots_at(rooms, growing, lots, low).items():
        more = min(count - given[one], left // rooms[one].lot)
        given[one] += more
        left -= more * rooms[one].lot
    return given


def _lots_at(
    rooms: Mapping[int, Room], growing: Mapping[int, Room], lots: Lots, price: int
) -> Lots:
    """Return what everyone has if those who grow take all that their books show up to a price."""
    used: dict[str, int] = {}
    for one, room in rooms.items():
        used[room.depth] = used.get(room.depth, 0) + lots[one] * room.lot
    found = dict(lots)
    for one, room in growing.items():
        there = (room.units_to(price) - used[room.depth]) // room.lot
        more = min(there, room.lots_max - lots[one])
        if more > 0:
            found[one] += more
            used[room.depth] += more * room.lot
    return found


def _units(lots: Mapping[int, int], rooms: Mapping[int, Room]) -> int:
    return sum(count * rooms[one].lot for one, count in lots.items())


def _is_accepted(lots: Lots, rooms: Mapping[int, Room], markets_max: int) -> bool:
    return len(lots) <= markets_max and all(
        count >= rooms[one].lots_min for one, count in lots.items()
    )


def _full(rooms: Mapping[int, Room], lots: Lots) -> frozenset[int]:
    """Return who would be given more at the worst price that anybody has, if it had the room."""
    worst = max((_worst_price(rooms[one], count) for one, count in lots.items()), default=0)
    return frozenset(
        one
        for one, count in lots.items()
        if count == rooms[one].lots_max
        and rooms[one].units_to(worst) >= (count + 1) * rooms[one].lot
    )


def _worst_price(room: Room, lots: int) -> int:
    return room.prices[bisect_right(room.sums, lots * room.lot - 1)]
