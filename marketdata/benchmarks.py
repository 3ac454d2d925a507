"""Prices over a window, from public trades: VWAP, TWAP and a one-hour reference rate.

All of them pool the trades of every venue on one joint grid and are exact ratios. A window is
half-open: ``start <= time < end``; the time of a trade is the venue's own, or ours where it does not
say. A trade that was received twice (same venue, symbol and id) counts once.

**VWAP**: ``sum(price · size) / sum(size)``.

**TWAP**: each price stands until the next trade; ``sum(price · duration) / sum(duration)``. Before
the first trade of the window stands the last one before it, if one is given; else the average
begins with the first and is degraded. Of several trades in one nanosecond the last in the order of ids stands.

**Reference rate**, after the CME CF Bitcoin Reference Rate (methodology of CF Benchmarks, sections 4
and 5): the hour is cut into 12 partitions of five minutes; in each the volume-weighted median of all
trades of all venues is taken; the rate is the plain mean of the partitions' medians. A partition
without trades is left out and the mean is of the others (section 5.1). A venue whose
volume-weighted median over the hour is more than ten per cent away from the median of those of all
venues is left out whole (section 5.2, "potentially erroneous data"). Where half of a partition's
volume is reached exactly between two prices, we take their mean. We publish an exact ratio; the
original is rounded to cents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, Final

import msgspec

from kernel.clock import from_unix_ns, to_unix_ns
from kernel.errors import BadInput, Refused
from kernel.money import Asset, Price
from marketdata.events import GapSeen, TradeSeen
from marketdata.grids import JointGrid
from marketdata.index_price import weighted_median
from marketdata.model import Instrument, PriceRecord, Quality
from marketdata.price_model import PPM, PriceKind

VWAP_METHOD: Final = "vwap/1"
TWAP_METHOD: Final = "twap/1"
REFERENCE_METHOD: Final = "reference-rate/1"
HOUR: Final = timedelta(hours=1)
PARTITIONS: Final = 12
ERRONEOUS_PPM: Final = 100_000
"""Ten per cent: a venue that is further away is left out."""

TRADES_MAX: Final = 5_000_000
"""Trades of one window; an hour of the busiest pair of all venues has fewer."""


@dataclass(frozen=True, slots=True)
class Tape:
    """The trades of one venue's instrument, in any order."""

    instrument: Instrument
    trades: Sequence[TradeSeen]
    gaps: Sequence[GapSeen] = ()


