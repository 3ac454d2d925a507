"""Market data streams: who listens to what, and when which frame is due.

Trades and best prices go out at once; depth at 100 ms or a second; tickers every second; candles
every second (`1s`) or every two. Frames are made only for streams somebody listens to, once for all
listeners. A diff carries the first and last update id of the level changes it merges; a client
stitches it to a depth snapshot by them. Source: binance-spot-api-docs, web-socket-streams.md.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from matching.model import Side
from venues.simulator.binance import frames, tickers, wire
from venues.simulator.binance.aggregates import aggregates, frame_of
from venues.simulator.binance.candles import HOUR_MS, INTERVALS, Candle, candles, opening_of
from venues.simulator.commands import LevelChanged, VenueEvent
from venues.simulator.connections import Connection
from venues.simulator.market import Market
from venues.simulator.model import PublicTrade
from venues.simulator.state import VenueState

SUBSCRIPTIONS_MAX: Final = 1_024
SECOND_EVERY: Final = 10
CANDLES_EVERY: Final = 20
CHINA_ZONE: Final = "@+08:00"
CHINA_OFFSET_MS: Final = 8 * HOUR_MS

_PARTIAL: Final = re.compile(r"depth(5|10|20)(@100ms|@1000ms)?")
_DIFFS: Final = {"depth@100ms": True, "depth": False, "depth@1000ms": False}
_ARRAYS: Final = re.compile(r"!(miniTicker|ticker|ticker_1h|ticker_4h|ticker_1d)@arr")
_METHODS: Final = "`SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"


class BadRequest(Exception):
    """A control message the streams cannot use: the code and text that are answered."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(slots=True)
class DepthDiff:
    """Level changes of one symbol since the last frame."""

    first_id: int = 0
    last_id: int = 0
    levels: dict[tuple[Side, int], int] = field(default_factory=dict)

    def add(self, change: LevelChanged) -> None:
        """Merge a change: the newest quantity of a level counts."""
        if not self.levels:
            self.first_id = change.update_id
        self.last_id = change.update_id
        self.levels[change.side, change.price_ticks] = change.quantity_lots


@dataclass(slots=True)
class _Listener:
    streams: dict[str, None]
    combined: bool


