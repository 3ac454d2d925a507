"""The index price: what several venues together say one asset is worth, and how far to trust it.

The rule, in the order in which it is applied:

1. **Freshness.** A venue counts only with an uncrossed, two-sided book that arrived at most
   `age_max` before (or, as clocks differ, after) the moment that the index is of.
2. **Spread.** Its spread is at most `spread_ppm_max` of its mid: the middle of a wide book says
   nothing. A venue's price is ``(best bid + best ask) / 2``.
3. **Deviation.** Its mid is at most `deviation_ppm_max` away from the median of all mids that came
   so far. A venue that was out for that reason comes back only within half of it, so that one at
   the border does not flap. Both are of the CME CF Real Time Indices ("Potentially Erroneous Data
   Parameter", methodology guide section 5.3 as changed on 2020-09-14).
4. **Weighted median** of what is left: ordered by mid, the price at which half of the weight is
   reached; where half is reached exactly between two prices, their mean. One venue of less than
   half the weight cannot move it beyond its neighbours, whatever it says.
5. **Quality.** Good with at least `venues_min` venues and more than half of the whole weight;
   degraded with fewer; none at all: no price. For settlement only a good index is a price.

Everything is counted in integers on the venues' joint grid, so a mid or a mean is exact.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum, unique
from fractions import Fraction
from math import lcm
from typing import Any, Final

import msgspec

from kernel.errors import BadInput, Refused
from kernel.money import Asset, Price
from marketdata.freshness import Freshness, judge
from marketdata.grids import JointGrid
from marketdata.model import BookView, Instrument, PriceRecord, Quality
from marketdata.price_model import PPM, PriceKind, Purpose

METHOD: Final = "weighted-median-of-mids/1"
"""Changes whenever the rule does."""

VENUES_MAX: Final = 100
WEIGHT_MAX: Final = 10**12


@unique
class Gate(StrEnum):
    """What became of one venue in one index."""

    USED = "used"
    MISSING = "missing"
    STALE = "stale"
    ONE_SIDED = "one-sided"
    CROSSED = "crossed"
    WIDE = "wide"
    OUTLIER = "outlier"


_GATES: Final = {
    Freshness.MISSING: Gate.MISSING,
    Freshness.STALE: Gate.STALE,
    Freshness.ONE_SIDED: Gate.ONE_SIDED,
    Freshness.CROSSED: Gate.CROSSED,
}


@dataclass(frozen=True, slots=True)
class IndexVenue:
    """One constituent: an instrument and how much it counts."""

    instrument: Instrument
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPolicy:
    """Which venues make an index, and what is asked of them.

    Attributes:
        venues_min: with fewer the index is degraded, and nothing settles on it.
    """

    base: Asset
    quote: Asset
    venues: tuple[IndexVenue, ...]
    venues_min: int
    age_max: timedelta = timedelta(seconds=5)
    deviation_ppm_max: int = 10_000
    spread_ppm_max: int = 20_000
    grid: JointGrid = field(init=False)

    def __post_init__(self) -> None:
        instruments = [item.instrument for item in self.venues]
        if len({item.venue for item in instruments}) != len(instruments):
            raise BadInput("an index counts every venue once")
        if not 0 < self.venues_min <= len(instruments) <= VENUES_MAX:
            raise BadInput(
                f"an index of {len(instruments)} venues cannot ask for {self.venues_min}"
            )
        if any(not 0 < item.weight <= WEIGHT_MAX for item in self.venues):
            raise BadInput("the weight of a venue is above zero")
        if min(self.deviation_ppm_max, self.spread_ppm_max) <= 0 or self.age_max <= timedelta(0):
            raise BadInput("the gates of an index are above zero")
        grid = JointGrid.of(self.base, self.quote, instruments)
        object.__setattr__(self, "grid", grid)


class IndexMember(msgspec.Struct, frozen=True, gc=False):
    """What one venue said, and what became of it. `steps` is twice its mid on the joint grid."""

    venue: IndexVenue
    view: BookView | None
    gate: Gate
    steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPrice:
    """An index at one moment: the price and everything that it was made of.

    Attributes:
        before: venues that were outliers in the index before, and so are judged by half the gate.
    """

    policy: IndexPolicy
    price: Price
    quality: Quality
    members: tuple[IndexMember, ...]
    at: datetime
    before: frozenset[str] = frozenset()

    @property
    def outliers(self) -> frozenset[str]:
        """Return the venues that were left out for their price."""
        return frozenset(
            item.venue.instrument.venue for item in self.members if item.gate is Gate.OUTLIER
        )


def decide_index(
    policy: IndexPolicy,
    views: Sequence[BookView | None],
    *,
    now: datetime,
    before: Collection[str] = (),
) -> IndexPrice | Refused:
    """Return the index at *now*, or why there is none.

    Args:
        views: the newest book of each of the policy's venues, in their order.
        before: the outliers of the index before this one.
    """
    if len(views) != len(policy.venues):
        raise BadInput(f"{len(views)} books were given for {len(policy.venues)} venues")
    members = [_judged(policy, index, view, now) for index, view in enumerate(views)]
    fresh = sorted(item.steps for item in members if item.gate is Gate.USED)
    if not fresh:
        return _no_index(policy, members)
    middle = len(fresh) // 2
    # Twice the median, so that the mean of two is whole.
    median = fresh[middle] + fresh[~middle]
    used: list[tuple[int, int]] = []
    for position, item in enumerate(members):
        if item.gate is not Gate.USED:
            continue
        strict = 2 if before and item.venue.instrument.venue in before else 1
        if abs(2 * item.steps - median) * PPM * strict > policy.deviation_ppm_max * median:
            members[position] = IndexMember(item.venue, item.view, Gate.OUTLIER, item.steps)
        else:
            used.append((item.steps, item.venue.weight))
    if not used:
        return _no_index(policy, members)
    steps, parts = weighted_median(used)
    weight = sum(item[1] for item in used)
    whole = sum(item.weight for item in policy.venues)
    is_good = len(used) >= policy.venues_min and 2 * weight > whole
    return IndexPrice(
        policy=policy,
        price=policy.grid.price(steps, 2 * parts),
        quality=Quality.GOOD if is_good else Quality.DEGRADED,
        members=tuple(members),
        at=now,
        before=frozenset(before),
    )


def weighted_median(items: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the weighted median of (value, weight) as a sum and the number of its parts, 1 or 2.

    The first value, in ascending order, at which the weights up to it reach half of all; where they
    reach exactly half, the mean of it and the next value. With equal weights it is the median.
    """
    ordered = sorted(items)
    whole = sum(weight for _, weight in ordered)
    reached = 0
    for position, (value, weight) in enumerate(ordered):
        reached += weight
        if 2 * reached > whole:
            return value, 1
        if 2 * reached == whole:
            return value + ordered[position + 1][0], 2
    raise BadInput("a median needs a weight above zero")


