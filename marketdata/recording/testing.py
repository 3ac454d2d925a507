"""A machine of a protocol as small as can be, and frames of it: for tests and benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from marketdata.book import L2Book
from marketdata.events import (
    BestSeen,
    BookUpdate,
    CandleSeen,
    Channel,
    GapReason,
    GapSeen,
    MarketEvent,
    Request,
    Rows,
    TickerSeen,
    TradeSeen,
)
from marketdata.raw import RawItem, RawKind

SYMBOL: Final = "ETHUSDT"


class TinyMachine:
    """Reads JSON objects that are an event's fields, and keeps gaps while it is not connected."""

    def __init__(self, venue: str = "sim", symbols: Sequence[str] = (SYMBOL,)) -> None:
        self.venue = venue
        self._symbols = symbols
        self._lost_ns = 0
        self._reason = GapReason.STARTED

    def take(self, item: RawItem) -> Sequence[MarketEvent | Request]:
        """Return what a frame says, or the gap that a lost connection is."""
        match item.kind:
            case RawKind.FRAME | RawKind.SNAPSHOT:
                return [self._event(json.loads(item.data), item.received_ns)]
            case RawKind.LOST:
                self._lost_ns = item.received_ns
                overflowed = item.data.startswith(b"overflow")
                self._reason = GapReason.OVERFLOW if overflowed else GapReason.CLOSED
                return self._gaps(0, item.received_ns, item.data.decode())
            case RawKind.CONNECTED:
                return self._gaps(item.received_ns, item.received_ns, "")
            case _:
                return []

    def book(self, symbol: str) -> L2Book | None:
        """Keep none."""
        del symbol
        return None

    def subscriptions(self) -> Sequence[bytes]:
        """Need none."""
        return ()

    def resubscribe(self, symbol: str, channel: Channel) -> Sequence[bytes]:
        """Need none."""
        del symbol, channel
        return ()

    def _event(self, told: dict[str, Any], received_ns: int) -> MarketEvent:
        kinds: dict[str, type[Any]] = {
            "book": BookUpdate,
            "trade": TradeSeen,
            "best": BestSeen,
            "ticker": TickerSeen,
            "candle": CandleSeen,
        }
        kind = kinds[told.pop("e")]
        for side in ("bids", "asks"):
            if side in told and kind is BookUpdate:
                told[side] = _rows(told[side])
        found: MarketEvent = kind(**{"venue": self.venue} | told | {"received_ns": received_ns})
        return found

    def _gaps(self, until_ns: int, received_ns: int, detail: str) -> Sequence[GapSeen]:
        return [
            GapSeen(
                venue=self.venue,
                symbol=symbol,
                channel=Channel.BOOK,
                reason=self._reason,
                since_ns=self._lost_ns,
                until_ns=until_ns,
                detail=detail,
                received_ns=received_ns,
            )
            for symbol in self._symbols
        ]


def _rows(rows: Iterable[Sequence[int]]) -> Rows:
    return tuple((ticks, units) for ticks, units in rows)


def trade_frame(number: int, **changes: Any) -> bytes:
    """Return a frame with trade *number*."""
    told = {
        "e": "trade",
        "symbol": SYMBOL,
        "trade_id": str(number),
        "ticks": 300_000 + number % 100,
        "units": 10**16 * (1 + number % 50),
        "buyer_is_maker": number % 2 == 0,
        "exchange_ns": 0,
    }
    return json.dumps(told | changes).encode()


def book_frame(number: int, **changes: Any) -> bytes:
    """Return a frame with update *number* of a book."""
    told = {
        "e": "book",
        "symbol": SYMBOL,
        "first": number,
        "last": number,
        "is_snapshot": number == 1,
        "bids": [[299_999 - number % 7, 10**17 * (number % 9)]],
        "asks": [[300_001 + number % 7, 10**17 * (number % 5)]],
        "exchange_ns": 0,
    }
    return json.dumps(told | changes).encode()


def best_frame(number: int, **changes: Any) -> bytes:
    """Return a frame with best levels."""
    told = {
        "e": "best",
        "symbol": SYMBOL,
        "sequence": number,
        "bid_ticks": 299_999,
        "bid_units": 10**18,
        "ask_ticks": 300_001,
        "ask_units": 2 * 10**18,
        "exchange_ns": 0,
    }
    return json.dumps(told | changes).encode()


def candle_frame(number: int, **changes: Any) -> bytes:
    """Return a frame with a candle of one minute."""
    told = {
        "e": "candle",
        "symbol": SYMBOL,
        "interval_s": 60,
        "open_ns": 60 * 10**9 * (number // 2),
        "open_ticks": 1,
        "high_ticks": 4,
        "low_ticks": 1,
        "close_ticks": 2 + number % 2,
        "base_units": 10**18,
        "trades": 1 + number % 2,
        "is_closed": number % 2 == 1,
        "exchange_ns": 0,
    }
    return json.dumps(told | changes).encode()


def ticker_frame(number: int, **changes: Any) -> bytes:
    """Return a frame with a ticker."""
    told = {
        "e": "ticker",
        "symbol": SYMBOL,
        "last_ticks": 300_000 + number,
        "open_ticks": 1,
        "high_ticks": 2,
        "low_ticks": 3,
        "base_units": 10**20,
        "exchange_ns": 0,
    }
    return json.dumps(told | changes).encode()


def session_items(count: int, *, start_ns: int, step_ns: int = 1_000_000) -> Iterator[RawItem]:
    """Yield what a feed with one short loss of its connection may have seen."""
    makers = (book_frame, trade_frame, best_frame, trade_frame, candle_frame, ticker_frame)
    at_ns = start_ns
    yield RawItem(RawKind.CONNECTED, at_ns, 1, "", b"ws://venue")
    for number in range(1, count + 1):
        at_ns += step_ns
        if number == count // 2:
            yield RawItem(RawKind.LOST, at_ns, 1, "", b"closed: by the venue")
            yield RawItem(RawKind.CONNECTED, at_ns + step_ns // 2, 2, "", b"ws://venue")
            continue
        frame = makers[number % len(makers)](number)
        yield RawItem(RawKind.FRAME, at_ns, 1 + (number > count // 2), "", frame)
