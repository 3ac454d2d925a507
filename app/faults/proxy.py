"""A TCP proxy that fails on order: between a house and PostgreSQL, a node, a venue, a bank.

It knows nothing of what it carries: it takes bytes from one side and passes them to the other, unless
a rule says otherwise (`app.faults.wire_rules`). Rules are set through the object, through ``/faults``
of its control address while it runs, or by a storm that a seed draws. New rules are in force at once,
also for connections that are open: a cut without `after_bytes` cuts what is idle.

PostgreSQL that listens on a Unix socket only is reached by its path: the client then speaks TCP to the
proxy, and the proxy speaks to the socket.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import orjson
from aiohttp import web
from sqlalchemy import make_url

from app.faults.wire_rules import Fault, Lane, Rule, Step, Tally, Way, read_rules, rule_json
from kernel.errors import BadInput, OutsideUnavailable

CONTROL_PATH: Final = "/faults"
PIECE_BYTES_MAX: Final = 64 * 1024
CONNECT_S_MAX: Final = 10.0
SHUTDOWN_GRACE_S: Final = 0.2
POSTGRES_PORT: Final = 5432
#: SO_LINGER on with no time: close(2) sends RST instead of FIN (socket(7)).
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)

Target = tuple[str, int] | Path
"""Where the server listens: host and port, or a Unix socket."""
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def read_target(text: str) -> Target:
    """Return the server that ``HOST:PORT`` or ``unix:/path`` names.

    Raises:
        BadInput: it is neither.
    """
    if text.startswith("unix:"):
        return Path(text.removeprefix("unix:"))
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise BadInput(
            f"{text!r} names no server", remedy="Write HOST:PORT, or unix:/path of its socket"
        )
    return host.strip("[]"), int(port)


def postgres_target(url: str) -> Target:
    """Return where the server of a database URL listens."""
    there = make_url(url)
    host = there.query.get("host") or there.host or "localhost"
    port = there.query.get("port") or there.port or POSTGRES_PORT
    assert isinstance(host, str)
    if host.startswith("/"):
        return Path(host) / f".s.PGSQL.{port}"
    return host, int(str(port))


class FaultProxy:
    """One proxy before one server. Use it as an asynchronous context manager.

    Args:
        target: the server; it need not be there yet.
        host: address to listen on.
        port: to listen on; 0 takes any free one.
        control_port: of ``/faults``; 0 takes any free one, None opens none.
        rules: in force from the start.
    """

    def __init__(
        self,
        target: Target,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        control_port: int | None = None,
        rules: Sequence[Rule] = (),
    ) -> None:
        self.target = target
        self.host = host
        self.connections = 0
        self._asked = (port, control_port)
        self._tallies = [Tally(rule) for rule in rules]
        self._lines: list[_Line] = []
        self._listening: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None
        self._serving: set[asyncio.Task[Any]] = set()

    @property
    def port(self) -> int:
        """Return the port that clients connect to; only after `start`."""
        assert self._listening is not None
        return int(self._listening.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Return ``http://…`` of the proxy, for a server that speaks HTTP."""
        return f"http://{self.host}:{self.port}"

    @property
    def control_url(self) -> str:
        """Return the address of ``/faults``; only after `start`, with a control port."""
        assert self._runner is not None
        return f"http://{self.host}:{self._runner.addresses[0][1]}{CONTROL_PATH}"

    def database_url(self, server_url: str) -> str:
        """Return a database URL that leads through the proxy instead of straight to its server."""
        there = make_url(server_url)
        query = {name: value for name, value in there.query.items() if name not in {"host", "port"}}
        return there.set(host=self.host, port=self.port, query=query).render_as_string(
            hide_password=False
        )

    async def __aenter__(self) -> Self:
        """Listen."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and cut every connection."""
        await self.stop()

    async def start(self) -> None:
        """Listen.

        Raises:
            OutsideUnavailable: a port belongs to somebody else.
        """
        port, control_port = self._asked
        try:
            self._listening = await asyncio.start_server(
                self._serve, self.host, port, limit=PIECE_BYTES_MAX
            )
            if control_port is not None:
                await self._open_control(control_port)
        except OSError as error:
            await self.stop()
            if error.errno != errno.EADDRINUSE:
                raise
            raise OutsideUnavailable(
                f"port {port} or {control_port} on {self.host} is already in use",
                where="fault proxy",
                remedy="Stop the process that holds it, or choose others",
            ) from error

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._listening is not None:
            self._listening.close()
        self.cut()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        if self._listening is not None:
            await self._listening.wait_closed()
            self._listening = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def set(self, *rules: Rule) -> None:
        """Put these rules in force instead of all others, for open connections too."""
        self._tallies = [Tally(rule) for rule in rules]
        for line in list(self._lines):
            line.put_under(self._met())

    def clear(self) -> None:
        """Let everything pass; what was swallowed or cut stays so."""
        self.set()

    def cut(self, *, reset: bool = False) -> int:
        """Cut every open connection once, and return how many there were."""
        cut = list(self._lines)
        for line in cut:
            line.end(Fault.RESET if reset else Fault.CUT)
        return len(cut)

    async def play(self, steps: Iterable[Step]) -> None:
        """Put the rules of a storm in force, each at its time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for step in steps:
            await asyncio.sleep(max(0.0, began + step.at_s - loop.time()))
            self.set(*step.rules)

    def show(self) -> dict[str, Any]:
        """Return the rules with their counts, and the connections, as JSON."""
        return {
            "rules": [
                {**rule_json(tally.rule), "seen": tally.seen, "struck": tally.struck}
                for tally in self._tallies
            ],
            "connections": {"open": len(self._lines), "ever": self.connections},
        }

    def _met(self) -> list[Rule]:
        """Return the rules that strike the next connection."""
        return [tally.rule for tally in self._tallies if tally.meet()]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._carry(reader, writer)
        except asyncio.CancelledError:
            # The proxy stops: asyncio's stream server reports a handler that was cancelled.
            pass
        finally:
            self._serving.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        rules = self._met()
        if any(rule.fault is Fault.REFUSE for rule in rules):
            _end(writer, Fault.RESET)
            return
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                server = await _connect(self.target)
        except (OSError, TimeoutError):
            _end(writer, Fault.RESET)
            return
        line = _Line((reader, writer), server)
        self._lines.append(line)
        try:
            line.put_under(rules)
            await line.run()
        finally:
            self._lines.remove(line)
            line.close()

    async def _open_control(self, port: int) -> None:
        app = web.Application()
        app.router.add_get(CONTROL_PATH, self._show_rules)
        app.router.add_put(CONTROL_PATH, self._set_rules)
        app.router.add_delete(CONTROL_PATH, self._clear_rules)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_GRACE_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, port).start()

    async def _show_rules(self, _: web.Request) -> web.Response:
        return web.json_response(self.show())

    async def _set_rules(self, request: web.Request) -> web.Response:
        try:
            rules = read_rules(orjson.loads(await request.read()))
        except (BadInput, orjson.JSONDecodeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        self.set(*rules)
        return web.json_response(self.show())

    async def _clear_rules(self, _: web.Request) -> web.Response:
        self.clear()
        return web.json_response(self.show())


@dataclass(slots=True)
class _Line:
    """One connection through the proxy."""

    client: Stream
    server: Stream
    lanes: dict[Way, Lane] = field(
        default_factory=lambda: {way: Lane(way) for way in (Way.TO_SERVER, Way.TO_CLIENT)}
    )
    asleep: list[Rule] = field(default_factory=list)

    def put_under(self, rules: Sequence[Rule]) -> None:
        """Put other rules in force; who lost bytes meanwhile cannot go on, and is reset."""
        if any(lane.lost for lane in self.lanes.values()):
            self.end(Fault.RESET)
            return
        self.asleep = [rule for rule in rules if rule.heard]
        for lane in self.lanes.values():
            lane.put_under([rule for rule in rules if not rule.heard])
            ends = lane.ends_now()
            if ends is not None:
                self.end(ends)

    def hear(self, data: bytes) -> None:
        """Wake the rules that wait for something that now passes to the server."""
        woken = [rule for rule in self.asleep if rule.heard.encode() in data]
        self.asleep = [rule for rule in self.asleep if rule not in woken]
        for lane in self.lanes.values():
            lane.add(woken)

    def end(self, how: Fault) -> None:
        """End both ways at once: what is still on its way is lost."""
        _end(self.client[1], how)
        _end(self.server[1], how)

    def close(self) -> None:
        """Close both sides, after what was written."""
        self.client[1].close()
        self.server[1].close()

    async def run(self) -> None:
        """Pass bytes on until both ways are closed, or one is broken."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass(Way.TO_SERVER, self.client[0], self.server[1]))
            group.create_task(self._pass(Way.TO_CLIENT, self.server[0], self.client[1]))

    async def _pass(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(PIECE_BYTES_MAX):
                if way is Way.TO_SERVER and self.asleep:
                    self.hear(data)
                fate = self.lanes[way].meet(data)
                if fate.wait_s:
                    await asyncio.sleep(fate.wait_s)
                writer.write(fate.passed)
                await writer.drain()
                if fate.ends is Fault.CUT:
                    # What passed before the cut arrives.
                    writer.close()
                if fate.ends is not None:
                    self.end(fate.ends)
                    return
            # Whoever swallows bytes swallows the end of the connection too.
            if not self.lanes[way].takes_the_end() and writer.can_write_eof():
                writer.write_eof()
        except OSError:
            self.end(Fault.RESET)


async def _connect(target: Target) -> Stream:
    if isinstance(target, Path):
        return await asyncio.open_unix_connection(target, limit=PIECE_BYTES_MAX)
    return await asyncio.open_connection(*target, limit=PIECE_BYTES_MAX)


def _end(writer: asyncio.StreamWriter, how: Fault) -> None:
    """Close a side at once: with FIN, or with RST where its socket knows one."""
    transport = writer.transport
    if transport.is_closing() and how is Fault.CUT:
        return
    opened = transport.get_extra_info("socket")
    if how is Fault.RESET and opened is not None and opened.family != socket.AF_UNIX:
        with suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    transport.abort()
