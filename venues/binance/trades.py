"""One symbol's trades, whose ids have no holes: an id that is missing is a trade that is. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from kernel.errors import BadInput
from marketdata.events import Channel, GapReason, GapSeen, MarketEvent, Request, TradeSeen
from marketdata.grid import Grid
from marketdata.model import Instrument
from venues.binance.frames import Trade
from venues.binance.policy import StreamWatch
from venues.feeds.gap_log import StreamGaps

RECENT_MAX: Final = 256
"""Trades that may come a second time without harm; an older id is a venue that began anew."""
LATE_MAX: Final = 1_000
"""Missing trades that may still come late; of a longer run none is waited for."""

Out = Sequence[MarketEvent | Request]
_NS_PER_MS: Final = 1_000_000


class TradeFollower:
    """Passes trades on, each once, and tells which are missing."""

    def __init__(
        self,
        instrument: Instrument,
        watch: StreamWatch,
        ask_again: Callable[[StreamGaps, int], Out],
    ) -> None:
        """Follow *instrument*'s trades; *ask_again* has the stream subscribed to again."""
        self.gaps = StreamGaps(instrument.venue, instrument.symbol, Channel.TRADES)
        self._grid = Grid(instrument)
        self._watch = watch
        self._ask_again = ask_again
        self._last = 0
        self._recent: deque[int] = deque(maxlen=RECENT_MAX)
        self._late: dict[int, GapSeen] = {}
        self._ended: GapSeen | None = None
        self._behind: tuple[int, int] | None = None
        """An id that the venue has spoken of, and when we heard of it."""

    def take(self, frame: Trade, now_ns: int) -> Out:
        """Follow one trade."""
        gaps, trade_id, last = self.gaps, frame.t, self._last
        if trade_id < 0:
            return self.fault(GapReason.MALFORMED, f"{trade_id} is no trade's id", now_ns)
        try:
            seen = TradeSeen(
                venue=gaps.venue,
                symbol=gaps.symbol,
                trade_id=str(trade_id),
                ticks=self._grid.ticks(frame.p),
                units=self._grid.units(frame.q),
                buyer_is_maker=frame.m,
                exchange_ns=frame.traded_ms * _NS_PER_MS,
                received_ns=now_ns,
            )
        except BadInput as error:
            return self.fault(GapReason.MALFORMED, str(error), now_ns)
        told: Out = ()
        if trade_id != last + 1 or self._ended is not None or gaps.is_open:
            told, is_new = self._out_of_step(trade_id, now_ns)
            if not is_new:
                return told
        if trade_id > self._last or not self._last:
            self._last = trade_id
        self._recent.append(trade_id)
        gaps.good_ns = now_ns
        gaps.strikes = 0
        if self._behind is not None and trade_id >= self._behind[0]:
            self._behind = None
        return (*told, seen)

    def subscribed(self, now_ns: int) -> Out:
        """End the gap; what was missed in it is known at the next trade."""
        ended = self.gaps.end(now_ns)
        self._ended = ended[0] if ended else None
        self._recent.clear()
        return ended

    def fault(self, reason: GapReason, detail: str, now_ns: int) -> Out:
        """Open a gap until the next trade that can be read."""
        return self.gaps.open(reason, detail, now_ns)

    def unsubscribed(self) -> None:
        """Wait to be subscribed again."""
        self._behind = None
        self._late.clear()

    def told(self, last_id: int, now_ns: int) -> None:
        """Hear from another stream that there was a trade of this id."""
        if not self._last:
            self._last = max(0, last_id)
        elif last_id > self._last and self._behind is None:
            self._behind = (last_id, now_ns)

    def look(self, now_ns: int) -> Out:
        """Judge by the time whether trades are missing that others have spoken of."""
        if self._behind is None or self.gaps.is_open:
            return ()
        last_id, since_ns = self._behind
        if now_ns - since_ns <= self._watch.silence_ns:
            return ()
        self._behind = None
        gap = self.gaps.open(GapReason.SILENT, f"trade {last_id} was not streamed", now_ns)
        return (*gap, *self._ask_again(self.gaps, now_ns))

    def _out_of_step(self, trade_id: int, now_ns: int) -> tuple[Out, bool]:
        """Return what follows from an id that is not the next one, and whether it is new to us."""
        last, ended = self._last, self._ended
        if trade_id in self._late:
            return self._come_late(trade_id, now_ns), True
        if trade_id in self._recent:
            return (), False
        if last and trade_id <= last:
            return self._restarted(trade_id, now_ns), True
        missing = (last + 1, trade_id - 1) if last and trade_id > last + 1 else None
        self._ended = None
        if self.gaps.is_open:
            return self.gaps.end(now_ns, _missing(missing)), True
        if ended is not None:  # a gap that is over, of which it was not known what was missed
            known = "; ".join(filter(None, (ended.detail, _missing(missing))))
            return (self.gaps.amend(ended, known, now_ns),), True
        if missing is None:
            return (), True
        found = self.gaps.note(
            GapReason.SEQUENCE, _missing(missing), self.gaps.good_ns or now_ns, now_ns
        )
        if missing[1] - missing[0] < LATE_MAX:
            self._late |= dict.fromkeys(range(missing[0], trade_id), found[-1])
        return found, True

    def _come_late(self, trade_id: int, now_ns: int) -> Out:
        gap = self._late.pop(trade_id)
        if any(other is gap for other in self._late.values()):
            return ()
        return (self.gaps.amend(gap, f"{gap.detail}; they came late", now_ns),)

    def _restarted(self, trade_id: int, now_ns: int) -> Out:
        detail = f"trade {trade_id} after {self._last}"
        since_ns = self.gaps.good_ns or now_ns
        self._last = 0
        self._ended = self._behind = None
        self._recent.clear()
        self._late.clear()
        return (
            *self.gaps.end(now_ns),
            *self.gaps.note(GapReason.RESTARTED, detail, since_ns, now_ns),
        )


def _missing(ids: tuple[int, int] | None) -> str:
    """Return in words which trades are missing; who fills gaps reads it."""
    return "no trade is missing" if ids is None else f"trades {ids[0]} to {ids[1]} are missing"
