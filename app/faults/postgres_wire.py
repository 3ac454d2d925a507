"""A wire between a client and PostgreSQL that can be watched, held, and cut at any message.

It speaks just enough of the frontend/backend protocol (version 3, chapter 54 of PostgreSQL's manual) to
tell one request from the next: a request is what the client sends up to and including a Sync or a simple
Query; its answer is what the server sends up to ReadyForQuery. Whoever watches is told of each request
before the server has seen it, and of each answer before the client has: to cut there is to lose exactly
that message. In a database with the marks of `app.faults.marks`, the wire also knows which edges the
open transaction has taken.

The wire listens on a Unix socket, so the client neither asks for TLS nor for a password of its own, and
the kernel tells which process is at the other end.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import tempfile
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, make_url

from app.faults.edges import Edge
from app.faults.marks import edge_of

PORT: Final = 5432
_BEGIN: Final = re.compile(r"^\s*BEGIN\b", re.IGNORECASE)
_COMMIT: Final = re.compile(r"^\s*COMMIT\b", re.IGNORECASE)
_SAVEPOINT: Final = re.compile(r"^\s*(ROLLBACK TO )?SAVEPOINT (\S+?);?\s*$", re.IGNORECASE)
_LENGTH: Final = struct.Struct("!i")
_CREDENTIALS: Final = struct.Struct("3i")
_IDLE: Final = b"I"
_LOST: Final = (ConnectionError, asyncio.IncompleteReadError)
_BUFFER_BYTES: Final = 2**24


@dataclass(frozen=True, slots=True)
class Step:
    """One message on its way: a request, or the answer to one.

    Attributes:
        sql: of the request; white space is single.
        prepares: the statement is only parsed, not run.
        number: of the request, counted from the transaction's BEGIN, which is 0.
        answered: this is the answer.
        backend: process id of the server's process behind this connection.
        peer: process id of the client; 0 where the system does not tell.
        edges: what the open transaction has taken so far, where the database has marks.
        committed: this is the answer to a COMMIT that the server did commit.
    """

    sql: str
    prepares: bool
    number: int
    answered: bool
    backend: int
    peer: int = 0
    edges: tuple[Edge, ...] = ()
    committed: bool = False

    @property
    def name(self) -> str:
        """Return a short text that says where in a transaction this is."""
        verb = "prepare " if self.prepares else ""
        side = "answer to" if self.answered else "request"
        return f"{side} {self.number}: {verb}{self.sql[:60]}"

    @property
    def is_commit(self) -> bool:
        """Tell whether this is a COMMIT or the answer to one."""
        return not self.prepares and _COMMIT.match(self.sql) is not None

    def is_like(self, other: Step) -> bool:
        """Tell whether this is the same message of another transaction.

        Its number may differ: a block that completes a tile of the tree reads one statement more.
        """
        return (self.answered, self.sql) == (other.answered, other.sql)


Watch = Callable[[Step], bool | Awaitable[bool]]
"""Is told of each message before it is passed on; True cuts the wire instead.

