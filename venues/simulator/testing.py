"""For tests and tools: a simulator as a child process, ccxt pointed at it, the control endpoint.

Nothing here imports ccxt; an exchange object is changed through its public `urls` only.
"""

import asyncio
import json
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

READY_S_MAX: Final = 20.0
STOP_S_MAX: Final = 10.0
CONTROL_S_MAX: Final = 10.0
POLL_S: Final = 0.01

# What a ccxt binance class needs to be told so that it asks a spot venue for spot things only.
CCXT_OPTIONS: Final[dict[str, Any]] = {
    "defaultType": "spot",
    "fetchMarkets": {"types": ["spot"]},
    "fetchMargins": False,
}


class SimulatorNotReady(Exception):
    """The child process ended or was silent instead of announcing that it is ready."""


class ControlRefused(Exception):
    """The control endpoint answered with an error."""


def point_ccxt_at(exchange: Any, http_url: str, ws_url: str) -> None:
    """Send a ccxt binance or kraken object to a simulator: same paths, other host.

    Every REST URL keeps its path and gets the simulator's scheme and host. The WebSocket table is
    replaced. On Binance the market stream's path holds `/stream`, by which ccxt tells spot from
    futures. Kraken's two hosts for public and private sockets are two paths here.

    ccxt chooses between its tables of spot and futures error codes by the host `api.binance.com`,
    so the spot table is laid over the common one; otherwise some codes would raise other classes
    than they do on the real venue (ccxt 4.5.90, `get_exceptions_by_url`).
    """
    target = urlsplit(http_url)
    api = exchange.urls["api"]
    for name, url in list(api.items()):
        if isinstance(url, str):
            parts = urlsplit(url)
            moved = parts._replace(scheme=target.scheme, netloc=target.netloc)
            api[name] = urlunsplit(moved)
    if exchange.id == "kraken":
        public, private = f"{ws_url}/v2", f"{ws_url}/auth/v2"
        names = {"public": public, "publicV2": public, "beta": public}
        api["ws"] = names | {"private": private, "privateV2": private, "beta-private": private}
        return
    api["ws"] = {
        "spot": f"{ws_url}/stream/ws",
        "ws-api": {"spot": f"{ws_url}/ws-api/v3"},
    }
    spot = exchange.exceptions.get("spot", {})
    merged = {kind: exchange.exceptions[kind] | spot.get(kind, {}) for kind in ("exact", "broad")}
    exchange.exceptions = {**exchange.exceptions, **merged}


def ccxt_settings(ready: dict[str, Any]) -> dict[str, Any]:
    """Constructor settings of a ccxt class for the account of a ready line.

    On closing, ccxt waits for TLS connections to be shut down, and on opening it reads the certificates
    that it trusts; a simulator has no TLS.
    """
    return {
        "timeout_on_exit": 0,
        "verify": False,
        "apiKey": ready["api_key"],
        "secret": ready["secret"],
        "enableRateLimit": False,
        "options": dict(CCXT_OPTIONS),
    }


def control(url: str, method: str, verb: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the control endpoint of a simulator.

    Raises:
        ControlRefused: with the endpoint's reason.
    """
    request = urllib.request.Request(  # noqa: S310  the caller's own simulator
        f"{url}/control/{verb}",
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=CONTROL_S_MAX) as answer:  # noqa: S310  as above
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise ControlRefused(error.read().decode()) from error


class SimulatorProcess:
    """`python -m venues.simulator` as a child; `ready` is its ready line.

    It can be killed without mercy and started again on the same data directory and port.
    """

    def __init__(self, data_dir: Path, *arguments: str, port: int = 0) -> None:
        self._data_dir = data_dir
        self._arguments: Sequence[str] = arguments
        self._port = port
        self._process: subprocess.Popen[str] | None = None
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where HTTP requests go."""
        return str(self.ready["url"])

    @property
    def ws_url(self) -> str:
        """Where WebSocket connections go."""
        return str(self.ready["ws_url"])

    def start(self) -> None:
        """Start the child and wait until it is ready; the second time on the same port.

        Raises:
            SimulatorNotReady: with what the child wrote instead.
        """
        line = ["--data-dir", str(self._data_dir), "--port", str(self._port), "--parent-pipe"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "venues.simulator", *line, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.ready = self._read_ready(self._process)
        self._port = urlsplit(self.url).port or 0

    def kill(self) -> None:
        """End the child at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int | None:
        """Ask the child to end and wait; answers its exit code, None when it was not running."""
        return self._end(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the child to end by itself."""
        assert self._process is not None
        return self._process.wait(STOP_S_MAX)

    def close_parent_pipe(self) -> None:
        """Close the child's standard input, as the parent's death would."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()

    def control(self, method: str, verb: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the control endpoint."""
        return control(self.url, method, verb, body)

    def state(self) -> Any:
        """The venue's true state."""
        return self.control("GET", "state")

    def user_subscriptions(self) -> int:
        """How many user data streams were ever subscribed to: it rises when one is heard."""
        return int(self.control("GET", "subscriptions")["user"])

    async def wait_for_user_stream(self, before: int) -> None:
        """Wait until there was a subscription after *before* of them.

        Raises:
            TimeoutError: nobody subscribed in time.
        """
        async with asyncio.timeout(CONTROL_S_MAX):
            while await asyncio.to_thread(self.user_subscriptions) <= before:  # noqa: ASYNC110  another process knows
                await asyncio.sleep(POLL_S)

    def fault(self, kind: str, path: str, **options: Any) -> None:
        """Schedule a fault."""
        self.control("POST", "faults", {"kind": kind, "path": path, **options})

    def _end(self, number: int) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(number)
        try:
            code = process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait(STOP_S_MAX)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        return code

    def _read_ready(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        assert process.stderr is not None
        readable, _, _ = select.select([process.stdout], [], [], READY_S_MAX)
        line = process.stdout.readline() if readable else ""
        if not line:
            process.kill()
            complaint = process.stderr.read().strip()
            self._end(signal.SIGKILL)
            raise SimulatorNotReady(complaint or f"silent for {READY_S_MAX} s")
        ready: dict[str, Any] = json.loads(line)
        return ready
