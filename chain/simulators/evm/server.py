"""JSON-RPC over HTTP POST and WebSocket, both on one port and one path.

py-evm computes in Python and blocks. Every call that touches the node therefore runs on **one**
worker thread: the calls form a queue, so access to the chain is serialised without a lock, and
the event loop stays free to accept connections, answer pings and notice the end of the parent
even while a large block is being made. More threads would gain nothing under the interpreter
lock. What one call can ask for is bounded (``node.MAX_BLOCKS_PER_CALL``, the block gas limit), so
the queue always moves on.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from chain.simulators.evm.errors import InvalidRequest, PortTaken, RpcError, ServerRefusal
from chain.simulators.evm.model import ChainEvent, EvmSimulatorSettings, MiningMode
from chain.simulators.evm.node import Node
from chain.simulators.evm.rpc import (
    Answer,
    Request,
    error_body,
    parse_body,
    perform,
    read_request,
    result_body,
)
from chain.simulators.evm.subscriptions import Subscription, read_subscription
from chain.simulators.evm.wire import Json, hex_data, quantity
from chain.simulators.process import serve_until_told

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_CONNECTION_BACKLOG = 20_000
MAX_SUBSCRIPTIONS_PER_CONNECTION = 100
HEARTBEAT_S = 30.0
SHUTDOWN_GRACE_S = 2.0

SUBSCRIPTION_METHODS = frozenset({"eth_subscribe", "eth_unsubscribe"})


class EvmSimulator:
    """One simulated chain behind one listening port."""

    def __init__(self, settings: EvmSimulatorSettings) -> None:
        self.settings = settings
        self._worker: ThreadPoolExecutor | None = None
        self._runner: web.AppRunner | None = None
        self._node: Node | None = None
        self._port = 0
        self._connections: set[_Connection] = set()
        self._subscription_ids = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._ticker_interval_s = 0.0

    @property
    def url(self) -> str:
        """Return the HTTP address; only after ``start``."""
        return f"http://{self.settings.host}:{self._port}"

    @property
    def ws_url(self) -> str:
        """Return the WebSocket address; only after ``start``."""
        return f"ws://{self.settings.host}:{self._port}"

    async def start(self) -> str:
        """Make the chain, listen, and return the HTTP address.

        Raises:
            PortTaken: the port belongs to somebody else.
        """
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evm-simulator")
        loop = asyncio.get_running_loop()
        self._node = await loop.run_in_executor(self._worker, Node, self.settings)
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/", self._post)
        app.router.add_get("/", self._websocket)
        app.on_shutdown.append(self._close_connections)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_GRACE_S
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.settings.host, self.settings.port).start()
        except OSError as exc:
            await self.stop()
            if exc.errno == errno.EADDRINUSE:
                raise _port_taken(self.settings) from exc
            raise
        self._port = self._runner.addresses[0][1]
        self._arm_ticker()
        return self.url

    async def stop(self) -> None:
        """Close every connection and stop listening. The chain is gone."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._worker = None

    def ready_info(self) -> dict[str, Json]:
        """Return what a launcher needs to know: addresses, chain id, accounts, process id."""
        return {
            "event": "ready",
            "component": "evm",
            "url": self.url,
            "ws_url": self.ws_url,
            "chain_id": self.settings.chain_id,
            "accounts": [hex_data(account.address) for account in self._running_node().accounts],
            "pid": os.getpid(),
        }

    # ------------------------------------------------------------------ running calls

    def _running_node(self) -> Node:
        if self._node is None:
            raise RuntimeError("the simulator is not started")
        return self._node

    async def _perform(self, request: Request) -> dict[str, Json]:
        """Run a call on the worker and publish its events, even if the caller has gone away."""
        future = asyncio.get_running_loop().run_in_executor(
            self._worker, perform, self._running_node(), request
        )
        future.add_done_callback(self._publish_answer)
        return (await asyncio.shield(future)).body

    def _publish_answer(self, future: asyncio.Future[Answer]) -> None:
        if future.cancelled():
            return
        for event in future.result().events:
            for connection in self._connections:
                connection.tell(event)
        self._arm_ticker()

    # ------------------------------------------------------------------ interval mining

    def _arm_ticker(self) -> None:
        """Start, stop or re-time the interval mining after the node's settings have changed."""
        node = self._running_node()
        wanted = node.interval_s if node.mode is MiningMode.INTERVAL else 0.0
        if wanted == self._ticker_interval_s or self._worker is None:
            return
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        self._ticker_interval_s = wanted
        if wanted:
            self._ticker = asyncio.get_running_loop().call_later(wanted, self._tick)

    def _tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(self._ticker_interval_s, self._tick)
        block = asyncio.get_running_loop().run_in_executor(
            self._worker, _mine_at_interval, self._running_node()
        )
        block.add_done_callback(self._publish_answer)

    # ------------------------------------------------------------------ HTTP

    async def _post(self, http: web.Request) -> web.Response:
        answer = await self._answer_body(await http.read(), self._perform_over_http)
        if answer is None:
            return web.Response(status=204)
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    async def _perform_over_http(self, request: Request) -> dict[str, Json]:
        if request.method in SUBSCRIPTION_METHODS:
            refusal = ServerRefusal(
                f"notifications not supported: {request.method} needs a WebSocket connection"
            )
            return error_body(request.id, refusal)
        return await self._perform(request)

    async def _answer_body(self, body: bytes, run: _Run) -> Json | None:
        """Return the answer to a request or a batch; None if nobody waits for one."""
        try:
            parsed = parse_body(body)
        except RpcError as exc:
            return error_body(None, exc)
        if isinstance(parsed, dict):
            return await _answer_one(parsed, run)
        answers = [await _answer_one(raw, run) for raw in parsed]
        return [answer for answer in answers if answer is not None] or None

    # ------------------------------------------------------------------ WebSocket

    async def _websocket(self, http: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_BODY_BYTES)
        if not socket.can_prepare(http):
            return web.Response(status=405, text="POST JSON-RPC here, or open a WebSocket.\n")
        await socket.prepare(http)
        connection = _Connection(socket)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(connection.write())
                await self._read(connection)
                writer.cancel()
        finally:
            self._connections.discard(connection)
        return socket

    async def _read(self, connection: _Connection) -> None:
        async def run(request: Request) -> dict[str, Json]:
            if request.method in SUBSCRIPTION_METHODS:
                return self._subscription_call(connection, request)
            return await self._perform(request)

        async for message in connection.socket:
            if message.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
                continue
            text = message.data
            body = text.encode() if isinstance(text, str) else text
            answer = await self._answer_body(body, run)
            if answer is not None:
                connection.put(answer)

    def _subscription_call(self, connection: _Connection, request: Request) -> dict[str, Json]:
        try:
            if request.method == "eth_unsubscribe":
                wanted = str(request.params.need(0, "subscription id"))
                found = connection.subscriptions.pop(wanted, None)
                return result_body(request.id, found is not None)
            if len(connection.subscriptions) >= MAX_SUBSCRIPTIONS_PER_CONNECTION:
                raise ServerRefusal(
                    f"too many subscriptions: the limit is {MAX_SUBSCRIPTIONS_PER_CONNECTION}"
                )
            subscription = read_subscription(request.params)
        except RpcError as exc:
            return error_body(request.id, exc)
        self._subscription_ids += 1
        name = quantity(self._subscription_ids)
        connection.subscriptions[name] = subscription
        return result_body(request.id, name)

    async def _close_connections(self, _: web.Application) -> None:
        for connection in list(self._connections):
            await connection.socket.close(code=WSCloseCode.GOING_AWAY, message=b"shutting down")


