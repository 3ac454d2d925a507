"""The columns of what is derived: whole numbers of fixed size, and exact texts where they are none.

A price is in ticks. A quantity is in units of ``10 ** -unit_scale`` of the base asset, with at most
`UNIT_SCALE_MAX` places: an asset of 18 would leave room for nine whole coins. A number that does not
fit (finer than that, or beyond 64 bits) is null in its column and stands, as the decimal that it
is, in the JSON of the column `exact`: a quantity in whole coins, anything else as a count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

from marketdata.events import (
    BestSeen,
    BookUpdate,
    CandleSeen,
    GapSeen,
    MarketEvent,
    TickerSeen,
    TradeSeen,
)
from marketdata.model import Instrument
from marketdata.recording.model import size_text

UNIT_SCALE_MAX: Final = 8
STEP_SCALE: Final = 18
"""Places of the columns that say how large a tick and a unit are."""

GAPS: Final = "gaps"
INT64_MAX: Final = 2**63 - 1

Row = Sequence[Any]
"""Values in the order of a table's columns."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How an instrument's ticks and units become columns."""

    instrument: Instrument | None

    @property
    def unit_scale(self) -> int:
        """Return the places of a quantity."""
        return min(UNIT_SCALE_MAX, self.instrument.base.scale) if self.instrument else 0

    @property
    def divisor(self) -> int:
        """Return how many smallest units are one unit of the column."""
        if self.instrument is None:
            return 1
        return int(10 ** (self.instrument.base.scale - self.unit_scale))

    @property
    def tick_size(self) -> str:
        """Return one tick as a decimal; empty if nobody knows."""
        one = self.instrument
        return size_text(one.tick, one.price_scale) if one else ""

    @property
    def unit_size(self) -> str:
        """Return one unit of a column as a decimal; empty if nobody knows."""
        return size_text(1, self.unit_scale) if self.instrument else ""

    def quantity(self, units: int) -> str:
        """Return smallest units as a decimal of whole coins."""
        return size_text(units, self.instrument.base.scale) if self.instrument else str(units)

    def facts(self) -> Mapping[str, str]:
        """Return what a file says of its grid."""
        one = self.instrument
        if one is None:
            return {}
        return {
            "causeway.base": one.base.code,
            "causeway.base_scale": str(one.base.scale),
            "causeway.quote": one.quote.code,
            "causeway.price_scale": str(one.price_scale),
            "causeway.tick_size": self.tick_size,
            "causeway.unit_scale": str(self.unit_scale),
            "causeway.instrument_version": str(one.version),
        }


@dataclass(frozen=True, slots=True)
class Table:
    """A table of what is derived.

    Attributes:
        columns: names and types, in order.
        quantities: the columns that are quantities.
        rows: what an event becomes.
        sequence: the first and last number that the venue gives an event; empty: none.
    """

    channel: str
    columns: Mapping[str, Any]
    quantities: frozenset[str]
    rows: Callable[[Any], Sequence[Row]]
    sequence: Callable[[Any], tuple[str, str]]

    def schema(self, facts: Mapping[str, str]) -> Any:
        """Return the schema of a file with these *facts* about it."""
        fields = [pa.field(name, kind) for name, kind in self.columns.items()]
        return pa.schema([*fields, *_COMMON], metadata=dict(facts))

    def arrays(self, rows: Sequence[Row], grid: Grid) -> list[Any]:
        """Return the columns of *rows*."""
        exact: dict[int, dict[str, str]] = {}
        arrays = [
            self._array(name, kind, values, grid, exact)
            for (name, kind), values in zip(
                self.columns.items(), zip(*rows, strict=True), strict=True
            )
        ]
        count = len(rows)
        texts = [None] * count if not exact else [_exact(exact.get(at)) for at in range(count)]
        return [
            *arrays,
            pa.array(texts, pa.string()),
            _constant(grid.tick_size, count),
            _constant(grid.unit_size, count),
        ]

    def _array(
        self,
        name: str,
        kind: Any,
        values: Sequence[Any],
        grid: Grid,
        exact: dict[int, dict[str, str]],
    ) -> Any:
        divisor = grid.divisor if name in self.quantities else 1
        if divisor == 1:
            try:
                return pa.array(values, kind)
            except OverflowError:
                pass
        fitting: list[int | None] = []
        for at, value in enumerate(values):
            if value is None:
                fitting.append(None)
                continue
            units, rest = divmod(value, divisor)
            if rest or not -INT64_MAX <= units <= INT64_MAX:
                text = grid.quantity(value) if name in self.quantities else str(value)
                exact.setdefault(at, {})[name] = text
                fitting.append(None)
            else:
                fitting.append(units)
        return pa.array(fitting, kind)


def table_of(event: MarketEvent) -> Table:
    """Return the table that an event belongs to."""
    return _TABLES[type(event)]


def _book_rows(event: BookUpdate) -> Sequence[Row]:
    head = (
        event.exchange_ns or None,
        event.received_ns,
        event.first,
        event.last,
        event.is_snapshot,
    )
    rows = [
        (*head, is_bid, ticks, units)
        for is_bid, side in ((True, event.bids), (False, event.asks))
        for ticks, units in side
    ]
    # An update without levels still says that the book is as it was, up to a sequence number.
    return rows or [(*head, None, None, None)]


def _trade_rows(event: TradeSeen) -> Sequence[Row]:
    return [
        (
            event.exchange_ns or None,
            event.received_ns,
            event.trade_id,
            event.ticks,
            event.units,
            event.buyer_is_maker,
        )
    ]


def _best_rows(event: BestSeen) -> Sequence[Row]:
    return [
        (
            event.exchange_ns or None,
            event.received_ns,
            event.sequence,
            event.bid_ticks,
            event.bid_units,
            event.ask_ticks,
            event.ask_units,
        )
    ]


def _ticker_rows(event: TickerSeen) -> Sequence[Row]:
    return [
        (
            event.exchange_ns or None,
            event.received_ns,
            event.last_ticks,
            event.open_ticks,
            event.high_ticks,
            event.low_ticks,
            event.base_units,
        )
    ]


def _candle_rows(event: CandleSeen) -> Sequence[Row]:
    return [
        (
            event.exchange_ns or None,
            event.received_ns,
            event.interval_s,
            event.open_ns,
            event.open_ticks,
            event.high_ticks,
            event.low_ticks,
            event.close_ticks,
            event.base_units,
            event.trades,
            event.is_closed,
        )
    ]


def _gap_rows(event: GapSeen) -> Sequence[Row]:
    return [
        (
            event.received_ns,
            str(event.channel),
            str(event.reason),
            event.since_ns,
            event.until_ns or None,
            event.detail,
        )
    ]


def _exact(numbers: Mapping[str, str] | None) -> str | None:
    return json.dumps(numbers, sort_keys=True) if numbers else None


_STEP: Final = pa.decimal128(38, STEP_SCALE)
_COMMON: Final = (
    pa.field("exact", pa.string()),
    pa.field("tick_size", _STEP),
    pa.field("unit_size", _STEP),
)


def _constant(text: str, count: int) -> Any:
    """Return a column that says one thing; null where it has more places than the column."""
    _, _, places = text.partition(".")
    value = Decimal(text) if text and len(places) <= STEP_SCALE else None
    return pa.repeat(pa.scalar(value, _STEP), count)


def _numbers(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, pa.int64())


_TIMES: Final = _numbers("exchange_ns", "received_ns")
BOOK_UPDATES: Final = Table(
    "book_updates",
    _TIMES
    | _numbers("first", "last")
    | {"is_snapshot": pa.bool_(), "is_bid": pa.bool_()}
    | _numbers("ticks", "units"),
    frozenset({"units"}),
    _book_rows,
    lambda event: (str(event.first), str(event.last)),
)
TRADES: Final = Table(
    "trades",
    _TIMES
    | {"trade_id": pa.string()}
    | _numbers("ticks", "units")
    | {"buyer_is_maker": pa.bool_()},
    frozenset({"units"}),
    _trade_rows,
    lambda event: (event.trade_id, event.trade_id),
)
BEST: Final = Table(
    "best",
    _TIMES | _numbers("sequence", "bid_ticks", "bid_units", "ask_ticks", "ask_units"),
    frozenset({"bid_units", "ask_units"}),
    _best_rows,
    lambda event: (str(event.sequence), str(event.sequence)),
)
TICKERS: Final = Table(
    "tickers",
    _TIMES | _numbers("last_ticks", "open_ticks", "high_ticks", "low_ticks", "base_units"),
    frozenset({"base_units"}),
    _ticker_rows,
    lambda _: ("", ""),
)
CANDLES: Final = Table(
    "candles",
    _TIMES
    | _numbers(
        "interval_s",
        "open_ns",
        "open_ticks",
        "high_ticks",
        "low_ticks",
        "close_ticks",
        "base_units",
        "trades",
    )
    | {"is_closed": pa.bool_()},
    frozenset({"base_units"}),
    _candle_rows,
    lambda event: (str(event.open_ns), str(event.open_ns)),
)
GAP_TABLE: Final = Table(
    GAPS,
    _numbers("received_ns")
    | {"channel": pa.string(), "reason": pa.string()}
    | _numbers("since_ns", "until_ns")
    | {"detail": pa.string()},
    frozenset(),
    _gap_rows,
    lambda _: ("", ""),
)
_TABLES: Final[Mapping[type[Any], Table]] = {
    BookUpdate: BOOK_UPDATES,
    TradeSeen: TRADES,
    BestSeen: BEST,
    TickerSeen: TICKERS,
    CandleSeen: CANDLES,
    GapSeen: GAP_TABLE,
}
ALL: Final = tuple(_TABLES.values())
