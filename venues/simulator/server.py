"""The server: HTTP and WebSocket routes over the venue's core."""

import asyncio
import errno
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from kernel.clock import Clock, SystemClock
from venues.simulator import auth
from venues.simulator.commands import StepMaker, VenueEvent
from venues.simulator.connections import HEARTBEAT_S, Connection
from venues.simulator.control import Control, ControlError
from venues.simulator.core import VenueCore
from venues.simulator.errors import PortTaken, SimulatorError, VenueRefusal
from venues.simulator.faults import FaultSchedule
from venues.simulator.market_streams import MarketStreams
from venues.simulator.misbehaviour import misbehave
from venues.simulator.model import AccountSpec
from venues.simulator.rest import ENDPOINTS, Call, Endpoint, Security
from venues.simulator.settings import VenueSimulatorSettings
from venues.simulator.timers import Repeating
from venues.simulator.user_streams import UserStreams

MINUTE_MS: Final = 60_000
SHUTDOWN_S: Final = 1.0
BODY_MAX_BYTES: Final = 64 * 1024


class Meter:
    """Counts weight over the last minute, as the rate-limit headers report it."""

    def __init__(self, window_ms: int) -> None:
        self._window_ms = window_ms
        self._spent: deque[tuple[int, int]] = deque()
        self._total = 0

    def spend(self, weight: int, now_ms: int) -> int:
        """Add weight; answer what was spent in the window, this included."""
        while self._spent and self._spent[0][0] <= now_ms - self._window_ms:
            self._total -= self._spent.popleft()[1]
        self._spent.append((now_ms, weight))
        self._total += weight
        return self._total


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it was read, before anything about it is believed."""

    method: str
    path: str
    query: str
    body: str
    api_key: str


@dataclass(frozen=True, slots=True)
class _Running:
    """What exists only while the port is open."""

    core: VenueCore
    control: Control
    runner: web.AppRunner
    port: int
    timers: tuple[Repeating, ...]


class VenueSimulator:
    """A venue on a port: start it, trade on it, stop it, start it again where it was.

    `failed` is done with an error when something inside broke; `stop` raises that error.
    """

    def __init__(
        self,
        settings: VenueSimulatorSettings,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._clock = SystemClock() if clock is None else clock
        self._faults = FaultSchedule()
        self._market_streams = MarketStreams()
        self._user_streams = UserStreams()
        self._weights = Meter(MINUTE_MS)
        self._orders = Meter(10_000)
        self._running: _Running | None = None
        self.failure: Exception | None = None
        self.stopping = asyncio.Event()

    @property
    def core(self) -> VenueCore:
        """The venue's core, while it runs."""
        return self._require_running().core

    @property
    def url(self) -> str:
        """Where HTTP requests go, without a path."""
        return f"http://{self._settings.host}:{self._require_running().port}"

    @property
    def ws_url(self) -> str:
        """Where WebSocket connections go, without a path."""
        return f"ws://{self._settings.host}:{self._require_running().port}"

    @property
    def accounts(self) -> tuple[AccountSpec, ...]:
        """The accounts with their keys."""
        return self.core.state.genesis.accounts

    async def start(self) -> str:
        """Replay the journal, open the port and begin to quote; answers the URL.

        Raises:
            PortTaken: another process listens on the port.
            JournalMismatch, JournalDamaged: the data directory cannot be used.
            SettingsInvalid: the settings contradict themselves.
        """
        if self._running is not None:
            raise SimulatorError("the simulator is running already")
        self.failure = None
        self.stopping.clear()
        core = VenueCore(self._settings, self._clock, publish=self._publish, failed=self._fail)
        control = Control(core, self._faults, subscriptions=lambda: self._user_streams.made)
        runner = web.AppRunner(
            self._application(control), access_log=None, shutdown_timeout=SHUTDOWN_S
        )
        await runner.setup()
        try:
            port = await self._listen(runner)
        except PortTaken:
            await runner.cleanup()
            core.close()
            raise
        self._running = _Running(core, control, runner, port, self._timers(core, control))
        for timer in self._running.timers:
            timer.start()
        return self.url

    async def stop(self) -> None:
        """Close connections, port and journal.

        Raises:
            Exception: what broke while the simulator ran, if anything did.
        """
        running = self._require_running()
        self.stopping.set()
        for timer in running.timers:
            timer.stop()
        for connection in self._market_streams.connections() + self._user_streams.connections():
            connection.close()
        await running.runner.cleanup()
        if self.failure is None:
            running.core.save_checkpoint()
        running.core.close()
        self._running = None
        if self.failure is not None:
            raise self.failure

    def _require_running(self) -> _Running:
        if self._running is None:
            raise SimulatorError("the simulator is not running: await start() first")
        return self._running

    async def _listen(self, runner: web.AppRunner) -> int:
        host, port = self._settings.host, self._settings.port
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise PortTaken(
                f"port {port} on {host} is taken by another process: stop that process, or choose "
                f"another port (port 0 takes any free one)"
            ) from error
        return int(runner.addresses[0][1])

    def _timers(self, core: VenueCore, control: Control) -> tuple[Repeating, ...]:
        settings = self._settings

        def flush() -> None:
            self._market_streams.flush(core.state, core.now_ms())

        def step() -> None:
            if not control.paused:
                core.execute(StepMaker(core.accepted_at()))

        timers = [Repeating(settings.depth_interval_ms / 1000, flush, self._fail)]
        if settings.step_interval_ms:
            timers.append(Repeating(settings.step_interval_ms / 1000, step, self._fail))
        return tuple(timers)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.stopping.set()

    def _publish(self, events: Sequence[VenueEvent]) -> None:
        if self._running is None:
            return
        core = self._running.core
        now_ms = core.now_ms()
        self._user_streams.publish(core.state, events, now_ms)
        self._market_streams.publish(core.state, events, now_ms)

    def _application(self, control: Control) -> web.Application:
        application = web.Application(client_max_size=BODY_MAX_BYTES)

        async def control_request(request: web.Request) -> web.Response:
            return await _controlled(control, request)

        application.router.add_route("*", "/control/{verb}", control_request)
        application.router.add_get("/ws-api/v3", self._user_socket)
        for path in ("/stream", "/ws", "/ws/{streams}", "/stream/ws", "/stream/ws/{number}"):
            application.router.add_get(path, self._market_socket)
        application.router.add_route("*", "/{path:.*}", self._request)
        return application

    async def _request(self, request: web.Request) -> web.Response:
        path, _, query = request.raw_path.partition("?")
        body = await request.text()
        api_key = request.headers.get(auth.API_KEY_HEADER, "")
        incoming = Incoming(request.method, path, query, body, api_key)

        async def answer() -> web.Response:
            return self._answer(incoming)

        fault = self._faults.for_request(incoming.method, path)
        if fault is not None:
            return await misbehave(fault, request, answer, self.stopping)
        return await answer()

    def _answer(self, incoming: Incoming) -> web.Response:
        endpoint = ENDPOINTS.get((incoming.method, incoming.path))
        if endpoint is None:
            return _refused(VenueRefusal(-1000, f"no endpoint {incoming.path}", status=404), {})
        headers, over = self._metered(endpoint)
        if over:
            refusal = VenueRefusal(-1003, "Too much request weight used.", status=429)
            return _refused(refusal, headers | {"Retry-After": "1"})
        try:
            value = endpoint.answer(self._call(endpoint, incoming))
        except VenueRefusal as refusal:
            return _refused(refusal, headers)
        return _json(value, 200, headers)

    def _call(self, endpoint: Endpoint, incoming: Incoming) -> Call:
        core, account = self.core, None
        sent = auth.parameters(incoming.query, incoming.body)
        if endpoint.security is Security.SIGNED:
            account = auth.account_of_key(core.state, incoming.api_key)
            auth.require_signature(account.spec.secret, incoming.query, incoming.body)
            auth.require_timely(sent, core.now_ms())
        return Call(core, account, sent, self._settings.weight_limit_1m)

    def _metered(self, endpoint: Endpoint) -> tuple[dict[str, str], bool]:
        now_ms = self.core.now_ms()
        used = self._weights.spend(endpoint.weight, now_ms)
        headers = {"X-MBX-USED-WEIGHT": str(used), "X-MBX-USED-WEIGHT-1M": str(used)}
        if endpoint.counts_as_order:
            headers["X-MBX-ORDER-COUNT-10S"] = str(self._orders.spend(1, now_ms))
        return headers, self._settings.enforce_weight and used > self._settings.weight_limit_1m

    async def _market_socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S)
        await socket.prepare(request)
        connection = Connection(socket, self._faults)
        named = request.query.get("streams", request.match_info.get("streams", ""))
        streams = [name for name in named.split("/") if name]
        combined = request.path == "/stream"
        self._market_streams.join(connection, streams, combined=combined)
        try:
            await connection.serve(self._market_streams.receive)
        finally:
            self._market_streams.leave(connection)
        return socket

    async def _user_socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S)
        await socket.prepare(request)
        connection = Connection(socket, self._faults)

        def receive(sender: Connection, text: str) -> None:
            self._user_streams.receive(self.core, sender, text)

        self._user_streams.join(connection)
        try:
            await connection.serve(receive)
        finally:
            self._user_streams.leave(connection)
        return socket


async def _controlled(control: Control, request: web.Request) -> web.Response:
    body = await request.text()
    try:
        value = control.answer(request.method, request.match_info["verb"], _object(body))
    except (ControlError, VenueRefusal, ValueError, TypeError) as error:
        return _json({"error": str(error)}, 400, {})
    return _json(value, 200, {})


def _object(body: str) -> dict[str, Any]:
    sent = orjson.loads(body) if body else {}
    if not isinstance(sent, dict):
        raise ControlError("the body must be a JSON object")
    return sent


def _refused(refusal: VenueRefusal, headers: dict[str, str]) -> web.Response:
    return _json({"code": refusal.code, "msg": refusal.text}, refusal.status, headers)


def _json(value: Any, status: int, headers: dict[str, str]) -> web.Response:
    body = orjson.dumps(value)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
