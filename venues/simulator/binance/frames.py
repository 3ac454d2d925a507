"""Depth and candles as streams and REST send them. Pure.

Source: binance-spot-api-docs, web-socket-streams.md and rest-api.md.
"""

from collections.abc import Mapping

from matching.model import Side
from venues.simulator.binance.candles import Candle
from venues.simulator.binance.wire import Json, level_texts, price_text, quantity_text
from venues.simulator.decimals import text_from_units
from venues.simulator.market import Market
from venues.simulator.model import SymbolSpec


def depth(market: Market, limit: int) -> Json:
    """The book's best `limit` levels of both sides, as GET depth and partial depth have them."""
    return {
        "lastUpdateId": market.update_id,
        "bids": level_texts(market.spec, market.depth(Side.BUY, limit)),
        "asks": level_texts(market.spec, market.depth(Side.SELL, limit)),
    }


def depth_update(
    spec: SymbolSpec, ids: tuple[int, int], levels: Mapping[tuple[Side, int], int], now_ms: int
) -> Json:
    """A diff of the book over the update ids first to last; quantity 0 takes a level away."""
    sides: dict[Side, list[list[str]]] = {Side.BUY: [], Side.SELL: []}
    for (side, price), lots in levels.items():
        sides[side].append([price_text(spec, price), quantity_text(spec, lots)])
    return {
        "e": "depthUpdate",
        "E": now_ms,
        "s": spec.name,
        "U": ids[0],
        "u": ids[1],
        "b": sides[Side.BUY],
        "a": sides[Side.SELL],
    }


def kline_row(spec: SymbolSpec, candle: Candle) -> list[object]:
    """A candle as GET klines has it."""
    return [
        candle.open_ms,
        price_text(spec, candle.open_ticks),
        price_text(spec, candle.high_ticks),
        price_text(spec, candle.low_ticks),
        price_text(spec, candle.close_ticks),
        quantity_text(spec, candle.lots),
        candle.close_ms,
        text_from_units(candle.quote_units),
        candle.count,
        quantity_text(spec, candle.taker_lots),
        text_from_units(candle.taker_quote_units),
        "0",
    ]


def kline_frame(
    spec: SymbolSpec, candle: Candle, interval: str, now_ms: int, *, closed: bool
) -> Json:
    """A candle as the kline stream has it."""
    return {
        "e": "kline",
        "E": now_ms,
        "s": spec.name,
        "k": {
            "t": candle.open_ms,
            "T": candle.close_ms,
            "s": spec.name,
            "i": interval,
            "f": candle.first_id,
            "L": candle.last_id,
            "o": price_text(spec, candle.open_ticks),
            "c": price_text(spec, candle.close_ticks),
            "h": price_text(spec, candle.high_ticks),
            "l": price_text(spec, candle.low_ticks),
            "v": quantity_text(spec, candle.lots),
            "n": candle.count,
            "x": closed,
            "q": text_from_units(candle.quote_units),
            "V": quantity_text(spec, candle.taker_lots),
            "Q": text_from_units(candle.taker_quote_units),
            "B": "0",
        },
    }
