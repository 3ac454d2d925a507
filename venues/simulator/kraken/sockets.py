"""WebSocket v2: requests of clients and their answers.

Public channels are on one path and private ones on another; each refuses the other's. A request is
`{"method", "params", "req_id"}`; its answer repeats method and id and says `success` and the times
the venue got and answered it. Source: docs.kraken.com, WebSocket v2, and its FAQ.
"""

from collections.abc import Callable
from typing import Any, Final

from venues.simulator.connections import Connection, Json
from venues.simulator.kraken import auth, errors, market_data, market_frames, socket_trading
from venues.simulator.kraken.context import Call, Kraken
from venues.simulator.kraken.errors import KrakenRefusal
from venues.simulator.kraken.names import Pair
from venues.simulator.kraken.numbers import rfc3339
from venues.simulator.kraken.private_channels import PrivateChannels
from venues.simulator.kraken.public_channels import PublicChannels
from venues.simulator.kraken.sessions import PrivateStream, Session

HEARTBEAT_MS: Final = 1_000
BOOK_DEPTH_DEFAULT: Final = 10
PUBLIC_CHANNELS: Final = ("book", "ticker", "trade", "ohlc", "instrument")
PRIVATE_CHANNELS: Final = ("executions", "balances")
PRIVATE_REFUSED: Final = (
    "Private data and trading are unavailable on this endpoint. Try ws-auth.kraken.com"
)
PUBLIC_REFUSED: Final = (
    "Public market data subscriptions are unavailable on this endpoint. Try ws.kraken.com"
)

_Subscribe = Callable[[Session, Call, Pair], Json]


