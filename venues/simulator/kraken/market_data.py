"""Public REST endpoints: what the markets are and what happens on them.

Each is a function from a call to the `result` of its answer. Source: docs.kraken.com, Market Data.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from matching.model import Level, Side
from venues.simulator.decimals import UNIT
from venues.simulator.kraken import numbers
from venues.simulator.kraken.context import Call
from venues.simulator.kraken.errors import invalid
from venues.simulator.kraken.names import Pair, altname, asset_id
from venues.simulator.market import MINUTE_MS, Bar, Market
from venues.simulator.model import FeeRates, PublicTrade, SymbolSpec

DAY_MS: Final = 24 * 60 * MINUTE_MS
DEPTH_DEFAULT: Final = 100
DEPTH_MAX: Final = 500
TRADES_MAX: Final = 1_000
CANDLES_MAX: Final = 720
INTERVALS: Final = (1, 5, 15, 30, 60, 240, 1_440, 10_080, 21_600)
COST_DECIMALS: Final = 5
ASSET_DECIMALS: Final = 10
FIAT: Final = ("USD", "EUR", "GBP", "CAD", "JPY", "AUD")
FIAT_DECIMALS: Final = 8  # the venue has 4; here every asset is counted in 1e-8 and shown whole

_BOOK_DECIMALS: Final = 3
# A time given in seconds is far below the first nanosecond cursor.
_SECONDS_BELOW: Final = 10**11


def time(call: Call) -> Any:
    """GET /0/public/Time."""
    now_ms = call.core.now_ms()
    moment = datetime.fromtimestamp(now_ms // 1000, tz=UTC)
    return {"unixtime": now_ms // 1000, "rfc1123": f"{moment:%a, %d %b %y %H:%M:%S} +0000"}


def system_status(call: Call) -> Any:
    """GET /0/public/SystemStatus."""
    moment = datetime.fromtimestamp(call.core.now_ms() // 1000, tz=UTC)
    return {"status": "online", "timestamp": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}


def asset_decimals(code: str) -> int:
    """With how many decimals amounts of an asset are told."""
    return FIAT_DECIMALS if code in FIAT else ASSET_DECIMALS


def assets(call: Call) -> Any:
    """GET /0/public/Assets, of the named assets if any are."""
    codes: Iterable[str] = call.core.state.assets
    if call.has("asset"):
        codes = [Call(call.kraken, {"asset": n}).asset() for n in call.text("asset").split(",")]
    return {
        asset_id(code): {
            "aclass": "currency",
            "altname": altname(code),
            "decimals": asset_decimals(code),
            "display_decimals": 2 if code in FIAT else 5,
            "status": "enabled",
        }
        for code in codes
    }


def asset_pairs(call: Call) -> Any:
    """GET /0/public/AssetPairs, of the named pairs if any are."""
    fees = call.core.state.genesis.accounts[0].fees
    return {pair.id: pair_row(pair, fees) for pair in call.pairs()}


def pair_row(pair: Pair, fees: FeeRates) -> dict[str, Any]:
    """A pair as AssetPairs tells it; the fee schedule has one step."""
    spec = pair.spec
    return {
        "altname": pair.altname,
        "wsname": pair.wsname,
        "aclass_base": "currency",
        "base": asset_id(spec.base),
        "aclass_quote": "currency",
        "quote": asset_id(spec.quote),
        "lot": "unit",
        "cost_decimals": COST_DECIMALS,
        "pair_decimals": numbers.price_decimals(spec),
        "lot_decimals": numbers.lot_decimals(spec),
        "lot_multiplier": 1,
        "leverage_buy": [],
        "leverage_sell": [],
        "fees": [[0, percent(fees.taker_ppm)]],
        "fees_maker": [[0, percent(fees.maker_ppm)]],
        "fee_volume_currency": "ZUSD",
        "margin_call": 80,
        "margin_stop": 40,
        "ordermin": plain(spec.lot_units),
        "costmin": plain(spec.min_notional_units),
        "tick_size": plain(spec.tick_units),
        "status": "online",
    }


def percent(ppm: int) -> Any:
    """A rate in percent, as a number."""
    return numbers.raw(plain(ppm * (UNIT // 10_000)))


def plain(units: int) -> str:
    """An amount with the decimals it needs."""
    return numbers.scaled(units, numbers.decimals_of(units) if units else 0)


def ticker(call: Call) -> Any:
    """GET /0/public/Ticker, of the named pairs if any are."""
    now_ms = call.core.now_ms()
    return {pair.id: ticker_row(call.kraken.market(pair), now_ms) for pair in call.pairs()}


def ticker_row(market: Market, now_ms: int) -> dict[str, Any]:
    """A day's statistics; pairs of values are today's and of the last 24 hours."""
    spec, last = market.spec, last_ticks(market)
    today_ms = now_ms - now_ms % DAY_MS
    spans = [_bars_since(market, today_ms), _bars_since(market, now_ms - DAY_MS)]
    opened = spans[0][0].open_ticks if spans[0] else last
    traded = market.trades[-1].quantity_lots if market.trades else 0
    return {
        "a": _best(market, Side.SELL),
        "b": _best(market, Side.BUY),
        "c": [numbers.rest_price(spec, last), numbers.scaled(traded * spec.lot_units, 8)],
        "v": [numbers.scaled(volume_units(spec, bars), 8) for bars in spans],
        "p": [vwap(spec, bars, last, numbers.REST_PRICE_DECIMALS) for bars in spans],
        "t": [sum(bar.count for bar in bars) for bars in spans],
        "l": [numbers.rest_price(spec, low_ticks(bars, last)) for bars in spans],
        "h": [numbers.rest_price(spec, high_ticks(bars, last)) for bars in spans],
        "o": numbers.rest_price(spec, opened),
    }


def last_ticks(market: Market) -> int:
    """The last trade's price, or the mid before the first one."""
    return market.trades[-1].price_ticks if market.trades else market.mid_ticks


