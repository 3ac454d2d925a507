"""Aggregate trades: the fills of one taker order at one price, as one trade. Pure.

The aggregate's id is its first trade's id: ids rise and are unique, but they are not consecutive as
the venue's own are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from venues.simulator.binance.wire import Json, price_text, quantity_text
from venues.simulator.model import PublicTrade, SymbolSpec


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Trades first to last of one taker at one price."""

    first: PublicTrade
    last_id: int
    quantity_lots: int


def aggregates(trades: Iterable[PublicTrade]) -> list[Aggregate]:
    """Aggregate trades that follow each other, oldest first."""
    return [_of(list(group)) for _, group in groupby(trades, _key)]


def row_of(spec: SymbolSpec, aggregate: Aggregate) -> Json:
    """One entry of GET aggTrades."""
    first = aggregate.first
    return {
        "a": first.trade_id,
        "p": price_text(spec, first.price_ticks),
        "q": quantity_text(spec, aggregate.quantity_lots),
        "f": first.trade_id,
        "l": aggregate.last_id,
        "T": first.at_ms,
        "m": first.buyer_is_maker,
        "M": True,
    }


def frame_of(spec: SymbolSpec, aggregate: Aggregate, now_ms: int) -> Json:
    """The aggTrade stream's frame."""
    return {"e": "aggTrade", "E": now_ms, "s": spec.name, **row_of(spec, aggregate)}


def _key(trade: PublicTrade) -> tuple[int, int]:
    return trade.taker_order_id, trade.price_ticks


def _of(trades: Sequence[PublicTrade]) -> Aggregate:
    lots = sum(trade.quantity_lots for trade in trades)
    return Aggregate(trades[0], trades[-1].trade_id, lots)
