"""The server: a port, timers, the operator's routes and the fault gate before the dialect's own."""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Middleware

from kernel.clock import Clock, SystemClock
from venues.simulator.binance.dialect import BinanceDialect
from venues.simulator.commands import BalancesChanged, OrderUpdated, StepMaker, VenueEvent
from venues.simulator.control import Control, ControlError
from venues.simulator.core import VenueCore
from venues.simulator.dialect import Dialect, Venue
from venues.simulator.errors import PortTaken, SettingsInvalid, SimulatorError, VenueRefusal
from venues.simulator.faults import FaultSchedule
from venues.simulator.kraken.dialect import KrakenDialect
from venues.simulator.misbehaviour import Misbehaviour
from venues.simulator.model import AccountSpec
from venues.simulator.replay import Recorder, Replay, open_recording
from venues.simulator.schedule import SeededFaults
from venues.simulator.settings import DialectName, VenueSimulatorSettings
from venues.simulator.timers import Repeating

SHUTDOWN_S: Final = 1.0
TIME_INTERVAL_S: Final = 0.05
REPLAY_INTERVAL_S: Final = 0.01
BODY_MAX_BYTES: Final = 64 * 1024
CONTROL_PATH: Final = "/control/"

DIALECTS: Final[dict[DialectName, Callable[[Venue], Dialect]]] = {
    DialectName.BINANCE: BinanceDialect,
    DialectName.KRAKEN: KrakenDialect,
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class _Running:
    """What exists only while the port is open."""

    core: VenueCore
    dialect: Dialect
    runner: web.AppRunner
    port: int
    timers: tuple[Repeating, ...]
    recorder: Recorder | None


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
        if settings.faults is not None:
            self._faults.random = SeededFaults(settings.faults)
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
            RecordingInvalid: the recording to replay cannot be read, the one to write exists.
        """
        if self._running is not None:
            raise SimulatorError("the simulator is running already")
        self.failure = None
        self.stopping.clear()
        core = VenueCore(self._settings, self._clock, publish=self._publish, failed=self._fail)
        dialect = DIALECTS[self._settings.dialect](Venue(core, self._settings, self._faults))
        control = Control(core, self._faults, subscriptions=dialect.subscriptions)
        try:
            timers = self._timers(core, dialect, control)
            recorder = self._recorder(core)
        except SimulatorError:
            core.close()
            raise
        runner = web.AppRunner(
            self._application(core, dialect, control), access_log=None, shutdown_timeout=SHUTDOWN_S
        )
        await runner.setup()
        try:
            port = await self._listen(runner)
        except PortTaken:
            await runner.cleanup()
            core.close()
            raise
        self._running = _Running(core, dialect, runner, port, timers, recorder)
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
        for connection in running.dialect.connections():
            connection.close()
        await running.runner.cleanup()
        if self.failure is None:
            await running.core.settled()
            running.core.save_checkpoint()
        running.core.close()
        if running.recorder is not None:
            running.recorder.close()
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

    def _timers(self, core: VenueCore, dialect: Dialect, control: Control) -> tuple[Repeating, ...]:
        settings = self._settings

        def flush() -> None:
            dialect.flush(core.now_ms())

        def step() -> None:
            if not control.paused:
                core.execute(StepMaker(core.accepted_at()))

        def pass_time() -> None:
            core.pass_time(core.accepted_at())

        timers = [
            Repeating(settings.depth_interval_ms / 1000, flush, self._fail),
            Repeating(TIME_INTERVAL_S, pass_time, self._fail),
        ]
        if settings.replay_from is not None:
            replay = Replay(
                open_recording(settings.replay_from), core.state, speed=settings.replay_speed
            )

            def follow() -> None:
                for command in replay.due(core.now_ms()) if not control.paused else ():
                    core.execute(command)

            timers.append(Repeating(REPLAY_INTERVAL_S, follow, self._fail))
        elif settings.step_interval_ms:
            timers.append(Repeating(settings.step_interval_ms / 1000, step, self._fail))
        return tuple(timers)

    def _recorder(self, core: VenueCore) -> Recorder | None:
        path = self._settings.record_to
        return None if path is None else Recorder(path, core.state, core.now_ms())

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.stopping.set()

    def _publish(self, events: Sequence[VenueEvent]) -> None:
        if self._running is None:
            return
        told, faults = events, self._faults
        if not faults.is_idle and _has_fill(events) and faults.for_events() is not None:
            told = sorted(events, key=lambda event: not isinstance(event, BalancesChanged))
        if self._running.recorder is not None:
            self._running.recorder.heard(events, self._running.core.now_ms())
        self._running.dialect.publish(told, self._running.core.now_ms())

    def _application(self, core: VenueCore, dialect: Dialect, control: Control) -> web.Application:
        async def control_request(request: web.Request) -> web.Response:
            return await _controlled(control, request)

        gate = self._fault_gate(core, dialect)
        application = web.Application(client_max_size=BODY_MAX_BYTES, middlewares=[gate])
        application.router.add_route("*", CONTROL_PATH + "{verb}", control_request)
        dialect.routes(application)
        return application

    def _fault_gate(self, core: VenueCore, dialect: Dialect) -> Middleware:
        """Where faults on requests are spent; sockets and the operator's requests pass."""
        misbehaviour = Misbehaviour(core, dialect, self.stopping)

        @web.middleware
        async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
            async def answer() -> web.StreamResponse:
                response = await handler(request)
                await core.settled()
                return response

            is_socket = request.headers.get("Upgrade", "").lower() == "websocket"
            if self._faults.is_idle or is_socket or request.path.startswith(CONTROL_PATH):
                return await answer()
            await request.read()
            fault = self._faults.for_request(request.method, request.raw_path.partition("?")[0])
            if fault is None:
                return await answer()
            return await misbehaviour.treat(fault, request, answer)

        return gate


def _has_fill(events: Sequence[VenueEvent]) -> bool:
    return any(isinstance(event, OrderUpdated) and event.fill is not None for event in events)


async def _controlled(control: Control, request: web.Request) -> web.Response:
    body = await request.read()
    try:
        value = control.answer(request.method, request.match_info["verb"], _object(body))
    except (ControlError, VenueRefusal, SettingsInvalid, ValueError, TypeError) as error:
        return _json({"error": str(error)}, 400)
    return _json(value, 200)


def _object(body: bytes) -> dict[str, Any]:
    sent = orjson.loads(body) if body else {}
    if not isinstance(sent, dict):
        raise ControlError("the body must be a JSON object")
    return sent


def _json(value: Any, status: int) -> web.Response:
    body = orjson.dumps(value)
    return web.Response(status=status, body=body, content_type="application/json")
