"""WebSocket connections: a bounded queue to each client, and what faults do to frames."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import orjson
from aiohttp import WSMsgType, web

from venues.simulator.faults import FaultKind, FaultSchedule
from venues.simulator.wire import Json

QUEUE_MAX: Final = 10_000
HEARTBEAT_S: Final = 20.0
GOING_AWAY: Final = 1001
SLOW_CLIENT: Final = 1008

_BROKEN_JSON: Final = '{"e":"depthUpdate","E":1,'


Receive = Callable[["Connection", str], None]


class Connection:
    """One client's socket. Frames are offered without waiting; a client too slow is dropped."""

    def __init__(self, socket: web.WebSocketResponse, faults: FaultSchedule) -> None:
        self._socket = socket
        self._faults = faults
        self._queue: asyncio.Queue[str | None] = asyncio.Queue(QUEUE_MAX)
        self._close_code = GOING_AWAY
        self._held: str | None = None

    def answer(self, value: Any) -> None:
        """Send the answer to a client's request; faults spare these."""
        self._put(orjson.dumps(value).decode())

    def offer(self, stream: str, frame: Json) -> None:
        """Send a frame of a stream, unless a fault says otherwise."""
        fault = self._faults.for_frame(stream)
        text = orjson.dumps(frame).decode()
        if fault is not None:
            self._offer_badly(fault.kind, frame, text)
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
                    receive(self, message.data)
            writer.cancel()

    def _offer_badly(self, kind: FaultKind, frame: Json, text: str) -> None:
        match kind:
            case FaultKind.WS_BAD_JSON:
                self._put(_BROKEN_JSON)
            case FaultKind.WS_WRONG_TYPES:
                self._put(orjson.dumps(_with_wrong_types(frame)).decode())
            case FaultKind.WS_DUPLICATE:
                self._put(text)
                self._put(text)
            case FaultKind.WS_SWAP:
                self._held = text
            case FaultKind.WS_CLOSE:
                self.close()
            case _:
                pass  # silent or dropped: the frame is gone

    def _put(self, text: str) -> None:
        if self._queue.full():
            self.close(SLOW_CLIENT)
            return
        self._queue.put_nowait(text)


def _with_wrong_types(frame: Json) -> Json:
    """The frame with every list replaced by a number, as a broken venue once did."""
    return {key: 5 if isinstance(value, list) else value for key, value in frame.items()}
