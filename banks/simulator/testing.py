"""For tests and tools: the simulated bank as a thread of one's own process, or as a process."""

from __future__ import annotations

import asyncio
import json
import select
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Final, Self

from banks.simulator.__main__ import open_accounts, parser, server_from
from banks.simulator.model import SimulatorError
from banks.simulator.server import BankServer

READY_S_MAX: Final = 20.0
STOP_S_MAX: Final = 10.0
REQUEST_S_MAX: Final = 10.0


class BankClient:
    """What an operator and a customer say to a simulated bank at *url*."""

    def __init__(self, url: str) -> None:
        self.url = url

    def control(self, command: str, **sent: Any) -> Any:
        """Give a command of `banks.simulator.bank`; return its answer.

        Raises:
            SimulatorError: the bank refuses it.
        """
        status, body = self.request("POST", f"/control/{command}", json.dumps(sent).encode())
        if status != 200:
            raise SimulatorError(json.loads(body)["error"])
        return json.loads(body)["answer"]

    def take_folder(self) -> list[str]:
        """Have the bank look into its folder now; return what it took."""
        return list(self.control("take-folder"))

    def state(self) -> dict[str, Any]:
        """Return the bank's true state."""
        return dict(json.loads(self.request("GET", "/control/state")[1]))

    def order(self, name: str, raw: bytes) -> tuple[int, dict[str, Any]]:
        """Send a payment file; return status and answer."""
        status, body = self.request("PUT", f"/orders/{name}", raw)
        return status, json.loads(body)

    def files(self, prefix: str = "") -> dict[str, bytes]:
        """Return everything that the bank has sent, by name."""
        listed = json.loads(self.request("GET", "/files")[1])
        names = [item["name"] for item in listed if item["name"].startswith(prefix)]
        return {name: self.request("GET", f"/files/{name}")[1] for name in names}

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a request; return status and body."""
        asked = urllib.request.Request(self.url + path, body, method=method)  # noqa: S310  http to the simulator
        try:
            with urllib.request.urlopen(asked, timeout=REQUEST_S_MAX) as answer:  # noqa: S310  same
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


class BankThread(BankClient):
    """A bank in a thread; as a context manager it is started and stopped."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        super().__init__("")
        self._line = ["--data-dir", str(data_dir), "--no-fsync", *arguments]
        self._running: tuple[Thread, asyncio.AbstractEventLoop, BankServer] | None = None

    def __enter__(self) -> Self:
        found: Future[tuple[asyncio.AbstractEventLoop, BankServer]] = Future()
        thread = Thread(target=lambda: asyncio.run(_serve(self._line, found)), name="bank")
        thread.start()
        loop, server = found.result(READY_S_MAX)
        self._running = thread, loop, server
        self.url = server.url
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        running, self._running = self._running, None
        assert running is not None
        thread, loop, server = running
        with suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(server.stopping.set)
        thread.join(STOP_S_MAX)
        assert not thread.is_alive()


class BankProcess(BankClient):
    """A bank as a process of its own, which can be killed."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        super().__init__("")
        self._line = ["--data-dir", str(data_dir), "--parent-pipe", *arguments]
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "banks.simulator", *self._line]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], READY_S_MAX)[0]:
            self.kill()
            raise SimulatorError("the bank was silent")
        line = self.process.stdout.readline()
        if not line:
            self.kill()
            raise SimulatorError("the bank has ended")
        self.ready = json.loads(line)
        self.url = str(self.ready["url"])
        return self

    def kill(self) -> None:
        """End it at once."""
        assert self.process is not None
        self.process.kill()
        self._reap()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process is not None
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._reap()

    def _reap(self) -> None:
        assert self.process is not None
        self.process.wait(STOP_S_MAX)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


async def _serve(
    line: list[str], found: Future[tuple[asyncio.AbstractEventLoop, BankServer]]
) -> None:
    arguments = parser().parse_args(line)
    server = server_from(arguments)
    try:
        await server.start()
        open_accounts(server, arguments.account, arguments.format)
    except SimulatorError as error:
        found.set_exception(error)
        return
    found.set_result((asyncio.get_running_loop(), server))
    await server.stopping.wait()
    await server.stop()
