"""A recording of a real venue, as the simulator plays it: raw segments through their own machines.

What the venue's book and trades were, the house quotes and takes; whatever else was recorded
(tickers, candles, gaps) is not played. A segment, a venue's folder or a whole directory of one
venue's recordings can be given. Where frames are missing the book stands still until the next
snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from math import gcd
from pathlib import Path
from typing import Final

from kernel.errors import CausewayError
from marketdata.events import BookUpdate, MarketEvent, Rows, TradeSeen
from marketdata.model import Instrument
from marketdata.recording.layout import RAW_SUFFIX
from marketdata.recording.raw_reader import read_header
from marketdata.recording.replay import events_of
from venues.feeds.factory import machine_of
from venues.simulator.decimals import DECIMALS, UNIT, text_from_units
from venues.simulator.errors import RecordingInvalid
from venues.simulator.model import SymbolSpec
from venues.simulator.replay import RecordedTrade, Row

EVENTS_LOOKED_AT: Final = 200_000
"""Events in which a first price of every symbol is looked for."""


class MarketRecording:
    """A recording of a venue to be replayed; see `replay.open_recording`.

    Raises on opening:
        RecordingInvalid: it cannot be read, is of several venues, or has no book of any symbol.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._segments = _segments(path)
        try:
            headers = [read_header(one) for one in self._segments]
        except (OSError, CausewayError) as error:
            raise RecordingInvalid(f"recording {path} cannot be read: {error}") from error
        if len({header.venue for header in headers}) > 1:
            raise RecordingInvalid(f"recording {path} is of several venues: name one of them")
        # One symbol may have had several grids: what a session says is in those of its own header.
        self._grids: dict[str, list[Instrument]] = {}
        for header in headers:
            for one in header.instruments:
                self._grids.setdefault(one.symbol, []).append(one)
        self.symbols = tuple(self._symbols())

    def rows(self, skipped: int = 0) -> Iterator[tuple[int, Row]]:
        """The rows behind the first so many, with their numbers from 1.

        Raises:
            RecordingInvalid: the recording is not what was written.
        """
        return islice(enumerate(self._rows(), 1), skipped, None)

    def _symbols(self) -> Iterator[SymbolSpec]:
        firsts: dict[str, int] = {}
        for event, instrument in islice(self._events(), EVENTS_LOOKED_AT):
            price = _price(event) * _scaled(instrument.tick, instrument.price_scale)
            if price:
                firsts.setdefault(event.symbol, price)
            if len(firsts) == len(self._grids):
                break
        if not firsts:
            raise RecordingInvalid(f"recording {self._path} has neither a book nor a trade")
        for symbol, price in sorted(firsts.items()):
            yield _spec(self._grids[symbol], price)

    def _rows(self) -> Iterator[Row]:
        played = {spec.base + spec.quote for spec in self.symbols}
        for event, instrument in self._events():
            if instrument.base.code + instrument.quote.code in played:
                row = _row(event, instrument)
                if row is not None:
                    yield row

    def _events(self) -> Iterator[tuple[MarketEvent, Instrument]]:
        """Yield what the machines say of symbols whose grids are known, with those."""
        try:
            for _, one in groupby(self._segments, lambda path: read_header(path).session):
                segments = list(one)
                header = read_header(segments[0])
                grids = {item.symbol: item for item in header.instruments}
                for events in events_of(segments, machine_of(header)):
                    yield from (
                        (event, grids[event.symbol]) for event in events if event.symbol in grids
                    )
        except (OSError, CausewayError) as error:
            raise RecordingInvalid(f"recording {self._path}: {error}") from error


def _segments(path: Path) -> Sequence[Path]:
    found = [path] if path.is_file() else sorted(path.rglob(f"*{RAW_SUFFIX}"), key=_in_order)
    if not found:
        raise RecordingInvalid(f"recording {path} has no segments (*{RAW_SUFFIX})")
    return found


def _in_order(path: Path) -> str:
    return path.name


def _price(event: MarketEvent) -> int:
    """A price near the market, in ticks; 0 if the event has none."""
    if isinstance(event, TradeSeen):
        return event.ticks
    if isinstance(event, BookUpdate) and event.is_snapshot and event.bids and event.asks:
        best = max(ticks for ticks, _ in event.bids), min(ticks for ticks, _ in event.asks)
        return sum(best) // 2
    return 0


def _spec(grids: Sequence[Instrument], mid: int) -> SymbolSpec:
    """Return the symbol on a grid that holds whatever was said on any of *grids*."""
    instrument = grids[-1]
    ticks = [_scaled(one.tick, one.price_scale) for one in grids]
    lots = [_scaled(one.lot, one.base.scale) for one in grids]
    if not all(ticks) or not all(lots):
        raise RecordingInvalid(
            f"{instrument.symbol} has a finer grid than the {DECIMALS} decimals of a simulator"
        )
    tick, lot = gcd(*ticks), gcd(*lots)
    base, quote = instrument.base.code, instrument.quote.code
    least = _scaled(instrument.min_notional, instrument.quote.scale)
    return SymbolSpec(base + quote, base, quote, tick, lot, least, mid // tick)


def _row(event: MarketEvent, instrument: Instrument) -> Row | None:
    pair = f"{instrument.base.code}/{instrument.quote.code}"
    if isinstance(event, BookUpdate):
        return Row(
            ns=event.received_ns,
            symbol=pair,
            book="snapshot" if event.is_snapshot else "delta",
            bids=_texts(event.bids, instrument),
            asks=_texts(event.asks, instrument),
        )
    if isinstance(event, TradeSeen):
        ((price, quantity),) = _texts(((event.ticks, event.units),), instrument)
        taker = "sell" if event.buyer_is_maker else "buy"
        return Row(ns=event.received_ns, symbol=pair, trade=RecordedTrade(price, quantity, taker))
    return None


def _texts(rows: Rows, instrument: Instrument) -> tuple[tuple[str, str], ...]:
    tick = _scaled(instrument.tick, instrument.price_scale)
    scale = instrument.base.scale
    return tuple(
        (text_from_units(ticks * tick), text_from_units(_scaled(units, scale)))
        for ticks, units in rows
    )


def _scaled(units: int, scale: int) -> int:
    """What is counted in ``10 ** -scale``, counted as a simulator does; rounded down."""
    return int(units * UNIT // 10**scale)
