"""Sockets and requests over aiohttp, from a venue's description."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Final

import aiohttp

from kernel.errors import BadInput
from marketdata.events import GapReason
from venues.capabilities import RateLimits
from venues.feeds.errors import AskedTooMuch, NoAnswer, SocketLost
from venues.feeds.model import VenueWire

BODY_BYTES_MAX: Final = 16 * 2**20
TOO_MUCH: Final = frozenset((HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.IM_A_TEAPOT))
"""Binance answers 418 to who goes on asking after 429 (rest-api.md, "IP limits")."""

_SECOND: Final = timedelta(seconds=1)
_TEXTS: Final = frozenset((aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY))


class WebSocket:
    """A `FrameSocket` over aiohttp."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse[bool], send_every: timedelta
    ) -> None:
        self._socket = socket
        self._send_every_s = send_every / _SECOND

    async def receive(self) -> bytes:
        """Return the next frame."""
        message = await self._socket.receive()
        if message.type in _TEXTS:
            data = message.data
            return data.encode() if isinstance(data, str) else data
        raise self._lost(message.type, message.data)

    async def send(self, frame: bytes) -> None:
        """Send a frame of text, and wait until the next one may be sent."""
        try:
            await self._socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise SocketLost(GapReason.CLOSED, type(error).__name__) from error
        await asyncio.sleep(self._send_every_s)

    def _lost(self, kind: aiohttp.WSMsgType, data: object) -> SocketLost:
        if kind is aiohttp.WSMsgType.ERROR:
            return SocketLost(GapReason.CLOSED, f"{data!r}")
        return SocketLost(GapReason.CLOSED, f"close code {self._socket.close_code}")


class WebTransport:
    """A `Transport` to a venue that is described by a `VenueWire`. Open it before use."""

    def __init__(self, wire: VenueWire, http: aiohttp.ClientSession) -> None:
        self._wire = wire
        self._http = http
        self.heard: Callable[[Mapping[str, str]], None] | None = None
        """Whoever counts requests is told the headers of answers."""

    @property
    def address(self) -> str:
        """Return the address of the sockets."""
        return self._wire.ws_url

    @property
    def limits(self) -> RateLimits:
        """Return what may be asked."""
        return self._wire.limits

    @asynccontextmanager
    async def connect(self, lane: int) -> AsyncIterator[WebSocket]:  # noqa: ARG002  all lanes speak to one address
        """Open a socket."""
        beat = self._wire.heartbeat
        try:
            socket = await self._http.ws_connect(
                self._wire.ws_url,
                heartbeat=None if beat is None else beat / _SECOND,
                max_msg_size=self._wire.frame_bytes_max,
                headers=self._wire.headers,
                decode_text=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise SocketLost(GapReason.REFUSED, f"{error}" or type(error).__name__) from error
        try:
            yield WebSocket(socket, self._wire.send_every)
        finally:
            await socket.close()

    async def book(self, symbol: str) -> bytes:
        """Return the body of a whole book."""
        if self._wire.book_url is None:
            raise BadInput(f"{self._wire.ws_url} has no books to ask for")
        return await self._get(self._wire.book_url(symbol))

    async def check(self, symbol: str) -> bytes:
        """Return the body of a book to compare with."""
        if self._wire.check_url is None:
            raise BadInput(f"{self._wire.ws_url} has no books to compare with")
        return await self._get(self._wire.check_url(symbol))

    async def _get(self, url: str) -> bytes:
        try:
            async with self._http.get(url, headers=self._wire.headers) as answer:
                if answer.status in TOO_MUCH:
                    raise AskedTooMuch(f"HTTP {answer.status}", answer.headers)
                if answer.status != HTTPStatus.OK:
                    raise NoAnswer(f"HTTP {answer.status}")
                if self.heard is not None:
                    self.heard(answer.headers)
                return await _bounded(answer)
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(f"{error}" or type(error).__name__) from error


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    """Return the body, refusing what is longer than any book."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise NoAnswer(f"more than {BODY_BYTES_MAX} bytes")
    return bytes(body)


@asynccontextmanager
async def open_transport(wire: VenueWire) -> AsyncIterator[WebTransport]:
    """Open what sockets and requests of one venue share."""
    async with aiohttp.ClientSession(auto_decompress=True) as http:
        yield WebTransport(wire, http)