class MarketStreams:
    """Subscriptions of all market data connections and what is due to them."""

    def __init__(self) -> None:
        self._listeners: dict[Connection, _Listener] = {}
        self._streams: dict[str, dict[Connection, None]] = {}
        self._fast: dict[str, DepthDiff] = {}
        self._slow: dict[str, DepthDiff] = {}
        self._best: dict[str, wire.Json] = {}
        self._arrays: dict[tuple[str, str], wire.Json] = {}
        self._candles: dict[str, Candle] = {}
        self._flushes = 0

    def connections(self) -> list[Connection]:
        """All connections."""
        return list(self._listeners)

    def join(self, connection: Connection, streams: Sequence[str], *, combined: bool) -> None:
        """Add a connection; a combined one gets frames wrapped with their stream's name."""
        self._listeners[connection] = _Listener({}, combined)
        self._subscribe(connection, streams)

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        listener = self._listeners.get(connection)
        if listener is not None:
            self._unsubscribe(connection, list(listener.streams))
            del self._listeners[connection]

    def receive(self, connection: Connection, text: str) -> None:
        """Answer a client's control message."""
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, dict):
            refused = {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}
            connection.answer({"error": refused})
            return
        try:
            answer: wire.Json = {"result": self._answered(connection, request)}
        except BadRequest as error:
            answer = {"error": {"code": error.code, "msg": error.text}}
        connection.answer(answer | {"id": request.get("id")})

    def publish(self, state: VenueState, events: Sequence[VenueEvent], now_ms: int) -> None:
        """Send trades and best prices at once; keep level changes for the next flush."""
        trades: dict[str, list[PublicTrade]] = {}
        moved: dict[str, None] = {}
        for event in events:
            if isinstance(event, LevelChanged):
                moved[event.symbol] = None
                self._fast.setdefault(event.symbol, DepthDiff()).add(event)
                self._slow.setdefault(event.symbol, DepthDiff()).add(event)
            elif isinstance(event, PublicTrade):
                trades.setdefault(event.symbol, []).append(event)
        for symbol, new in trades.items():
            self._send_trades(state.markets[symbol], new, now_ms)
        for symbol in moved:
            self._send_best(state.markets[symbol])

    def flush(self, state: VenueState, now_ms: int) -> None:
        """Send what is due: every call the fast streams, every tenth the slow ones too."""
        self._flushes += 1
        second = self._flushes % SECOND_EVERY == 0
        for stream in list(self._streams):
            for frame in self._due(state, stream, now_ms, second=second):
                self._send(stream, frame)
        self._fast.clear()
        if second:
            self._slow.clear()

    def _due(self, state: VenueState, stream: str, now_ms: int, *, second: bool) -> Iterator[Any]:
        array = _ARRAYS.fullmatch(stream)
        if array is not None and second and (rows := self._changed(state, array[1], now_ms)):
            yield rows
        name, _, kind = stream.partition("@")
        market = state.markets.get(name.upper())
        if market is None:
            return
        if kind in _DIFFS:
            yield from self._diffs(market, now_ms, fast=_DIFFS[kind], second=second)
        elif (partial := _PARTIAL.fullmatch(kind)) and (second or partial[2] == "@100ms"):
            yield frames.depth(market, int(partial[1]))
        elif second and kind.startswith("kline_"):
            yield from self._candle_frames(market, stream, kind.removeprefix("kline_"), now_ms)
        elif second and (frame := _ticker_frame(market, kind, now_ms)):
            yield frame

    def _diffs(
        self, market: Market, now_ms: int, *, fast: bool, second: bool
    ) -> Iterator[wire.Json]:
        if not fast and not second:
            return
        diff = (self._fast if fast else self._slow).get(market.spec.name)
        if diff is not None:
            yield frames.depth_update(
                market.spec, (diff.first_id, diff.last_id), diff.levels, now_ms
            )

    def _candle_frames(
        self, market: Market, stream: str, kind: str, now_ms: int
    ) -> Iterator[wire.Json]:
        """The candle if it changed; before it, the one that has just closed."""
        interval = kind.removesuffix(CHINA_ZONE)
        if interval not in INTERVALS or (interval != "1s" and self._flushes % CANDLES_EVERY):
            return
        offset_ms = CHINA_OFFSET_MS if kind.endswith(CHINA_ZONE) else 0
        found = candles(market, interval, now_ms=now_ms, limit=2, offset_ms=offset_ms)
        open_ms = opening_of(interval, now_ms, offset_ms)
        sent = self._candles.get(stream)
        for candle in found:
            closed = candle.open_ms < open_ms
            if closed and (sent is None or candle.open_ms < sent.open_ms):
                continue
            if closed or candle != sent:
                yield frames.kline_frame(market.spec, candle, interval, now_ms, closed=closed)
            if not closed:
                self._candles[stream] = candle

    def _changed(self, state: VenueState, kind: str, now_ms: int) -> list[wire.Json]:
        rows = []
        for symbol, market in state.markets.items():
            frame = _ticker_frame(market, kind, now_ms)
            assert frame is not None
            compared = {key: value for key, value in frame.items() if key not in "EOC"}
            if self._arrays.get((kind, symbol)) != compared:
                self._arrays[kind, symbol] = compared
                rows.append(frame)
        return rows

    def _send_trades(self, market: Market, trades: Sequence[PublicTrade], now_ms: int) -> None:
        symbol = market.spec.name.lower()
        if f"{symbol}@trade" in self._streams:
            for trade in trades:
                self._send(f"{symbol}@trade", wire.trade_frame(market.spec, trade, now_ms))
        if f"{symbol}@aggTrade" in self._streams:
            for aggregate in aggregates(trades):
                self._send(f"{symbol}@aggTrade", frame_of(market.spec, aggregate, now_ms))

    def _send_best(self, market: Market) -> None:
        stream = f"{market.spec.name.lower()}@bookTicker"
        if stream not in self._streams:
            return
        frame = tickers.book_ticker_frame(market)
        best = {key: value for key, value in frame.items() if key != "u"}
        if self._best.get(stream) != best:
            self._best[stream] = best
            self._send(stream, frame)

    def _send(self, stream: str, frame: Any) -> None:
        """Send a frame to all who listen; it is encoded once, wrapped or not."""
        listening = self._streams.get(stream)
        if not listening:
            return
        raw = orjson.dumps(frame).decode()
        wrapped = f'{{"stream":"{stream}","data":{raw}}}'
        for connection in listening:
            combined = self._listeners[connection].combined
            connection.offer_text(stream, wrapped if combined else raw)

    def _subscribe(self, connection: Connection, streams: Iterable[str]) -> None:
        for stream in streams:
            self._listeners[connection].streams[stream] = None
            self._streams.setdefault(stream, {})[connection] = None
            self._best.pop(stream, None)
            self._candles.pop(stream, None)
            if (array := _ARRAYS.fullmatch(stream)) is not None:
                self._forget_array(array[1])

    def _unsubscribe(self, connection: Connection, streams: Iterable[str]) -> None:
        for stream in streams:
            self._listeners[connection].streams.pop(stream, None)
            listening = self._streams.get(stream, {})
            listening.pop(connection, None)
            if not listening:
                self._streams.pop(stream, None)

    def _forget_array(self, kind: str) -> None:
        for key in [key for key in self._arrays if key[0] == kind]:
            del self._arrays[key]

    def _answered(self, connection: Connection, request: dict[str, Any]) -> Any:
        listener = self._listeners[connection]
        match request.get("method"):
            case "SUBSCRIBE":
                named = _names(request)
                if len(listener.streams.keys() | set(named)) > SUBSCRIPTIONS_MAX:
                    raise BadRequest(2, "Invalid request: too many streams")
                self._subscribe(connection, named)
                return None
            case "UNSUBSCRIBE":
                self._unsubscribe(connection, _names(request))
                return None
            case "LIST_SUBSCRIPTIONS":
                return list(listener.streams)
            case "SET_PROPERTY":
                listener.combined = _combined_wanted(request)
                return None
            case "GET_PROPERTY":
                _require_combined(request)
                return listener.combined
            case None:
                raise BadRequest(2, "Invalid request: missing field `method`")
            case method:
                raise BadRequest(
                    2, f"Invalid request: unknown variant `{method}`, expected one of {_METHODS}"
                )


def _ticker_frame(market: Market, kind: str, now_ms: int) -> wire.Json | None:
    if kind == "miniTicker":
        return tickers.mini_frame(market, now_ms)
    if kind == "ticker":
        return tickers.day_frame(market, now_ms)
    if kind == "avgPrice":
        return tickers.average_frame(market, now_ms)
    window = kind.removeprefix("ticker_")
    if window != kind and window in tickers.STREAM_WINDOWS_MS:
        return tickers.rolling_frame(market, window, now_ms)
    return None


def _names(request: dict[str, Any]) -> list[str]:
    named = request.get("params")
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise BadRequest(2, "Invalid request: params must be a list of texts")
    return named


def _require_combined(request: dict[str, Any]) -> list[Any]:
    named = request.get("params")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise BadRequest(2, "Invalid request: property name must be a string")
    if named[0] != "combined":
        raise BadRequest(0, "Unknown property")
    return named


def _combined_wanted(request: dict[str, Any]) -> bool:
    named = _require_combined(request)
    if len(named) != 2 or not isinstance(named[1], bool):
        raise BadRequest(1, "Invalid value type: expected Boolean")
    return named[1]
