"""A consumer of a bounded queue that writes to a disk, in a thread of its own.

The socket's thread never waits for it: while the disk is slow the queue fills, and when the queue is
full it drops and says how much. Whatever is still in the queue when the recorder is stopped is
written before it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final, Generic, Protocol, TypeVar

import structlog

from marketdata.consumers import LosslessQueue, Overflow, Received
from marketdata.recording.model import RecordedFile

BATCH_MAX: Final = 8_192
"""Items handed to the disk at once."""

R = TypeVar("R", bound=Received)
S = TypeVar("S", bound=Received, contravariant=True)

log = structlog.get_logger()


class Sink(Protocol[S]):
    """What a recorder writes to: a `RawWriter`, a `Deriver`. Its calls may take their time."""

    finished: list[RecordedFile]

    def write(self, items: Sequence[S | Overflow]) -> None:
        """Take *items*, in order."""
        ...

    def flush(self) -> None:
        """Make what was taken survive a crash, as far as this sink promises it."""
        ...

    def close(self) -> None:
        """Finish everything."""
        ...


class Recorder(Generic[R]):
    """Carries items from a queue to a sink until it is cancelled.

    Attributes:
        taken: items handed to the sink so far.
    """

    def __init__(
        self,
        queue: LosslessQueue[R],
        sink: Sink[R],
        *,
        flush_every: timedelta = timedelta(seconds=1),
        on_finished: Callable[[RecordedFile], object] = lambda _: None,
    ) -> None:
        """Flush at least every *flush_every*; *on_finished* is told of each finished file."""
        self.taken = 0
        self._queue = queue
        self._sink = sink
        self._flush_every_s = flush_every.total_seconds()
        self._on_finished = on_finished

    async def run(self) -> None:
        """Record until cancelled; then write what is left, and close the sink.

        Raises:
            OSError: what the sink raised; it is closed all the same.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="recorder") as thread:
            try:
                await self._carry(thread)
            finally:
                # One thread does it all, in order: this comes behind whatever it does just now.
                await _done(thread, self._end)
                self._tell()

    async def _carry(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._flush_every_s
        while True:
            batch = await self._batch(due_s - loop.time())
            if batch:
                self.taken += len(batch)
                await _done(thread, self._sink.write, batch)
            if loop.time() >= due_s:
                await _done(thread, self._sink.flush)
                due_s = loop.time() + self._flush_every_s
            self._tell()

    async def _batch(self, patience_s: float) -> Sequence[R | Overflow]:
        try:
            async with asyncio.timeout(max(0, patience_s)):
                return await self._queue.get_batch(BATCH_MAX)
        except TimeoutError:
            return ()

    def _end(self) -> None:
        try:
            while batch := self._queue.take_nowait(BATCH_MAX):
                self.taken += len(batch)
                self._sink.write(batch)
        finally:
            self._sink.close()

    def _tell(self) -> None:
        while self._sink.finished:
            file = self._sink.finished.pop(0)
            log.info("recording finished", path=file.path, rows=file.rows, gaps=file.gaps)
            self._on_finished(file)


async def _done(thread: ThreadPoolExecutor, act: Callable[..., None], *arguments: object) -> None:
    """Let the thread do it. Whoever is cancelled meanwhile leaves it to be done all the same."""
    await asyncio.shield(asyncio.wrap_future(thread.submit(act, *arguments)))
