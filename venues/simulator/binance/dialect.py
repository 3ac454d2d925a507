"""Binance spot on the wire: REST, market streams and the WebSocket API on one port."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson
from aiohttp import web

from venues.simulator.binance import auth
from venues.simulator.binance.calls import Call, Endpoint, Needs
from venues.simulator.binance.canned import CANNED
from venues.simulator.binance.endpoints import ENDPOINTS
from venues.simulator.binance.market_streams import MarketStreams
from venues.simulator.binance.rates import Limited, Limits
from venues.simulator.binance.refusals import ApiError, spelled
from venues.simulator.binance.socket_api import SocketApi
from venues.simulator.commands import VenueEvent
from venues.simulator.connections import HEARTBEAT_S, Connection
from venues.simulator.dialect import Canned, Venue
from venues.simulator.errors import VenueRefusal
from venues.simulator.faults import FaultKind

WALLET_PATH: Final = "/sapi/"


class Incoming(msgspec.Struct, frozen=True):
    """A request as it was read, before anything about it is believed."""

    method: str
    path: str
    query: str
    body: str
    api_key: str


class BinanceDialect:
    """The venue as Binance spot; see `Dialect`."""

    name = "binance"

    def __init__(self, venue: Venue) -> None:
        settings = venue.settings
        self._venue = venue
        self._limits = Limits(weight_1m=settings.weight_limit_1m, enforced=settings.enforce_weight)
        self._market_streams = MarketStreams()
        self._socket_api = SocketApi(venue.core, self._limits)

    def routes(self, app: web.Application) -> None:
        """REST, the WebSocket API, and market streams under the paths clients use."""
        app.router.add_get("/ws-api/v3", self._api_socket)
        for path in ("/stream", "/ws", "/ws/{streams:.*}", "/stream/ws", "/stream/ws/{number}"):
            app.router.add_get(path, self._market_socket)
        for method, path in ENDPOINTS:
            app.router.add_route(method, path, self._request)
        # Whatever else is asked; the paths above are found sooner than any pattern.
        app.router.add_route("*", "/{path:.*}", self._request)

    def publish(self, events: Sequence[VenueEvent], now_ms: int) -> None:
        """Accounts hear of their orders first, then everybody of the market."""
        state = self._venue.core.state
        self._socket_api.publish(state, events, now_ms)
        self._market_streams.publish(state, events, now_ms)

    def flush(self, now_ms: int) -> None:
        """Send the market streams that are due."""
        self._market_streams.flush(self._venue.core.state, now_ms)

    def connections(self) -> list[Connection]:
        """All open connections."""
        return self._market_streams.connections() + self._socket_api.connections()

    def subscriptions(self) -> int:
        """How many user data streams were ever subscribed to."""
        return self._socket_api.made

    def canned(self, kind: FaultKind) -> Canned | None:
        """Binance's bodies and codes of a fault."""
        return CANNED.get(kind)

    async def _request(self, request: web.Request) -> web.Response:
        path, _, query = request.raw_path.partition("?")
        body = (await request.read()).decode(errors="replace")
        api_key = request.headers.get(auth.API_KEY_HEADER, "")
        return self._answer(Incoming(request.method, path, query, body, api_key))

    def _answer(self, incoming: Incoming) -> web.Response:
        endpoint = ENDPOINTS.get((incoming.method, incoming.path))
        headers: dict[str, str] = {}
        if endpoint is None:
            return _refused(ApiError(-1000, f"no endpoint {incoming.path}", 404), headers)
        try:
            value = endpoint.answer(self._call(endpoint, incoming, headers))
        except VenueRefusal as refusal:
            return _refused(spelled(refusal), headers)
        except Limited as limited:
            left_ms = limited.retry_ms - self._venue.core.now_ms()
            headers["Retry-After"] = str(max(1, -(-left_ms // 1000)))
            return _refused(limited, headers)
        except ApiError as error:
            return _refused(error, headers)
        return _json(value, 200, headers)

    def _call(self, endpoint: Endpoint, incoming: Incoming, headers: dict[str, str]) -> Call:
        core, limits = self._venue.core, self._limits
        now_ms = core.now_ms()
        sent = auth.parameters(incoming.query, incoming.body)
        _report_weight(incoming.path, headers, limits, endpoint.weight_of(sent), now_ms)
        if endpoint.needs is Needs.NOTHING:
            return Call(core, limits, sent, None, None)
        key = auth.key_named(core.state, incoming.api_key)
        auth.require_signature(key, incoming.query, incoming.body)
        auth.require_timely(sent, now_ms)
        auth.require_permission(key, endpoint.needs.value)
        account = core.state.accounts_by_key[key.api_key]
        if endpoint.orders:
            short, day = limits.spend_orders(account.spec.name, endpoint.orders, now_ms)
            headers["X-MBX-ORDER-COUNT-10S"] = str(short)
            headers["X-MBX-ORDER-COUNT-1D"] = str(day)
        return Call(core, limits, sent, account, key)

    async def _market_socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S)
        await socket.prepare(request)
        connection = Connection(socket, self._venue.faults, self._venue.core.settled)
        named = request.query.get("streams", request.match_info.get("streams", ""))
        streams = [name for name in named.split("/") if name]
        self._market_streams.join(connection, streams, combined=request.path == "/stream")
        try:
            await connection.serve(self._market_streams.receive)
        finally:
            self._market_streams.leave(connection)
        return socket

    async def _api_socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S)
        await socket.prepare(request)
        connection = Connection(socket, self._venue.faults, self._venue.core.settled)
        returns_limits = request.query.get("returnRateLimits", "true") != "false"
        self._socket_api.join(connection, returns_limits=returns_limits)
        try:
            await connection.serve(self._socket_api.receive)
        finally:
            self._socket_api.leave(connection)
        return socket


def _report_weight(
    path: str, headers: dict[str, str], limits: Limits, weight: int, now_ms: int
) -> None:
    """Count a request's weight and report it; wallet requests are reported under another name."""
    try:
        used = limits.spend_weight(weight, now_ms)
    except Limited as limited:
        headers["X-MBX-USED-WEIGHT-1M"] = str(limited.used)
        raise
    if path.startswith(WALLET_PATH):
        headers["X-SAPI-USED-IP-WEIGHT-1M"] = str(weight)
    headers["X-MBX-USED-WEIGHT"] = headers["X-MBX-USED-WEIGHT-1M"] = str(used)


def _refused(error: ApiError, headers: dict[str, str]) -> web.Response:
    body = {"code": error.code, "msg": error.text}
    if error.data is not None:
        body["data"] = error.data
    return _json(body, error.status, headers)


def _json(value: Any, status: int, headers: dict[str, str]) -> web.Response:
    body = orjson.dumps(value)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
