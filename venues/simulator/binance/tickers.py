"""Statistics of a symbol over a window of time, in the shapes of REST and of the streams. Pure.

Source: binance-spot-api-docs, rest-api.md ("24hr ticker", "Rolling window", "Trading Day") and
web-socket-streams.md. Without a trade in the window all prices are the last known one.
"""

from dataclasses import dataclass
from typing import Final

from matching.model import Side
from venues.simulator.binance.candles import DAY_MS, HOUR_MS, Candle, merged, minutes
from venues.simulator.binance.wire import Json, price_text, quantity_text
from venues.simulator.decimals import UNIT, text_from_units
from venues.simulator.market import MINUTE_MS, Market

STREAM_WINDOWS_MS: Final = {"1h": HOUR_MS, "4h": 4 * HOUR_MS, "1d": DAY_MS}
AVERAGE_MINUTES: Final = 5

_MINI: Final = (
    "symbol",
    "openPrice",
    "highPrice",
    "lowPrice",
    "lastPrice",
    "volume",
    "quoteVolume",
    "openTime",
    "closeTime",
    "firstId",
    "lastId",
    "count",
)


@dataclass(frozen=True, slots=True)
class Window:
    """A symbol's trades since `open_ms`; `candle` has count 0 when there were none."""

    market: Market
    open_ms: int
    close_ms: int
    candle: Candle
    previous_ticks: int


def window(market: Market, open_ms: int, now_ms: int) -> Window:
    """Trades of the minutes that opened at `open_ms` or later."""
    bars = minutes(market, open_ms)
    inside = [bar for bar in bars if bar.open_ms >= open_ms]
    before = [bar for bar in bars if bar.open_ms < open_ms]
    candle = merged(inside, open_ms, now_ms)
    if candle is None:
        last = market.reference_ticks
        candle = Candle(open_ms, now_ms, last, last, last, last, 0, 0, 0, -1, 0, 0)
    previous = before[-1].close_ticks if before else candle.open_ticks
    return Window(market, open_ms, now_ms, candle, previous)


def day_window(market: Market, now_ms: int) -> Window:
    """The last 24 hours."""
    return window(market, now_ms - DAY_MS, now_ms)


