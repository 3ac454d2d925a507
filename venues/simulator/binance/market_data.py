"""Endpoints that tell everybody about the market. Source: binance-spot-api-docs, rest-api.md."""

import re
from collections.abc import Callable
from typing import Any, Final

from venues.simulator.binance import frames, parameters, symbols, tickers, wire
from venues.simulator.binance.aggregates import aggregates, row_of
from venues.simulator.binance.calls import PAGE_DEFAULT, PAGE_MAX, Call
from venues.simulator.binance.candles import DAY_MS, HOUR_MS, INTERVALS, candles
from venues.simulator.binance.refusals import ApiError, illegal_characters
from venues.simulator.market import MINUTE_MS, Market
from venues.simulator.model import PublicTrade

DEPTH_DEFAULT: Final = 100
DEPTH_MAX: Final = 5_000
HOURS_MAX: Final = 14

_TICKER_KINDS: Final = ("FULL", "MINI")
_WINDOW: Final = re.compile(r"([1-9][0-9]?)([mhd])")
_WINDOW_UNITS_MS: Final = {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}
_WINDOW_COUNTS_MAX: Final = {"m": 59, "h": 23, "d": 7}
_ZONE: Final = re.compile(r"([+-]?)([0-9]{1,2})(?::([0-5][0-9]))?")


def ping(_call: Call) -> Any:
    """GET /api/v3/ping."""
    return {}


def time(call: Call) -> Any:
    """GET /api/v3/time."""
    return {"serverTime": call.core.now_ms()}


def exchange_info(call: Call) -> Any:
    """GET /api/v3/exchangeInfo, of all symbols or of those named."""
    markets = parameters.markets_of(call.core.state, call.sent)
    return {
        "timezone": "UTC",
        "serverTime": call.core.now_ms(),
        "rateLimits": call.limits.announced(),
        "exchangeFilters": [],
        "symbols": [symbols.symbol_info(market.spec) for market in markets],
    }


def depth(call: Call) -> Any:
    """GET /api/v3/depth."""
    return frames.depth(call.market(), call.limit(DEPTH_DEFAULT, DEPTH_MAX))


def trades(call: Call) -> Any:
    """GET /api/v3/trades: the most recent public trades, oldest first."""
    market = call.market()
    return [wire.trade_row(market.spec, trade) for trade in list(market.trades)[-call.limit() :]]


def historical_trades(call: Call) -> Any:
    """GET /api/v3/historicalTrades: from `fromId` on, as far back as the venue remembers."""
    market = call.market()
    rows = _from_id(call, list(market.trades))
    return [wire.trade_row(market.spec, trade) for trade in rows]


def aggregate_trades(call: Call) -> Any:
    """GET /api/v3/aggTrades: from `fromId` on, or between two times, or the latest."""
    market, sent = call.market(), call.sent
    rows = aggregates(market.trades)
    if "fromId" in sent:
        first = parameters.integer(sent, "fromId")
        rows = [row for row in rows if row.first.trade_id >= first][: call.limit()]
    else:
        rows = [row for row in rows if parameters.within(sent, row.first.at_ms)]
        rows = rows[: call.limit()] if "startTime" in sent else rows[-call.limit() :]
    return [row_of(market.spec, row) for row in rows]


def klines(call: Call) -> Any:
    """GET /api/v3/klines and /api/v3/uiKlines."""
    market, sent = call.market(), call.sent
    interval = parameters.text(sent, "interval")
    if interval not in INTERVALS:
        raise ApiError(-1120, "Invalid interval.")
    found = candles(
        market,
        interval,
        now_ms=call.core.now_ms(),
        limit=call.limit(PAGE_DEFAULT, PAGE_MAX),
        start_ms=parameters.maybe_integer(sent, "startTime"),
        end_ms=parameters.maybe_integer(sent, "endTime"),
        offset_ms=_zone_ms(sent.get("timeZone", "0")),
    )
    return [frames.kline_row(market.spec, candle) for candle in found]


def average_price(call: Call) -> Any:
    """GET /api/v3/avgPrice."""
    return tickers.average_price(call.market(), call.core.now_ms())


def ticker_24hr(call: Call) -> Any:
    """GET /api/v3/ticker/24hr."""
    now_ms = call.core.now_ms()
    return _tickers(call, lambda market: tickers.day_ticker(tickers.day_window(market, now_ms)))


def ticker_trading_day(call: Call) -> Any:
    """GET /api/v3/ticker/tradingDay: since midnight, UTC or of `timeZone`."""
    now_ms, zone_ms = call.core.now_ms(), _zone_ms(call.sent.get("timeZone", "0"))
    open_ms = (now_ms + zone_ms) // DAY_MS * DAY_MS - zone_ms
    _require_symbols(call)
    return _tickers(call, lambda market: tickers.ticker(tickers.window(market, open_ms, now_ms)))


def ticker_rolling(call: Call) -> Any:
    """GET /api/v3/ticker: a window of 1m to 59m, 1h to 23h or 1d to 7d."""
    now_ms, width_ms = call.core.now_ms(), _window_ms(call.sent.get("windowSize", "1d"))
    _require_symbols(call)
    return _tickers(
        call, lambda market: tickers.ticker(tickers.rolling_window(market, width_ms, now_ms))
    )


def ticker_book(call: Call) -> Any:
    """GET /api/v3/ticker/bookTicker."""
    return _one_or_more(call, tickers.book_ticker)


def ticker_price(call: Call) -> Any:
    """GET /api/v3/ticker/price: the last trade's price, or the mid before the first one."""

    def price(market: Market) -> Any:
        last = wire.price_text(market.spec, market.reference_ticks)
        return {"symbol": market.spec.name, "price": last}

    return _one_or_more(call, price)


def _tickers(call: Call, row: Callable[[Market], wire.Json]) -> Any:
    kind = parameters.chosen(call.sent, "type", _TICKER_KINDS, "FULL")
    if kind == "MINI":
        return _one_or_more(call, lambda market: tickers.mini(row(market)))
    return _one_or_more(call, row)


def _one_or_more(call: Call, row: Callable[[Market], Any]) -> Any:
    rows = [row(market) for market in parameters.markets_of(call.core.state, call.sent)]
    return rows[0] if "symbol" in call.sent else rows


def _require_symbols(call: Call) -> None:
    if "symbol" not in call.sent and "symbols" not in call.sent:
        raise ApiError(-1102, "Param 'symbol' or 'symbols' must be sent, but both were empty/null!")


def _from_id(call: Call, rows: list[PublicTrade]) -> list[PublicTrade]:
    if "fromId" not in call.sent:
        return rows[-call.limit() :]
    first = parameters.integer(call.sent, "fromId")
    return [row for row in rows if row.trade_id >= first][: call.limit()]


def _window_ms(text: str) -> int:
    found = _WINDOW.fullmatch(text)
    if found is None or int(found[1]) > _WINDOW_COUNTS_MAX[found[2]]:
        raise illegal_characters("windowSize", "^[0-9]{1,2}[mhd]$")
    return int(found[1]) * _WINDOW_UNITS_MS[found[2]]


def _zone_ms(text: str) -> int:
    found = _ZONE.fullmatch(text)
    if found is None or int(found[2]) > HOURS_MAX:
        raise ApiError(-1130, "Data sent for parameter 'timeZone' is not valid.")
    zone_ms = int(found[2]) * HOUR_MS + int(found[3] or 0) * MINUTE_MS
    return -zone_ms if found[1] == "-" else zone_ms
