"""JSON-RPC over HTTP POST, with bitcoind's passwords, its warm-up and its calls that wait.

The kernel and the making of blocks compute and block. Every call that touches the node runs on **one**
worker thread: the calls form a queue, so that the chain is changed by one at a time without a lock,
and the event loop stays free. Calls that wait for a block wait in the loop and hold nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import errno
import hashlib
import hmac
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from chain.simulators.bitcoin.calls import Argument, Context, Json, Method, read_hash, read_integer
from chain.simulators.bitcoin.errors import (
    InvalidParameter,
    PortTaken,
    RpcError,
    WarmingUp,
)
from chain.simulators.bitcoin.faucet import Faucet
from chain.simulators.bitcoin.model import COOKIE_USER, BitcoinSimulatorSettings
from chain.simulators.bitcoin.node import Node
from chain.simulators.bitcoin.rpc import (
    Request,
    error_body,
    parse_body,
    perform,
    read_request,
    result_body,
    status_of,
)
from chain.simulators.process import serve_until_told
from kernel.errors import CausewayError

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
SHUTDOWN_GRACE_S: Final = 2.0
COOKIE: Final = Path("regtest/.cookie")
LOADING: Final = "Loading block index…"
STOPPING: Final = "Bitcoin simulator stopping"

_TIMEOUT: Final = Argument("timeout", "number", 0)


@dataclass(frozen=True, slots=True)
class _Seen:
    """The tip, as the event loop knows it."""

    hash: str
    height: int

    def as_json(self) -> dict[str, Json]:
        return {"hash": self.hash, "height": self.height}


class BitcoinSimulator:
    """One simulated node behind one listening port."""

    def __init__(self, settings: BitcoinSimulatorSettings) -> None:
        self.settings = settings
        self.stopped = asyncio.Event()
        self._worker: ThreadPoolExecutor | None = None
        self._runner: web.AppRunner | None = None
        self._context: Context | None = None
        self._port = 0
        self._tip = _Seen("", 0)
        self._moved = asyncio.Condition()
        self._ends_waiting = asyncio.Event()
        self._own_folder: Path | None = None
        self._folder = Path()
        self._user, self._password = settings.user, settings.password

    @property
    def url(self) -> str:
        """Return the HTTP address; only after ``start``."""
        return f"http://{self.settings.host}:{self._port}"

    @property
    def user(self) -> str:
        """Return the name that callers show."""
        return self._user

    @property
    def password(self) -> str:
        """Return the password that callers show."""
        return self._password

    @property
    def cookie_file(self) -> Path | None:
        """Return where name and password of the cookie are, if there is one."""
        return None if self.settings.password else self._folder / COOKIE

    async def start(self) -> str:
        """Listen, load the chain, and return the HTTP address once calls are answered.

        Raises:
            PortTaken: the port belongs to somebody else.
            KernelMissing: libbitcoinkernel is not installed.
        """
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bitcoin-simulator")
        try:
            await self._listen()
            self._write_cookie()
            await self._load()
        except (CausewayError, OSError):
            await self.stop()
            raise
        return self.url

    async def stop(self) -> None:
        """Stop listening, end the calls that wait, and write what is kept."""
        self._ends_waiting.set()
        async with self._moved:
            self._moved.notify_all()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._worker is not None:
            if self._context is not None:
                await self._in_worker(self._context.node.close)
                self._context = None
            self._worker.shutdown(wait=True, cancel_futures=True)
            self._worker = None
        if self.cookie_file is not None:
            self.cookie_file.unlink(missing_ok=True)
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)
            self._own_folder = None

    def ready_info(self) -> dict[str, Json]:
        """Return what a launcher needs to know; the password stands in the cookie file."""
        cookie = self.cookie_file
        return {
            "event": "ready",
            "component": "bitcoin",
            "url": self.url,
            "chain": "regtest",
            "height": self._tip.height,
            "cookie_file": None if cookie is None else str(cookie),
            "pid": os.getpid(),
        }

    # ------------------------------------------------------------------ starting

    async def _listen(self) -> None:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_GRACE_S
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.settings.host, self.settings.port)
        try:
            await site.start()
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            raise PortTaken(
                f"port {self.settings.port} on {self.settings.host} is already in use",
                where="Bitcoin simulator",
                remedy="Stop the process that holds it, or choose another with --port (0: any free one)",
            ) from exc
        self._port = self._runner.addresses[0][1]

    def _write_cookie(self) -> None:
        if self.settings.data_dir is None:
            self._own_folder = Path(tempfile.mkdtemp(prefix="causeway-bitcoin-node-"))
        self._folder = self.settings.data_dir or self._own_folder or Path()
        if self.settings.password:
            return
        self._user, self._password = COOKIE_USER, secrets.token_hex(32)
        path = self._folder / COOKIE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(f"{self._user}:{self._password}")

    async def _load(self) -> None:
        node: Node = await self._in_worker(Node, self.settings)
        if self.settings.warm_up_s:
            await asyncio.sleep(self.settings.warm_up_s)
        self._context = Context(node, Faucet(node))
        self._tip = _Seen(node.chain.tip.hash, node.chain.height)

    async def _in_worker(self, run: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, run, *arguments)

    # ------------------------------------------------------------------ HTTP

    async def _handle(self, http: web.Request) -> web.Response:
        if http.method != "POST":
            return web.Response(status=405, text="JSONRPC server handles only POST requests")
        if not self._is_allowed(http.headers.get("Authorization", "")):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="jsonrpc"'})
        status, body = await self._answer(await http.read())
        if body is None:
            return web.Response(status=204)
        return web.Response(status=status, body=body + b"\n", content_type="application/json")

    def _is_allowed(self, header: str) -> bool:
        kind, _, encoded = header.partition(" ")
        if kind != "Basic":
            return False
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except binascii.Error:
            return False
        wanted = f"{self._user}:{self._password}".encode()
        return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(wanted).digest())

    async def _answer(self, body: bytes) -> tuple[int, bytes | None]:
        try:
            parsed = parse_body(body)
        except RpcError as exc:
            return status_of(exc, is_second=False), error_body(exc)
        if isinstance(parsed, dict):
            return await self._answer_one(parsed)
        answers = [(await self._answer_one(raw))[1] for raw in parsed]
        told = [answer for answer in answers if answer is not None]
        if parsed and not told:
            return 204, None
        return 200, b"[" + b",".join(told) + b"]"

    async def _answer_one(self, raw: Any) -> tuple[int, bytes | None]:
        is_second = isinstance(raw, dict) and raw.get("jsonrpc") == "2.0"
        try:
            request = read_request(raw)
            result = await self._perform(request)
        except RpcError as exc:
            id_ = raw.get("id") if isinstance(raw, dict) else None
            if is_second and isinstance(raw, dict) and "id" not in raw:
                return 204, None
            said = error_body(exc, request_id=id_, is_second=is_second)
            return status_of(exc, is_second=is_second), said
        if request.is_notification:
            return 204, None
        return 200, result_body(request, result)

    # ------------------------------------------------------------------ running calls

    async def _perform(self, request: Request) -> bytes:
        context = self._context
        if context is None:
            raise WarmingUp(LOADING)
        waiting = WAITING.get(request.method)
        if waiting is not None:
            values = waiting.read(request.method, request.params)
            return orjson.dumps(await waiting.run(self, *values))
        # A caller that goes away does not stop what it has asked for.
        done: bytes = await asyncio.shield(self._in_worker(perform, context, request))
        await self._tell(_Seen(context.node.chain.tip.hash, context.node.chain.height))
        return done

    async def _tell(self, tip: _Seen) -> None:
        if tip == self._tip:
            return
        self._tip = tip
        async with self._moved:
            self._moved.notify_all()

    async def wait_for_new(self, timeout: Any, current: str | None = None) -> Json:  # noqa: ASYNC109  the caller's own, in milliseconds
        """Answer when the tip is another than *current*, or than it is now, or after the time."""
        known = self._tip.hash if current is None else read_hash(current, "current_tip")
        return await self._wait(lambda: self._tip.hash != known, timeout)

    async def wait_for_block(self, hash_: str, timeout: Any) -> Json:  # noqa: ASYNC109  the caller's own, in milliseconds
        """Answer when a block is the tip, or after the time."""
        wanted = read_hash(hash_, "blockhash")
        return await self._wait(lambda: self._tip.hash == wanted, timeout)

    async def wait_for_height(self, height: Any, timeout: Any) -> Json:  # noqa: ASYNC109  the caller's own, in milliseconds
        """Answer when the chain is so high, or after the time."""
        wanted = read_integer(height)
        return await self._wait(lambda: self._tip.height >= wanted, timeout)

    async def _wait(self, is_there: Callable[[], bool], timeout_ms: Any) -> Json:
        milliseconds = read_integer(timeout_ms)
        if milliseconds < 0:
            raise InvalidParameter("Negative timeout")
        limit = milliseconds / 1_000 if milliseconds else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit), self._moved:
                await self._moved.wait_for(lambda: is_there() or self._ends_waiting.is_set())
        return self._tip.as_json()

    async def end(self) -> Json:
        """Answer, and tell whoever runs the simulator to stop it."""
        self.stopped.set()
        return STOPPING


WAITING: Final[Mapping[str, Method]] = {
    "waitfornewblock": Method(
        BitcoinSimulator.wait_for_new, (_TIMEOUT, Argument("current_tip", "string", None))
    ),
    "waitforblock": Method(
        BitcoinSimulator.wait_for_block, (Argument("blockhash", "string"), _TIMEOUT)
    ),
    "waitforblockheight": Method(
        BitcoinSimulator.wait_for_height, (Argument("height", "number"), _TIMEOUT)
    ),
    "stop": Method(BitcoinSimulator.end),
}


async def serve(
    settings: BitcoinSimulatorSettings,
    *,
    ready: Callable[[dict[str, Json]], None],
    parent_pipe: bool = False,
) -> None:
    """Run a simulator until SIGINT, SIGTERM, ``stop`` or, with *parent_pipe*, the end of the parent.

    *ready* is called once, with ``BitcoinSimulator.ready_info()``, when calls are answered.

    Raises:
        PortTaken: the port belongs to somebody else.
        KernelMissing: libbitcoinkernel is not installed.
        BadInput: *parent_pipe* is set and standard input is not a pipe.
    """
    simulator = BitcoinSimulator(settings)
    await simulator.start()
    await serve_until_told(
        simulator.stopped,
        ready=lambda: ready(simulator.ready_info()),
        stop=simulator.stop,
        parent_pipe=parent_pipe,
    )
