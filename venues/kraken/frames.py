"""Frames of WebSocket v2, typed. A number stays the bytes that it was: see `venues.kraken.numbers`.

Formats: Kraken, Spot WebSocket v2, "Book (Level 2)", "Trades", "Ticker (Level 1)", "Candles (OHLC)",
"Instruments", "Status", "Heartbeat".
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Raw

Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
Kind: TypeAlias = Literal["snapshot", "update"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S: Final = 86_400


UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What is raised for bytes that are none of these; `msgspec.ValidationError` is one of them."""


class LevelRow(msgspec.Struct, frozen=True, gc=False):
    """A price level; quantity 0 removes it."""

    price: Raw
    qty: Raw


class BookRow(msgspec.Struct, frozen=True, gc=False):
    """What one frame says of one book."""

    symbol: str
    bids: list[LevelRow]
    asks: list[LevelRow]
    checksum: int
    timestamp: Moment | None = None


class BookFrame(msgspec.Struct, frozen=True, gc=False, tag_field="channel", tag="book"):
    """The whole of books, or what has changed in them."""

    type: Kind
    data: list[BookRow]


class TradeRow(msgspec.Struct, frozen=True, gc=False):
    """A trade; `side` is the taker's, `trade_id` counts the trades of the symbol."""

    symbol: str
    side: Literal["buy", "sell"]
    price: Raw
    qty: Raw
    trade_id: int
    timestamp: Moment


class TradeFrame(msgspec.Struct, frozen=True, gc=False, tag_field="channel", tag="trade"):
    """Trades, oldest first; a snapshot has the latest fifty."""

    type: Kind
    data: list[TradeRow]


class TickerRow(msgspec.Struct, frozen=True, gc=False):
    """Best prices, and what was traded in 24 hours; `change` is the last price minus the first."""

    symbol: str
    bid: Raw
    bid_qty: Raw
    ask: Raw
    ask_qty: Raw
    last: Raw
    volume: Raw
    low: Raw
    high: Raw
    change: Raw
    timestamp: Moment | None = None


class TickerFrame(msgspec.Struct, frozen=True, gc=False, tag_field="channel", tag="ticker"):
    """Tickers."""

    type: Kind
    data: list[TickerRow]


class CandleRow(msgspec.Struct, frozen=True, gc=False):
    """An interval of `interval` minutes, as it stands."""

    symbol: str
    open: Raw
    high: Raw
    low: Raw
    close: Raw
    volume: Raw
    trades: int
    interval: int
    interval_begin: Moment


class CandleFrame(msgspec.Struct, frozen=True, gc=False, tag_field="channel", tag="ohlc"):
    """Candles, oldest first; `timestamp` is when they were as they are said to be."""

    type: Kind
    data: list[CandleRow]
    timestamp: Moment | None = None


class PairRow(msgspec.Struct, frozen=True, gc=False):
    """A pair, and with how many decimals its prices and quantities are written."""

    symbol: str
    price_precision: int
    qty_precision: int


class Pairs(msgspec.Struct, frozen=True, gc=False):
    """What the instrument channel tells, besides assets."""

    pairs: list[PairRow]


class InstrumentFrame(msgspec.Struct, frozen=True, gc=False, tag_field="channel", tag="instrument"):
    """All pairs, or those that have changed."""

    data: Pairs


class SystemRow(msgspec.Struct, frozen=True, gc=False):
    """How the venue is: online, maintenance, cancel_only, limit_only, post_only."""

    system: str


class StatusFrame(msgspec.Struct, frozen=True, gc=False, tag_field="channel", tag="status"):
    """Said on connecting, and whenever it changes."""

    data: list[SystemRow]


class HeartbeatFrame(msgspec.Struct, frozen=True, gc=False, tag_field="channel", tag="heartbeat"):
    """Said about once a second while nothing else is."""


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """What a request was about."""

    channel: str = ""
    symbol: str = ""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The answer to a request of ours."""

    method: str
    success: bool = True
    error: str = ""
    symbol: str = ""
    req_id: int = 0
    result: Subscribed | None = None


class Outline(msgspec.Struct, frozen=True, gc=False):
    """As much as can be told of a frame that is not as it should be."""

    channel: str


class _SymbolOnly(msgspec.Struct, frozen=True, gc=False):
    symbol: str


class _Named(msgspec.Struct, frozen=True, gc=False):
    data: list[_SymbolOnly]


Frame: TypeAlias = (
    BookFrame
    | TradeFrame
    | TickerFrame
    | CandleFrame
    | InstrumentFrame
    | StatusFrame
    | HeartbeatFrame
)

decode_frame: Final[Callable[[bytes], Frame]] = msgspec.json.Decoder(Frame).decode
"""Raises `msgspec.ValidationError` for another shape, others of `UNREADABLE` for no JSON."""

_decode_answer: Final = msgspec.json.Decoder(Answer).decode
_decode_outline: Final = msgspec.json.Decoder(Outline).decode
_decode_named: Final = msgspec.json.Decoder(_Named).decode


def answer_of(data: bytes) -> Answer | None:
    """Return the answer to a request; None: it is none."""
    try:
        return _decode_answer(data)
    except UNREADABLE:
        return None


def channel_of(data: bytes) -> str:
    """Return what channel a misshapen frame says that it is of; empty: it does not say."""
    try:
        return _decode_outline(data).channel
    except UNREADABLE:
        return ""


def symbols_of(data: bytes) -> tuple[str, ...]:
    """Return what symbols a misshapen frame says that it is of; none: it does not say."""
    try:
        return tuple(row.symbol for row in _decode_named(data).data)
    except UNREADABLE:
        return ()


def nanoseconds(at: datetime | None) -> int:
    """Return nanoseconds since 1970; 0 for a time that was not said."""
    if at is None:
        return 0
    since = at - _EPOCH
    return ((since.days * _DAY_S + since.seconds) * 1_000_000 + since.microseconds) * 1_000
