"""An index of ten venues, from their books to the decided price: how long does it take?

Ten venues with three different tick sizes and 100 levels a side each; two of them fail a gate (one is
stale, one an outlier), as on a bad day. The median of many single decisions, and the 99th percentile.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from bench.measure import Measured, Result, Shared, percentile, versions
from bench.ten_venues import BTC, NOW, USD, VENUES, instrument, times_ms, view
from marketdata.index_price import IndexPolicy, IndexPrice, IndexVenue, decide_index
from marketdata.model import BookView, Instrument

LEVELS: Final = 100
DECISIONS: Final = 20_000
WARM_UP: Final = 2_000
GOAL_US: Final = 50
MICROSECOND: Final = timedelta(microseconds=1)


def measure(shared: Shared) -> Measured:  # noqa: ARG001  the shape of a benchmark
    """Time single decisions."""
    policy = IndexPolicy(
        base=BTC,
        quote=USD,
        venues=tuple(IndexVenue(instrument(number), 1 + number % 3) for number in range(VENUES)),
        venues_min=5,
    )
    views = [_view(policy.venues[number].instrument, number) for number in range(VENUES)]
    taken = times_ms(lambda n: _decide(policy, views, n), warm_up=WARM_UP, count=DECISIONS)
    times_us = [1_000 * time_ms for time_ms in taken]
    return Measured(
        results=(
            Result(
                name="index_10_venues.p50",
                value=percentile(times_us, 50),
                unit="µs",
                at_most=GOAL_US,
            ),
            Result(name="index_10_venues.p99", value=percentile(times_us, 99), unit="µs"),
        ),
        conditions={"venues": str(VENUES), "levels": str(LEVELS), "decisions": f"{DECISIONS:,}"},
        versions=versions(),
    )


def _decide(policy: IndexPolicy, views: Sequence[BookView], number: int) -> None:
    if not isinstance(decide_index(policy, views, now=NOW + MICROSECOND * number), IndexPrice):
        raise TypeError("there is no index")


def _view(of: Instrument, number: int) -> BookView:
    is_late, is_far = number == 3, number == 7
    age = timedelta(seconds=60 if is_late else 1)
    return view(of, number, levels=LEVELS, units=10_000, age=age, tenths=11 if is_far else 10)