class _Connection:
    """One WebSocket: answers and notifications leave through one queue, in order."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.subscriptions: dict[str, Subscription] = {}
        self._backlog: asyncio.Queue[Json | None] = asyncio.Queue(MAX_CONNECTION_BACKLOG)

    def tell(self, event: ChainEvent) -> None:
        """Queue what the subscriptions have to say about an event."""
        for name, subscription in self.subscriptions.items():
            for result in subscription.tell(event):
                params = {"subscription": name, "result": result}
                self.put({"jsonrpc": "2.0", "method": "eth_subscription", "params": params})

    def put(self, message: Json) -> None:
        """Queue a message. A reader too slow for its backlog is cut off, not left with gaps."""
        try:
            self._backlog.put_nowait(message)
        except asyncio.QueueFull:
            self.subscriptions.clear()
            while not self._backlog.empty():
                self._backlog.get_nowait()
            self._backlog.put_nowait(None)

    async def write(self) -> None:
        """Send what is queued until the connection is gone."""
        while not self.socket.closed:
            message = await self._backlog.get()
            if message is None:
                await self.socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"too slow")
                return
            try:
                await self.socket.send_str(orjson.dumps(message).decode())
            except ConnectionError:
                return  # the peer went away; the reader ends by itself


_Run = Callable[[Request], Any]


def _mine_at_interval(node: Node) -> Answer:
    """Make the block of one tick, unless the mode has changed while the tick was waiting."""
    if node.mode is MiningMode.INTERVAL:
        node.mine()
    return Answer({}, tuple(node.take_events()))


async def _answer_one(raw: Any, run: _Run) -> dict[str, Json] | None:
    try:
        request = read_request(raw)
    except InvalidRequest as exc:
        return error_body(raw.get("id") if isinstance(raw, dict) else None, exc)
    answer: dict[str, Json] = await run(request)
    return None if request.is_notification else answer


def _port_taken(settings: EvmSimulatorSettings) -> PortTaken:
    return PortTaken(
        f"port {settings.port} on {settings.host} is already in use",
        where="EVM simulator",
        remedy="Stop the process that holds it, or choose another with --port (0: any free port)",
    )


async def serve(
    settings: EvmSimulatorSettings,
    *,
    ready: Callable[[dict[str, Json]], None],
    parent_pipe: bool = False,
) -> None:
    """Run a simulator until SIGINT, SIGTERM or, with *parent_pipe*, the end of the parent.

    *ready* is called once, with ``EvmSimulator.ready_info()``, when calls are answered.

    Raises:
        PortTaken: the port belongs to somebody else.
        BadInput: *parent_pipe* is set and standard input is not a pipe.
    """
    simulator = EvmSimulator(settings)
    await simulator.start()
    await serve_until_told(
        asyncio.Event(),
        ready=lambda: ready(simulator.ready_info()),
        stop=simulator.stop,
        parent_pipe=parent_pipe,
    )
