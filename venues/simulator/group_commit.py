"""Many journal records put on the disk with one wait.

Whatever was written while the disk was busy is put there by the next wait. What depends on it
(answers to clients, frames of streams) is held back until then, so nobody hears of a command that
a crash could still undo. Without an event loop, or with nothing to wait for, it happens at once.
"""

import asyncio
from collections.abc import Callable


class GroupCommit:
    """Calls `sync` in a thread, then `settled` with the number of requests that are on the disk."""

    def __init__(
        self,
        sync: Callable[[], None] | None,
        settled: Callable[[int], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._sync = sync
        self._settled = settled
        self._failed = failed
        self._asked = 0
        self._done = 0
        self._is_running = False
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def asked(self) -> int:
        """How many requests there were."""
        return self._asked

    @property
    def is_settled(self) -> bool:
        """Whether all that was requested is on the disk."""
        return self._done == self._asked

    def request(self) -> None:
        """Put on the disk what has been written so far, soon."""
        self._asked += 1
        if self._is_running:
            return
        loop = _running_loop() if self._sync is not None else None
        if loop is None:
            self.now()
            return
        self._is_running = True
        loop.call_soon(self._start, loop)

    def now(self) -> None:
        """Put all on the disk before this returns."""
        if self._sync is not None:
            self._sync()
        self._advance(self._asked)

    async def wait(self) -> None:
        """Wait until all that was requested before is on the disk."""
        if self._done < self._asked:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((self._asked, future))
            await future

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        target = self._asked
        assert self._sync is not None
        syncing = loop.run_in_executor(None, self._sync)

        def done(future: asyncio.Future[None]) -> None:
            error = future.exception()
            if error is not None:
                self._fail(error)
                return
            self._advance(target)
            if self._done < self._asked:
                self._start(loop)
            else:
                self._is_running = False

        syncing.add_done_callback(done)

    def _advance(self, target: int) -> None:
        self._done = max(self._done, target)
        self._settled(self._done)
        ready = [future for asked, future in self._waiting if asked <= self._done]
        self._waiting = [(asked, f) for asked, f in self._waiting if asked > self._done]
        for future in ready:
            if not future.done():
                future.set_result(None)

    def _fail(self, error: BaseException) -> None:
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(error)
        self._waiting.clear()
        self._failed(error if isinstance(error, Exception) else RuntimeError(str(error)))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
