"""A wire between a client and PostgreSQL that can be watched, and cut at any message.

It speaks just enough of the frontend/backend protocol (version 3) to tell one request from the
next: a request is what the client sends up to and including a Sync or a simple Query; its answer is
what the server sends up to ReadyForQuery. Whoever watches is told of each request before the server
has seen it, and of each answer before the client has: to cut there is to lose exactly that message.

The wire listens on a Unix socket, so the client neither asks for TLS nor for a password of its own.
"""

from __future__ import annotations

import asyncio
import re
import struct
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, make_url

from ledger import statements

PORT: Final = 5432
_BEGIN: Final = re.compile(r"^\s*BEGIN\b", re.IGNORECASE)
_LENGTH: Final = struct.Struct("!i")
_LOST: Final = (ConnectionError, asyncio.IncompleteReadError)


@dataclass(frozen=True, slots=True)
class Step:
    """One message on its way: a request, or the answer to one.

    Attributes:
        sql: of the request; white space is single.
        prepares: the statement is only parsed, not run.
        number: of the request, counted from the transaction's BEGIN, which is 0.
        answered: this is the answer.
        backend: process id of the server's process behind this connection.
    """

    sql: str
    prepares: bool
    number: int
    answered: bool
    backend: int

    @property
    def name(self) -> str:
        """Return a short text that says where in a transaction this is."""
        verb = "prepare " if self.prepares else ""
        side = "answer to" if self.answered else "request"
        return f"{side} {self.number}: {verb}{self.sql[:60]}"

    def is_like(self, other: Step) -> bool:
        """Tell whether this is the same message of another transaction.

        Its number may differ: a block that completes a tile of the tree reads one statement more.
        """
        return (self.answered, self.sql) == (other.answered, other.sql)


def is_lock(step: Step) -> bool:
    """Tell whether a message belongs to the statement that locks the head."""
    return step.sql == " ".join(statements.LOCK_AND_READ.split())


def is_written(step: Step) -> bool:
    """Tell whether a message belongs to the statement that writes the new head."""
    return "UPDATE ledger.head" in step.sql


Watch = Callable[[Step], bool]
"""Is told of each message before it is passed on; True cuts the wire instead."""


def never(step: Step) -> bool:
    """Let everything pass."""
    return False


@dataclass(slots=True)
class Wire:
    """A way to the server; `watch` may be set anew at any time."""

    url: str
    watch: Watch = never
    cuts: int = 0


@asynccontextmanager
async def wired(server_url: str) -> AsyncIterator[Wire]:
    """Open a wire to the server of *server_url*, an URL as `kernel.db.create_engine` takes it."""
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        there = make_url(server_url)
        here = URL.create(
            there.drivername,
            username=there.username,
            password=there.password,
            database=there.database,
            query={"host": folder, "port": str(PORT)},
        )
        wire = Wire(here.render_as_string(hide_password=False))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                server = await _connect(there)
            except OSError:
                writer.transport.abort()
                return
            await _Line(wire, (reader, writer), server).run()

        path = Path(folder) / f".s.PGSQL.{PORT}"
        async with await asyncio.start_unix_server(serve, path, limit=2**24) as listening:
            yield wire
            listening.close()


async def _connect(there: URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = there.query.get("host") or there.host or "localhost", there.port or PORT
    assert isinstance(host, str)
    if host.startswith("/"):
        named = there.query.get("port", str(port))
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{named}", limit=2**24)
    return await asyncio.open_connection(host, port, limit=2**24)


@dataclass(slots=True)
class _Line:
    """One connection over the wire."""

    wire: Wire
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    statements: dict[bytes, str] = field(default_factory=dict)
    waiting: deque[Step] = field(default_factory=deque)
    number: int = 0
    backend: int = 0

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ended(self._requests()))
                group.create_task(self._ended(self._answers()))
        except asyncio.CancelledError:
            # The wire is closed: asyncio's stream server reports a handler that was cancelled.
            pass
        finally:
            self._abort()

    async def _ended(self, work: Coroutine[Any, Any, None]) -> None:
        """Pass messages on until one side is gone; then both are."""
        with suppress(*_LOST):
            await work
        self._abort()

    def _abort(self) -> None:
        self.client[1].transport.abort()
        self.server[1].transport.abort()

    async def _requests(self) -> None:
        reader, (_, writer) = self.client[0], self.server
        size = await reader.readexactly(4)
        writer.write(size + await reader.readexactly(_LENGTH.unpack(size)[0] - 4))
        asked, sql, prepares = bytearray(), "", True
        while True:
            kind, body = await _message(reader)
            asked += kind + _LENGTH.pack(len(body) + 4) + body
            match kind:
                case b"P":
                    name, text = body.split(b"\0")[:2]
                    sql = self.statements[name] = " ".join(text.decode().split())
                case b"B":
                    sql, prepares = self.statements[body.split(b"\0")[1]], False
                case b"Q":
                    sql, prepares = " ".join(body.rstrip(b"\0").decode().split()), False
                case _:
                    pass
            if kind in b"QS":
                if self._is_cut(self._begin(sql, prepares=prepares)):
                    return
                sql, prepares = "", True
            if kind in b"QSdcfpHX":
                writer.write(asked)
                await writer.drain()
                asked.clear()

    def _begin(self, sql: str, *, prepares: bool) -> Step:
        self.number = 0 if _BEGIN.match(sql) else self.number + 1
        step = Step(sql, prepares, self.number, answered=False, backend=self.backend)
        self.waiting.append(step)
        return step

    async def _answers(self) -> None:
        reader, (_, writer) = self.server[0], self.client
        said = bytearray()
        while True:
            kind, body = await _message(reader)
            said += kind + _LENGTH.pack(len(body) + 4) + body
            if kind == b"K":
                self.backend = _LENGTH.unpack_from(body)[0]
            if kind == b"Z" and self.waiting:
                step = self.waiting.popleft()
                answer = Step(step.sql, step.prepares, step.number, True, self.backend)
                if self._is_cut(answer):
                    return
            if not self.waiting or kind in b"ZG":
                writer.write(said)
                await writer.drain()
                said.clear()

    def _is_cut(self, step: Step) -> bool:
        if not self.wire.watch(step):
            return False
        self.wire.cuts += 1
        return True


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(_LENGTH.unpack_from(head, 1)[0] - 4)
