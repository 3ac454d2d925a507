"""Best prices and tickers: both are said by one frame of the ticker channel."""

from __future__ import annotations

from typing import Final

from kernel.errors import BadInput
from marketdata.events import BestSeen, TickerSeen
from marketdata.model import Instrument
from venues.kraken.frames import TickerRow, nanoseconds
from venues.kraken.numbers import steps_of, units_of

OLDER_MAX: Final = 20
"""Older rows in a row that may be late or repeated."""


class TickerFollower:
    """Reads one symbol's tickers; the venue does not number them, so they are counted."""

    def __init__(self, instrument: Instrument) -> None:
        """Read the tickers of *instrument*."""
        self._instrument = instrument
        self._count = 0
        self._newest_ns = self._older = 0
        self.shown: tuple[int, int] | None = None
        """The best bid and ask that were told last, in ticks."""

    def is_old(self, row: TickerRow) -> bool:
        """Tell whether a row is older than one before it; what stays older is a clock set back."""
        at_ns = nanoseconds(row.timestamp)
        if at_ns and at_ns < self._newest_ns and self._older < OLDER_MAX:
            self._older += 1
            return True
        self._newest_ns, self._older = at_ns or self._newest_ns, 0
        return False

    def best(self, row: TickerRow, now_ns: int) -> BestSeen:
        """Return the best level of either side.

        Raises:
            BadInput: a number cannot be read, is negative, or the sides are crossed.
        """
        item = self._instrument
        bid, ask = steps_of(row.bid, item), steps_of(row.ask, item)
        bid_units, ask_units = units_of(row.bid_qty, item), units_of(row.ask_qty, item)
        if min(bid, ask, bid_units, ask_units) < 0 or (bid and ask and bid >= ask):
            raise BadInput(f"the best bid is {bid} ticks and the best ask {ask}")
        self._count += 1
        self.shown = bid, ask
        return BestSeen(
            venue=item.venue,
            symbol=item.symbol,
            sequence=self._count,
            bid_ticks=bid,
            bid_units=bid_units if bid else 0,
            ask_ticks=ask,
            ask_units=ask_units if ask else 0,
            exchange_ns=nanoseconds(row.timestamp),
            received_ns=now_ns,
        )

    def ticker(self, row: TickerRow, now_ns: int) -> TickerSeen:
        """Return what was traded in 24 hours; its first price is the last one less the change.

        Raises:
            BadInput: a number cannot be read, or is negative.
        """
        item = self._instrument
        last, units = steps_of(row.last, item), units_of(row.volume, item)
        opened = last - steps_of(row.change, item)
        high, low = steps_of(row.high, item), steps_of(row.low, item)
        if min(last, opened, high, low, units) < 0:
            raise BadInput("a price or the volume of the ticker is negative")
        return TickerSeen(
            venue=item.venue,
            symbol=item.symbol,
            last_ticks=last,
            open_ticks=opened,
            high_ticks=high,
            low_ticks=low,
            base_units=units,
            exchange_ns=nanoseconds(row.timestamp),
            received_ns=now_ns,
        )
