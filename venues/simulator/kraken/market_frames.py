"""Public WebSocket v2 channels: what their frames hold.

Source: docs.kraken.com, WebSocket v2: instrument, ticker, book, trade, ohlc.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from matching.model import Side
from venues.simulator.connections import Json
from venues.simulator.decimals import UNIT
from venues.simulator.kraken import market_data, numbers
from venues.simulator.kraken.checksum import LEVELS, checksum
from venues.simulator.kraken.market_data import plain
from venues.simulator.kraken.names import Pair
from venues.simulator.kraken.numbers import raw, rfc3339
from venues.simulator.market import MINUTE_MS, Bar, Market
from venues.simulator.model import AssetSpec, PublicTrade

TRADES_SNAPSHOT: Final = 50
DEPTHS: Final = (10, 25, 100, 500, 1000)

View = Mapping[Side, dict[int, int]]


def frame(channel: str, kind: str, data: Any) -> Json:
    """A frame of a channel."""
    return {"channel": channel, "type": kind, "data": data}


def status(connection_id: int) -> Json:
    """What every connection is told first."""
    row = {
        "version": "2.0.10",
        "system": "online",
        "api_version": "v2",
        "connection_id": connection_id,
    }
    return frame("status", "update", [row])


def instrument(assets: Iterable[AssetSpec], pairs: Sequence[Pair]) -> Json:
    """The instrument channel's snapshot."""
    return frame(
        "instrument",
        "snapshot",
        {
            "assets": [_asset_row(asset.name) for asset in assets],
            "pairs": [_pair_row(pair) for pair in pairs],
        },
    )


