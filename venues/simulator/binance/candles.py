"""Candles of a symbol in every interval, from its minute bars and its latest trades. Pure.

An interval without trades has a flat candle at the close before it, as on the venue; before the
first trade there is none. Weeks begin on Monday, months with the calendar. A second's candles reach
back only as far as the venue remembers single trades.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

from venues.simulator.market import MINUTE_MS, Bar, Market

SECOND_MS: Final = 1_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
WEEK_MS: Final = 7 * DAY_MS
MONTH: Final = "1M"

# 1970 began on a Thursday: the first Monday is four days in.
_MONDAY_MS: Final = 4 * DAY_MS

WIDTHS_MS: Final = {
    "1s": SECOND_MS,
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": HOUR_MS,
    "2h": 2 * HOUR_MS,
    "4h": 4 * HOUR_MS,
    "6h": 6 * HOUR_MS,
    "8h": 8 * HOUR_MS,
    "12h": 12 * HOUR_MS,
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
    "1w": WEEK_MS,
}
INTERVALS: Final = (*WIDTHS_MS, MONTH)


@dataclass(frozen=True, slots=True)
class Candle:
    """Trades of one interval: prices in ticks, volumes in lots, values in quote units."""

    open_ms: int
    close_ms: int
    open_ticks: int
    high_ticks: int
    low_ticks: int
    close_ticks: int
    lots: int
    quote_units: int
    count: int
    first_id: int
    taker_lots: int
    taker_quote_units: int

    @property
    def last_id(self) -> int:
        """The last trade's id, -1 without trades: ids of a symbol have no gaps."""
        return self.first_id + self.count - 1 if self.count else -1


