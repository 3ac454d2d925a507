"""What a plot is drawn from: a book looked at now and then, trades, and the gaps between; bounded.

However long the recording is, at most `SAMPLES_MAX` looks are kept: when there are more, every second
one is dropped and the rest are twice as far apart. Trades that are dropped are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from marketdata.book import L2Book
from marketdata.events import BookUpdate, Channel, GapSeen, MarketEvent, TradeSeen
from marketdata.model import Instrument

SAMPLES_MAX: Final = 20_000
TRADES_MAX: Final = 20_000
LEVELS: Final = 200
"""Levels of a side that depth is summed over, at most."""
DEPTH_PPM: Final = 1_000
"""Depth is what rests within so many millionths of the mid: a tenth of a percent."""
PPM: Final = 1_000_000
FILLED: Final = frozenset({Channel.BOOK, Channel.TRADES})
"""Gaps of these are shown: the others tell nothing that is drawn."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A look at a book: best levels in ticks, depth in units; without a book there are none."""

    at_ns: int
    bid_ticks: int = 0
    ask_ticks: int = 0
    bid_units: int = 0
    ask_units: int = 0

    @property
    def is_book(self) -> bool:
        """Whether there was a usable book with both sides."""
        return self.bid_ticks > 0 and self.ask_ticks > 0


@dataclass(frozen=True, slots=True)
class Span:
    """A gap: from, until (0: it has not ended), of what and why."""

    since_ns: int
    until_ns: int
    channel: Channel
    reason: str
    detail: str


@dataclass(slots=True)
class Series:
    """Everything that is drawn of one symbol; `take` is given its events one after the other."""

    instrument: Instrument
    step_ns: int = 0
    samples: list[Sample] = field(default_factory=list)
    trades: list[tuple[int, int, int]] = field(default_factory=list)
    trades_seen: int = 0
    spans: dict[tuple[Channel, str, int], Span] = field(default_factory=dict)
    first_ns: int = 0
    last_ns: int = 0

    def take(self, event: MarketEvent, book: L2Book | None) -> None:
        """Look at an event, and at the book as it is after it."""
        if event.symbol != self.instrument.symbol:
            return
        self.first_ns = self.first_ns or event.received_ns
        self.last_ns = event.received_ns
        match event:
            case BookUpdate():
                self._look(event.received_ns, book)
            case TradeSeen():
                self._trade(event)
            case GapSeen() if event.channel in FILLED:
                self._gap(event)
            case _:
                pass

    @property
    def gaps(self) -> list[Span]:
        """Return the gaps, in the order of their beginnings."""
        return sorted(self.spans.values(), key=lambda span: (span.since_ns, span.channel))

    def _look(self, at_ns: int, book: L2Book | None) -> None:
        last = self.samples[-1] if self.samples else None
        if last is not None and last.is_book and at_ns - last.at_ns < self.step_ns:
            return
        found = _sample(at_ns, book)
        if found is not None:
            self.samples.append(found)
            self._thin()

    def _trade(self, event: TradeSeen) -> None:
        self.trades_seen += 1
        self.trades.append((event.exchange_ns or event.received_ns, event.ticks, event.units))
        if len(self.trades) > TRADES_MAX:
            self.trades = self.trades[1::2]

    def _gap(self, event: GapSeen) -> None:
        key = (event.channel, str(event.reason), event.since_ns)
        self.spans[key] = Span(
            event.since_ns, event.until_ns, event.channel, str(event.reason), event.detail
        )
        if event.channel is Channel.BOOK and not event.until_ns:
            # The line breaks here: what is between two books is not known.
            self.samples.append(Sample(event.received_ns))

    def _thin(self) -> None:
        if len(self.samples) <= SAMPLES_MAX:
            return
        kept = [item for n, item in enumerate(self.samples) if n % 2 or not item.is_book]
        looked_ns = self.samples[-1].at_ns - self.samples[0].at_ns
        self.samples = kept
        self.step_ns = max(self.step_ns * 2, looked_ns // SAMPLES_MAX)


def mid_half_ticks(sample: Sample) -> int:
    """Return the mid in half ticks: of two prices in ticks it may lie between two."""
    return sample.bid_ticks + sample.ask_ticks


def spread_ppm(sample: Sample) -> int:
    """Return the spread in millionths of the mid."""
    return (sample.ask_ticks - sample.bid_ticks) * 2 * PPM // mid_half_ticks(sample)


def _sample(at_ns: int, book: L2Book | None) -> Sample | None:
    top = None if book is None else book.top
    if book is None or top is None:
        return None
    bids, asks = book.rows(LEVELS)
    away = (top.bid.ticks + top.ask.ticks) * DEPTH_PPM
    half = top.bid.ticks + top.ask.ticks
    return Sample(
        at_ns,
        top.bid.ticks,
        top.ask.ticks,
        sum(units for ticks, units in bids if (half - 2 * ticks) * PPM <= away),
        sum(units for ticks, units in asks if (2 * ticks - half) * PPM <= away),
    )