def ticker(pair: Pair, market: Market, now_ms: int) -> Json:
    """A pair's best prices and the statistics of its last 24 hours."""
    spec, last = pair.spec, market_data.last_ticks(market)
    bars = market_data.day_bars(market, now_ms)
    opened = bars[0].open_ticks if bars else last
    decimals = numbers.price_decimals(spec)

    def price(ticks: int) -> Any:
        return raw(numbers.price(spec, ticks))

    def best(side: Side) -> tuple[Any, Any]:
        ticks = market.book.best_ticks(side) or 0
        lots = market.visible_at(side, ticks) if ticks else 0
        return price(ticks), raw(numbers.quantity(spec, lots))

    (bid, bid_quantity), (ask, ask_quantity) = best(Side.BUY), best(Side.SELL)
    change_units = (last - opened) * spec.tick_units
    hundredths = (last - opened) * 10_000 // opened if opened else 0
    return {
        "symbol": pair.symbol,
        "bid": bid,
        "bid_qty": bid_quantity,
        "ask": ask,
        "ask_qty": ask_quantity,
        "last": price(last),
        "volume": raw(numbers.scaled(market_data.volume_units(spec, bars), 8)),
        "vwap": raw(market_data.vwap(spec, bars, last, decimals)),
        "low": price(market_data.low_ticks(bars, last)),
        "high": price(market_data.high_ticks(bars, last)),
        "change": raw(numbers.scaled(change_units, decimals)),
        "change_pct": raw(numbers.scaled(hundredths * UNIT // 100, 2)),
        "timestamp": rfc3339(now_ms),
    }


def trade(pair: Pair, event: PublicTrade) -> Json:
    """A trade as everybody sees it."""
    spec = pair.spec
    return {
        "symbol": pair.symbol,
        "side": "sell" if event.buyer_is_maker else "buy",
        "price": raw(numbers.price(spec, event.price_ticks)),
        "qty": raw(numbers.quantity(spec, event.quantity_lots)),
        "ord_type": "market" if event.taker_is_market else "limit",
        "trade_id": event.trade_id,
        "timestamp": rfc3339(event.at_ms),
    }


def candle(pair: Pair, minutes: int, open_ms: int, bars: Sequence[Bar]) -> Json:
    """A candle; `timestamp` is its end."""
    spec = pair.spec

    def price(ticks: int) -> Any:
        return raw(numbers.price(spec, ticks))

    return {
        "symbol": pair.symbol,
        "open": price(bars[0].open_ticks),
        "high": price(market_data.high_ticks(bars, 0)),
        "low": price(market_data.low_ticks(bars, 0)),
        "close": price(bars[-1].close_ticks),
        "trades": sum(bar.count for bar in bars),
        "volume": raw(numbers.scaled(market_data.volume_units(spec, bars), 8)),
        "vwap": raw(market_data.vwap(spec, bars, 0, numbers.price_decimals(spec))),
        "interval_begin": rfc3339(open_ms),
        "interval": minutes,
        "timestamp": rfc3339(open_ms + minutes * MINUTE_MS),
    }


def view_of(market: Market, depth: int) -> View:
    """The best levels of both sides, each best first: price to lots."""
    return {
        side: {level.price_ticks: level.quantity_lots for level in market.depth(side, depth)}
        for side in (Side.BUY, Side.SELL)
    }


def book_snapshot(pair: Pair, view: View, now_ms: int) -> Json:
    """The first frame of a book."""
    return frame("book", "snapshot", [_book_row(pair, view, view, now_ms)])


def book_update(pair: Pair, before: View, after: View, market: Market, now_ms: int) -> Json | None:
    """What changed between two views of a book, or None.

    A level that is gone has quantity 0. One that only fell out of the depth is not told: a client
    cuts its book to the depth it subscribed to, and finds the same levels.
    """
    changed: dict[Side, dict[int, int]] = {}
    for side in (Side.BUY, Side.SELL):
        gone = {
            price: 0
            for price in before[side]
            if price not in after[side] and not market.visible_at(side, price)
        }
        fresh = {p: lots for p, lots in after[side].items() if before[side].get(p) != lots}
        changed[side] = gone | fresh
    if not changed[Side.BUY] and not changed[Side.SELL]:
        return None
    return frame("book", "update", [_book_row(pair, changed, after, now_ms)])


def book_checksum(pair: Pair, view: View) -> int:
    """The checksum of a view."""
    spec = pair.spec

    def texts(side: Side) -> list[tuple[str, str]]:
        best = list(view[side].items())[:LEVELS]
        return [(numbers.price(spec, p), numbers.quantity(spec, lots)) for p, lots in best]

    return checksum(texts(Side.SELL), texts(Side.BUY))


def _book_row(pair: Pair, shown: View, whole: View, now_ms: int) -> Json:
    spec = pair.spec

    def rows(side: Side) -> list[Json]:
        return [
            {
                "price": raw(numbers.price(spec, price)),
                "qty": raw(numbers.quantity(spec, lots)),
            }
            for price, lots in shown[side].items()
        ]

    return {
        "symbol": pair.symbol,
        "bids": rows(Side.BUY),
        "asks": rows(Side.SELL),
        "checksum": book_checksum(pair, whole),
        "timestamp": rfc3339(now_ms),
    }


def _asset_row(code: str) -> Json:
    return {
        "id": code,
        "status": "enabled",
        "precision": market_data.asset_decimals(code),
        "precision_display": 2 if code in market_data.FIAT else 5,
        "borrowable": False,
        "collateral_value": raw("0.00"),
        "margin_rate": raw("0.000000"),
    }


def _pair_row(pair: Pair) -> Json:
    spec = pair.spec
    return {
        "symbol": pair.symbol,
        "base": spec.base,
        "quote": spec.quote,
        "status": "online",
        "qty_precision": numbers.lot_decimals(spec),
        "qty_increment": raw(plain(spec.lot_units)),
        "qty_min": raw(plain(spec.lot_units)),
        "price_precision": numbers.price_decimals(spec),
        "price_increment": raw(plain(spec.tick_units)),
        "tick_size": raw(plain(spec.tick_units)),
        "cost_precision": market_data.COST_DECIMALS,
        "cost_min": raw(plain(spec.min_notional_units)),
        "marginable": False,
        "has_index": False,
    }
