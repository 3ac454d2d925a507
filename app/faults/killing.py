"""What makes a worker, or its server, die at a crash point.

::

    await mark_edges(database.owner_url)
    async with doomed(database.app_url, point) as doom:
        worker = start(doom.url)               # a process of its own
        await doom.struck.wait()               # it has happened
        ...                                    # start it again, over doom.url or not: it goes on

The worker knows nothing of it: it is given an URL that leads over the wire. What strikes, strikes once.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from app.faults.edges import Kind, Moment, Point
from app.faults.postgres_wire import Step, Wire, wired
from kernel.errors import OutsideUnavailable

KillWorker = Callable[[int], None]
"""Ends the worker whose process id it is told."""
KillServer = Callable[[int], Awaitable[None]]
"""Ends PostgreSQL; told the process id of the server's process behind the worker's connection."""


def kill_process(pid: int) -> None:
    """Send SIGKILL to a worker, unless it is a task of this process: then its connections are cut."""
    if pid not in {0, os.getpid()}:
        os.kill(pid, signal.SIGKILL)


async def kill_backend(pid: int) -> None:
    """Send SIGKILL to one process of the server: it ends all others and recovers by itself.

    Returns once the server knows of it. On a busy machine it would let others in for a moment still,
    whom it ends then.

    Raises:
        OutsideUnavailable: it does not look after its processes.
    """
    os.kill(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        for _ in range(_LOOKS):
            os.kill(pid, 0)
            await asyncio.sleep(_LOOK_EVERY_S)
        raise OutsideUnavailable(
            f"PostgreSQL has not noticed that its process {pid} is dead",
            remedy="Look whether the server itself stands still",
        )


_LOOK_EVERY_S: Final = 0.01
_LOOKS: Final = 3_000


@dataclass(slots=True)
class Doom:
    """What strikes whoever uses `url` once its transaction takes the point's edge.

    Attributes:
        url: for the worker.
        struck: set when it has happened; for `Kind.SECOND_WORKER`, when the worker stands still.
        step: the message at which it happened.
    """

    point: Point
    wire: Wire
    kill_worker: KillWorker = kill_process
    kill_server: KillServer = kill_backend
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    step: Step | None = None
    _going_on: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Return the way to the database."""
        return self.wire.url

    def go_on(self) -> None:
        """Let a worker that stands still go on."""
        self._going_on.set()

    def watch(self, step: Step) -> bool | Awaitable[bool]:
        """Strike at the point, and let everything else pass."""
        if self.step is not None or not self.is_there(step):
            return False
        self.step = step
        return self._strike(step)

    def is_there(self, step: Step) -> bool:
        """Tell whether a message is the one at which the point's moment is."""
        if not step.is_commit or self.point.edge not in step.edges:
            return False
        if self.point.moment is Moment.AFTER_COMMIT:
            return step.answered and step.committed
        return not step.answered

    async def _strike(self, step: Step) -> bool:
        """Do what the point says; True where the message is lost."""
        cut = self.point.kind in {Kind.WORKER_KILLED, Kind.CUT}
        match self.point.kind:
            case Kind.WORKER_KILLED:
                self.kill_worker(step.peer)
                self.wire.cut_off(step.peer)
            case Kind.SERVER_KILLED:
                await self.kill_server(step.backend)
                # The request never arrives; an answer that had left the server still does.
                cut = not step.answered
            case Kind.SECOND_WORKER:
                self.struck.set()
                await self._going_on.wait()
            case Kind.CUT | Kind.DELIVERED_TWICE:
                pass
        self.struck.set()
        return cut


@asynccontextmanager
async def doomed(
    server_url: str,
    point: Point,
    *,
    kill_worker: KillWorker = kill_process,
    kill_server: KillServer = kill_backend,
) -> AsyncIterator[Doom]:
    """Open a way to the database on which *point* strikes once.

    Args:
        server_url: of a database that has the marks of `app.faults.marks`.
        point: where and how.
        kill_worker: ends the worker's process, which the kernel names.
        kill_server: ends PostgreSQL; the default needs the right to send its processes signals.
    """
    async with wired(server_url) as wire:
        doom = Doom(point, wire, kill_worker, kill_server)
        wire.watch = doom.watch
        try:
            yield doom
        finally:
            doom.go_on()
