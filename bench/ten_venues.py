"""Venues whose books differ in grid and price: what is measured over several books at once."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from time import perf_counter_ns
from typing import Final

from bench.measure import Result, percentile
from kernel.money import Asset
from marketdata.model import BookView, Instrument, Level

VENUES: Final = 10
PEER_PART_MAX: Final = 0.5
"""What we may take of the time that the whole joint book takes."""
BTC: Final = Asset("BTC", 8)
USD: Final = Asset("USD", 2)
NOW: Final = datetime(2026, 11, 20, 12, tzinfo=UTC)

_GRIDS: Final = ((1, 2), (10, 2), (5, 1))
"""Tick and decimal places; neighbours differ, so a joint grid has work to do."""


def instrument(number: int, *, min_notional: int = 0) -> Instrument:
    """Return the instrument of one venue."""
    tick, scale = _GRIDS[number % len(_GRIDS)]
    return Instrument(
        venue=f"venue-{number}",
        symbol="BTCUSD",
        base=BTC,
        quote=USD,
        price_scale=scale,
        tick=tick,
        lot=1_000,
        lots_min=1,
        lots_max=10**9,
        min_notional=min_notional,
        version=1,
    )


def view(
    of: Instrument, number: int, *, levels: int, units: int, age: timedelta, tenths: int = 10
) -> BookView:
    """Return a book of *levels* a side, *units* each, around *tenths* tenths of the usual price."""
    middle = of.ticks("61000") * tenths // 10 + number
    return BookView(
        venue=of.venue,
        symbol=of.symbol,
        sequence=1_000 + number,
        received_at=NOW - age,
        bids=tuple(Level(middle - 1 - n, units) for n in range(levels)),
        asks=tuple(Level(middle + 1 + n, units) for n in range(levels)),
    )


def times_ms(make: Callable[[int], None], *, warm_up: int, count: int) -> list[float]:
    """Return what each of *count* calls took, in milliseconds; *make* is handed their numbers."""
    taken: list[float] = []
    gc.collect()
    gc.freeze()
    for number in range(warm_up + count):
        began = perf_counter_ns()
        make(number)
        took = perf_counter_ns() - began
        if number >= warm_up:
            taken.append(took / 1_000_000)
    gc.unfreeze()
    return taken


def compared(
    name: str, ours: Sequence[float], peers: Sequence[float], words: str, *, goal_ms: float
) -> tuple[Result, ...]:
    """Return median and 99th percentile of *ours*, and the median beside that of a peer."""
    median = percentile(ours, 50)
    return (
        Result(name=f"{name}.p50", value=median, unit="ms"),
        Result(name=f"{name}.p99", value=percentile(ours, 99), unit="ms", at_most=goal_ms),
        Result(
            name=f"{name}.peer",
            value=median,
            unit="ms",
            baseline=words,
            baseline_value=percentile(peers, 50),
            at_most=PEER_PART_MAX,
        ),
    )
