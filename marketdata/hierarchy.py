"""Where the price of a pair may come from: the first rung of its hierarchy that will do.

By default, from the top:

===============  ======================================================  ==========================
rung             what it is                                              for
===============  ======================================================  ==========================
``override``     a manual price that two people let stand *instead*      everything
``index``        the index of several venues                             everything; settlement
                                                                         only if it is good
``venue-mid``    the middle of one venue's book                          not for settlement
``fiat-rate``    published reference rates, both assets being fiat       everything
``cross``        a price in a pivot currency times a fiat rate           as its legs
``manual``       a manual price that stands *last*                       everything
===============  ======================================================  ==========================

A rung whose price is too old, too poor or missing is passed over, and the reason is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum, unique
from typing import Final

from kernel.errors import BadInput
from kernel.money import Price
from marketdata.model import PriceRecord, Quality
from marketdata.price_model import PriceKind, Purpose

MARKET_AGE_MAX: Final = timedelta(seconds=60)
EVERYTHING: Final = frozenset(Purpose)
NOT_SETTLEMENT: Final = EVERYTHING - {Purpose.SETTLEMENT}
FIT_TO_SETTLE: Final = frozenset({Quality.GOOD, Quality.MANUAL})
PIVOTS: Final = ("USD", "EUR")
CROSS_METHOD: Final = "cross/1"


@unique
class Source(StrEnum):
    """A rung."""

    OVERRIDE = "override"
    INDEX = "index"
    VENUE_MID = "venue-mid"
    FIAT_RATE = "fiat-rate"
    CROSS = "cross"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Rung:
    """A source, and for what and how long its prices may be taken.

    Attributes:
        age_max: of the observation; for a cross, of its market leg. Fiat rates have their
            business-day rule instead (`marketdata.fx`), manual prices their expiry.
    """

    source: Source
    purposes: frozenset[Purpose] = EVERYTHING
    age_max: timedelta = MARKET_AGE_MAX


ONE_VENUE: Final = frozenset({Source.VENUE_MID})
"""What never settles anything, whatever a hierarchy says: one venue is fewer than are agreed."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The rungs from the top; no source stands twice. `pivots` are tried in their order."""

    rungs: tuple[Rung, ...]
    pivots: tuple[str, ...] = PIVOTS

    def __post_init__(self) -> None:
        sources = [rung.source for rung in self.rungs]
        if not sources or len(set(sources)) != len(sources):
            raise BadInput("a hierarchy of prices has every source once, and at least one")
        for rung in self.rungs:
            if rung.source in ONE_VENUE and Purpose.SETTLEMENT in rung.purposes:
                raise BadInput(f"nothing is to settle on a {rung.source}: it is of one venue")
            if rung.age_max <= timedelta(0):
                raise BadInput("the age of a price is above zero")

    def within(self, age_max: timedelta) -> Hierarchy:
        """Return the same hierarchy with another age for market prices."""
        return Hierarchy(
            tuple(Rung(item.source, item.purposes, age_max) for item in self.rungs), self.pivots
        )


DEFAULT: Final = Hierarchy(
    (
        Rung(Source.OVERRIDE),
        Rung(Source.INDEX),
        Rung(Source.VENUE_MID, NOT_SETTLEMENT),
        Rung(Source.FIAT_RATE),
        Rung(Source.CROSS),
        Rung(Source.MANUAL),
    )
)


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The hierarchy of each pair (``ETH/USDT``); those that are not named have the default."""

    of_pair: Mapping[str, Hierarchy] = field(default_factory=dict)
    default: Hierarchy = DEFAULT

    def of(self, base: str, quote: str) -> Hierarchy:
        """Return the hierarchy of a pair."""
        return self.of_pair.get(f"{base}/{quote}", self.default)


def why_not(rung: Rung, record: PriceRecord, *, at: datetime, purpose: Purpose) -> str | None:
    """Return why a rung's price may not be taken; None: it may."""
    if purpose not in rung.purposes:
        return f"is not for {purpose}"
    if record.observed_at > at:
        return "was observed later"
    if _ages(rung.source) and at - record.observed_at > rung.age_max:
        return f"is older than {rung.age_max.total_seconds():.0f} s"
    if purpose is Purpose.SETTLEMENT and record.quality not in FIT_TO_SETTLE:
        return f"is {record.quality}"
    return None


def crossed(first: PriceRecord, first_id: str, second: PriceRecord, second_id: str) -> PriceRecord:
    """Return *first* (base in pivot) times *second* (pivot in quote); as good as the worse of both.

    It speaks of the moment of the first, which is the market's.
    """
    one, two = first.price, second.price
    if one.quote != two.base:
        raise BadInput(f"{one.quote.code} of the one price is not {two.base.code} of the other")
    worse = (
        Quality.DEGRADED if Quality.DEGRADED in {first.quality, second.quality} else Quality.GOOD
    )
    if worse is Quality.GOOD and Quality.MANUAL in {first.quality, second.quality}:
        worse = Quality.MANUAL
    return PriceRecord(
        price=Price.of(
            one.numerator * two.numerator, one.denominator * two.denominator, one.base, two.quote
        ),
        kind=PriceKind.CROSS,
        quality=worse,
        constituents=tuple(
            {
                "price_id": price_id,
                "pair": f"{leg.price.base.code}/{leg.price.quote.code}",
                "price": leg.price.format(),
                "kind": str(leg.kind),
            }
            for leg, price_id in ((first, first_id), (second, second_id))
        ),
        method={"name": CROSS_METHOD, "pivot": one.quote.code},
        observed_at=first.observed_at,
    )


def _ages(source: Source) -> bool:
    return source in {Source.INDEX, Source.VENUE_MID, Source.CROSS}