def fit_for(index: IndexPrice, purpose: Purpose) -> IndexPrice | Refused:
    """Return the index if it may be used for *purpose*, else why it may not.

    What is settled, margined or liquidated needs a good one; to look at, a degraded one will do.
    """
    if purpose is not Purpose.SETTLEMENT or index.quality is Quality.GOOD:
        return index
    used = sum(item.gate is Gate.USED for item in index.members)
    return Refused(
        f"the index of {index.policy.base.code}/{index.policy.quote.code} has {used} of"
        f" {index.policy.venues_min} venues: {_verdicts(index.members)}",
        remedy="Wait for the venues, or let two people approve a price",
    )


def record_of(index: IndexPrice) -> PriceRecord:
    """Return the index as it is recorded: all constituents, used or not, and the gates' figures."""
    policy = index.policy
    return PriceRecord(
        price=index.price,
        kind=PriceKind.INDEX,
        quality=index.quality,
        constituents=tuple(_constituent(item) for item in index.members),
        method={
            "name": METHOD,
            "venues_min": policy.venues_min,
            "age_max_us": policy.age_max // timedelta(microseconds=1),
            "deviation_ppm_max": policy.deviation_ppm_max,
            "spread_ppm_max": policy.spread_ppm_max,
            "outliers_before": sorted(index.before),
        },
        observed_at=index.at,
    )


def recompute(record: PriceRecord) -> Price:
    """Return what the constituents of a recorded index come to: the price, if it is genuine.

    Raises:
        BadInput: the record is not one of this method.
    """
    return judge_again(record)[0]


