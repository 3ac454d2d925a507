"""Frames of Binance's market streams and bodies of its depth, typed as they are documented. Pure.

Source: binance-spot-api-docs, web-socket-streams.md ("Diff. Depth Stream", "Trade Streams",
"Individual Symbol Book Ticker Streams", "Individual Symbol Ticker Streams", "Individual Symbol Mini
Ticker Stream", "Kline/Candlestick Streams for UTC") and rest-api.md ("Order book").
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import msgspec

from marketdata.events import Rows
from marketdata.grid import Grid, is_plain

T = TypeVar("T")

Levels = list[tuple[str, str]]

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What is raised for bytes that are none of these."""


class Depth(msgspec.Struct, gc=False, rename={"exchange_ms": "E", "symbol": "s", "first": "U"}):
    """A diff of the book over the update ids `first` to `u`."""

    symbol: str
    exchange_ms: int
    first: int
    u: int
    b: Levels
    a: Levels

    def rows(self, grid: Grid) -> tuple[Rows, Rows]:
        """Return bids and asks as ticks and units; `BadInput` if one of them is no level."""
        return grid.rows(self.b), grid.rows(self.a)


class PlainDepth(Depth, gc=False):
    """The same, out of a frame that `is_plain`."""

    def rows(self, grid: Grid) -> tuple[Rows, Rows]:
        """Return the same in less time."""
        return grid.plain_rows(self.b), grid.plain_rows(self.a)


class Trade(msgspec.Struct, gc=False, rename={"symbol": "s", "traded_ms": "T"}):
    """One trade; `m`: the buyer's order was in the book."""

    symbol: str
    t: int
    p: str
    q: str
    traded_ms: int
    m: bool


class Best(
    msgspec.Struct, gc=False, rename={"symbol": "s", "bid_quantity": "B", "ask_quantity": "A"}
):
    """The best price of either side; it has no event type and no time."""

    symbol: str
    u: int
    b: str
    bid_quantity: str
    a: str
    ask_quantity: str


class Ticker(
    msgspec.Struct,
    gc=False,
    rename={"symbol": "s", "exchange_ms": "E", "close": "c", "low": "l", "last_id": "L"},
):
    """What was traded in 24 hours; the short form has no trade ids."""

    symbol: str
    exchange_ms: int
    close: str
    o: str
    h: str
    low: str
    v: str
    last_id: int = -1


class Candle(
    msgspec.Struct,
    gc=False,
    rename={"interval": "i", "last_id": "L", "close": "c", "low": "l"},
):
    """One interval; `x`: it is over."""

    t: int
    interval: str
    last_id: int
    o: str
    close: str
    h: str
    low: str
    v: str
    n: int
    x: bool


class Kline(msgspec.Struct, gc=False, rename={"symbol": "s", "exchange_ms": "E"}):
    """A candle's frame."""

    symbol: str
    exchange_ms: int
    k: Candle


class Wrapped(msgspec.Struct, Generic[T], gc=False):
    """A frame as a combined stream sends it."""

    data: T


class Refusal(msgspec.Struct, gc=False):
    """Why a request was not done."""

    code: int = 0
    msg: str = ""


class Answer(msgspec.Struct, gc=False):
    """The answer to a request that we sent."""

    id: int
    error: Refusal | None = None


class DepthBody(msgspec.Struct, gc=False, rename={"last_update_id": "lastUpdateId"}):
    """The body of ``GET /api/v3/depth``."""

    last_update_id: int
    bids: Levels
    asks: Levels


_DEPTH: Final = msgspec.json.Decoder(Wrapped[Depth]).decode
_PLAIN_DEPTH: Final = msgspec.json.Decoder(Wrapped[PlainDepth]).decode


def read_depth(data: bytes) -> Wrapped[Depth] | Wrapped[PlainDepth]:
    """Read a diff out of a combined stream."""
    return _PLAIN_DEPTH(data) if is_plain(data) else _DEPTH(data)


ANSWERS: Final = msgspec.json.Decoder(Answer)
DEPTH_BODIES: Final = msgspec.json.Decoder(DepthBody)
