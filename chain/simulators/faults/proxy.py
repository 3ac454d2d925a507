"""The proxy: JSON-RPC in, what the rules make of the node's answer out.

Calls over HTTP and over WebSocket take the same way to the node, by HTTP. Only subscriptions need
the node's own WebSocket: one is opened for each client that subscribes, and its notifications are
passed on, lost or doubled by the rules. A batch is answered call by call; a fault of the connection
(silence, 429, half an answer) takes the whole batch with it, as it would in life.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp
import orjson
from aiohttp import WSMsgType, web

from chain.simulators.faults.book import RuleBook
from chain.simulators.faults.lies import (
    GONE,
    altered,
    at_height,
    beyond,
    block_hash_in,
    forged_hash,
    forget_above,
    with_block_hash,
)
from chain.simulators.faults.model import SILENCE_S, Fault, Rule, read_rules
from kernel.errors import BadInput, OutsideUnavailable

Json = Any

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
MAX_BATCH: Final = 1_000
UPSTREAM_TIMEOUT_S: Final = 60.0
SHUTDOWN_GRACE_S: Final = 0.2
HEARTBEAT_S: Final = 30.0
CONTROL_PATH: Final = "/faults"
SUBSCRIPTION_METHODS: Final = frozenset({"eth_subscribe", "eth_unsubscribe"})
ALTERATIONS: Final = (Fault.EMPTY_LOGS, Fault.FORGED_HASH, Fault.ALTERED_AMOUNTS)


@dataclass(frozen=True, slots=True)
class FaultProxySettings:
    """Where the proxy listens and which node is behind it.

    Attributes:
        upstream: the node's HTTP address.
        upstream_ws: its WebSocket address; when empty, *upstream* with ``ws`` for ``http``.
        other: HTTP address of a second node, for `Fault.OTHER_NODE`.
    """

    upstream: str
    upstream_ws: str = ""
    other: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    rules: tuple[Rule, ...] = ()


@dataclass(slots=True)
class _Fate:
    """What becomes of the answer on its way back."""

    answer: Json = None
    silent_s: float | None = None
    cut: bool = False
    half: bool = False
    retry_after_s: float | None = None
    too_many: bool = False


class FaultProxy:
    """One proxy behind one listening port. Use it as an asynchronous context manager."""

    def __init__(self, settings: FaultProxySettings) -> None:
        self.settings = settings
        self.rules = RuleBook()
        self.rules.set(*settings.rules)
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._closing = asyncio.Event()
        self._sockets: set[web.WebSocketResponse] = set()
        self._port = 0

    @property
    def url(self) -> str:
        """Return the HTTP address; only after `start`."""
        return f"http://{self.settings.host}:{self._port}"

    @property
    def ws_url(self) -> str:
        """Return the WebSocket address; only after `start`."""
        return f"ws://{self.settings.host}:{self._port}"

    async def __aenter__(self) -> Self:
        """Listen."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        await self.stop()

    async def start(self) -> str:
        """Listen and return the HTTP address. The node need not be there yet.

        Raises:
            OutsideUnavailable: the port belongs to somebody else.
        """
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=UPSTREAM_TIMEOUT_S)
        )
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/", self._post)
        app.router.add_get("/", self._websocket)
        app.router.add_get(CONTROL_PATH, self._show_rules)
        app.router.add_put(CONTROL_PATH, self._set_rules)
        app.router.add_delete(CONTROL_PATH, self._clear_rules)
        app.on_shutdown.append(self._let_go)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_GRACE_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.settings.host, self.settings.port).start()
        except OSError as exc:
            await self.stop()
            if exc.errno == errno.EADDRINUSE:
                raise OutsideUnavailable(
                    f"port {self.settings.port} on {self.settings.host} is already in use",
                    where="fault proxy",
                    remedy="Stop the process that holds it, or choose another with --port",
                ) from exc
            raise
        self._port = self._runner.addresses[0][1]
        return self.url

    async def stop(self) -> None:
        """Stop listening; whoever still waits for an answer is cut off."""
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def disconnect(self) -> None:
        """Cut every open WebSocket, as a node that restarts does."""
        for socket in list(self._sockets):
            await socket.close(code=aiohttp.WSCloseCode.GOING_AWAY)

    async def _let_go(self, _: web.Application) -> None:
        self._closing.set()
        await self.disconnect()

    # ------------------------------------------------------------------ the control endpoint

    async def _show_rules(self, _: web.Request) -> web.Response:
        return web.json_response(self.rules.show())

    async def _set_rules(self, request: web.Request) -> web.Response:
        try:
            rules = read_rules(orjson.loads(await request.read()))
            _require_other(rules, self.settings)
        except (BadInput, orjson.JSONDecodeError) as exc:
            return web.json_response({"error": str(exc)}, status=400)
        self.rules.set(*rules)
        return web.json_response(self.rules.show())

    async def _clear_rules(self, _: web.Request) -> web.Response:
        self.rules.clear()
        return web.json_response(self.rules.show())

    # ------------------------------------------------------------------ HTTP

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        calls = body if isinstance(body, list) else [body]
        if not calls or len(calls) > MAX_BATCH:
            return web.Response(status=400)
        fates = [await self._answer(call) for call in calls]
        for fate in fates:
            if fate.silent_s is not None:
                await self._stay_silent(fate.silent_s)
            if fate.cut or fate.silent_s is not None:
                return _cut(request)
            if fate.too_many:
                return _too_many(fate)
        answers = [fate.answer for fate in fates]
        payload = orjson.dumps(answers if isinstance(body, list) else answers[0])
        if any(fate.half for fate in fates):
            return await _send_half(request, payload)
        return web.Response(body=payload, content_type="application/json")

    async def _stay_silent(self, silent_s: float) -> None:
        try:
            async with asyncio.timeout(silent_s):
                await self._closing.wait()
        except TimeoutError:
            return

    # ------------------------------------------------------------------ WebSocket

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_BODY_BYTES)
        if not socket.can_prepare(request):
            return web.Response(status=405, text="POST JSON-RPC here, or open a WebSocket.\n")
        await socket.prepare(request)
        client = _Client(socket, self)
        self._sockets.add(socket)
        try:
            async with asyncio.TaskGroup() as group:
                await client.read(group)
                await client.close()
        finally:
            self._sockets.discard(socket)
        return socket

    async def answer_over_websocket(self, client: _Client, call: Json) -> None:
        """Answer one call of a WebSocket, in whatever time it takes; others go on meanwhile."""
        fate = await self._answer(call, client)
        if fate.silent_s is not None:
            return  # a WebSocket stays open; the answer just never comes
        if fate.cut or fate.half:
            await client.socket.close(code=aiohttp.WSCloseCode.INTERNAL_ERROR)
            return
        if fate.too_many:
            fate.answer = _error(call, -32005, "too many requests")
        await client.send(fate.answer)

    # ------------------------------------------------------------------ one call

    async def _answer(self, call: Json, client: _Client | None = None) -> _Fate:
        """Meet one call with the rules that strike it."""
        method = str(call.get("method"))
        struck = {rule.fault: rule for rule in self.rules.meet_call(method)}
        if slow := struck.get(Fault.SLOW):
            await asyncio.sleep(1.0 if slow.seconds is None else slow.seconds)
        if Fault.DISCONNECT in struck:
            return _Fate(cut=True)
        if silence := struck.get(Fault.TIME_OUT):
            return _Fate(silent_s=SILENCE_S if silence.seconds is None else silence.seconds)
        if limit := struck.get(Fault.TOO_MANY_REQUESTS):
            return _Fate(too_many=True, retry_after_s=limit.seconds)
        if refusal := struck.get(Fault.REFUSE):
            return _Fate(_error(call, refusal.code, refusal.message))
        if Fault.NO_TRACES in struck:
            return _Fate(_error(call, -32601, f"the method {method} does not exist"))
        if client is not None and method in SUBSCRIPTION_METHODS:
            return _Fate(await client.subscribe(call))
        fate = _Fate(await self._ask(call, struck), half=Fault.HALF_ANSWER in struck)
        if lost := struck.get(Fault.ACCEPT_THEN_TIME_OUT):
            fate.silent_s = SILENCE_S if lost.seconds is None else lost.seconds
        return fate

    async def _ask(self, call: Json, struck: dict[Fault, Rule]) -> Json:
        """Ask the node, or the other one, and change the question and the answer as rules say."""
        url = self.settings.other if Fault.OTHER_NODE in struck else self.settings.upstream
        ask = _Upstream(self, url)
        if wrong := struck.get(Fault.WRONG_CHAIN):
            shown = str(wrong.chain_id) if call["method"] == "net_version" else hex(wrong.chain_id)
            return {"jsonrpc": "2.0", "id": call.get("id"), "result": shown}
        if forged := struck.get(Fault.FORGED_HASH):
            call = await _true_hashes(ask, call, forged.height or 0)
            if call is None:
                return {"jsonrpc": "2.0", "id": None, "result": None}
        if stale := struck.get(Fault.STALE_HEAD):
            answer = await _ask_stale(ask, call, stale)
        else:
            answer = await ask.send(call)
        for fault in ALTERATIONS:
            if fault in struck and "result" in answer:
                height = struck[fault].height or 0
                answer = {**answer, "result": altered(fault, answer["result"], height=height)}
        return answer

    async def post(self, url: str, body: Json) -> Json:
        """Return a node's answer, or an error object when there is none."""
        if self._session is None:
            raise RuntimeError("the proxy is not started")
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(url, data=orjson.dumps(body), headers=headers) as found:
                return orjson.loads(await found.read())
        except (aiohttp.ClientError, OSError, TimeoutError, orjson.JSONDecodeError) as exc:
            return _error(body, -32603, f"the node behind the proxy does not answer: {exc}")

    async def open_upstream(self) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket to the node."""
        if self._session is None:
            raise RuntimeError("the proxy is not started")
        settings = self.settings
        url = settings.upstream_ws or "ws" + settings.upstream.removeprefix("http")
        return await self._session.ws_connect(url, max_msg_size=MAX_BODY_BYTES)


@dataclass(slots=True)
class _Upstream:
    proxy: FaultProxy
    url: str

    async def send(self, call: Json) -> Json:
        return await self.proxy.post(self.url, call)

    async def result(self, method: str, *params: Json) -> Json:
        body = {"jsonrpc": "2.0", "id": 0, "method": method, "params": list(params)}
        return (await self.send(body)).get("result")

    async def height_of(self, block_hash: str) -> int | None:
        block = await self.result("eth_getBlockByHash", block_hash, False)
        return None if block is None else int(block["number"], 16)


async def _ask_stale(ask: _Upstream, call: Json, rule: Rule) -> Json:
    """Ask as if the node's head were that of the rule."""
    head = int(await ask.result("eth_blockNumber") or "0x0", 16)
    height = max(0, head - rule.blocks) if rule.height is None else min(head, rule.height)
    method, params = call["method"], list(call.get("params") or [])
    if beyond(method, params, height):
        empty: list[Json] | None = [] if method == "eth_getLogs" else None
        return {"jsonrpc": "2.0", "id": call.get("id"), "result": empty}
    named = block_hash_in(method, params)
    if named is not None and ((await ask.height_of(named)) or 0) > height:
        if method in {"eth_getBlockByHash", "eth_getBlockReceipts"}:
            return {"jsonrpc": "2.0", "id": call.get("id"), "result": None}
        return {"jsonrpc": "2.0", "id": call.get("id"), "error": GONE}
    answer = await ask.send({**call, "params": at_height(method, params, height)})
    if "result" in answer:
        answer = {**answer, "result": forget_above(method, answer["result"], height)}
    return answer