class Sockets:
    """All connections, what they ask and what they have subscribed to."""

    def __init__(self, kraken: Kraken) -> None:
        self._kraken = kraken
        self._sessions: dict[Connection, Session] = {}
        self._public = PublicChannels(kraken)
        self._private = PrivateChannels(kraken)
        self._joined = 0

    @property
    def made(self) -> int:
        """How many private subscriptions were ever made."""
        return self._private.made

    def connections(self) -> list[Connection]:
        """All connections."""
        return list(self._sessions)

    def join(self, connection: Connection, *, is_private: bool) -> None:
        """Greet a new connection."""
        self._joined += 1
        self._sessions[connection] = Session(connection, is_private)
        connection.answer(market_frames.status(self._joined))

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        self._sessions.pop(connection, None)

    def publish(self, events: Any, now_ms: int) -> None:
        """Tell subscribers what happened: accounts first, then everybody."""
        sessions = list(self._sessions.values())
        self._private.publish(events, sessions, now_ms)
        self._public.publish(events, sessions, now_ms)

    def flush(self, now_ms: int) -> None:
        """Send what is due, and a heartbeat to who has heard nothing for a second."""
        sessions = list(self._sessions.values())
        self._public.flush(sessions, now_ms)
        for session in sessions:
            if session.is_listening and now_ms - session.last_sent_ms >= HEARTBEAT_MS:
                session.offer("heartbeat", {"channel": "heartbeat"}, now_ms)

    def receive(self, connection: Connection, text: str) -> None:
        """Answer a request of a client."""
        session, time_in = self._sessions[connection], self._kraken.core.now_ms()
        try:
            request = auth.json_object(text)
        except KrakenRefusal:
            connection.answer(self._envelope({}, time_in, {"error": "JSON decode error"}))
            return
        session.hold()
        for answer in self._answers(session, request):
            connection.answer(self._envelope(request, time_in, answer))
        session.release()

    def _envelope(self, request: Json, time_in: int, answer: Json) -> Json:
        echoed = {key: request[key] for key in ("method", "req_id") if key in request}
        if answer.get("method") != "pong":
            answer = {"success": "error" not in answer, **answer}
        times = {"time_in": rfc3339(time_in), "time_out": rfc3339(self._kraken.core.now_ms())}
        return echoed | answer | times

    def _answers(self, session: Session, request: Json) -> list[Json]:
        method, params = request.get("method"), request.get("params") or {}
        if method == "ping":
            return [{"method": "pong"}]
        if not isinstance(params, dict):
            return [{"error": "EGeneral:Invalid arguments:params"}]
        try:
            if method == "subscribe":
                return self._subscribed(session, params)
            if method == "unsubscribe":
                return self._unsubscribed(session, params)
            if method in socket_trading.METHODS:
                return self._traded(session, str(method), params)
        except KrakenRefusal as refusal:
            return [{"error": refusal.text}]
        return [{"error": "Method not found"}]

    def _traded(self, session: Session, method: str, params: Json) -> list[Json]:
        if not session.is_private:
            raise KrakenRefusal(PRIVATE_REFUSED)
        call = self._authenticated(params)
        if "trade" not in self._kraken.core.state.keys[call.api_key].permissions:
            raise KrakenRefusal(errors.PERMISSION_DENIED)
        answers: list[Json] = []
        for answer in socket_trading.METHODS[method](call):
            if isinstance(answer, KrakenRefusal):
                answers.append({"error": answer.text})
            elif "orders_cancelled" in answer or "result" in answer:
                answers.append(answer)
            else:
                answers.append({"result": answer})
        return answers

    def _authenticated(self, params: Json) -> Call:
        """The caller of a private request: its token is good or in use.

        Raises:
            KrakenRefusal: the token is missing, unknown or over.
        """
        state = self._kraken.core.state
        token = self._kraken.tokens.get(str(params.get("token", "")))
        if token is None or not (token.is_used or token.until_ms > self._kraken.core.now_ms()):
            raise KrakenRefusal(errors.INVALID_SESSION)
        account = state.accounts_by_key.get(token.api_key)
        if account is None:
            raise KrakenRefusal(errors.INVALID_SESSION)
        return Call(self._kraken, params, account, token.api_key)

    def _subscribed(self, session: Session, params: Json) -> list[Json]:
        channel = params.get("channel")
        if channel in PRIVATE_CHANNELS:
            if not session.is_private:
                raise KrakenRefusal(PRIVATE_REFUSED)
            return [self._subscribed_privately(session, str(channel), params)]
        if channel not in PUBLIC_CHANNELS:
            raise KrakenRefusal(f"Channel {channel} not supported")
        if session.is_private:
            raise KrakenRefusal(PUBLIC_REFUSED)
        call = Call(self._kraken, params)
        if channel == "instrument":
            return [self._subscribed_to_instruments(session, call)]
        subscribe: dict[str, _Subscribe] = {
            "book": self._subscribed_to_book,
            "ticker": self._subscribed_to_ticker,
            "trade": self._subscribed_to_trades,
            "ohlc": self._subscribed_to_candles,
        }
        return [self._of_symbol(session, call, n, subscribe[channel]) for n in _symbols(params)]

    def _of_symbol(self, session: Session, call: Call, name: str, subscribe: _Subscribe) -> Json:
        pair = self._kraken.directory.find_symbol(name)
        if pair is None:
            return {"error": f"Currency pair not supported {name}", "symbol": name}
        try:
            return {"result": subscribe(session, call, pair)}
        except KrakenRefusal as refusal:
            return {"error": refusal.text, "symbol": name}

    def _subscribed_to_book(self, session: Session, call: Call, pair: Pair) -> Json:
        depth, now_ms = call.integer("depth", BOOK_DEPTH_DEFAULT), call.core.now_ms()
        if depth not in market_frames.DEPTHS:
            raise KrakenRefusal("Subscription depth not supported")
        _require_new(pair.symbol in session.books)
        with_snapshot = _wants_snapshot(call)
        others = list(self._sessions.values())
        self._public.send_book(session, pair, depth, others, now_ms, with_snapshot=with_snapshot)
        session.books[pair.symbol] = depth
        return {"channel": "book", "depth": depth, **_said(pair, with_snapshot)}

    def _subscribed_to_ticker(self, session: Session, call: Call, pair: Pair) -> Json:
        trigger = call.optional_text("event_trigger", "trades")
        if trigger not in ("trades", "bbo"):
            raise errors.invalid("event_trigger")
        _require_new(session.tickers.get(pair.symbol) == trigger)
        session.tickers[pair.symbol] = trigger
        with_snapshot = _wants_snapshot(call)
        if with_snapshot:
            self._public.send_ticker(session, pair, call.core.now_ms())
        return {"channel": "ticker", "event_trigger": trigger, **_said(pair, with_snapshot)}

    def _subscribed_to_trades(self, session: Session, call: Call, pair: Pair) -> Json:
        _require_new(pair.symbol in session.trades)
        session.trades.add(pair.symbol)
        with_snapshot = _wants_snapshot(call, default="false")
        if with_snapshot:
            self._public.send_trades(session, pair, call.core.now_ms())
        return {"channel": "trade", **_said(pair, with_snapshot)}

    def _subscribed_to_candles(self, session: Session, call: Call, pair: Pair) -> Json:
        minutes = call.integer("interval", 1)
        if minutes not in market_data.INTERVALS:
            raise KrakenRefusal("Subscription ohlc interval not supported")
        _require_new((pair.symbol, minutes) in session.candles)
        session.candles.add((pair.symbol, minutes))
        with_snapshot = _wants_snapshot(call)
        if with_snapshot:
            self._public.send_candles(session, pair, minutes, call.core.now_ms())
        return {"channel": "ohlc", "interval": minutes, **_said(pair, with_snapshot)}

    def _subscribed_to_instruments(self, session: Session, call: Call) -> Json:
        _require_new(session.instruments)
        session.instruments = True
        with_snapshot = _wants_snapshot(call)
        if with_snapshot:
            self._public.send_instruments(session, call.core.now_ms())
        return {"result": {"channel": "instrument", "snapshot": with_snapshot}}

    def _subscribed_privately(self, session: Session, channel: str, params: Json) -> Json:
        call, now_ms = self._authenticated(params), self._kraken.core.now_ms()
        self._kraken.tokens[str(params["token"])].is_used = True
        stream = PrivateStream(call.name, call.api_key)
        if channel == "balances":
            _require_new(session.balances is not None)
            with_snapshot = _wants_snapshot(call)
            self._private.open_balances(session, stream, with_snapshot=with_snapshot, now_ms=now_ms)
            return {"result": {"channel": channel, "snapshot": with_snapshot}}
        _require_new(session.executions is not None)
        orders = call.optional_text("snap_orders", "true").lower() == "true"
        trades = call.flag("snap_trades")
        stream.with_details = call.optional_text("order_status", "true").lower() == "true"
        stream.with_counter = call.flag("ratecounter")
        self._private.open_executions(
            session, stream, with_orders=orders, with_trades=trades, now_ms=now_ms
        )
        return {
            "result": {
                "channel": channel,
                "maxratecount": self._kraken.limits.tier.engine_max,
                "snap_orders": orders,
                "snap_trades": trades,
            }
        }

    def _unsubscribed(self, session: Session, params: Json) -> list[Json]:
        channel = params.get("channel")
        if channel in (*PRIVATE_CHANNELS, "instrument"):
            if channel == "executions":
                session.executions = None
            elif channel == "balances":
                session.balances = None
            else:
                session.instruments = False
            return [{"result": {"channel": channel}}]
        if channel not in PUBLIC_CHANNELS:
            raise KrakenRefusal(f"Channel {channel} not supported")
        answers: list[Json] = []
        for symbol in _symbols(params):
            if _forget(session, str(channel), symbol):
                answers.append({"result": {"channel": channel, "symbol": symbol}})
            else:
                answers.append({"error": "Subscription Not Found", "symbol": symbol})
        self._public.forget_books(list(self._sessions.values()))
        return answers


def _forget(session: Session, channel: str, symbol: str) -> bool:
    match channel:
        case "book":
            return session.books.pop(symbol, None) is not None
        case "ticker":
            return session.tickers.pop(symbol, None) is not None
        case "trade":
            known = symbol in session.trades
            session.trades.discard(symbol)
            return known
        case _:
            of_symbol = {key for key in session.candles if key[0] == symbol}
            session.candles -= of_symbol
            return bool(of_symbol)


def _symbols(params: Json) -> list[str]:
    names = params.get("symbol")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise errors.invalid("symbol")
    return names


def _wants_snapshot(call: Call, default: str = "true") -> bool:
    return call.optional_text("snapshot", default).lower() == "true"


def _require_new(is_known: bool) -> None:  # noqa: FBT001  a guard reads as one
    if is_known:
        raise KrakenRefusal("Already subscribed")


def _said(pair: Pair, with_snapshot: bool) -> Json:  # noqa: FBT001  two words of an answer
    return {"snapshot": with_snapshot, "symbol": pair.symbol}
