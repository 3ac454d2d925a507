"""Streams of which the newest value counts: best prices, tickers, candles. Pure.

They have no numbers without holes, so a lost frame is noticed by what other streams show: the book's
best level, or trades that no ticker and no candle follows. What is older than what was shown before
is dropped; what stays older is a venue that began anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kernel.errors import BadInput
from marketdata.book import L2Book
from marketdata.events import (
    BestSeen,
    CandleSeen,
    Channel,
    GapReason,
    MarketEvent,
    Request,
    TickerSeen,
)
from marketdata.grid import Grid
from marketdata.model import Instrument
from venues.binance.frames import Best, Kline, Ticker
from venues.binance.policy import StreamWatch
from venues.feeds.gap_log import StreamGaps

OLDER_MAX: Final = 20
"""Older values in a row that may be late or repeated."""

Out = Sequence[MarketEvent | Request]
_NS_PER_MS: Final = 1_000_000


class Follower:
    """What is common to them: gaps, order and suspicion.

    Attributes:
        wanted_ns: since when another stream shows that a frame of this one is due; 0: none is.
    """

    def __init__(
        self,
        instrument: Instrument,
        channel: Channel,
        watch: StreamWatch,
        ask_again: Callable[[StreamGaps, int], Out],
    ) -> None:
        """Follow a stream; *ask_again* has it subscribed to again."""
        self.gaps = StreamGaps(instrument.venue, instrument.symbol, channel)
        self.grid = Grid(instrument)
        self.wanted_ns = 0
        self._watch = watch
        self._ask_again = ask_again
        self._newest = 0
        self._older = 0

    def subscribed(self, now_ns: int) -> Out:
        """End the gap: from now on the newest value is streamed."""
        self.wanted_ns = 0
        return self.gaps.end(now_ns)

    def fault(self, reason: GapReason, detail: str, now_ns: int) -> Out:
        """Open a gap until the next value that can be read."""
        return self.gaps.open(reason, detail, now_ns)

    def unsubscribed(self) -> None:
        """Wait to be subscribed again."""
        self.wanted_ns = 0

    def look(self, now_ns: int) -> Out:
        """Judge by the time whether a frame is missing that was due."""
        since_ns = self.wanted_ns
        if not since_ns or self.gaps.is_open or now_ns - since_ns <= self._patience_ns:
            return ()
        self.wanted_ns = 0
        gap = self.gaps.open(GapReason.SILENT, "other streams show what this one lacks", now_ns)
        return (*gap, *self._ask_again(self.gaps, now_ns))

    def want(self, now_ns: int) -> None:
        """Hear from another stream that a frame of this one is due."""
        if not self.wanted_ns:
            self.wanted_ns = now_ns

    @property
    def _patience_ns(self) -> int:
        """Tickers and candles come every second or two."""
        return self._watch.silence_ns * 3 // 2

    def ordered(self, number: int, now_ns: int) -> tuple[Out, bool]:
        """Return what follows from a frame's number or time, and whether it is to be shown."""
        told: Out = ()
        if number < self._newest:
            self._older += 1
            if self._older <= OLDER_MAX:
                return (), False
            detail = f"{number} after {self._newest}"
            since_ns = self.gaps.good_ns or now_ns
            told = self.gaps.note(GapReason.RESTARTED, detail, since_ns, now_ns)
        self._newest, self._older = number, 0
        self.wanted_ns = 0
        self.gaps.strikes = 0
        if self.gaps.is_open:
            return (*told, *self.gaps.end(now_ns)), True
        self.gaps.good_ns = now_ns
        return told, True

    def price(self, text: str) -> int:
        """Return a price in ticks; a side or a market that is empty is written as zero."""
        if text.strip("0.") == "":
            return 0
        return self.grid.ticks(text)