class _Print(msgspec.Struct, frozen=True, gc=False):
    at_ns: int
    steps: int
    units: int
    tape: int
    trade_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What is averaged over, and of whom."""

    base: Asset
    quote: Asset
    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise BadInput("a window ends after it starts")


def vwap(window: Window, tapes: Sequence[Tape]) -> PriceRecord | Refused:
    """Return the volume-weighted average price, or why there is none."""
    grid, prints = _pool(window, tapes)
    size = sum(item.units for item in prints)
    if not size:
        return _nothing(window)
    worth = sum(item.steps * item.units for item in prints)
    price = grid.price(worth, size)
    return _record(window, grid, tapes, prints, price, PriceKind.VWAP, {"name": VWAP_METHOD})


def twap(
    window: Window, tapes: Sequence[Tape], *, before: Sequence[TradeSeen] = ()
) -> PriceRecord | Refused:
    """Return the time-weighted average of the last trade's price, or why there is none.

    Args:
        before: trades from before the window, of which the latest one stands at its start.
    """
    grid, prints = _pool(window, tapes)
    start_ns, end_ns = to_unix_ns(window.start), to_unix_ns(window.end)
    standing = _standing(grid, tapes, before, start_ns)
    steps_at = [(item.at_ns, item.steps) for item in prints]
    if standing is not None:
        steps_at.insert(0, (start_ns, standing))
    if not steps_at:
        return _nothing(window)
    ends = [at for at, _ in steps_at[1:]] + [end_ns]
    area = sum(steps * (end - at) for (at, steps), end in zip(steps_at, ends, strict=True))
    covered_ns = end_ns - steps_at[0][0]
    method = {
        "name": TWAP_METHOD,
        "covered_ns": covered_ns,
        "standing_at_start": standing is not None,
    }
    price = grid.price(area, covered_ns)
    is_thin = covered_ns < end_ns - start_ns
    return _record(window, grid, tapes, prints, price, PriceKind.TWAP, method, is_thin=is_thin)


def reference_rate(
    end: datetime, base: Asset, quote: Asset, tapes: Sequence[Tape], *, venues_min: int = 1
) -> PriceRecord | Refused:
    """Return the reference rate of the hour before *end*, or why there is none.

    Args:
        venues_min: with trades of fewer venues the rate is degraded; so it is with an empty
            partition, or with a gap in any of the tapes.
    """
    window = Window(base=base, quote=quote, start=end - HOUR, end=end)
    grid, pooled = _pool(window, tapes)
    erroneous = _erroneous(pooled)
    prints = [item for item in pooled if item.tape not in erroneous]
    start_ns = to_unix_ns(window.start)
    width_ns = (to_unix_ns(end) - start_ns) // PARTITIONS
    parted: list[list[tuple[int, int]]] = [[] for _ in range(PARTITIONS)]
    for item in prints:
        parted[(item.at_ns - start_ns) // width_ns].append((item.steps, item.units))
    medians = [weighted_median(rows) if rows else None for rows in parted]
    known = [Fraction(*found) for found in medians if found is not None]
    if not known:
        return _nothing(window)
    mean = sum(known, Fraction(0)) * Fraction(1, len(known))
    left_out = sorted(
        f"{tapes[n].instrument.venue}:{tapes[n].instrument.symbol}" for n in erroneous
    )
    method = {
        "name": REFERENCE_METHOD,
        "partitions": [
            _partition(grid, start_ns + number * width_ns, rows, found)
            for number, (rows, found) in enumerate(zip(parted, medians, strict=True))
        ],
        "erroneous": left_out,
        "venues_min": venues_min,
    }
    venues = {tapes[item.tape].instrument.venue for item in prints}
    is_thin = len(known) < PARTITIONS or len(venues) < venues_min or bool(erroneous)
    price = grid.price(mean.numerator, mean.denominator)
    kind = PriceKind.REFERENCE_RATE
    return _record(window, grid, tapes, pooled, price, kind, method, is_thin=is_thin)


def recompute(record: PriceRecord) -> Price:
    """Return what the partitions of a recorded reference rate come to.

    Raises:
        BadInput: it is not a reference rate of this method. A VWAP or a TWAP is computed again from
            the trades themselves.
    """
    if record.method.get("name") != REFERENCE_METHOD:
        raise BadInput(f"{record.method.get('name')!r} keeps no partitions")
    base, quote = record.price.base, record.price.quote
    found = [
        Fraction(int(part["numerator"]), int(part["denominator"]))
        for part in record.method["partitions"]
        if part["trades"]
    ]
    mean = sum(found, Fraction(0)) * Fraction(1, len(found))
    return Price.of(mean.numerator, mean.denominator, base, quote)


def _pool(window: Window, tapes: Sequence[Tape]) -> tuple[JointGrid, list[_Print]]:
    """Return the trades of the window on the joint grid, by time, each once.

    Raises:
        BadInput: a tape of another pair, one instrument twice, or more trades than there is room for.
    """
    names = {(tape.instrument.venue, tape.instrument.symbol) for tape in tapes}
    if len(names) != len(tapes):
        raise BadInput("the trades of one instrument stand on one tape")
    if sum(len(tape.trades) for tape in tapes) > TRADES_MAX:
        raise BadInput(f"a benchmark is made of at most {TRADES_MAX:,} trades")
    grid = JointGrid.of(window.base, window.quote, [tape.instrument for tape in tapes])
    start_ns, end_ns = to_unix_ns(window.start), to_unix_ns(window.end)
    found: list[_Print] = []
    for number, tape in enumerate(tapes):
        tick, unit = grid.tick_factors[number], grid.unit_factors[number]
        for trade in _once(tape):
            at_ns = time_of(trade)
            if start_ns <= at_ns < end_ns:
                found.append(
                    _Print(at_ns, trade.ticks * tick, trade.units * unit, number, trade.trade_id)
                )
    found.sort(key=lambda item: (item.at_ns, item.tape, _id_order(item.trade_id)))
    return grid, found


def time_of(trade: TradeSeen) -> int:
    """Return when it traded: by the venue, or by us where the venue does not say."""
    return trade.exchange_ns or trade.received_ns


def _once(tape: Tape) -> Iterable[TradeSeen]:
    seen: dict[str, TradeSeen] = {}
    for trade in tape.trades:
        if (trade.venue, trade.symbol) != (tape.instrument.venue, tape.instrument.symbol):
            raise BadInput(f"a trade of {trade.symbol} at {trade.venue} is on another tape")
        if trade.ticks <= 0 or trade.units <= 0:
            raise BadInput(f"trade {trade.trade_id} of {trade.venue} has no price or size")
        seen.setdefault(trade.trade_id, trade)
    return seen.values()


def _id_order(trade_id: str) -> tuple[int, str]:
    """Numbers as numbers: they are texts of growing length."""
    return len(trade_id), trade_id


def _standing(
    grid: JointGrid, tapes: Sequence[Tape], before: Sequence[TradeSeen], start_ns: int
) -> int | None:
    factors = {
        (tape.instrument.venue, tape.instrument.symbol): grid.tick_factors[number]
        for number, tape in enumerate(tapes)
    }
    earlier = [
        trade
        for trade in before
        if time_of(trade) < start_ns and (trade.venue, trade.symbol) in factors
    ]
    if not earlier:
        return None
    last = max(earlier, key=lambda trade: (time_of(trade), _id_order(trade.trade_id)))
    return last.ticks * factors[last.venue, last.symbol]


def _erroneous(prints: Sequence[_Print]) -> set[int]:
    """Return the tapes whose own median over the window is too far from that of all of them."""
    of_tape: dict[int, list[tuple[int, int]]] = {}
    for item in prints:
        of_tape.setdefault(item.tape, []).append((item.steps, item.units))
    own = {tape: Fraction(*weighted_median(rows)) for tape, rows in of_tape.items()}
    if not own:
        return set()
    ordered = sorted(own.values())
    middle = len(ordered) // 2
    median = (ordered[middle] + ordered[~middle]) * Fraction(1, 2)
    return {
        tape for tape, value in own.items() if abs(value - median) * PPM > ERRONEOUS_PPM * median
    }


def _partition(
    grid: JointGrid,
    start_ns: int,
    rows: Sequence[tuple[int, int]],
    found: tuple[int, int] | None,
) -> Mapping[str, Any]:
    told: dict[str, Any] = {"start": from_unix_ns(start_ns).isoformat(), "trades": len(rows)}
    if found is None:
        return told
    price = grid.price(*found)
    return told | {
        "volume": _volume(grid, sum(units for _, units in rows)),
        "median": price.format(),
        "numerator": str(price.numerator),
        "denominator": str(price.denominator),
    }


def _record(
    window: Window,
    grid: JointGrid,
    tapes: Sequence[Tape],
    prints: Sequence[_Print],
    price: Price,
    kind: PriceKind,
    method: Mapping[str, Any],
    *,
    is_thin: bool = False,
) -> PriceRecord:
    has_gaps = any(tape.gaps for tape in tapes)
    return PriceRecord(
        price=price,
        kind=kind,
        quality=Quality.DEGRADED if is_thin or has_gaps else Quality.GOOD,
        constituents=tuple(_constituent(grid, tape, n, prints) for n, tape in enumerate(tapes)),
        method={
            **method,
            "start": window.start.isoformat(),
            "end": window.end.isoformat(),
        },
        observed_at=window.end,
    )


def _volume(grid: JointGrid, units: int) -> str:
    return Asset(grid.base.code, grid.base_scale).format(units)


def _constituent(
    grid: JointGrid, tape: Tape, number: int, prints: Sequence[_Print]
) -> Mapping[str, Any]:
    instrument = tape.instrument
    own = [item for item in prints if item.tape == number]
    told: dict[str, Any] = {
        "venue": instrument.venue,
        "symbol": instrument.symbol,
        "instrument_version": instrument.version,
        "trades": len(own),
        "gaps": [_gap(gap) for gap in tape.gaps],
    }
    if not own:
        return told
    # What was fetched later came out of order: the stretch is of all of them.
    ids = {item.trade_id for item in own}
    received = [trade.received_ns for trade in tape.trades if trade.trade_id in ids]
    return told | {
        "volume": _volume(grid, sum(item.units for item in own)),
        "first_trade": own[0].trade_id,
        "last_trade": own[-1].trade_id,
        "received_at": from_unix_ns(min(received)).isoformat(),
        "received_until": from_unix_ns(max(received)).isoformat(),
    }


def _gap(gap: GapSeen) -> Mapping[str, str]:
    return {
        "reason": str(gap.reason),
        "since": from_unix_ns(gap.since_ns).isoformat(),
        "until": from_unix_ns(gap.until_ns).isoformat() if gap.until_ns else "",
    }


def _nothing(window: Window) -> Refused:
    return Refused(
        f"no trade of {window.base.code}/{window.quote.code} is known from"
        f" {window.start.isoformat()} to {window.end.isoformat()}",
        remedy="Backfill the trades of the window",
    )