async def _true_hashes(ask: _Upstream, call: Json, height: int) -> Json | None:
    """Return the call with the node's own hash for a forged one; None for a hash that is hidden."""
    method, params = call["method"], list(call.get("params") or [])
    named = block_hash_in(method, params)
    if named is None:
        return call
    if ((await ask.height_of(named)) or 0) >= height:
        return None
    true = forged_hash(named)
    if await ask.height_of(true) is None:
        return call
    return {**call, "params": with_block_hash(method, params, true)}


@dataclass(slots=True)
class _Client:
    """One WebSocket client, and the node's WebSocket once it has subscribed."""

    socket: web.WebSocketResponse
    proxy: FaultProxy
    _group: asyncio.TaskGroup | None = None
    _upstream: aiohttp.ClientWebSocketResponse | None = None
    _relay: asyncio.Task[None] | None = None
    _kinds: dict[str, str] = field(default_factory=dict)
    _waiting: dict[int, tuple[Json, asyncio.Future[Json]]] = field(default_factory=dict)
    _last_id: int = 0

    async def read(self, group: asyncio.TaskGroup) -> None:
        """Answer calls until the client goes away."""
        self._group = group
        async for message in self.socket:
            if message.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
                continue
            body = orjson.loads(message.data)
            for call in body if isinstance(body, list) else [body]:
                group.create_task(self.proxy.answer_over_websocket(self, call))

    async def close(self) -> None:
        """Close the node's WebSocket."""
        if self._upstream is not None:
            await self._upstream.close()
        if self._relay is not None:
            self._relay.cancel()
        for _, future in self._waiting.values():
            future.cancel()

    async def send(self, message: Json) -> None:
        """Send a message, unless the client has gone away."""
        if self.socket.closed:
            return
        try:
            await self.socket.send_str(orjson.dumps(message).decode())
        except ConnectionError:
            return

    async def subscribe(self, call: Json) -> Json:
        """Subscribe or unsubscribe at the node."""
        if self._upstream is None or self._upstream.closed:
            self._upstream = await self.proxy.open_upstream()
            if self._group is None:
                raise RuntimeError("a client is read before it subscribes")
            self._relay = self._group.create_task(self._pass_on(self._upstream))
        self._last_id += 1
        future = asyncio.get_running_loop().create_future()
        self._waiting[self._last_id] = (call, future)
        await self._upstream.send_str(orjson.dumps({**call, "id": self._last_id}).decode())
        return await future

    async def _pass_on(self, upstream: aiohttp.ClientWebSocketResponse) -> None:
        async for message in upstream:
            if message.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
                continue
            body = orjson.loads(message.data)
            if body.get("method") == "eth_subscription":
                await self._notify(body)
            elif (waiting := self._waiting.pop(body.get("id"), None)) is not None:
                call, future = waiting
                if call["method"] == "eth_subscribe" and "result" in body:
                    self._kinds[body["result"]] = str((call.get("params") or [""])[0])
                if not future.cancelled():
                    future.set_result({**body, "id": call.get("id")})
        await self.socket.close(code=aiohttp.WSCloseCode.GOING_AWAY)

    async def _notify(self, body: Json) -> None:
        kind = self._kinds.get(body["params"]["subscription"], "")
        faults = {rule.fault for rule in self.proxy.rules.meet_notification(kind)}
        if Fault.DROP_NOTIFICATIONS in faults:
            return
        for _ in range(1 + (Fault.DUPLICATE_NOTIFICATIONS in faults)):
            await self.send(body)