class BestFollower(Follower):
    """Best bid and ask."""

    def take(self, frame: Best, now_ns: int) -> Out:
        """Follow one frame."""
        try:
            bid, ask = self.price(frame.b), self.price(frame.a)
            bid_units = self.grid.units(frame.bid_quantity)
            ask_units = self.grid.units(frame.ask_quantity)
        except BadInput as error:
            return self.fault(GapReason.MALFORMED, str(error), now_ns)
        if bid and ask and bid >= ask:
            return self.fault(GapReason.CROSSED, f"{frame.b} and {frame.a}", now_ns)
        told, is_shown = self.ordered(frame.u, now_ns)
        if not is_shown:
            return told
        seen = BestSeen(
            venue=self.gaps.venue,
            symbol=self.gaps.symbol,
            sequence=frame.u,
            bid_ticks=bid,
            bid_units=bid_units,
            ask_ticks=ask,
            ask_units=ask_units,
            exchange_ns=0,
            received_ns=now_ns,
        )
        self._shown = seen
        return (*told, seen)

    _shown: BestSeen | None = None

    def compare(self, book: L2Book, now_ns: int) -> Out:
        """Judge by the book's best level: best prices are streamed before the book's changes."""
        shown, top = self._shown, book.top
        if shown is None or top is None or self.gaps.is_open or shown.sequence >= top.sequence:
            return ()
        if now_ns - self.gaps.good_ns <= self._patience_ns:
            return ()
        ours = (top.bid.ticks, top.bid.units, top.ask.ticks, top.ask.units)
        if ours == (shown.bid_ticks, shown.bid_units, shown.ask_ticks, shown.ask_units):
            return ()
        self._shown = None
        gap = self.gaps.open(GapReason.SILENT, "the book's best level is another", now_ns)
        return (*gap, *self._ask_again(self.gaps, now_ns))


class TickerFollower(Follower):
    """What was traded in 24 hours."""

    def take(self, frame: Ticker, now_ns: int) -> Out:
        """Follow one frame."""
        try:
            prices = [self.price(text) for text in (frame.close, frame.o, frame.h, frame.low)]
            units = self.grid.units(frame.v)
        except BadInput as error:
            return self.fault(GapReason.MALFORMED, str(error), now_ns)
        told, is_shown = self.ordered(frame.exchange_ms, now_ns)
        if not is_shown:
            return told
        last, opened, high, low = prices
        seen = TickerSeen(
            venue=self.gaps.venue,
            symbol=self.gaps.symbol,
            last_ticks=last,
            open_ticks=opened,
            high_ticks=high,
            low_ticks=low,
            base_units=units,
            exchange_ns=frame.exchange_ms * _NS_PER_MS,
            received_ns=now_ns,
        )
        return (*told, seen)


class CandleFollower(Follower):
    """Candles of one interval."""

    def __init__(
        self,
        instrument: Instrument,
        watch: StreamWatch,
        ask_again: Callable[[StreamGaps, int], Out],
        *,
        interval_s: int,
    ) -> None:
        """Follow candles of *interval_s*."""
        super().__init__(instrument, Channel.CANDLES, watch, ask_again)
        self._interval_s = interval_s

    def take(self, frame: Kline, now_ns: int) -> Out:
        """Follow one frame."""
        candle = frame.k
        try:
            prices = [self.price(text) for text in (candle.o, candle.h, candle.low, candle.close)]
            units = self.grid.units(candle.v)
        except BadInput as error:
            return self.fault(GapReason.MALFORMED, str(error), now_ns)
        told, is_shown = self.ordered(frame.exchange_ms, now_ns)
        if not is_shown:
            return told
        opened, high, low, close = prices
        seen = CandleSeen(
            venue=self.gaps.venue,
            symbol=self.gaps.symbol,
            interval_s=self._interval_s,
            open_ns=candle.t * _NS_PER_MS,
            open_ticks=opened,
            high_ticks=high,
            low_ticks=low,
            close_ticks=close,
            base_units=units,
            trades=candle.n,
            is_closed=candle.x,
            exchange_ns=frame.exchange_ms * _NS_PER_MS,
            received_ns=now_ns,
        )
        return (*told, seen)
