"""How a fault on a request looks to the client."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from venues.simulator.faults import Fault, FaultKind

RETRY_AFTER_S: Final = 1

_LINGER_NONE: Final = struct.pack("ii", 1, 0)
_HTML: Final = "<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"

# Kind -> (accepted first, status, body). A body that is not JSON is served as HTML.
_CANNED: Final = {
    FaultKind.STATUS_503: (False, 503, '{"code":-1008,"msg":"Server is currently overloaded."}'),
    FaultKind.STATUS_503_AFTER_ACCEPT: (
        True,
        503,
        '{"code":-1000,"msg":"Unknown error, please check your request or try again later."}',
    ),
    FaultKind.HTML_502_AFTER_ACCEPT: (True, 502, _HTML.format("502 Bad Gateway")),
    FaultKind.HTML_504: (False, 504, _HTML.format("504 Gateway Time-out")),
    FaultKind.HTML_504_AFTER_ACCEPT: (True, 504, _HTML.format("504 Gateway Time-out")),
    FaultKind.TIMEOUT_1007_AFTER_ACCEPT: (
        True,
        408,
        (
            '{"code":-1007,"msg":"Timeout waiting for response from backend server. '
            'Send status unknown; execution status unknown."}'
        ),
    ),
    FaultKind.UNEXPECTED_1006_AFTER_ACCEPT: (
        True,
        400,
        (
            '{"code":-1006,"msg":"An unexpected response was received from the message bus. '
            'Execution status unknown."}'
        ),
    ),
    FaultKind.RATE_LIMITED_429: (False, 429, '{"code":-1003,"msg":"Too many requests."}'),
    FaultKind.BANNED_418: (False, 418, '{"code":-1003,"msg":"Way too many requests; IP banned."}'),
}

Answer = Callable[[], Awaitable[web.Response]]


async def misbehave(
    fault: Fault, request: web.Request, answer: Answer, stopping: asyncio.Event
) -> web.Response:
    """Treat a request as its fault says; `answer` does what the venue would have done."""
    if fault.kind in _CANNED:
        accepted, status, body = _CANNED[fault.kind]
        if accepted:
            await answer()
        return _canned(status, body)
    match fault.kind:
        case FaultKind.HANG_BEFORE_ACCEPT:
            await _wait(fault.seconds, stopping)
            return _drop(request)
        case FaultKind.HANG_AFTER_ACCEPT:
            await answer()
            await _wait(fault.seconds, stopping)
            return _drop(request)
        case FaultKind.DELAY_BEFORE_ACCEPT:
            await _wait(fault.seconds, stopping)
            return await answer()
        case FaultKind.RESET_AFTER_ACCEPT:
            await answer()
            return _drop(request)
        case FaultKind.TRUNCATED_200:
            return _truncated(await answer())
        case _:
            return _drop(request)


def _canned(status: int, body: str) -> web.Response:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status in (418, 429) else {}
    content_type = "application/json" if body.startswith("{") else "text/html"
    return web.Response(status=status, text=body, content_type=content_type, headers=headers)


def _truncated(whole: web.Response) -> web.Response:
    body = whole.body
    assert isinstance(body, bytes)
    return web.Response(status=200, body=body[: len(body) // 2], content_type="application/json")


def _drop(request: web.Request) -> web.Response:
    """Reset the connection: the client sees ECONNRESET, and the response goes nowhere."""
    transport = request.transport
    if transport is not None:
        peer = transport.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        transport.abort()
    return web.Response(status=503)


async def _wait(seconds: float, stopping: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return
