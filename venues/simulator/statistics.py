"""Day statistics and bars of a symbol. Pure."""

from matching.model import Side
from venues.simulator.decimals import UNIT, text_from_units
from venues.simulator.market import MINUTE_MS, Bar, Market
from venues.simulator.wire import Json, price_text, quantity_text

DAY_MS = 24 * 60 * MINUTE_MS


def day_ticker(market: Market, now_ms: int) -> Json:
    """GET ticker/24hr of one symbol. Without a trade all prices are the mid."""
    spec, bars = market.spec, _last_day(market, now_ms)
    mid = market.mid_ticks
    opened, last = (bars[0].open_ticks, bars[-1].close_ticks) if bars else (mid, mid)
    volume = sum(bar.volume_lots for bar in bars)
    quote_units = sum(bar.quote_units for bar in bars)
    base_units = volume * spec.lot_units
    average_units = quote_units * UNIT // base_units if base_units else mid * spec.tick_units
    count = sum(bar.count for bar in bars)
    return {
        "symbol": spec.name,
        "priceChange": text_from_units((last - opened) * spec.tick_units),
        "priceChangePercent": _percent(last - opened, opened),
        "weightedAvgPrice": text_from_units(average_units),
        "prevClosePrice": price_text(spec, opened),
        "lastPrice": price_text(spec, last),
        "lastQty": quantity_text(spec, market.trades[-1].quantity_lots if market.trades else 0),
        **_best(market),
        "openPrice": price_text(spec, opened),
        "highPrice": price_text(spec, max((bar.high_ticks for bar in bars), default=mid)),
        "lowPrice": price_text(spec, min((bar.low_ticks for bar in bars), default=mid)),
        "volume": quantity_text(spec, volume),
        "quoteVolume": text_from_units(quote_units),
        "openTime": now_ms - DAY_MS,
        "closeTime": now_ms,
        "firstId": market.next_trade_id - count if count else -1,
        "lastId": market.next_trade_id - 1 if count else -1,
        "count": count,
    }


def mini_ticker_frame(market: Market, now_ms: int) -> Json:
    """The miniTicker stream's frame."""
    day = day_ticker(market, now_ms)
    return {
        "e": "24hrMiniTicker",
        "E": now_ms,
        "s": day["symbol"],
        "c": day["lastPrice"],
        "o": day["openPrice"],
        "h": day["highPrice"],
        "l": day["lowPrice"],
        "v": day["volume"],
        "q": day["quoteVolume"],
    }


def book_ticker(market: Market) -> Json:
    """GET ticker/bookTicker of one symbol."""
    return {"symbol": market.spec.name, **_best(market)}


def book_ticker_frame(market: Market) -> Json:
    """The bookTicker stream's frame, which has no event type."""
    best = _best(market)
    return {
        "u": market.update_id,
        "s": market.spec.name,
        "b": best["bidPrice"],
        "B": best["bidQty"],
        "a": best["askPrice"],
        "A": best["askQty"],
    }


def klines(market: Market, interval_ms: int, limit: int) -> list[list[object]]:
    """GET klines: minute bars merged to an interval; intervals without trades are left out."""
    spec = market.spec
    merged: dict[int, list[Bar]] = {}
    for bar in market.bars:
        merged.setdefault(bar.open_ms - bar.open_ms % interval_ms, []).append(bar)
    return [
        [
            open_ms,
            price_text(spec, bars[0].open_ticks),
            price_text(spec, max(bar.high_ticks for bar in bars)),
            price_text(spec, min(bar.low_ticks for bar in bars)),
            price_text(spec, bars[-1].close_ticks),
            quantity_text(spec, sum(bar.volume_lots for bar in bars)),
            open_ms + interval_ms - 1,
            text_from_units(sum(bar.quote_units for bar in bars)),
            sum(bar.count for bar in bars),
            "0.00000000",
            "0.00000000",
            "0",
        ]
        for open_ms, bars in list(merged.items())[-limit:]
    ]


def _last_day(market: Market, now_ms: int) -> list[Bar]:
    return [bar for bar in market.bars if bar.open_ms > now_ms - DAY_MS]


def _best(market: Market) -> Json:
    spec, book = market.spec, market.book
    bid, ask = book.best_ticks(Side.BUY) or 0, book.best_ticks(Side.SELL) or 0
    return {
        "bidPrice": price_text(spec, bid),
        "bidQty": quantity_text(spec, book.quantity_at(Side.BUY, bid)),
        "askPrice": price_text(spec, ask),
        "askQty": quantity_text(spec, book.quantity_at(Side.SELL, ask)),
    }


def _percent(change: int, base: int) -> str:
    thousandths = change * 100_000 // base if base else 0
    sign = "-" if thousandths < 0 else ""
    return f"{sign}{abs(thousandths) // 1000}.{abs(thousandths) % 1000:03d}"