def _error(call: Json, code: int, message: str) -> Json:
    request_id = call.get("id") if isinstance(call, dict) else None
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


def _too_many(fate: _Fate) -> web.Response:
    headers = {} if fate.retry_after_s is None else {"Retry-After": f"{fate.retry_after_s:.0f}"}
    return web.Response(status=429, headers=headers)


def _cut(request: web.Request) -> web.Response:
    """Close the connection without a word."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)


async def _send_half(request: web.Request, payload: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(payload))})
    response.content_type = "application/json"
    await response.prepare(request)
    await response.write(payload[: len(payload) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


def _require_other(rules: Sequence[Rule], settings: FaultProxySettings) -> None:
    if not settings.other and any(rule.fault is Fault.OTHER_NODE for rule in rules):
        raise BadInput(
            f"{Fault.OTHER_NODE} needs a second node", remedy="Start the proxy with --other URL"
        )


Ready = Callable[[dict[str, Json]], None]
"""Told once, with the ready line, when the proxy answers."""


async def serve(settings: FaultProxySettings, *, ready: Ready, stop: asyncio.Event) -> None:
    """Run a proxy until *stop* is set."""
    _require_other(settings.rules, settings)
    async with FaultProxy(settings) as proxy:
        ready(
            {
                "event": "ready",
                "component": "evm-faults",
                "url": proxy.url,
                "ws_url": proxy.ws_url,
                "control_url": proxy.url + CONTROL_PATH,
                "upstream": settings.upstream,
            }
        )
        await stop.wait()
