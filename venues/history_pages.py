"""Pages of a venue's past, read from its answers: trades and candles in exact ticks and units. Pure.

Formats: Binance, rest-api.md, "Compressed/Aggregate trades list", "Old trade lookup",
"Kline/Candlestick data"; Kraken, REST API, "Get Recent Trades", "Get OHLC Data"; anything else as ccxt
has unified it, with numbers left as texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kernel.errors import BadInput
from marketdata.events import CandleSeen, TradeSeen
from marketdata.grid import Grid
from marketdata.model import Instrument, Page
from venues.ccxt.texts import decimal_of, mapping, plain, rows, text_of, truth_of

MS_NS: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000
HOUR_MS: Final = 3_600_000
"""How far one answer may reach at the least: Binance's aggregates, and so ccxt's, end there."""
NANOSECOND_DIGITS: Final = 9
KRAKEN_TRADE: Final = 7
"""Fields of a trade: price, quantity, time, side, kind, note, id."""
KRAKEN_CANDLES_MAX: Final = 720
"""Candles that the venue tells, the latest, whatever it is asked (REST API, "Get OHLC Data")."""
KRAKEN_CANDLE: Final = 8
"""Fields of a candle: time, open, high, low, close, average, volume, trades."""
BINANCE_CANDLE: Final = 9
"""The first fields of a candle: time, open, high, low, close, volume, end, worth, trades."""
UNIFIED_CANDLE: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What is asked for, and when the answer came: nanoseconds since 1970, half-open."""

    item: Instrument
    since_ns: int
    until_ns: int
    received_ns: int

    def holds(self, at_ns: int) -> bool:
        """Return whether a time lies in it."""
        return self.since_ns <= at_ns < self.until_ns


def binance_first_id(answer: Any) -> int | None:
    """Return the id of the first trade of a list of aggregates; None: there was no trade."""
    listed = rows(answer)
    return int(text_of(mapping(listed[0]), "f")) if listed else None


def binance_trades(answer: Any, span: Span, *, page_max: int) -> Page[TradeSeen]:
    """Read a page of single trades; the cursor is the id that the next one begins with."""
    grid, listed = Grid(span.item), rows(answer)
    found = [
        _trade(
            span,
            grid,
            trade_id=text_of(item, "id"),
            price=decimal_of(item, "price"),
            quantity=decimal_of(item, "qty"),
            buyer_is_maker=truth_of(item, "isBuyerMaker"),
            at_ns=int(text_of(item, "time")) * MS_NS,
        )
        for item in map(mapping, listed)
    ]
    goes_on = len(listed) >= page_max and found[-1].exchange_ns < span.until_ns
    cursor = str(int(found[-1].trade_id) + 1) if goes_on else ""
    return Page(_within(found, span), cursor)


def kraken_trades(answer: Any, span: Span, *, page_max: int, cursor: str) -> Page[TradeSeen]:
    """Read a page of trades; the cursor is the nanosecond after which the next one begins."""
    result = dict(mapping(mapping(answer).get("result")))
    last = text_of(result, "last")
    result.pop("last")
    (listed,) = (rows(value) for value in result.values())
    grid, found = Grid(span.item), []
    for row in map(rows, listed):
        if len(row) < KRAKEN_TRADE or row[3] not in {"b", "s"}:
            raise BadInput("a trade of the list cannot be read")
        found.append(
            _trade(
                span,
                grid,
                trade_id=str(int(str(row[6]))),
                price=plain(str(row[0])),
                quantity=plain(str(row[1])),
                buyer_is_maker=row[3] == "s",
                at_ns=_nanoseconds(str(row[2])),
            )
        )
    goes_on = len(listed) >= page_max and found[-1].exchange_ns < span.until_ns
    # Trades of the last nanosecond may not all have had room: they are asked for again.
    next_ns = max(int(last) - 1, int(cursor) + 1)
    return Page(_within(found, span), str(next_ns) if goes_on else "")


def unified_trades(answer: Any, span: Span, *, from_ms: int) -> Page[TradeSeen]:
    """Read ccxt's unified trades; the cursor is the millisecond from which the next page begins.

    A venue may answer for an hour only, or with fewer rows than it was asked for, so only a page with
    nothing in it is the end of an hour. A trade without an id is named after what it is, counted
    within its moment.
    """
    grid, found, named = Grid(span.item), [], Counter[str]()
    listed = [mapping(item) for item in rows(answer)]
    for item in listed:
        if item.get("side") not in {"buy", "sell"}:
            raise BadInput("a trade of the list has no side")
        price, quantity = decimal_of(item, "price"), decimal_of(item, "amount")
        at_ms, name = text_of(item, "timestamp"), item.get("id")
        if name is None:
            name = f"{at_ms}:{price}:{quantity}"
            named[name] += 1
            name = f"{name}:{named[name]}"
        found.append(
            _trade(
                span,
                grid,
                trade_id=str(name),
                price=price,
                quantity=quantity,
                buyer_is_maker=item["side"] == "sell",
                at_ns=int(at_ms) * MS_NS,
            )
        )
    found.sort(key=lambda one: (one.exchange_ns, len(one.trade_id), one.trade_id))
    if found:
        last_ms = found[-1].exchange_ns // MS_NS
        # A page of one moment would begin again and again.
        next_ms = last_ms if last_ms > from_ms else from_ms + 1
    else:
        next_ms = from_ms + HOUR_MS
    goes_on = next_ms * MS_NS < span.until_ns
    return Page(_within(found, span), str(next_ms) if goes_on else "")


