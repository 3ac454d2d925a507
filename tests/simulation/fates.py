"""How a process ends in the middle of its work: at a commit chosen in advance, and nowhere by chance.

A life is one process as far as PostgreSQL can tell: an engine of its own with one connection, so that
never two of its statements are on their way at once. `Fate` ends it at its next commit but *after*:
just before, just after, or so that only the answer is lost, and kills the server where that is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Any, Final

import asyncpg
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import APP_ROLE, create_engine
from kernel.errors import CausewayError
from tests.compiled import compiling_once

IDLE_MS: Final = 60_000
GONE_WITHIN_S: Final = 20.0
"""How long PostgreSQL may take to notice that a client has vanished."""
LOOK_EVERY_S: Final = 0.005


class Killed(BaseException):
    """The process is gone: nobody catches this."""


@unique
class Moment(Enum):
    """Where in a transaction something ends."""

    BEFORE_COMMIT = "killed before a commit"
    AFTER_COMMIT = "killed after a commit"
    ANSWER_LOST = "the answer to a commit lost"
    SERVER_KILLED = "database killed before a commit"


@dataclass(slots=True)
class Fate:
    """What will happen at one commit of a life.

    Attributes:
        moment: what happens; None: nothing.
        after: commits that go well before.
        server: kills the PostgreSQL server, given the process id of the life's own backend.
        met: whether it has come true.
    """

    moment: Moment | None = None
    after: int = 0
    server: Callable[[int], None] | None = None
    met: bool = False
    _dying: bool = False

    def arm(self, moment: Moment | None, after: int) -> None:
        """Be due at the commit after *after* others."""
        self.moment, self.after, self.met, self._dying = moment, after, False, False

    def commit(self, conn: Connection) -> None:
        """Let a commit be sent, unless this is the one."""
        if self.moment is None or self.met:
            return
        if self.after:
            self.after -= 1
            return
        self.met = True
        match self.moment:
            case Moment.BEFORE_COMMIT:
                raise Killed
            case Moment.AFTER_COMMIT:
                self._dying = True
            case Moment.ANSWER_LOST:
                conn.connection.commit()
                conn.invalidate()
                raise OSError("the connection was reset")
            case Moment.SERVER_KILLED:
                assert self.server is not None
                self.server(backend_of(conn.connection))

    def end(self) -> None:
        """Die of the commit that went before."""
        if self._dying:
            self._dying = False
            raise Killed


@dataclass(slots=True)
class Life:
    """One process of the house, from its start to its end."""

    url: str
    name: str
    fate: Fate = field(default_factory=Fate)
    trouble: str = ""
    """What its last turn ended with, by name; "": nothing."""
    _engine: AsyncEngine | None = None
    _sockets: list[Any] = field(default_factory=list)

    @property
    def engine(self) -> AsyncEngine:
        """The engine of this process, with one connection."""
        if self._engine is None:
            self._engine = one_connection(self.url)
            listened = self._engine.sync_engine
            event.listen(listened, "connect", lambda socket, _: self._sockets.append(socket))
            event.listen(listened, "begin", lambda _: self.fate.end())
            event.listen(listened, "commit", self.fate.commit)
        return self._engine

    async def take(self, turn: Callable[[], Awaitable[object]]) -> bool:
        """Take a turn and tell whether the process outlived it; foreseen trouble is only noted.

        Raises:
            DBAPIError: PostgreSQL refused something: nobody has foreseen that.
        """
        self.trouble, lives = "", True
        try:
            await turn()
            self.fate.end()
        except* Killed:
            lives = False
        except* CausewayError as errors:
            self.trouble = ",".join(sorted({type(one).__name__ for one in flat(errors)}))
        except* DBAPIError as errors:
            if not all(getattr(one, "connection_invalidated", False) for one in flat(errors)):
                raise
            self.trouble = "ConnectionLost"
        return lives

    async def bury(self, witness: AsyncEngine) -> None:
        """Close what the kernel closes for a process that is gone, and wait until PostgreSQL knows."""
        backends = [backend_of(one) for one in self._sockets if not is_closed(one)]
        for socket in self._sockets:
            socket.driver_connection.terminate()
        await self.close()
        await gone(witness, backends)

    async def close(self) -> None:
        """End in peace."""
        if self._engine is not None:
            await self._engine.dispose()


def one_connection(url: str) -> AsyncEngine:
    """Return an engine that never has two statements on their way, and is told the time."""
    engine = create_engine(
        url,
        role=APP_ROLE,
        pool_size=1,
        injected_clock=True,
        idle_in_transaction_timeout_ms=IDLE_MS,
    )
    return compiling_once(engine)


def backend_of(socket: Any) -> int:
    """Return the process id of the server process behind a connection."""
    raw: asyncpg.Connection = socket.driver_connection
    return int(raw.get_server_pid())


def is_closed(socket: Any) -> bool:
    """Tell whether a connection has ended."""
    return bool(socket.driver_connection.is_closed())


def flat(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    """Return the errors of a group and of the groups in it."""
    return [
        leaf
        for one in group.exceptions
        for leaf in (flat(one) if isinstance(one, BaseExceptionGroup) else [one])
    ]


async def gone(witness: AsyncEngine, backends: list[int]) -> None:
    """Wait until none of these server processes is left: what they had locked is free then."""
    if not backends:
        return
    query = text("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(:pids)")
    async with asyncio.timeout(GONE_WITHIN_S), witness.connect() as conn:
        while await conn.scalar(query, {"pids": backends}):
            await conn.rollback()
            await asyncio.sleep(LOOK_EVERY_S)
