"""Where what we pay comes from: places that hold an asset, and what each of them is asked for. Pure.

A place is a wallet of the house, a bank account of ours, what covers clients (for whoever is credited
by book), or a prefunded client's own account (for what it gives). One payment leaves from one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from settlement.model import Direction
from trading.terms.model import Rail

COVER: Final = "clients"
"""The place of a book credit: what is held for clients beyond what they are owed."""

CLIENT_PREFIX: Final = "client:"


class Movement(Protocol):
    """What `funding_need` counts: a net item before the seal, an instruction after it."""

    @property
    def party(self) -> str:
        """Who is paid, or pays."""

    @property
    def asset(self) -> str:
        """Code of the asset."""

    @property
    def amount(self) -> int:
        """Smallest units, 0 where nothing moves."""

    @property
    def direction(self) -> Direction:
        """Whether we pay."""

    @property
    def rail(self) -> Rail:
        """By which it moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Something that holds an asset.

    Attributes:
        location: code of a wallet or bank account, `COVER`, or ``client:<party>``.
        path: its account in the ledger; "" of `COVER`, which is a difference of many.
        way: the account that coins go to on their way out; a hold of them names it.
        available: what may still be promised: posted, less what is held and what payouts that hold
            nothing yet will take; below zero where more is promised than is there.
    """

    rail: Rail
    location: str
    path: str
    asset: str
    available: int
    way: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one place has to have of one asset for everything that is asked of it."""

    asset: str
    rail: Rail
    location: str
    need: int
    available: int

    @property
    def short(self) -> int:
        """Return what is missing there, 0 or more."""
        return max(0, self.need - self.available)


@dataclass(frozen=True, slots=True)
class Asked:
    """One amount that has to come from somewhere."""

    rail: Rail
    asset: str
    amount: int
    location: str = ""
    """"": any place of the rail."""


def asked_of(item: Movement, amount: int | None = None) -> Asked | None:
    """Return what a movement takes from a place of ours, or from a client's account here.

    *amount* is what is left of it, if that is not all. None: it comes from outside, or nothing moves.
    """
    amount = item.amount if amount is None else amount
    if amount <= 0:
        return None
    if item.rail is Rail.BOOK:
        gives = item.direction is Direction.RECEIVE
        place = f"{CLIENT_PREFIX}{item.party}" if gives else COVER
        return Asked(item.rail, item.asset, amount, place)
    if item.direction is Direction.RECEIVE:
        return None
    return Asked(item.rail, item.asset, amount)


def assign(asked: Sequence[Asked], places: Iterable[Place]) -> list[Place]:
    """Return for each of *asked*, in their order, the place that it comes from.

    The fullest place that still has enough takes it; where none has, the fullest one is short. A
    rail without a place gets one that has nothing and no name.
    """
    left: dict[Place, int] = {place: place.available for place in places}
    chosen: list[Place] = []
    for item in asked:
        fitting = [place for place in left if _fits(place, item)]
        if not fitting:
            nowhere = Place(
                rail=item.rail, location=item.location, path="", asset=item.asset, available=0
            )
            left[nowhere] = 0
            fitting = [nowhere]
        place = min(fitting, key=lambda p: (-left[p], p.location))
        left[place] -= item.amount
        chosen.append(place)
    return chosen


def sum_needs(asked: Sequence[Asked], places: Iterable[Place]) -> list[Need]:
    """Return what each place is asked for, by rail, asset and location."""
    totals: dict[Place, int] = {}
    for item, place in zip(asked, assign(asked, places), strict=True):
        totals[place] = totals.get(place, 0) + item.amount
    return [
        Need(
            asset=place.asset,
            rail=place.rail,
            location=place.location,
            need=total,
            available=max(0, place.available),
        )
        for place, total in sorted(
            totals.items(), key=lambda pair: (pair[0].rail, pair[0].asset, pair[0].location)
        )
    ]


def promise(places: Iterable[Place], promised: Mapping[tuple[str, str], int]) -> list[Place]:
    """Return *places* less what is promised from them, by (location, asset)."""
    return [
        replace(place, available=place.available - promised.get((place.location, place.asset), 0))
        for place in places
    ]


def _fits(place: Place, item: Asked) -> bool:
    return (
        place.rail is item.rail
        and place.asset == item.asset
        and (not item.location or place.location == item.location)
    )
