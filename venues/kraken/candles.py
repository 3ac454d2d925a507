"""One symbol's candles. The venue does not say that one is closed: the next one does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from kernel.errors import BadInput
from marketdata.events import CandleSeen
from marketdata.model import Instrument
from venues.kraken.frames import CandleFrame, CandleRow, nanoseconds
from venues.kraken.numbers import steps_of, units_of

MINUTE_S: Final = 60


class CandleFollower:
    """Follows the candles of one symbol and one interval."""

    def __init__(self, instrument: Instrument, interval_s: int) -> None:
        """Follow candles of *interval_s* seconds of *instrument*."""
        self._instrument = instrument
        self._interval_s = interval_s
        self._open: CandleSeen | None = None

    @property
    def traded(self) -> tuple[int, int]:
        """Return when the open candle began, and how many trades it has."""
        return (0, 0) if self._open is None else (self._open.open_ns, self._open.trades)

    def take(
        self, rows: Sequence[CandleRow], frame: CandleFrame, now_ns: int
    ) -> Iterator[CandleSeen]:
        """Yield candles, each as open until the one after it begins; then once more, as closed.

        What is older than the open one was told before, as it was when it closed.

        Raises:
            BadInput: a number of a candle cannot be read, or cannot be.
        """
        for row in rows:
            candle = self._candle(row, frame, now_ns)
            before = self._open
            if before is not None:
                if candle.open_ns < before.open_ns:
                    continue
                if candle.open_ns > before.open_ns:
                    yield replace(before, is_closed=True, received_ns=now_ns)
            self._open = candle
            yield candle

    def _candle(self, row: CandleRow, frame: CandleFrame, now_ns: int) -> CandleSeen:
        item = self._instrument
        prices = [steps_of(price, item) for price in (row.open, row.high, row.low, row.close)]
        units = units_of(row.volume, item)
        opened, high, low, close = prices
        if row.interval * MINUTE_S != self._interval_s:
            raise BadInput(f"a candle of {row.interval} minutes was not asked for")
        if min(*prices, units, row.trades) < 0 or not low <= min(opened, close) <= high:
            raise BadInput(f"a candle's prices are {prices}, its volume {units}")
        return CandleSeen(
            venue=item.venue,
            symbol=item.symbol,
            interval_s=self._interval_s,
            open_ns=nanoseconds(row.interval_begin),
            open_ticks=opened,
            high_ticks=high,
            low_ticks=low,
            close_ticks=close,
            base_units=units,
            trades=row.trades,
            is_closed=False,
            exchange_ns=nanoseconds(frame.timestamp),
            received_ns=now_ns,
        )
