"""Kraken spot on the wire: REST and WebSocket v2 on one port."""

from collections.abc import Sequence
from typing import Final

import orjson
from aiohttp import web

from venues.simulator.commands import VenueEvent
from venues.simulator.connections import Connection
from venues.simulator.dialect import Canned, Venue
from venues.simulator.faults import FaultKind
from venues.simulator.kraken import auth, rest
from venues.simulator.kraken.canned import CANNED
from venues.simulator.kraken.context import Kraken
from venues.simulator.kraken.rest import Incoming
from venues.simulator.kraken.sockets import Sockets

PUBLIC_SOCKET: Final = "/v2"
PRIVATE_SOCKET: Final = "/auth/v2"
HEARTBEAT_S: Final = 20.0


class KrakenDialect:
    """The venue as Kraken spot; see `Dialect`."""

    name = "kraken"

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._kraken = Kraken.of(venue)
        self._sockets = Sockets(self._kraken)

    def routes(self, app: web.Application) -> None:
        """REST under /0 and the two WebSocket paths."""
        app.router.add_get(PUBLIC_SOCKET, self._socket)
        app.router.add_get(PRIVATE_SOCKET, self._socket)
        app.router.add_route("*", "/0/{path:.*}", self._request)

    def publish(self, events: Sequence[VenueEvent], now_ms: int) -> None:
        """Accounts hear of their orders first, then everybody of the market."""
        self._sockets.publish(events, now_ms)

    def flush(self, now_ms: int) -> None:
        """Send books, tickers, candles and heartbeats that are due."""
        self._sockets.flush(now_ms)

    def connections(self) -> list[Connection]:
        """All open connections."""
        return self._sockets.connections()

    def subscriptions(self) -> int:
        """How many private streams were ever subscribed to."""
        return self._sockets.made

    def canned(self, kind: FaultKind) -> Canned | None:
        """Kraken's words for a fault."""
        return CANNED.get(kind)

    async def _request(self, request: web.Request) -> web.Response:
        path, _, query = request.raw_path.partition("?")
        incoming = Incoming(
            method=request.method,
            path=path,
            query=query,
            body=(await request.read()).decode(errors="replace"),
            content_type=request.content_type,
            api_key=request.headers.get(auth.KEY_HEADER, ""),
            api_sign=request.headers.get(auth.SIGN_HEADER, ""),
        )
        body = orjson.dumps(rest.answer(self._kraken, incoming))
        return web.Response(body=body, content_type="application/json")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S)
        await socket.prepare(request)
        connection = Connection(socket, self._venue.faults, self._venue.core.settled)
        self._sockets.join(connection, is_private=request.path == PRIVATE_SOCKET)
        try:
            await connection.serve(self._sockets.receive)
        finally:
            self._sockets.leave(connection)
        return socket