def binance_candles(answer: Any, span: Span, interval_s: int, *, page_max: int) -> Page[CandleSeen]:
    """Read a page of candles; the cursor is the millisecond from which the next one opens."""
    found = []
    for row in map(rows, rows(answer)):
        if len(row) < BINANCE_CANDLE:
            raise BadInput("a candle of the list cannot be read")
        found.append(_candle(span, interval_s, int(row[0]) * MS_NS, row[1:5], row[5], int(row[8])))
    goes_on = len(found) >= page_max and found[-1].open_ns < span.until_ns
    cursor = str(found[-1].open_ns // MS_NS + 1) if goes_on else ""
    return Page(_closed(found, span), cursor)


def kraken_candles(answer: Any, span: Span, interval_s: int) -> Page[CandleSeen]:
    """Read the candles that the venue still has: 720 at most, those without trades left out."""
    result = dict(mapping(mapping(answer).get("result")))
    result.pop("last", None)
    (listed,) = (rows(value) for value in result.values())
    found = []
    for row in map(rows, listed):
        if len(row) < KRAKEN_CANDLE:
            raise BadInput("a candle of the list cannot be read")
        at_ns = int(row[0]) * SECOND_NS
        found.append(_candle(span, interval_s, at_ns, row[1:5], row[6], int(row[7])))
    # A full list whose first candle is later than asked for: those before it have been dropped.
    is_cut = len(found) >= KRAKEN_CANDLES_MAX and found[0].open_ns > span.since_ns
    return Page(_closed(found, span), untold_until_ns=found[0].open_ns if is_cut else 0)


def unified_candles(answer: Any, span: Span, interval_s: int, *, page_max: int) -> Page[CandleSeen]:
    """Read ccxt's unified candles, which do not say how many trades there were."""
    found = []
    for row in map(rows, rows(answer)):
        if len(row) < UNIFIED_CANDLE:
            raise BadInput("a candle of the list cannot be read")
        found.append(_candle(span, interval_s, int(row[0]) * MS_NS, row[1:5], row[5], 0))
    goes_on = len(found) >= page_max and found[-1].open_ns < span.until_ns
    cursor = str(found[-1].open_ns // MS_NS + 1) if goes_on else ""
    return Page(_closed(found, span), cursor)


def _trade(
    span: Span,
    grid: Grid,
    *,
    trade_id: str,
    price: str,
    quantity: str,
    buyer_is_maker: bool,
    at_ns: int,
) -> TradeSeen:
    return TradeSeen(
        venue=span.item.venue,
        symbol=span.item.symbol,
        trade_id=trade_id,
        ticks=grid.ticks(price),
        units=grid.units(quantity),
        buyer_is_maker=buyer_is_maker,
        exchange_ns=at_ns,
        received_ns=span.received_ns,
    )


def _candle(
    span: Span, interval_s: int, open_ns: int, prices: Sequence[Any], volume: Any, trades: int
) -> CandleSeen:
    grid = Grid(span.item)
    ticks = [grid.ticks(plain(str(price))) for price in prices]
    return CandleSeen(
        venue=span.item.venue,
        symbol=span.item.symbol,
        interval_s=interval_s,
        open_ns=open_ns,
        open_ticks=ticks[0],
        high_ticks=ticks[1],
        low_ticks=ticks[2],
        close_ticks=ticks[3],
        base_units=grid.units(plain(str(volume))),
        trades=trades,
        is_closed=True,
        exchange_ns=0,
        received_ns=span.received_ns,
    )


def _within(found: Iterable[TradeSeen], span: Span) -> tuple[TradeSeen, ...]:
    return tuple(trade for trade in found if span.holds(trade.exchange_ns))


def _closed(found: Iterable[CandleSeen], span: Span) -> tuple[CandleSeen, ...]:
    """Leave out what lies outside, and what was not over when the answer came."""
    return tuple(
        candle
        for candle in found
        if span.holds(candle.open_ns)
        and candle.open_ns + candle.interval_s * SECOND_NS <= span.received_ns
    )


def _nanoseconds(text: str) -> int:
    """Read seconds with a fraction."""
    whole, _, fraction = plain(text).partition(".")
    return int(whole + fraction[:NANOSECOND_DIGITS].ljust(NANOSECOND_DIGITS, "0"))
