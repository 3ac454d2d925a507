"""One symbol's trades, each told once and in the venue's own count.

``trade_id`` counts the trades of a symbol without gaps, and subscribing gives the latest fifty. So a
missing trade is noticed with the next one, and is told late if it comes after all: out of turn, or in
the snapshot of a new subscription.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kernel.errors import BadInput
from marketdata.events import GapReason, TradeSeen
from marketdata.grid import Grid
from marketdata.model import Instrument
from venues.kraken.frames import TradeRow, nanoseconds
from venues.kraken.numbers import text_of, units_of

RECENT_MAX: Final = 1_000
"""Trades by which a repeated one is known; what is older and comes again is another count."""
MISSING_MAX: Final = 1_000
"""Missing trades that are waited for; of a longer gap only the latest."""


@dataclass(frozen=True, slots=True)
class TradeGap:
    """Trades are missing, or the venue counts anew, before the trade that follows."""

    reason: GapReason
    detail: str


class TradeFollower:
    """Follows the count of one symbol's trades."""

    def __init__(self, instrument: Instrument) -> None:
        """Follow the trades of *instrument*."""
        self._instrument = instrument
        self._grid = Grid(instrument)
        self._last: int | None = None
        self._recent: dict[int, tuple[int, int, int]] = {}
        self._missing: dict[int, None] = {}

    def take(
        self, rows: Iterable[TradeRow], now_ns: int, *, is_snapshot: bool
    ) -> Iterator[TradeSeen | TradeGap]:
        """Yield the trades that are new, with every gap in its place.

        The first snapshot is of trades from before we listened: it only begins the count.

        Raises:
            BadInput: a number of a trade cannot be read, or cannot be.
        """
        rows = tuple(rows)
        is_first = is_snapshot and self._last is None
        known_from = self._known_from(rows) if is_snapshot else None
        for row in rows:
            trade = self._trade(row, now_ns)
            if known_from is not None and row.trade_id < known_from:
                continue
            said = (trade.ticks, trade.units, trade.exchange_ns)
            if is_first:
                self._note(row.trade_id, said)
                continue
            gap = self._gap(row.trade_id, said)
            if gap is not None:
                yield gap
            elif self._last is not None and row.trade_id <= self._last:
                if row.trade_id not in self._missing:
                    continue
                del self._missing[row.trade_id]
            self._note(row.trade_id, said)
            yield trade

    def _known_from(self, rows: Sequence[TradeRow]) -> int | None:
        """Return what a snapshot's ids have to reach: it may begin before we listened.

        None: it ends before our last trade, so it is of another count, or we have none.
        """
        if self._last is None or max((row.trade_id for row in rows), default=-1) < self._last:
            return None
        return min((*self._recent, *self._missing), default=0)

    def _trade(self, row: TradeRow, now_ns: int) -> TradeSeen:
        item = self._instrument
        ticks, units = self._grid.ticks(text_of(row.price)), units_of(row.qty, item)
        if units < 0 or row.trade_id < 0:
            raise BadInput(f"trade {row.trade_id} is of {units} units at {ticks} ticks")
        return TradeSeen(
            venue=item.venue,
            symbol=item.symbol,
            trade_id=str(row.trade_id),
            ticks=ticks,
            units=units,
            buyer_is_maker=row.side == "sell",
            exchange_ns=nanoseconds(row.timestamp),
            received_ns=now_ns,
        )

    def _gap(self, trade_id: int, said: tuple[int, int, int]) -> TradeGap | None:
        last = self._last
        if last is None or trade_id == last + 1:
            return None
        if trade_id > last + 1:
            self._wait_for(range(last + 1, trade_id))
            missing = f"{last + 1}" if trade_id == last + 2 else f"{last + 1} to {trade_id - 1}"
            return TradeGap(GapReason.SEQUENCE, f"trade {missing} is missing")
        if trade_id in self._missing or self._recent.get(trade_id) == said:
            return None
        self._last = None
        self._recent.clear()
        self._missing.clear()
        return TradeGap(GapReason.RESTARTED, f"trade {trade_id} after {last}")

    def _wait_for(self, ids: range) -> None:
        self._missing.update(dict.fromkeys(ids[-MISSING_MAX:]))
        for surplus in list(self._missing)[: max(0, len(self._missing) - MISSING_MAX)]:
            del self._missing[surplus]

    def _note(self, trade_id: int, said: tuple[int, int, int]) -> None:
        self._last = trade_id if self._last is None else max(self._last, trade_id)
        self._recent[trade_id] = said
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]