def opening_of(interval: str, at_ms: int, offset_ms: int = 0) -> int:
    """When the interval holding a time began, in a zone that is `offset_ms` ahead of UTC."""
    local_ms = at_ms + offset_ms
    if interval == MONTH:
        day = datetime.fromtimestamp(local_ms // 1000, tz=UTC)
        first = day.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return int(first.timestamp()) * 1000 - offset_ms
    width_ms = WIDTHS_MS[interval]
    base_ms = _MONDAY_MS if interval == "1w" else 0
    return local_ms - (local_ms - base_ms) % width_ms - offset_ms


def next_opening(interval: str, open_ms: int, offset_ms: int = 0) -> int:
    """When the interval after the one that began at `open_ms` begins."""
    if interval == MONTH:
        return opening_of(MONTH, open_ms + 32 * DAY_MS, offset_ms)
    return open_ms + WIDTHS_MS[interval]


def candles(
    market: Market,
    interval: str,
    *,
    now_ms: int,
    limit: int,
    start_ms: int | None = None,
    end_ms: int | None = None,
    offset_ms: int = 0,
) -> list[Candle]:
    """Candles that open in [start, end], oldest first: the first `limit` with a start, else the last.

    Raises:
        KeyError: an interval the venue does not have.
    """
    last_ms = opening_of(interval, now_ms, offset_ms)
    if end_ms is not None:
        last_ms = min(last_ms, opening_of(interval, end_ms, offset_ms))
    if start_ms is not None:
        first_ms = _first_opening(interval, start_ms, offset_ms)
    else:
        first_ms = opening_of(interval, last_ms - (limit - 1) * _width(interval), offset_ms)
    traded = traded_candles(market, interval, first_ms, offset_ms)
    if not traded:
        return []
    openings = [candle.open_ms for candle in traded]
    bounds = (max(first_ms, openings[0]), last_ms)
    slots = _slots(interval, bounds, offset_ms, limit, from_start=start_ms is not None)
    return [_candle_at(traded, openings, interval, slot, offset_ms) for slot in slots]


def traded_candles(market: Market, interval: str, from_ms: int, offset_ms: int = 0) -> list[Candle]:
    """Candles of intervals that had trades, oldest first, since a time an interval opened at.

    One before it may come first: it is not whole, but its close is.
    """
    pieces = _seconds(market) if interval == "1s" else minutes(market, from_ms)
    grouped = groupby(pieces, lambda piece: opening_of(interval, piece.open_ms, offset_ms))
    return [
        _merged(open_ms, next_opening(interval, open_ms, offset_ms) - 1, list(group))
        for open_ms, group in grouped
    ]


def merged(pieces: Sequence[Candle], open_ms: int, close_ms: int) -> Candle | None:
    """One candle out of several in order, or None of none."""
    return _merged(open_ms, close_ms, pieces) if pieces else None


def minutes(market: Market, from_ms: int) -> list[Candle]:
    """The minute bars since a time as candles, oldest first, and the last bar before it."""
    found: list[Candle] = []
    first_id = market.next_trade_id
    for bar in reversed(market.bars):
        first_id -= bar.count
        found.append(_of_bar(bar, first_id))
        if bar.open_ms < from_ms:
            break
    found.reverse()
    return found


def _width(interval: str) -> int:
    return WIDTHS_MS.get(interval, 31 * DAY_MS)


def _first_opening(interval: str, start_ms: int, offset_ms: int) -> int:
    """When the first interval that begins at a time or later begins."""
    open_ms = opening_of(interval, start_ms, offset_ms)
    return open_ms if open_ms == start_ms else next_opening(interval, open_ms, offset_ms)


def _slots(
    interval: str, bounds: tuple[int, int], offset_ms: int, limit: int, *, from_start: bool
) -> list[int]:
    slots: list[int] = []
    slot, last_ms = bounds
    while slot <= last_ms and (len(slots) < limit or not from_start):
        slots.append(slot)
        slot = next_opening(interval, slot, offset_ms)
    return slots if from_start else slots[-limit:]


def _candle_at(
    traded: Sequence[Candle], openings: Sequence[int], interval: str, slot: int, offset_ms: int
) -> Candle:
    before = traded[bisect_right(openings, slot) - 1]
    if before.open_ms == slot:
        return before
    price, close_ms = before.close_ticks, next_opening(interval, slot, offset_ms) - 1
    return Candle(slot, close_ms, price, price, price, price, 0, 0, 0, -1, 0, 0)


def _of_bar(bar: Bar, first_id: int) -> Candle:
    return Candle(
        open_ms=bar.open_ms,
        close_ms=bar.open_ms + MINUTE_MS - 1,
        open_ticks=bar.open_ticks,
        high_ticks=bar.high_ticks,
        low_ticks=bar.low_ticks,
        close_ticks=bar.close_ticks,
        lots=bar.volume_lots,
        quote_units=bar.quote_units,
        count=bar.count,
        first_id=first_id,
        taker_lots=bar.taker_buy_lots,
        taker_quote_units=bar.taker_buy_quote_units,
    )


def _seconds(market: Market) -> Iterator[Candle]:
    for trade in market.trades:
        open_ms = trade.at_ms - trade.at_ms % SECOND_MS
        price, lots = trade.price_ticks, trade.quantity_lots
        units = market.spec.notional_units(price, lots)
        bought = not trade.buyer_is_maker
        yield Candle(
            open_ms=open_ms,
            close_ms=open_ms + SECOND_MS - 1,
            open_ticks=price,
            high_ticks=price,
            low_ticks=price,
            close_ticks=price,
            lots=lots,
            quote_units=units,
            count=1,
            first_id=trade.trade_id,
            taker_lots=lots if bought else 0,
            taker_quote_units=units if bought else 0,
        )


def _merged(open_ms: int, close_ms: int, pieces: Sequence[Candle]) -> Candle:
    return replace(
        pieces[0],
        open_ms=open_ms,
        close_ms=close_ms,
        high_ticks=max(piece.high_ticks for piece in pieces),
        low_ticks=min(piece.low_ticks for piece in pieces),
        close_ticks=pieces[-1].close_ticks,
        lots=_total(piece.lots for piece in pieces),
        quote_units=_total(piece.quote_units for piece in pieces),
        count=_total(piece.count for piece in pieces),
        taker_lots=_total(piece.taker_lots for piece in pieces),
        taker_quote_units=_total(piece.taker_quote_units for piece in pieces),
    )


def _total(values: Iterable[int]) -> int:
    return sum(values)