def rolling_window(market: Market, width_ms: int, now_ms: int) -> Window:
    """A window of a width that opens on a minute."""
    return window(market, (now_ms - width_ms) // MINUTE_MS * MINUTE_MS, now_ms)


def ticker(seen: Window) -> Json:
    """A window as GET ticker and GET ticker/tradingDay show it."""
    spec, candle = seen.market.spec, seen.candle
    change = candle.close_ticks - candle.open_ticks
    return {
        "symbol": spec.name,
        "priceChange": text_from_units(change * spec.tick_units),
        "priceChangePercent": _percent(change, candle.open_ticks),
        "weightedAvgPrice": text_from_units(_average_units(seen)),
        "openPrice": price_text(spec, candle.open_ticks),
        "highPrice": price_text(spec, candle.high_ticks),
        "lowPrice": price_text(spec, candle.low_ticks),
        "lastPrice": price_text(spec, candle.close_ticks),
        "volume": quantity_text(spec, candle.lots),
        "quoteVolume": text_from_units(candle.quote_units),
        "openTime": seen.open_ms,
        "closeTime": seen.close_ms,
        "firstId": candle.first_id,
        "lastId": candle.last_id,
        "count": candle.count,
    }


def day_ticker(seen: Window) -> Json:
    """A window as GET ticker/24hr shows it: with the top of the book."""
    market, spec = seen.market, seen.market.spec
    return {
        **ticker(seen),
        "prevClosePrice": price_text(spec, seen.previous_ticks),
        "lastQty": quantity_text(spec, market.trades[-1].quantity_lots if market.trades else 0),
        **best(market),
    }


def mini(row: Json) -> Json:
    """A ticker of type MINI: no changes, averages or best prices."""
    return {name: row[name] for name in _MINI}


def book_ticker(market: Market) -> Json:
    """GET ticker/bookTicker of one symbol."""
    return {"symbol": market.spec.name, **best(market)}


def best(market: Market) -> Json:
    """The best price and its quantity of both sides, zero where a side is empty."""
    spec, book = market.spec, market.book
    bid, ask = book.best_ticks(Side.BUY) or 0, book.best_ticks(Side.SELL) or 0
    return {
        "bidPrice": price_text(spec, bid),
        "bidQty": quantity_text(spec, market.visible_at(Side.BUY, bid)),
        "askPrice": price_text(spec, ask),
        "askQty": quantity_text(spec, market.visible_at(Side.SELL, ask)),
    }


def average_price(market: Market, now_ms: int) -> Json:
    """GET avgPrice: the volume-weighted price of the last five minutes."""
    seen = window(market, now_ms - AVERAGE_MINUTES * MINUTE_MS, now_ms)
    closed_ms = market.trades[-1].at_ms if market.trades else now_ms
    return {
        "mins": AVERAGE_MINUTES,
        "price": text_from_units(_average_units(seen)),
        "closeTime": closed_ms,
    }


def average_frame(market: Market, now_ms: int) -> Json:
    """The avgPrice stream's frame."""
    row = average_price(market, now_ms)
    return {
        "e": "avgPrice",
        "E": now_ms,
        "s": market.spec.name,
        "i": f"{AVERAGE_MINUTES}m",
        "w": row["price"],
        "T": row["closeTime"],
    }


def book_ticker_frame(market: Market) -> Json:
    """The bookTicker stream's frame, which has no event type."""
    row = best(market)
    return {
        "u": market.update_id,
        "s": market.spec.name,
        "b": row["bidPrice"],
        "B": row["bidQty"],
        "a": row["askPrice"],
        "A": row["askQty"],
    }


def mini_frame(market: Market, now_ms: int) -> Json:
    """The miniTicker stream's frame."""
    row = ticker(day_window(market, now_ms))
    return {
        "e": "24hrMiniTicker",
        "E": now_ms,
        "s": row["symbol"],
        "c": row["lastPrice"],
        "o": row["openPrice"],
        "h": row["highPrice"],
        "l": row["lowPrice"],
        "v": row["volume"],
        "q": row["quoteVolume"],
    }


def day_frame(market: Market, now_ms: int) -> Json:
    """The ticker stream's frame."""
    row = day_ticker(day_window(market, now_ms))
    return {
        **_window_frame("24hrTicker", row, now_ms),
        "x": row["prevClosePrice"],
        "Q": row["lastQty"],
        "b": row["bidPrice"],
        "B": row["bidQty"],
        "a": row["askPrice"],
        "A": row["askQty"],
    }


def rolling_frame(market: Market, name: str, now_ms: int) -> Json:
    """The frame of a ticker_1h, ticker_4h or ticker_1d stream."""
    row = ticker(rolling_window(market, STREAM_WINDOWS_MS[name], now_ms))
    return _window_frame(f"{name}Ticker", row, now_ms)


def _window_frame(kind: str, row: Json, now_ms: int) -> Json:
    return {
        "e": kind,
        "E": now_ms,
        "s": row["symbol"],
        "p": row["priceChange"],
        "P": row["priceChangePercent"],
        "w": row["weightedAvgPrice"],
        "o": row["openPrice"],
        "h": row["highPrice"],
        "l": row["lowPrice"],
        "c": row["lastPrice"],
        "v": row["volume"],
        "q": row["quoteVolume"],
        "O": row["openTime"],
        "C": row["closeTime"],
        "F": row["firstId"],
        "L": row["lastId"],
        "n": row["count"],
    }


def _average_units(seen: Window) -> int:
    spec, candle = seen.market.spec, seen.candle
    base_units = candle.lots * spec.lot_units
    if not base_units:
        return candle.close_ticks * spec.tick_units
    return candle.quote_units * UNIT // base_units


def _percent(change: int, base: int) -> str:
    thousandths = abs(change) * 100_000 // base if base else 0
    sign = "-" if change < 0 and thousandths else ""
    return f"{sign}{thousandths // 1000}.{thousandths % 1000:03d}"
