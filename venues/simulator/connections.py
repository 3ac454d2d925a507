"""WebSocket connections: a bounded queue to each client, and what faults do to frames."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import WSMsgType, web

from venues.simulator.faults import SOCKET_METHOD, FaultKind, FaultSchedule

QUEUE_MAX: Final = 10_000
HEARTBEAT_S: Final = 20.0
GOING_AWAY: Final = 1001
SLOW_CLIENT: Final = 1008

_BROKEN_JSON: Final = '{"e":"depthUpdate","E":1,'

# Streams that tell an account of itself, whatever their dialect calls them.
PRIVATE_STREAMS: Final = frozenset(("user", "executions", "balances"))

_BEFORE: Final = frozenset(
    (
        FaultKind.HANG_BEFORE_ACCEPT,
        FaultKind.RESET_BEFORE,
        FaultKind.STATUS_503,
        FaultKind.HTML_502,
        FaultKind.HTML_504,
        FaultKind.TIMEOUT_1007,
        FaultKind.UNEXPECTED_1006,
        FaultKind.RATE_LIMITED_429,
        FaultKind.BANNED_418,
    )
)

Json = dict[str, Any]
Receive = Callable[["Connection", str], None]
Settled = Callable[[], Awaitable[None]]


class Connection:
    """One client's socket. Frames are offered without waiting; a client too slow is dropped.

    `settled` waits until what is about to be told is on the venue's disk.
    """

    def __init__(
        self, socket: web.WebSocketResponse, faults: FaultSchedule, settled: Settled
    ) -> None:
        self._socket = socket
        self._settled = settled
        self._faults = faults
        self._queue: asyncio.Queue[str | None] = asyncio.Queue(QUEUE_MAX)
        self._close_code = GOING_AWAY
        self._held: str | None = None
        self._is_deaf = False
        self._is_mute = False

    def answer(self, value: Any) -> None:
        """Send the answer to a client's request."""
        if self._is_mute or self._faults.for_socket(FaultKind.WS_DEAF) is not None:
            self._is_deaf = self._is_deaf or not self._is_mute
            return
        self._put(orjson.dumps(value).decode())

    def offer(self, stream: str, frame: Json, *, private: bool = False) -> None:
        """Send a frame of a stream, unless a fault says otherwise."""
        self.offer_text(stream, orjson.dumps(frame).decode(), private=private)

    def offer_text(self, stream: str, text: str, *, private: bool = False) -> None:
        """Send a frame that is encoded already, unless a fault says otherwise."""
        is_private = private or stream in PRIVATE_STREAMS
        fault = self._faults.for_frame(stream, text, is_private=is_private)
        if fault is not None:
            self._offer_badly(fault.kind, text)
            return
        self._put(text)
        if self._held is not None:
            held, self._held = self._held, None
            self._put(held)

    def close(self, code: int = GOING_AWAY) -> None:
        """Close after what is already queued."""
        self._close_code = code
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def write_out(self) -> None:
        """Send what is queued until the connection is closed."""
        while (text := await self._queue.get()) is not None:
            await self._settled()
            try:
                await self._socket.send_str(text)
            except ConnectionError:
                return
        await self._socket.close(code=self._close_code)

    async def serve(self, receive: Receive) -> None:
        """Read requests until the client leaves, writing all the while."""
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self.write_out())
            async for message in self._socket:
                if message.type is WSMsgType.TEXT:
                    self._receive(receive, message.data)
            writer.cancel()

    def _offer_badly(self, kind: FaultKind, text: str) -> None:
        match kind:
            case FaultKind.WS_BAD_JSON:
                self._put(_BROKEN_JSON)
            case FaultKind.WS_WRONG_TYPES:
                self._put(orjson.dumps(_with_wrong_types(orjson.loads(text))).decode())
            case FaultKind.WS_DUPLICATE | FaultKind.DUPLICATE_REPORT:
                self._put(text)
                self._put(text)
            case FaultKind.WS_SWAP | FaultKind.REPORTS_OUT_OF_ORDER:
                self._held = text
            case FaultKind.WRONG_CHECKSUM:
                self._put(orjson.dumps(_with_wrong_checksums(orjson.loads(text))).decode())
            case FaultKind.WS_DEAF:
                self._is_deaf = True
            case FaultKind.WS_CLOSE:
                self.close()
            case _:
                pass  # silent or dropped: the frame is gone

    def _receive(self, receive: Receive, text: str) -> None:
        """Hand a client's request on, unless a fault says otherwise."""
        if self._faults.is_idle:
            receive(self, text)
            return
        method = _method_of(text)
        asks = "subscribe" in method.lower() and "unsubscribe" not in method.lower()
        if asks and self._faults.for_socket(FaultKind.WS_REFUSE) is not None:
            self.close()
            return
        fault = self._faults.for_request(SOCKET_METHOD, method)
        if fault is None:
            receive(self, text)
            return
        if fault.kind not in _BEFORE:
            self._is_mute = True
            receive(self, text)
            self._is_mute = False
        if fault.kind in (FaultKind.RESET_BEFORE, FaultKind.RESET_AFTER_ACCEPT):
            self.close()

    def _put(self, text: str) -> None:
        if self._is_deaf:
            return
        if self._queue.full():
            self.close(SLOW_CLIENT)
            return
        self._queue.put_nowait(text)


def _with_wrong_types(frame: Json) -> Json:
    """The frame with every list replaced by a number, as a broken venue once did."""
    return {key: _with_wrong_type(value) for key, value in frame.items()}


def _with_wrong_type(value: Any) -> Any:
    if isinstance(value, dict):
        return _with_wrong_types(value)
    return 5 if isinstance(value, list) else value


def _with_wrong_checksums(value: Any) -> Any:
    """The frame with every checksum off by one."""
    if isinstance(value, dict):
        return {
            key: item + 1
            if key == "checksum" and isinstance(item, int)
            else _with_wrong_checksums(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_with_wrong_checksums(item) for item in value]
    return value


def _method_of(text: str) -> str:
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError:
        return ""
    return str(request.get("method", "")) if isinstance(request, dict) else ""
