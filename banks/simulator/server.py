"""The bank on a port, with a folder: orders in, files out, the operator's routes, and a journal.

    PUT    /orders/{name}          a payment file as it is: 202 taken, 200 known, 409 another file of that
                                   message id, 400 unreadable; the answer is JSON with the report's name
    GET    /files                  [{name, size, sha256}], all that the bank has sent, by name
    GET    /files/{name}           its bytes
    GET    /control/state          balances (smallest coins), {EndToEndId: how often paid}, what waits
    POST   /control/{command}      the commands of `banks.simulator.bank`: account {iban, currency, balance,
                                   format, owner}; credit {account, amount, end_to_end, name, iban,
                                   remittance}; charge, interest {account, amount}; end-of-day {days};
                                   fault {kind, count, skip, units, days, seconds}; clear-faults; deliver; take-folder: look now

Files are also in ``DIR/out``; what is put into ``DIR/in`` is taken as an order. Commands are in
``DIR/journal.jsonl`` before they are answered: a bank that was killed goes on where it was.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from banks.simulator.bank import Bank
from banks.simulator.model import FaultKind, SimulatorError

ORDER_BYTES_MAX: Final = 4_000_000
POLL_S: Final = 0.2
TAKE_FOLDER: Final = "take-folder"
SHUTDOWN_S: Final = 1.0
_STATUS: Final = {"taken": 202, "known": 200, "conflict": 409, "unreadable": 400}
_BEFORE: Final = frozenset({FaultKind.HANG_BEFORE_ACCEPT, FaultKind.STATUS_503})
_HANGS: Final = frozenset({FaultKind.HANG_BEFORE_ACCEPT, FaultKind.HANG_AFTER_ACCEPT})


class BankServer:
    """A bank: start it, talk to it, stop it, start it again where it was."""

    def __init__(
        self,
        data_dir: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        today: date,
        fsync: bool = True,
    ) -> None:
        self._data_dir = data_dir
        self._host, self._port = host, port
        self._fsync = fsync
        self._runner: web.AppRunner | None = None
        self.bank = Bank(today)
        self.replayed = 0
        self.stopping = asyncio.Event()

    @property
    def url(self) -> str:
        """Where requests go, without a path."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> str:
        """Do the journal again, open the port, return the URL.

        Raises:
            SimulatorError: the port is taken, or the journal is damaged.
        """
        for folder in ("in", "out"):
            (self._data_dir / folder).mkdir(parents=True, exist_ok=True)
        self._replay()
        application = web.Application(client_max_size=ORDER_BYTES_MAX)
        application.router.add_put("/orders/{name}", self._order)
        application.router.add_get("/files", self._list)
        application.router.add_get("/files/{name}", self._file)
        application.router.add_get("/control/state", self._state)
        application.router.add_post("/control/{command}", self._control)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            if error.errno != errno.EADDRINUSE:
                raise
            raise SimulatorError(f"port {self._port} on {self._host} is taken") from error
        self._port = int(self._runner.addresses[0][1])
        return self.url

    async def follow_folder(self) -> None:
        """Take orders out of the folder until the bank stops."""
        while not self.stopping.is_set():
            self.take_folder()
            try:
                async with asyncio.timeout(POLL_S):
                    await self.stopping.wait()
            except TimeoutError:
                continue

    def take_folder(self) -> list[str]:
        """Take every order that lies in the folder, by name; what is taken goes out of it."""
        names = []
        for path in sorted((self._data_dir / "in").glob("*.xml")):
            self.execute({"verb": "order", "content": path.read_bytes().hex()})
            path.unlink()
            names.append(path.name)
        return names

    async def stop(self) -> None:
        """Close the port."""
        self.stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def execute(self, command: Mapping[str, Any]) -> Any:
        """Do a command and keep it: it is in the journal before its answer is seen.

        Raises:
            SimulatorError: the command cannot be understood.
        """
        try:
            return self.bank.execute(command)
        finally:
            # What is refused is kept as well: it is refused again in the same way.
            self._keep(command)
            self._write_files()

    def _keep(self, command: Mapping[str, Any]) -> None:
        with self._journal.open("a") as journal:
            journal.write(json.dumps(dict(command)) + "\n")
            journal.flush()
            if self._fsync:
                os.fsync(journal.fileno())

    @property
    def _journal(self) -> Path:
        return self._data_dir / "journal.jsonl"

    def _replay(self) -> None:
        # A line that was cut off when the bank was killed was never answered.
        told = self._journal.read_bytes() if self._journal.exists() else b""
        whole = told[: told.rfind(b"\n") + 1]
        whole = whole or json.dumps({"today": self.bank.today.isoformat()}).encode() + b"\n"
        if whole != told:
            self._journal.write_bytes(whole)
        first, *lines = whole.decode().splitlines()
        try:
            self.bank = Bank(date.fromisoformat(json.loads(first)["today"]))
            for line in lines:
                with suppress(SimulatorError):
                    self.bank.execute(json.loads(line))
        except (ValueError, KeyError) as error:
            raise SimulatorError(f"{self._journal} is damaged: {error}") from error
        self.replayed = len(lines)
        self._write_files()

    def _write_files(self) -> None:
        """Write what is not in the folder yet; a reader sees a whole file or none."""
        for name, raw in self.bank.files.items():
            path = self._data_dir / "out" / name
            if not path.exists():
                part = path.with_suffix(".part")
                part.write_bytes(raw)
                part.replace(path)

    async def _order(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        fault = self.execute({"verb": "spend"}) if self.bank.faults else None
        kind, wait_ms = (None, 0) if fault is None else (FaultKind(fault[0]), fault[1])
        answer: dict[str, str] = {}
        if kind not in _BEFORE:
            answer = self.execute({"verb": "order", "content": raw.hex()})
        if kind is None:
            return web.json_response(answer, status=_STATUS[answer["status"]])
        if kind in _HANGS:
            await self._wait(wait_ms / 1_000)
        return web.json_response({"error": "try again later"}, status=503)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response(
            [
                {"name": name, "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
                for name, raw in sorted(self.bank.files.items())
            ]
        )

    async def _file(self, request: web.Request) -> web.Response:
        raw = self.bank.files.get(request.match_info["name"])
        if raw is None:
            return web.json_response({"error": "no such file"}, status=404)
        return web.Response(body=raw, content_type="application/octet-stream")

    async def _state(self, _: web.Request) -> web.Response:
        return web.json_response(self.bank.state())

    async def _control(self, request: web.Request) -> web.Response:
        command = request.match_info["command"]
        if command == TAKE_FOLDER:
            return web.json_response({"answer": self.take_folder()})
        try:
            sent = json.loads(await request.read() or b"{}")
            answer = self.execute({**sent, "verb": command})
        except (SimulatorError, ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"answer": answer})