def day_bars(market: Market, now_ms: int) -> list[Bar]:
    """The minute bars of the last 24 hours."""
    return _bars_since(market, now_ms - DAY_MS)


def low_ticks(bars: Sequence[Bar], default: int) -> int:
    """The lowest price of some bars."""
    return min((bar.low_ticks for bar in bars), default=default)


def high_ticks(bars: Sequence[Bar], default: int) -> int:
    """The highest price of some bars."""
    return max((bar.high_ticks for bar in bars), default=default)


def volume_units(spec: SymbolSpec, bars: Iterable[Bar]) -> int:
    """Base units traded in some bars."""
    return sum(bar.volume_lots for bar in bars) * spec.lot_units


def vwap(spec: SymbolSpec, bars: Sequence[Bar], default: int, decimals: int) -> str:
    """The volume-weighted average price of some bars."""
    lots = sum(bar.volume_lots for bar in bars)
    if not lots:
        return numbers.scaled(default * spec.tick_units, decimals)
    return numbers.average_price(spec, sum(bar.quote_units for bar in bars), lots, decimals)


def ohlc(call: Call) -> Any:
    """GET /0/public/OHLC: up to 720 candles later than `since`; intervals without trades are left out.

    The last candle is not finished; `last` is the time of the last finished one.
    """
    pair, minutes = call.pair(), call.integer("interval", 1)
    if minutes not in INTERVALS:
        raise invalid("interval")
    since_s, now_ms = call.integer("since", 0), call.core.now_ms()
    spec = pair.spec
    rows = [
        [
            open_ms // 1000,
            numbers.rest_price(spec, bars[0].open_ticks),
            numbers.rest_price(spec, high_ticks(bars, 0)),
            numbers.rest_price(spec, low_ticks(bars, 0)),
            numbers.rest_price(spec, bars[-1].close_ticks),
            vwap(spec, bars, 0, numbers.REST_PRICE_DECIMALS),
            numbers.scaled(volume_units(spec, bars), 8),
            sum(bar.count for bar in bars),
        ]
        for open_ms, bars in candles(call.kraken.market(pair), minutes)
        if open_ms // 1000 > since_s
    ][-CANDLES_MAX:]
    current_s = (now_ms - now_ms % (minutes * MINUTE_MS)) // 1000
    finished = [row[0] for row in rows if row[0] != current_s]
    return {pair.id: rows, "last": finished[-1] if finished else current_s - minutes * 60}


