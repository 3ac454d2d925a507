"""Market data streams: diff depth, trades, tickers.

Source: binance-spot-api-docs, web-socket-streams.md. A diff carries the first and last update id of
the level changes it merges; a client stitches it to a depth snapshot by them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from matching.model import Side
from venues.simulator import statistics, wire
from venues.simulator.commands import LevelChanged, VenueEvent
from venues.simulator.connections import Connection
from venues.simulator.model import PublicTrade
from venues.simulator.state import VenueState

SUBSCRIPTIONS_MAX: Final = 1_024
SLOW_EVERY: Final = 10


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


class MarketStreams:
    """Subscriptions of all market data connections and what is due to them."""

    def __init__(self) -> None:
        self._subscribers: dict[Connection, dict[str, None]] = {}
        self._combined: set[Connection] = set()
        self._fast: dict[str, DepthDiff] = {}
        self._slow: dict[str, DepthDiff] = {}
        self._best: dict[str, wire.Json] = {}
        self._flushes = 0

    def connections(self) -> list[Connection]:
        """All connections."""
        return list(self._subscribers)

    def join(self, connection: Connection, streams: Sequence[str], *, combined: bool) -> None:
        """Add a connection; a combined one gets frames wrapped with their stream's name."""
        self._subscribers[connection] = dict.fromkeys(streams)
        if combined:
            self._combined.add(connection)

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        self._subscribers.pop(connection, None)
        self._combined.discard(connection)

    def receive(self, connection: Connection, text: str) -> None:
        """Answer a client's SUBSCRIBE, UNSUBSCRIBE or LIST_SUBSCRIPTIONS."""
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, dict):
            connection.answer({"error": {"code": 3, "msg": "Invalid JSON"}})
            return
        connection.answer(self._answered(connection, request) | {"id": request.get("id")})

    def publish(self, state: VenueState, events: Sequence[VenueEvent], now_ms: int) -> None:
        """Send trades at once and keep level changes for the next flush."""
        for event in events:
            if isinstance(event, LevelChanged):
                self._fast.setdefault(event.symbol, DepthDiff()).add(event)
                self._slow.setdefault(event.symbol, DepthDiff()).add(event)
            elif isinstance(event, PublicTrade):
                spec = state.markets[event.symbol].spec
                stream = f"{event.symbol.lower()}@trade"
                self._send(stream, wire.trade_frame(spec, event, now_ms))

    def flush(self, state: VenueState, now_ms: int) -> None:
        """Send depth diffs and best prices that changed; every tenth time the slow streams too."""
        self._flushes += 1
        self._flush_depth(state, self._fast, "@depth@100ms", now_ms)
        self._flush_best(state)
        if self._flushes % SLOW_EVERY == 0:
            self._flush_depth(state, self._slow, "@depth", now_ms)
            self._flush_tickers(state, now_ms)

    def _flush_depth(
        self, state: VenueState, diffs: dict[str, DepthDiff], suffix: str, now_ms: int
    ) -> None:
        for symbol, diff in diffs.items():
            spec = state.markets[symbol].spec
            sides: dict[Side, list[list[str]]] = {Side.BUY: [], Side.SELL: []}
            for (side, price), lots in diff.levels.items():
                sides[side].append([wire.price_text(spec, price), wire.quantity_text(spec, lots)])
            frame = {
                "e": "depthUpdate",
                "E": now_ms,
                "s": symbol,
                "U": diff.first_id,
                "u": diff.last_id,
                "b": sides[Side.BUY],
                "a": sides[Side.SELL],
            }
            self._send(symbol.lower() + suffix, frame)
        diffs.clear()

    def _flush_best(self, state: VenueState) -> None:
        for symbol, market in state.markets.items():
            stream = f"{symbol.lower()}@bookTicker"
            frame = statistics.book_ticker_frame(market)
            best = {key: value for key, value in frame.items() if key != "u"}
            if self._best.get(symbol) != best and self._send(stream, frame):
                self._best[symbol] = best

    def _flush_tickers(self, state: VenueState, now_ms: int) -> None:
        for symbol, market in state.markets.items():
            stream = f"{symbol.lower()}@miniTicker"
            self._send(stream, statistics.mini_ticker_frame(market, now_ms))

    def _send(self, stream: str, frame: wire.Json) -> bool:
        sent = False
        for connection, streams in self._subscribers.items():
            if stream in streams:
                wrapped = connection in self._combined
                connection.offer(stream, {"stream": stream, "data": frame} if wrapped else frame)
                sent = True
        return sent

    def _answered(self, connection: Connection, request: dict[str, Any]) -> wire.Json:
        streams = self._subscribers[connection]
        named = request.get("params") or []
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            return {"error": {"code": 2, "msg": "Invalid request: params must be a list of texts"}}
        match request.get("method"):
            case "SUBSCRIBE":
                if len(streams) + len(named) > SUBSCRIPTIONS_MAX:
                    return {"error": {"code": 2, "msg": "Invalid request: too many streams"}}
                streams.update(dict.fromkeys(named))
                self._best.clear()
            case "UNSUBSCRIBE":
                for name in named:
                    streams.pop(name, None)
            case "LIST_SUBSCRIPTIONS":
                return {"result": list(streams)}
            case _:
                return {"error": {"code": 2, "msg": "Invalid request: unknown method"}}
        return {"result": None}
