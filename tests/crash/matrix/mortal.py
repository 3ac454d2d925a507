"""Whoever works in a story of the matrix, and what becomes of them at a crash point.

A story is told by what people and workers do; each such *act* is mortal. Its transactions go over the
wire on which the point strikes, everything else a test does goes another way. Whoever dies is followed
by another who does the act anew, as the next turn of a worker would, or a person who looks and asks
again. The story goes on and has to end as if nothing had been.

A worker here is a task: to be killed, it is cancelled where it waits and its connections are cut, so
that nothing of it happens any more. Workers that are processes of their own are in `test_processes`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import asyncpg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.faults.edges import Kind, Moment, Point
from app.faults.killing import Doom
from app.faults.postgres_wire import Wire, wired
from app.local.databases import Database
from kernel.db import APP_ROLE, create_engine, transact
from kernel.errors import CausewayError, Refused
from tests.compiled import compiling_once

T = TypeVar("T")

ANSWERS_WITHIN_S: Final = 60.0
"""PostgreSQL recovers in a second; the machine may be busy."""
IDLE_MS: Final = 60_000
LOOK_EVERY_S: Final = 0.02
AWAITED: Final = text(
    "SELECT count(*) FROM pg_locks WHERE NOT granted AND :backend = ANY(pg_blocking_pids(pid))"
)
LIVES_MAX: Final = 3
FORESEEN: Final = (CausewayError, DBAPIError, OSError)


class Killed(Exception):
    """Whoever did the act is dead."""


@dataclass
class Mortal:
    """The acts of one story, and the doom over them.

    Attributes:
        direct: the way to the database of everybody who is not at an act.
        wire: what the acts go over.
        doom: what strikes; None: nothing does.
        pass_lease: lets so much time pass that a lease ends.
        rename: gives the worker another name, as another process would have.
    """

    direct: AsyncEngine
    over_wire: AsyncEngine
    wire: Wire
    database: Database
    doom: Doom | None = None
    pass_lease: Callable[[], object] = lambda: None
    rename: Callable[[str], object] = lambda _: None
    acting: ContextVar[bool] = field(default_factory=lambda: ContextVar("acting", default=False))
    lives: int = 0

    @property
    def engine(self) -> AsyncEngine:
        """Return an engine that leads over the wire during an act, and straight otherwise."""
        return cast("AsyncEngine", TwoWays(self))

    @property
    def struck(self) -> bool:
        """Tell whether the point has struck."""
        return self.doom is not None and self.doom.step is not None

    def make_mortal(self, patch: pytest.MonkeyPatch, kind: type, *names: str) -> None:
        """Make these methods of a class acts, as long as *patch* lasts."""
        for name in names:
            patch.setattr(kind, name, self._mortal(getattr(kind, name)))

    def make_asking_mortal(self, patch: pytest.MonkeyPatch, kind: type, name: str) -> None:
        """Make the method by which people have a transaction done an act."""
        mortal = self

        async def asked(self: Any, work: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
            return await mortal.ask(work)

        patch.setattr(kind, name, asked)

    def _mortal(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(method)
        async def act(*args: Any, **named: Any) -> Any:
            return await self.act(lambda: method(*args, **named))

        return act

    async def ask(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Have one transaction done, as people do: who is cut off looks, and asks again if it is not.

        What is delivered twice is asked for again although it is done; that it is refused then, or
        answered in another way, is no news to whoever was answered before.
        """
        if self.acting.get():
            return await transact(self.over_wire, work)
        said: list[T] = []

        async def noted(conn: AsyncConnection) -> T:
            said.append(await work(conn))
            return said[-1]

        before = self.struck
        try:
            done = await self.act(
                lambda: transact(self.over_wire, noted),
                again=lambda: not self.is_decided or self._is_again,
                is_turn=False,
            )
        except (Killed, *FORESEEN) as error:
            if before or not self.struck or not said:
                raise
            if not (self.is_decided or isinstance(error, Refused)):
                raise
            await self.revive()
            return said[0] if self.is_decided else said[-1]
        if before or not self.struck:
            return done
        if self.is_decided:
            return said[0]
        # Who comes second finds nothing left to do: the answer is that of whoever did it.
        return next((answer for answer in reversed(said) if answer), done)

    async def act(
        self,
        work: Callable[[], Awaitable[T]],
        *,
        again: Callable[[], bool] = lambda: True,
        is_turn: bool = True,
    ) -> T:
        """Do something that may be struck; then another does it anew, if *again* says so.

        A turn of a worker is followed by the next one also when it has ended well: it may have noted
        that something is unknown, and left it.

        Raises:
            Killed: it was struck, and nobody does it again.
            CausewayError: nothing had struck, or what was done anew is refused.
        """
        if self.acting.get():
            return await work()
        for _ in range(LIVES_MAX):
            before = self.struck
            try:
                done = await self._life(work)
            except (Killed, *FORESEEN):
                if before or not self.struck or not again():
                    raise
            else:
                if before or not self.struck:
                    return done
                if not self._is_again and not (is_turn and self._may_be_unknown):
                    await self.revive()
                    return done
            self._go_on()
            await self.revive()
        raise AssertionError("whoever is struck once is not struck again")

    @property
    def is_decided(self) -> bool:
        """Tell whether the act that was struck had been committed."""
        assert self.doom is not None
        return self.doom.point.moment is Moment.AFTER_COMMIT

    @property
    def _is_again(self) -> bool:
        """Tell whether another life follows although the first one has ended well."""
        assert self.doom is not None
        return self.doom.point.kind in {Kind.DELIVERED_TWICE, Kind.SECOND_WORKER}

    @property
    def _may_be_unknown(self) -> bool:
        """Tell whether who lives on may not know what became of it."""
        assert self.doom is not None
        return self.doom.point.kind in {Kind.CUT, Kind.SERVER_KILLED}

    def _go_on(self) -> None:
        self.lives += 1
        self.pass_lease()
        self.rename(f"life-{self.lives}")

    async def _life(self, work: Callable[[], Awaitable[T]]) -> T:
        before = self.struck
        task = self._begin(work)
        if self.doom is None or before:
            return await task
        strike = asyncio.get_running_loop().create_task(self.doom.struck.wait())
        await asyncio.wait({task, strike}, return_when=asyncio.FIRST_COMPLETED)
        strike.cancel()
        if self.struck:
            # A server's connections are gone before it knows itself that it has to begin anew.
            await self.doom.struck.wait()
        match self.doom.point.kind if self.doom.struck.is_set() else None:
            case Kind.WORKER_KILLED:
                task.cancel()
                await asyncio.wait({task})
                raise Killed
            case Kind.SECOND_WORKER:
                # The others do its work while it stands still; then it finds out.
                self._go_on()
                assert self.doom.step is not None
                done = asyncio.Event()
                watching = self._end_if_awaited(self.doom.step.backend, done)
                ending = asyncio.get_running_loop().create_task(watching)
                try:
                    with suppress(*FORESEEN):
                        await self._begin(work)
                finally:
                    done.set()
                    await ending
                self.doom.go_on()
            case _:
                pass
        return await task

    async def _end_if_awaited(self, backend: int, done: asyncio.Event) -> None:
        """End the session that stands still as soon as somebody waits for what it has locked.

        In a house the server does that, two seconds after the session's last word. Here a story goes on
        at once, and nobody is ended who is only slow because the machine is busy.
        """
        while not done.is_set():
            async with self.direct.connect() as conn:
                awaited = await conn.scalar(AWAITED, {"backend": backend})
            if awaited:
                os.kill(backend, signal.SIGTERM)
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), LOOK_EVERY_S)

    def _begin(self, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        async def run() -> T:
            self.acting.set(True)
            return await work()

        life: Coroutine[Any, Any, T] = run()
        return asyncio.get_running_loop().create_task(life)

    async def revive(self) -> None:
        """Wait until PostgreSQL answers again, and forget the connections that may be lost."""
        kind = None if self.doom is None else self.doom.point.kind
        if kind is not Kind.DELIVERED_TWICE:
            await self.over_wire.dispose()
        if kind is Kind.SERVER_KILLED:
            await self.direct.dispose()
        url = make_url(self.database.app_url).set(drivername="postgresql")
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            while True:
                with suppress(OSError, asyncpg.PostgresError):
                    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
                    await connection.close()
                    return
                await asyncio.sleep(0.02)


class TwoWays:
    """What code takes for an engine: the wire for who is at an act, the straight way for all others."""

    def __init__(self, mortal: Mortal) -> None:
        self._mortal = mortal

    def __getattr__(self, name: str) -> Any:
        mortal = self._mortal
        return getattr(mortal.over_wire if mortal.acting.get() else mortal.direct, name)


def engine_to(url: str) -> AsyncEngine:
    """Return an engine that takes the time from a story and compiles nothing that another one has."""
    engine = create_engine(
        url, role=APP_ROLE, idle_in_transaction_timeout_ms=IDLE_MS, injected_clock=True
    )
    return compiling_once(engine)


@asynccontextmanager
async def mortals(
    database: Database, point: Point | None, within: Path | None = None
) -> AsyncIterator[Mortal]:
    """Give a story's mortals in a database that has the marks of `app.faults.marks`.

    Args:
        database: of this story alone.
        point: where somebody dies, if anybody does.
        within: where the wire's socket lies; the system's temporary folder if None.
    """
    async with wired(database.app_url, within=within) as wire:
        direct, over_wire = engine_to(database.app_url), engine_to(wire.url)
        made = Mortal(direct, over_wire, wire, database)
        if point is not None:
            made.doom = Doom(point, wire)
            wire.watch = made.doom.watch
        try:
            yield made
        finally:
            if made.doom is not None:
                made.doom.go_on()
            await over_wire.dispose()
            await direct.dispose()