def candles(market: Market, minutes: int) -> list[tuple[int, list[Bar]]]:
    """The bars of each interval that has any, with the interval's beginning."""
    span_ms = minutes * MINUTE_MS
    merged: dict[int, list[Bar]] = {}
    for bar in market.bars:
        merged.setdefault(bar.open_ms - bar.open_ms % span_ms, []).append(bar)
    return list(merged.items())


def depth(call: Call) -> Any:
    """GET /0/public/Depth."""
    pair, now_s = call.pair(), call.core.now_ms() // 1000
    count = call.integer("count", DEPTH_DEFAULT)
    if not 1 <= count <= DEPTH_MAX:
        raise invalid("count")
    market, spec = call.kraken.market(pair), pair.spec

    def rows(levels: Iterable[Level]) -> list[Any]:
        return [
            [
                numbers.rest_price(spec, level.price_ticks),
                numbers.scaled(level.quantity_lots * spec.lot_units, _book_decimals(spec)),
                now_s,
            ]
            for level in levels
        ]

    return {
        pair.id: {
            "asks": rows(market.depth(Side.SELL, count)),
            "bids": rows(market.depth(Side.BUY, count)),
        }
    }


def trades(call: Call) -> Any:
    """GET /0/public/Trades: the latest, or those after the cursor `since`; `last` is the next one."""
    pair = call.pair()
    count = min(call.integer("count", TRADES_MAX), TRADES_MAX)
    since = call.integer("since", 0)
    if since < _SECONDS_BELOW:
        since *= 10**9
    found = [trade for trade in call.kraken.market(pair).trades if cursor(trade) > since]
    page = found[:count] if since else found[-count:]
    # Never 0, which would ask for the latest trades: before the first one, now is the cursor.
    since = since or numbers.nanoseconds(call.kraken.core.now_ms() - 1)
    last = cursor(page[-1]) if page else since
    return {pair.id: [_trade_row(pair.spec, trade) for trade in page], "last": str(last)}


def cursor(trade: PublicTrade) -> int:
    """A trade's time in nanoseconds, told apart from other trades of its millisecond by its id."""
    return numbers.nanoseconds(trade.at_ms) + trade.trade_id % 1_000_000


def spread(call: Call) -> Any:
    """GET /0/public/Spread: the latest best bids and asks, and the present ones."""
    pair, now_ms = call.pair(), call.core.now_ms()
    book, spec = call.kraken.market(pair).book, pair.spec
    since_s = call.integer("since", 0)
    present = (now_ms, book.best_ticks(Side.BUY) or 0, book.best_ticks(Side.SELL) or 0)
    seen = [*call.kraken.spreads.get(spec.name, ()), present]
    rows = [
        [at_ms // 1000, numbers.rest_price(spec, bid), numbers.rest_price(spec, ask)]
        for at_ms, bid, ask in seen
        if at_ms // 1000 >= since_s
    ]
    return {pair.id: rows, "last": now_ms // 1000}


def _trade_row(spec: SymbolSpec, trade: PublicTrade) -> list[Any]:
    return [
        numbers.rest_price(spec, trade.price_ticks),
        numbers.scaled(trade.quantity_lots * spec.lot_units, 8),
        numbers.seconds(trade.at_ms),
        "s" if trade.buyer_is_maker else "b",
        "m",
        "",
        trade.trade_id,
    ]


def _best(market: Market, side: Side) -> list[str]:
    spec, book = market.spec, market.book
    ticks = book.best_ticks(side) or 0
    units = market.visible_at(side, ticks) * spec.lot_units if ticks else 0
    whole = numbers.scaled(units, 0)
    return [numbers.rest_price(spec, ticks), whole, numbers.scaled(units, _book_decimals(spec))]


def _book_decimals(spec: SymbolSpec) -> int:
    """Three as on the venue, or what one lot needs, so that no level looks empty."""
    return max(_BOOK_DECIMALS, numbers.lot_decimals(spec))


def _bars_since(market: Market, from_ms: int) -> list[Bar]:
    return [bar for bar in market.bars if bar.open_ms >= from_ms]