Where it returns something to await, the message is held until that is done.
"""


def never(_: Step) -> bool:
    """Let everything pass."""
    return False


@dataclass(slots=True)
class Wire:
    """A way to the server; `watch` may be set anew at any time.

    Attributes:
        url: for `kernel.db.create_engine`.
        cuts: how often the wire was cut.
        taken: how often each edge was taken by a transaction that the server committed.
    """

    url: str
    watch: Watch = never
    cuts: int = 0
    taken: Counter[Edge] = field(default_factory=Counter)
    _lines: set[_Line] = field(default_factory=set)

    def cut_off(self, peer: int | None = None) -> None:
        """Cut every connection, or every one of the process *peer*."""
        for line in list(self._lines):
            if peer is None or line.peer == peer:
                line.abort()


@asynccontextmanager
async def wired(server_url: str, *, within: Path | None = None) -> AsyncIterator[Wire]:
    """Open a wire to a server.

    Args:
        server_url: as `kernel.db.create_engine` takes it.
        within: where its socket's folder is made; the system's temporary folder if None.
    """
    with tempfile.TemporaryDirectory(prefix="wire-", dir=within) as folder:
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
                # The server is down: a client that asks for it is turned away as it would be there.
                writer.transport.abort()
                return
            await _Line(wire, (reader, writer), server).run()

        path = Path(folder) / f".s.PGSQL.{PORT}"
        async with await asyncio.start_unix_server(serve, path, limit=_BUFFER_BYTES) as listening:
            yield wire
            listening.close()
            wire.cut_off()


async def _connect(there: URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = there.query.get("host") or there.host or "localhost", there.port or PORT
    assert isinstance(host, str)
    if host.startswith("/"):
        named = there.query.get("port", str(port))
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{named}", limit=_BUFFER_BYTES)
    return await asyncio.open_connection(host, port, limit=_BUFFER_BYTES)


@dataclass(slots=True, eq=False)
class _Line:
    """One connection over the wire."""

    wire: Wire
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    statements: dict[bytes, str] = field(default_factory=dict)
    waiting: deque[Step] = field(default_factory=deque)
    edges: list[Edge] = field(default_factory=list)
    savepoints: dict[str, int] = field(default_factory=dict)
    number: int = 0
    backend: int = 0
    peer: int = 0
    tag: bytes = b""

    async def run(self) -> None:
        self.peer = _peer_of(self.client[1])
        self.wire._lines.add(self)  # noqa: SLF001  a line belongs to its wire
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ended(self._requests()))
                group.create_task(self._ended(self._answers()))
        except asyncio.CancelledError:
            # The wire is closed: asyncio's stream server reports a handler that was cancelled.
            pass
        finally:
            self.abort()
            self.wire._lines.discard(self)  # noqa: SLF001  a line belongs to its wire

    async def _ended(self, work: Coroutine[Any, Any, None]) -> None:
        """Pass messages on until one side is gone; then both are."""
        with suppress(*_LOST):
            await work
        self.abort()

    def abort(self) -> None:
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
                if await self._is_cut(self._begin(sql, prepares=prepares)):
                    return
                sql, prepares = "", True
            if kind in b"QSdcfpHX":
                writer.write(asked)
                await writer.drain()
                asked.clear()

    def _begin(self, sql: str, *, prepares: bool) -> Step:
        self.number = 0 if _BEGIN.match(sql) else self.number + 1
        if not prepares:
            self._mind_savepoints(sql)
        step = Step(
            sql,
            prepares,
            self.number,
            answered=False,
            backend=self.backend,
            peer=self.peer,
            edges=tuple(self.edges),
        )
        self.waiting.append(step)
        return step

    def _mind_savepoints(self, sql: str) -> None:
        """Forget what a transaction took and takes back."""
        found = _SAVEPOINT.match(sql)
        if found is not None and found[1] is None:
            self.savepoints[found[2]] = len(self.edges)
        elif found is not None:
            del self.edges[self.savepoints.get(found[2], 0) :]

    async def _answers(self) -> None:
        reader, (_, writer) = self.server[0], self.client
        said = bytearray()
        while True:
            kind, body = await _message(reader)
            if kind == b"N" and self._marked(body):
                continue
            said += kind + _LENGTH.pack(len(body) + 4) + body
            match kind:
                case b"K":
                    self.backend = _LENGTH.unpack_from(body)[0]
                case b"C":
                    self.tag = body
                case _:
                    pass
            if kind == b"Z" and self.waiting and await self._is_ended(body):
                return
            if not self.waiting or kind in b"ZG":
                writer.write(said)
                await writer.drain()
                said.clear()

    async def _is_ended(self, status: bytes) -> bool:
        """Tell what was answered; True where the wire is cut there."""
        answer = replace(
            self.waiting.popleft(),
            answered=True,
            edges=tuple(self.edges),
            committed=self.tag.startswith(b"COMMIT"),
        )
        if answer.is_commit and answer.committed:
            self.wire.taken.update(answer.edges)
        cut = await self._is_cut(answer)
        if status == _IDLE:
            self.edges.clear()
            self.savepoints.clear()
        self.tag = b""
        return cut

    def _marked(self, body: bytes) -> bool:
        """Take a mark out of the stream; False for any other notice."""
        fields = {part[:1]: part[1:] for part in body.split(b"\0") if part}
        edge = edge_of(fields.get(b"M", b"").decode(errors="replace"))
        if edge is None:
            return False
        self.edges.append(edge)
        return True

    async def _is_cut(self, step: Step) -> bool:
        verdict = self.wire.watch(step)
        if not isinstance(verdict, bool):
            verdict = await verdict
        self.wire.cuts += verdict
        return verdict


def _peer_of(writer: asyncio.StreamWriter) -> int:
    """Return the process id at the other end of a Unix socket (Linux: SO_PEERCRED); else 0."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return 0
    made = writer.get_extra_info("socket")
    raw = made.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[0])


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(_LENGTH.unpack_from(head, 1)[0] - 4)