def judge_again(record: PriceRecord) -> tuple[Price, Quality]:
    """Judge every constituent again, by the gates' figures on record; return price and quality.

    What the record says of its gates is not believed; only that a venue had no book is.

    Raises:
        BadInput: the record is not one of this method.
        Refused: by its own constituents there is no price.
    """
    method = record.method
    if method.get("name") != METHOD:
        raise BadInput(f"an index of method {method.get('name')!r} cannot be computed again")
    found = [one for one in (_said(item, record) for item in record.constituents) if one]
    sums = sorted(one[1] for one in found)
    if not sums:
        raise Refused("no constituent of the record passes the gates")
    middle = len(sums) // 2
    median = (sums[middle] + sums[~middle]) * Fraction(1, 2)
    gate, before = int(method["deviation_ppm_max"]), frozenset(method["outliers_before"])
    used = [
        (value, weight)
        for venue, value, weight in found
        if abs(value - median) * PPM * (2 if venue in before else 1) <= gate * median
    ]
    if not used:
        raise Refused("no constituent of the record passes the gates")
    weight = sum(weight for _, weight in used)
    whole = sum(int(item["weight"]) for item in record.constituents)
    is_good = len(used) >= int(method["venues_min"]) and 2 * weight > whole
    quality = Quality.GOOD if is_good else Quality.DEGRADED
    return _median_price(used, record.price.base, record.price.quote), quality


def _said(item: Mapping[str, Any], record: PriceRecord) -> tuple[str, Fraction, int] | None:
    """Return a constituent's name, bid plus ask and weight; None where a gate of its own is shut."""
    if "bid" not in item or "ask" not in item:
        return None
    age = record.observed_at - datetime.fromisoformat(str(item["received_at"]))
    base, quote = record.price.base, record.price.quote
    bid, ask = _ratio(item["bid"], base, quote), _ratio(item["ask"], base, quote)
    is_old = abs(age) > timedelta(microseconds=int(record.method["age_max_us"]))
    is_wide = 2 * (ask - bid) * PPM > int(record.method["spread_ppm_max"]) * (ask + bid)
    if is_old or bid >= ask or is_wide:
        return None
    return str(item["venue"]), bid + ask, int(item["weight"])


def _median_price(used: Sequence[tuple[Fraction, int]], base: Asset, quote: Asset) -> Price:
    # As whole numbers of a common part.
    parts = lcm(*(value.denominator for value, _ in used))
    whole = [(value.numerator * (parts // value.denominator), weight) for value, weight in used]
    steps, of = weighted_median(whole)
    return Price.of(steps, 2 * of * parts, base, quote)


def _ratio(text: str, base: Asset, quote: Asset) -> Fraction:
    found = Price.parse(text, base, quote)
    return Fraction(found.numerator, found.denominator)


def _judged(policy: IndexPolicy, index: int, view: BookView | None, now: datetime) -> IndexMember:
    venue = policy.venues[index]
    verdict = judge(view, now=now, age_max=policy.age_max)
    if verdict is not Freshness.FRESH or view is None:
        return IndexMember(venue, view, _GATES[verdict])
    factor = policy.grid.tick_factors[index]
    bid, ask = view.bids[0].ticks, view.asks[0].ticks
    gate = Gate.USED
    if 2 * (ask - bid) * PPM > policy.spread_ppm_max * (ask + bid):
        gate = Gate.WIDE
    return IndexMember(venue, view, gate, (bid + ask) * factor)


def _no_index(policy: IndexPolicy, members: Sequence[IndexMember]) -> Refused:
    return Refused(
        f"no venue has a price of {policy.base.code}/{policy.quote.code}: {_verdicts(members)}",
        remedy="Look at the feeds, or let two people approve a price",
    )


def _verdicts(members: Sequence[IndexMember]) -> str:
    return ", ".join(f"{item.venue.instrument.venue} {item.gate}" for item in members)


def _constituent(item: IndexMember) -> Mapping[str, Any]:
    instrument, view = item.venue.instrument, item.view
    told: dict[str, Any] = {
        "venue": instrument.venue,
        "symbol": instrument.symbol,
        "instrument_version": instrument.version,
        "weight": item.venue.weight,
        "gate": str(item.gate),
    }
    if view is None:
        return told
    told |= {"sequence": view.sequence, "received_at": view.received_at.isoformat()}
    if view.bids and view.asks:
        told |= {
            "bid": instrument.price_text(view.bids[0].ticks),
            "ask": instrument.price_text(view.asks[0].ticks),
        }
    return told
